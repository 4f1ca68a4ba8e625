"""Runs side by side, as a table and a figure: python -m heatgen.report.compare FOLDER... [--publish NAME].

A sweep (train.py -m) ends with it by itself, and with publish=NAME publishes it. FOLDER is a run or a folder of runs, such
as a sweep's; the table goes there as comparison.json (a list of rows, one object a run, or a variant of its measurements),
comparison.md and comparison.png, and with --publish NAME also to docs/results/NAME.json, .md and .png.
"""

import argparse
import json
import logging
import math
import os
import re
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from heatgen.check import ConfigError
from heatgen.report.compare_figure import draw, with_error
from heatgen.report.seeds import groups_of, over_seeds
from heatgen.runtime import launch
from heatgen.runtime.command import command_line
from heatgen.runtime.directory import read_settings
from heatgen.runtime.files import write_text

log = logging.getLogger("heatgen")
COMMAND = "command.txt"  # in a sweep's folder: what was called
MODES = {"train": 0, "forward": 1}  # what comes first in a table: the training, then the map


class Comparison:
    """Hydra's callback: at the end of a sweep its runs are compared, in its folder and under `publish` in docs/results."""

    def on_run_start(self, config: Any, **_: Any) -> None:
        """Refuse `publish` where there is no sweep; the processes of a sweep's job have it from their sweep."""
        if config.get("publish") is not None and not launch.is_child():
            stop(f"publish={config.publish} is for a sweep, which has runs to compare; add -m, or use publish=null.")

    def on_multirun_start(self, config: Any, **_: Any) -> None:
        """Refuse a `publish` that is not a name, before anything is trained."""
        if config.get("publish") is not None and not re.fullmatch(r"\w[\w.-]*", str(config.publish)):
            stop(f"publish must be a name such as my_maps, not {config.publish!r}.")

    def on_multirun_end(self, config: Any, **_: Any) -> None:
        folder = Path(config.hydra.sweep.dir)
        write_text(folder / COMMAND, command_line() + "\n")
        try:
            publish = config.get("publish")
            compare([folder], None if publish is None else str(publish), by_sweep=True)
        except ConfigError as error:
            log.warning("Note: the runs cannot be compared: %s", error)

    def __getattr__(self, name: str) -> Any:
        """Hydra's other events do not matter here."""
        if name.startswith("on_"):
            return lambda **_: None
        raise AttributeError(name)


def stop(message: str) -> None:
    """End with a user's mistake; Hydra would go on after any other exception of a callback."""
    print(f"Error: {message}", file=sys.stderr)
    sys.exit(1)


def find_runs(folders: Sequence[Path]) -> list[Path]:
    """The runs in these folders, those of a sweep in the order of its jobs. ConfigError where there is none."""
    runs = []
    for folder in folders:
        found = [path.parent for path in folder.glob("*/config.yaml")]
        runs += [folder] if (folder / "config.yaml").is_file() else sorted(found, key=job_number)
    if not runs:
        raise ConfigError(f"There is no run in {', '.join(map(str, folders))}; give a run's folder, or a sweep's.")
    return runs


def job_number(run: Path) -> tuple[float, str]:
    """A key that sorts 2-heat before 10-heat."""
    number = re.match(r"\d+", run.name)
    return (int(number[0]) if number else math.inf, run.name)


def settings_of(run: Path) -> dict[str, str]:
    """The overrides that the run was started with."""
    words = shlex.split((run / "overrides.txt").read_text().splitlines()[0]) if (run / "overrides.txt").is_file() else []
    return dict(word.split("=", 1) for word in words if "=" in word)


def measurements_of(run: Path) -> list[dict[str, Any]]:
    """The newest result of each mode and variant at the run's own settings, in the order of MODES, then of their names."""
    newest: dict[tuple[str, str | None], dict[str, Any]] = {}
    for path in sorted((run / "evaluation").glob("*.json")):  # their names end in the time
        content = json.loads(path.read_text())
        if "values" in content and not content.get("parameter"):
            newest[content["mode"], content.get("variant")] = content
    return sorted(newest.values(), key=lambda content: MODES.get(content["mode"], len(MODES)))


def variants_of(run: Path) -> list[tuple[str, list[dict[str, Any]]]]:
    """What stands in each row of a run: a variant's name and its results; one row, of no name, where there are no variants.

    Modes that were measured without a variant stand in the row of every variant that lacks them; one that was measured both
    with and without has a row of no name, too.
    """
    results = measurements_of(run)
    plain_modes = {result["mode"] for result in results if result.get("variant") is None}
    names = dict.fromkeys(result["variant"] for result in results if result.get("variant") is not None)
    both = any(result["mode"] in plain_modes for result in results if result.get("variant") is not None)
    rows = []
    for name in [*([None] if both or not names else []), *names]:
        own = {result["mode"] for result in results if result.get("variant") == name}
        chosen = [r for r in results if r.get("variant") == name or (r.get("variant") is None and r["mode"] not in own)]
        rows.append((name or "", chosen))
    return rows


def rows_of(runs: Sequence[Path]) -> tuple[list[dict[str, Any]], list[str]]:
    """One row a run, or a variant of a run: what differs between their settings, what the model chose, every number.

    And the columns to show: those that differ, then the headlines; none that is empty in every row.
    """
    settings = [settings_of(run) for run in runs]
    keys = dict.fromkeys(key for setting in settings for key in setting)
    swept = [key for key in keys if len({setting.get(key) for setting in settings}) > 1]
    by_run = [variants_of(run) for run in runs]
    several = any(name for variants in by_run for name, _ in variants)
    rows, shown = [], [*(swept or ["run"]), "variant", "parametrisation"]
    for run, setting, variants in zip(runs, settings, by_run, strict=True):
        config = read_settings(run)
        chosen, own = config.get("model", {}).get("parametrisation"), {"seed": str(config.get("seed", ""))}
        for name, results in variants:
            row: dict[str, Any] = {"run": run.name} | {key: setting.get(key, own.get(key, "")) for key in swept}
            row |= ({"variant": name} if several else {}) | ({"parametrisation": chosen} if chosen else {})
            for result in results:
                row |= result["values"]
                row |= {f"{key} s.e.": error for key, error in result.get("standard_errors", {}).items()}
                shown += [key for key in result["headline"] if key not in shown]
            rows.append(row)
    return rows, [key for key in shown if any(row.get(key) not in (None, "") for row in rows)]


def references_of(runs: Sequence[Path], first: str) -> list[dict[str, Any]]:
    """By mode, a row for each thing known exactly that has the same values in all runs, named in the column `first`."""
    by_mode: dict[str, list[dict[str, dict[str, Any]]]] = {}
    for run in runs:
        for result in measurements_of(run):
            if result.get("references"):
                by_mode.setdefault(result["mode"], []).append(result["references"])
    return [
        {"run": name, first: name} | values
        for several in by_mode.values()
        for name, values in several[0].items()
        if all(agree(values, other.get(name, {})) for other in several)
    ]


def agree(one: dict[str, Any], other: dict[str, Any]) -> bool:
    """Whether both have the same names and, within a millionth, the same numbers; None is equal to itself."""
    return one.keys() == other.keys() and all(
        value == other[key] or (None not in (value, other[key]) and math.isclose(value, other[key], rel_tol=1e-6))
        for key, value in one.items()
    )


def conditions_of(runs: Sequence[Path]) -> list[str]:
    """How the runs were measured: by mode, the facts that all of them have in common, and every caveat."""
    by_mode: dict[str, list[dict[str, Any]]] = {}
    for run in runs:
        for result in measurements_of(run):
            by_mode.setdefault(result["mode"], []).append(result)
    lines = []
    for mode, results in by_mode.items():
        facts = results[0].get("facts", {})
        common = [f"{k}: {v}" for k, v in facts.items() if all(r.get("facts", {}).get(k) == v for r in results)]
        notes = dict.fromkeys(note for result in results for note in result.get("notes", []))
        if common or notes:
            lines.append(f"- `mode={mode}`: {'; '.join([*common, *notes])}")
    return lines


def plain(key: str) -> str:
    """A column's name as a plain key: letters, digits and underscores."""
    return re.sub(r"\W+", "_", key.lower()).strip("_")


def markdown(
    name: str, rows: Sequence[dict[str, Any]], shown: Sequence[str], commands: Sequence[str], conditions: Sequence[str]
) -> str:
    """The table, under the commands that made the runs and it, above how they were measured."""
    made, numbers = [f"    {command}" for command in commands], f"All numbers of every run: [{name}.json]({name}.json)."
    if "seeds" in shown:
        numbers = (
            f"Numbers are means over seeds, ± their standard errors over seeds: [{name}.json]({name}.json) has them all, "
            f"[{name}_seeds.json]({name}_seeds.json) those of every run."
        )
    lines = [f"# {name}", "", "Made by", "", *made, "", numbers, ""]
    lines += [f"| {' | '.join(shown)} |", f"|{'---|' * len(shown)}"]
    lines += [f"| {' | '.join(with_error(row, key) for key in shown)} |" for row in rows]
    how = ["", "How they were measured:", "", *conditions] if conditions else []
    return "\n".join([*lines, "", f"![{name}]({name}.png)", *how, ""])


def compare(
    folders: Sequence[Path], publish: str | None, docs: Path = Path("docs/results"), by_sweep: bool = False
) -> list[dict[str, Any]]:
    """Print the comparison of the runs in `folders`; write it to the first one and to docs/results/<publish>; its rows.

    by_sweep: whether a sweep does it at its end, so that its command alone makes the page.
    """
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    runs = find_runs(folders)
    every, columns = rows_of(runs)
    rows, shown = over_seeds(every, columns)
    owners = [run for run in runs for _ in variants_of(run)]  # of every row
    drawn = [owners[group[0]] for group in groups_of(every, columns)]
    known = references_of(runs, shown[0])
    rows, drawn_by = [*rows, *known], [*drawn, *[None] * len(known)]
    files = {"": rows} | ({"_seeds": every} if "seeds" in shown else {})
    table = Table(title=f"{len(runs)} runs", title_justify="left")
    for key in shown:
        table.add_column(escape(key))
    for row in rows:
        table.add_row(*[escape(with_error(row, key)) for key in shown])
    console = Console(width=None if sys.stdout.isatty() else 160)
    console.print(table)
    calls = [(folder / COMMAND).read_text().strip() for folder in folders if (folder / COMMAND).is_file()]
    targets = [(folders[0], "comparison")] + ([(docs, publish)] if publish else [])
    for folder, name in targets:
        folder.mkdir(parents=True, exist_ok=True)
        itself = f"python -m heatgen.report.compare {shlex.join(map(os.path.relpath, folders))}"
        commands = calls if by_sweep else [*calls, itself + (f" --publish {publish}" if publish else "")]
        for end, content in files.items():
            plainly = [{plain(k): v for k, v in row.items()} for row in content]
            write_text(folder / f"{name}{end}.json", json.dumps(plainly, indent=2) + "\n")
        write_text(folder / f"{name}.md", markdown(name, rows, shown, commands, conditions_of(runs)))
        draw(drawn_by, rows, shown, folder / f"{name}.png")
        console.print(f"written: {folder / name}.md, .json and .png", highlight=False, markup=False, soft_wrap=True)
    return rows


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(prog="python -m heatgen.report.compare", description=__doc__.splitlines()[0])
    parser.add_argument("folders", nargs="+", type=Path, help="runs, or folders of runs such as a sweep's")
    parser.add_argument("--publish", metavar="NAME", help="also write docs/results/NAME.md, .json and .png")
    options = parser.parse_args()
    try:
        compare(options.folders, options.publish)
    except ConfigError as error:
        print(f"Error: {error}", file=sys.stderr)
        sys.exit(1)


if __name__ == "__main__":
    main()
