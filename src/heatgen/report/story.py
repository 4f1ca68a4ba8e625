"""What the folder of a run tells: how it was made, how its training went, what was measured."""

import csv
import json
import math
import re
import shlex
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from heatgen.check import ConfigError
from heatgen.report.rows import LARGEST, MODES, Measured, damaged, files_of
from heatgen.report.unfinished import lacking_of
from heatgen.runtime.command import call
from heatgen.runtime.directory import CHOICES, OVERRIDES, STOPPED, plain_config
from heatgen.runtime.files import read_small, shown

Curve = list[tuple[float, float]]  # (optimizer steps, value)
FAILURES = (OSError, ValueError, TypeError, LookupError, AttributeError, ArithmeticError, RecursionError, csv.Error)
LONGEST = 300  # characters of a setting
UNTOLD = ("_partial_", "recommended")  # how a setting is made, and what data sets recommend, which is in others' settings
PLACES = ("name", "runs_dir", "data_dir", "resume", "trust", "publish", "data.data_dir")  # settings that change no number


@dataclass(frozen=True)
class Story:
    """What a run's folder tells.

    Args:
        run_dir: the run.
        config: its settings, by their dotted keys.
        calls: the arguments of its start, then those of each time it went on.
        environment: when it was started last, its versions.
        options: the option of each config group; empty where the run does not say.
        differs: the settings that are not their options' defaults: key -> (default, value); None: the run does not say.
        lacking: what it lacks to be finished; None: nothing.
        results: its newest results, by their files.
        curves: what was logged, by name.
    """

    run_dir: Path
    config: Mapping[str, str]
    calls: Sequence[Sequence[str]]
    environment: Mapping[str, str]
    options: Mapping[str, str]
    differs: Mapping[str, tuple[str, str]] | None
    lacking: str | None
    results: Mapping[Path, Measured]
    curves: Mapping[str, Curve]

    @classmethod
    def of(cls, run_dir: Path) -> "Story":
        """That of a run. ConfigError where a file of it is damaged."""
        with readable(run_dir):
            options, differs = chosen(run_dir / CHOICES)
            return cls(
                run_dir,
                flat(plain_config(run_dir)),
                calls_of(run_dir / OVERRIDES) or [[]],
                dict(line.partition(" ")[::2] for line in lines_of(run_dir / "env.txt")),
                options,
                differs,
                lacking_of(run_dir),
                files_of(run_dir),
                curves_of(run_dir / "metrics.csv"),
            )

    def option(self, group: str) -> str:
        """What was chosen of a group; where the run does not say, its own name, or the file of its class."""
        named = self.config.get("data_name") if group == "data" else self.config.get(f"{group}.name")
        target = self.config.get(f"{group}._target_", "").split(".")
        return self.options.get(group) or named or (target[-2] if len(target) > 1 else target[0])

    @property
    def to_go_on(self) -> str | None:
        """The command that makes up what it lacks; None where none does."""
        if self.lacking is None or STOPPED in self.lacking or self.option("data") == "memory":
            return None
        run = shlex.quote(shown(self.run_dir))
        if self.lacking.startswith("mode="):
            return f"{call('evaluate')} run={run} {self.lacking.split()[0]}"
        trust = " trust=true" if plain_config(self.run_dir).get("evaluate") else ""
        return f"{call('train')} resume={run}{trust}"

    def foremost(self) -> list[Measured]:
        """Its results, what was measured of its samples first, then its map, its training last."""
        return sorted(self.results.values(), key=lambda result: -MODES.get(result["mode"], len(MODES)))

    @property
    def title(self) -> str:
        """Its name for people: that of the config, where the folder is named after the time alone."""
        stamped = re.match(r"\d{4}-\d\d-\d\d_", self.run_dir.name)
        return self.config.get("name", self.run_dir.name) if stamped else self.run_dir.name

    @property
    def levels(self) -> int:
        """How many levels its map has; 0 where the run does not say."""
        levels = self.config.get("forward.num_levels", "")
        return int(levels) if levels.isdecimal() else 0


@contextmanager
def readable(path: Path) -> Iterator[None]:
    """Whatever the reading of somebody's files fails with is a ConfigError."""
    try:
        yield
    except ConfigError:
        raise
    except FAILURES as error:
        raise damaged(Path(getattr(error, "filename", None) or path), error) from error


def lines_of(path: Path) -> list[str]:
    """The lines of a small file; none where there is no such file. ConfigError where it is damaged."""
    with readable(path):
        return read_small(path).splitlines() if path.is_file() else []


def calls_of(path: Path) -> list[list[str]]:
    """The arguments of each start of a run, a line each. ConfigError where the file is damaged."""
    with readable(path):
        return [shlex.split(line) for line in lines_of(path)]


def flat(config: object, place: str = "") -> dict[str, str]:
    """The settings of nested containers by dotted keys, as text; a list is one setting."""
    if not isinstance(config, Mapping):
        return {place: ("null" if config is None else str(config))[:LONGEST]}
    names = [name for name in config if name not in UNTOLD]
    return {key: value for name in names for key, value in flat(config[name], f"{place}.{name}".strip(".")).items()}


def chosen(path: Path) -> tuple[dict[str, str], dict[str, tuple[str, str]] | None]:
    """The options of a run, and what differs from their defaults, as app/chosen.py wrote them; nothing of an older run."""
    if not path.is_file():
        return {}, None
    with readable(path):
        content = json.loads(read_small(path))
        options = {str(group): str(option) for group, option in content["options"].items()}
        if content["differs"] is None:
            return options, None
        pairs = content["differs"].items()
        return options, {str(key): (str(old)[:LONGEST], str(new)[:LONGEST]) for key, (old, new) in pairs}


def curves_of(path: Path) -> dict[str, Curve]:
    """What metrics.csv holds, by column, at the optimizer steps behind which it was measured."""
    if not path.is_file():
        return {}
    curves: dict[str, Curve] = {}
    with readable(path):
        for row in csv.DictReader(read_small(path, LARGEST).splitlines()):
            for name, text in row.items():
                if name and name != "step" and isinstance(text, str) and text and math.isfinite(value := float(text)):
                    curves.setdefault(name, []).append((float(row["step"]) + 1, value))
    return curves


def thinned(curve: Curve, most: int) -> Curve:
    """A curve of at most so many points, each the mean of as many neighbours."""
    each = -(-len(curve) // most)
    parts = [curve[i : i + each] for i in range(0, len(curve), max(each, 1))]
    return [(sum(x for x, _ in part) / len(part), sum(y for _, y in part) / len(part)) for part in parts]
