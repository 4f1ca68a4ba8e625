"""--help of a verb in a fraction of a second: without PyTorch, and without the lists of groups that Hydra would make."""

import string

from hydra._internal.utils import get_args_parser
from hydra.core.hydra_config import HydraConfig
from omegaconf import OmegaConf, open_dict, read_write

from heatgen.app import menu, resolvers
from heatgen.app.options import CONF, SearchPath, options_of


def shown(verb: str) -> bool:
    """Print the help of a verb, or of the groups and options that sys.argv names; False where it is for Hydra to do."""
    args = get_args_parser().parse_args()
    if not args.help:
        return False
    resolvers.register()
    path = SearchPath(args.config_path or str(CONF), args.config_dir)
    loader = path.loader()
    words = [word for word in args.overrides if word[:1].isalpha()]
    asked = [word for word in words if "=" not in word or options_of(word.partition("=")[0], loader)]
    overrides = [word for word in args.overrides if word not in asked]
    cfg = path.load(args.config_name or verb, overrides)
    HydraConfig.instance().set_config(cfg)
    try:
        if asked:
            print("\n\n".join(menu.about(word, verb) for word in asked))
            return True
        template = string.Template(cfg.hydra.help.template)
        if set(template.get_identifiers()) - {"CONFIG"}:
            return False
        with read_write(cfg), open_dict(cfg):
            del cfg["hydra"]
        print(template.substitute(CONFIG=OmegaConf.to_yaml(cfg, resolve=args.resolve)))
    finally:
        HydraConfig.instance().cfg = None
    return True
