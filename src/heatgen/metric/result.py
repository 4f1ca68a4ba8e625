"""What a metric gives: named values with their errors and units, series, pictures, and what a reader must know of them.

return Result([Value("fid", 12.5, label="FID"), Value.mean("nll", column, "bits/dim")], facts={"n": 100})
"""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # the commands that read results need neither
    from PIL import Image
    from torch import Tensor

FEW = 10  # samples, below which a standard error is said to be uncertain
NAME = re.compile(r"[a-z][a-z0-9_]*(?<!_se)(?<!_seeds)")


def heading(label: str, unit: str) -> str:
    """A column's heading for people: the label, and the unit in brackets where there is one."""
    return f"{label} [{unit}]" if unit else label


def few_samples(n: int, what: str) -> list[str]:
    """A note where so few samples make standard errors guesses: of normal numbers they are 1 / sqrt(2 (n - 1)) off."""
    if n >= FEW:
        return []
    return [f"{n} {what}: the standard errors are themselves uncertain by {100 / math.sqrt(2 * (n - 1)):.0f} %; raise n."]


@dataclass(frozen=True)
class Value:
    """One number of a result.

    Args:
        name: the column it has in every table, such as nll_bound: [a-z0-9_]+, and not the column <name>_se of its error.
        value: the number.
        error: its standard error, None where it has none.
        unit: such as bits/dim; "" for a pure number.
        label: its name for people; by default the words of `name`.
        over: the independent things that the error is over, such as fields, images or tasks; "" where it has no error.
    """

    name: str
    value: float
    error: float | None = None
    unit: str = ""
    label: str = ""
    over: str = ""

    def __post_init__(self) -> None:
        assert NAME.fullmatch(self.name), f"{self.name} is not a column's name: [a-z0-9_]+, without _se at its end"
        object.__setattr__(self, "label", self.label or self.name.replace("_", " "))

    @classmethod
    def mean(cls, name: str, column: "Tensor", unit: str = "", label: str = "") -> "Value":
        """The mean of a column, (n,), over independent samples, with its standard error; none for a single sample."""
        error = column.std().item() / len(column) ** 0.5 if len(column) > 1 else None
        return cls(name, column.mean().item(), error, unit, label)

    @classmethod
    def root_mean(cls, name: str, squares: "Tensor", unit: str = "", label: str = "") -> "Value":
        """The root of the mean of a column of squares, (n,), with its standard error to first order."""
        square = cls.mean(name, squares)
        root = math.sqrt(square.value)
        error = square.error if square.error is None or not root else square.error / (2 * root)
        return cls(name, root, error, unit, label)


@dataclass(frozen=True)
class Series:
    """A column of numbers, one for each level, time or the like; name, unit and label as of a `Value`."""

    name: str
    values: list[float]
    unit: str = ""
    label: str = ""

    def __post_init__(self) -> None:
        assert re.fullmatch(r"[a-z][a-z0-9_]*", self.name), self.name
        object.__setattr__(self, "label", self.label or self.name.replace("_", " "))


@dataclass
class Result:
    """What a metric found.

    Args:
        numbers: its values, no two of one name.
        facts: what a reader must know of them: n, the split, settings.
        notes: caveats, a sentence each.
        curves: series of equal length, the first one the abscissa.
        pictures: name -> image, or the images of a film.
        headline: the names of the values that stand for the result beside those of other runs; None: the first one.
        references: what is known exactly, which has rows of its own beside the runs: row -> name of a value -> number.
        reference_errors: the standard errors of those that are estimates; the others are exact by formula.
        over: what the errors of its values are over, where a value does not say.
    """

    numbers: list[Value] = field(default_factory=list)
    facts: dict[str, object] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    curves: list[Series] = field(default_factory=list)
    pictures: "dict[str, Image.Image | list[Image.Image]]" = field(default_factory=dict)
    headline: tuple[str, ...] | None = None
    references: dict[str, dict[str, float]] = field(default_factory=dict)
    reference_errors: dict[str, dict[str, float]] = field(default_factory=dict)
    over: str = ""

    def add(self, *values: Value) -> None:
        """Add values."""
        self.numbers.extend(values)

    def refer(self, row: str, *values: Value) -> None:
        """Add values to a row of what is known exactly; those without an error are exact by formula."""
        for value in values:
            self.references.setdefault(row, {})[value.name] = value.value
            if value.error is not None:
                self.reference_errors.setdefault(row, {})[value.name] = value.error

    @property
    def values(self) -> dict[str, float]:
        """Name -> value."""
        return {number.name: number.value for number in self.numbers}

    @property
    def errors(self) -> dict[str, float]:
        """Name -> standard error, of the values that have one."""
        return {number.name: number.error for number in self.numbers if number.error is not None}

    @property
    def errors_over(self) -> dict[str, str]:
        """Name -> the independent things that its standard error is over, of the values that have one and say so."""
        found = {number.name: number.over or self.over for number in self.numbers if number.error is not None}
        return {name: over for name, over in found.items() if over}

    @property
    def series(self) -> dict[str, list[float]]:
        """Name -> series."""
        return {curve.name: curve.values for curve in self.curves}

    @property
    def headlines(self) -> list[str]:
        """The names of the values that stand for the result."""
        return list(list(self.values)[:1] if self.headline is None else self.headline)

    def of(self, word: str, what: str) -> "Result":
        """The same, with its values named after what they are of: fid -> fid_word, "FID" -> "FID (word what)"."""
        numbers = [
            replace(value, name=f"{value.name}_{word}", label=f"{value.label} ({word} {what})") for value in self.numbers
        ]
        headline = self.headline and tuple(f"{name}_{word}" for name in self.headline)
        return replace(self, numbers=numbers, headline=headline)

    def content(self) -> dict[str, object]:
        """The result as plain containers, for JSON; pictures are files of their own."""
        columns: Sequence[Value | Series] = [*self.curves, *self.numbers]
        assert len(self.values) == len(self.numbers), "two values have one name"
        return {
            "values": self.values,
            "standard_errors": self.errors,
            "errors_over": self.errors_over,
            "units": {column.name: column.unit for column in columns if column.unit},
            "labels": {column.name: column.label for column in columns},
            "headline": self.headlines,
            "facts": self.facts,
            "notes": self.notes,
            "series": self.series,
            "references": self.references,
            "reference_errors": self.reference_errors,
        }
