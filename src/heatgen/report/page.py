"""Tables as Markdown, for every page that a command writes."""

from collections.abc import Sequence


def cell(value: object, error: float | None = None) -> str:
    """A number of four figures, one with its standard error, a word, or nothing for None."""
    if value is None:
        return ""
    if not isinstance(value, (int, float)):
        return str(value)
    return f"{value:.4g}" if error is None else f"{value:.5g} ± {error:.2g}"


def markdown_table(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """A table of cells, the lines of a page."""
    lines = [f"| {' | '.join(headings)} |", f"|{'---|' * len(headings)}"]
    return [*lines, *(f"| {' | '.join(row)} |" for row in rows)]
