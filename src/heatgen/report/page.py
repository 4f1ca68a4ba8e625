"""Tables as Markdown, LaTeX and CSV, for every page that a command writes."""

import csv
import io
import math
import re
from collections.abc import Mapping, Sequence

NUMBER = re.compile(r"(-?)([\d.]+)(?:e([+-]?\d+))?")
SPECIAL = {char: f"\\{char}" for char in "&%$#_{}"} | {  # of LaTeX
    **{"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"},
    **{"<": "$<$", ">": "$>$", "|": "$|$", "±": r"$\pm$", "→": r"$\to$", "×": r"$\times$", "∞": r"$\infty$"},
}
RISKY = ("=", "+", "-", "@", "\t", "\r")  # what begins a formula of a spreadsheet


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
    lines = [[cell.replace("|", "\\|") for cell in row] for row in (headings, *rows)]
    first, *others = [f"| {' | '.join(row)} |" for row in lines]
    return [first, f"|{'---|' * len(headings)}", *others]


def latex_table(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """A table of cells for the package booktabs; columns of numbers stand at their right, numbers are set as such."""
    columns: list[tuple[str, ...]] = list(zip(*rows, strict=True)) or [()] * len(headings)
    sides = "".join("r" if any(column) and all(map(is_numeric, filter(None, column))) else "l" for column in columns)
    lines = [" & ".join(map(latex, row)) + r" \\" for row in (headings, *rows)]
    begin = [rf"\begin{{tabular}}{{{sides}}}", r"\toprule", lines[0], r"\midrule"]
    return ["% \\usepackage{booktabs}", *begin, *lines[1:], r"\bottomrule", r"\end{tabular}"]


def is_numeric(text: str) -> bool:
    """Whether a cell is a number, or one with its error."""
    return all(NUMBER.fullmatch(part) for part in text.split(" (seeds: ")[0].split(" ± "))


def latex(text: str) -> str:
    """A cell as LaTeX prints it; nothing in it is a command. [ and * at its beginning are no options of the line before."""
    value, seeds, count = text.partition(" (seeds: ")
    if text and is_numeric(text):
        number = r" \pm ".join(map(power, value.split(" ± ")))
        return f"${number}$" + (f" (seeds: {count}" if seeds else "")
    return ("{}" if text[:1] in ("[", "*") else "") + "".join(SPECIAL.get(char, char) for char in " ".join(text.split()))


def power(text: str) -> str:
    """A number, with its exponent where it has one, in math."""
    found = NUMBER.fullmatch(text)
    assert found, text
    sign, digits, exponent = found.groups()
    return f"{sign}{digits}" + (rf" \times 10^{{{int(exponent)}}}" if exponent else "")


def csv_table(rows: Sequence[Mapping[str, object]]) -> str:
    """Rows with all their columns, numbers in full; no text in it is a formula to a spreadsheet."""
    output = io.StringIO()
    writer = csv.DictWriter(output, list(dict.fromkeys(column for row in rows for column in row)), lineterminator="\n")
    writer.writeheader()
    for row in rows:
        writer.writerow({key: harmless(value) if isinstance(value, str) else value for key, value in row.items()})
    return output.getvalue()


def harmless(text: str) -> str:
    """A text that a spreadsheet shows and does not compute."""
    return f"'{text}" if text.startswith(RISKY) and not NUMBER.fullmatch(text) else text
