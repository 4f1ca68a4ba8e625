"""sampler=momentum with the exact denoiser: the variance of samples, its steps by hand, and what it refuses."""

import pytest
import torch
from gaussian_toys import end_law, exact_model, gaussian, normal
from torch.testing import assert_close

from heatgen.check import ConfigError
from heatgen.forward.constant_velocity import ConstantVelocity
from heatgen.forward.levels import uniform
from heatgen.forward.process import ForwardProcess
from heatgen.sampler.cold import cold
from heatgen.sampler.momentum import momentum

SHAPE = (1, 8, 8)
KEPT = {  # form: the variance of one mode that is left at the end, in units of the data's, with K = 20, 200, 2000
    "posterior": (0.941, 0.993, 0.999),
    "sde": (0.994, 0.999, 1.000),
}


class Soft(ForwardProcess):
    """u_t = exp(-t / 2) u_0 + (t / 2) eps, or less noise at the end where it shrinks."""

    def __init__(self, num_levels, shrinks=False):
        super().__init__(SHAPE, uniform(num_levels))
        self.shrinks = shrinks

    def gain(self, t):
        return (-self.column(t) / 2).exp()

    def std(self, t):
        return self.column(t) * (1 - self.column(t)) if self.shrinks else self.column(t) / 2


def recursion(form, num_levels):
    """The variance of one mode, of the data's variance 1, by its own recursion."""
    gain, std = (lambda k: 2.718281828459045 ** (-k / num_levels / 2)), (lambda k: k / num_levels / 2)
    variance = gain(num_levels) ** 2 + std(num_levels) ** 2
    for k in range(num_levels, 0, -1):
        a, q, b, r = gain(k), std(k) ** 2, gain(k - 1), std(k - 1) ** 2
        estimate, kept = a / (a**2 + q), r / q
        noise = {"posterior": r * (1 - kept), "sde": q - r if k > 1 else 0.0}[form]
        variance = (b * estimate + kept * (1 - a * estimate)) ** 2 * variance + noise
    return variance


@pytest.mark.parametrize("form", KEPT)
def test_it_keeps_the_variance_of_a_mode_better_the_more_levels_there_are(form):
    assert [recursion(form, n) for n in (20, 200, 2000)] == pytest.approx(KEPT[form], abs=6e-4)
    spec = gaussian(SHAPE)
    spec.spectrum.fill_(1.0)
    model, n = exact_model(Soft(20), spec), 20
    gain, noise = end_law(momentum, model, model.process.times, n, form=form)
    start = model.exactly.variance(model.process.times[-1:])[0]
    expected = torch.full(SHAPE, recursion(form, n), dtype=torch.float64)
    assert_close(gain[0] ** 2 * start + noise[0], expected, atol=1e-9, rtol=0)


def test_where_the_noise_stays_the_same_its_steps_are_those_of_cold_diffusion_but_for_the_last():
    process = ConstantVelocity(SHAPE, 5, sigma=0.2)
    model, u, states = exact_model(process, mean=0.5), normal(1).normal_like(torch.zeros(2, *SHAPE).double()), {}
    for sampler in (momentum, cold):
        states[sampler] = [u]
        sampler(model, u, process.times, normal(2), lambda k, state, sampler=sampler: states[sampler].append(state))
    for one, other in zip(states[momentum][:-1], states[cold][:-1], strict=True):
        assert_close(one, other, atol=1e-12, rtol=0)
    last = model.denoise(states[momentum][-2], process.times[1:2])
    assert_close(states[momentum][-1], last, atol=1e-12, rtol=0)


def test_noise_that_shrinks_and_another_form_are_refused():
    model = exact_model(Soft(5, shrinks=True))
    with pytest.raises(ConfigError, match=r"^sampler=momentum needs noise that never shrinks .*forward=.*sampler=heun\.$"):
        momentum(model, torch.zeros(1, *SHAPE), model.process.times)
    with pytest.raises(ConfigError, match=r"^sampler\.form must be one of posterior, sde, not 'ode'"):
        momentum(model, torch.zeros(1, *SHAPE), model.process.times, form="ode")
