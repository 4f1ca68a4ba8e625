"""Rows over seeds: means, standard errors over seeds, what stays as it is, and what is known exactly."""

import json
import math

import pytest
from omegaconf import OmegaConf
from test_compare import axes_of, make_run, measure, paint

from heatgen.check import ConfigError
from heatgen.report import compare
from heatgen.report import rows as reading
from heatgen.report.seeds import groups_of, over_seeds, with_error

LL = "frame_context_3"
ERROR = (((4 / 3) ** 2 + (1 / 3) ** 2 + (5 / 3) ** 2) / 2 / 3) ** 0.5  # of 1, 2 and 4


@pytest.fixture
def several(tmp_path):
    """Two models with three and one seeds, measured beside something exact."""
    folder = tmp_path / "sweep"
    jobs = [("np", 0, 1.0), ("np", 1, 2.0), ("np", 2, 4.0), ("cnp", 0, 3.0)]
    for number, (model, seed, value) in enumerate(jobs):
        run = make_run(folder, f"{number}-{model}", f"model={model} seed={seed}")
        measure(run, "train_a", "train", {"val_loss": -value, "seconds": 10 * value}, 100)
        more = {"references": {"exact": {LL: 5.0 + 1e-7 * value}, "own": {LL: value}}}
        measure(run, "likelihood_a", "likelihood", {LL: value, "rmse": 0.1}, 200, {LL: 0.5}, **more)
    return folder


def rows_of(*seeds, **more):
    return [{"run": f"{i}-np-digits", "seed": str(seed), "x": float(i)} | more for i, seed in enumerate(seeds)]


def test_a_row_is_the_mean_over_seeds_with_the_error_over_seeds(several):
    rows, shown = over_seeds(*reading.rows_of(reading.find_runs([several])))
    assert shown == ["model", "parametrisation", "seeds", "val_loss", LL]
    assert [(row["model"], row["seeds"], row["run"]) for row in rows] == [("np", 3, "np"), ("cnp", 1, "3-cnp")]
    assert rows[0][LL] == pytest.approx(7 / 3) and rows[0][f"{LL}_se"] == pytest.approx(ERROR)
    assert rows[0]["seconds_se"] == pytest.approx(10 * ERROR)
    assert "seed" not in rows[0] and not any(key.endswith("_seeds") for row in rows for key in row)


def test_one_seed_keeps_the_error_of_its_measurement(several):
    _, row = over_seeds(*reading.rows_of(reading.find_runs([several])))[0]
    assert row[f"{LL}_se"] == 0.5 and "seconds_se" not in row and with_error(row, LL) == "3.00 ± 0.5"


def test_without_two_seeds_of_the_same_settings_nothing_changes(several):
    rows = [{"run": "0-a", "model": "a", "seed": "0", "x": 1.0}, {"run": "1-b", "model": "b", "seed": "1", "x": 2.0}]
    assert over_seeds(rows, ["model", "seed", "x"]) == (rows, ["model", "seed", "x"])
    assert over_seeds(rows, ["model", "x"]) == (rows, ["model", "x"])
    compare.compare([several / "0-np", several / "3-cnp"], None)
    text = (several / "0-np" / "comparison.md").read_text()
    assert "[comparison.json](comparison.json). ± are standard errors of their measurement.\n" in text
    assert not (several / "0-np" / "comparison_seeds.json").exists()


def test_seeds_alone_are_one_row_called_as_what_their_runs_have_in_common():
    (row,), shown = over_seeds(rows_of(0, 1, 2, parametrisation="x0"), ["seed", "parametrisation", "x"])
    assert shown == ["run", "parametrisation", "seeds", "x"] and row["run"] == "np-digits" and row["x"] == 1.0
    (row,), _ = over_seeds([{"run": "a", "seed": "0", "x": 1.0}, {"run": "b", "seed": "1", "x": 2.0}], ["seed", "x"])
    assert row["run"] == "a, b"


def test_variants_have_a_row_each():
    rows = [row for name in ("ode", "sde") for row in rows_of(0, 1, variant=name)]
    merged, shown = over_seeds(rows, ["seed", "variant", "x"])
    assert [(row["variant"], row["seeds"]) for row in merged] == [("ode", 2), ("sde", 2)]
    assert shown == ["run", "variant", "seeds", "x"] and groups_of(rows, ["seed", "x"]) == [[0, 1], [2, 3]]


def test_a_seed_without_any_number_does_not_count_and_one_without_some_is_told():
    failed, *rows = rows_of(0, 1, 2, 3)
    del failed["x"]
    rows[2]["x"], rows[0]["y"], rows[0]["y_se"] = None, 7.0, 0.25
    rows[2]["z"] = rows[1]["z"] = 1.0
    (row,), _ = over_seeds([failed, *rows], ["seed", "x"])
    assert row["seeds"] == 3 and (row["x"], row["x_seeds"], row["x_se"]) == (1.5, 2, 0.5)
    assert (row["y"], row["y_seeds"], row["y_se"]) == (7.0, 1, 0.25)
    assert [with_error(row, key) for key in ("x", "y", "z")] == [
        "1.50 ± 0.5 (seeds: 2)",
        "7.00 ± 0.25 (seeds: 1)",
        "1 (seeds: 2)",
    ]


def test_a_seed_that_stands_twice_is_refused(tmp_path):
    runs = [make_run(tmp_path, name, words) for name, words in (("a", "n=1 seed=0"), ("b", "n=1"), ("c", "n=1 seed=1"))]
    for run in runs:
        measure(run, "train_a", "train", {"val_loss": 1.0}, 100)
        OmegaConf.save(OmegaConf.merge(OmegaConf.load(run / "config.yaml"), {"seed": 0}), run / "config.yaml")  # b's own
    with pytest.raises(ConfigError, match=r"seed=0 .* a and b; give one"):
        compare.compare(runs, None)
    assert len(compare.compare(runs[1:], None)) == 1


def test_the_page_has_means_and_names_the_file_of_every_run(several, tmp_path, capsys):
    rows = compare.compare([several], "np", tmp_path / "docs")
    assert [row["model"] for row in rows] == ["np", "cnp", "exact"]
    page = (tmp_path / "docs" / "np.md").read_text()
    assert "Numbers are means over seeds, ± their standard errors over seeds: [np.json](np.json) has them all, " in page
    assert (
        "[np_seeds.json](np_seeds.json) those of every run. Those of rows of one seed or none are of their measurement."
        in page
    )
    assert "| np | residual | 3 | -2.33 ± 0.88 | 2.33 ± 0.88 |\n| cnp | residual | 1 | -3 | 3.00 ± 0.5 |\n" in page
    grouped, every = (json.loads((tmp_path / "docs" / f"{name}.json").read_text()) for name in ("np", "np_seeds"))
    assert len(grouped) == 3 and grouped[0]["seeds"] == 3
    assert grouped[0]["frame_context_3_se"] == pytest.approx(ERROR)
    assert [(row["model"], row["seed"], row["frame_context_3"]) for row in every] == [
        ("np", "0", 1.0),
        ("np", "1", 2.0),
        ("np", "2", 4.0),
        ("cnp", "0", 3.0),
    ]
    assert "2.33 ± 0.88" in capsys.readouterr().out


def test_the_bars_have_errors_over_seeds_and_the_samples_are_of_the_first_seed(several, monkeypatch):
    for run in ("0-np", "3-cnp"):
        paint(several / run, 4, (255, 0, 0))
    first, _, panel = axes_of(several, monkeypatch)
    assert [label.get_text() for label in first.get_yticklabels()] == ["np residual", "cnp residual", "exact"]
    assert [image.get_extent()[3] for image in first.images] == [-0.48, 0.52]
    assert [bar.get_width() for bar in panel.patches] == pytest.approx([7 / 3, 3, 5])
    segments = panel.collections[0].get_segments()  # empty without an error
    lengths = [line[1][0] - line[0][0] if len(line) else math.nan for line in segments]
    assert lengths[0] == pytest.approx(2 * ERROR) and lengths[1] == 1 and math.isnan(lengths[2])


# what is known exactly --------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_what_is_known_exactly_has_a_row_if_it_is_the_same_for_all(several, tmp_path):
    *_, row = compare.compare([several], None)
    assert row == {"run": "exact", "model": "exact", LL: pytest.approx(5.0)}  # and not "own"
    assert "\n| exact |  |  |  | 5 |\n\n" in (several / "comparison.md").read_text()
    compare.compare([several / "0-np"], None)
    text = (several / "0-np" / "comparison.md").read_text()
    assert "\n| exact |  |  | 5 |\n| own |  |  | 1 |\n\n" in text and "| run | parametrisation | val_loss |" in text


def test_every_mode_has_its_own_references_and_a_run_without_does_not_matter(tmp_path):
    for i in range(3):
        run = make_run(tmp_path, f"{i}-np", f"seed={i}", None)
        references = {"exact": {"L": 5.0, "pixel": None}} | ({"lost": {"L": 1.0}} if i == 1 else {})
        measure(run, "likelihood_a", "likelihood", {"L": i}, 100, references=references if i else {})
        measure(run, "calibration_a", "calibration", {"C": i}, 100, references={"exact": {"C": 2.0}})
    _, *known = compare.compare([tmp_path], None)
    assert known == [{"run": "exact", "C": 2.0}, {"run": "exact", "L": 5.0, "pixel": None}]
    assert "| np | 3 | 1.00 ± 0.58 | 1.00 ± 0.58 |\n| exact |  | 2 |  |\n" in (tmp_path / "comparison.md").read_text()


def test_what_is_known_exactly_brings_the_error_of_an_estimate_and_the_page_says_what_it_is_over(tmp_path):
    for i in range(2):
        run = make_run(tmp_path, f"{i}-np", f"seed={i}", None)
        known = {"references": {"exact": {"L": 5.0}}, "reference_errors": {"exact": {"L": 0.125}}}
        measure(run, "likelihood_a", "likelihood", {"L": i}, 100, {"L": 0.5}, errors_over={"L": "tasks"}, **known)
    *_, row = compare.compare([tmp_path], None)
    assert row == {"run": "exact", "L": 5.0, "L_se": 0.125}
    text = (tmp_path / "comparison.md").read_text()
    assert "| exact |  | 5.00 ± 0.12 |" in text and "Those of rows of one seed or none are over tasks." in text
