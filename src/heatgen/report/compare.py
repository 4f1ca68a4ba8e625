"""Runs side by side, as a table and a figure: python -m heatgen.report.compare FOLDER... [--publish NAME].

A sweep (train.py -m) ends with it by itself, and with publish=NAME publishes it. FOLDER is a run or a folder of runs, such
as a sweep's; the table goes there as comparison.json (a list of rows, one object a run, or a variant of its measurements),
comparison.md and comparison.png, and with --publish NAME also to docs/results/NAME.json, .md and .png.
"""

import argparse
import json
import os
import shlex
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from heatgen import check
from heatgen.report.better import caption
from heatgen.report.compare_figure import draw
from heatgen.report.page import markdown_table
from heatgen.report.rows import Row, conditions_of, errors_over, headings_of, references_of, rows_of, variants_of
from heatgen.report.seeds import groups_of, is_number, over_seeds, with_error
from heatgen.report.unfinished import finished_runs
from heatgen.runtime.directory import COMMAND
from heatgen.runtime.explain import entry
from heatgen.runtime.files import read_small, write_text

MARKS = "A broken line is what is known exactly; a number behind an arrow is beyond the axis."  # of a figure


def compare(
    folders: Sequence[Path], publish: str | None, docs: Path = Path("docs/results"), by_sweep: bool = False
) -> list[Row]:
    """Print the comparison of the runs in `folders`, and write it to the first one.

    Args:
        folders: runs, or folders of runs.
        publish: a name under which it is also written to `docs`, or None.
        docs: the folder of published pages.
        by_sweep: whether a sweep does it at its end, so that its command alone makes the page.

    Returns:
        The rows of the table, those of what is known exactly last.

    Raises:
        ConfigError: there is no finished run, a sweep is not finished, a run stands twice, or a file of one is damaged.
    """
    if publish is not None:
        check.name("publish", publish)
    run_dirs = finished_runs(folders)
    every, columns = rows_of(run_dirs)
    rows, shown = over_seeds(every, columns)
    owners = [run_dir for run_dir in run_dirs for _ in variants_of(run_dir)]  # of every row
    pictured = [owners[group[0]] for group in groups_of(every, columns)]
    references = references_of(run_dirs, shown[0])
    rows, pictured_by = [*rows, *references], [*pictured, *[None] * len(references)]
    headings = headings_of(run_dirs)
    files = {"": rows} | ({"_seeds": every} if "seeds" in shown else {})
    calls = [read_small(folder / COMMAND).strip() for folder in folders if (folder / COMMAND).is_file()]
    pages = [(folders[0], "comparison")] + ([(docs, publish)] if publish else [])
    for folder, name in pages:
        folder.mkdir(parents=True, exist_ok=True)
        itself = f"python -m heatgen.report.compare {shlex.join(map(os.path.relpath, folders))}"
        commands = calls if by_sweep else [*calls, itself + (f" --publish {publish}" if publish else "")]
        for end, content in files.items():
            write_text(folder / f"{name}{end}.json", json.dumps(content, indent=2) + "\n")
        page = markdown(name, rows, shown, headings, commands, conditions_of(run_dirs), errors_over(run_dirs))
        write_text(folder / f"{name}.md", page)
    for folder, name in pages:
        draw(pictured_by, rows, shown, headings, folder / f"{name}.png")
    console = Console(width=None if sys.stdout.isatty() else 160)  # printed last: a closed pipe loses nothing
    table = Table(*(escape(headings.get(name, name)) for name in shown), title=f"{len(run_dirs)} runs", title_justify="left")
    for row in rows:
        table.add_row(*[escape(with_error(row, name)) for name in shown])
    console.print(table)
    for folder, name in pages:
        console.print(f"written: {folder / name}.md, .json and .png", highlight=False, markup=False, soft_wrap=True)
    return rows


def markdown(
    name: str,
    rows: Sequence[Row],
    shown: Sequence[str],
    headings: Mapping[str, str],
    commands: Sequence[str],
    conditions: Sequence[str],
    over: Sequence[str],
) -> str:
    """The table, under the commands that made the runs and it, above its figure and how they were measured, a line each.

    over: what the errors of a measurement are over.
    """
    made, numbers = [f"    {command}" for command in commands], f"All numbers of every run: [{name}.json]({name}.json)."
    measured = f"over {' or '.join(over)}" if over else "of their measurement"
    if "seeds" in shown:
        numbers = (
            f"Numbers are means over seeds, ± their standard errors over seeds: [{name}.json]({name}.json) has them all, "
            f"[{name}_seeds.json]({name}_seeds.json) those of every run. Those of rows of one seed or none are {measured}."
        )
    elif any(f"{column}_se" in row for row in rows for column in shown):
        numbers += f" ± are standard errors {measured}."
    values = [column for column in shown if column != "seeds" and any(is_number(row.get(column)) for row in rows)]
    better = ["", f"*{caption(values, headings)} {MARKS}*"] if values else []
    cells = [[with_error(row, column) for column in shown] for row in rows]
    table = markdown_table([headings.get(column, column) for column in shown], cells)
    how = ["", "How they were measured:", "", *conditions] if conditions else []
    return "\n".join(
        [f"# {name}", "", "Made by", "", *made, "", numbers, "", *table, "", f"![{name}]({name}.png)", *better, *how, ""]
    )


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(prog="python -m heatgen.report.compare", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("folders", nargs="+", type=Path, help="runs, or folders of runs such as a sweep's")
    parser.add_argument("--publish", metavar="NAME", help="also write docs/results/NAME.md, .json and .png")
    options = parser.parse_args()
    compare(options.folders, options.publish)


if __name__ == "__main__":
    entry(main)
