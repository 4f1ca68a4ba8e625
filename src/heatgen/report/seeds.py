"""Rows of a comparison that differ in their seed alone, as one: means and standard errors over seeds."""

import re
import statistics
from collections.abc import Sequence
from typing import Any

from heatgen.check import ConfigError

WORDS = ("variant", "parametrisation")  # columns of words that are not a setting of the sweep


def groups_of(rows: Sequence[dict[str, Any]], shown: Sequence[str]) -> list[list[int]]:
    """The places of the rows that agree in all their words but run and seed; a group each where seeds are not compared."""
    groups: dict[tuple[tuple[str, str], ...], list[int]] = {}
    for i, row in enumerate(rows):
        words = tuple((key, word) for key, word in row.items() if key not in ("run", "seed") and isinstance(word, str))
        groups.setdefault(words, []).append(i)
    if "seed" not in shown or all(len({rows[i]["seed"] for i in group}) == 1 for group in groups.values()):
        return [[i] for i in range(len(rows))]
    return list(groups.values())


def over_seeds(rows: Sequence[dict[str, Any]], shown: Sequence[str]) -> tuple[list[dict[str, Any]], list[str]]:
    """One row for all that agree in all but their seed and numbers, and the columns to show, "seeds" among them.

    Rows and columns as they are where no two differ in their seed alone. Where nothing but the seed differs, "run" comes
    first. ConfigError where a seed stands twice in a group.
    """
    groups = groups_of(rows, shown)
    if all(len(group) == 1 for group in groups):
        return list(rows), list(shown)
    columns = [key for key in shown if key != "seed"]
    words = [key for key in columns if all(not is_number(row.get(key)) for row in rows)]
    first = [] if any(key not in WORDS for key in words) else ["run"]
    numbers = [key for key in columns if key not in words]
    return [merged([rows[i] for i in group]) for group in groups], [*first, *words, "seeds", *numbers]


def merged(group: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The row of some seeds: mean = sum x_i / n and s.e. = sqrt(sum (x_i - mean)^2 / (n - 1) / n) of every number.

    Runs without any number, which have failed, do not count; "<key> seeds" is n where a number has fewer than the row. A
    number of one seed keeps the error of its measurement.
    """
    rows = [row for row in group if any(map(is_number, row.values()))] or list(group[:1])
    refuse_twice(rows)
    merged_row: dict[str, Any] = {"run": common_name(rows)}
    for key in dict.fromkeys(key for row in rows for key in row if key not in ("run", "seed") and not key.endswith(" s.e.")):
        having = [row for row in rows if is_number(row.get(key))]
        merged_row[key] = rows[0].get(key) if not having else having[0][key]
        if len(having) > 1:
            numbers = [row[key] for row in having]
            merged_row[key] = statistics.fmean(numbers)
            merged_row[f"{key} s.e."] = statistics.stdev(numbers) / len(numbers) ** 0.5
        elif having and f"{key} s.e." in having[0]:
            merged_row[f"{key} s.e."] = having[0][f"{key} s.e."]
        if 0 < len(having) < len(rows):
            merged_row[f"{key} seeds"] = len(having)
    return merged_row | {"seeds": len(rows)}


def refuse_twice(rows: Sequence[dict[str, Any]]) -> None:
    """ConfigError where two rows of the same settings have the same seed: copies would make the error too small."""
    seen: dict[str, str] = {}
    for row in rows:
        if row["seed"] in seen:
            twice = f"{seen[row['seed']]} and {row['run']}"
            raise ConfigError(f"seed={row['seed']} stands twice with the same settings, in {twice}; give one of them.")
        seen[row["seed"]] = row["run"]


def common_name(rows: Sequence[dict[str, Any]]) -> str:
    """What a group of runs is called: their name without the job's number, or all their names."""
    if len(rows) == 1:
        return str(rows[0]["run"])
    names = {re.sub(r"^\d+-", "", row["run"]) for row in rows}
    return names.pop() if len(names) == 1 else ", ".join(row["run"] for row in rows)


def error_over_seeds(row: dict[str, Any], key: str) -> float | None:
    """The standard error over seeds of a number; None where it has one seed, or none."""
    return row.get(f"{key} s.e.") if row.get(f"{key} seeds", row.get("seeds", 0)) > 1 else None


def is_number(value: Any) -> bool:
    """Whether it is one."""
    return isinstance(value, (int, float))
