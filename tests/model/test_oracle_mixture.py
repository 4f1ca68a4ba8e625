"""model=oracle for mixtures: the spread of its steps, samples on every component, runs that are there at once."""

import pytest
import torch
from conftest import call
from torch import nn

from heatgen.app.api import load
from heatgen.data.gaussian_mixture import GaussianMixture
from heatgen.forward.heat_kernel import HeatKernel
from heatgen.forward.random_matrix import RandomMatrix
from heatgen.model.oracle import Oracle
from heatgen.noise import SampleNoise
from heatgen.sampler.ancestral import ancestral


def oracle(process, **options):
    data = GaussianMixture(dimension=2, shape=[1, 1, 2], val_size=1000, **options)
    model = Oracle(process, nn.Identity(), ancestral, None)
    model.calibrate(data)
    return model, data


def test_the_spread_of_reverse_steps_is_the_mean_posterior_variance():
    """One component of width s: s^2 sigma^2 / (s^2 + sigma^2), whatever u is, measured to a few percent."""
    process = HeatKernel((1, 1, 2), 5)
    model, _ = oracle(process, components=1, stds=0.8)
    for t in process.times[1:]:
        sigma = process.std(t[None]).item()
        expected = 0.64 * sigma**2 / (0.64 + sigma**2)
        assert model.denoise_variance(t[None]).mean().item() == pytest.approx(expected, rel=0.15)


@pytest.mark.slow
@pytest.mark.parametrize("levels", [8, 64])
def test_gaussian_steps_bring_a_mixture_back(levels):
    """Samples stand on the eight components, equally often, and with their width where the steps are short."""
    process = HeatKernel((1, 1, 2), levels, spacing="quadratic")
    model, data = oracle(process)
    n = 2000
    noise = SampleNoise(range(n), 0)
    u = ancestral(model, model.initial_state(data.get("train", range(n)), noise), process.times, noise).flatten(1).double()
    means = data.spec.mixture.means.flatten(1)
    distance, which = torch.cdist(u, means).min(1)
    counts = torch.bincount(which, minlength=8)
    assert counts.min() > n / 8 - 5 * (n / 8) ** 0.5 and counts.max() < n / 8 + 5 * (n / 8) ** 0.5
    if levels == 64:
        assert distance.square().mean().sqrt().item() == pytest.approx(0.15 * 2**0.5, rel=0.08)


def test_a_matrix_map_has_reverse_steps_without_a_spread():
    model, data = oracle(RandomMatrix((1, 1, 2), 4, sigma=0.3))
    assert model.denoise_variance(model.process.times[1:2]) is None
    noise = SampleNoise(range(8), 0)
    u = model.initial_state(data.get("train", range(8)), noise)
    assert ancestral(model, u, model.process.times, noise).isfinite().all()


@pytest.mark.slow
@pytest.mark.parametrize("data", ["point", "two_points", "gaussian_mixture"])
def test_a_run_of_exact_answers_on_points_is_there_at_once(data, tmp_path):
    folder = tmp_path / "run"
    few = ["data.val_size=64", "data.train_size=64", "forward.num_levels=4", "trainer.accelerator=cpu"]
    assert call("train", "model=oracle", f"data={data}", "forward=heat_kernel", *few, f"hydra.run.dir={folder}") == 0
    model, module, _ = load(folder)
    model.calibrate(module)
    u = torch.full((1, *module.spec.shape), 0.4, dtype=torch.float64)
    if data == "point":
        assert model.score(u, torch.tensor([0.5])).item() == pytest.approx(-0.4 / 0.724295**2, abs=1e-5)
    assert call("sample", f"run={folder}", "n=5", "sampler=sde", "trainer.accelerator=cpu") == 0


def test_data_of_no_known_law_is_refused(refused):
    sentence = refused("train", "model=oracle", "data=ring", "forward=heat_kernel", "trainer.accelerator=cpu")
    assert "model=oracle" in sentence and "use data=grf, gaussian_mixture or point" in sentence
