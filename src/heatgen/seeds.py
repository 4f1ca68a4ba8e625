"""Rows of a comparison that differ in their seed alone, as one: means and standard errors over seeds."""

import statistics
from collections.abc import Sequence
from typing import Any

from heatgen.compare_figure import cell

WORDS = ("run", "variant", "parametrisation")


def over_seeds(rows: Sequence[dict[str, Any]], shown: Sequence[str]) -> tuple[list[dict[str, Any]], list[str]]:
    """One row for all that agree in what is shown but the seed and the numbers, and the columns to show.

    mean = sum x_i / n, s.e. = sqrt(sum (x_i - mean)^2 / (n - 1) / n) over the n seeds of a row; one seed keeps the error of
    its measurement. Rows and columns as they are where no two differ in their seed alone.
    """
    groups: dict[tuple[Any, ...], list[dict[str, Any]]] = {}
    for row in rows:
        key = tuple((name, value) for name, value in row.items() if name not in ("run", "seed") and isinstance(value, str))
        groups.setdefault(key, []).append(row)
    if "seed" not in shown or all(len({row.get("seed") for row in group}) == 1 for group in groups.values()):
        return list(rows), list(shown)
    columns = [key for key in shown if key != "seed"]
    words = sum(all(not isinstance(row.get(key), (int, float)) for row in rows) for key in columns)
    return [merged(group) for group in groups.values()], [*columns[:words], "seeds", *columns[words:]]


def merged(group: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The mean row of some seeds."""
    row = {key: value for key, value in group[0].items() if key != "seed"} | {"seeds": len(group)}
    for key, value in group[0].items():
        numbers = [other[key] for other in group if isinstance(other.get(key), (int, float))]
        if len(numbers) == len(group) > 1 and isinstance(value, (int, float)) and not key.endswith(" s.e."):
            row[key] = statistics.fmean(numbers)
            row[f"{key} s.e."] = statistics.stdev(numbers) / len(group) ** 0.5
    return row


def with_error(row: dict[str, Any], key: str) -> str:
    """A number with its standard error, or a word."""
    error = row.get(f"{key} s.e.")
    if error is None or not isinstance(row.get(key), (int, float)):
        return cell(row.get(key))
    return f"{row[key]:.5g} ± {error:.2g}"
