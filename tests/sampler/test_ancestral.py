"""sampler=ancestral against a linear Gaussian model whose variances are known, and the noise that draw.py feeds it."""

import math
from types import SimpleNamespace

import pytest
import torch
from torch.testing import assert_close

from heatgen.app.draw import interpolated_states, random_states
from heatgen.check import ConfigError
from heatgen.forward.heat import Heat
from heatgen.forward.random_velocity import RandomVelocity
from heatgen.model.ihd import IHD
from heatgen.noise import SampleNoise, SharedNoise
from heatgen.sampler.ancestral import ancestral

SHAPE = (1, 3, 4)
K = 5
CPU = torch.device("cpu")
LEVELS = torch.arange(K + 1).double()
FACTORS = torch.linspace(0.4, 1.1, 12).double().reshape(SHAPE)


def linear(delta, factors=FACTORS):
    """p(u_{k-1} | u_k) = N(a u_k, delta^2) for each pixel."""
    return SimpleNamespace(
        reverse_mean=lambda u, t, s: factors * u, reverse_noise=lambda eps, t, s: delta * eps, noise_last_step=False
    )


def gaussian(n, seed=0):
    return torch.randn(n, *SHAPE, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def trained():
    """An inverse heat model with an odd, nonlinear net."""
    return IHD(
        Heat(SHAPE, K, sigma=0.1), lambda x, k, cond: torch.tanh(2 * x + 0.3 * k.reshape(-1, 1, 1, 1)), ancestral, None
    )


def conditional():
    """A model of a random map whose net sees T at both ends of its step."""
    net = lambda x, k, cond: torch.tanh(x + cond[:, :1, None, None] - 2 * cond[:, 1:, None, None])  # noqa: E731
    return IHD(RandomVelocity(SHAPE, K, sigma=0.1), net, ancestral, None, parametrisation="direct")


def data():
    images = torch.rand(50, *SHAPE, generator=torch.Generator().manual_seed(2))
    return SimpleNamespace(states=None, prior_images=lambda samples, seed: torch.stack([images[i + seed] for i in samples]))


def samples_of(states, samples):
    model, u_last, noise = states(samples)
    return u_last, model.generate(u_last, noise)


@pytest.mark.parametrize("delta", [0.0, 0.3, 1.0])
def test_the_variance_of_every_mode_follows_its_recursion(delta):
    n, states, variance = 8000, {}, torch.full(SHAPE, 4.0, dtype=torch.float64)
    torch.manual_seed(11)
    out = ancestral(linear(delta), 2 * gaussian(n), LEVELS, on_step=lambda k, u: states.update({k: u}))
    for k in range(K - 1, -1, -1):
        variance = FACTORS**2 * variance + (delta**2 if k else 0)
        assert ((states[k].var(0) - variance).abs() < 4 * variance * math.sqrt(2 / n)).all()
    assert torch.equal(out, states[0])


def test_the_noise_of_a_long_chain_settles_at_its_stationary_variance():
    n, spread, sigma, delta = 20000, 0.5, 0.8, 1.25 * 0.8
    a, states = spread**2 / (spread**2 + sigma**2), {}
    torch.manual_seed(11)
    model = linear(delta, torch.tensor(a).double())
    ancestral(model, 3 * gaussian(n)[:, :, :1, :1], torch.arange(30).double(), on_step=lambda k, u: states.update({k: u}))
    ratio = delta**2 / ((1 - a**2) * (spread**2 + sigma**2))
    assert (states[1].var() / (spread**2 + sigma**2)).item() == pytest.approx(ratio, abs=4 * ratio * math.sqrt(2 / n))


def test_noise_of_the_posterior_variance_reproduces_every_marginal():
    n, sigma, spread = 8000, 0.2, torch.linspace(0.1, 2, 12).double().reshape(SHAPE)
    rates, levels = torch.linspace(0, 1.5, 12).double().reshape(SHAPE), torch.linspace(0, 1, K + 1).double()
    decay = (-rates * levels.reshape(-1, 1, 1, 1)).exp()
    marginal, states = decay**2 * spread**2 + sigma**2, {}

    def index(t):
        return (t * K).round().long()

    model = SimpleNamespace(
        noise_last_step=False,
        reverse_mean=lambda u, t, s: decay[index(s)] * decay[index(t)] * spread**2 / marginal[index(t)] * u,
        reverse_noise=lambda eps, t, s: (
            (sigma**2 + decay[index(s)] ** 2 * spread**2 * sigma**2 / marginal[index(t)]).sqrt() * eps
        ),
    )
    torch.manual_seed(11)
    start = marginal[K].sqrt() * gaussian(n)
    ancestral(model, start, levels, on_step=lambda k, u: states.update({k: u}))
    for k in range(K - 1, 0, -1):
        assert ((states[k].var(0) - marginal[k]).abs() < 4 * marginal[k] * math.sqrt(2 / n)).all()


def test_without_noise_a_sample_is_the_product_of_its_means():
    u = gaussian(3)
    out = ancestral(linear(0.0), u, LEVELS)
    assert_close(out, FACTORS**K * u, atol=1e-14, rtol=0)
    assert torch.equal(out, ancestral(linear(0.0), u, LEVELS, rng=SampleNoise(range(3), 9)))


def test_each_step_adds_fresh_noise_of_the_generator_but_the_last_none():
    u, drawn = gaussian(3), []
    noise = SimpleNamespace(normal_like=lambda x: drawn.append(gaussian(3, seed=len(drawn) + 1)) or drawn[-1])
    out = ancestral(linear(0.7), u, LEVELS, rng=noise)
    assert len(drawn) == K - 1
    for eps in drawn:
        u = FACTORS * u + 0.7 * eps
    assert_close(out, FACTORS * u, atol=1e-14, rtol=0)


def test_the_model_is_asked_for_neighbouring_levels_for_every_item():
    asked, levels = [], torch.tensor([0.0, 0.1, 0.5, 2.0])
    model = SimpleNamespace(
        noise_last_step=False,
        reverse_mean=lambda u, t, s: asked.append(("mean", t.tolist(), s.tolist())) or u,
        reverse_noise=lambda eps, t, s: asked.append(("noise", t.tolist(), s.tolist())) or 0 * eps,
    )
    ancestral(model, gaussian(2), levels)
    pairs = [(levels[k].item(), levels[k - 1].item()) for k in (3, 2, 1)]
    expected = [(word, [t] * 2, [s] * 2) for t, s in pairs for word in ("mean", "noise")]
    assert asked == expected[:-1]


def test_every_state_on_the_way_is_shown_and_the_last_one_returned():
    shown = []
    out = ancestral(linear(0.5), gaussian(2), LEVELS, on_step=lambda k, u: shown.append((k, u)))
    assert [k for k, _ in shown] == [4, 3, 2, 1, 0]
    assert torch.equal(shown[-1][1], out)
    assert_close(out, FACTORS * shown[-2][1], atol=0, rtol=0)


def test_the_state_it_starts_from_is_not_changed():
    u = gaussian(2)
    before = u.clone()
    ancestral(linear(0.5), u, LEVELS)
    assert torch.equal(u, before)


def test_a_sample_is_the_same_in_any_batch():
    states = random_states(trained(), data(), CPU, 3, same_init=False, share_noise=False)
    initial, whole = samples_of(states, range(6))
    for samples in ([4], [5, 0], [2, 3, 1]):
        u_last, out = samples_of(states, samples)
        assert_close(u_last, initial[samples], atol=1e-6, rtol=0)
        assert_close(out, whole[samples], atol=1e-5, rtol=0)
    assert not torch.isclose(whole[0], whole[1]).any()


def test_one_start_and_one_noise_give_one_sample():
    model = trained()
    _, out = samples_of(random_states(model, data(), CPU, 3, same_init=True, share_noise=True), range(4))
    assert_close(out, out[:1].expand_as(out), atol=1e-6, rtol=0)
    _, again = samples_of(random_states(model, data(), CPU, 3, same_init=True, share_noise=True), [7])
    assert_close(again, out[:1], atol=1e-6, rtol=0)


def test_one_start_with_its_own_noise_gives_different_samples():
    model = trained()
    u_last, out = samples_of(random_states(model, data(), CPU, 3, same_init=True, share_noise=False), range(3))
    assert_close(u_last, u_last[:1].expand_as(u_last), atol=1e-6, rtol=0)
    assert not torch.isclose(out[0], out[1]).any()


def test_shared_noise_keeps_the_difference_of_two_linear_chains():
    u = gaussian(2)
    out = ancestral(linear(0.9), u, LEVELS, rng=SharedNoise(0))
    assert_close(out[0] - out[1], FACTORS**K * (u[0] - u[1]), atol=1e-14, rtol=0)


@pytest.mark.parametrize("points", [2, 5])
def test_an_interpolation_runs_from_one_random_sample_to_the_next(points):
    model = trained()
    ends, chains = samples_of(random_states(model, data(), CPU, 3, same_init=False, share_noise=False), [0, 1])
    u_last, out = samples_of(interpolated_states(model, data(), CPU, 3, points), range(points))
    assert_close(out[[0, -1]], chains, atol=1e-4, rtol=0)
    weights = torch.linspace(1, 0, points).reshape(-1, 1, 1, 1)
    assert_close(u_last, weights * ends[0] + (1 - weights) * ends[1], atol=1e-6, rtol=0)


def test_an_interpolation_is_the_same_in_any_batch():
    model = trained()
    states = interpolated_states(model, data(), CPU, 3, 5)
    _, whole = samples_of(states, range(5))
    parts = torch.cat([samples_of(states, part)[1] for part in ([0, 1], [2], [3, 4])])
    assert_close(parts, whole, atol=1e-5, rtol=0)


def test_a_random_map_is_drawn_anew_for_each_sample_and_the_same_in_any_batch():
    states = random_states(conditional(), data(), CPU, 3, same_init=False, share_noise=False)
    velocity = states(range(6))[0].process.velocity
    assert velocity.unique().numel() == 6 and ((velocity >= 1) & (velocity < 2)).all()
    _, whole = samples_of(states, range(6))
    for samples in ([4], [5, 0]):
        assert torch.equal(states(samples)[0].process.velocity, velocity[samples])
        assert_close(samples_of(states, samples)[1], whole[samples], atol=1e-5, rtol=0)


def test_samples_that_start_alike_share_their_random_map_and_not_their_noise():
    model, u_last, _ = random_states(conditional(), data(), CPU, 3, same_init=True, share_noise=False)(range(4))
    assert model.process.velocity.unique().numel() == 1
    assert_close(u_last, u_last[:1].expand_as(u_last), atol=1e-6, rtol=0)
    apart, _, _ = random_states(conditional(), data(), CPU, 3, same_init=False, share_noise=True)(range(4))
    assert apart.process.velocity.unique().numel() == 4


def test_there_is_no_map_between_two_random_ones():
    with pytest.raises(ConfigError, match=r"interpolate=true.*forward=random_velocity"):
        interpolated_states(conditional(), data(), CPU, 3, 5)
