"""Tables as Markdown, for every page that a command writes."""

import math
from collections.abc import Sequence


def cell(value: object, error: float | None = None) -> str:
    """A number of four figures, one as precise as two figures of its standard error, a word, or nothing for None.

    Counts are written in full.
    """
    if value is None:
        return ""
    if not isinstance(value, (int, float)):
        return str(value)
    if error and math.isfinite(error) and math.isfinite(value):
        least = math.floor(math.log10(error)) - 1  # the place of the last figure
        largest = math.floor(math.log10(abs(value))) if value else least
        if 1e-4 <= abs(value) < 1e6:
            return f"{value:.{max(-least, 0)}f} ± {error:.2g}"
        figures = min(max(largest - least + 1, 1), 12)
        return f"{value:#.{figures}g} ± {error:.2g}".replace(". ±", " ±")
    if float(value).is_integer() and abs(value) < 1e9:
        return f"{value:.0f}"
    return f"{value:.4g}"


def markdown_table(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """A table of cells, the lines of a page."""
    lines = [f"| {' | '.join(headings)} |", f"|{'---|' * len(headings)}"]
    return [*lines, *(f"| {' | '.join(row)} |" for row in rows)]
