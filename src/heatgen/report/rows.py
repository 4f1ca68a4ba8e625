"""What stands in the rows of a comparison: settings that differ between runs, and every value of their newest results."""

import json
import math
import re
import shlex
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TypeAlias, TypedDict

from heatgen.check import ConfigError
from heatgen.metric.result import heading
from heatgen.runtime.directory import read_info
from heatgen.runtime.files import read_small

Cell: TypeAlias = str | float | None
Fits: TypeAlias = Callable[[object], bool]
Row: TypeAlias = dict[str, Cell]  # column -> word or number; the error of column x is column x_se
LARGEST = 2**26  # bytes of a result
MODES = {"train": 0, "forward": 1}  # what comes first in a table: the training, then the map


class Measured(TypedDict, total=False):
    """A result as `Result.content` wrote it, with its mode, its variant and the key that was swept."""

    mode: str
    variant: str | None
    parameter: dict[str, object] | None
    values: dict[str, float | None]
    standard_errors: dict[str, float | None]
    units: dict[str, str]
    labels: dict[str, str]
    headline: list[str]
    facts: dict[str, object]
    notes: list[str]
    references: dict[str, dict[str, float | None]]
    reference_errors: dict[str, dict[str, float | None]]
    errors_over: dict[str, str]


def find_runs(folders: Sequence[Path]) -> list[Path]:
    """The runs in these folders, those of a sweep in the order of its jobs. ConfigError where there is none."""
    runs = []
    for folder in folders:
        found = [path.parent for path in folder.glob("*/config.yaml")]
        runs += [folder] if (folder / "config.yaml").is_file() else sorted(found, key=job_number)
    if not runs:
        raise ConfigError(f"There is no run in {', '.join(map(str, folders))}; give a run's folder, or a sweep's.")
    return runs


def job_number(run_dir: Path) -> tuple[float, str]:
    """A key that sorts 2-heat before 10-heat."""
    number = re.match(r"\d+", run_dir.name)
    return (int(number[0]) if number else math.inf, run_dir.name)


def settings_of(run_dir: Path) -> dict[str, str]:
    """The overrides that the run was started with; the option of an experiment's own group is its `row`, if it has one."""
    path = run_dir / "overrides.txt"
    try:
        words = shlex.split((read_small(path).splitlines() or [""])[0]) if path.is_file() else []
    except (OSError, ValueError) as error:
        raise damaged(path, error) from error
    settings = dict(word.split("=", 1) for word in words if "=" in word and not word.startswith(("resume=", "trust=")))
    groups = [key for key in settings if key.startswith("experiment/")]
    names = {key: key.removeprefix("experiment/") if len(groups) > 1 else "row" for key in groups}
    return {names.get(key, key): value for key, value in settings.items()}


def results_of(run_dir: Path) -> list[Measured]:
    """The newest result of each mode and variant at the run's own settings, in the order of MODES, then of their names."""
    return list(files_of(run_dir).values())


def files_of(run_dir: Path) -> dict[Path, Measured]:
    """`results_of`, by their files."""
    newest: dict[tuple[str, str | None], tuple[Path, Measured]] = {}
    for path in sorted((run_dir / "evaluation").glob("*.json")):  # their names end in the time
        result = read_result(path)
        if "values" in result and not result.get("parameter"):
            newest[result["mode"], result.get("variant")] = path, result
    return dict(sorted(newest.values(), key=lambda found: MODES.get(found[1]["mode"], len(MODES))))


def read_result(path: Path) -> Measured:
    """What a file of a result holds. ConfigError for anything else."""
    try:
        content: Measured = json.loads(read_small(path, LARGEST))
    except (OSError, ValueError, RecursionError) as error:
        raise damaged(path, error) from error
    whole = isinstance(content, dict) and isinstance(content.get("mode"), str)
    whole = whole and all(fits(content.get(key, {})) for key, fits in PARTS.items())
    headline = content.get("headline", []) if whole else None
    if not isinstance(headline, list) or not all(isinstance(name, str) for name in [*headline, *content.get("notes", [])]):
        raise damaged(path, ValueError("it is no result"))
    return content


def by_name(fits: Fits) -> Fits:
    """Whether a part of a result is of values that fit, by name."""
    return lambda part: isinstance(part, dict) and all(map(fits, part.values()))


NUMBERS = by_name(lambda value: value is None or isinstance(value, (int, float)))
PARTS = {
    **dict.fromkeys(("values", "standard_errors"), NUMBERS),
    **dict.fromkeys(("units", "labels", "errors_over"), by_name(lambda value: isinstance(value, str))),
    **dict.fromkeys(("references", "reference_errors"), by_name(NUMBERS)),
    "facts": by_name(lambda _: True),
}


def damaged(path: Path, error: Exception) -> ConfigError:
    """The sentence for a file of a run that is not whole."""
    reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return ConfigError(f"{path} cannot be read ({reason}); remove it, or measure the run again.")


def variants_of(run_dir: Path) -> list[tuple[str, list[Measured]]]:
    """What stands in each row of a run: a variant's name and its results; one row, of no name, where there are no variants.

    Modes that were measured without a variant stand in the row of every variant that lacks them; one that was measured both
    with and without has a row of no name, too.
    """
    results = results_of(run_dir)
    plain_modes = {result["mode"] for result in results if result.get("variant") is None}
    names = dict.fromkeys(result["variant"] for result in results if result.get("variant") is not None)
    both = any(result["mode"] in plain_modes for result in results if result.get("variant") is not None)
    rows = []
    for name in [*([None] if both or not names else []), *names]:
        own = {result["mode"] for result in results if result.get("variant") == name}
        chosen = [r for r in results if r.get("variant") == name or (r.get("variant") is None and r["mode"] not in own)]
        rows.append((name or "", chosen))
    return rows


def rows_of(run_dirs: Sequence[Path]) -> tuple[list[Row], list[str]]:
    """One row a run, or a variant of a run: what differs between their settings, what the model chose, every value.

    And the columns to show: those that differ, then the headlines; none that is empty in every row.
    """
    settings = [settings_of(run_dir) for run_dir in run_dirs]
    keys = dict.fromkeys(key for setting in settings for key in setting)
    swept = [key for key in keys if len({setting.get(key) for setting in settings}) > 1]
    by_run = [variants_of(run_dir) for run_dir in run_dirs]
    several = any(name for variants in by_run for name, _ in variants)
    rows: list[Row] = []
    shown = [*(swept or ["run"]), "variant", "parametrisation"]
    for run_dir, setting, variants in zip(run_dirs, settings, by_run, strict=True):
        info = read_info(run_dir)
        chosen, own = info.parametrisation, {"seed": info.seed}
        for name, results in variants:
            row: Row = {"run": run_dir.name}
            row |= {key: setting.get(key, own.get(key, "")) for key in swept}
            row |= ({"variant": name} if several else {}) | ({"parametrisation": chosen} if chosen else {})
            for result in results:
                row |= result["values"]
                row |= {f"{column}_se": error for column, error in result.get("standard_errors", {}).items()}
                shown += [column for column in result["headline"] if column not in shown]
            rows.append(row)
    return rows, [column for column in shown if any(row.get(column) not in (None, "") for row in rows)]


def by_mode(run_dirs: Sequence[Path]) -> dict[str, list[Measured]]:
    """The results of all runs, by their mode."""
    found: dict[str, list[Measured]] = {}
    for result in [result for run_dir in run_dirs for result in results_of(run_dir)]:
        found.setdefault(result["mode"], []).append(result)
    return found


def headings_of(run_dirs: Sequence[Path]) -> dict[str, str]:
    """What people read above each column of a value: its label and unit."""
    headings: dict[str, str] = {}
    for run_dir in run_dirs:
        for result in results_of(run_dir):
            labels, units = result.get("labels", {}), result.get("units", {})
            headings |= {name: heading(labels.get(name, name), units.get(name, "")) for name in result["values"]}
    return headings


def references_of(run_dirs: Sequence[Path], first: str) -> list[Row]:
    """By mode, a row for each thing known exactly that has the same values in all runs, named in the column `first`."""
    rows: list[Row] = []
    for results in by_mode(run_dirs).values():
        several = [result for result in results if result.get("references")]
        for name, values in several[0]["references"].items() if several else ():
            if not all(name in other["references"] and agree(values, other["references"][name]) for other in several):
                continue
            row: Row = {"run": name, first: name}
            for other in several:
                row |= other["references"][name]
                row |= {f"{key}_se": error for key, error in other.get("reference_errors", {}).get(name, {}).items()}
            rows.append(row)
    return rows


def errors_over(run_dirs: Sequence[Path]) -> list[str]:
    """What the standard errors of the runs' numbers are over, such as fields or tasks."""
    results = [result for run_dir in run_dirs for result in results_of(run_dir)]
    return list(dict.fromkeys(over for result in results for over in result.get("errors_over", {}).values()))


def agree(one: Mapping[str, float | None], other: Mapping[str, float | None]) -> bool:
    """Whether both have, within a millionth, the same numbers in the columns that they share; None is equal to itself."""

    def equal(x: float | None, y: float | None) -> bool:
        return x == y or (x is not None and y is not None and math.isclose(x, y, rel_tol=1e-6))

    return all(equal(value, other[key]) for key, value in one.items() if key in other)


def conditions_of(run_dirs: Sequence[Path]) -> list[str]:
    """How the runs were measured: by mode, the facts that all of them have in common, and every caveat."""
    lines = []
    for mode, results in by_mode(run_dirs).items():
        facts = results[0].get("facts", {})
        common = [f"{k}: {v}" for k, v in facts.items() if all(r.get("facts", {}).get(k) == v for r in results)]
        notes = dict.fromkeys(note for result in results for note in result.get("notes", []))
        if common or notes:
            lines.append(f"- `mode={mode}`: {'; '.join([*common, *notes])}")
    return lines
