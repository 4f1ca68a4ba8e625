"""Tables as Markdown, LaTeX and CSV: what a cell says survives, and nothing in it is a command."""

import csv
import io

import pytest

from heatgen.report.page import csv_table, latex, latex_table, markdown_table

NASTY = [r"50 % of a_b & c#1 $x$ {y} ~z^2 \input{x} <|>", "[1,2]", "*", "a\nb"]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("25.80 ± 0.31", r"$25.80 \pm 0.31$"),
        ("4.556e-05 ± 3.8e-07", r"$4.556 \times 10^{-5} \pm 3.8 \times 10^{-7}$"),
        ("-1.5021", "$-1.5021$"),
        ("20.4 ± 0.24 (seeds: 2)", r"$20.4 \pm 0.24$ (seeds: 2)"),
        ("coverage 90 %", r"coverage 90 \%"),
        ("mean |ln power ratio|", "mean $|$ln power ratio$|$"),
        ("MSE of u_0", r"MSE of u\_0"),
        ("heat_cnp & others ± more", r"heat\_cnp \& others $\pm$ more"),
        ("[0.01,0.1]", "{}[0.01,0.1]"),  # behind \\ it would be a length
        ("2026-11-22", "2026-11-22"),
        ("nan", "nan"),
        ("", ""),
    ],
)
def test_a_cell_in_latex(text: str, expected: str) -> None:
    assert latex(text) == expected


def test_no_text_is_a_command_of_latex() -> None:
    lines = latex_table(["name", "value"], [[text, "1"] for text in NASTY])
    assert lines[1] == r"\begin{tabular}{lr}" and lines[-1] == r"\end{tabular}"
    rows = lines[5:-2]
    assert len(rows) == len(NASTY) and all(row.endswith(r" & $1$ \\") for row in rows)
    plain = rows[0].removesuffix(r" & $1$ \\")
    words = r"\textbackslash{} \textasciitilde{} \textasciicircum{} \& \% \$ \# \_ \{ \} $<$ $>$ $|$"
    for special in words.split(" "):
        assert special in plain
        plain = plain.replace(special, "")
    assert not set(plain) & set("&%$#_{}~^\\<>|")
    assert rows[1].startswith("{}[1,2]") and rows[2].startswith("{}*") and rows[3].startswith("a b")


def test_a_column_stands_to_the_right_where_all_its_cells_are_numbers() -> None:
    assert latex_table(["a", "b", "c"], [["x", "1 ± 0.1", ""], ["y", "", ""]])[1] == r"\begin{tabular}{lrl}"
    assert latex_table(["a"], [])[2:] == [r"\toprule", r"a \\", r"\midrule", r"\bottomrule", r"\end{tabular}"]


def test_csv_has_every_column_in_full_and_no_formula() -> None:
    rows = [{"run": "=cmd()", "x": 0.1 + 0.2, "x_se": None}, {"run": 'a, "b"', "lr": "-1e-3", "y": "@sum"}]
    read = list(csv.DictReader(io.StringIO(csv_table(rows))))
    assert read[0] == {"run": "'=cmd()", "x": "0.30000000000000004", "x_se": "", "lr": "", "y": ""}
    assert read[1]["run"] == 'a, "b"' and read[1]["lr"] == "-1e-3" and read[1]["y"] == "'@sum"


def test_a_bar_in_a_cell_does_not_end_it() -> None:
    assert markdown_table(["|x|", "y"], [["a|b", "1"]]) == [r"| \|x\| | y |", "|---|---|", r"| a\|b | 1 |"]
