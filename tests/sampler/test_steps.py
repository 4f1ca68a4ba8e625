"""What all samplers have in common: the steps, who sees them, the noise, and what they ask of a model."""

import importlib
import itertools

import pytest
import torch
from gaussian_toys import exact_model, normal
from torch.testing import assert_close

from heatgen.check import ConfigError
from heatgen.forward.constant_velocity import ConstantVelocity
from heatgen.noise import SampleNoise
from heatgen.sampler.ancestral import ancestral
from heatgen.sampler.cold import cold
from heatgen.sampler.exact import exact
from heatgen.sampler.heun import heun
from heatgen.sampler.interface import ExactModel, members_of, protocol_of, suitable
from heatgen.sampler.momentum import momentum
from heatgen.sampler.multistep import multistep
from heatgen.sampler.ode import ode
from heatgen.sampler.predictor_corrector import predictor_corrector
from heatgen.sampler.sde import sde
from heatgen.sampler.steps import draw, steps

K = 8
MODEL = exact_model()
LEVELS = MODEL.process.times
ALIKE = exact_model(ConstantVelocity((1, 8, 8), K, sigma=0.2))  # the same noise at every level, as cold needs it
SAMPLERS = [getattr(importlib.import_module(f"heatgen.sampler.{name}"), name) for name in suitable(MODEL)]
IDS = [sampler.__name__ for sampler in SAMPLERS]
every_sampler = pytest.mark.parametrize("sampler", SAMPLERS, ids=IDS)
SUBDIVIDED = [heun, ode, sde]


def fields(n=3, dtype=torch.float64):
    return torch.randn(n, 1, 8, 8, generator=torch.Generator().manual_seed(1), dtype=torch.float64).to(dtype)


def suited(sampler):
    """A model that a sampler takes, and its levels."""
    model = ALIKE if sampler is cold else MODEL
    return model, model.process.times


class Counted:
    """A stream of noise that counts its draws."""

    def __init__(self):
        self.noise, self.draws = normal(2), 0

    def normal_like(self, u):
        self.draws += 1
        return self.noise.normal_like(u)


class Spied:
    """A model that remembers what it was asked for."""

    def __init__(self, model):
        self.model, self.asked = model, set()

    def __getattr__(self, name):
        self.asked.add(name)
        return getattr(self.model, name)


# the steps ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("substeps", [1, 3])
def test_the_steps_lead_from_the_last_level_to_0_without_a_gap_and_name_the_levels_they_reach(substeps):
    levels = torch.tensor([0.0, 0.1, 0.5, 2.0], dtype=torch.float64)
    found = list(steps(levels, substeps, 4))
    assert len(found) == 3 * substeps
    assert all(t.shape == s.shape == (4,) and t.dtype == torch.float64 for _, t, s in found)
    assert found[0][1][0] == 2.0 and found[-1][2][0] == 0.0
    assert all(torch.equal(a[2], b[1]) for a, b in itertools.pairwise(found))
    assert [k for k, _, _ in found if k is not None] == [2, 1, 0]
    assert [s[0].item() for k, _, s in found if k is not None] == [0.5, 0.1, 0.0]
    lengths = torch.stack([t[0] - s[0] for _, t, s in found]).reshape(3, substeps)
    expected = (levels.diff().flip(0) / substeps)[:, None].expand_as(lengths)
    assert_close(lengths, expected, atol=1e-15, rtol=0)


def test_no_substeps_are_refused():
    with pytest.raises(ConfigError, match=r"sampler\.substeps must"):
        list(steps(LEVELS, 0, 1))


def test_white_noise_comes_from_the_generator_or_else_from_torch():
    u = torch.zeros(2, 1, 8, 8, dtype=torch.float64)
    assert torch.equal(draw(u, normal(4)), normal(4).normal_like(u))
    torch.manual_seed(3)
    first = draw(u, None)
    torch.manual_seed(3)
    assert torch.equal(first, torch.randn_like(u)) and first.dtype == torch.float64


@every_sampler
def test_every_level_is_shown_once_from_above_and_the_last_one_returned(sampler):
    (model, levels), u, shown = suited(sampler), fields(), []
    before = u.clone()
    out = sampler(model, u, levels, normal(2), lambda k, state: shown.append((k, state)))
    assert [k for k, _ in shown] == ([0] if protocol_of(sampler) is ExactModel else list(range(K - 1, -1, -1)))
    assert torch.equal(shown[-1][1], out) and torch.equal(u, before)
    assert torch.equal(out, sampler(model, u, levels, normal(2)))


@pytest.mark.parametrize("sampler", SUBDIVIDED, ids=[sampler.__name__ for sampler in SUBDIVIDED])
def test_substeps_are_steps_of_a_finer_grid_and_not_shown(sampler):
    shown, fine = [], torch.linspace(0, LEVELS[-1].item(), 3 * K + 1, dtype=torch.float64)
    out = sampler(MODEL, fields(), LEVELS, normal(2), lambda k, u: shown.append(k), substeps=3)
    assert shown == list(range(K - 1, -1, -1))
    assert_close(out, sampler(MODEL, fields(), fine, normal(2)), atol=1e-9, rtol=0)


@every_sampler
def test_the_precision_of_the_state_is_kept(sampler):
    model, levels = suited(sampler)
    for dtype in (torch.float32, torch.float64):
        assert sampler(model, fields(dtype=dtype), levels, normal(2)).dtype == dtype


# noise -------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("sampler", "options", "draws"),
    [
        (ancestral, {}, K),  # the exact model has noise at the end
        (ancestral, {"stochastic": False}, 0),
        (cold, {}, 0),
        (exact, {}, 2),
        (exact, {"answer": "mean"}, 0),
        (exact, {"answer": "flow"}, 0),
        (heun, {}, 0),
        (momentum, {}, K - 1),
        (multistep, {}, 0),
        (ode, {}, 0),
        (predictor_corrector, {"corrections": 2}, K + 2 * (K - 1)),
        (sde, {}, K - 1),
        (sde, {"substeps": 3}, 3 * K - 1),
    ],
    ids=lambda value: getattr(value, "__name__", None),
)
def test_noise_is_drawn_for_every_step_that_has_some_and_not_for_the_last_step_of_the_equation(sampler, options, draws):
    (model, levels), noise = suited(sampler), Counted()
    sampler(model, fields(), levels, noise, **options)
    assert noise.draws == draws


@every_sampler
def test_a_sample_does_not_depend_on_its_batch(sampler):
    (model, levels), u = suited(sampler), fields(6)
    whole = sampler(model, u, levels, SampleNoise(range(6), 0, "test"))
    parts = [sampler(model, u[part], levels, SampleNoise(part, 0, "test")) for part in ([0, 1], [2], [3, 4, 5])]
    assert_close(torch.cat(parts), whole, atol=1e-9, rtol=0)
    other = sampler(model, u, levels, SampleNoise(range(6), 1, "test"))
    counted = Counted()
    sampler(model, u, levels, counted)
    assert torch.equal(other, whole) == (counted.draws == 0)


# the interface -------------------------------------------------------------------------------------------------------------


@every_sampler
def test_a_sampler_asks_a_model_for_what_its_protocol_says_and_nothing_more(sampler):
    exact, levels = suited(sampler)
    model = Spied(exact)
    sampler(model, fields(), levels, normal(2))
    assert model.asked - {"process"} <= set(members_of(protocol_of(sampler)))
