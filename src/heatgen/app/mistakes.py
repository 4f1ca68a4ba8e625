"""What a user got wrong in a config: found by looking at the arguments, not at the words of the error."""

import dataclasses
from collections.abc import Iterator, Sequence

from hydra._internal.utils import get_args_parser
from hydra.core.config_loader import ConfigLoader
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Glob, Override, QuotedString
from hydra.errors import HydraException, OverrideParseException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from heatgen.app.options import CONF, SearchPath, known_keys, options_of, unknown_option
from heatgen.check import did_you_mean
from heatgen.runtime import explain
from heatgen.runtime.command import call


def sentence(error: BaseException) -> str | None:
    """The sentence for an error of a job: a user's mistake, or the first line of what Hydra or OmegaConf say."""
    if found := explain.explain(error):
        return found
    if isinstance(error, (HydraException, OmegaConfBaseException)):
        return str(error).splitlines()[0] if str(error) else sentence(error.__cause__ or ValueError())
    return None


def of_command_line(verb: str, error: BaseException) -> str | None:
    """The sentence for an error of a verb; what Hydra could not compose is looked for in the arguments of this process."""
    if explain.explain(error) is None and isinstance(error, (HydraException, OmegaConfBaseException)):
        args = get_args_parser().parse_args()
        path = SearchPath(args.config_path or str(CONF), args.config_dir)
        found = diagnose(verb, args.overrides, path, args.config_name)
        if found is not None:
            return found
    return sentence(error)


def diagnose(verb: str, overrides: Sequence[str], path: SearchPath, config_name: str | None = None) -> str | None:
    """The sentence for the first argument that no config knows; None where they all fit.

    Args:
        verb: train, sample or evaluate.
        overrides: the arguments, without flags.
        path: where configs are, besides what an override hydra.searchpath says.
        config_name: of the primary config, the verb's own where it is None.
    """
    parsed: list[Override] = []
    for word in overrides:
        try:
            parsed += OverridesParser.create().parse_overrides([word])
        except OverrideParseException as error:
            first = str(error).splitlines()[0]
            return f"An argument cannot be read ({first}); write key=value, quoted where the value has = or , in it."
    for override in parsed:
        more = override.value()
        if override.key_or_group == "hydra.searchpath" and isinstance(more, list):
            path = dataclasses.replace(path, more=tuple(map(text, more)))
    loader = path.loader()
    chosen = [override for override in parsed if options_of(override.key_or_group, loader)]
    for override in chosen:
        options = options_of(override.key_or_group, loader)
        for value in values_of(override):
            if value not in options:
                return unknown_option(override.key_or_group, value, options)
    try:
        cfg = path.load(config_name or verb, [first_of(override) for override in chosen])
    except (HydraException, OmegaConfBaseException):
        return None
    rest = [o for o in parsed if o not in chosen and not o.is_add() and not o.is_force_add() and not o.is_hydra_override()]
    wrong = next((override for override in rest if not holds(cfg, override.key_or_group)), None)
    return None if wrong is None else unknown_key(verb, wrong.key_or_group, loader)


def values_of(override: Override) -> Iterator[str]:
    """The options of a group that an override names: one, several of a sweep, or none for null."""
    if override.is_delete() or override.value() is None or isinstance(override.value(), Glob):
        return
    if override.is_sweep_override():
        yield from map(str, override.sweep_string_iterator())
    else:
        yield str(override.value())


def text(value: object) -> str:
    """A value of an override as plain text."""
    return value.text if isinstance(value, QuotedString) else str(value)


def first_of(override: Override) -> str:
    """An override of a group without its sweep."""
    value, line = next(values_of(override), None), str(override.input_line)
    return line if value is None else f"{line.split('=', 1)[0]}={value}"


def holds(cfg: DictConfig, key: str) -> bool:
    """Whether a config has a key, be its value missing or an interpolation."""
    node: object = cfg
    for part in key.split("."):
        if not isinstance(node, DictConfig) or part not in list(node):
            return False
        node = None if OmegaConf.is_missing(node, part) else node._get_node(part)
    return True


def unknown_key(verb: str, key: str, loader: ConfigLoader) -> str:
    """The sentence for a key that the config does not have."""
    known = known_keys(verb, loader)
    if key in known:
        fix = f"choose that option too; with resume, and where a sweep chooses it, write ++{key}="
        return f"{key} is a key of another option of its group; {fix}."
    hint = did_you_mean(key, known)
    return f"{key} is not a key of the config{hint or f'; see {call(verb)} --help.'}"
