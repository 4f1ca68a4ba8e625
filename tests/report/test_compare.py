"""Runs side by side: what differs between them, their newest numbers, and the table and figure that tell it."""

import json
import logging
import math
import os
import re
import sys
from pathlib import Path

import numpy as np
import pytest
from conftest import SMALL, call
from omegaconf import OmegaConf
from PIL import Image

from heatgen.app.comparison import Comparison
from heatgen.check import ConfigError
from heatgen.report import compare, compare_figure
from heatgen.report.better import better
from heatgen.report.rows import find_runs, rows_of
from heatgen.runtime.explain import entry

BITS, KEPT = "nll_bound", "information_last"
BITS_HEADING = "NLL bound [bits/dim]"

ENDS = ("json", "csv", "md", "tex", "png", "pdf")  # of the files of a page
LABELS = {BITS: "NLL bound", KEPT: "information at K"}


def make_run(folder, name, overrides, parametrisation="residual", pictures=4):
    run = folder / name
    (run / "evaluation").mkdir(parents=True)
    config = {"model": {"parametrisation": parametrisation}, "callback": {"pictures": {"n": pictures}}}
    (run / "config.yaml").write_text(OmegaConf.to_yaml(OmegaConf.create(config)))
    resumed = (
        "trainer.max_steps=9\n" if name.startswith("2") else ""
    )  # a line that a resume adds, not a setting of the sweep
    (run / "overrides.txt").write_text(f"{overrides}\n{resumed}")
    return run


def measure(run, file, mode, values, when, errors=None, headline=None, **more):
    path = run / "evaluation" / f"{file}.json"
    headline = headline or list(values)[:1]
    content = {"mode": mode, "values": values, "standard_errors": errors or {}, "headline": headline}
    content |= {"units": {BITS: "bits/dim"} if BITS in values else {}, "labels": LABELS}
    path.write_text(json.dumps(content | more))
    os.utime(path, (when, when))


def paint(run, step, scale_coefficients):
    """A grid of 2 x 2 samples: the first row has a colour."""
    (run / "samples").mkdir(exist_ok=True)
    sheet = np.zeros((86, 86, 3), np.uint8)
    sheet[:43] = scale_coefficients
    Image.fromarray(sheet).save(run / "samples" / f"step_{step:06d}.png")


@pytest.fixture
def sweep(tmp_path):
    """Two jobs of a sweep over maps and seeds, with everything that a run can have."""
    folder = tmp_path / "sweep"
    two = make_run(folder, "2-ihd-heat-digits", "forward=heat seed=0 net.multipliers='[1,2]'")
    ten = make_run(folder, "10-ihd-identity-digits", "forward=identity seed=0 model.delta=0.02 trust=true", "x0")
    for run, bits in ((two, 3.5), (ten, 4.5)):
        measure(run, "train_a", "train", {"val_loss": bits / 100, "steps": 12}, 100)
        measure(run, "elbo_b", "elbo", {BITS: bits, "l_last_nats": 7.0}, 200, {BITS: 0.25})
    measure(two, "elbo_a", "elbo", {BITS: 99.0}, 150)  # older, in spite of being written to another name
    measure(ten, "forward_a", "forward", {KEPT: 12.0}, 300)
    (two / "evaluation" / "elbo_delta_c.json").write_text('{"mode": "elbo", "parameter": "delta", "series": {}}')
    paint(two, 4, (0, 0, 255))
    paint(two, 12, (255, 0, 0))
    return folder


def test_what_differs_between_the_settings_comes_first(sweep):
    rows, shown = rows_of(find_runs([sweep]))
    swept = ["forward", "net.multipliers", "model.delta"]
    assert shown == [*swept, "parametrisation", "val_loss", BITS, KEPT]
    assert [[row[key] for key in swept] for row in rows] == [["heat", "[1,2]", ""], ["identity", "", "0.02"]]
    assert [row["run"] for row in rows] == ["2-ihd-heat-digits", "10-ihd-identity-digits"]
    assert [row["parametrisation"] for row in rows] == ["residual", "x0"]


def test_every_number_of_the_newest_result_of_each_mode_is_kept(sweep):
    first, second = rows_of(find_runs([sweep]))[0]
    assert first[BITS] == 3.5 and first[f"{BITS}_se"] == 0.25 and first["l_last_nats"] == 7.0 and first["steps"] == 12
    measure(sweep / "2-ihd-heat-digits", "elbo_c", "elbo", {BITS: 2.5}, 400)
    first = rows_of(find_runs([sweep]))[0][0]
    assert first[BITS] == 2.5 and "l_last_nats" not in first and first["val_loss"] == 0.035
    assert second[KEPT] == 12


def test_runs_without_a_difference_are_known_by_their_names(tmp_path):
    runs = [make_run(tmp_path, name, "seed=0") for name in ("b", "a")]
    rows, shown = rows_of(runs)
    assert shown == ["run", "parametrisation"] and [row["run"] for row in rows] == ["b", "a"]


def test_the_option_of_an_experiments_own_group_is_its_row(tmp_path):
    runs = [make_run(tmp_path, name, f"experiment/maps={name} seed=0") for name in ("a", "b")]
    rows, shown = rows_of(runs)
    assert shown == ["row", "parametrisation"] and [row["row"] for row in rows] == ["a", "b"]


def test_runs_of_several_data_sets_have_a_table_and_a_figure_for_each(tmp_path, capsys):
    for i, (data, paper) in enumerate((d, p) for d in ("digits", "grf") for p in ("edm", "ddpm")):
        run = make_run(tmp_path, f"{i}-{paper}", f"experiment/study={data} experiment/paper={paper} experiment=study")
        OmegaConf.save(OmegaConf.merge(OmegaConf.load(run / "config.yaml"), {"data_name": data}), run / "config.yaml")
        exact = {"references": {"exact": {"score_error": 0.5}}} if data == "grf" else {}
        name = {"digits": "fid", "grf": "score_error"}[data]
        measure(run, "a", "score" if exact else "fid", {name: i + 1.25}, 100, **exact)
    rows = compare.compare([tmp_path], None)
    assert "comparison_digits.png and" in capsys.readouterr().out.replace("\n", "")
    assert [row.get("data") for row in rows] == ["digits"] * 2 + ["grf"] * 3
    text = (tmp_path / "comparison.md").read_text()
    digits, grf = text.split("## grf\n")
    assert "## digits" in digits and "| paper | parametrisation | fid |" in digits and "| ddpm | residual | 2.25 |" in digits
    assert "| paper | parametrisation | score_error |" in grf and "| exact |  | 0.5 |" in grf and "fid" not in grf
    assert "![digits](comparison_digits.png)" in digits and "![grf](comparison_grf.png)" in grf
    assert {path.name for path in tmp_path.glob("*.png")} == {"comparison_digits.png", "comparison_grf.png"}


def test_columns_without_a_number_are_not_shown(sweep):
    measure(sweep / "10-ihd-identity-digits", "forward_b", "forward", {KEPT: None}, 400)
    rows, shown = rows_of(find_runs([sweep]))
    assert KEPT not in shown and BITS in shown
    assert rows[1][KEPT] is None  # the JSON has it


# variants ---------------------------------------------------------------------------------------------------------------

ERROR = "mse_u0"


@pytest.fixture
def measured_twice(sweep):
    """The first run of the sweep was reconstructed in two ways, the second in one."""
    two, ten = sweep / "2-ihd-heat-digits", sweep / "10-ihd-identity-digits"
    measure(two, "reconstruction_a", "reconstruction", {ERROR: 0.9}, 400, variant="ode")
    measure(two, "reconstruction_b", "reconstruction", {ERROR: 0.5, "crps": 0.1}, 410, {ERROR: 0.01}, variant="sde")
    measure(two, "reconstruction_c", "reconstruction", {ERROR: 0.7}, 420, variant="ode")  # again
    measure(ten, "reconstruction_a", "reconstruction", {ERROR: 0.8}, 400, variant="sde")
    return sweep


def test_every_variant_of_a_run_has_a_row_with_all_that_they_share(measured_twice):
    rows, shown = rows_of(find_runs([measured_twice]))
    assert shown[:5] == ["forward", "net.multipliers", "model.delta", "variant", "parametrisation"]
    assert [(row["run"][:2], row["variant"], row[ERROR], row[BITS], row["steps"]) for row in rows] == [
        ("2-", "ode", 0.7, 3.5, 12),
        ("2-", "sde", 0.5, 3.5, 12),
        ("10", "sde", 0.8, 4.5, 12),
    ]
    assert "crps" not in rows[0] and rows[1]["crps"] == 0.1 and f"{ERROR}_se" not in rows[0]


def test_runs_without_variants_have_no_such_column(sweep):
    rows, shown = rows_of(find_runs([sweep]))
    assert "variant" not in shown and not any("variant" in row for row in rows)


def test_a_run_without_variants_beside_others_has_one_row(measured_twice):
    (measured_twice / "10-ihd-identity-digits" / "evaluation" / "reconstruction_a.json").unlink()
    rows, _ = rows_of(find_runs([measured_twice]))
    assert [(row["variant"], row.get(ERROR)) for row in rows] == [("ode", 0.7), ("sde", 0.5), ("", None)]


def test_a_mode_that_was_measured_with_and_without_a_variant_has_a_row_for_both(measured_twice):
    ten = measured_twice / "10-ihd-identity-digits"
    measure(ten, "reconstruction_0", "reconstruction", {ERROR: 0.6, "crps": 0.2}, 390)
    rows, _ = rows_of(find_runs([ten]))
    assert [(row["variant"], row[ERROR], row.get("crps"), row[BITS]) for row in rows] == [
        ("", 0.6, 0.2, 4.5),
        ("sde", 0.8, None, 4.5),
    ]


def test_the_page_tells_variants_apart(measured_twice):
    compare.compare([measured_twice], None)
    text = (measured_twice / "comparison.md").read_text()
    assert "\n| heat | [1,2] |  | ode | residual | 0.035 |" in text and "\n| heat | [1,2] |  | sde | residual |" in text
    assert [row["variant"] for row in json.loads((measured_twice / "comparison.json").read_text())] == ["ode", "sde", "sde"]


# the figure -------------------------------------------------------------------------------------------------------------


def axes_of(folder, monkeypatch):
    """The panels of the comparison's figure."""
    import matplotlib.figure

    seen = []
    save = matplotlib.figure.Figure.savefig
    monkeypatch.setattr(matplotlib.figure.Figure, "savefig", lambda f, *a, **k: (seen.append(f), save(f, *a, **k)))
    compare.compare([folder], None)
    return seen[0].axes


def test_the_figure_has_a_bar_for_every_row(measured_twice, monkeypatch):
    first, *others = axes_of(measured_twice, monkeypatch)
    assert first.get_title() == "samples" and len(first.images) == 2  # both rows of the run that drew some
    names = [label.get_text() for label in first.get_yticklabels()]
    assert names == ["heat [1,2]  ode residual", "heat [1,2]  sde residual", "identity  0.02 sde x0"]
    panel = {axes.get_title(): axes for axes in others}[ERROR]
    assert [bar.get_width() for bar in panel.patches] == [0.7, 0.5, 0.8] and panel.get_xscale() == "linear"


def test_without_samples_the_figure_is_bars_alone_on_a_log_scale_where_they_span(tmp_path, monkeypatch):
    for i, value in enumerate((1e-4, 3e-1)):
        run = make_run(tmp_path, f"{i}-oracle", f"forward.num_levels={8 + i}", None)
        measure(run, "reconstruction_a", "reconstruction", {"recon_mse_vs_noisy": value}, 100)
    (panel,) = axes_of(tmp_path, monkeypatch)
    assert panel.get_title() == "recon_mse_vs_noisy" and panel.get_xscale() == "log"
    assert [label.get_text() for label in panel.get_yticklabels()] == ["8", "9"]
    assert panel.get_ylim() == (1.5, -0.5)  # the first row on top


def test_rows_that_diverged_are_cut_and_the_others_fill_their_axis(tmp_path, monkeypatch):
    values = [1.5, 1.0, 2.0, 1.2, 6e4, 3e43, math.nan, 0.9]
    for i, value in enumerate(values):
        run = make_run(tmp_path, f"{i}-m", f"forward.num_levels={8 + i}", None)
        measure(run, "fid_a", "fid", {"fid": None if math.isnan(value) else value}, 100)
    (panel,) = axes_of(tmp_path, monkeypatch)
    assert panel.get_xscale() == "linear" and 2 < panel.get_xlim()[1] < 4 and panel.get_xlabel() == "lower is better"
    texts = [text.get_text().strip() for text in panel.texts]
    assert texts == ["1.5", "1", "2", "1.2", "60000 ►", "3e+43 ►", "no number", "0.9"]


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([1.0, 2.0, 3.0], (0.0, 3.0, False)),
        ([-1.0, 2.0, -5e9, 1.5], (-1.0, 2.0, False)),  # one that is far away on the other side
        ([0.03, 0.05, 0.04, 0.06, 1.8e8, 2.7e7], (0.0, 0.06, False)),  # two, near each other
        ([1e-4, 3e-1], (1e-4 / 3, 3e-1, True)),  # of two, nobody knows which is wrong
        ([0.0, 0.0], (0.0, 1.0, False)),
        ([math.nan], (0.0, 1.0, False)),
        ([math.inf, 1.0, 2.0, 2.0], (0.0, 2.0, False)),
        ([-3.0, -2.0], (-3.0, 0.0, False)),
        ([1.4, 1.5, 1.6], (1.4, 1.6, False)),  # near each other
        ([1.5, 1.5], (0.0, 1.5, False)),
    ],
)
def test_limits_are_those_of_the_many(values, expected):
    assert compare_figure.limits(values) == pytest.approx(expected)


def test_every_number_that_is_published_has_a_way_that_is_better():
    assert better("mse_u0_white") == better("frame_context_3").replace("higher", "lower") == "lower is better"
    assert better("coverage_90") == "best at its own 0.90" and better("anything") == "neither is better by itself"


def test_runs_with_nothing_to_draw_are_named(tmp_path, monkeypatch):
    make_run(tmp_path, "a", "seed=0")
    (panel,) = axes_of(tmp_path, monkeypatch)
    assert [label.get_text() for label in panel.get_yticklabels()] == ["a residual"]


# the rest ---------------------------------------------------------------------------------------------------------------


def test_single_runs_and_folders_of_runs_may_be_mixed(sweep, tmp_path):
    alone = make_run(tmp_path, "alone", "forward=heat")
    assert find_runs([alone, sweep]) == [alone, sweep / "2-ihd-heat-digits", sweep / "10-ihd-identity-digits"]


def test_the_table_is_written_with_names_as_json_and_with_units_as_markdown(sweep, tmp_path, capsys):
    (sweep / "command.txt").write_text("python train.py -m forward=heat,identity\n")
    docs = tmp_path / "docs"
    rows = compare.compare([sweep], "maps", docs)
    content = json.loads((sweep / "comparison.json").read_text())
    assert content == json.loads((docs / "maps.json").read_text())
    assert len(content) == len(rows) == 2
    assert content[0]["nll_bound"] == 3.5 and content[0]["nll_bound_se"] == 0.25
    assert all(re.fullmatch(r"[a-z0-9_.]+", key) for row in content for key in row)  # a name, or the key of a setting
    command = f"    python -m heatgen.report.compare {os.path.relpath(sweep)} --publish maps\n"
    for text in ((sweep / "comparison.md").read_text(), (docs / "maps.md").read_text()):
        assert f"    python train.py -m forward=heat,identity\n{command}" in text
        assert (
            f"| forward | net.multipliers | model.delta | parametrisation | val_loss | {BITS_HEADING} | information at K"
            in text
        )
        assert "\n| identity |  | 0.02 | x0 | 0.045 | 4.50 ± 0.25 | 12 |\n" in text
    latex, table = (docs / "maps.tex").read_text(), (docs / "maps.csv").read_text()
    assert r"identity &  & $0.02$ & x0 & $0.045$ & $4.50 \pm 0.25$ & $12$ \\" in latex.splitlines()
    assert len(table.splitlines()) == 3 and "nll_bound_se" in table.splitlines()[0]
    assert (docs / "maps.pdf").read_bytes() == (sweep / "comparison.pdf").read_bytes()
    assert "![maps](maps.png)" in (docs / "maps.md").read_text()
    for picture in (sweep / "comparison.png", docs / "maps.png"):
        with Image.open(picture) as image:
            assert image.width > 600 and image.height > 100
    assert "2 runs" in capsys.readouterr().out


def test_the_figure_shows_the_first_of_the_newest_samples_side_by_side(sweep):
    compare.compare([sweep], None)
    with Image.open(sweep / "comparison.png") as image:
        pixels = np.asarray(image.convert("RGB")).astype(int)
    red = (pixels[..., 0] > 200) & (pixels[..., 1] < 60) & (pixels[..., 2] < 60)
    blue = (pixels[..., 2] > 200) & (pixels[..., 0] < 60) & (pixels[..., 1] < 60)
    assert red.sum() > 1000 and not blue.any()
    rows, columns = (np.flatnonzero(red.any(axis)) for axis in (1, 0))
    assert len(columns) / (np.diff(rows) == 1).sum() == pytest.approx(2, abs=0.3)  # two squares side by side
    first = np.asarray(compare_figure.first_samples(sweep / "2-ihd-heat-digits"))
    assert first.shape == (43, 172, 3) and (first[:, :86] == (255, 0, 0)).all() and not first[:, 86:].any()
    assert compare_figure.first_samples(sweep / "10-ihd-identity-digits") is None


def test_the_screen_names_the_units(sweep, capsys):
    compare.compare([sweep], None)
    assert "[bits/dim]" in capsys.readouterr().out


def test_without_a_run_there_is_one_sentence(tmp_path, capsys, monkeypatch):
    with pytest.raises(ConfigError, match=r"^There is no run in .*; give a run's folder, or a sweep's\.$"):
        compare.compare([tmp_path], None)
    monkeypatch.setattr(sys, "argv", ["compare", str(tmp_path)])
    with pytest.raises(SystemExit) as stop:
        entry(compare.main)
    assert stop.value.code == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("Error: There is no run in ")


def test_the_command_publishes_beside_the_results(sweep, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["compare", str(sweep), "--publish", "maps"])
    compare.main()
    assert {path.name for path in (tmp_path / "docs" / "results").iterdir()} == {f"maps.{end}" for end in ENDS}


def test_a_sweep_without_a_finished_run_ends_with_a_note(tmp_path, caplog):
    config = OmegaConf.create({"hydra": {"sweep": {"dir": str(tmp_path)}}})
    with caplog.at_level(logging.WARNING, "heatgen"):
        Comparison().on_multirun_end(config=config)
    assert [record.getMessage().split(": ")[:2] for record in caplog.records] == [["Note", "the runs cannot be compared"]]


@pytest.mark.slow
def test_a_sweep_ends_with_its_comparison(tmp_path: Path) -> None:
    small = [word for word in SMALL if not word.startswith("trainer.max_steps")]
    arguments = ["-m", *small, "trainer.max_steps=2", "forward=heat,identity", "evaluate=[]"]
    assert call("train", *arguments) == 0
    (folder,) = (tmp_path / "runs" / "sweeps").iterdir()
    content = json.loads((folder / "comparison.json").read_text())
    assert [(row["forward"], row["parametrisation"], row["steps"]) for row in content] == [
        ("heat", "residual", 2),
        ("identity", "residual", 2),
    ]
    page = (folder / "comparison.md").read_text()
    assert "| forward | parametrisation | validation loss | training time [s] | parameters |\n" in page  # of its last step
    assert (folder / "command.txt").read_text().startswith("python train.py -m data.recommended")
    assert (folder / "comparison.png").stat().st_size > 0
    assert not list(folder.glob("*/evaluation/forward_*"))  # evaluate=[] measures nothing


@pytest.mark.slow
def test_a_sweep_publishes_its_comparison_under_its_own_command_alone(sweep, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (sweep / "command.txt").write_text("python train.py -m forward=heat,identity publish=maps\n")
    config = OmegaConf.create({"publish": "maps", "hydra": {"sweep": {"dir": str(sweep)}}})
    Comparison().on_multirun_end(config=config)
    results = tmp_path / "docs" / "results"
    assert {path.name for path in results.iterdir()} == {f"maps.{end}" for end in ENDS}
    for text in ((results / "maps.md").read_text(), (sweep / "comparison.md").read_text()):
        assert "Made by\n\n    python train.py -m forward=heat,identity publish=maps\n\nAll numbers" in text
    assert "| heat |" in (results / "maps.md").read_text()


def test_a_sweep_that_does_not_publish_leaves_the_documentation_alone(sweep, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    config = OmegaConf.create({"publish": None, "hydra": {"sweep": {"dir": str(sweep)}}})
    Comparison().on_multirun_end(config=config)
    assert (sweep / "comparison.md").is_file() and not (tmp_path / "docs").exists()


@pytest.mark.slow
def test_publish_without_a_sweep_and_a_publish_that_is_no_name_are_refused(refused, monkeypatch):
    wrong = refused("train", *SMALL, "publish=maps")
    assert wrong == "Error: publish=maps is for a sweep, which has runs to compare; add -m, or use publish=null."
    wrong = refused("train", "-m", *SMALL, "seed=0,1", "publish=../maps")
    assert wrong == "Error: publish must be a name such as my_maps, of letters, digits, _ . and -, not '../maps'."
    monkeypatch.setenv("HEATGEN_CHILD", "1")  # a process of a sweep's job has the sweep's publish
    Comparison().on_run_start(config=OmegaConf.create({"publish": "maps"}))


@pytest.mark.slow
def test_a_variant_goes_from_the_command_line_into_the_comparison(own_run, capsys):
    words = [f"run={own_run}", "mode=forward", "trainer.accelerator=cpu"]
    assert call("evaluate", *words, "variant=fine") == call("evaluate", *words, "variant=2") == 0
    assert "forward: own, fine" in capsys.readouterr().out
    contents = [json.loads(path.read_text()) for path in sorted((own_run / "evaluation").glob("forward_*.json"))]
    assert [content["variant"] for content in contents] == ["fine", "2"]
    rows, shown = rows_of([own_run])
    assert [row["variant"] for row in rows] == ["fine", "2"] and shown[:3] == ["run", "variant", "parametrisation"]
    assert all("val_loss" in row and KEPT in row for row in rows)


DAMAGES = {
    "evaluation/elbo_x.json": [
        '{"mode": "elbo", "val',
        "[]",
        "3",
        '{"mode": 3}',
        '{"mode": "a", "values": [1]}',
        "[" * 100000,
    ],
    "overrides.txt": ["a='b", "\udcff"],
    "config.yaml": ["[1]", "model: [1]", "a: &a [1]\nb: *a", "seed: \udcff"],
}


@pytest.mark.parametrize(("name", "content"), [(name, content) for name, all in DAMAGES.items() for content in all])
def test_a_damaged_file_of_a_run_is_named(tmp_path, name, content):
    run = tmp_path / "run"
    (run / "evaluation").mkdir(parents=True)
    (run / "config.yaml").write_text("seed: 1\n")
    (run / name).write_text(content, errors="surrogateescape")
    with pytest.raises(ConfigError, match=rf"{name} (cannot be read|repeats)"):
        compare.compare([run], None)


def test_empty_overrides_are_none_and_a_pipe_is_not_waited_for(tmp_path):
    run = tmp_path / "run"
    (run / "evaluation").mkdir(parents=True)
    (run / "config.yaml").write_text("seed: 1\n")
    (run / "overrides.txt").touch()
    assert compare.compare([run], None)
    os.mkfifo(run / "evaluation" / "elbo_x.json")
    with pytest.raises(ConfigError, match="it is no file"):
        compare.compare([run], None)


def test_a_page_stays_in_its_folder(tmp_path):
    with pytest.raises(ConfigError, match="publish must be a name"):
        compare.compare([tmp_path], "../../x")
