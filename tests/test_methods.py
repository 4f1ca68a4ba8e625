"""docs/methods.md shows the numbers of docs/results/frontier.json."""

import json
from pathlib import Path

from heatgen.app.options import options_of
from heatgen.report.seeds import with_error

DOCS = Path(__file__).resolve().parents[1] / "docs"
COLUMNS = (
    *(("digits", "fid_classifier"), ("digits", "spectral_error_radial"), ("digits", "nfe")),
    *(("fashion_mnist", "fid_classifier"), ("fashion_mnist", "fid"), ("fashion_mnist", "spectral_error_radial")),
    *(("grf", "spectral_error_exact"), ("grf", "score_error_relative")),
)


def test_our_numbers_are_those_of_the_sweep() -> None:
    rows = json.loads((DOCS / "results" / "frontier.json").read_text())
    found = {(row["paper"], row["data"]): row for row in rows if "parameters" in row}
    table = (DOCS / "methods.md").read_text().split("## What they give here")[1]
    lines = [line[1:-1].split("|") for line in table.splitlines() if line.startswith("| ")][1:]
    shown = {cells[0].strip(): [cell.strip() for cell in cells[1:]] for cells in lines}
    assert set(shown) == {paper.removeprefix("paper/") for paper in options_of("experiment/paper")}
    for paper, cells in shown.items():
        assert cells == [with_error(found[paper, data], column) for data, column in COLUMNS], paper
