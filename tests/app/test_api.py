"""heatgen from Python: the same bits and numbers as the command line, and trainings on what is in memory."""

import json
import logging
import os
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import SMALL, call
from hydra.core.hydra_config import HydraConfig
from omegaconf import OmegaConf
from torch.utils.data import TensorDataset

import heatgen
from heatgen.app.compose import words_of
from heatgen.app.export import export
from heatgen.app.quoting import argument
from heatgen.app.requests import LoadRequest
from heatgen.check import ConfigError
from heatgen.noise import SampleNoise

TINY = [
    "forward.num_levels=4",
    "net.model_channels=8",
    "net.norm_groups=4",
    "callback.pictures.every=0",
    "data.batch_size=4",
]
TINY += ["trainer.val_check_interval=2", "trainer.max_steps=2"]


def fields(*shape: int) -> torch.Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(0))


def test_the_package_imports_without_torch_and_offers_its_names() -> None:
    code = "import sys, heatgen; assert not {'torch', 'hydra'} & set(sys.modules); print(*dir(heatgen))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert {"load", "train", "compose"} <= set(done.stdout.split())
    with pytest.raises(AttributeError, match="lod"):
        heatgen.lod  # noqa: B018


def test_a_config_is_composed_with_its_values() -> None:
    cfg = heatgen.compose("model=ihd", "forward=constant_velocity", "data=digits", "seed=3")
    assert cfg.name == "ihd-constant_velocity-digits" and cfg.seed == 3 and list(cfg.forward.shape) == [1, 8, 8]
    assert "hydra" not in cfg
    assert heatgen.compose("mode=fid", verb="evaluate").metric._target_ == "heatgen.metric.fid.FID"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("word", "hint"),
    [
        ("model=idh", "did you mean ihd?"),
        ("modle=ihd", "did you mean model?"),
        ("model=_base", "is not an option"),
        ("regime=forcast", "did you mean forecast?"),
        ("seed=[", "cannot be read"),
    ],
)
def test_a_config_that_cannot_be_composed_says_why(word: str, hint: str) -> None:
    with pytest.raises(ConfigError) as caught:
        heatgen.compose(word)
    assert hint in str(caught.value)


# a run -------------------------------------------------------------------------------------------------------------------


def sampled(run: Path, *words: str) -> dict:
    """What `heatgen sample` writes."""
    before = {*(run / "samples").glob("*/samples.pt")}
    assert call("sample", f"run={run}", "n=3", "trainer.accelerator=cpu", *words) == 0
    (path,) = {*(run / "samples").glob("*/samples.pt")} - before
    return torch.load(path, weights_only=True)


@pytest.mark.slow
def test_samples_have_the_bits_of_the_command_line(own_run: Path) -> None:
    plain, other = sampled(own_run), sampled(own_run, "sampler=ancestral", "sampler.stochastic=false", "seed=2")
    run = heatgen.load(own_run, device="cpu")
    model, data, config = run
    assert model is run.model and data is run.data and config.name == run.config.name
    samples = run.sample(n=3)
    for key in ("samples", "initial"):
        assert torch.equal({"samples": samples.tensor, "initial": samples.initial}[key], plain[key])
    assert samples.settings == plain["settings"]
    assert torch.equal(run.using("ancestral", stochastic=False).sample(3, seed=2).tensor, other["samples"])
    assert torch.equal(run.sample(3).tensor, samples.tensor)  # the run is as it was
    assert torch.equal(
        heatgen.load(own_run, device="cpu", delta=0.02).sample(3).tensor, sampled(own_run, "delta=0.02")["samples"]
    )


@pytest.mark.slow
@pytest.mark.parametrize(
    ("ask", "sentence"),
    [
        (lambda run: run.sample(n=0), "n must be"),
        (lambda run: run.sample(steps=2), "sampler.steps must be K = 5"),
        (lambda run: run.using("hein"), "did you mean heun"),
        (lambda run: run.using(churn=2), "sampler has options and no name"),
        (lambda run: run.evaluate("eblo"), "did you mean elbo"),
        (lambda run: run.evaluate("elbo", level=3), "mode=elbo has no option 'level'; did you mean levels"),
        (lambda run: run.evaluate("elbo", split="tset"), "metric.split must be one of"),
        (lambda run: run.evaluate("elbo", n=1), "n must be a whole number of at least 2"),
        (lambda run: run.reconstruct(fields(2, 1, 8, 9)), r"u has the shape \[2, 1, 8, 9\]; give \(B, 1, 8, 8\)"),
        (lambda run: run.reconstruct([1.0]), "u is a list; give a tensor"),
        (lambda run: run.reconstruct(np.zeros((2, 1, 8, 8), np.uint8)), "u holds uint8; give floats"),
        (lambda run: run.reconstruct(fields(2, 1, 8, 8) / 0), "1 of 2|2 of 2 fields of u hold NaN or inf"),
        (lambda run: run.reconstruct(fields(2, 1, 8, 8), t=-1.0), "t must be a number greater than 0"),
        (lambda run: run.reconstruct(fields(2, 1, 8, 8), draws=fields(2, 1)), "is not drawn at random; remove draws="),
        (lambda run: run.sample(3).save("x.npy"), r"must end in .pt, .png or .gif"),
    ],
)
def test_what_a_run_is_asked_and_cannot_do_is_one_sentence(small_run: Path, ask: Callable, sentence: str) -> None:
    with pytest.raises(ConfigError, match=sentence):
        ask(heatgen.load(small_run, device="cpu"))


@pytest.mark.slow
def test_a_measurement_has_the_numbers_of_the_command_line_and_leaves_the_run_alone(own_run: Path, tmp_path: Path) -> None:
    run = heatgen.load(own_run, device="cpu")
    before = sorted(own_run.rglob("*"))
    found = run.evaluate("reconstruction", n=6, draws=2)
    assert sorted(own_run.rglob("*")) == before and not (tmp_path / "runs" / "results").exists()
    words = ["mode=reconstruction", "n=6", "metric.draws=2", "trainer.accelerator=cpu"]
    assert call("evaluate", f"run={own_run}", *words) == 0
    (path,) = (own_run / "evaluation").glob("reconstruction_*.json")
    told = json.loads(path.read_text())
    assert found.content == {key: value for key, value in told.items() if key not in ("run", "variant", "parameter")}
    assert found["mse_u0"] == told["values"]["mse_u0"] and set(found.pictures) >= {"fields", "spectra"}
    assert run.evaluate("reconstruction", n=6, draws=2, save=True).content == found.content
    assert len([*(own_run / "evaluation").glob("reconstruction_*.json")]) == 2
    assert (tmp_path / "runs" / "results" / "default.csv").read_text().count("reconstruction") > 2


@pytest.mark.slow
def test_fields_are_reconstructed_as_the_metric_does(small_run: Path) -> None:
    run = heatgen.load(small_run, device="cpu")
    process, u0 = run.model.process, run.data.get("test", range(6))
    last = process.times[-1:].expand(6)
    u = process.perturb(u0, last, SampleNoise(range(6), 0, "input").normal_like(u0))
    direct = run.model.generate(u, SampleNoise(range(6), 3, "reconstruct", 0))
    for given in (u, u.double().numpy()):
        assert torch.equal(run.reconstruct(given, seed=3, batch_size=6).tensor, direct)
    assert torch.allclose(run.reconstruct(u, seed=3, batch_size=4).tensor, direct, atol=1e-6)
    assert torch.equal(run.reconstruct(u, t=float(process.times[-1]), seed=3, batch_size=6).tensor, direct)
    assert not torch.equal(run.reconstruct(u, seed=4).tensor, direct)
    low = process.perturb(u0, process.times[1:2].expand(6), torch.zeros_like(u0))
    one = run.reconstruct(low, t=float(process.times[1]))
    assert torch.equal(one.tensor, run.model.reverse_mean(low, process.times[1].expand(6), process.times[0].expand(6)))
    assert one.settings["nfe"] == 1 and one.states.shape[1] == 2
    between = float(process.times[1] + process.times[2]) / 2
    with pytest.raises(ConfigError, match="is between two levels, which the model does not know; use t="):
        run.reconstruct(u, t=between)


@pytest.mark.slow
@pytest.mark.parametrize(
    "words",
    [
        ["model=oracle", "data=grf", "data.resolution=8", "data.train_size=8", "data.val_size=4", "forward=stochastic_heat"],
        ["model=diffusion", "net=mlp", "data=two_points", "forward=variance_exploding", "trainer.max_steps=1"],
    ],
    ids=["oracle", "measured"],
)
def test_a_run_that_must_be_calibrated_is_ready_to_sample(words: list[str], tmp_path: Path) -> None:
    small = ["forward.num_levels=3", "trainer.accelerator=cpu", "callback=none", f"hydra.run.dir={tmp_path / 'run'}"]
    assert call("train", *words, *small) == 0
    run = heatgen.load(tmp_path / "run", device="cpu")
    samples = run.sample(n=2).tensor
    assert len(samples) == 2 and samples.isfinite().all()
    u, t = run.model.process.perturb(samples, run.model.process.times[2].expand(2)), float(run.model.process.times[2])
    answer = run.model.denoise(u, run.model.process.times[2].expand(2))
    assert answer.shape == u.shape and not answer.requires_grad
    between = run.reconstruct(u, t=0.9 * t)  # any time is known
    assert between.tensor.isfinite().all()


# trainings ---------------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_training_is_that_of_the_command_line_and_leaves_the_program_as_it_was(small_run: Path, tmp_path: Path) -> None:
    handlers, command = signal.getsignal(signal.SIGINT), os.environ.get("HEATGEN_COMMAND")
    level, here, hydra = logging.getLogger("heatgen").level, [*logging.getLogger().handlers], HydraConfig.instance().cfg
    run = heatgen.train(*SMALL, folder=tmp_path / "run")
    assert run.folder == tmp_path / "run"
    assert (run.folder / "overrides.txt").read_text() == (small_run / "overrides.txt").read_text()
    one, two = (torch.load(path / "checkpoints" / "last.ckpt", weights_only=True) for path in (small_run, run.folder))
    assert all(torch.equal(value, two["state_dict"][name]) for name, value in one["state_dict"].items())
    assert (run.folder / "train.log").read_text().startswith("model.parametrisation=auto chose")
    assert signal.getsignal(signal.SIGINT) is handlers and os.environ.get("HEATGEN_COMMAND") == command
    assert logging.getLogger("heatgen").level == level and logging.getLogger().handlers == here
    assert HydraConfig.instance().cfg is hydra
    more = heatgen.train("trainer.max_steps=14", resume=str(run.folder))
    assert more.folder == run.folder and call("train", f"resume={run.folder}", "trainer.max_steps=15") == 0


@pytest.mark.slow
def test_samples_in_memory_are_kept_in_the_run_and_every_verb_goes_on_with_them(tmp_path: Path) -> None:
    x = 4 * fields(30, 2, 6, 8) - 2
    run = heatgen.train({"trainer.max_steps": 2}, *TINY[:-1], data=x, model="ihd", forward="heat", device="cpu")
    kept = torch.cat([run.data.get(split, range(len(run.data.images(split)))) for split in ("train", "val", "test")])
    assert {len(run.data.images(split)) for split in ("val", "test")} == {3} and len(kept) == 30
    assert torch.equal(kept[kept[:, 0, 0, 0].argsort()], x[x[:, 0, 0, 0].argsort()])
    assert run.data.spec.bits is None and run.data.spec.value_range == (float(kept[:24].min()), float(kept[:24].max()))
    assert OmegaConf.load(run.folder / "config.yaml").data_name.startswith("memory-")
    samples = run.sample(n=2).tensor
    moved = Path(shutil.move(run.folder, tmp_path / "moved"))
    assert torch.equal(heatgen.load(moved, device="cpu").sample(n=2).tensor, samples)
    own = export(LoadRequest(moved), tmp_path / "export")
    assert "put data.h5 of the run beside model.safetensors" in (own / "README.md").read_text()
    with pytest.raises(ConfigError, match=r"data\.h5 is not there; give the packed file as data\.path=FILE"):
        heatgen.load(own, device="cpu")
    shutil.copy(moved / "data.h5", own)
    assert torch.equal(heatgen.load(own, device="cpu").sample(n=2).tensor, samples)
    assert call("train", f"resume={moved}", "trainer.max_steps=3") == 0
    assert call("evaluate", f"run={moved}", "mode=forward", "metric.images=8", "metric.levels=2") == 0
    again = heatgen.train({"trainer.max_steps": 2}, *TINY[:-1], data=x, model="ihd", forward="heat", device="cpu")
    assert torch.equal(again.sample(n=2).tensor, samples)


@pytest.mark.slow
def test_bytes_and_classes_of_a_dataset_are_kept(tmp_path: Path) -> None:
    images = torch.arange(20 * 64).remainder(251).to(torch.uint8).reshape(20, 1, 8, 8)
    run = heatgen.train(*TINY, data=TensorDataset(images, torch.arange(20)), device="cpu", folder=tmp_path / "run")
    train = run.data.images("train")
    assert train.labels is not None and torch.equal(train.pixels(range(16)), images[train.labels])
    assert run.data.spec.bits == 8 and call("train", f"resume={run.folder}", "trainer.max_steps=3") == 0
    with pytest.raises(ConfigError, match="is not empty; choose another one"):
        heatgen.train(data=images, folder=tmp_path / "run")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"model": "idh"}, "model=idh is not an option; did you mean ihd"),
        ({"data": fields(9, 1, 8, 8), "model": "idh"}, "model=idh is not an option; did you mean ihd"),
        ({"data": fields(9, 1, 8, 8), "forward": {"num_levels": -1}}, "num_levels must be"),
        ({"data": fields(9, 1, 8, 8), "resume": "latest"}, "goes on with the data of its run; leave data out"),
        ({"data": fields(1, 1, 8, 8)}, "data holds 1 sample, and test and val need one each; give more"),
        ({"experiment": "linear_maps"}, "are a sweep"),
        ({"publish": "page"}, "publish=page is for a sweep"),
        ({"seed": [object()]}, "seed must be text, a number or a list, not list"),
        ({"data": Path("pictures")}, 'for files give data="image_folder" and {"data.path": "pictures"}'),
        ({"device": "tpu"}, "trainer.accelerator must be one of"),
    ],
)
def test_a_training_that_cannot_be_says_why_and_leaves_nothing(options: dict, sentence: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=sentence):
        heatgen.train(**options)
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


def test_numbers_of_numpy_and_paths_are_options_too() -> None:
    words = words_of(
        {"seed": np.int64(3), "net": {"multipliers": [np.int8(1), 2]}, "data.path": Path("a b"), "data.limit": None}
    )
    assert words == ["seed=3", "net.multipliers=[1, 2]", argument("data.path", "a b"), "data.limit=null"]


def test_flags_are_for_the_command_line() -> None:
    with pytest.raises(ConfigError, match="'-m' is no KEY=VALUE"):
        heatgen.train("-m", "seed=0,1")


@pytest.mark.slow
def test_a_stop_saves_and_is_a_keyboard_interrupt(tmp_path: Path) -> None:
    handler = signal.getsignal(signal.SIGINT)
    folder = tmp_path / "run"

    def stop() -> None:
        while not (folder / "checkpoints" / "last.ckpt").is_file():
            if over.wait(0.02):
                return
        for _ in range(2):  # a second one ends no program
            os.kill(os.getpid(), signal.SIGINT)

    over = threading.Event()
    thread = threading.Thread(target=stop)
    thread.start()
    try:
        with pytest.raises(KeyboardInterrupt):
            heatgen.train(*SMALL, "trainer.max_steps=100000", folder=folder)
    finally:
        over.set()
        thread.join()
    assert (folder / "checkpoints" / "last.ckpt").is_file() and signal.getsignal(signal.SIGINT) is handler
    assert "go on with: heatgen train resume=" in (folder / "train.log").read_text()
