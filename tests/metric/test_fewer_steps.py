"""sampler.steps from the command line: samples, measurements, what is written of them, and what is refused."""

import json

import pytest
import torch
from conftest import SMALL, call, call_together
from feature_toys import script
from omegaconf import OmegaConf

import heatgen
from heatgen.app.sampler_request import GRID
from heatgen.report.compare import compare

CPU = "trainer.accelerator=cpu"


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A diffusion of K = 5 levels; do not write to it but to samples/ and evaluation/."""
    folder = tmp_path_factory.mktemp("steps") / "run"
    words = [
        "model=diffusion",
        "forward=blurring",
        "trainer.max_steps=2",
        "model.calibration_images=8",
        "callback.pictures.every=0",
    ]
    assert call("train", *SMALL, *words, f"hydra.run.dir={folder}") == 0
    return folder


def results(run, stem):
    return [json.loads(path.read_text()) for path in sorted((run / "evaluation").glob(f"{stem}_2*.json"))]


def test_samples_of_as_many_steps_as_levels_are_the_same_and_of_others_say_so(run, capfd):
    for words in ([], ["sampler.steps=5"], ["sampler=heun", "sampler.steps=3", "sampler.spacing=rho"]):
        assert call("sample", f"run={run}", "n=2", CPU, *words) == 0
    own, same, other = (
        torch.load(run / "samples" / f"delta_measured_seed_0{end}" / "samples.pt", weights_only=True)
        for end in ("", "_steps=5", "_heun_steps=3_spacing=rho")
    )
    assert torch.equal(own["samples"], same["samples"]) and not torch.equal(own["samples"], other["samples"])
    told = [{key: x["settings"][key] for key in ("steps", "spacing", "rho", "nfe")} for x in (own, other)]
    assert told[0] == {"steps": None, "spacing": "level", "rho": 7.0, "nfe": 5}
    assert told[1] == {"steps": 3, "spacing": "rho", "rho": 7.0, "nfe": 5}  # 2 N - 1
    assert "NFE: 5.0" in capfd.readouterr().out


def test_a_list_of_steps_is_measured_one_by_one_and_drawn_against_the_calls(run, tmp_path, capfd):
    extractor = script(tmp_path / "flat.pt", torch.nn.Flatten())
    words = ["mode=fid", "n=4", f"metric.extractor={extractor}", "metric.reference_n=20", "sampler=heun"]
    assert call("evaluate", f"run={run}", CPU, *words, "sampler.steps=[9,2,4]") == 0
    (sweep,) = results(run, "fid_steps")
    series = sweep["series"]
    assert sweep["parameter"] == "sampler.steps" and series["sampler.steps"] == [2, 4, 9] and series["nfe"] == [3, 7, 17]
    assert all(0 < seconds < 60 for seconds in series["seconds"]) and len(set(series["fid_own"])) == 3
    assert [r["values"]["nfe"] for r in results(run, "fid")] == [17, 7, 3]
    assert (
        results(run, "fid")[0]["headline"] == ["fid_own", "nfe"]
        and results(run, "fid")[0]["facts"]["sampler"] == "heun steps=9"
    )
    assert list((run / "evaluation").glob("fid_steps_*.png"))
    printed = capfd.readouterr().out
    assert all(word in printed for word in ("sampler.steps", "NFE", "time a sample"))


def test_a_second_metric_of_the_same_samples_counts_the_calls_too(run, tmp_path):
    extractor = script(tmp_path / "flat.pt", torch.nn.Flatten())
    common = ["n=20", f"metric.extractor={extractor}", "metric.reference_n=20", "sampler.steps=3"]
    for mode in ("fid", "precision_recall"):
        assert call("evaluate", f"run={run}", CPU, f"mode={mode}", *common) == 0
        assert results(run, mode)[-1]["values"]["nfe"] == 3


def test_a_run_keeps_its_own_steps_but_for_what_is_given(run):
    assert heatgen.load(run, "cpu").model.num_steps == 5
    model = heatgen.load(run, "cpu", sampler="heun", **{"sampler.steps": 7, "sampler.spacing": "uniform"}).model
    assert model.num_steps == 7 and model.grid.spacing == "uniform"


@pytest.mark.parametrize(
    ("verb", "words", "sentence"),
    [
        (
            "evaluate",
            ["mode=fid", "sampler.steps=[5,x]"],
            "sampler.steps=[5, 'x'] must be a list of numbers, such as [5,10,20]",
        ),
        ("evaluate", ["mode=fid", "sampler.steps=[]"], "sampler.steps=[] must be a list of numbers, such as [5,10,20]"),
        ("evaluate", ["mode=fid", "sampler.steps=[5,2.5]"], "sampler.steps must be a whole number of at least 1, not 2.5"),
        ("evaluate", ["mode=fid", "sampler.steps=[5]", "delta=[0.1]"], "delta and sampler.steps are both lists"),
        ("evaluate", ["mode=elbo", "sampler.steps=3"], "mode=elbo draws no samples, so sampler= and its options do nothing"),
        ("evaluate", ["mode=fid", "metric.source=test", "sampler.spacing=rho"], "so sampler= and its options do nothing"),
        ("evaluate", ["run=null", "data=digits", "sampler.steps=3"], "run=null has no model, which sampler is for"),
        ("sample", ["sampler.steps=[5,10]"], "sampler.steps must be a whole number of at least 1, not [5, 10]"),
        ("sample", ["sampler.steps=0"], "sampler.steps must be a whole number of at least 1, not 0"),
        ("sample", ["sampler.rho=3"], "sampler.rho=3 is for sampler.spacing=rho"),
        ("sample", ["sampler.spacing=log"], "sampler.spacing must be one of level, uniform, rho"),
        ("sample", ["sampler.substeps=3"], "sampler.substeps is a key of another option of its group"),
        ("sample", ["sampler.step=3"], "sampler.step"),
    ],
)
def test_what_cannot_be_is_refused_in_a_sentence(run, refused, verb, words, sentence):
    assert sentence in refused(verb, f"run={run}", CPU, *words)


def test_a_model_of_single_levels_refuses_other_steps_before_it_samples(small_run, refused):
    for verb, more in (("sample", []), ("evaluate", ["mode=memorisation"])):
        words = [verb, f"run={small_run}", CPU, *more, "sampler.steps=3"]
        assert (
            "takes one level a step, so sampler.steps must be K = 5, or null; train with model.parametrisation=x0"
            in refused(*words)
        )
    assert "takes one level a step" in refused("train", *SMALL, "model.parametrisation=residual", "sampler.steps=3")
    assert "model=ihd has none" in refused("train", *SMALL, "model.parametrisation=x0", "sampler.spacing=uniform")
    words = ["model=oracle", "data=gaussian_mixture", CPU, "sampler=exact", "+sampler.steps=3"]
    assert refused("train", *words).startswith("Error: sampler=exact draws u_0 at once, so sampler.steps")


def test_a_run_of_before_there_were_steps_loads_and_takes_them(own_run, refused):
    path = own_run / "config.yaml"
    config = OmegaConf.load(path)
    for key in GRID:
        del config.sampler[key]
    OmegaConf.save(config, path)
    assert call("sample", f"run={own_run}", "n=2", CPU) == 0
    assert call("sample", f"run={own_run}", "n=2", CPU, "sampler.steps=5") == 0  # as many as levels
    first, second = sorted(own_run.glob("samples/delta_*/samples.pt"))
    assert torch.equal(*(torch.load(file, weights_only=True)["samples"] for file in (first, second)))
    words = [f"resume={own_run}", "trainer.max_steps=13", CPU]
    assert "takes one level a step" in refused("train", *words, "sampler.steps=3")
    assert call("train", *words, "sampler.steps=5") == 0
    assert OmegaConf.load(path).sampler.steps == 5


def test_nfe_is_a_column_of_a_comparison(run, capfd):
    (row,) = [row for row in compare([run], None) if row.get("variant") == "steps=3"]
    assert row["nfe"] == 3 and "NFE" in (run / "comparison.md").read_text()


@pytest.mark.slow
def test_calls_are_of_a_sample_however_many_processes_draw(run, tmp_path):
    words = ["mode=memorisation", "n=5", "batch_size=2", "sampler=heun", "sampler.steps=[2,3]"]
    assert call_together("evaluate", f"run={run}", *words) == [0, 0]
    (sweep,) = results(run, "memorisation_steps")
    assert sweep["series"]["nfe"] == [3, 5] and len(sweep["series"]) > 5
