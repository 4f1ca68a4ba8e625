"""What was measured as a page of the documentation: python -m heatgen.report.publish EXPERIMENT [NAME].

Reads runs/results/<EXPERIMENT>.csv and writes docs/results/<NAME>.json (a list of rows, one object a row) and .csv,
docs/results/<NAME>.md (the same as tables, with the commands that made them) and .tex. NAME is EXPERIMENT unless given.
"""

import argparse
import csv
import json
import os
import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from heatgen import check
from heatgen.check import ConfigError
from heatgen.metric.result import heading
from heatgen.report.better import caption
from heatgen.report.page import csv_table, latex, latex_table, markdown_table
from heatgen.report.rows import Row
from heatgen.report.seeds import with_error
from heatgen.runtime.explain import entry
from heatgen.runtime.files import read_small, write_text
from heatgen.runtime.screen import listed, painted

LARGEST = 2**28  # bytes of a results file
SAMPLER = re.compile(r"(?:^|; )sampler: ([^;]+)")  # of the facts, where it is not the run's own
WORDS = ("time", "run", "mode", "facts", "command")  # columns of a measurement that are no values
Cells = tuple[list[str], list[list[str]]]
HIDDEN = ("time", "mode", "facts", "command")  # of those, what a table does not show


def measurements(results: Path) -> tuple[list[Row], dict[str, str]]:
    """One row a measurement (one call of evaluate.py), from the one row a number of the results file; and the headings.

    A measurement that was made again with the same command on the same run replaces the older one.
    """
    rows: dict[tuple[str, str], Row] = {}
    headings = {}
    for number, line in enumerate(lines_of(results), 2):
        try:
            if None in line or None in line.values():  # more or fewer cells than columns
                raise ValueError(f"{len(line)} cells")
            key, name = (line["run"], line["command"]), line["metric"]
            if key not in rows or rows[key]["time"] != line["time"]:
                rows[key] = {word: line[word] for word in WORDS}
                rows[key] |= {line["param_name"]: line["param_value"]} if line["param_name"] else {}
                sampler = SAMPLER.search(line["facts"])
                rows[key] |= {"sampler": sampler[1]} if sampler else {}
            rows[key][name] = float(line["value"])
            headings[name] = heading(line.get("label") or name, line.get("unit") or "")
            if line["standard_error"]:
                rows[key][f"{name}_se"] = float(line["standard_error"])
        except (KeyError, TypeError, ValueError) as error:
            raise ConfigError(f"Line {number} of {results} is no whole row of results; repair or remove it.") from error
    return list(rows.values()), headings


def lines_of(results: Path) -> list[dict[str, str]]:
    """The lines of a results file. ConfigError for what is no such file."""
    try:
        text = read_small(results, LARGEST)
        lines = list(csv.DictReader(text.splitlines(keepends=True)))
    except (OSError, ValueError, csv.Error) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise ConfigError(f"{results} cannot be read ({reason}); give another experiment.") from error
    if not lines:
        raise ConfigError(f"{results} has no results; measure a run, or give another experiment.")
    if not text.endswith("\n"):
        raise ConfigError(f"{results} is cut off within its last line; repair or remove that line.")
    return lines


def tables(rows: Sequence[Row], headings: Mapping[str, str]) -> dict[str, Cells]:
    """The headings and the cells of each mode."""
    found = {}
    for mode in dict.fromkeys(str(row["mode"]) for row in rows):
        chosen = [row for row in rows if row["mode"] == mode]
        shown = shown_of(chosen)
        cells = [[with_error(row, column) for column in shown] for row in chosen]
        found[mode] = [headings.get(column, column) for column in shown], cells
    return found


def shown_of(rows: Sequence[Row]) -> list[str]:
    """The columns of measurements that a table shows."""
    columns = dict.fromkeys(column for row in rows for column in row)
    return [column for column in columns if column not in HIDDEN and not column.endswith("_se")]


def markdown(name: str, rows: Sequence[Row], headings: Mapping[str, str], command: str) -> str:
    """The rows as Markdown, a table for each mode, under the command that wrote the file."""
    lines = [f"# {name}", "", f"Written by `{command}`; the same rows as data: [{name}.json]({name}.json).", ""]
    for mode, (titles, cells) in tables(rows, headings).items():
        chosen = [row for row in rows if row["mode"] == mode]
        lines += [f"## {mode}", "", *markdown_table(titles, cells)]
        values = [column for column in shown_of(chosen) if any(isinstance(row.get(column), float) for row in chosen)]
        lines += ["", f"*{caption(values, headings)}*", "", "How each row was measured:", ""]
        lines += [f"- {row['run']}: `{row['command']}` ({row['facts']})" for row in chosen] + [""]
    return "\n".join(lines)


def main() -> None:
    """The command. ConfigError for what cannot be."""
    parser = argparse.ArgumentParser(prog="python -m heatgen.report.publish", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("experiment", help="the experiment_name that evaluate.py was given")
    parser.add_argument("name", nargs="?", help="the name of the table; the experiment's if not given")
    parser.add_argument("--runs-dir", default=os.environ.get("HEATGEN_RUNS", "runs"), help="where runs are")
    parser.add_argument("--folder", default="docs/results", help="where the table goes")
    options = parser.parse_args()
    check.name("EXPERIMENT", options.experiment, parts=True)
    check.name("NAME", options.name or options.experiment)
    results = Path(options.runs_dir) / "results" / f"{options.experiment}.csv"
    if not results.is_file():
        raise ConfigError(f"{results} does not exist; measure with experiment_name={options.experiment} first.")
    name, folder = options.name or options.experiment, Path(options.folder)
    rows, headings = measurements(results)
    folder.mkdir(parents=True, exist_ok=True)
    itself = f"python -m heatgen.report.publish {options.experiment}" + (f" {options.name}" if options.name else "")
    write_text(folder / f"{name}.json", json.dumps(rows, indent=2) + "\n")
    write_text(folder / f"{name}.md", markdown(name, rows, headings, itself))
    write_text(folder / f"{name}.csv", csv_table(rows))
    parts = [[f"% {latex(mode)}", *latex_table(*table)] for mode, table in tables(rows, headings).items()]
    write_text(folder / f"{name}.tex", "\n\n".join("\n".join(lines) for lines in parts) + "\n")
    page = (f"{folder / name}.md", "as a page; .tex, .csv and .json: for a paper and to read on")
    print(painted(listed("written", [page]), sys.stdout))


if __name__ == "__main__":
    entry(main)
