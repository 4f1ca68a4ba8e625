"""Which parametrisation a map gets and why, and the target of the loss for every map that is shipped."""

import math
from types import SimpleNamespace

import pytest
import torch
from conftest import FORWARDS, shipped_map
from torch.testing import assert_close

from heatgen.check import ConfigError
from heatgen.forward.constant_velocity import ConstantVelocity
from heatgen.forward.levels import uniform
from heatgen.forward.polynomial import Polynomial
from heatgen.forward.process import TYPICAL_STD, ObservedProcess
from heatgen.forward.random_velocity import RandomVelocity
from heatgen.model.ihd import IHD
from heatgen.model.parametrisation import has_one_ratio, untrained_errors
from heatgen.noise import SampleNoise
from heatgen.sampler.ancestral import ancestral

SHAPE = (1, 8, 12)
SIZE = math.prod(SHAPE)
K = 6
CHOSEN = {  # of 8 x 8 images in 100 levels, for maps of each kind
    "blurring": "x0",  # the noise of the last levels is 16 times the image's own deviation, squared
    "constant_deceleration": "residual",  # fine steps: the ratio would only multiply the noise
    "constant_velocity": "residual",
    "heat": "residual",
    "heat_kernel": "x0",  # noise of up to 4 times the image
    "stochastic_heat": "residual",  # not a number
    "identity": "residual",  # all ratios are 1, and the first of equals is taken
    "neumann_heat": "residual",
    "kinematics": "ratio",  # the ratio is 1, and unlike the residual it knows b(t)
    "polynomial": "ratio",  # ratios below 1 on the way there, above 1 on the way back
    "random_basis_heat": "residual",
    "random_matrix": "x0",  # neighbouring levels have nothing in common
    "random_product": "x0",
    "student_t": "x0",
    "variance_exploding": "x0",  # noise of up to 80 times the image
}


def silent(u, k, cond):
    return torch.zeros_like(u)


def make(process, net=silent, **settings):
    return IHD(process, net, ancestral, None, **settings)


class Falling(ObservedProcess):
    """u_t = (1 - t / 2) u_0 + t^2 + sigma eps."""

    def gain(self, t):
        return 1 - self.column(t) / 2

    def offset(self, t):
        return self.column(t) ** 2


def normal(batch, seed=0, shape=SHAPE):
    return torch.randn(batch, *shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def levels(k, eps=None, velocity=None):
    """Noise that draws the levels k, then eps, and velocities where the map is random."""
    zeros = lambda u: torch.zeros_like(u) if eps is None else eps  # noqa: E731
    uniform = lambda *shape: torch.full((len(k), *shape), 0.5) if velocity is None else velocity  # noqa: E731
    ones = lambda *shape: torch.ones(len(k), *shape)  # noqa: E731
    return SimpleNamespace(integers=lambda low, high: k, normal_like=zeros, uniform=uniform, normal=ones)


# the errors of a network that says 0 -------------------------------------------------------------------------------------


@pytest.mark.parametrize("forward", FORWARDS)
def test_the_errors_before_training_are_those_of_white_images(forward):
    n, process = 1500, shipped_map(forward, SHAPE, K)
    expected = untrained_errors(process)
    assert set(expected) == {"residual", "x0"} | ({"ratio"} if has_one_ratio(process) else set())
    for name in expected:
        model = make(process, parametrisation=name)
        means, variances = [], []
        for k in range(1, K + 1):
            u0, t, s = TYPICAL_STD * normal(n, k), process.times[[k] * n], process.times[[k - 1] * n]
            target = process.mean(u0, s)
            errors = (target - model.reverse_mean(process.perturb(u0, t, normal(n, 100 + k)), t, s)).square().sum((1, 2, 3))
            means.append(errors.mean())
            variances.append(errors.var() / n)
        error = torch.stack(variances).sum().sqrt() / K
        assert abs(torch.stack(means).mean() - expected[name]) < 4 * error, name


def test_the_errors_of_constant_velocity_have_closed_forms():
    sigma, steps = 0.05, torch.arange(1, K + 1).double()
    after = 1 - steps / K
    before = after + 1 / K
    ratios = before[:-1] / after[:-1]
    expected = {
        "residual": TYPICAL_STD**2 / K**2 + sigma**2,
        "ratio": (ratios.square().sum().item() * sigma**2 + TYPICAL_STD**2 / K**2) / K,
        "x0": TYPICAL_STD**2 * before.square().mean().item(),
    }
    errors = untrained_errors(ConstantVelocity(SHAPE, K, sigma))
    assert errors == pytest.approx({name: SIZE * value for name, value in expected.items()}, rel=1e-12)


# auto --------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("forward", FORWARDS)
def test_auto_takes_the_parametrisation_that_starts_nearest_to_the_target(forward):
    process = shipped_map(forward, (1, 8, 8), 100)
    model, errors = make(process), untrained_errors(process)
    assert model.chosen == {"parametrisation": model.parametrisation} and errors[model.parametrisation] == min(
        errors.values()
    )
    assert model.parametrisation == CHOSEN.get(forward, model.parametrisation)


@pytest.mark.parametrize(("num_levels", "chosen"), [(20, "ratio"), (60, "ratio"), (62, "residual"), (100, "residual")])
def test_constant_velocity_is_scaled_where_its_steps_are_coarse(num_levels, chosen):
    steps = torch.arange(1, num_levels).double()
    amplified = 0.01**2 * (((steps + 1) / steps).square() - 1).sum()  # of the noise, over all levels but K
    moved = TYPICAL_STD**2 * (1 / num_levels - 1 / num_levels**2) + 0.01**2
    assert chosen == ("ratio" if amplified < moved else "residual")
    assert make(ConstantVelocity(SHAPE, num_levels)).parametrisation == chosen


@pytest.mark.parametrize("num_levels", [10, 100])
def test_a_random_map_with_a_condition_is_not_scaled_by_a_ratio_without_bound(num_levels):
    model, n = make(RandomVelocity((1, 8, 8), num_levels)), 4000
    losses = model.loss({"u0": TYPICAL_STD * normal(n, shape=(1, 8, 8))}, SampleNoise(range(n), 0))
    assert losses.max() < 2 * (TYPICAL_STD**2 * 64 * 2)  # A(s) <= 1: no target is farther away than the image is long
    assert model.chosen["parametrisation"] != "ratio"


@pytest.mark.parametrize("wanted", ["residual", "x0", "ratio", "direct"])
def test_a_given_parametrisation_is_not_chosen(wanted):
    model = make(ConstantVelocity(SHAPE, K), parametrisation=wanted)
    assert model.parametrisation == wanted and model.chosen == {}


def test_a_hidden_map_gets_the_residual_although_x0_would_start_nearer():
    model = make(RandomVelocity(SHAPE, 1, conditional=False))
    errors = untrained_errors(model.process)
    assert errors["x0"] < errors["residual"]
    assert model.parametrisation == model.chosen["parametrisation"] == "residual"


@pytest.mark.parametrize("wanted", ["x0", "ratio"])
def test_a_hidden_map_refuses_what_would_use_it(wanted):
    with pytest.raises(ConfigError, match=rf"model\.parametrisation={wanted}.*forward\.conditional=false.*use residual"):
        make(RandomVelocity(SHAPE, K, conditional=False), parametrisation=wanted)


def test_a_map_without_one_number_refuses_the_ratio():
    for process in (shipped_map(forward, SHAPE, K) for forward in FORWARDS):
        if not has_one_ratio(process):
            with pytest.raises(ConfigError, match=rf"model\.parametrisation=ratio .*forward={process.name}"):
                make(process, parametrisation="ratio")


# the means ---------------------------------------------------------------------------------------------------------------


def test_the_ratio_undoes_the_map_around_its_offset_and_keeps_nothing_of_a_state_without_image():
    u, k = normal(3), torch.tensor([1, 4, K])
    net = lambda u, k, cond: 0.1 * u  # noqa: E731
    process = ConstantVelocity(SHAPE, K)
    mean = make(process, net, parametrisation="ratio").reverse_mean(u, process.times[k], process.times[k - 1])
    ratios = torch.tensor([6 / 5, 3 / 2, 0], dtype=torch.float64).reshape(-1, 1, 1, 1)
    assert_close(mean, (ratios + 0.1) * u, atol=1e-12, rtol=0)

    falling = Falling(SHAPE, uniform(K), sigma=0.1)
    t, s = falling.times[k], falling.times[k - 1]
    mean = make(falling, net, parametrisation="ratio").reverse_mean(u, t, s)
    ratios, ends = falling.gain(s) / falling.gain(t), (falling.offset(s), falling.offset(t))
    assert_close(mean, ends[0] + ratios * (u - ends[1]) + 0.1 * u, atol=1e-12, rtol=0)


def test_the_ratio_of_a_map_that_changes_sign_is_negative():
    process, u = Polynomial(SHAPE, 4, velocity=-3.0, acceleration=2.0), normal(1)  # A = 1 - 3t + t^2, 0.3125 then -0.25
    mean = make(process, parametrisation="ratio").reverse_mean(u, process.times[2:3], process.times[1:2])
    assert_close(mean, u * 0.3125 / -0.25, atol=1e-12, rtol=0)


# the target, for every map -----------------------------------------------------------------------------------------------


def test_the_last_step_back_is_trained_on_the_clean_image():
    for process in (shipped_map(forward, SHAPE, K) for forward in FORWARDS):
        u0 = normal(4)
        model = make(process, lambda u, k, cond, u0=u0: u0, parametrisation="direct")
        losses = model.loss({"u0": u0}, levels(torch.ones(4, dtype=torch.long), normal(4, 1)))
        assert_close(losses, torch.zeros(4, dtype=torch.float64), atol=1e-20, rtol=0, msg=process.name)


@pytest.mark.parametrize("forward", FORWARDS)
def test_the_target_of_a_step_is_the_state_that_the_step_before_starts_from(forward):
    inputs, u0 = {}, normal(1)
    seen = lambda u, k, cond: inputs.update({int(k.round()): u}) or torch.zeros_like(u)  # noqa: E731
    model = make(shipped_map(forward, SHAPE, K), seen, parametrisation="direct")
    squares = {k: model.loss({"u0": u0}, levels(torch.tensor([k]))) for k in range(1, K + 1)}
    assert set(inputs) == set(range(1, K + 1))  # without noise the input is the mean itself
    for k in range(2, K + 1):
        assert_close(squares[k], inputs[k - 1].square().sum((1, 2, 3)), atol=1e-12, rtol=1e-12)


@pytest.mark.parametrize("forward", FORWARDS)
def test_input_and_target_never_share_storage_and_the_batch_stays_as_it_was(forward, monkeypatch):
    process, kept, inputs, u0 = shipped_map(forward, SHAPE, K), [], [], normal(12).float()
    before, mean = u0.clone(), type(process).mean
    monkeypatch.setattr(type(process), "mean", lambda self, u, t: kept.append(mean(self, u, t)) or kept[-1])
    net = lambda u, k, cond: inputs.append(u) or torch.zeros_like(u)  # noqa: E731
    for parametrisation in ("auto", "direct"):
        kept.clear(), inputs.clear()
        make(process, net, parametrisation=parametrisation).loss({"u0": u0}, SampleNoise(range(12), 0))
        tensors = [u0, *inputs, *kept]
        assert len(inputs) == 1 and len(kept) >= 2
        assert len({tensor.untyped_storage().data_ptr() for tensor in tensors}) == len(tensors)
        assert torch.equal(u0, before)


# random maps -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("per", ["sample", "batch", "step"])
def test_a_conditional_network_learns_with_the_map_of_its_own_sample(per):
    n, sigma, seen, u0 = 200, 0.01, [], 1 + normal(200).square()
    net = lambda u, k, cond: seen.append((u, k, cond)) or torch.zeros_like(u)  # noqa: E731
    process = RandomVelocity(SHAPE, K, sigma, per=per)
    losses = make(process, net, parametrisation="direct").loss({"u0": u0}, SampleNoise(range(n), 0))
    ((u, k, cond),) = seen
    assert cond.shape == (n, 2)
    ends = torch.stack([k, k - 1], dim=1) / K
    lowest, highest = (1 - 2 * ends).clamp(min=0), (1 - ends).clamp(min=0)
    assert ((cond >= lowest - 1e-12) & (cond <= highest + 1e-12)).all()
    after, before = (column.reshape(-1, 1, 1, 1) for column in cond.unbind(1))
    assert_close(losses, (before * u0).square().sum((1, 2, 3)), atol=0, rtol=1e-9)
    assert (u - after * u0).std().item() == pytest.approx(sigma, rel=0.05)
    whole = (cond[:, 0] > 0) & (k > 1)
    velocities = (1 - cond) / ends
    assert whole.sum() > 20
    assert torch.allclose(velocities[whole, 0], velocities[whole, 1]) == (per != "step")
    assert (velocities[whole, 0].std() < 1e-9) == (per == "batch")


def test_a_network_without_a_condition_sees_no_map():
    seen = []
    net = lambda u, k, cond: seen.append(cond) or torch.zeros_like(u)  # noqa: E731
    make(RandomVelocity(SHAPE, K, conditional=False), net).loss({"u0": normal(3)}, SampleNoise(range(3), 0))
    assert seen == [None]


def test_a_bound_model_shares_the_weights_and_leaves_the_model_as_it_was():
    net = torch.nn.Conv2d(1, 1, 1)
    model = make(RandomVelocity(SHAPE, K), net, parametrisation="direct")
    drawn = model.bound(SampleNoise(range(5), 0))
    assert drawn.net is net and drawn.process.velocity.shape == (5, 1)
    assert model.process.velocity.tolist() == [[1.5]] and drawn.process is not model.process
    with torch.no_grad():
        net.weight.fill_(3.0)
    assert drawn.net.weight.item() == 3.0
    assert list(map(id, drawn.parameters())) == list(map(id, model.parameters()))
    assert set(model.state_dict()) == {"net.weight", "net.bias"}


def test_a_model_of_a_map_without_randomness_is_its_own_draw():
    model = make(ConstantVelocity(SHAPE, K))
    assert model.bound(SampleNoise(range(5), 0)) is model


def test_a_network_of_neural_processes_is_refused():
    class Frames(torch.nn.Module):
        def represent(self): ...

    with pytest.raises(ConfigError, match=r"use model=np"):
        IHD(shipped_map("heat", (1, 4, 4), 3), Frames(), ancestral, None)
