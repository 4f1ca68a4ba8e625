"""Rows over seeds: means, standard errors over seeds, what stays as it is, and what is known exactly."""

import json

import pytest
from test_compare import make_run, measure

from heatgen import compare
from heatgen.seeds import over_seeds, with_error

LL = "frame, 3 context"


@pytest.fixture
def several(tmp_path):
    """Two models with three and one seeds, measured beside something exact."""
    folder = tmp_path / "sweep"
    jobs = [("np", 0, 1.0), ("np", 1, 2.0), ("np", 2, 4.0), ("cnp", 0, 3.0)]
    for number, (model, seed, value) in enumerate(jobs):
        run = make_run(folder, f"{number}-{model}", f"model={model} seed={seed}")
        measure(run, "train_a", "train", {"val/loss": -value, "seconds": 10 * value}, 100)
        more = {"references": {"exact": {LL: 5.0}, "own": {LL: value}}}
        measure(run, "likelihood_a", "likelihood", {LL: value, "RMSE": 0.1}, 200, {LL: 0.5}, **more)
    return folder


def test_a_row_is_the_mean_over_seeds_with_the_error_over_seeds(several):
    rows, shown = over_seeds(*compare.rows_of(compare.find_runs([several])))
    assert shown == ["model", "parametrisation", "seeds", "val/loss", LL]
    assert [(row["model"], row["seeds"]) for row in rows] == [("np", 3), ("cnp", 1)]
    assert rows[0][LL] == pytest.approx(7 / 3)
    assert rows[0][f"{LL} s.e."] == pytest.approx((((4 / 3) ** 2 + (1 / 3) ** 2 + (5 / 3) ** 2) / 2 / 3) ** 0.5)
    assert rows[0]["seconds s.e."] == pytest.approx(10 * rows[0][f"{LL} s.e."])
    assert rows[1][f"{LL} s.e."] == 0.5 and "seed" not in rows[0] and "seconds s.e." not in rows[1]


def test_without_two_seeds_of_the_same_settings_nothing_changes():
    rows = [{"run": "0-a", "model": "a", "seed": "0", "x": 1.0}, {"run": "1-b", "model": "b", "seed": "1", "x": 2.0}]
    assert over_seeds(rows, ["model", "seed", "x"]) == (rows, ["model", "seed", "x"])
    assert over_seeds(rows, ["model", "x"]) == (rows, ["model", "x"])


def test_seeds_alone_are_one_row():
    rows = [{"run": str(i), "seed": str(i), "x": float(i)} for i in range(3)]
    merged, shown = over_seeds(rows, ["seed", "x"])
    assert shown == ["seeds", "x"] and merged[0]["x"] == 1.0 and len(merged) == 1


def test_what_is_known_exactly_has_a_row_if_it_is_the_same_for_all(several, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    rows = compare.compare([several], "np", tmp_path / "docs")
    assert [row["model"] for row in rows] == ["np", "cnp", "exact"] and rows[-1][LL] == 5.0
    page = (tmp_path / "docs" / "np.md").read_text()
    assert "Means over seeds, ± their standard errors" in page and "[np_seeds.json](np_seeds.json)" in page
    assert "| np | residual | 3 | -2.3333 ± 0.88 | 2.3333 ± 0.88 |" in page and "| exact |  |  |  | 5 |" in page
    grouped, every = (json.loads((tmp_path / "docs" / f"{name}.json").read_text()) for name in ("np", "np_seeds"))
    assert len(grouped) == 3 and len(every) == 4 and grouped[0]["frame_3_context_s_e"] == pytest.approx(0.8819, abs=1e-4)
    assert every[3]["model"] == "cnp" and every[3]["frame_3_context"] == 3.0


def test_words_and_numbers_without_an_error_are_shown_as_they_are():
    assert with_error({"x": 1.5}, "x") == "1.5" and with_error({"x": "a", "x s.e.": 1.0}, "x") == "a"
    assert with_error({}, "x") == "" and with_error({"x": 1.23456789, "x s.e.": 0.0123}, "x") == "1.2346 ± 0.012"
