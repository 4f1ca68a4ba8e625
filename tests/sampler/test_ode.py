"""sampler=ode with the exact score: its order, the probability flow, and the posterior mean."""

import pytest
import torch
from gaussian_toys import end_law, exact_model, orders, wave_numbers
from torch.testing import assert_close

from heatgen.check import ConfigError
from heatgen.sampler.ode import ode

MODEL = exact_model(mean=0.5)
LEVELS = MODEL.process.times
S, V = MODEL.exactly.spectrum, MODEL.exactly.variance(LEVELS[-1:])[0]
FLOW, POSTERIOR = (S / V).sqrt(), S * MODEL.process.gain(LEVELS[-1:])[0] / V


def gain(substeps, factor=0.5):
    return end_law(ode, MODEL, LEVELS, 0, substeps=substeps, factor=factor)[0][0]


@pytest.mark.parametrize(("factor", "limit"), [(0.5, FLOW), (1.0, POSTERIOR)])
def test_it_converges_with_first_order_to_the_flow_and_with_the_whole_score_to_the_posterior_mean(factor, limit):
    errors = [gain(substeps, factor) - limit for substeps in (8, 16, 32)]
    assert errors[-1].abs().max() < 1
    resolved = (wave_numbers(8, 8) <= 8)[None].clone()
    if factor == 1.0:
        resolved[0, 0, 0] = False  # exact in one step: only rounding is left
        assert max(error[0, 0, 0].abs().item() for error in errors) < 1e-12
    last = orders([error[resolved] for error in errors])[-1]
    assert_close(last, torch.ones_like(last), atol=0.1, rtol=0)


def test_its_ends_are_distributed_like_the_data():
    n, oracle = 500, MODEL.exactly
    u = V.sqrt() * torch.randn(n, 1, 8, 8, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    c = oracle.basis(ode(MODEL, oracle.basis.inverse(u), LEVELS, substeps=8))
    bias = (gain(8) / FLOW) ** 2
    assert (bias - 1).abs()[:, :3, :3].max() < 0.3
    z = (c.square().mean(0) / (S * bias) - 1) / (2 / n) ** 0.5
    assert z.abs().max() < 4.5


def test_one_step_is_the_physics_step_of_the_model_with_the_factor():
    u = torch.randn(2, 1, 8, 8, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    t, s = LEVELS[4:5], LEVELS[3:4]
    process, oracle = MODEL.process, MODEL.exactly
    a, q2 = process.ratio(s, t), process.step_std(s, t) ** 2
    expected = oracle.basis.inverse((2 - a) * (1 - 0.3 * q2 / oracle.variance(t)) * oracle.basis(u))
    assert_close(ode(MODEL, u, LEVELS[3:5], factor=0.3), expected, atol=1e-12, rtol=0)


def test_without_the_score_it_is_the_physics_alone():
    u = torch.randn(2, 1, 8, 8, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    factor = (2 - MODEL.process.ratio(LEVELS[:1], LEVELS[1:2])) ** 8
    expected = MODEL.exactly.basis.inverse(factor * MODEL.exactly.basis(u))
    assert_close(ode(MODEL, u, LEVELS, factor=0.0), expected, atol=1e-11, rtol=0)


def test_no_mode_grows_by_more_than_two_a_step():
    for factor in (0.5, 1.0):
        growth = end_law(ode, MODEL, LEVELS[[0, 8]], 0, factor=factor)[0][0]
        assert growth.abs().max() < 2


def test_a_factor_below_0_is_refused():
    with pytest.raises(ConfigError, match=r"sampler\.factor must"):
        ode(MODEL, torch.zeros(1, 1, 8, 8), LEVELS, factor=-0.5)
