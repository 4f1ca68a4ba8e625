"""model=heat_kernel_score: its loss by hand and in closed form, its minimiser, and what exact mixtures do as a model."""

import functools
from types import SimpleNamespace

import pytest
import torch
from conftest import call
from torch import nn
from torch.testing import assert_close

from heatgen.app.load import load
from heatgen.check import ConfigError
from heatgen.data.gaussian_mixture import GaussianMixture
from heatgen.forward.constant_velocity import ConstantVelocity
from heatgen.forward.heat import Heat
from heatgen.forward.heat_kernel import HeatKernel
from heatgen.forward.random_matrix import RandomMatrix
from heatgen.model.heat_kernel_score import HeatKernelScore
from heatgen.model.oracle import Oracle
from heatgen.noise import SampleNoise
from heatgen.sampler.ancestral import ancestral
from heatgen.sampler.sde import sde

SHAPE = (1, 1, 3)


class Exact(nn.Module):
    """a times the network of a single point in the origin: net = -a u / sigma(t)."""

    def __init__(self, process, a=1.0):
        super().__init__()
        self.process, self.a = process, a

    def forward(self, u, level, cond=None):
        t = level.double() / self.process.num_levels
        return -self.a * u / self.process.std(t).to(u)


def make(process, net, **settings):
    return HeatKernelScore(process, net, sde, functools.partial(torch.optim.Adam, lr=1e-3), **settings)


def batch(n, u0=None):
    return {"u0": torch.zeros(n, *SHAPE) if u0 is None else u0}


def test_the_loss_of_a_point_is_the_squared_error_of_the_score_times_the_variance():
    """For x_0 = 0 the regression has no noise: the loss is (1 - a)^2 |eps|^2 / D, and 0 for the exact network."""
    process = HeatKernel(SHAPE, 10)
    noise, again = SampleNoise(range(64), 0), SampleNoise(range(64), 0)
    assert make(process, Exact(process)).loss(batch(64), noise).max() < 1e-10
    loss = make(process, Exact(process, 0.7)).loss(batch(64), SampleNoise(range(64), 0))
    t = make(process, nn.Identity()).times_for(again)
    eps = again.normal_like(torch.zeros(64, *SHAPE))
    assert_close(loss, 0.3**2 * eps.square().flatten(1).mean(1), rtol=1e-4, atol=1e-6)
    assert t.min() > 0 and t.max() <= 1 and t.std() == pytest.approx(12**-0.5, rel=0.2)


def test_the_score_is_the_network_over_the_noise():
    process = HeatKernel(SHAPE, 10)
    u, t = torch.randn(4, *SHAPE), torch.tensor([0.1, 0.4, 0.7, 1.0])
    assert_close(make(process, Exact(process)).score(u, t), -u / process.std(t) ** 2, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    "process", [Heat(SHAPE, 5, sigma=0.2), ConstantVelocity(SHAPE, 5, sigma=0.2), RandomMatrix(SHAPE, 5, sigma=0.2)]
)
def test_under_any_map_the_target_is_the_noise_at_its_own_scale(process):
    """net = 0: the loss is |sigma L^-1 eps|^2 / D, which is |eps|^2 / D where L is a number."""
    model = make(process, lambda u, k, cond: torch.zeros_like(u))
    loss = model.loss(batch(32, torch.rand(32, *SHAPE)), SampleNoise(range(32), 0))
    again = SampleNoise(range(32), 0)
    model.times_for(again)
    assert_close(loss, again.normal_like(torch.zeros(32, *SHAPE)).square().flatten(1).mean(1), rtol=1e-5, atol=1e-6)


def test_its_minimiser_for_a_gaussian_is_the_score():
    """u_0 ~ N(0, S): least squares of eps on u_t gives -sigma u / (S + sigma^2), sigma^2 times the score over sigma."""
    process, n, spread = HeatKernel((1, 1, 1), 10), 20_000, 0.8
    source = torch.Generator().manual_seed(0)
    u0, eps = torch.randn(2, n, 1, 1, 1, generator=source, dtype=torch.float64)
    for t in (0.1, 0.5, 1.0):
        time = torch.full((n,), t, dtype=torch.float64)
        noise = SimpleNamespace(normal_like=lambda u: eps)
        seen = []
        model = make(process, lambda u, k, cond: seen.append(u) or torch.zeros_like(u))
        model.times_for = lambda noise, time=time: time
        model.loss({"u0": spread * u0}, noise)
        slope = -(seen[0] * eps).sum() / seen[0].square().sum()
        sigma = process.std(time[:1]).item()
        assert slope.item() == pytest.approx(-sigma / (spread**2 + sigma**2), abs=4 / n**0.5)


def test_a_map_without_noise_is_refused():
    with pytest.raises(ConfigError, match=r"^model=heat_kernel_score needs noise at each level of forward=heat; raise"):
        make(Heat(SHAPE, 5, sigma=0.0), nn.Identity())


# exact mixtures as a model -------------------------------------------------------------------------------------------------


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
    assert "model=oracle needs data whose law is known; use data=grf, gaussian_mixture or point." in sentence
