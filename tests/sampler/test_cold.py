"""sampler=cold: Algorithm 2 of Cold Diffusion beside Heun's sampler of order 1, and what it refuses."""

import pytest
import torch
from gaussian_toys import exact_model, gaussian, normal
from torch.testing import assert_close

from heatgen.check import ConfigError
from heatgen.forward.heat import Heat
from heatgen.forward.kinematics import Kinematics
from heatgen.forward.random_matrix import RandomMatrix
from heatgen.forward.stochastic_heat import StochasticHeat
from heatgen.sampler.cold import cold
from heatgen.sampler.heun import heun

SHAPE = (1, 8, 8)
MAPS = [Heat(SHAPE, 6, sigma=0.02), RandomMatrix(SHAPE, 3, sigma=0.3)]


def path(sampler, model, u, **options):
    states = {}
    sampler(model, u, model.process.times, None, lambda k, state: states.update({k: state}), **options)
    return states


@pytest.mark.parametrize("process", MAPS, ids=lambda process: process.name)
def test_its_states_are_those_of_heun_with_order_1_to_the_last_bit_but_at_the_end(process):
    model = exact_model(process, gaussian(SHAPE, "neumann", mean=0.5))
    u = normal(1).normal_like(torch.zeros(2, *SHAPE).double())
    own, other = path(cold, model, u), path(heun, model, u, order=1)
    assert all(torch.equal(own[k], other[k]) for k in range(1, process.num_levels))
    v, t = model.denoise(own[1], process.times[1:2]), process.times[1:2]
    assert_close(other[0], v, atol=1e-9, rtol=0)
    assert_close(own[0], own[1] - process.mean(v, t) + v, atol=1e-12, rtol=0)
    assert (own[0] - other[0]).abs().max() > 1e-4


def test_a_degradation_that_is_linear_in_t_is_undone_whatever_the_estimate_is():
    """With u_t = u_0 + t e, A v - v is t times a constant for any v, so that every state is u_0 + s e: section 3.3."""
    process = Kinematics(SHAPE, 5, sigma=0.0, velocity=0.7, acceleration=0.0)
    model = exact_model(process, mean=0.5)
    fixed = normal(3).normal_like(torch.zeros(1, *SHAPE).double())
    model.denoise = lambda u, t: fixed.expand_as(u)
    u = normal(1).normal_like(torch.zeros(2, *SHAPE).double())
    found = path(cold, model, u)
    for k, state in found.items():
        t = process.times[[k, -1]]
        assert_close(state, u + process.mean(fixed, t[:1]) - process.mean(fixed, t[1:]), atol=1e-12, rtol=0)


def test_noise_that_changes_with_the_level_is_refused():
    model = exact_model(StochasticHeat(SHAPE, 4))
    with pytest.raises(ConfigError, match=r"^sampler=cold leaves the noise .*forward=stochastic_heat changes.*sampler=heun"):
        cold(model, torch.zeros(1, *SHAPE), model.process.times)
