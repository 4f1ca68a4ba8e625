"""model=autoregressive: its step and its loss in closed form, and what a linear network learns from it."""

import math
from types import SimpleNamespace

import pytest
import torch
from conftest import call
from gaussian_toys import exact
from torch.testing import assert_close

from heatgen.app.api import load
from heatgen.forward.stochastic_heat import StochasticHeat
from heatgen.model.autoregressive import Autoregressive
from heatgen.noise import SampleNoise
from heatgen.oracle.correction import reverse_factor
from heatgen.sampler.ancestral import ancestral

SHAPE = (1, 8, 8)
K = 4


def chain(**options):
    return StochasticHeat(SHAPE, K, **options)


def curved(x, k, cond=None):
    return torch.tanh(x + 0.1 * k.reshape(-1, 1, 1, 1))


def make(net=curved, process=None, **settings):
    return Autoregressive(process or chain(), net, ancestral, None, **settings)


def fields(n, seed=0):
    process = chain()
    c = torch.randn(n, *SHAPE, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return process.basis.inverse(exact(process).spectrum.sqrt() * c)


class InTurn(SampleNoise):
    """Noise whose windows start at the levels in turn, equally often."""

    def integers(self, low, high):
        return low + torch.arange(len(self)) % (high - low + 1)


class Waves:
    """A linear network: one number for each coefficient at each level."""

    def __init__(self, process):
        self.basis, self.weights = process.basis, torch.zeros(process.num_levels + 1, *SHAPE).double().requires_grad_()

    def __call__(self, u, k, cond=None):
        return self.basis.inverse(self.weights[k.round().long()] * self.basis(u))


def best(process):
    """The weights that make every step between neighbouring levels the exact reverse mean, (K + 1, C, H, W)."""
    oracle, times = exact(process), process.times
    factors = reverse_factor(oracle, times[1:], times[:-1])
    share = (times.diff() / times[-1]).reshape(-1, 1, 1, 1)
    return torch.cat([torch.zeros(1, *SHAPE).double(), (factors - 1) / share])


@pytest.mark.parametrize("spacing", ["uniform", "log"])
def test_a_step_adds_the_network_in_proportion_to_its_length(spacing):
    model, u = make(process=chain(spacing=spacing)), fields(K)
    t, s = model.process.times[1:], model.process.times[:-1]
    share = ((t - s) / 0.2).reshape(-1, 1, 1, 1)
    assert_close(model.reverse_mean(u, t, s), u + share * curved(u, torch.arange(1, K + 1).double()), atol=1e-12, rtol=0)
    assert torch.equal(model.reverse_std(t, s), model.process.step_std(s, t))


def test_the_loss_is_that_by_hand():
    model, u0 = make(process=chain(scheme="euler_maruyama", euler_steps=K), training_noise=0.5), fields(3)
    times, states = model.trajectory(u0, 2, SampleNoise(range(3), 0))
    u, expected = states[2], torch.zeros(3).double()
    for i in (1, 0):
        t, s = times[i + 1], times[i]
        u = u + ((t - s) / 0.2).reshape(-1, 1, 1, 1) * curved(u, t / 0.2 * K)
        expected += (u - states[i]).square().mean((1, 2, 3)) / (0.25 * model.process.step_std(s, t) ** 2).mean((1, 2, 3))
    assert_close(model.rollout(times, states, SampleNoise(range(3), 1)), expected, atol=0, rtol=1e-10)


def test_the_loss_of_a_silent_network_is_the_mean_change_in_units_of_the_noise():
    n, model = 1600, make(lambda u, k, cond: torch.zeros_like(u), jitter=False)
    process, oracle = model.process, exact(model.process)
    values = model.loss({"u0": fields(n)}, InTurn(range(n), 0))
    for k in range(K):
        s, t = process.times[[k]], process.times[[k + 1]]
        q2, a = process.step_std(s, t) ** 2, process.ratio(s, t)
        expected = (((1 - a) ** 2 * oracle.variance(s) + q2).mean() / q2.mean()).item()
        mine = values[k::K]
        assert mine.mean().item() == pytest.approx(expected, abs=4.5 * mine.std().item() / math.sqrt(len(mine)))


@pytest.mark.parametrize("noise_in_rollout", [True, False])
def test_a_linear_network_learns_the_reverse_mean(noise_in_rollout):
    n, process = 1600, chain()
    model = make(Waves(process), process, jitter=False, noise_in_rollout=noise_in_rollout)
    oracle, slopes = exact(process), []
    for value in (0.0, 1.0):
        model.net.weights = torch.full_like(model.net.weights, value).requires_grad_()
        loss = model.loss({"u0": fields(n)}, InTurn(range(n), 0)).sum()
        slopes.append(torch.autograd.grad(loss, model.net.weights)[0])
    fit = -slopes[0] / (slopes[1] - slopes[0])
    assert slopes[0][0].eq(0).all()
    for k in range(1, K + 1):
        t, s = process.times[[k]], process.times[[k - 1]]
        v, unknown = oracle.variance(t)[0], (oracle.variance(s) * process.step_std(s, t) ** 2 / oracle.variance(t))[0]
        error = (unknown / (v * n / K)).sqrt() * K
        varies = unknown > 0
        z = ((fit[k] - best(process)[k]) / error)[varies]
        assert z.abs().max() < 5
        assert z.square().mean().item() == pytest.approx(1, abs=6 * math.sqrt(2 / len(z)))


@pytest.mark.parametrize("spacing", ["uniform", "quadratic"])
def test_the_best_network_without_noise_ends_in_the_posterior_mean(spacing):
    process, u = chain(spacing=spacing), fields(3)
    net = Waves(process)
    net.weights = best(process)
    end = ancestral(make(net, process), u, process.times, stochastic=False)
    assert_close(end, exact(process).posterior_mean(u, process.times[-1:]), atol=1e-10, rtol=0)


@pytest.mark.parametrize("noise_in_rollout", [False, True])
def test_the_whole_way_has_the_loss_of_the_posterior_variances(noise_in_rollout):
    n, process = 400, chain()
    net, oracle = Waves(process), exact(process)
    net.weights = best(process)
    model = make(net, process, window_start=K, jitter=False, noise_in_rollout=noise_in_rollout)
    model._trainer = SimpleNamespace(global_step=0)
    values = model.loss({"u0": fields(n)}, SampleNoise(range(n), 0))
    expected, extra = 0.0, torch.zeros(1, *SHAPE).double()
    for k in range(K, 0, -1):
        s, t, end = process.times[[k - 1]], process.times[[k]], process.times[[K]]
        q2 = process.step_std(s, t) ** 2
        left = oracle.variance(s) * process.step_std(s, end) ** 2 / oracle.variance(end)
        extra = reverse_factor(oracle, t, s) ** 2 * extra
        expected += ((left + extra).mean() / q2.mean()).item()
        extra = extra + q2 if noise_in_rollout else extra
    assert values.mean().item() == pytest.approx(expected, abs=4.5 * values.std().item() / math.sqrt(n))


def test_the_network_that_steps_onto_the_field_itself_is_trained():
    process = chain()
    model, u0 = make(Waves(process), process, jitter=False), fields(K)
    values = model.loss({"u0": u0}, InTurn(range(K), 0))
    for first, value in enumerate(values):
        slope = torch.autograd.grad(value, model.net.weights, retain_graph=True)[0]
        assert (slope.abs().amax((1, 2, 3)) > 0).nonzero().flatten().tolist() == [first + 1]


SMALL_FIELDS = [
    "data=grf",
    "data.resolution=8",
    "data.train_size=24",
    "data.val_size=8",
    "data.batch_size=8",
    "net.channels=4",
    "net.blocks=2",
    "forward.num_levels=4",
    "model.warmup_steps=0",
    "trainer.accelerator=cpu",
    "trainer.max_steps=4",
    "trainer.val_check_interval=2",
    "callback.pictures.every=0",
]


@pytest.mark.slow
def test_a_training_can_be_sampled_with_and_without_noise(tmp_path, refused):
    folder = tmp_path / "runs" / "own"
    assert call("train", "model=autoregressive", *SMALL_FIELDS, f"hydra.run.dir={folder}") == 0
    model, _, cfg = load(folder)
    assert (
        model.process.name == "stochastic_heat" and model.noise_in_rollout and cfg.net["_target_"].endswith("EncoderDecoder")
    )
    drawn = []
    for options, name in (
        ([], "delta_own_seed_0"),
        (["sampler=ancestral", "sampler.stochastic=false"], "delta_own_seed_0_ancestral_stochastic=False"),
    ):
        assert call("sample", f"run={folder}", "n=2", "trainer.accelerator=cpu", *options) == 0
        drawn.append(torch.load(folder / "samples" / name / "samples.pt", weights_only=True))
        assert drawn[-1]["samples"].shape == (2, 1, 8, 8) and drawn[-1]["samples"].isfinite().all()
    assert torch.equal(drawn[0]["initial"], drawn[1]["initial"])
    assert not torch.isclose(drawn[0]["samples"], drawn[1]["samples"]).all()
    times = model.process.times
    assert_close(
        ancestral(model, drawn[1]["initial"], times, stochastic=False).detach(), drawn[1]["samples"], atol=1e-5, rtol=0
    )
    sentence = refused("sample", f"run={folder}", "n=2", "sampler=ode", "trainer.accelerator=cpu")
    assert "sampler=ode needs score" in sentence and "use sampler=ancestral" in sentence
