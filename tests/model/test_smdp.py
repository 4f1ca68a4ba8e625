"""model=smdp: its steps and losses by hand, and what a linear network learns from them, on Gaussian fields."""

import math
from types import SimpleNamespace

import pytest
import torch
from conftest import call
from gaussian_toys import exact
from torch.testing import assert_close

from heatgen.app.api import load
from heatgen.check import ConfigError
from heatgen.forward.heat import Heat
from heatgen.forward.stochastic_heat import StochasticHeat
from heatgen.model.smdp import SMDP
from heatgen.noise import SampleNoise
from heatgen.oracle.correction import backward_loss, correction, optimal_score
from heatgen.sampler.ancestral import ancestral
from heatgen.sampler.ode import ode
from heatgen.sampler.sde import sde

SHAPE = (1, 8, 8)
K = 4
LOSSES = ["backward", "both", "backward_and_zero"]


def chain(**options):
    return StochasticHeat(SHAPE, K, **options)


def curved(x, k, cond=None):
    return torch.tanh(x[:, :1] + 0.1 * k.reshape(-1, 1, 1, 1))


def silent(x, k, cond=None):
    return torch.zeros_like(x[:, :1])


def make(net=curved, process=None, **settings):
    return SMDP(process or chain(), net, sde, None, **settings)


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


class Averages(SMDP):
    """A network that has become the optimal correction of the step down from each level, seen through its own units."""

    def __init__(self, process, **settings):
        oracle, optimum = exact(process), [torch.zeros(1, *SHAPE).double()]
        for k in range(1, process.num_levels + 1):
            optimum.append(optimal_score(oracle, process.times[[k]], process.times[[k - 1]]))
        net = Waves(process)
        super().__init__(process, net, ode, None, **settings)
        net.weights = torch.cat(optimum) * self.unit


def by_hand(u, s, t, step):
    """u after one step with the plain transform of the waves: step(coefficients, a, Q^2), g = 0.1 and alpha = 1."""
    k = torch.fft.fftfreq(8, 1 / 8, dtype=torch.float64)
    k2 = k[:, None] ** 2 + k**2
    dt = (t - s).reshape(-1, 1, 1, 1)
    a = (-k2 * dt).exp()
    q2 = torch.where(k2 > 0, 0.01 * (1 - a**2) / (2 * k2.clamp(min=1)), 0.01 * dt)
    moved = torch.fft.ifft2(step(lambda v: torch.fft.fft2(v), a, q2))
    assert moved.imag.abs().max() < 1e-9
    return moved.real, q2.mean((1, 2, 3))


# the step ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("scheme", ["exact", "euler_maruyama"])
@pytest.mark.parametrize("factor", [0.5, 1.0])
def test_a_step_back_is_two_less_a_times_the_state_plus_the_score(scheme, factor):
    model = make(process=chain(scheme=scheme), training_noise=1.0)
    process, u = model.process, fields(K)
    t, s = process.times[1:], process.times[:-1]
    a, q2 = process.ratio(s, t), process.step_std(s, t) ** 2
    waves = (2 - a) * process.basis(u) + factor * q2 * process.basis(model.score(u, t))
    assert_close(model.physics_step(u, t, s, factor), process.basis.inverse(waves), atol=1e-12, rtol=0)
    assert_close(model.reverse_mean(u, t, s), model.physics_step(u, t, s, 1.0), atol=0, rtol=0)
    assert_close(model.reverse_std(t, s), process.step_std(s, t), atol=0, rtol=0)


def test_the_score_is_the_network_in_units_of_the_noise_of_the_last_step():
    model = make(process=chain(scheme="euler_maruyama"))
    q = 0.1 * math.sqrt(0.2 / K)
    assert model.unit == pytest.approx(q, rel=1e-12)
    u, t = fields(K), model.process.times[1:]
    assert_close(model.score(u, t), curved(u, torch.arange(1, K + 1).double()) / q, atol=0, rtol=1e-10)


@pytest.mark.parametrize("spacing", ["uniform", "quadratic"])
def test_with_two_inputs_the_network_also_sees_the_physics_of_the_longest_step(spacing):
    process, seen = chain(spacing=spacing, scheme="euler_maruyama", euler_steps=K), []
    model = make(lambda x, k, cond: seen.append(x) or x[:, :1], process, inputs=2)
    u, t = fields(K), process.times[1:]
    score = model.score(u, t)
    k2 = process.eigenvalues
    longest = 0.2 * (1 / K if spacing == "uniform" else 1 - ((K - 1) / K) ** 2)
    unit = process.step_std(process.times[[K - 1]], process.times[[K]]).square().mean().sqrt()
    physics = process.basis.inverse(((-k2 * longest).exp() - 1) * process.basis(u))
    assert_close(seen[0], torch.cat([u, physics / unit], dim=1), atol=1e-9, rtol=0)
    assert_close(score, u / unit, atol=0, rtol=1e-9)


@pytest.mark.parametrize("spacing", ["uniform", "quadratic"])
@pytest.mark.parametrize("scheme", ["exact", "euler_maruyama"])
def test_without_noise_the_best_corrections_end_in_the_posterior_mean(scheme, spacing):
    model = Averages(chain(scheme=scheme, spacing=spacing))
    u = fields(3)
    expected = exact(model.process).posterior_mean(u, model.process.times[-1:])
    levels = model.process.times
    assert_close(ancestral(model, u, levels, stochastic=False), expected, atol=1e-10, rtol=0)
    assert_close(ode(model, u, levels, factor=1.0), expected, atol=1e-10, rtol=0)


def test_the_reverse_sde_is_the_ancestral_sampler():
    model, u = make(), fields(3)
    ends = [sampler(model, u, model.process.times, SampleNoise(range(3), 0)) for sampler in (sde, ancestral)]
    assert_close(*ends, atol=1e-12, rtol=0)
    assert not torch.isclose(ends[0], sde(model, u, model.process.times, SampleNoise(range(3), 1))).any()


# the losses --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("losses", LOSSES)
@pytest.mark.parametrize("training_noise", [1.0, 0.5])
def test_the_losses_are_those_by_hand(losses, training_noise):
    model, u0 = make(losses=losses, training_noise=training_noise), fields(3)
    times, states = model.trajectory(u0, 2, SampleNoise(range(3), 0))
    factor, scale = 1.0 if losses == "backward" else 0.5, training_noise**2
    expected, predicted = torch.zeros(3).double(), states[2]
    for i in (1, 0):
        s, t, u = times[i], times[i + 1], predicted
        score = model.score(u, t)
        back = lambda f, a, q2, u=u, score=score: (2 - a) * f(u) + factor * scale * q2 * f(score)  # noqa: E731
        predicted, mean_q2 = by_hand(u, s, t, back)
        expected += (predicted - states[i]).square().mean((1, 2, 3)) / (scale * mean_q2)
    predicted = states[0]
    for i in (1, 2) if losses != "backward" else ():
        s, t, u = times[i - 1], times[i], predicted if losses == "both" else states[i]
        score = model.score(u, s if losses == "both" else t)
        forth = lambda f, a, q2, u=u, score=score: a * f(u) - factor * scale * q2 * f(score)  # noqa: E731
        size = lambda f, a, q2, score=score: factor * scale * q2 * f(score)  # noqa: E731
        moved, mean_q2 = by_hand(u, s, t, forth if losses == "both" else size)
        gap = moved - states[i] if losses == "both" else moved
        predicted = moved
        expected += gap.square().mean((1, 2, 3)) / (scale * mean_q2)
    assert_close(model.rollout(times, states, SampleNoise(range(3), 1)), expected, atol=0, rtol=1e-8)


@pytest.mark.parametrize("losses", LOSSES)
def test_the_loss_of_a_silent_network_has_its_closed_expectation(losses):
    n, model = 1600, make(silent, losses=losses, jitter=False)
    process, oracle = model.process, exact(model.process)
    values = model.loss({"u0": fields(n)}, InTurn(range(n), 0))
    for k in range(K):
        s, t = process.times[[k]], process.times[[k + 1]]
        expected = backward_loss(oracle, t, s, corrected=False) / process.step_std(s, t).square().mean().item()
        expected += 1.0 if losses == "both" else 0.0
        mine = values[k::K]
        assert mine.mean().item() == pytest.approx(expected, abs=4.5 * mine.std().item() / math.sqrt(len(mine)))


def least_squares(model, batch, noise):
    """Where the loss, a sum of squares of each weight for itself, is least: one step of Newton's from its slopes."""
    slopes = []
    for value in (0.0, 1.0):
        model.net.weights = torch.full_like(model.net.weights, value).requires_grad_()
        loss = model.loss(batch, noise()).sum()
        slopes.append(torch.autograd.grad(loss, model.net.weights)[0])
    return slopes, -slopes[0] / (slopes[1] - slopes[0])


@pytest.mark.parametrize("losses", LOSSES)
@pytest.mark.parametrize("scheme", ["exact", "euler_maruyama"])
def test_a_linear_network_learns_the_optimal_score(losses, scheme):
    n, process = 800, chain(scheme=scheme)
    model, oracle = make(Waves(process), process, losses=losses, jitter=False), exact(process)
    _slopes, fit = least_squares(model, {"u0": fields(n)}, lambda: InTurn(range(n), 0))
    both = losses != "backward"
    for k in range(1, K + 1):
        t, s = process.times[[k]], process.times[[k - 1]]
        alone = losses == "backward" or (k == K and losses == "both")
        optimum = optimal_score(oracle, t, s, 0.5 if both else 1.0, both=not alone)[0]
        q2, v, lacking = process.step_std(s, t)[0] ** 2, oracle.variance(t)[0], correction(oracle, t, s)[0]
        unknown = oracle.variance(s)[0] * q2 / v
        noise = unknown if alone else (unknown + (q2 + lacking**2 * v if losses == "both" else 0)) / 4
        error = (noise / (v * n / K)).sqrt() / ((0.5 if both else 1.0) * q2)
        varies = (unknown > 0).expand_as(error)
        z = ((fit[k] / model.unit - optimum) / error)[varies]
        assert z.abs().max() < 5
        assert z.square().mean().item() == pytest.approx(1, abs=6 * math.sqrt(2 / len(z)))


def test_the_loss_forward_alone_teaches_level_0_to_say_nothing():
    n, process = 1600, chain()
    model = make(Waves(process), process, losses="both", jitter=False)
    _, fit = least_squares(model, {"u0": fields(n)}, lambda: InTurn(range(n), 0))
    q2 = process.step_std(process.times[[0]], process.times[[1]])[0] ** 2
    varies = exact(process).spectrum > 0
    error = (q2 / (exact(process).spectrum * n / K)).sqrt() / (0.5 * q2)
    assert ((fit[0] / model.unit / error)[varies]).abs().max() < 5


def test_both_is_half_of_the_factor_and_so_the_same_network():
    oracle = exact(chain())
    t, s = oracle.process.times[[3]], oracle.process.times[[2]]
    once, both = optimal_score(oracle, t, s), optimal_score(oracle, t, s, 0.5, both=True)
    assert_close(once, both, atol=0, rtol=1e-12)


def test_the_loss_of_a_longer_window_is_flat_at_the_same_network():
    n, process = 600, chain()
    best, z = Averages(process).net.weights, []
    for factor in (1.0, 0.8):
        weights = (factor * best).expand(n, -1, -1, -1, -1).clone().requires_grad_()  # each sample's own, for its slope
        net = lambda u, k, cond, w=weights: process.basis.inverse(w[range(n), k.round().long()] * process.basis(u))  # noqa: E731
        model = make(net, process, window_start=K, jitter=False)
        model._trainer = SimpleNamespace(global_step=0)
        loss = model.loss({"u0": fields(n)}, SampleNoise(range(n), 0)).sum()
        slopes = torch.autograd.grad(loss, weights)[0][:, 1:, exact(process).spectrum > 0]
        z.append(slopes.mean(0) / slopes.std(0) * math.sqrt(n))
    assert z[0].abs().max() < 5 and z[0].square().mean() < 1.5
    assert z[1].square().mean() > 5


@pytest.mark.parametrize("losses", LOSSES)
def test_every_level_is_trained_and_the_field_itself_is_a_target(losses):
    process = chain()
    model = make(Waves(process), process, losses=losses, jitter=False)
    batch = {"u0": fields(K)}
    model.net.weights = torch.ones_like(model.net.weights).requires_grad_()
    values = model.loss(batch, InTurn(range(K), 0))
    for first, value in enumerate(values):
        slope = torch.autograd.grad(value, model.net.weights, retain_graph=True)[0]
        reached = slope.abs().amax((1, 2, 3)) > 0
        expected = {first + 1} | ({first} if losses == "both" else set())
        assert set(reached.nonzero().flatten().tolist()) == expected
    states = model.trajectory(batch["u0"], 1, InTurn(range(K), 0))[1]
    assert_close(states[0][0], batch["u0"][0], atol=1e-12, rtol=0)
    others = model.loss({"u0": torch.cat([batch["u0"][:1] + 1, batch["u0"][1:]])}, InTurn(range(K), 0))
    assert others[0] != values[0] and torch.allclose(others[1:], values[1:], atol=1e-12)


def test_waves_that_the_map_does_not_disturb_are_not_corrected():
    process = Heat(SHAPE, K, 0.1)  # the mean has no noise of its own after level 1
    model, u = make(process=process), fields(1)
    step = process.basis(model.physics_step(u, process.times[[3]], process.times[[2]], 1.0))
    assert step[0, 0, 0, 0].item() == pytest.approx(process.basis(u)[0, 0, 0, 0].item(), abs=1e-12)
    plain = process.basis(make(silent, process).physics_step(u, process.times[[3]], process.times[[2]], 1.0))
    assert (step - plain).flatten()[1:].abs().max() > 1e-3


def test_a_wrong_value_is_refused_by_key_and_fix():
    with pytest.raises(ConfigError, match=r"model\.losses.*did you mean backward"):
        make(losses="backwards")
    for inputs in (0, 3):
        with pytest.raises(ConfigError, match=r"model\.inputs"):
            make(inputs=inputs)


# from the command line ---------------------------------------------------------------------------------------------------


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
def test_a_training_can_be_sampled_as_sde_or_as_ode(tmp_path, refused):
    folder = tmp_path / "runs" / "own"
    assert call("train", "model=smdp", *SMALL_FIELDS, "model.inputs=2", f"hydra.run.dir={folder}") == 0
    model, _, cfg = load(folder)
    assert model.inputs == 2 and cfg.sampler["_target_"].endswith("sde.sde") and model.process.name == "stochastic_heat"
    drawn = []
    for sampler, name in ([], "delta_own_seed_0"), (["sampler=ode"], "delta_own_seed_0_ode"):
        assert call("sample", f"run={folder}", "n=2", "trainer.accelerator=cpu", *sampler) == 0
        drawn.append(torch.load(folder / "samples" / name / "samples.pt", weights_only=True)["samples"])
        assert drawn[-1].shape == (2, 1, 8, 8) and drawn[-1].isfinite().all()
    assert not torch.isclose(*drawn).all()
    sentence = refused("sample", f"run={folder}", "n=2", "sampler=heun", "trainer.accelerator=cpu")
    assert "sampler=heun needs denoise" in sentence and "use sampler=ancestral or ode" in sentence


def test_a_sampler_that_does_not_suit_a_model_is_refused_before_training(refused):
    sentence = refused("train", "model=ihd", "sampler=sde", *SMALL_FIELDS[:5], "trainer.accelerator=cpu")
    assert "sampler=sde needs score" in sentence and "model=ihd" in sentence and "use sampler=ancestral" in sentence
