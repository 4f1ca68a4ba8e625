"""heatgen figure: what a page shows is what is drawn anew, of every page that is published."""

import ast
import json
import sys
from pathlib import Path

import pytest
from PIL import Image

from heatgen.check import ConfigError
from heatgen.metric.pictures.figure import DOUBLE, PALETTE, SINGLE, STYLE, plots, save
from heatgen.metric.result import Series
from heatgen.report import figure as module
from heatgen.report.figure import cells_of, figure, headings_of
from heatgen.report.page import markdown_table
from heatgen.report.seeds import with_error
from heatgen.report.table import plot_series

ROOT = Path(__file__).resolve().parents[2]
RESULTS, SOURCE = ROOT / "docs" / "results", ROOT / "src" / "heatgen"
ROWS = [
    {"run": "0-a", "row": "$a", "fid": 12.5, "fid_se": 0.25, "crps": 0.1, "note": None},
    {"run": "1-b", "row": "b", "fid": 20.0, "crps": 0.2},
    {"run": "exact", "row": "exact", "crps": 0.05},
]
SERIES = {
    "mode": "forward",
    "series": {"t": [0, 1, 2], "psnr": [3.0, None, 1.0]},
    "labels": {"psnr": "PSNR"},
    "units": {"psnr": "dB"},
}


def published() -> list[Path]:
    """The tables of the documentation that have a page."""
    found = [path for path in sorted(RESULTS.glob("*.json")) if path.with_suffix(".md").exists()]
    return [path for path in found if path.stem not in ("performance", "gpu")]  # of the benchmarks


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[dict]:
    """What was drawn, in place of a figure."""
    calls: list[dict] = []

    def note(runs, rows, shown, headings, *paths, width):
        calls.append({"runs": runs, "rows": rows, "shown": shown, "headings": headings, "width": width})

    monkeypatch.setattr(module, "draw", note)
    return calls


def test_there_are_pages() -> None:
    assert len(published()) >= 8


@pytest.mark.parametrize("path", published(), ids=lambda path: path.stem)
def test_every_number_of_a_published_table_is_that_of_its_rows(path: Path) -> None:
    every, text = json.loads(path.read_text()), path.with_suffix(".md").read_text()
    titles = [
        line for line, below in zip(text.splitlines(), text.splitlines()[1:], strict=False) if below.startswith("|---")
    ]
    found: set[str] = set()
    for data in dict.fromkeys(row.get("data") for row in every):
        found |= {*headings_of(path.with_suffix(".md"), [row for row in every if row.get("data") == data]).values()}
    lost = {title for line in titles for title in cells_of(line)} - found
    assert found and lost <= ({"run"} if len(titles) > 1 else set())  # which stands in the table of every mode


def test_rows_are_drawn_with_the_headings_of_their_page_and_the_exact_ones_as_such(
    tmp_path: Path, drawn: list[dict]
) -> None:
    path = tmp_path / "maps.json"
    path.write_text(json.dumps(ROWS))
    cells = [[with_error(row, column) for column in ("row", "crps", "fid")] for row in ROWS]
    page = ["# maps", *markdown_table(["row", "CRPS", "|FID|"], cells), ""]
    path.with_suffix(".md").write_text("\n".join(page))
    figure(path, tmp_path / "x.pdf")
    (call,) = drawn
    assert call["shown"] == ["row", "crps", "fid"] and call["headings"] == {"row": "row", "crps": "CRPS", "fid": "|FID|"}
    assert call["runs"] == [tmp_path / "0-a", tmp_path / "1-b", None] and call["width"] == DOUBLE
    figure(path, tmp_path / "x.pdf", ["fid"], SINGLE)
    assert drawn[1]["shown"] == ["row", "fid"] and [row["run"] for row in drawn[1]["rows"]] == ["0-a", "1-b"]


def test_rows_without_a_page_are_drawn_by_their_columns_and_those_of_several_data_sets_are_chosen(tmp_path, drawn) -> None:
    path = tmp_path / "maps.json"
    path.write_text(json.dumps([{"data": "a", **ROWS[0]}, {"data": "b", **ROWS[1]}]))
    with pytest.raises(ConfigError, match="rows of a, b, which cannot be compared; choose with --data NAME"):
        figure(path, tmp_path / "x.pdf")
    figure(path, tmp_path / "x.pdf", data="b")
    assert drawn[0]["shown"] == ["row", "fid", "crps"] and [row["run"] for row in drawn[0]["rows"]] == ["1-b"]


@pytest.mark.parametrize(
    ("content", "options", "sentence"),
    [
        (ROWS, {"columns": ["fit"]}, "--columns fit is not there; did you mean fid?"),
        (ROWS, {"data": "digits"}, "--data digits is not there"),
        (ROWS, {"out": "x.jpg"}, "must end in .pdf or .png"),
        ([], {}, "holds no rows of results"),
        ([1], {}, "holds no rows of results"),
        ([{"a": [1]}], {}, "holds no rows of results"),
        ("[", {}, "cannot be read"),
        ({"mode": "fid"}, {}, "has nothing to draw"),
        ({"mode": "fid", "series": {"t": "x"}}, {}, "its series are no columns of numbers"),
        ({"mode": "fid", "series": {"t": [1], "x": [1, 2]}}, {}, "all of one length"),
        (SERIES, {"columns": ["ssim"]}, "--columns ssim is not there"),
    ],
)
def test_what_cannot_be_drawn_gets_one_sentence(
    content: object, options: dict, sentence: str, tmp_path: Path, drawn
) -> None:
    path = tmp_path / "a.json"
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    with pytest.raises(ConfigError, match=r"none\.json is not there; give docs/results"):
        figure(tmp_path / "none.json", tmp_path / "x.pdf")
    with pytest.raises(ConfigError) as refused:
        figure(path, tmp_path / options.pop("out", "x.pdf"), **options)
    assert sentence in str(refused.value) and str(refused.value).endswith((".", ")"))


@pytest.mark.slow
def test_files_are_of_the_kind_and_width_that_is_asked_for_and_the_same_again(tmp_path: Path, monkeypatch) -> None:
    (tmp_path / "maps.json").write_text(json.dumps(ROWS))
    (tmp_path / "forward.json").write_text(json.dumps(SERIES | {"labels": {"psnr": r"$\frac$"}}))
    monkeypatch.chdir(tmp_path)
    for words in (["maps.json"], ["maps.json", "--out", "a.png", "--width", "single"], ["forward.json", "--out", "b.png"]):
        monkeypatch.setattr(sys, "argv", ["figure", *words])
        module.main()
    first = (tmp_path / "maps.pdf").read_bytes()
    assert first.startswith(b"%PDF") and b"/Type3" not in first and b"CreationDate" not in first
    for name, width in (("a.png", SINGLE), ("b.png", DOUBLE)):
        with Image.open(name) as image:
            assert image.width == pytest.approx(width * 160, abs=2)
    module.figure(Path("maps.json"), Path("maps.pdf"))
    assert (tmp_path / "maps.pdf").read_bytes() == first


@pytest.mark.slow
def test_our_figures_have_the_style_of_the_house_and_those_of_others_their_own(tmp_path: Path) -> None:
    plt = plots()
    with plt.rc_context({"lines.linewidth": 9, "savefig.dpi": 50}):
        before = dict(plt.rcParams)
        plot = plot_series([Series("x", [0, 1]), Series("y", [0, 1])], "title")
        line = plot.axes[0].lines[0]
        assert (line.get_color(), line.get_linewidth()) == (PALETTE[0], STYLE["lines.linewidth"])
        save(plot, tmp_path / "a.png", tmp_path / "a.pdf")
        assert dict(plt.rcParams) == before
    with Image.open(tmp_path / "a.png") as image:
        assert image.width == pytest.approx(DOUBLE * STYLE["savefig.dpi"], abs=2)
    assert (tmp_path / "a.pdf").is_file() and not plt.get_fignums()


def test_a_standard_error_is_a_band_around_its_series() -> None:
    names = {"x": [0.0, 1.0], "power": [1.0, 2.0], "power_se": [0.5, 0.25], "other_se": [1.0, 1.0]}
    plot = plot_series([Series(name, values) for name, values in names.items()], "title")
    first, second = [panel for panel in plot.axes if panel.axison]
    assert (first.get_title(), second.get_title()) == ("power", "other se")
    (band,) = first.collections
    assert {tuple(corner) for corner in band.get_paths()[0].vertices} == {(0, 0.5), (0, 1.5), (1, 1.75), (1, 2.25)}
    plots().close(plot)


def test_whatever_draws_has_the_style_of_the_house() -> None:
    found = 0
    for path in [path for path in sorted(SOURCE.rglob("*.py")) if "plots()" in path.read_text()]:
        for node in ast.parse(path.read_text()).body:
            if isinstance(node, ast.FunctionDef) and "plots()" in ast.unparse(node) and node.name not in ("plots", "styled"):
                assert "styled()" in map(ast.unparse, node.decorator_list), f"{path}: {node.name}"
                found += 1
    assert found > 15
