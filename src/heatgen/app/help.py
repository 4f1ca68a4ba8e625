"""--help of a verb in a fraction of a second: without PyTorch, and without the lists of groups that Hydra would make."""

import string

from hydra._internal.utils import get_args_parser
from hydra.core.hydra_config import HydraConfig
from omegaconf import OmegaConf, open_dict, read_write

from heatgen.app import resolvers
from heatgen.app.options import SearchPath


def shown(verb: str) -> bool:
    """Print the help of a verb for sys.argv; False where it is for Hydra to do, as of a config of the user's."""
    args = get_args_parser().parse_args()
    if not args.help or args.config_path or args.config_dir:
        return False
    resolvers.register()
    cfg = SearchPath().load(args.config_name or verb, args.overrides)
    HydraConfig.instance().set_config(cfg)
    try:
        template = string.Template(cfg.hydra.help.template)
        if set(template.get_identifiers()) - {"CONFIG"}:
            return False
        with read_write(cfg), open_dict(cfg):
            del cfg["hydra"]
        print(template.substitute(CONFIG=OmegaConf.to_yaml(cfg, resolve=args.resolve)))
    finally:
        HydraConfig.instance().cfg = None
    return True
