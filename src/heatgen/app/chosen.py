"""What was chosen for a run: choices.json, with the option of each group and the settings that are not their defaults."""

import json
from contextlib import suppress
from pathlib import Path

import yaml
from omegaconf import OmegaConf

from heatgen.app.compose import compose
from heatgen.app.job import choices
from heatgen.app.options import SearchPath
from heatgen.check import ConfigError
from heatgen.report.story import PLACES, flat
from heatgen.runtime.directory import CHOICES, CONFIG
from heatgen.runtime.files import read_small, write_text

NO_OPTIONS = ("experiment", "debug", "hparams_search")  # groups that set values of the others


def write_choices(run_dir: Path, config: str) -> None:
    """Write choices.json beside the config of a run, which is YAML; a run that goes on keeps its options.

    What differs is null where the options cannot be composed, as those that were in a folder of the user's own.
    """
    path, found = run_dir / CHOICES, dict[str, str | None]()
    if (run_dir / CONFIG).is_file():  # this command's options are not those of the run
        with suppress(OSError, ValueError, LookupError, TypeError):
            found = dict(json.loads(read_small(path))["options"])
        if not found:
            return
    options = {group: str(option) for group, option in (found or choices()).items() if is_group(group) and option}
    differs: dict[str, tuple[str, str]] | None = None
    with suppress(ConfigError):
        words = [f"{group}={option}" for group, option in options.items()]
        default = compose(*words, config_dir=SearchPath.current().config_dir)
        old, new = (flat(yaml.safe_load(text)) for text in (OmegaConf.to_yaml(default), config))
        keys = [key for key in new if key not in PLACES and old.get(key) != new[key]]
        differs = {key: (old.get(key, "none"), new[key]) for key in keys}
    write_text(path, json.dumps({"options": options, "differs": differs}, indent=2) + "\n")


def is_group(name: str) -> bool:
    """Whether a choice is an option of a group of its own, not a part of one or a preset of several."""
    return not ({"/", "@"} & {*name}) and name not in NO_OPTIONS
