"""A figure of results, drawn anew for a paper: heatgen figure docs/results/NAME.json --columns fid nfe --width single.

Takes what a comparison or a publication wrote (rows; their headings stand in the page beside it), and what evaluate.py
wrote into a run's folder evaluation/ (series, or values).
"""

import argparse
import json
import math
import re
import sys
from collections.abc import Collection, Iterable, Sequence
from pathlib import Path

from heatgen import check
from heatgen.check import ConfigError, did_you_mean
from heatgen.metric.pictures.figure import DOUBLE, SINGLE
from heatgen.metric.result import Series, heading
from heatgen.report.compare_figure import draw
from heatgen.report.rows import LARGEST, Row, damaged, read_result
from heatgen.report.seeds import is_number
from heatgen.report.table import draw_series
from heatgen.runtime.command import NAME
from heatgen.runtime.explain import entry
from heatgen.runtime.files import read_small, shown
from heatgen.runtime.screen import listed, painted

WIDTHS = {"single": SINGLE, "double": DOUBLE}
KINDS = (".pdf", ".png")
HIDDEN = ("run", "time", "mode", "facts", "command", "data")  # columns of words that name no row where others do


def figure(path: Path, out: Path, columns: Sequence[str] = (), width: float = DOUBLE, data: str | None = None) -> None:
    """Draw the results in a file.

    Args:
        path: a JSON file of rows, or of one result.
        out: the figure, .pdf or .png.
        columns: which numbers to draw; all those that the page beside the file shows if there are none.
        width: in inches.
        data: of rows of several data sets, those of this one.

    Raises:
        ConfigError: it holds no results, a column or the data set is not there, or `out` has another name.
    """
    if out.suffix not in KINDS:
        raise ConfigError(f"--out {out} must end in .pdf or .png.")
    if not path.is_file():
        raise ConfigError(f"{path} is not there; give docs/results/NAME.json, or a file of a run's evaluation/.")
    try:
        content = json.loads(read_small(path, LARGEST))
    except (OSError, ValueError, RecursionError) as error:
        raise damaged(path, error) from error
    if isinstance(content, dict):
        draw_result(path, content.get("series") or {}, out, columns, width)
    else:
        draw_rows(path, of_data(checked(path, content), data), out, columns, width)


def checked(path: Path, content: object) -> list[Row]:
    """Rows of words and numbers. ConfigError for anything else."""
    rows = content if isinstance(content, list) else []
    cells = [cell for row in rows for cell in (row.values() if isinstance(row, dict) else [row])]
    if not cells or not all(cell is None or isinstance(cell, (str, int, float)) for cell in cells) or cells == rows:
        raise ConfigError(f"{path} holds no rows of results; give docs/results/NAME.json, or a file of a run's evaluation/.")
    return list(rows)


def one_of(key: str, wanted: Iterable[str], known: Collection[str]) -> None:
    """ConfigError for the first name that is not there."""
    for name in [name for name in wanted if name not in known]:
        raise ConfigError(f"{key} {name} is not there{did_you_mean(name, known)} (there are: {', '.join(known)}).")


def of_data(rows: Sequence[Row], data: str | None) -> list[Row]:
    """The rows of one data set. ConfigError where it is not clear which."""
    known = list(dict.fromkeys(str(row["data"]) for row in rows if "data" in row))
    if data is None and len(known) > 1:
        raise ConfigError(f"There are rows of {', '.join(known)}, which cannot be compared; choose with --data NAME.")
    one_of("--data", [data] if data is not None else [], known)
    return [row for row in rows if data in (None, row.get("data"))]


def draw_rows(path: Path, rows: Sequence[Row], out: Path, columns: Sequence[str], width: float) -> None:
    """The figure of rows; samples stand in it where the runs are beside the file, as in a sweep's folder."""
    headings = headings_of(path.with_suffix(".md"), rows)
    every = dict.fromkeys(column for row in rows for column in row)
    numbers = [column for column in every if any(is_number(row.get(column)) for row in rows)]
    numbers = [column for column in numbers if not column.endswith(("_se", "_seeds")) and column != "seeds"]
    wanted = list(columns) or [column for column in headings if column in numbers] or numbers
    one_of("--columns", wanted, numbers)
    chosen = [row for row in rows if any(is_number(row.get(column)) for column in wanted)]
    words = [column for column in headings or every if column not in HIDDEN and column not in numbers]
    words = [column for column in words if any(row.get(column) for row in chosen)] or ["run"]
    exact = [words[0] != "run" and row.get("run") == row.get(words[0]) for row in chosen]  # what is known has a name for all
    runs = [None if known else path.parent / str(row.get("run")) for row, known in zip(chosen, exact, strict=True)]
    draw(runs, chosen, [*words, *wanted], headings, out, width=width)


def headings_of(page: Path, rows: Sequence[Row]) -> dict[str, str]:
    """Column -> heading, of the tables of a page that were made of these rows: a column there is the one with its cells."""
    columns = dict.fromkeys(column for row in rows for column in row if not column.endswith(("_se", "_seeds")))
    cells_by = {column: [row[column] for row in rows if row.get(column) not in (None, "")] for column in columns}
    found: dict[str, str] = {}
    lines = read_small(page, LARGEST).splitlines() if page.is_file() else []
    for i in [i for i in range(1, len(lines)) if re.fullmatch(r"\|(---\|)+", lines[i])]:
        end = next((j for j in range(i, len(lines)) if not lines[j].startswith("|")), len(lines))
        titles, *cells = [cells_of(line) for line in [lines[i - 1], *lines[i + 1 : end]]]
        for title, column_of_cells in zip(titles, zip(*cells, strict=False), strict=False):
            texts = [text for text in column_of_cells if text]
            same = [column for column, own in cells_by.items() if column not in found and are_printed(own, texts)]
            found |= dict.fromkeys(same[:1], title)
    return found


def are_printed(cells: Sequence[object], texts: Sequence[str]) -> bool:
    """Whether texts are these words and numbers, as they were printed."""
    return len(cells) == len(texts) and all(is_printed(cell, text) for cell, text in zip(cells, texts, strict=True))


def is_printed(cell: object, text: str) -> bool:
    """Whether a text is this word, or this number rounded to its last figure."""
    digits = re.match(r"-?\d*\.?(\d*)(?:e([+-]?\d+))?", text)
    if not is_number(cell) or not digits or not digits[0].strip("-."):
        return str(cell) == text
    unit = 10.0 ** (int(digits[2] or 0) - len(digits[1]))
    return abs(float(digits[0]) - cell) <= 0.5001 * unit


def cells_of(line: str) -> list[str]:
    """The cells of a line of a table, as they were before it was written."""
    return [cell.strip().replace("\\|", "|") for cell in re.split(r"(?<!\\)\|", line.strip()[1:-1])]


def draw_result(path: Path, series: object, out: Path, columns: Sequence[str], width: float) -> None:
    """The figure of one result: its series by the first of them, or else its values."""
    result = read_result(path)
    labels, units, errors = result.get("labels", {}), result.get("units", {}), result.get("standard_errors", {})
    whole = isinstance(series, dict) and all(map(is_column, series.values()))
    if not isinstance(series, dict) or not whole or len({len(each) for each in series.values()}) > 1:
        raise damaged(path, ValueError("its series are no columns of numbers, all of one length"))
    values = result.get("values", {})
    first = "nfe" if "nfe" in series else next(iter(series), "")  # the abscissa
    others = [name for name in series or values if name != first]
    if not others:
        raise ConfigError(f"{path} has nothing to draw; give another file.")
    one_of("--columns", columns, others)
    wanted = [*(columns or others)]
    if series:
        wanted += [f"{name}_se" for name in columns if f"{name}_se" in series and f"{name}_se" not in columns]
        numbers = {name: [math.nan if value is None else value for value in series[name]] for name in (first, *wanted)}
        kinds = {name: name if re.fullmatch(r"[a-z][a-z0-9_]*", name) else "column" for name in numbers}  # of any key
        curves = [Series(kinds[name], each, units.get(name, ""), labels.get(name, name)) for name, each in numbers.items()]
        draw_series(curves, result["mode"], out, width=width)
        return
    row: Row = {"run": path.parent.parent.name, **values, **{f"{name}_se": error for name, error in errors.items()}}
    headings = {name: heading(labels.get(name, name), units.get(name, "")) for name in wanted}
    draw([path.parent.parent], [row], ["run", *wanted], headings, out, width=width)


def is_column(values: object) -> bool:
    """Whether it is a list of numbers, or of nothing for what is none."""
    return isinstance(values, list) and all(value is None or is_number(value) for value in values)


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(prog=f"{NAME} figure", description=(__doc__ or "").splitlines()[0])
    parser.add_argument(
        "results", type=Path, help="docs/results/NAME.json, a sweep's comparison.json, or RUN/evaluation/NAME.json"
    )
    parser.add_argument("--out", type=Path, help="the figure, .pdf or .png (default: NAME.pdf in this folder)")
    parser.add_argument("--columns", nargs="+", default=[], metavar="NAME", help="the numbers (default: those of its page)")
    parser.add_argument("--width", default="double", help="of one column of a paper or of both: single | double (default)")
    parser.add_argument("--data", metavar="NAME", help="of a page of several data sets, which one")
    options = parser.parse_args()
    width = WIDTHS[check.choice("--width", options.width, list(WIDTHS))]
    out = options.out or Path(options.results.with_suffix(".pdf").name)
    figure(options.results, out, options.columns, width, options.data)
    print(painted(listed("written", [(shown(out), f"{width:g} inches wide")]), sys.stdout))


if __name__ == "__main__":
    entry(main)
