"""forward=neumann_heat against solvers, SciPy and the laws of heat; its units; the diffusivity that is drawn; refusals."""

import math

import pytest
import torch
from scipy.ndimage import gaussian_filter
from scipy.stats import chisquare
from torch.testing import assert_close

from heatgen.check import ConfigError
from heatgen.forward.neumann_heat import SOLVERS, NeumannHeat, finite_differences
from heatgen.noise import SampleNoise

SIZES = [(8, 8), (6, 9), (9, 6), (1, 8), (7, 1)]
STOCHASTIC = ["dct_semidiscrete", "ftcs"]  # solvers whose A(t) is a doubly stochastic matrix


def make(size=(8, 8), **options):
    return NeumannHeat((1, *size), **{"num_levels": 5, "diffusivity": 0.05, **options})


def drawn_map(size=(8, 8), **options):
    return make(size, **{"diffusivity": [0.01, 0.1], "diffusivities": 8, **options})


def field(*size, batch=1, seed=0):
    return torch.rand(batch, 1, *size, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def square(n, low, high):
    u = torch.zeros(1, 1, n, n, dtype=torch.float64)
    u[..., low:high, low:high] = 1
    return u


def time(*values):
    return torch.tensor(values, dtype=torch.float64)


def noise(samples, seed=0):
    return SampleNoise(samples, seed, "map")


def entropy(u):
    p = (u / u.sum((1, 2, 3), keepdim=True)).flatten(1)
    return -torch.special.xlogy(p, p).sum(1)


def evolution(process, u0):
    """u at 21 times from 0 to the end; whole steps where there are 5 levels of a multiple of 4 steps."""
    return torch.cat([process.mean(u0, t) for t in torch.linspace(0, 1, 21, dtype=torch.float64).split(1)])


def matrix(process, t):
    """A(t) over the pixels."""
    n = math.prod(process.shape)
    return process.mean(torch.eye(n, dtype=torch.float64).reshape(n, *process.shape), t).flatten(1).mT


# the solvers -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("steps", [20, 35])
def test_ftcs_is_the_loop_over_explicit_steps(steps):
    for size in SIZES:
        process, u0 = make(size, solver="ftcs", steps=steps), field(*size)
        for k in range(6):
            assert process.times[k] == pytest.approx(k / 5)
            loop = finite_differences(u0, k / 5, 0.05, max(1, k * steps // 5))
            assert_close(process.mean(u0, process.times[k : k + 1]), loop, atol=1e-12, rtol=0)


def test_between_two_steps_ftcs_takes_one_shorter_step():
    process, u0 = make(solver="ftcs", steps=20), field(8, 8)
    whole = finite_differences(u0, 0.35, 0.05, 7)
    assert_close(process.mean(u0, time(0.37)), finite_differences(whole, 0.02, 0.05, 1), atol=1e-12, rtol=0)
    assert_close(process.mean(u0, time(0.35)), whole, atol=1e-12, rtol=0)


def test_ftcs_takes_steps_of_at_most_a_fifth_and_every_level_is_a_whole_number_of_them():
    for levels, size in [(5, (8, 8)), (19, (16, 16)), (7, (6, 9))]:
        process = make(size, num_levels=levels, solver="ftcs")
        steps = 1 / process.dt
        assert steps == pytest.approx(round(steps)) and round(steps) % levels == 0
        assert 0.05 * process.dt * max(size) ** 2 <= 0.2 < 0.05 / (round(steps) - levels) * max(size) ** 2


def test_more_and_more_steps_tend_to_the_semidiscrete_solution_at_first_order():
    for size in SIZES:
        u0, exact = field(*size), make(size).mean(field(*size), time(0.4))
        coarse, fine = ((finite_differences(u0, 0.4, steps=steps) - exact).abs().max() for steps in (400, 800))
        assert 0 < fine < 2e-4
        assert coarse / fine == pytest.approx(2, rel=0.02)


def test_the_solvers_differ_by_a_little_on_what_is_smooth():
    u0 = make((32, 32), solver="dct_spectral").mean(square(32, 10, 20), time(0.05))
    states = [make((32, 32), solver=solver).mean(u0, time(0.2)) for solver in SOLVERS]
    for i, j in [(0, 1), (0, 2), (1, 2)]:
        assert 1e-4 < (states[i] - states[j]).abs().max() < 4e-3


@pytest.mark.parametrize("solver", SOLVERS)
def test_two_times_in_a_row_are_their_sum(solver):
    for size in SIZES:
        process, u0 = make(size, solver=solver, steps=40), field(*size)
        twice = process.mean(process.mean(u0, time(0.2)), time(0.6))
        assert_close(twice, process.mean(u0, time(0.8)), atol=1e-12, rtol=0)
        assert_close(process.ratio(time(0.2), time(0.8)), process.gain(time(0.6)), atol=1e-12, rtol=0)


@pytest.mark.parametrize("solver", SOLVERS)
def test_a_step_is_defined_where_everything_but_the_mean_has_underflowed(solver):
    process, u0 = make((16, 16), diffusivity=50, solver=solver), field(16, 16)
    s, t = process.times[3:4], process.times[4:5]
    state = process.mean(u0, s)
    assert (process.gain(s) == 0).any()
    assert_close(process.step(state, s, t, torch.zeros_like(u0)), process.mean(u0, t), atol=1e-12, rtol=0)


@pytest.mark.parametrize(("solver", "steps"), [("dct_semidiscrete", None), ("dct_spectral", None), ("ftcs", 40)])
def test_a_cosine_decays_at_its_own_rate_exactly(solver, steps):
    for size in SIZES:
        process, (height, width) = make(size, solver=solver, steps=steps), size
        rows, columns = (torch.arange(n, dtype=torch.float64) + 0.5 for n in size)
        for k, l in {(0, 0), (min(1, height - 1), min(2, width - 1)), (height - 1, width - 1)}:  # noqa: E741
            u0 = (torch.cos(math.pi * k * rows / height)[:, None] * torch.cos(math.pi * l * columns / width))[None, None]
            parts = [(2 * math.sin(math.pi * m / n / 2)) ** 2 for m, n in ((k, height), (l, width))]
            if solver == "dct_spectral":
                parts = [(math.pi * m / n) ** 2 for m, n in ((k, height), (l, width))]
            rate = 0.05 * sum(parts) * max(size) ** 2
            factor = (1 - rate / 40) ** 24 if solver == "ftcs" else math.exp(-rate * 0.6)
            assert_close(process.mean(u0, time(0.6)), factor * u0, atol=1e-12, rtol=0)


@pytest.mark.parametrize("width", [2.5, 3.0])  # in pixels; SciPy samples the kernel, which is exact where it is wide
@pytest.mark.parametrize("size", [(16, 16), (12, 20)])
def test_gaussian_smoothing_is_the_spectral_flow_of_half_its_variance(size, width):
    process, u0 = make(size, diffusivity=1, solver="dct_spectral"), field(*size)
    t = (width / max(size)) ** 2 / 2
    smoothed = gaussian_filter(u0[0, 0].numpy(), width, mode="reflect", truncate=8)
    assert_close(process.mean(u0, time(t))[0, 0], torch.from_numpy(smoothed), atol=1e-12, rtol=0)


# the laws of heat --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("solver", SOLVERS)
def test_no_heat_is_lost_and_the_walls_warm_like_the_rest(solver):
    for size in SIZES:
        process, u0 = make(size, solver=solver), field(*size)
        states = evolution(process, u0)
        assert_close(states.mean((1, 2, 3)), u0.mean().expand(21), atol=1e-12, rtol=0)
        late = make(size, diffusivity=5, solver=solver).mean(u0, time(1.0))
        assert_close(late, u0.mean().expand_as(late), atol=1e-12, rtol=0)


@pytest.mark.parametrize("solver", STOCHASTIC)
def test_the_map_is_a_doubly_stochastic_matrix(solver):
    for size in SIZES:
        process = make(size, solver=solver)
        for t in (0.013, 0.2, 1.0):
            A = matrix(process, time(t))
            assert A.min() >= -1e-15
            assert_close(A.sum(0), torch.ones(len(A), dtype=torch.float64), atol=1e-12, rtol=0)
            assert_close(A.sum(1), torch.ones(len(A), dtype=torch.float64), atol=1e-12, rtol=0)


@pytest.mark.parametrize("solver", STOCHASTIC)
@pytest.mark.parametrize("u0", [square(16, 9, 16), field(16, 16), field(16, 16, seed=1) ** 8], ids=["hot", "any", "peaks"])
def test_no_new_extremes_appear_differences_shrink_and_disorder_grows(solver, u0):
    states = evolution(make((16, 16), solver=solver), u0)
    assert states.min() >= u0.min() - 1e-14 and states.max() <= u0.max() + 1e-14
    assert (states.amax((1, 2, 3)).diff() < 0).all() and (states.amin((1, 2, 3)).diff() > -1e-14).all()
    assert (states.square().sum((1, 2, 3)).diff() < 0).all()
    H = entropy(states.clamp(min=0))
    assert (H.diff() > 0).all() and H[-1] <= math.log(16**2)


def test_the_entropy_of_equal_temperatures_is_the_logarithm_of_the_number_of_pixels():
    late = make((16, 16), diffusivity=5).mean(field(16, 16), time(1.0))
    assert entropy(late).item() == pytest.approx(math.log(256), abs=1e-12)


def test_the_spectral_solver_undershoots_and_overshoots_at_a_sharp_edge():
    t = 0.05 / 0.05 / 50**2  # D t = 0.05 pixels^2
    u = make((50, 50), solver="dct_spectral").mean(square(50, 18, 32), time(t))
    assert u.min().item() == pytest.approx(-0.0115, abs=5e-5)
    assert u.max().item() == pytest.approx(1.0227, abs=5e-4)
    assert make((50, 50)).mean(square(50, 18, 32), time(t)).min() >= -1e-14


@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize(
    "turn",
    [lambda u: u.flip(-1), lambda u: u.flip(-2), lambda u: u.mT, lambda u: u.rot90(1, (-2, -1))],
    ids=["left_right", "up_down", "transpose", "quarter"],
)
def test_a_square_box_has_no_direction_of_its_own(turn, solver):
    process, u0 = make(solver=solver), field(8, 8)
    assert_close(process.mean(turn(u0), time(0.2)), turn(process.mean(u0, time(0.2))), atol=1e-14, rtol=0)


def test_a_separable_field_stays_separable():
    rows, columns = field(9, 1), field(1, 9)
    both = make((9, 9)).mean(rows * columns, time(0.4))
    alone = make((9, 1)).mean(rows, time(0.4)) * make((1, 9)).mean(columns, time(0.4))
    assert_close(both, alone, atol=1e-13, rtol=0)


# units -------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [(16, 16), (12, 16)])
def test_a_field_cools_at_the_same_rate_at_twice_the_resolution(size):
    for k, l in [(1, 0), (2, 1), (3, 3)]:  # noqa: E741
        lost = {}
        for scale in (1, 2):
            sizes = [scale * n for n in size]
            rows, columns = ((torch.arange(n, dtype=torch.float64) + 0.5) / n for n in sizes)
            u0 = (torch.cos(math.pi * k * rows)[:, None] * torch.cos(math.pi * l * columns))[None, None]
            for solver in SOLVERS:
                kept = (make(sizes, solver=solver).mean(u0, time(0.2)) / u0).mean().item()
                lost[solver, scale] = -math.log(kept)
        assert lost["dct_spectral", 1] == pytest.approx(lost["dct_spectral", 2], rel=1e-10)
        aspect = max(size) ** 2 / size[0] ** 2
        assert lost["dct_spectral", 1] == pytest.approx(0.01 * math.pi**2 * (k**2 * aspect + l**2), rel=1e-10)
        for solver in STOCHASTIC:
            assert lost[solver, 1] == pytest.approx(lost[solver, 2], rel=0.05)
            assert lost[solver, 2] == pytest.approx(lost["dct_spectral", 2], rel=0.03)


def test_time_and_diffusivity_enter_as_their_product():
    u0 = field(8, 8)
    assert_close(make(diffusivity=0.1).mean(u0, time(0.2)), make().mean(u0, time(0.4)), atol=1e-14, rtol=0)
    assert make(end=3.0).times.tolist() == pytest.approx([0, 0.6, 1.2, 1.8, 2.4, 3.0])
    assert make(spacing="quadratic").times.tolist() == pytest.approx([(k / 5) ** 2 for k in range(6)])


def test_frames_are_seen_through_white_noise_after_level_0():
    process = make(sigma=0.3)
    assert process.std(process.times).flatten().tolist() == [0, *[0.3] * 5]


# the diffusivity that is drawn -------------------------------------------------------------------------------------------


def test_a_fixed_diffusivity_is_the_only_one_there_is():
    process = make()
    assert process.diffusivity_grid.tolist() == [0.05] and process.diffusivity_grid.dtype == torch.float64
    assert not process.is_random and not process.withholds_cond and process.draw(noise(range(3))) is None
    assert not make(conditional=False).withholds_cond
    assert process.cond(time(0.4), time(0.2)) is None


def test_the_values_of_a_drawn_diffusivity_are_evenly_spaced_in_log_and_so_is_their_middle():
    process = make(diffusivity=[0.01, 0.1])
    grid = process.diffusivity_grid
    assert process.is_random and grid.shape == (32,) and grid.dtype == torch.float64
    assert [grid[0].item(), grid[-1].item()] == pytest.approx([0.01, 0.1], rel=1e-12)
    assert_close(grid[1:] / grid[:-1], torch.full((31,), 10 ** (1 / 31), dtype=torch.float64))
    assert process.diffusivity.item() == pytest.approx(0.1 * 0.1**0.5, rel=1e-12)
    fixed = make(diffusivity=0.1 * 0.1**0.5)
    assert_close(process.mean(field(8, 8), time(0.4)), fixed.mean(field(8, 8), time(0.4)), atol=1e-14, rtol=0)


@pytest.mark.parametrize("number", [8, 10])
def test_every_value_of_the_grid_is_drawn_equally_often(number):
    process = drawn_map(diffusivities=number)
    drawn = process.draw(noise(range(2000)))
    assert drawn.shape == (2000, 1) and drawn.dtype == torch.float64
    counts = (drawn == process.diffusivity_grid).sum(0)
    assert counts.sum() == 2000
    assert chisquare(counts).pvalue > 1e-3


def test_the_diffusivity_of_a_sample_does_not_depend_on_its_batch():
    process = make(diffusivity=[0.01, 0.1])
    together = process.draw(noise([3, 8, 5]))
    assert torch.equal(together, torch.cat([process.draw(noise([sample])) for sample in (3, 8, 5)]))
    assert not torch.equal(together, process.draw(noise([3, 8, 5], seed=1)))


@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize("shape", [(3, 1), (3,)])
def test_each_sample_cools_at_its_own_diffusivity(shape, solver):
    D, t, u0 = time(0.02, 0.05, 0.1), time(0.4, 0.2, 0.8), field(8, 8, batch=3)
    process = drawn_map(solver=solver, steps=100)
    bound = process.bind(D.reshape(shape))
    assert bound.gain(t).shape == (3, 1, 8, 8)
    alone = [make(solver=solver, steps=100, diffusivity=D[j].item()).mean(u0[j : j + 1], t[j : j + 1]) for j in range(3)]
    assert_close(bound.mean(u0, t), torch.cat(alone), atol=1e-13, rtol=0)
    assert_close(bound.mean(u0, time(0.2).expand(3)), bound.mean(u0, time(0.2)), atol=1e-14, rtol=0)
    drift = torch.cat([make(diffusivity=D[j].item()).drift(u0[j : j + 1], t[j : j + 1]) for j in range(3)])
    if solver == "dct_semidiscrete":
        assert_close(bound.drift(u0, t), drift, atol=1e-12, rtol=0)


def test_a_given_draw_leaves_the_map_as_it_was():
    process, u0 = drawn_map(), field(8, 8, batch=3)
    before = process.mean(u0, time(0.4))
    bound = process.bind(process.draw(noise(range(3))))
    assert not torch.equal(bound.mean(u0, time(0.4)), before)
    assert torch.equal(process.mean(u0, time(0.4)), before)
    assert process.bind(None) is process
    assert_close(make().bind(time(0.1)).mean(u0, time(0.4)), make(diffusivity=0.1).mean(u0, time(0.4)), atol=1e-14, rtol=0)


def test_the_network_is_told_the_standardised_logarithm_of_the_diffusivity():
    process = drawn_map(conditional=True)
    bound = process.bind(process.diffusivity_grid)
    cond = bound.cond(time(0.4).expand(8), time(0.2).expand(8))
    assert cond.shape == (8, 2) and not cond[:, 1].any()
    assert cond[:, 0].mean().item() == pytest.approx(0, abs=1e-12)
    assert cond[:, 0].square().mean().item() == pytest.approx(1)
    assert_close(cond[:, 0].diff(), cond[1, 0].sub(cond[0, 0]).expand(7), atol=1e-12, rtol=0)
    assert torch.equal(bound.cond(time(0.4), time(0.2)), cond)
    assert torch.equal(process.cond(time(0.4).expand(3), time(0.2).expand(3)), torch.zeros(3, 2).double())


def test_a_map_that_is_not_conditional_is_hidden_from_the_network():
    bound = (process := drawn_map(conditional=False)).bind(process.draw(noise(range(3))))
    assert process.withholds_cond and bound.withholds_cond
    assert bound.cond(time(0.4).expand(3), time(0.2).expand(3)) is None
    assert drawn_map().withholds_cond and not drawn_map(conditional=True).withholds_cond


# refusals ----------------------------------------------------------------------------------------------------------------


def unstable(number, size=(8, 8), steps=20, **options):
    """A map of 20 steps with this D dt / h^2."""
    return make(size, solver="ftcs", steps=steps, diffusivity=number * steps / max(size) ** 2, **options)


def test_steps_above_a_quarter_are_unstable_and_refused_with_the_least_number():
    with pytest.raises(
        ConfigError, match=r"^forward\.steps = 20 is unstable, .* = 0\.26 is above 0\.25; use at least 25\.$"
    ):
        unstable(0.26)
    make(solver="ftcs", steps=25, diffusivity=0.26 * 20 / 64)
    unstable(0.25)
    u = finite_differences(field(8, 8), 1.0, 0.25 * 500 / 64, 500)
    assert u.abs().max() < 1
    with pytest.raises(ValueError, match=r"^20 explicit steps are unstable here; take at least 21\.$"):
        finite_differences(u, 1.0, 0.26 * 20 / 64, 20)


def test_the_finest_wave_would_grow_without_bound():
    steps = {a: (1 - a * make((50, 50)).eigenvalues / 2500).abs().max() for a in (0.2, 0.25, 0.2505, 0.26)}
    assert steps[0.2] <= 1 and steps[0.25] <= 1 < steps[0.2505] and steps[0.26] ** 500 > 1e15


def test_in_one_dimension_half_is_the_limit():
    unstable(0.5, (1, 8))
    with pytest.raises(ConfigError, match=r"^forward\.steps = 20 .* above 0\.5; use at least 25\.$"):
        unstable(0.51, (8, 1))


def test_the_largest_diffusivity_of_a_draw_decides_and_so_does_a_given_one():
    with pytest.raises(ConfigError, match=r"^forward\.steps = 20 is unstable"):
        drawn_map(solver="ftcs", steps=20)
    process = drawn_map(solver="ftcs", steps=30)
    with pytest.raises(ConfigError, match=r"^forward\.steps = 30 is unstable"):
        process.bind(time(0.05, 0.2))


@pytest.mark.parametrize("options", [{"steps": 33}, {"spacing": "log"}, {"spacing": "quadratic"}])
def test_levels_between_two_steps_are_refused(options):
    with pytest.raises(ConfigError, match=r"^forward\.solver=ftcs needs levels that are whole steps; .*num_levels = 5"):
        make(solver="ftcs", **options)
    make(**options)


def test_quadratic_levels_of_whole_steps_are_taken():
    process = make(solver="ftcs", spacing="quadratic", steps=50)
    loop = finite_differences(field(8, 8), 0.16, steps=8)
    assert_close(process.mean(field(8, 8), process.times[2:3]), loop, atol=1e-12, rtol=0)


def test_a_wrong_value_is_refused_by_the_name_of_its_key():
    for key, values in [
        ("diffusivity", {"diffusivity": 0}),
        ("diffusivity", {"diffusivity": "fast"}),
        ("diffusivity", {"diffusivity": None}),
        ("diffusivity", {"diffusivity": [0.1]}),
        ("diffusivity", {"diffusivity": [0.1, 0.1]}),
        ("diffusivity", {"diffusivity": [0.1, 0.01]}),
        ("diffusivity", {"diffusivity": [0, 0.1]}),
        ("diffusivities", {"diffusivity": [0.01, 0.1], "diffusivities": 1}),
        ("conditional", {"conditional": "no"}),
        ("solver", {"solver": "dct"}),
        ("spacing", {"spacing": "even"}),
        ("steps", {"steps": 0}),
        ("end", {"end": 0}),
        ("num_levels", {"num_levels": 0}),
        ("sigma", {"sigma": -1}),
    ]:
        with pytest.raises(ConfigError, match=rf"^forward\.{key} must be"):
            make(**values)
