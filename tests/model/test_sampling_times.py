"""Sampling in any number of steps with the exact denoiser of Gaussian data: calls, orders of convergence, and refusals."""

import functools

import pytest
import torch
from conftest import shipped_map
from gaussian_toys import end_law, exact_model, orders
from torch import nn
from torch.testing import assert_close

from heatgen.check import ConfigError
from heatgen.forward.random_velocity import RandomVelocity
from heatgen.forward.stochastic_heat import StochasticHeat
from heatgen.forward.variance_exploding import VarianceExploding
from heatgen.model.autoregressive import Autoregressive
from heatgen.model.diffusion import Diffusion
from heatgen.model.grid import Grid
from heatgen.model.ihd import IHD
from heatgen.model.smdp import SMDP
from heatgen.noise import SampleNoise
from heatgen.sampler.ancestral import ancestral
from heatgen.sampler.exact import exact
from heatgen.sampler.heun import heun
from heatgen.sampler.ode import ode
from heatgen.sampler.predictor_corrector import predictor_corrector
from heatgen.sampler.sde import sde

SHAPE = (1, 8, 8)
CALLS = {  # a sampler -> calls of N steps
    ancestral: lambda n: n,
    heun: lambda n: 2 * n - 1,
    functools.partial(heun, order=1): lambda n: n,
    functools.partial(heun, substeps=2): lambda n: 4 * n - 1,
    ode: lambda n: n,
    sde: lambda n: n,
    functools.partial(predictor_corrector, corrections=2): lambda n: n + 2 * (n - 1),
    exact: lambda n: 1,
}


def exploding(num_levels=40):
    return VarianceExploding(SHAPE, num_levels, sigma_min=0.001, sigma_max=20.0)


def states(model, n=3):
    rng = SampleNoise(range(n), 1, "toy")
    return model.initial_state(torch.zeros(n, *SHAPE, dtype=torch.float64), rng), SampleNoise(range(n), 2, "toy")


@pytest.mark.parametrize("sampler", CALLS)
@pytest.mark.parametrize("steps", [1, 4, 40])
def test_the_calls_of_every_sampler_are_counted_and_as_many_steps_as_levels_are_the_same_bits(sampler, steps):
    model = exact_model(exploding())
    model.sampler, model.grid = sampler, Grid(steps)
    seen = []
    found = model.generate(*states(model), lambda k, u: seen.append(k))
    assert model.calls.nfe == CALLS[sampler](steps) and model.calls.samples == 3
    assert seen == (list(range(steps - 1, -1, -1)) if sampler is not exact else [0])
    if steps == 40:
        model.grid = Grid()
        assert torch.equal(found, model.generate(*states(model)))


def test_calls_outside_of_a_sampling_and_of_one_that_fails_do_not_count():
    model = exact_model(exploding())
    model.sampler, (u, rng) = ancestral, states(model)
    model.denoise(u, model.process.times[-1:].expand(3))

    def fail(k, u):
        raise KeyError

    with pytest.raises(KeyError):
        model.generate(u, rng, fail)
    assert model.calls.nfe is None
    model.generate(u[:1], SampleNoise([0], 2, "toy"))
    assert model.calls.nfe == 40


def test_copies_of_a_model_for_a_map_that_is_drawn_count_together():
    model = Diffusion(RandomVelocity(SHAPE, 6), Flat(), ancestral, None, reverse_variance="small")
    model.grid = Grid(4)
    bound = model.bound(SampleNoise(range(3), 0, "toy"))
    assert bound is not model and bound.calls is model.calls
    bound.generate(*states(bound))
    assert model.calls.nfe == 4 and model.calls.samples == 3


def errors(model, sampler, draws, counts, spacing="level", **options):
    """The largest relative error of the variance at 0, of the coefficients that vary, for each number of steps."""
    start = model.exactly.variance(model.process.times[-1:])[0]
    spectrum = model.exactly.spectrum
    found = []
    for steps in counts:
        model.grid = Grid(steps, spacing)
        gain, noise = (law[0] for law in end_law(sampler, model, model.sampling_times(), draws(steps), **options))
        variance = gain**2 * start + noise
        found.append(((variance - spectrum) / spectrum)[spectrum > 0].abs().max())
    return found


@pytest.mark.parametrize(("order", "spacing"), [(1, "rho"), (2, "rho"), (2, "level")])
def test_heun_converges_in_the_number_of_steps_with_its_order(order, spacing):
    model = exact_model(exploding())
    found = errors(model, heun, lambda n: 0, (20, 40, 80), spacing, order=order)
    assert [x.item() for x in orders(found)] == pytest.approx([order, order], abs=0.25) and found[-1] < (0.2, 0.02)[
        order - 1
    ]


def test_ancestral_steps_of_gaussian_data_are_exact_however_few_they_are():
    model = exact_model(StochasticHeat(SHAPE, 8), mean=0.5)
    for spacing in ("level", "uniform"):
        assert max(errors(model, ancestral, lambda n: n, (1, 3, 20), spacing)) < 1e-9


@pytest.mark.parametrize("sampler", [ode, sde])
def test_samplers_of_a_score_converge_with_the_first_order(sampler):
    found = errors(exact_model(exploding()), sampler, lambda n: n, (80, 160, 320), "rho")
    assert [x.item() for x in orders(found)] == pytest.approx([1, 1], abs=0.25)


def test_corrections_at_few_times_keep_the_law_but_for_their_own_bias():
    found = errors(exact_model(exploding()), predictor_corrector, lambda n: 3 * n, (5, 20), "rho", rate=0.02)
    assert max(found) < 0.05


class Flat(nn.Module):
    def forward(self, x, t, cond=None):
        return 0 * x


def model_of(cls, process=None, **options):
    return cls(process or StochasticHeat(SHAPE, 6), Flat(), ancestral, None, **options)


def test_a_model_of_levels_alone_takes_the_nearest_ones_and_refuses_what_it_has_not_learned():
    levels = model_of(IHD, shipped_map("heat", SHAPE, 6), parametrisation="x0")
    for model in (model_of(Diffusion, shipped_map("random_matrix", SHAPE, 6)), levels):
        model.grid = Grid(4)
        assert_close(model.process.level(model.sampling_times()), torch.tensor([0.0, 2, 3, 5, 6]).double())
        for grid, words in ((Grid(7), "at most K = 6"), (Grid(3, "uniform"), "use sampler.spacing=level")):
            model.grid = grid
            with pytest.raises(ConfigError, match=words):
                model.sampling_times()


@pytest.mark.parametrize("cls", [SMDP, Autoregressive])
def test_a_model_that_learned_steps_of_one_level_refuses_others(cls):
    model = model_of(cls)
    model.grid = Grid(6)
    assert model.sampling_times() is model.process.times
    model.grid = Grid(3)
    with pytest.raises(
        ConfigError, match=r"^model=(smdp|autoregressive) learns steps of one level, so sampler.steps must be K = 6"
    ):
        model.sampling_times()


@pytest.mark.parametrize(
    "options", [{"parametrisation": "residual"}, {"delta_mode": "per_step"}, {"delta_mode": "spectral"}]
)
def test_ihd_names_what_makes_it_take_single_levels(options):
    process = RandomVelocity(SHAPE, 6) if "delta_mode" in options else shipped_map("heat", SHAPE, 6)
    model = model_of(IHD, process, **{"parametrisation": "x0", **options})
    model.grid = Grid(3)
    key, value = next(iter(options.items()))
    with pytest.raises(
        ConfigError,
        match=f"^model.{key}={value} takes one level a step, so sampler.steps must be K = .*, or null; .* to skip levels",
    ):
        model.sampling_times()


def test_ihd_of_a_map_that_is_drawn_tells_its_network_the_ends_of_single_levels_when_it_skips():
    process = RandomVelocity(SHAPE, 6)
    model, told = model_of(IHD, process, parametrisation="x0"), []
    model.net.forward = lambda x, t, cond=None: told.append(cond) or 0 * x
    u = torch.zeros(1, *SHAPE)
    for s in (4, 1):
        model.reverse_mean(u, process.times[5:6], process.times[s : s + 1])
    assert torch.equal(told[0], told[1])
