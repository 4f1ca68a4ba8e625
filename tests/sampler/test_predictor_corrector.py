"""sampler=predictor_corrector with exact models: what a correction does to the variance of every mode."""

from types import SimpleNamespace

import pytest
import torch
from gaussian_toys import end_law, exact_model, normal
from torch.testing import assert_close

from heatgen.check import ConfigError
from heatgen.sampler.ancestral import ancestral
from heatgen.sampler.predictor_corrector import predictor_corrector

MODEL = exact_model(mean=0.5)
ORACLE, LEVELS = MODEL.exactly, MODEL.process.times
V = [ORACLE.variance(t[None])[0] for t in LEVELS]
L2 = [ORACLE.noise_variance(t[None])[0] for t in LEVELS]


def variances(**options):
    draws = 8 + 7 * options.get("corrections", 1)
    gain, noise = end_law(predictor_corrector, MODEL, LEVELS, draws, **options)
    return {k: gain[k] ** 2 * V[8] + noise[k] for k in gain}


@pytest.mark.parametrize(("corrections", "rate"), [(1, 0.1), (3, 0.4), (0, 0.1)])
def test_the_variance_of_every_mode_is_that_of_the_recursion_of_langevin_dynamics(corrections, rate):
    found, variance = variances(corrections=corrections, rate=rate), V[8]
    for k in range(7, -1, -1):
        a = ORACLE.process.ratio(LEVELS[k : k + 1], LEVELS[k + 1 : k + 2])[0]
        back = a * V[k] / V[k + 1]
        variance = back**2 * variance + V[k] - back**2 * V[k + 1]
        for _ in range(corrections if k > 0 else 0):
            variance = (1 - rate * L2[k] / V[k]) ** 2 * variance + 2 * rate * L2[k]
        assert_close(found[k], variance, atol=1e-10, rtol=1e-9)


def test_a_small_rate_leaves_every_marginal_as_it_is_with_second_order():
    errors = [{k: v - V[k] for k, v in variances(rate=rate).items()} for rate in (0.02, 0.01)]
    for k in range(8):
        assert (errors[1][k].abs() <= 2e-4 * V[k] + 1e-10).all()
    seen = errors[0][4] > 5e-9
    assert seen.sum() > 10
    ratio = errors[0][4][seen] / errors[1][4][seen]
    assert_close(ratio, torch.full_like(ratio, 4), atol=0.2, rtol=0)


@pytest.mark.slow
def test_corrections_repair_a_predictor_that_forgot_the_state():
    wrong = SimpleNamespace(
        noise_last_step=False,
        process=MODEL.process,
        exactly=ORACLE,
        score=MODEL.score,
        reverse_mean=lambda u, t, s: 0 * u,
        reverse_noise=lambda eps, t, s: 0 * eps,
    )
    n, rate = 60, 0.4
    _, noise = end_law(predictor_corrector, wrong, LEVELS[4:], 70 * 4 + 8, corrections=n, rate=rate)
    k = 5
    kept = (1 - rate * L2[k] / V[k]) ** 2
    expected = 2 * rate * L2[k] * (1 - kept**n) / (1 - kept)
    assert_close(noise[1], expected, atol=0, rtol=1e-9)
    equal = L2[k] > 0.5 * V[k]
    assert equal.sum() > 5
    assert ((noise[1] / V[k])[equal] - 1 > 0).all() and ((noise[1] / V[k])[equal] - 1 < 0.3).all()


def test_samples_have_the_moments_of_the_data():
    n = 1200
    start = V[8].sqrt() * torch.randn(n, 1, 8, 8, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    c = ORACLE.basis(predictor_corrector(MODEL, ORACLE.basis.inverse(start), LEVELS, normal(2), rate=0.02))
    z = (c.square().mean(0) / ORACLE.spectrum - 1) / (2 / n) ** 0.5
    assert z.abs().max() < 4.5 and z.square().mean().item() < 1 + 6 * (2 / 64) ** 0.5
    assert (c.mean(0) / (ORACLE.spectrum / n).sqrt()).abs().max() < 4.5


def test_without_corrections_it_is_ancestral_sampling():
    u = torch.randn(3, 1, 8, 8, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    out = predictor_corrector(MODEL, u, LEVELS, normal(2), corrections=0)
    assert torch.equal(out, ancestral(MODEL, u, LEVELS, normal(2)))
    assert not torch.isclose(out, predictor_corrector(MODEL, u, LEVELS, normal(2))).all()


def test_values_out_of_range_are_refused():
    for options, key in [({"corrections": -1}, "corrections"), ({"rate": 0.0}, "rate")]:
        with pytest.raises(ConfigError, match=rf"sampler\.{key} must be"):
            predictor_corrector(MODEL, torch.zeros(1, 1, 8, 8), LEVELS, **options)
