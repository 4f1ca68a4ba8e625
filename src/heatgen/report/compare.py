"""Runs side by side, as a table and a figure: python -m heatgen.report.compare FOLDER... [--publish NAME].

A sweep (train.py -m) ends with it by itself, and with publish=NAME publishes it. FOLDER is a run or a folder of runs, such
as a sweep's; the table goes there as comparison.json (a list of rows, one object a run, or a variant of its measurements)
and comparison.csv, comparison.md and comparison.tex, comparison.png and comparison.pdf; and with --publish NAME also to
docs/results/NAME.json and so on. Runs of several data sets have a table and a figure (comparison_DATA.png) for each.
"""

import argparse
import json
import os
import re
import shlex
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from heatgen import check
from heatgen.report.better import caption
from heatgen.report.compare_figure import draw
from heatgen.report.page import csv_table, latex, latex_table, markdown_table
from heatgen.report.rows import Row, conditions_of, errors_over, headings_of, references_of, rows_of, variants_of
from heatgen.report.seeds import groups_of, is_number, over_seeds, with_error
from heatgen.report.unfinished import finished_runs
from heatgen.runtime.directory import COMMAND, read_info
from heatgen.runtime.explain import entry
from heatgen.runtime.files import read_small, write_text
from heatgen.runtime.screen import listed, painted

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
    sections = [Section.of(name, run_dirs) for name, run_dirs in by_data(finished_runs(folders)).items()]
    rows = [row for section in sections for row in section.rows]
    every = [row for section in sections for row in section.every]
    files = {"": rows} | ({"_seeds": every} if any("seeds" in section.shown for section in sections) else {})
    calls = [read_small(folder / COMMAND).strip() for folder in folders if (folder / COMMAND).is_file()]
    pages = [(folders[0], "comparison")] + ([(docs, publish)] if publish else [])
    for folder, name in pages:
        folder.mkdir(parents=True, exist_ok=True)
        itself = f"python -m heatgen.report.compare {shlex.join(map(os.path.relpath, folders))}"
        commands = calls if by_sweep else [*calls, itself + (f" --publish {publish}" if publish else "")]
        for end, content in files.items():
            write_text(folder / f"{name}{end}.json", json.dumps(content, indent=2) + "\n")
        write_text(folder / f"{name}.csv", csv_table(rows))
        write_text(folder / f"{name}.md", markdown(name, sections, commands))
        write_text(folder / f"{name}.tex", latex_page(sections))
    for folder, name in pages:
        for section in sections:
            paths = [folder / section.figure(name).replace(".png", end) for end in (".png", ".pdf")]
            draw(section.pictured, section.rows, section.shown, section.headings, *paths)
    console = Console(width=None if sys.stdout.isatty() else 160)  # printed last: a closed pipe loses nothing
    for section in sections:
        title = f"{len(section.run_dirs)} runs" + (f" of {section.data}" if section.data else "")
        table = Table(*map(escape, section.titles), title=title, title_justify="left")
        for cells in section.cells:
            table.add_row(*map(escape, cells))
        console.print(table)
    for folder, name in pages:
        figures = [f"{folder / section.figure(name)} and .pdf" for section in sections]
        said = ["as a page; .tex, .csv and .json: for a paper and to read on", *[""] * len(figures)]
        print(painted(listed("written", list(zip([f"{folder / name}.md", *figures], said, strict=True))), sys.stdout))
    return rows


@dataclass(frozen=True)
class Section:
    """The part of a page for one data set, whose numbers are comparable.

    Args:
        data: its name; "" where a page has no other.
        run_dirs: its runs.
        every: a row for each of them, or for each variant of its measurements.
        rows: those over seeds, and those of what is known exactly.
        pictured: the run whose samples stand beside each row; None: none.
        shown: the columns of the table.
        headings: of the columns, for people.
    """

    data: str
    run_dirs: Sequence[Path]
    every: Sequence[Row]
    rows: Sequence[Row]
    pictured: Sequence[Path | None]
    shown: Sequence[str]
    headings: Mapping[str, str]

    @classmethod
    def of(cls, data: str, run_dirs: Sequence[Path]) -> "Section":
        """That of the runs of a data set."""
        every, columns = rows_of(run_dirs)
        every = [{"data": data, **row} if data else row for row in every]
        rows, shown = over_seeds(every, columns)
        owners = [run_dir for run_dir in run_dirs for _ in variants_of(run_dir)]  # of every row
        pictured = [owners[group[0]] for group in groups_of(every, columns)]
        known = [{"data": data, **row} if data else row for row in references_of(run_dirs, shown[0])]
        return cls(data, run_dirs, every, [*rows, *known], [*pictured, *[None] * len(known)], shown, headings_of(run_dirs))

    @property
    def titles(self) -> list[str]:
        """What stands above the columns of its table."""
        return [self.headings.get(column, column) for column in self.shown]

    @property
    def cells(self) -> list[list[str]]:
        """The rows of its table."""
        return [[with_error(row, column) for column in self.shown] for row in self.rows]

    def figure(self, name: str) -> str:
        """The file of its figure, on a page of a name."""
        return f"{name}_{re.sub(r'[^A-Za-z0-9_-]+', '-', self.data)}.png" if self.data else f"{name}.png"


def by_data(run_dirs: Sequence[Path]) -> dict[str, list[Path]]:
    """The runs of each data set, by its name; all of them under "" where there is but one."""
    found: dict[str, list[Path]] = {}
    for run_dir in run_dirs:
        found.setdefault(read_info(run_dir).data_name, []).append(run_dir)
    return found if len(found) > 1 else {"": list(run_dirs)}


def markdown(name: str, sections: Sequence[Section], commands: Sequence[str]) -> str:
    """The tables, under the commands that made the runs and them, each above its figure and how they were measured."""
    made, numbers = [f"    {command}" for command in commands], f"All numbers of every run: [{name}.json]({name}.json)."
    over = dict.fromkeys(word for section in sections for word in errors_over(section.run_dirs))
    measured = f"over {' or '.join(over)}" if over else "of their measurement"
    if any("seeds" in section.shown for section in sections):
        numbers = (
            f"Numbers are means over seeds, ± their standard errors over seeds: [{name}.json]({name}.json) has them all, "
            f"[{name}_seeds.json]({name}_seeds.json) those of every run. Those of rows of one seed or none are {measured}."
        )
    elif any(f"{column}_se" in row for section in sections for row in section.rows for column in section.shown):
        numbers += f" ± are standard errors {measured}."
    lines = [f"# {name}", "", "Made by", "", *made, "", numbers, ""]
    for section in sections:
        rows, shown = section.rows, section.shown
        values = [column for column in shown if column != "seeds" and any(is_number(row.get(column)) for row in rows)]
        better = ["", f"*{caption(values, section.headings)} {MARKS}*"] if values else []
        table = markdown_table(section.titles, section.cells)
        conditions = conditions_of(section.run_dirs)
        how = ["", "How they were measured:", "", *conditions] if conditions else []
        lines += [f"## {section.data}", ""] if section.data else []
        lines += [*table, "", f"![{section.data or name}]({section.figure(name)})", *better, *how, ""]
    return "\n".join(lines)


def latex_page(sections: Sequence[Section]) -> str:
    """The tables of a page for LaTeX."""
    parts = [(section.data, latex_table(section.titles, section.cells)) for section in sections]
    return "\n\n".join("\n".join([*([f"% {latex(data)}"] if data else []), *table]) for data, table in parts) + "\n"


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(prog="python -m heatgen.report.compare", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("folders", nargs="+", type=Path, help="runs, or folders of runs such as a sweep's")
    parser.add_argument("--publish", metavar="NAME", help="also write docs/results/NAME.md, .json, .png and so on")
    options = parser.parse_args()
    compare(options.folders, options.publish)


if __name__ == "__main__":
    entry(main)
