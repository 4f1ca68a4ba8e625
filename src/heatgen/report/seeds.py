"""Rows of a comparison that differ in their seed alone, as one: means and standard errors over seeds."""

import re
import statistics
from collections.abc import Sequence
from typing import TypeGuard

from heatgen.check import ConfigError
from heatgen.report.page import cell
from heatgen.report.rows import Row

WORDS = ("variant", "parametrisation")  # columns of words that are not a setting of the sweep


def groups_of(rows: Sequence[Row], shown: Sequence[str]) -> list[list[int]]:
    """The places of the rows that agree in all their words but run and seed; a group each where seeds are not compared."""
    groups: dict[tuple[tuple[str, str], ...], list[int]] = {}
    for i, row in enumerate(rows):
        words = tuple((key, word) for key, word in row.items() if key not in ("run", "seed") and isinstance(word, str))
        groups.setdefault(words, []).append(i)
    if "seed" not in shown or all(len({rows[i]["seed"] for i in group}) == 1 for group in groups.values()):
        return [[i] for i in range(len(rows))]
    return list(groups.values())


def over_seeds(rows: Sequence[Row], shown: Sequence[str]) -> tuple[list[Row], list[str]]:
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


def merged(group: Sequence[Row]) -> Row:
    """The row of some seeds: mean = sum x_i / n and s.e. = sqrt(sum (x_i - mean)^2 / (n - 1) / n) of every number.

    Runs without any number, which have failed, do not count; <column>_seeds is n where a number has fewer than the row. A
    number of one seed keeps the error of its measurement.
    """
    rows = [row for row in group if any(map(is_number, row.values()))] or list(group[:1])
    refuse_twice(rows)
    merged_row: Row = {"run": common_name(rows)}
    columns = dict.fromkeys(column for row in rows for column in row)
    for column in columns:
        if column in ("run", "seed") or column.endswith("_se"):
            continue
        having = [row for row in rows if is_number(row.get(column))]
        numbers = [number for row in having if is_number(number := row[column])]
        merged_row[column] = numbers[0] if numbers else rows[0].get(column)
        if len(numbers) > 1:
            merged_row[column] = statistics.fmean(numbers)
            merged_row[f"{column}_se"] = statistics.stdev(numbers) / len(numbers) ** 0.5
        elif having and f"{column}_se" in having[0]:
            merged_row[f"{column}_se"] = having[0][f"{column}_se"]
        if 0 < len(having) < len(rows):
            merged_row[f"{column}_seeds"] = len(having)
    return merged_row | {"seeds": len(rows)}


def refuse_twice(rows: Sequence[Row]) -> None:
    """ConfigError where two rows of the same settings have the same seed: copies would make the error too small."""
    runs: dict[object, object] = {}
    for row in rows:
        if row["seed"] in runs:
            twice = f"{runs[row['seed']]} and {row['run']}"
            raise ConfigError(f"seed={row['seed']} stands twice with the same settings, in {twice}; give one of them.")
        runs[row["seed"]] = row["run"]


def common_name(rows: Sequence[Row]) -> str:
    """What a group of runs is called: their name without the job's number, or all their names."""
    if len(rows) == 1:
        return str(rows[0]["run"])
    names = {re.sub(r"^\d+-", "", str(row["run"])) for row in rows}
    return names.pop() if len(names) == 1 else ", ".join(str(row["run"]) for row in rows)


def with_error(row: Row, column: str) -> str:
    """A cell of a row: a word, a number, or one with its standard error; of means, how many seeds, if some lack it."""
    error = row.get(f"{column}_se")
    text = cell(row.get(column), error if is_number(error) else None)
    return f"{text} (seeds: {row[f'{column}_seeds']})" if f"{column}_seeds" in row else text


def is_number(value: object) -> TypeGuard[float]:
    """Whether it is one."""
    return isinstance(value, (int, float))
