"""What every forward map must satisfy: each conf/forward/*.yaml is instantiated and held to the one law."""

import functools
import itertools
import warnings

import pytest
import torch
from conftest import FORWARDS, shipped
from hydra.utils import instantiate
from omegaconf import OmegaConf
from torch.testing import assert_close

from heatgen.check import ConfigError
from heatgen.noise import SampleNoise

SHAPE = (2, 6, 9)
METHODS = {  # what gives a field from a field and a time
    "mean": lambda process, u, t: process.mean(u, t),
    "noise": lambda process, u, t: noise(process, u, t),
    "perturb": lambda process, u, t: process.perturb(u, t),
}
VARIANTS = {  # of a shipped map: other options that change what is computed, or that suit the shape
    "relay": {"basis": {"size": 3}},
    "neumann_heat:drawn": {"diffusivity": [0.01, 0.1]},
    "neumann_heat:spectral": {"solver": "dct_spectral"},
    "neumann_heat:steps": {"solver": "ftcs", "steps": 70},  # no wave changes sign, so that there are steps between any times
}


@functools.cache
def settings(name):
    parent = {"seed": 0, "data": {"shape": SHAPE, "recommended": {"num_levels": 7}}}
    node = shipped("forward", name.partition(":")[0])
    config = OmegaConf.create({**parent, "forward": OmegaConf.merge(node, VARIANTS.get(name, {}))})
    OmegaConf.resolve(config)
    return config.forward


def make(name):
    return instantiate(settings(name), _convert_="all")


def noise(process, eps, t):
    """L(t) eps."""
    return process.scale_coefficients(eps, process.std(t))


built = functools.cache(make)  # maps are pure, so that tests may share them
MAPS = list(dict.fromkeys([*FORWARDS, *VARIANTS]))
DIAGONAL = [name for name in MAPS if built(name).is_diagonal]


@pytest.fixture(params=MAPS)
def process(request):
    return built(request.param)


@pytest.fixture(params=DIAGONAL)
def diagonal(request):
    """A map that is diagonal in its basis, so that it is known between its levels and has steps."""
    return built(request.param)


@pytest.fixture(params=sorted(set(MAPS) - set(DIAGONAL)))
def matrices(request):
    """A map that is a matrix at each of its levels, with no basis in common."""
    return built(request.param)


def fields(batch=3, dtype=torch.float64, seed=0):
    return torch.randn(batch, *SHAPE, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def some_times(process):
    """A time for each of three items: the start, the middle and the end."""
    return process.times[[0, process.num_levels // 2, process.num_levels]]


def inner_time(process, batch=3):
    """A time between two levels in the middle, for each item."""
    k = process.num_levels // 2
    return (0.7 * process.times[k] + 0.3 * process.times[k + 1]).repeat(batch)


def invertible(process, s):
    return bool((process.gain(s) != 0).all())


def operator(process, t):
    """The matrix of A(t) over the pixels, found by applying it to one bright pixel after the other."""
    pixels = torch.eye(torch.Size(SHAPE).numel(), dtype=torch.float64).reshape(-1, *SHAPE)
    t = t.expand(len(pixels))
    return (process.mean(pixels, t) - process.mean(torch.zeros_like(pixels), t)).flatten(1).mT


@pytest.mark.parametrize("ability", ["is_diagonal", "is_scalar", "is_markov", "is_random", "withholds_cond"])
def test_some_maps_can_do_it_and_some_cannot(ability):
    assert {getattr(built(name), ability) for name in MAPS} == {True, False}


def test_a_map_says_what_it_can_do(process):
    times, K = process.times, process.num_levels
    neighbours = [(times[k : k + 1], times[k + 1 : k + 2]) for k in range(K)]
    if not process.is_diagonal:
        assert not process.is_scalar and not process.is_markov
        return
    assert process.is_scalar == all(process.gain(t).numel() == 1 for t in times.split(1))
    steps = [has_step(process, s, t) for s, t in neighbours]
    assert process.is_markov == (all(steps) and bool((process.step_std(*neighbours[-1]) > 0).any()))


def test_a_map_is_valid(process):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        process.validate()


def test_the_levels_ascend_from_0_to_the_number_asked_for(process):
    assert process.num_levels == 7
    assert process.times.shape == (8,)
    assert process.times[0] == 0
    assert (process.times.diff() > 0).all()


def test_a_map_is_named_after_its_config(request, process):
    assert process.name == request.node.callspec.params["process"].partition(":")[0]


def test_nothing_has_happened_at_time_0(process):
    u0, t = fields(), process.times[:1].expand(3)
    assert_close(process.mean(u0, t), u0, atol=1e-6, rtol=0)
    assert_close(process.offset(t).expand_as(u0), torch.zeros_like(u0), atol=1e-6, rtol=0)


def test_level_0_is_the_clean_image_and_the_others_are_not_where_the_map_moves_it(process):
    u0, states = fields(1), process.mean(fields(1).expand(8, *SHAPE), process.times)
    moved = (states - u0).flatten(1).norm(dim=1) > 1e-7
    changes = [
        process.frobenius(t, process.times[:1]) > 1e-7 or bool(process.offset(t).any()) for t in process.times.split(1)
    ]
    assert moved.tolist() == changes
    assert not moved[0]
    assert moved[1] == moved[2:-1].all()  # what moves an image does so from level 1 on


def test_the_noise_starts_at_level_1(process):
    std = process.std(process.times).expand(8, *SHAPE)
    assert not std[0].any()
    assert std[1:].gt(0).all()


def test_two_levels_in_a_row_of_one_batch_are_two_tensors_that_leave_it_as_it_was(process):
    u0 = fields()
    before = u0.clone()
    for s, t in itertools.pairwise(process.times):
        later, sooner = process.mean(u0, t.expand(3)), process.mean(u0, s.expand(3))
        assert torch.equal(u0, before)
        assert len({x.untyped_storage().data_ptr() for x in (u0, later, sooner)}) == 3
        kept = later.clone()
        sooner.zero_()
        assert torch.equal(u0, before)
        assert torch.equal(later, kept)


def test_the_singular_values_are_those_of_the_map_on_all_pixels(process):
    for t in process.times[[0, 3, 7]].split(1):
        values = process.singular_values(t)
        assert values.dtype == torch.float64
        assert_close(values, torch.linalg.svdvals(operator(process, t)), atol=1e-12, rtol=1e-12)


def test_the_frobenius_norm_is_that_of_the_map_on_all_pixels(process):
    for k, j in [(0, 0), (3, 0), (7, 3), (3, 4), (4, 3)]:
        s, t = process.times[j : j + 1], process.times[k : k + 1]
        assert process.frobenius(t) == pytest.approx(operator(process, t).norm().item(), abs=1e-12, rel=1e-12)
        difference = (operator(process, t) - operator(process, s)).norm().item()
        assert process.frobenius(t, s) == pytest.approx(difference, abs=1e-7, rel=1e-12)
        assert type(process.frobenius(t, s)) is float


def test_coefficients_are_scaled_to_any_standard_deviation(process):
    eps = fields()
    generator = torch.Generator().manual_seed(1)
    for size in [(1, 1, 1), (1, *SHAPE[1:]), SHAPE]:
        std = torch.rand(3, *size, generator=generator, dtype=torch.float64)
        assert_close(process.basis(process.scale_coefficients(eps, std)), std * process.basis(eps), atol=1e-12, rtol=0)


def test_only_a_random_map_is_drawn_and_conditions_the_network_or_withholds_it(process):
    if process.is_random:
        draws = process.draw(SampleNoise(range(3), 0))
        assert draws is not None and len(draws) == 3
        t = process.times[3:4].expand(3)
        assert (process.bind(draws).cond(t, t) is None) == process.withholds_cond
        return
    s, t = process.times[2:3].expand(3), process.times[3:4].expand(3)
    assert process.draw(SampleNoise(range(3), 0)) is None
    assert process.bind(None) is process
    assert process.cond(t, s) is None
    assert process.withholds_cond is False


def test_nothing_drawn_changes_nothing(process):
    u0, t = fields(), some_times(process)
    assert torch.equal(process.bind(None).mean(u0, t), process.mean(u0, t))


def test_the_mean_is_affine_in_the_image(process):
    u, v, t = fields(), fields(seed=1), some_times(process)
    rest = process.mean(torch.zeros_like(u), t)
    combined = process.mean(2 * u - 3 * v, t) - rest
    assert_close(combined, 2 * (process.mean(u, t) - rest) - 3 * (process.mean(v, t) - rest), atol=1e-11, rtol=0)


def test_the_noise_is_linear(process):
    e, f, t = fields(), fields(seed=1), some_times(process)
    expected = 2 * noise(process, e, t) - 3 * noise(process, f, t)
    assert_close(noise(process, 2 * e - 3 * f, t), expected, atol=1e-11, rtol=0)


def test_the_noise_has_the_stated_standard_deviation_of_every_coefficient(process):
    t, ones = some_times(process), torch.ones(3, *SHAPE, dtype=torch.float64)
    coefficients = process.basis(noise(process, process.basis.inverse(ones), t))
    assert (process.std(t) >= 0).all()
    assert_close(coefficients, process.std(t).expand_as(coefficients).to(coefficients), atol=1e-11, rtol=0)


def test_methods_change_no_argument_and_share_no_storage(process):
    for method, dtype, k in itertools.product(METHODS, (torch.float32, torch.float64), (0, 3, 7)):
        u, t = fields(dtype=dtype), process.times[k].repeat(3)
        before, time = u.clone(), t.clone()
        results = [METHODS[method](process, u, t) for _ in range(2)]
        assert torch.equal(u, before)
        assert torch.equal(t, time)
        pointers = {x.untyped_storage().data_ptr() for x in [u, t, *results, *process.buffers()]}
        assert len(pointers) == 4 + len(list(process.buffers()))


def test_steps_change_no_argument_and_share_no_storage(diagonal):
    u, eps, s, t = fields(), fields(seed=1), diagonal.times[3].repeat(3), diagonal.times[4].repeat(3)
    before, white = u.clone(), eps.clone()
    results = [diagonal.step(u, s, t, eps), diagonal.step(u, s, t, eps), diagonal.increment(u, s, t), diagonal.drift(u, s)]
    assert torch.equal(u, before)
    assert torch.equal(eps, white)
    assert len({x.untyped_storage().data_ptr() for x in [u, eps, *results]}) == 6


def test_the_precision_is_that_of_the_image_also_inside_autocast(process):
    precisions = (torch.float32, torch.float64)
    for method, dtype, clock in itertools.product(METHODS, precisions, precisions):
        u, t = fields(dtype=dtype), some_times(process).to(clock)
        torch.manual_seed(0)
        plain = METHODS[method](process, u, t)
        torch.manual_seed(0)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            cast = METHODS[method](process, u, t)
        assert plain.dtype == cast.dtype == dtype
        assert torch.equal(plain, cast)


def test_half_precision_images_are_computed_in_float32(process):
    u, t = fields(dtype=torch.bfloat16), some_times(process)
    for method in METHODS.values():
        torch.manual_seed(0)
        result = method(process, u, t)
        torch.manual_seed(0)
        assert result.dtype == torch.float32
        assert torch.equal(result, method(process, u.float(), t))


def test_perturbing_adds_the_noise_to_the_mean(process):
    u0, eps, t = fields(), fields(seed=1), some_times(process)
    assert_close(process.perturb(u0, t, eps) - process.mean(u0, t), noise(process, eps, t), atol=1e-11, rtol=0)


def test_fresh_noise_has_the_moments_of_the_law(process):
    n, t = 4000, process.times[-1:]
    u0 = fields(1)
    torch.manual_seed(0)
    draws = process.basis(process.perturb(u0.expand(n, *SHAPE), t.expand(n)))
    std = process.std(t).expand(1, *SHAPE).to(draws)
    error = draws.mean(0, keepdim=True) - process.basis(process.mean(u0, t))
    assert (error.abs() <= 5 * std / n**0.5 + 1e-12).all()
    assert (draws.var(0, keepdim=True) - std**2).abs().max() <= 5 * (2 / n) ** 0.5 * std.max() ** 2


def test_an_item_does_not_depend_on_its_batch(process):
    u, t = fields(), some_times(process)
    for method in (METHODS["mean"], noise):
        alone = torch.cat([method(process, u[j : j + 1], t[j : j + 1]) for j in range(3)])
        assert_close(method(process, u, t), alone, atol=1e-12, rtol=0)


def test_rectangular_fields_keep_their_shape(diagonal):
    u, s, t = fields(), inner_time(diagonal), inner_time(diagonal) * 1.01
    states = [diagonal.mean(u, t), noise(diagonal, u, t), diagonal.perturb(u, t), diagonal.drift(u, t)]
    if invertible(diagonal, s):
        states.append(diagonal.step(u, s, t))
    assert {state.shape for state in states} == {u.shape}


def test_every_level_keeps_the_shape_of_rectangular_fields(process):
    u = fields(8)
    assert [method(process, u, process.times).shape for method in METHODS.values()] == [u.shape] * 3


def test_a_level_may_be_one_number_expanded_over_the_batch(process):
    u, t = fields(), process.times[4:5]
    for method in (METHODS["mean"], noise):
        assert torch.equal(method(process, u, t.expand(3)), method(process, u, t.repeat(3)))


def test_what_needs_a_basis_is_refused_where_there_is_none(matrices):
    u, s, t = fields(1), matrices.times[2:3], matrices.times[3:4]
    steps = [
        (matrices.ratio, (s, t)),
        (matrices.step_std, (s, t)),
        (matrices.step, (u, s, t)),
        (matrices.increment, (u, s, t)),
    ]
    limits = [(matrices.gain, (t,)), (matrices.rate, (t,)), (matrices.drift, (u, t)), (matrices.diffusion, (t,))]
    for method, arguments in steps + limits:
        with pytest.raises(ConfigError, match=f"forward={matrices.name} .*diagonal"):
            method(*arguments)


def test_a_map_of_matrices_is_refused_between_its_levels(matrices):
    message = f"forward={matrices.name} .* 7 levels"
    for ask in (lambda t: matrices.mean(fields(), t), matrices.singular_values, matrices.frobenius):
        with pytest.raises(ConfigError, match=message):
            ask(inner_time(matrices, 1))


def test_the_number_of_every_level_is_found_from_its_time(process):
    whole = torch.arange(8).double()
    assert_close(process.level(process.times), whole, atol=1e-12, rtol=0)
    assert_close(process.level(process.times.flip(0)), whole.flip(0), atol=1e-12, rtol=0)
    middles = (process.times[:-1] + process.times[1:]) / 2
    assert_close(process.level(middles), whole[:-1] + 0.5, atol=1e-12, rtol=0)


def test_a_step_between_neighbours_has_the_exact_marginal(diagonal):
    u0 = fields()
    white = diagonal.basis.inverse(torch.ones_like(u0))
    for s, t in itertools.pairwise(diagonal.times):
        s, t = s.expand(3), t.expand(3)
        if not invertible(diagonal, s):
            continue
        start, ratio = diagonal.mean(u0, s), diagonal.ratio(s, t)
        if (diagonal.std(t) < (ratio * diagonal.std(s)).abs() * (1 - 1e-9)).any():
            with pytest.raises(ConfigError, match=f"forward={diagonal.name} has no step"):
                diagonal.step(start, s, t, torch.zeros_like(u0))
            continue
        end = diagonal.step(start, s, t, torch.zeros_like(u0))
        assert_close(end, diagonal.mean(u0, t), atol=1e-5, rtol=0)
        spread = diagonal.basis(diagonal.step(start, s, t, white) - end)
        variance = ((ratio * diagonal.std(s)) ** 2 + spread**2).expand_as(u0).to(u0)
        assert_close(variance, (diagonal.std(t) ** 2).expand_as(u0).to(u0), atol=1e-8, rtol=1e-8)


def has_step(process, s, t):
    try:
        process.step_std(s, t)
    except ConfigError:
        return False
    return True


def pairs_of_times(process):
    """Times s < t of neighbours, of levels far apart, and between levels."""
    times, inner = process.times, inner_time(process, 1)
    neighbours = [(times[k : k + 1], times[k + 1 : k + 2]) for k in range(7)]
    return [*neighbours, (times[1:2], times[-1:]), (times[2:3], times[5:6]), (inner, times[-1:]), (times[1:2], inner)]


def test_the_noise_of_a_step_is_what_the_step_adds(diagonal):
    u, white = fields(), diagonal.basis.inverse(torch.ones(3, *SHAPE, dtype=torch.float64))
    for s, t in pairs_of_times(diagonal):
        if has_step(diagonal, s, t):
            added = diagonal.basis(diagonal.step(u, s, t, white) - diagonal.step(u, s, t, torch.zeros_like(u)))
            assert_close(added, diagonal.step_std(s, t).expand_as(u).to(u), atol=1e-11, rtol=0)
            assert_close(diagonal.step_std(s, s), torch.zeros_like(diagonal.step_std(s, s)), atol=1e-7, rtol=0)


def test_the_noises_of_two_steps_in_a_row_are_that_of_one(diagonal):
    for r, s, t in [[diagonal.times[k : k + 1] for k in trio] for trio in [(0, 1, 2), (1, 3, 6), (2, 3, 7)]]:
        if has_step(diagonal, r, s) and has_step(diagonal, s, t):
            total = (diagonal.ratio(s, t) * diagonal.step_std(r, s)) ** 2 + diagonal.step_std(s, t) ** 2
            assert_close(total, diagonal.step_std(r, t) ** 2, atol=1e-12, rtol=1e-9)


def test_the_noises_of_two_levels_have_no_more_in_common_than_the_earlier_one_has(diagonal):
    for s, t in pairs_of_times(diagonal):
        rho, variance = diagonal.coupling(s, t), diagonal.std(s) ** 2
        assert (rho**2 <= variance * (1 + 1e-9)).all()
        assert_close(diagonal.coupling(s.expand(3), t.expand(3)), rho.expand(3, *rho.shape[1:]), atol=1e-15, rtol=1e-12)


def test_the_noises_of_two_levels_are_as_correlated_as_the_step_between_them_says(diagonal):
    zero, white = torch.zeros(1, *SHAPE, dtype=torch.float64), diagonal.basis.inverse(torch.ones(1, *SHAPE).double())
    seen = 0
    for s, t in pairs_of_times(diagonal):
        start, end = (diagonal.std(time).expand_as(zero) for time in (s, t))
        common = diagonal.coupling(s, t) * end  # of rho eps + sqrt(L(s)^2 - rho^2) z and L(t) eps
        if not invertible(diagonal, s) or not has_step(diagonal, s, t):
            assert (common == 0).any()
            continue
        passed = diagonal.step(noise(diagonal, white, s), s, t, zero) - diagonal.step(zero, s, t, zero)
        assert_close(common.expand_as(zero), start * diagonal.basis(passed), atol=1e-12, rtol=1e-9)
        seen += bool((common > 0).any())
    assert seen > 0


def test_the_noises_of_the_levels_of_a_matrix_map_are_independent(matrices):
    s, t = matrices.times[2:3].expand(3), matrices.times[3:4].expand(3)
    rho = matrices.coupling(s, t)
    assert rho.shape == (3, 1, 1, 1) and not rho.any()


def test_no_step_starts_where_the_image_cannot_be_recovered(diagonal):
    dead = [t for t in diagonal.times.split(1) if not invertible(diagonal, t)]
    for s in dead:
        with pytest.raises(ConfigError, match=f"forward={diagonal.name} .*invertible"):
            diagonal.step(fields(1), s, s)
    assert len(dead) < len(diagonal.times)


def test_times_may_be_one_number_expanded_over_the_batch(diagonal):
    u, s, t = fields(), inner_time(diagonal, 1), inner_time(diagonal, 1) * 1.01
    for method, times in [("mean", (t,)), *([("increment", (s, t)), ("drift", (s,))] if invertible(diagonal, s) else [])]:
        expanded = getattr(diagonal, method)(u, *[time.expand(3) for time in times])
        assert torch.equal(expanded, getattr(diagonal, method)(u, *[time.repeat(3) for time in times]))
    assert_close(diagonal.diffusion(s.expand(3)), diagonal.diffusion(s.repeat(3)), atol=0, rtol=0, equal_nan=True)


def test_increments_tend_to_the_drift_and_steps_to_the_diffusion(diagonal):
    u, t = fields(), inner_time(diagonal)
    if not invertible(diagonal, t):
        assert not diagonal.rate(t).isfinite().all()
        return
    h = 1e-6 * t
    drift = diagonal.drift(u, t)
    assert_close(diagonal.increment(u, t, t + h) / diagonal.column(h), drift, atol=1e-3, rtol=1e-3)
    zero, white = torch.zeros_like(u), diagonal.basis.inverse(torch.ones_like(u))
    spread = diagonal.basis(diagonal.step(u, t, t + h, white) - diagonal.step(u, t, t + h, zero))
    assert_close(spread**2 / diagonal.column(h), (diagonal.diffusion(t) ** 2).expand_as(u).to(u), atol=1e-4, rtol=1e-3)


def test_the_state_dict_carries_everything_that_was_drawn(request, process):
    other, u0, t = make(request.node.callspec.params["process"]), fields(), some_times(process)
    for value in other.state_dict().values():
        value.zero_()
    other.load_state_dict(process.state_dict())
    assert torch.equal(other.mean(u0, t), process.mean(u0, t))


def test_one_config_gives_one_map(request, process):
    other, u0, t = make(request.node.callspec.params["process"]), fields(), some_times(process)
    assert torch.equal(other.times, process.times)
    assert torch.equal(other.mean(u0, t), process.mean(u0, t))
    assert torch.equal(noise(other, u0, t), noise(process, u0, t))
