"""What a result becomes: a screen, JSON, figures, pictures and rows of a table."""

import csv
import dataclasses
import json
import math

import pytest
import torch
from PIL import Image

from heatgen.metric.result import Result, Series, Value
from heatgen.report.table import SHOWN, report, report_sweep, table_of_series


def picture(scale_coefficients, size=(7, 5)):
    return Image.new("RGB", size, scale_coefficients)


def result_of(series=None, **values):
    """A result of these values and series."""
    return Result([Value(*item) for item in values.items()], curves=[Series(*item) for item in (series or {}).items()])


RESULT = Result(
    [Value("first", 1.5), Value("second", -2.0, 0.25, "nats", "the second")],
    {"n": 4, "place": "here"},
    ["beware."],
    [Series("k", [0.0, 1.0, 2.0]), Series("height", [1.0, 10.0, 1e6], "m"), Series("depth", [0.0, -1.0, 3.0], label="|d|")],
    {"red": picture("red"), "blue": picture("blue")},
    headline=("second", "first"),
    references={"exact": {"first": 2.0}},
)


PLAIN = dataclasses.replace(RESULT, curves=[])  # without a figure, which takes time


@pytest.fixture
def tell(tmp_path, capsys):
    """Report a result of the run runs/heat/a; the JSON that was written, its path and the screen."""
    run = tmp_path / "runs" / "heat" / "a"

    def told(result, mode="test", parameter=None, **settings):
        (path, _), *_ = report(result, mode, run, str(tmp_path / "runs"), "mine", parameter, **settings)
        return json.loads(path.read_text(), parse_constant=pytest.fail), path, capsys.readouterr().out

    return told


def rows(tmp_path):
    return list(csv.DictReader((tmp_path / "runs" / "results" / "mine.csv").open()))


@pytest.mark.slow
def test_json_holds_all_that_a_result_says(tell):
    content, path, _ = tell(RESULT, parameter=("delta", 0.1))
    assert path.parent.parts[-3:] == ("heat", "a", "evaluation") and path.name.startswith("test_")
    assert content["mode"] == "test" and content["run"] == str(path.parent.parent)
    assert content["values"] == {"first": 1.5, "second": -2.0} and content["standard_errors"] == {"second": 0.25}
    assert content["units"] == {"second": "nats", "height": "m"}
    labels = {"first": "first", "second": "the second", "k": "k", "height": "height", "depth": "|d|"}
    assert content["labels"] == labels
    assert content["facts"] == RESULT.facts and content["notes"] == RESULT.notes
    assert content["series"] == RESULT.series and content["parameter"] == {"delta": 0.1}
    assert content["references"] == RESULT.references


def test_the_headline_is_what_the_result_names_or_its_first_value(tell):
    assert tell(PLAIN)[0]["headline"] == ["second", "first"]
    assert tell(result_of(one=1.0, two=2.0))[0]["headline"] == ["one"]
    assert tell(Result())[0]["headline"] == []


def test_numbers_that_are_not_finite_are_null_in_json(tell):
    """Anything else is no JSON; NaN and Infinity would not be read."""
    result = result_of({"k": [0.0, 1.0], "x": [math.nan, 2.0], "y": [math.inf, math.inf]}, b=math.inf, c=1.0)
    result.add(Value("a", math.nan, -math.inf))
    result.facts["spread"] = math.nan
    content = tell(result)[0]
    assert content["values"] == {"a": None, "b": None, "c": 1} and content["standard_errors"] == {"a": None}
    assert content["facts"] == {"spread": None}
    assert content["series"] == {"k": [0, 1], "x": [None, 2], "y": [None, None]}


def test_facts_of_any_kind_can_be_written(tell, tmp_path):
    assert tell(Result(facts={"path": tmp_path}))[0]["facts"] == {"path": str(tmp_path)}


def test_the_screen_shows_values_errors_facts_and_notes(tell):
    _, _, shown = tell(RESULT)
    lines = [line.split() for line in shown.splitlines()]
    assert ["│", "first", "│", "1.5", "│", "│", "│"] in lines
    assert ["│", "the", "second", "│", "-2", "│", "0.25", "│", "nats", "│"] in lines
    assert "height [m]" in shown and "|d|" in shown
    assert "place: here" in shown and "Note: beware." in shown
    assert ["│", "2", "│", "1e+06", "│", "3", "│"] in lines  # the last place of the series


def test_names_with_brackets_are_not_taken_for_markup(tell):
    curves = [Series("k", [0.0], label="[k]"), Series("x", [2.0], "nats")]
    shown = tell(Result([Value("a", 1.0, label="[a]")], {"[bold]": "[red]"}, ["[/nothing]"], curves))[2]
    assert all(name in shown for name in ("[a]", "[bold]: [red]", "Note: [/nothing]", "[k]", "x [nats]"))


@pytest.mark.parametrize(("length", "shown"), [(0, 0), (1, 1), (3, 3), (11, 11), (500, 11)])
def test_the_screen_shows_about_ten_places_of_a_series_and_its_ends(length, shown):
    table = table_of_series([Series("k", list(range(length))), Series("x", [2 * k for k in range(length)])])
    cells = [list(column.cells) for column in table.columns]
    assert len(cells[0]) == len(cells[1]) == shown <= SHOWN
    if length:
        assert (cells[0][0], cells[0][-1]) == ("0", str(length - 1))
        assert all(float(x) == 2 * float(k) for k, x in zip(*cells, strict=True))


@pytest.mark.slow
def test_a_figure_and_pictures_lie_beside_the_json(tell):
    _, path, _ = tell(RESULT)
    figure = Image.open(path.with_suffix(".png"))
    assert figure.width > 300 and len(figure.convert("L").getcolors()) > 10
    for name, scale_coefficients in (("red", (255, 0, 0)), ("blue", (0, 0, 255))):
        kept = Image.open(path.with_name(f"{path.stem}_{name}.png"))
        assert kept.size == (7, 5) and kept.getpixel((3, 2)) == scale_coefficients
    plain = tell(result_of(a=1.0), mode="plain")[1]
    assert [file.name for file in plain.parent.glob("plain*")] == [plain.name]


def test_the_first_picture_is_also_written_where_it_is_wanted(tell, tmp_path):
    wanted = tmp_path / "docs" / "new" / "picture.png"
    tell(PLAIN, picture=str(wanted))
    assert Image.open(wanted).getpixel((0, 0)) == (255, 0, 0)


def test_a_series_without_places_or_finite_numbers_can_be_drawn(tell):
    for series in ({"k": [], "x": []}, {"k": [0.0], "x": [math.nan]}, {"k": [0.0, 1.0], "x": [math.inf, 1.0]}):
        _, path, _ = tell(result_of(series, a=1.0))
        assert path.with_suffix(".png").is_file()


def test_a_result_never_overwrites_another(tell):
    paths = [tell(result_of(a=float(i)))[1] for i in range(3)]
    assert len(set(paths)) == 3
    assert [json.loads(path.read_text())["values"]["a"] for path in paths] == [0, 1, 2]


def test_every_value_is_a_row_of_the_experiments_table(tell, tmp_path):
    tell(PLAIN, parameter=("delta", 0.1))
    tell(result_of(third=3.0))
    found = rows(tmp_path)
    assert [row["metric"] for row in found] == ["first", "second", "third"]
    assert [row["value"] for row in found] == ["1.5", "-2.0", "3.0"]
    assert [row["standard_error"] for row in found] == ["", "0.25", ""]
    assert [row["unit"] for row in found] == ["", "nats", ""]
    assert [row["label"] for row in found] == ["first", "the second", "third"]
    assert [row["param_name"] for row in found] == ["delta", "delta", ""]
    assert [row["param_value"] for row in found] == ["0.1", "0.1", ""]
    assert all((row["experiment"], row["run"], row["mode"]) == ("mine", "heat/a", "test") for row in found)
    assert found[0]["facts"] == "n: 4; place: here"


def test_a_sweep_ends_in_the_headlines_side_by_side(tmp_path, capsys):
    results = [dataclasses.replace(result_of(a=float(i), b=10.0 + i, c=5.0), headline=("b", "a")) for i in range(3)]
    (path, _), (figure, _) = report_sweep("delta", [0.1, 0.2, 0.4], results, "fid", tmp_path)
    assert path.name.startswith("fid_delta_") and path.parent == tmp_path / "evaluation"
    content = json.loads(path.read_text())
    assert content["mode"] == "fid" and content["parameter"] == "delta"
    assert list(content["series"].items()) == [("delta", [0.1, 0.2, 0.4]), ("b", [10, 11, 12]), ("a", [0, 1, 2])]
    assert figure == path.with_suffix(".png") and Image.open(figure).width > 600  # a panel each
    assert ["│", "0.4", "│", "12", "│", "2", "│"] in [line.split() for line in capsys.readouterr().out.splitlines()]


def test_a_sweep_of_results_without_a_headline_is_of_their_first_value(tmp_path):
    results = [result_of(a=1.0, b=2.0), result_of(a=math.nan, b=3.0)]
    path = report_sweep("delta", [1.0, 2.0], results, "kid", tmp_path)[0][0]
    assert json.loads(path.read_text())["series"] == {"delta": [1, 2], "a": [1, None]}


def test_a_film_is_a_gif_and_the_picture_that_is_asked_for_is_a_still(tell, tmp_path):
    film = [picture(scale_coefficients) for scale_coefficients in ("red", "green", "blue")]
    asked = tmp_path / "asked.png"
    _, path, _ = tell(dataclasses.replace(PLAIN, pictures={"film": film, "still": picture("red")}), picture=str(asked))
    with Image.open(path.with_name(f"{path.stem}_film.gif")) as found:
        assert found.n_frames == 3 and found.info["duration"] == 150
    assert not path.with_name(f"{path.stem}_film.png").exists() and Image.open(asked).getpixel((0, 0)) == (255, 0, 0)
    _, _, shown = tell(dataclasses.replace(PLAIN, pictures={"film": film}), picture=str(tmp_path / "none.png"))
    assert "draws no picture" in shown and not (tmp_path / "none.png").exists()


def test_a_name_that_is_no_column_is_a_programmers_mistake():
    for name in ("", "L_0", "val/loss", "gap [nats]", "fid_se", "fid_seeds"):
        with pytest.raises(AssertionError, match="column's name"):
            Value(name, 1.0)


def test_means_have_their_standard_errors_and_roots_of_means_those_to_first_order():
    column = torch.tensor([1.0, 2.0, 4.0, 5.0], dtype=torch.float64)
    mean, root = Value.mean("a", column), Value.root_mean("b", column)
    assert mean.value == 3 and mean.error == pytest.approx(math.sqrt(10 / 3) / 2)
    assert root.value == pytest.approx(math.sqrt(3)) and root.error == pytest.approx(mean.error / (2 * math.sqrt(3)))
    assert Value.root_mean("c", torch.zeros(3)).error == 0
    with pytest.raises(AssertionError, match="one name"):
        Result([mean, mean]).content()


def test_a_table_that_was_begun_with_fewer_columns_keeps_them(tell, tmp_path):
    table = tmp_path / "runs" / "results" / "mine.csv"
    table.parent.mkdir(parents=True)
    table.write_text("time,metric,value\nthen,old,1.0\n")
    tell(result_of(third=3.0))
    assert [(row["metric"], row["value"]) for row in rows(tmp_path)] == [("old", "1.0"), ("third", "3.0")]
    assert set(rows(tmp_path)[1]) == {"time", "metric", "value"}
