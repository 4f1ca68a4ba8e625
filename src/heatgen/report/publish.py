"""What was measured as a page of the documentation: python -m heatgen.report.publish EXPERIMENT [NAME].

Reads runs/results/<EXPERIMENT>.csv and writes docs/results/<NAME>.json (a list of rows, one object a row) and
docs/results/<NAME>.md (the same as tables, with the commands that made them). NAME is EXPERIMENT unless given.
"""

import argparse
import csv
import json
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from heatgen.metric.result import heading
from heatgen.report.better import caption
from heatgen.report.page import cell, markdown_table
from heatgen.report.rows import Row
from heatgen.runtime.explain import entry
from heatgen.runtime.files import write_text

WORDS = ("time", "run", "mode", "facts", "command")  # columns of a measurement that are no values
HIDDEN = ("time", "mode", "facts", "command")  # of those, what a table does not show


def measurements(results: Path) -> tuple[list[Row], dict[str, str]]:
    """One row a measurement (one call of evaluate.py), from the one row a number of the results file; and the headings.

    A measurement that was made again with the same command on the same run replaces the older one.
    """
    rows: dict[tuple[str, str], Row] = {}
    headings = {}
    with results.open(newline="") as file:
        for line in csv.DictReader(file):
            key, name = (line["run"], line["command"]), line["metric"]
            if key not in rows or rows[key]["time"] != line["time"]:
                rows[key] = {word: line[word] for word in WORDS}
                rows[key] |= {line["param_name"]: line["param_value"]} if line["param_name"] else {}
            rows[key][name] = float(line["value"])
            headings[name] = heading(line.get("label") or name, line.get("unit") or "")
            if line["standard_error"]:
                rows[key][f"{name}_se"] = float(line["standard_error"])
    return list(rows.values()), headings


def markdown(name: str, rows: Sequence[Row], headings: Mapping[str, str], command: str) -> str:
    """The rows as Markdown, a table for each mode, under the command that wrote the file."""
    lines = [f"# {name}", "", f"Written by `{command}`; the same rows as data: [{name}.json]({name}.json).", ""]
    for mode in dict.fromkeys(row["mode"] for row in rows):
        chosen = [row for row in rows if row["mode"] == mode]
        columns = dict.fromkeys(column for row in chosen for column in row)
        shown = [column for column in columns if column not in HIDDEN and not column.endswith("_se")]
        cells = [[cell(row.get(column), error_of(row, column)) for column in shown] for row in chosen]
        lines += [f"## {mode}", "", *markdown_table([headings.get(column, column) for column in shown], cells)]
        values = [column for column in shown if any(isinstance(row.get(column), float) for row in chosen)]
        lines += ["", f"*{caption(values, headings)}*", "", "How each row was measured:", ""]
        lines += [f"- {row['run']}: `{row['command']}` ({row['facts']})" for row in chosen] + [""]
    return "\n".join(lines)


def error_of(row: Row, column: str) -> float | None:
    """The standard error of a value, None where it has none."""
    error = row.get(f"{column}_se")
    return error if isinstance(error, float) else None


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(prog="python -m heatgen.report.publish", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("experiment", help="the experiment_name that evaluate.py was given")
    parser.add_argument("name", nargs="?", help="the name of the table; the experiment's if not given")
    parser.add_argument("--runs-dir", default=os.environ.get("HEATGEN_RUNS", "runs"), help="where runs are")
    parser.add_argument("--folder", default="docs/results", help="where the table goes")
    options = parser.parse_args()
    results = Path(options.runs_dir) / "results" / f"{options.experiment}.csv"
    if not results.is_file():
        print(f"Error: {results} does not exist; measure with experiment_name={options.experiment} first.", file=sys.stderr)
        sys.exit(1)
    name, folder = options.name or options.experiment, Path(options.folder)
    rows, headings = measurements(results)
    folder.mkdir(parents=True, exist_ok=True)
    command = f"python -m heatgen.report.publish {options.experiment}" + (f" {options.name}" if options.name else "")
    write_text(folder / f"{name}.json", json.dumps(rows, indent=2) + "\n")
    write_text(folder / f"{name}.md", markdown(name, rows, headings, command))
    print(f"written: {folder / name}.md and .json")


if __name__ == "__main__":
    entry(main)
