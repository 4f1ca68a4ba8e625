"""What a user got wrong in a config: found by looking at the arguments, not at the words of the error."""

import dataclasses
import importlib.util
import re
import shlex
from collections.abc import Sequence
from pathlib import Path

from hydra._internal.utils import get_args_parser
from hydra.core.config_loader import ConfigLoader
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Glob, Override
from hydra.errors import HydraException, OverrideParseException
from hydra.types import RunMode
from omegaconf.errors import InterpolationKeyError, OmegaConfBaseException

from heatgen.app.options import CONF, SearchPath, groups_of, holds, known_keys, options_beside, options_of, unknown_option
from heatgen.app.quoting import typed, unreadable
from heatgen.app.requests import GIVEN_BY_RUN, own_of_the_run
from heatgen.check import did_you_mean
from heatgen.runtime import explain
from heatgen.runtime.command import call
from heatgen.runtime.directory import CONFIG

PLUGINS = {  # option -> the plugin of Hydra's that it needs
    "hydra/launcher=joblib": "hydra_joblib_launcher",
    "hydra/launcher=submitit_local": "hydra_submitit_launcher",
    "hydra/launcher=submitit_slurm": "hydra_submitit_launcher",
    "hydra/launcher=ray": "hydra_ray_launcher",
    "hydra/sweeper=optuna": "hydra_optuna_sweeper",
}

ELSEWHERE = {  # what other code calls a key -> our name of it
    **dict.fromkeys(("learning_rate", "base_lr"), "optimizer.lr"),
    **dict.fromkeys(("epochs", "num_epochs", "n_epochs"), "trainer.max_epochs"),
    **dict.fromkeys(("steps", "iterations", "iters", "n_iters", "num_steps"), "trainer.max_steps"),
    **dict.fromkeys(("gpus", "num_gpus"), "trainer.devices"),
    **{"device": "trainer.accelerator", "dataset": "data", "batch": "data.batch_size", "num_samples": "n"},
}

FLAGS = {  # what Hydra says of flags that do not go together: what to do
    "The --resolve flag": "remove it, or add --cfg job",
    "Only one of --run": "remove the others",
}


def sentence(error: BaseException) -> str | None:
    """The sentence for an error of a job: a user's mistake, or the first line of what Hydra or OmegaConf say."""
    if found := explain.explain(error):
        return found
    if isinstance(error, RuntimeError) and "conditioned on metric" in str(error):  # EarlyStopping and its like
        return str(error).split("\n")[0]
    if isinstance(error, RuntimeError) and '"srun"' in str(error):  # of submitit
        return "hydra/launcher=submitit_slurm needs SLURM, whose srun is not here; use submitit_local or joblib."
    if isinstance(error, ValueError) and (fix := next((FLAGS[key] for key in FLAGS if str(error).startswith(key)), None)):
        return f"{error}; {fix}."
    if isinstance(error, (HydraException, OmegaConfBaseException)):
        lines = [line.strip() for line in str(error).splitlines()]
        if not lines:
            return sentence(error.__cause__ or ValueError())
        if isinstance(error, InterpolationKeyError) and error.full_key:
            return f"{lines[0]}, from which {error.full_key} is taken; give {error.full_key}=VALUE, or choose other options."
        return " ".join(lines[: 2 if lines[0].endswith(":") else 1]).rstrip(".:") + "."
    return None


def of_command_line(verb: str, error: BaseException) -> str | None:
    """The sentence for an error of a verb; what Hydra could not compose is looked for in the arguments of this process."""
    if explain.explain(error) is None:
        args = get_args_parser().parse_args()
        path = SearchPath(args.config_path or str(CONF), args.config_dir)
        found = diagnose(verb, args.overrides, path, args.config_name, bool(args.multirun))
        if found is not None:
            return found
    return sentence(error)


def without_key(word: str, verb: str, loader: ConfigLoader) -> str | None:
    """The sentence for an argument that is a run, or an option of a group, and does not say of what; None for any other."""
    if verb != "pack" and (word == "latest" or (Path(word) / CONFIG).is_file()):
        meant = [typed("resume" if verb == "train" else "run", word)]
    else:
        meant = [f"{group}={word}" for group in groups_of(verb, loader) if word in options_of(group, loader)]
    return f"{word} has no key; did you mean {' or '.join(meant)}?" if meant else None


def diagnose(
    verb: str, overrides: Sequence[str], path: SearchPath, config_name: str | None = None, in_sweep: bool = False
) -> str | None:
    """The sentence for the first argument that no config knows; None where they all fit.

    Args:
        verb: train, sample or evaluate.
        overrides: the arguments, without flags.
        path: where configs are, besides what an override hydra.searchpath says.
        config_name: of the primary config, the verb's own where it is None.
        in_sweep: whether there is -m.
    """
    parsed: list[Override] = []
    for word in overrides:
        try:
            parsed += OverridesParser.create().parse_overrides([word])
        except OverrideParseException:
            return without_key(word, verb, path.loader()) or unreadable(word)
    for override in parsed:
        if override.key_or_group == "hydra.searchpath":
            path = dataclasses.replace(path, more=tuple(options_in(values_of(override)[0])))
    if lacking := next(filter(None, map(lacking_plugin, parsed)), None):
        return lacking
    loader = path.loader()
    chosen = [override for override in parsed if options_of(override.key_or_group, loader)]
    alone = any(override.key_or_group == "run" and override.value() is None for override in parsed)
    if empty := next((o.key_or_group for o in chosen if o.value() == "" and not o.is_delete()), None):
        return unknown_option(empty, "", options_of(empty, loader), loader)
    foreign = next((o.key_or_group for o in chosen if o.key_or_group.split("/")[0] not in groups_of(verb, loader)), None)
    if foreign is not None and verb != "train":
        return f"{foreign} is nothing that pack uses; remove {foreign}=." if verb == "pack" else own_of_the_run(foreign)
    for override in chosen:
        for name in [name for value in values_of(override) for name in options_in(value)]:
            options = options_beside(override.key_or_group, name, loader)
            if name not in options:
                return unknown_option(override.key_or_group, name, options, loader)
    try:
        cfg = path.load(config_name or verb, [without_sweep(override) for override in chosen])
    except (HydraException, OmegaConfBaseException, ValueError) as error:
        if part := re.match(r"Could not override '((\w+)/\w+)'", str(error)):
            return f"{part[1]}= is a part that this {part[2]}= does not have; choose another {part[2]}= too."
        none = next((o.key_or_group for o in chosen if o.value() is None and not o.is_delete()), None)
        return None if none is None else unknown_option(none, "null", options_of(none, loader), loader)
    rest = [o for o in parsed if o not in chosen and not o.is_add() and not o.is_force_add() and not o.is_hydra_override()]
    wrong = next((override.key_or_group for override in rest if not holds(cfg, override.key_or_group)), None)
    if wrong is not None:
        of_run = verb not in ("train", "pack") and not alone and is_of_the_run(verb, wrong, loader)
        return own_of_the_run(wrong) if of_run else unknown_key(verb, wrong, loader)
    several = next((override for override in parsed if override.is_sweep_override()), None)
    return None if several is None or in_sweep or cfg.hydra.mode == RunMode.MULTIRUN else ambiguous(several)


def lacking_plugin(override: Override) -> str | None:
    """The sentence for a launcher or sweeper whose plugin is not installed; None for anything else."""
    for value in values_of(override):
        word = f"{override.key_or_group}={value}"
        module = PLUGINS.get(word)
        if module is not None and importlib.util.find_spec(f"hydra_plugins.{module}") is None:
            fix = f"{word} needs the package {module.replace('_', '-')}: pip install {module.replace('_', '-')}."
            return "hydra/sweeper=optuna is for Optuna 2; use hparams_search=training." if "optuna" in word else fix
    return None


def ambiguous(override: Override) -> str:
    """The sentence for an argument that stands for several values, where one is wanted."""
    key, _, text = str(override.input_line).partition("=")
    items = shlex.quote(f"{key}=[{text}]")
    one = f"the one text {text} is written {typed(key, text)}, a list {items}"
    return f"{key}={text} stands for several values, which -m tries one by one; {one}."


def is_of_the_run(verb: str, key: str, loader: ConfigLoader) -> bool:
    """Whether a key that a verb does not know is one of a training, and so of the run."""
    group = key.split(".")[0]
    own = group in groups_of("train", loader) and (group in GIVEN_BY_RUN or group not in groups_of(verb, loader))
    return own and key in known_keys("train", loader)


def values_of(override: Override) -> list[str]:
    """What an override says of its key, as text: one value, or each one of a sweep; none where nothing is chosen."""
    value = override.value()
    if override.is_delete() or value is None or isinstance(value, Glob):
        return []
    return list(override.sweep_string_iterator()) if override.is_sweep_override() else [override.get_value_string()]


def options_in(value: str) -> list[str]:
    """The options that a value names: NAME, or those of [NAME,NAME]."""
    return [name.strip("'\" ") for name in value.strip("[]").split(",") if name]


def without_sweep(override: Override) -> str:
    """An override with the first value of its sweep alone."""
    values, line = values_of(override), str(override.input_line)
    return f"{line.split('=', 1)[0]}={values[0]}" if values and override.is_sweep_override() else line


def unknown_key(verb: str, key: str, loader: ConfigLoader) -> str:
    """The sentence for a key that the config does not have."""
    known = known_keys(verb, loader)
    if key in known:
        fix = f"choose that option too; where a sweep chooses it, write ++{key}="
        return f"{key} is a key of another option of its group; {fix}."
    last = key.rpartition(".")[2]
    same = sorted([name for name in known if name.rpartition(".")[2] == last and ".recommended." not in name], key=len)
    if (usual := ELSEWHERE.get(last)) in known:
        same = [str(usual), *same] if verb == "train" else [*same, str(usual)]
    hint = f"; did you mean {same[0]}?" if same else did_you_mean(key, known)
    return f"{key} is not a key of the config{hint or f'; see {call(verb)} --help.'}"
