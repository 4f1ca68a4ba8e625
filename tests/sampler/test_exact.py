"""sampler=exact and the exact model in sampler=ancestral: the posterior, at once or in any number of levels."""

import math

import pytest
import torch
from gaussian_toys import end_law, exact_model, gaussian, normal
from torch.testing import assert_close

from heatgen.check import ConfigError
from heatgen.forward.constant_velocity import ConstantVelocity
from heatgen.forward.heat import Heat
from heatgen.forward.random_matrix import RandomMatrix
from heatgen.forward.stochastic_heat import StochasticHeat
from heatgen.forward.variance_exploding import VarianceExploding
from heatgen.sampler.ancestral import ancestral
from heatgen.sampler.exact import exact

SHAPE = (1, 8, 8)
MAPS = {
    "stochastic_heat": lambda levels: (StochasticHeat(SHAPE, levels), "periodic"),
    "euler_maruyama": lambda levels: (StochasticHeat(SHAPE, levels, scheme="euler_maruyama", euler_steps=16), "periodic"),
    "heat": lambda levels: (Heat(SHAPE, max(levels, 2), sigma=0.1, sigma_max=2.0), "neumann"),
    "constant_velocity": lambda levels: (ConstantVelocity(SHAPE, levels, sigma=0.2), "periodic"),
    "variance_exploding": lambda levels: (VarianceExploding(SHAPE, max(levels, 2), sigma_max=3.0), "neumann"),
}


def make(name, levels=4):
    process, boundary = MAPS[name](levels)
    return exact_model(process, gaussian(SHAPE, boundary, mean=0.5))


def fields(n=2, shape=SHAPE):
    return torch.randn(n, *shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


@pytest.mark.parametrize("name", MAPS)
@pytest.mark.parametrize("levels", [1, 2, 7])
def test_ancestral_steps_of_the_exact_model_are_exact_however_long_they_are(name, levels):
    model = make(name, levels)
    oracle, times = model.exactly, model.process.times
    gain, noise = end_law(ancestral, model, times, len(times) - 1)
    end, v = times[-1:], oracle.variance(times[-1:])[0]
    for k in range(len(times) - 1):
        marginal = oracle.variance(times[k : k + 1])[0].expand(SHAPE)
        assert_close(gain[k] ** 2 * v + noise[k], marginal, atol=1e-9, rtol=1e-7)
    posterior = (oracle.gain(end) * oracle.spectrum / v)[0]
    assert_close(gain[0], posterior.expand(SHAPE), atol=1e-9, rtol=1e-7)
    assert_close(noise[0], oracle.posterior_variance(end)[0].expand(SHAPE), atol=1e-9, rtol=1e-7)


def test_without_noise_the_ancestral_steps_end_in_the_posterior_mean():
    model = make("stochastic_heat", 7)
    u, times = fields(), model.process.times
    out = ancestral(model, u, times, stochastic=False)
    assert_close(out, model.exactly.posterior_mean(u, times[-1:]), atol=1e-9, rtol=0)
    assert torch.equal(out, ancestral(model, u, times, normal(3), stochastic=False))
    assert not torch.isclose(out, ancestral(model, u, times, normal(3))).any()


def test_ancestral_steps_need_a_map_with_coefficients_and_the_exact_sampler_does_not():
    for process in (Heat(SHAPE, 4, sigma=0.1), RandomMatrix(SHAPE, 4, sigma=0.1)):
        model = exact_model(process, mean=0.5)
        with pytest.raises(ConfigError, match=f"forward={process.name}.*; use"):
            ancestral(model, fields(), process.times)
        assert exact(model, fields(), process.times, normal(2)).shape == (2, *SHAPE)


@pytest.mark.parametrize("name", ["stochastic_heat", "heat"])
def test_draws_have_the_moments_of_the_posterior(name):
    model, n = make(name), 3000
    oracle, end, u = model.exactly, model.process.times[-1:], fields(1)
    draws = exact(model, u.expand(n, *SHAPE), model.process.times, normal(4))
    z = oracle.standardise(draws, u.expand(n, *SHAPE), end)
    assert (z.mean(0) * math.sqrt(n)).abs().max() < 4.5
    assert ((z.square().mean(0) - 1) / math.sqrt(2 / n)).abs().max() < 4.8


def test_the_mean_and_the_flow_are_those_of_the_oracle():
    model, u = make("stochastic_heat"), fields()
    oracle, times = model.exactly, model.process.times
    a, v = oracle.gain(times[-1:]), oracle.variance(times[-1:])
    mean = oracle.basis.inverse(oracle.spectrum * a / v * oracle.basis(u))
    flow = oracle.basis.inverse((oracle.spectrum / v).sqrt() * oracle.basis(u))
    assert_close(exact(model, u, times, answer="mean"), mean, atol=1e-11, rtol=0)
    assert_close(exact(model, u, times, answer="flow"), flow, atol=1e-11, rtol=0)
    with pytest.raises(ConfigError, match=r"sampler\.answer must be one of .*sample"):
        exact(model, u, times, answer="median")


def test_a_model_that_knows_of_white_noise_answers_for_it():
    model, u = make("stochastic_heat"), fields()
    oracle, times = model.exactly, model.process.times
    a = oracle.gain(times[-1:])
    mean = oracle.basis.inverse(oracle.spectrum * a / (oracle.spectrum * a**2 + 0.03**2) * oracle.basis(u))
    informed = model.observed(0.03)
    assert_close(exact(informed, u, times, answer="mean"), mean, atol=1e-11, rtol=0)
    assert_close(
        exact(informed, u, times, normal(2)), oracle.posterior_sample(u, times[-1:], normal(2), 0.03), atol=0, rtol=0
    )
    assert not torch.isclose(exact(model, u, times, answer="mean"), mean).all()


def test_without_a_generator_the_draws_follow_the_seed_of_the_model():
    model, u = make("stochastic_heat"), fields()
    times = model.process.times
    assert torch.equal(exact(model, u, times), exact(model, u, times))
    assert not torch.isclose(exact(model, u, times), exact(model, u, times, normal(9))).any()
