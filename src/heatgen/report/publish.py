"""A table for the documentation from an experiment's results: python -m heatgen.report.publish EXPERIMENT [NAME].

Reads runs/results/<EXPERIMENT>.csv and writes docs/results/<NAME>.json (a list of rows, one object a row) and
docs/results/<NAME>.md (the same as tables, with the commands that made them). NAME is EXPERIMENT unless given.
"""

import argparse
import csv
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from heatgen.runtime.files import write_text


def measurements(results: Path) -> list[dict[str, Any]]:
    """One row a measurement (one call of evaluate.py), from the one row a number of the results file.

    A measurement that was made again with the same command on the same run replaces the older one.
    """
    rows: dict[tuple[str, str], dict[str, Any]] = {}
    with results.open(newline="") as file:
        for line in csv.DictReader(file):
            key = (line["run"], line["command"])
            if key not in rows or rows[key]["time"] != line["time"]:
                head = {name: line[name] for name in ("time", "run", "mode", "facts", "command")}
                rows[key] = head | ({line["param_name"]: line["param_value"]} if line["param_name"] else {})
            rows[key][line["metric"]] = float(line["value"])
            if line["standard_error"]:
                rows[key][f"{line['metric']} s.e."] = float(line["standard_error"])
    return list(rows.values())


def markdown(name: str, rows: Sequence[dict[str, Any]], command: str) -> str:
    """The rows as Markdown, a table for each mode, under the command that wrote the file."""
    lines = [f"# {name}", "", f"Written by `{command}`; the same rows as data: [{name}.json]({name}.json).", ""]
    for mode in dict.fromkeys(row["mode"] for row in rows):
        chosen = [row for row in rows if row["mode"] == mode]
        skip = {"time", "mode", "facts", "command"}
        columns = list(dict.fromkeys(key for row in chosen for key in row if key not in skip and not key.endswith(" s.e.")))
        lines += [f"## {mode}", "", f"| {' | '.join(columns)} |", f"|{'---|' * len(columns)}"]
        lines += [f"| {' | '.join(cell(row, column) for column in columns)} |" for row in chosen]
        lines += ["", "How each row was measured:", ""]
        lines += [f"- {row['run']}: `{row['command']}` ({row['facts']})" for row in chosen] + [""]
    return "\n".join(lines)


def cell(row: dict[str, Any], column: str) -> str:
    """A number with its standard error, or a word."""
    value, error = row.get(column, ""), row.get(f"{column} s.e.")
    text = f"{value:.5g}" if isinstance(value, float) else str(value)
    return text if error is None else f"{text} ± {error:.2g}"


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(prog="python -m heatgen.report.publish", description=__doc__.splitlines()[0])
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
    rows = measurements(results)
    folder.mkdir(parents=True, exist_ok=True)
    command = f"python -m heatgen.report.publish {options.experiment}" + (f" {options.name}" if options.name else "")
    write_text(folder / f"{name}.json", json.dumps(rows, indent=2) + "\n")
    write_text(folder / f"{name}.md", markdown(name, rows, command))
    print(f"written: {folder / name}.md and .json")


if __name__ == "__main__":
    main()
