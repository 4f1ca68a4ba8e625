"""What rollouts have in common: the law of their trajectories, the growth of windows, gradients, and refused maps."""

import itertools
import math
from types import SimpleNamespace

import pytest
import torch
from conftest import FORWARDS, shipped_map
from gaussian_toys import exact
from scipy import stats
from torch.testing import assert_close

from heatgen.check import ConfigError
from heatgen.forward.heat import Heat
from heatgen.forward.stochastic_heat import StochasticHeat
from heatgen.model.autoregressive import Autoregressive
from heatgen.model.smdp import SMDP
from heatgen.noise import SampleNoise
from heatgen.sampler.ancestral import ancestral

SHAPE = (1, 6, 6)
K = 6
METHODS = [SMDP, Autoregressive]


def curved(x, k, cond=None):
    return torch.tanh(x + 0.1 * k.reshape(-1, 1, 1, 1))


def make(method=SMDP, process=None, net=curved, **settings):
    return method(process or StochasticHeat(SHAPE, K), net, ancestral, None, **settings)


def fields(n, seed=0):
    process = StochasticHeat(SHAPE, K)
    c = torch.randn(n, *SHAPE, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return process.basis.inverse(exact(process).spectrum.sqrt() * c)


def drawn(shift, first):
    """Noise whose windows start there and whose inner times all move by this share of a step."""
    return SimpleNamespace(
        integers=lambda low, high: torch.tensor(first).clamp(low, high),
        uniform=lambda *shape: torch.full((len(first), *shape), shift + 0.5),
        normal_like=torch.randn_like,
    )


# windows -----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("spacing", ["uniform", "quadratic"])
@pytest.mark.parametrize("size", [1, 4, K])
def test_times_ascend_within_half_a_step_of_their_levels_and_the_ends_stay(spacing, size):
    n, model = 400, make(process=StochasticHeat(SHAPE, K, spacing=spacing))
    times, states = model.trajectory(fields(n), size, SampleNoise(range(n), 0))
    assert times.shape == (size + 1, n) and len(states) == size + 1 and states[0].shape == (n, *SHAPE)
    assert (times.diff(dim=0) > 0).all()
    level = torch.stack([model.process.level(t) for t in times])
    inner = (times > 0) & (times < model.process.times[-1])
    shift = level - level.round()
    assert (shift[~inner] == 0).all()
    assert stats.kstest(shift[inner].numpy(), stats.uniform(-0.5, 1).cdf).pvalue > 1e-3 or not inner.any()
    assert times[0].min() == 0 and times[-1].max() == model.process.times[-1]


@pytest.mark.parametrize("shift", [-0.5, -0.25, 0.0, 0.375])
def test_a_shift_moves_inner_times_by_its_share_of_the_neighbouring_step(shift):
    process = StochasticHeat(SHAPE, K, spacing="quadratic")
    times, _ = make(process=process).trajectory(fields(2), 3, drawn(shift, [0, 3]))
    grid = process.times
    side = -1 if shift < 0 else 1
    moved = [grid[k] + abs(shift) * (grid[k + side] - grid[k]) for k in range(1, K)]
    expected = torch.stack([torch.stack([grid[0], *moved[:3]]), torch.stack([*moved[2:], grid[K]])], dim=1)
    assert_close(times, expected, atol=1e-12, rtol=0)


@pytest.mark.parametrize("size", [1, 2, K])
def test_windows_start_anywhere_they_fit(size):
    n, model = 1500, make(jitter=False)
    times, _ = model.trajectory(torch.zeros(n, *SHAPE), size, SampleNoise(range(n), 0))
    numbers = model.process.level(times.flatten()).reshape(times.shape)
    assert_close(numbers, numbers.round(), atol=1e-9, rtol=0)
    assert_close(numbers, numbers[:1] + torch.arange(size + 1).double()[:, None], atol=1e-9, rtol=0)
    starts = K - size + 1
    counts = torch.bincount(numbers[0].round().long(), minlength=starts)
    assert len(counts) == starts and (counts - n / starts).abs().max() <= 4.5 * math.sqrt(n / starts)


def test_a_window_grows_with_the_training_and_is_one_step_in_validation():
    model = make(window_start=2, window_add=1, window_every=10, window_stages=3, window_final=5)
    assert model.window() == 1
    sizes = {}
    model._trainer = SimpleNamespace()
    for step in (0, 9, 10, 19, 20, 29, 30, 1000):
        model._trainer.global_step = step
        sizes[step] = model.window()
    assert sizes == {0: 2, 9: 2, 10: 3, 19: 3, 20: 4, 29: 4, 30: 5, 1000: 5}
    assert model.eval().window() == 1


def test_without_a_final_size_the_last_stage_stays_and_no_window_is_longer_than_the_way():
    model = make(window_start=3, window_add=2, window_every=4, window_stages=3, window_final=None)
    model._trainer = SimpleNamespace()
    sizes = []
    for model._trainer.global_step in (3, 4, 8, 100):
        sizes.append(model.window())
    assert sizes == [3, 5, K, K]
    short = make(window_start=1, window_add=1, window_every=4, window_stages=2, window_final=None)
    short._trainer = SimpleNamespace(global_step=10**6)
    assert short.window() == 2


@pytest.mark.parametrize("method", METHODS)
def test_the_loss_takes_a_window_of_the_present_size(method, monkeypatch):
    model, seen = make(method, window_start=4), []
    monkeypatch.setattr(model, "rollout", lambda times, states, noise: seen.append((len(times), len(states))))
    model.loss({"u0": fields(2)}, SampleNoise(range(2), 0))
    model._trainer = SimpleNamespace(global_step=0)
    model.loss({"u0": fields(2)}, SampleNoise(range(2), 0))
    assert seen == [(2, 2), (5, 5)]


# trajectories ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("training_noise", [1.0, 0.5])
@pytest.mark.parametrize("process", [StochasticHeat(SHAPE, K), Heat(SHAPE, K, 0.1, sigma_max=2.0)], ids=["driven", "seen"])
def test_a_trajectory_has_the_law_of_the_process(process, training_noise):
    n, u0 = 500, fields(500)
    model = make(process=process, training_noise=training_noise)
    times, states = model.trajectory(u0, 3, SampleNoise(range(n), 0))
    basis = process.basis
    for i, (t, u) in enumerate(zip(times, states, strict=True)):
        gap, std = basis(u) - process.gain(t) * basis(u0), training_noise * process.std(t)
        noisy = (std > 0).expand_as(gap)
        assert (gap[~noisy].abs() < 1e-12).all()
        z = (gap / std)[noisy]
        assert z.square().mean().item() == pytest.approx(1, abs=5 * math.sqrt(2 / len(z)))
        if i == 0:
            continue
        s, before = times[i - 1], states[i - 1]
        residual, std = basis(u) - process.ratio(s, t) * basis(before), training_noise * process.step_std(s, t)
        noisy = (std > 1e-9).expand_as(residual)
        assert (residual[~noisy].abs() < 1e-8).all()
        z = (residual / std)[noisy]
        assert z.mean().item() == pytest.approx(0, abs=5 / math.sqrt(len(z)))
        assert z.square().mean().item() == pytest.approx(1, abs=5 * math.sqrt(2 / len(z)))
        assert (z * basis(before)[noisy]).mean().abs() < 5 * basis(before)[noisy].square().mean().sqrt() / math.sqrt(len(z))


def test_a_trajectory_that_starts_at_0_starts_with_the_field_itself():
    u0 = fields(3)
    _, states = make().trajectory(u0, 2, drawn(0.2, [0, 0, 0]))
    assert_close(states[0], u0, atol=1e-12, rtol=0)


@pytest.mark.parametrize("method", METHODS)
def test_the_loss_of_a_sample_depends_on_its_key_alone(method):
    model, u0 = make(method, window_start=4, noise_in_rollout=True), fields(5)
    model._trainer = SimpleNamespace(global_step=0)
    together = model.loss({"u0": u0}, SampleNoise(range(5), 3))
    alone = torch.cat([model.loss({"u0": u0[[j]]}, SampleNoise([j], 3)) for j in range(5)])
    assert_close(together, alone, atol=1e-10, rtol=1e-10)
    assert torch.equal(together, model.loss({"u0": u0}, SampleNoise(range(5), 3)))
    assert not torch.isclose(together, model.loss({"u0": u0}, SampleNoise(range(5), 4))).any()


# unrolling ---------------------------------------------------------------------------------------------------------------


def unrolled(model, step, steps, start=1.0):
    """The sum of a window of this many steps back from a constant state to truths of 0, and the steps' mean variances."""
    times = model.process.times[: steps + 1].flip(0)[:, None]
    states = [torch.full((1, *SHAPE), start).double()] + [torch.zeros(1, *SHAPE).double()] * steps
    variance = [model.process.step_std(s, t).square().mean() for t, s in itertools.pairwise(times)]
    return model.unroll(step, times, states, SampleNoise([0], 0)), variance


@pytest.mark.parametrize("training_noise", [1.0, 0.1])
def test_errors_are_in_units_of_the_noise_of_their_step(training_noise):
    model = make(training_noise=training_noise, process=StochasticHeat(SHAPE, K, spacing="quadratic"))
    total, variance = unrolled(model, lambda u, t, s: 0.7 * u, 3)
    expected = sum(0.7 ** (2 * i) / v for i, v in enumerate(variance, 1)) / training_noise**2
    assert_close(total, expected[None], atol=0, rtol=1e-10)


@pytest.mark.parametrize("cut", [1, 2, 3, 5, 32])
def test_gradients_stop_after_so_many_steps(cut):
    model, weight = make(gradient_cut=cut), torch.tensor(0.9, dtype=torch.float64, requires_grad=True)
    total, variance = unrolled(model, lambda u, t, s: weight * u, 5)
    (slope,) = torch.autograd.grad(total.sum(), weight)
    w = weight.item()
    expected = sum(2 * ((i - 1) % cut + 1) * w ** (2 * i - 1) / v.item() for i, v in enumerate(variance, 1))
    assert slope.item() == pytest.approx(expected, rel=1e-10)
    assert_close(total, unrolled(make(), lambda u, t, s: w * u, 5)[0], atol=0, rtol=1e-12)


@pytest.mark.parametrize(("noisy", "training_noise"), [(False, 1.0), (True, 1.0), (True, 0.5)])
def test_the_noise_of_the_map_is_added_to_predicted_states_with_noise_in_rollout(noisy, training_noise):
    n, model, seen = 300, make(noise_in_rollout=noisy, training_noise=training_noise), []
    times = model.process.times[:4].flip(0)[:, None].expand(-1, n)
    states = [torch.zeros(n, *SHAPE).double()] * 4
    total = model.unroll(lambda u, t, s: seen.append(u) or u, times, states, SampleNoise(range(n), 0))
    assert seen[0].eq(0).all()
    for i in (1, 2):
        change = model.process.basis(seen[i] - seen[i - 1])
        if not noisy:
            assert change.eq(0).all() and total.eq(0).all()
            continue
        z = change / model.process.step_std(times[i], times[i - 1]) / training_noise
        assert z.square().mean().item() == pytest.approx(1, abs=5 * math.sqrt(2 / z.numel()))
    if noisy:
        assert total.mean().item() == pytest.approx(0 + 1 + 2, rel=0.1)


# refused -----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", METHODS)
def test_maps_without_a_noisy_step_are_refused_by_name(method):
    for forward in FORWARDS:
        process = shipped_map(forward, (1, 8, 8), K)
        if process.is_random or not process.is_markov:
            with pytest.raises(ConfigError, match=f"forward={forward}"):
                make(method, process)


@pytest.mark.parametrize("method", METHODS)
def test_maps_with_a_noisy_step_are_taken(method):
    for forward in ("stochastic_heat", "heat", "blurring", "variance_exploding", "constant_velocity"):
        losses = make(method, shipped_map(forward, SHAPE, K)).loss({"u0": fields(4)}, SampleNoise(range(4), 0))
        assert losses.shape == (4,) and losses.isfinite().all() and (losses > 0).all()


def test_a_wrong_value_is_refused_by_the_name_of_its_key():
    wrong = {"window_start": 0, "window_add": -1, "window_every": 0, "window_stages": 0, "window_final": 0}
    wrong |= {"gradient_cut": 0, "training_noise": 0, "jitter": "perhaps", "noise_in_rollout": 2}
    for key, value in wrong.items():
        with pytest.raises(ConfigError, match=rf"model\.{key} must"):
            make(**{key: value})
