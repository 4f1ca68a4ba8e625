"""model=oracle: a run without training that every sampler takes, what it refuses, and the moments of its answers."""

import logging
import math
from types import SimpleNamespace

import pytest
import torch
from conftest import call, shipped_map
from gaussian_toys import exact_model, gaussian
from torch.testing import assert_close

from heatgen.app.api import load
from heatgen.check import ConfigError
from heatgen.forward.heat import Heat
from heatgen.forward.random_matrix import RandomMatrix
from heatgen.model.oracle import Oracle
from heatgen.noise import SampleNoise
from heatgen.sampler.exact import exact

SHAPE = (1, 8, 8)
SMALL_FIELDS = ["data=grf", "data.resolution=8", "data.train_size=16", "data.val_size=4", "forward.num_levels=3"]
CPU = "trainer.accelerator=cpu"


def fields(n, seed=0):
    return torch.randn(n, *SHAPE, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def last(model, batch):
    return model.process.times[-1:].expand(batch)


# the answers -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("white", [None, 0.2])
def test_reconstructions_have_the_moments_of_the_posterior(white):
    n, batch, model = 40, 30, exact_model()
    model.sampler = exact
    model = model if white is None else model.observed(white)
    u = fields(batch)
    k2 = model.process.eigenvalues
    gain = (-k2 * 0.2).exp()
    own = torch.where(k2 > 0, 0.01 * (1 - gain**2) / (2 * k2.clamp(min=1)), torch.tensor(0.01 * 0.2).double())
    seen, spectrum = own if white is None else torch.full_like(own, white**2), model.exactly.spectrum[0]
    variance = spectrum * seen / (gain**2 * spectrum + seen)
    mean = spectrum * gain / (gain**2 * spectrum + seen) * model.process.basis(u)
    draws = torch.stack([model.generate(u, SampleNoise(range(batch), 3, i)) for i in range(n)])
    c = model.process.basis(draws)
    unsure = variance > 0
    z = ((c - mean) / variance.sqrt())[..., unsure]
    assert z.mean((0, 1)).abs().max() < 4.5 / math.sqrt(n * batch)
    assert (z.square().mean((0, 1)) - 1).abs().max() < 5 * math.sqrt(2 / (n * batch))
    assert (c - mean)[..., ~unsure].abs().max() < 1e-9


@pytest.mark.parametrize("answer", ["sample", "mean", "flow"])
def test_knowing_the_white_noise_of_a_state_changes_every_exact_answer(answer):
    model, u = exact_model(), fields(2)
    informed = model.observed(0.3)
    assert model.white is None and informed.exactly is model.exactly
    ends = [m.exact(u, last(m, 2), answer, SampleNoise(range(2), 0)) for m in (model, informed)]
    assert (ends[0] - ends[1]).abs().max() > 0.01
    if answer == "flow":  # of white noise, to the law of the data
        oracle = model.exactly
        total = oracle.process.gain(last(model, 1)) ** 2 * oracle.spectrum + 0.09
        expected = (oracle.spectrum / total).sqrt() * oracle.basis(u)
        assert_close(oracle.basis(ends[1]), expected, atol=1e-10, rtol=0)


def test_white_noise_as_strong_as_the_maps_own_changes_nothing():
    process = Heat(SHAPE, 4, sigma=0.1)
    model, u = exact_model(process, gaussian(SHAPE, "neumann", 0.3)), fields(2)
    for answer in ("sample", "mean", "flow"):
        ends = [m.exact(u, last(m, 2), answer, SampleNoise(range(2), 0)) for m in (model, model.observed(0.1))]
        assert_close(*ends, atol=1e-10, rtol=0)


def test_an_answer_for_float32_states_is_that_of_float64():
    model, u = exact_model(mean=0.3), fields(2)
    t = last(model, 2)
    for method in (model.denoise, model.score):
        single, double = method(u.float(), t), method(u.float().double(), t)
        assert single.dtype == torch.float32 and double.dtype == torch.float64
        assert_close(single.double(), double, atol=0, rtol=1e-6)


@pytest.mark.parametrize("skip", [1, 3, 8])
def test_reverse_steps_of_any_length_keep_the_law(skip):
    model = exact_model(mean=0.3)
    t, s = model.process.times[[8]], model.process.times[[8 - skip]]
    factor = model.process.basis(model.reverse_mean(model.process.basis.inverse(torch.ones(1, *SHAPE).double()), t, s))
    law = factor**2 * model.exactly.variance(t) + model.reverse_std(t, s) ** 2
    assert_close(law, model.exactly.variance(s).expand_as(law), atol=1e-12, rtol=1e-8)


def test_there_is_nothing_to_learn():
    model = exact_model()
    assert not list(model.parameters())
    assert torch.equal(model.loss({"u0": fields(3)}, SampleNoise(range(3), 0)), torch.zeros(3))


# what is refused ---------------------------------------------------------------------------------------------------------


def test_a_map_that_is_drawn_at_random_is_refused():
    model = Oracle(shipped_map("random_velocity", SHAPE, 3), torch.nn.Identity(), None, None)
    with pytest.raises(ConfigError, match=r"model=oracle.*forward=random_velocity"):
        model.calibrate(SimpleNamespace(spec=gaussian()))


def test_the_variance_of_a_matrix_map_is_refused_and_its_mean_is_not():
    model, u = exact_model(RandomMatrix(SHAPE, 4, 0.2)), fields(2)
    t, s = model.process.times[[4, 4]], model.process.times[[3, 3]]
    assert model.denoise(u, t).isfinite().all() and model.score(u, t).isfinite().all()
    with pytest.raises(ConfigError, match=r"forward=random_matrix.*use sampler="):
        model.reverse_std(t, s)


# from the command line ---------------------------------------------------------------------------------------------------


def train(folder, *arguments):
    return call(
        "train", "model=oracle", *SMALL_FIELDS, "forward=stochastic_heat", CPU, *arguments, f"hydra.run.dir={folder}"
    )


@pytest.mark.slow
def test_a_run_is_written_without_training_and_loads_without_a_note(tmp_path, capfd, caplog):
    folder = tmp_path / "runs" / "own"
    assert train(folder) == 0
    said = capfd.readouterr().out
    assert "nothing to train\nwritten: " in said and "\nnext:    " in said and f"run={folder}" in said
    assert {path.name for path in folder.iterdir()} >= {"config.yaml", "checkpoints"}
    caplog.set_level(logging.WARNING)
    caplog.clear()
    model, data, _ = load(folder, weights="ema")
    assert caplog.text == "" and "Note" not in capfd.readouterr().err
    assert torch.equal(model.exactly.spectrum, data.spec.spectrum)


@pytest.mark.slow
def test_every_sampler_takes_it(tmp_path):
    folder = tmp_path / "runs" / "own"
    assert train(folder) == 0
    drawn = {}
    for sampler in ("exact", "ancestral", "heun", "momentum", "multistep", "ode", "predictor_corrector", "sde"):
        assert call("sample", f"run={folder}", "n=2", CPU, f"sampler={sampler}") == 0
        drawn[sampler] = torch.load(folder / "samples" / f"delta_own_seed_0_{sampler}" / "samples.pt", weights_only=True)
        assert drawn[sampler]["samples"].shape == (2, *SHAPE) and drawn[sampler]["samples"].isfinite().all()
        assert torch.equal(drawn[sampler]["initial"], drawn["exact"]["initial"])
    samples = torch.stack([content["samples"] for content in drawn.values()])
    assert not any(torch.isclose(a, b).all() for i, a in enumerate(samples) for b in samples[:i])
    assert call("sample", f"run={folder}", "n=2", CPU, "sampler=exact", "sampler.answer=mean", "seed=1") == 0
    content = torch.load(folder / "samples" / "delta_own_seed_1_exact_answer=mean" / "samples.pt", weights_only=True)
    model, data, _ = load(folder)
    model.calibrate(data)
    expected = model.exactly.posterior_mean(content["initial"], last(model, 2))
    assert_close(content["samples"], expected, atol=1e-6, rtol=0)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (
            ["data=digits", "forward=heat"],
            "model=oracle needs data whose law is known; use data=grf, gaussian_mixture or point, or data.law=measure.",
        ),
        (
            [*SMALL_FIELDS, "forward=random_velocity"],
            "model=oracle has no closed form for forward=random_velocity, which is drawn at random.",
        ),
    ],
)
def test_other_data_and_random_maps_are_refused_by_name(tmp_path, refused, arguments, sentence):
    folder = tmp_path / "runs" / "own"
    assert refused("train", "model=oracle", *arguments, CPU, f"hydra.run.dir={folder}") == f"Error: {sentence}"
    assert not (folder / "config.yaml").exists()
