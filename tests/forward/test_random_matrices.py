"""The maps of random matrices: what they do to an image, what they are like, and that they are always the same."""

import math
import os
import subprocess
import sys
import warnings

import pytest
import torch
from torch.testing import assert_close

import heatgen.forward.matrix
from heatgen.check import ConfigError
from heatgen.forward.heat import Heat
from heatgen.forward.random_basis_heat import RandomBasisHeat
from heatgen.forward.random_matrix import RandomMatrix
from heatgen.forward.random_product import RandomProduct

SHAPE = (2, 4, 6)
MATRICES = [RandomMatrix, RandomProduct]
ALL = [*MATRICES, RandomBasisHeat]


def field(batch=6, shape=SHAPE, dtype=torch.float64):
    return torch.rand(batch, *shape, generator=torch.Generator().manual_seed(0), dtype=dtype)


def eye(size):
    return torch.eye(size, dtype=torch.float64)


def rotations(size=28, num_levels=100, **options):
    return RandomProduct((1, size, size), num_levels, factors="haar", decay="none", **options).left


def condition_number(matrix):
    values = torch.linalg.svdvals(matrix)
    return (values[..., 0] / values[..., -1]).median().item()


@pytest.mark.parametrize(("acts_on", "other"), [("rows", "rows_and_columns"), ("rows_and_columns", "channel")])
@pytest.mark.parametrize("kind", ALL)
def test_what_a_map_acts_on_makes_another_map(kind, acts_on, other):
    if kind is RandomBasisHeat and acts_on == "rows":
        acts_on = "channel"
    one, two = (kind(SHAPE, num_levels=5, acts_on=acts) for acts in (acts_on, other))
    assert not torch.allclose(one.mean(field(), one.times), two.mean(field(), two.times), atol=1e-3)


@pytest.mark.parametrize("kind", MATRICES)
def test_acting_on_rows_turns_every_column_of_pixels_by_one_matrix(kind):
    process, u0 = kind(SHAPE, num_levels=5, acts_on="rows"), field()
    expected = torch.einsum("khi,kciw->kchw", process.left, u0)
    assert process.right is None
    assert process.left.shape == (6, 4, 4)
    assert_close(process.mean(u0, process.times), expected, atol=1e-13, rtol=0)


@pytest.mark.parametrize("kind", MATRICES)
def test_acting_on_rows_mixes_nothing_across_columns_or_channels(kind):
    process, u0 = kind(SHAPE, num_levels=5, acts_on="rows"), field()
    changed = u0.clone()
    changed[:, 1, :, 2] += 1
    difference = (process.mean(changed, process.times) - process.mean(u0, process.times)).abs().amax(2) > 1e-9
    assert difference[1:5, 1, 2].all()
    difference[:, 1, 2] = False
    assert not difference.any()


@pytest.mark.parametrize("kind", MATRICES)
def test_acting_on_rows_and_columns_has_a_matrix_for_each(kind):
    process, u0 = kind(SHAPE, num_levels=5, acts_on="rows_and_columns"), field()
    expected = torch.einsum("khi,kwj,kcij->kchw", process.left, process.right, u0)
    assert process.left.shape == (6, 4, 4)
    assert process.right.shape == (6, 6, 6)
    assert_close(process.mean(u0, process.times), expected, atol=1e-13, rtol=0)


@pytest.mark.parametrize("kind", MATRICES)
def test_acting_on_a_channel_mixes_all_its_pixels_flattened_row_by_row(kind):
    process, u0 = kind(SHAPE, num_levels=5, acts_on="channel"), field()
    expected = torch.einsum("kpq,kcq->kcp", process.left, u0.flatten(2)).reshape(u0.shape)
    assert process.left.shape == (6, 24, 24)
    assert_close(process.mean(u0, process.times), expected, atol=1e-13, rtol=0)


@pytest.mark.parametrize("kind", MATRICES)
def test_the_two_axes_of_a_square_image_have_different_matrices(kind):
    process = kind((1, 5, 5), 3, acts_on="rows_and_columns")
    assert (process.left[1] - process.right[1]).abs().max() > 0.1


@pytest.mark.parametrize("acts_on", ["rows", "rows_and_columns", "channel"])
@pytest.mark.parametrize("kind", MATRICES)
def test_level_0_is_the_identity_and_levels_of_a_batch_may_be_in_any_order(kind, acts_on):
    process, u0, order = kind(SHAPE, num_levels=5, acts_on=acts_on), field(), [4, 0, 5, 2, 2, 1]
    assert torch.equal(process.left[0], eye(len(process.left[0])))
    assert_close(process.mean(u0, process.times[:1].expand(6)), u0, atol=1e-15, rtol=0)
    together = process.mean(u0, process.times[order])
    alone = torch.cat([process.mean(u0[i : i + 1], process.times[k : k + 1]) for i, k in enumerate(order)])
    assert_close(together, alone, atol=1e-14, rtol=0)


@pytest.mark.parametrize("acts_on", ["rows", "rows_and_columns", "channel"])
@pytest.mark.parametrize("kind", MATRICES)
def test_singular_values_and_norms_are_those_of_the_map_on_all_pixels(kind, acts_on):
    process, pixels = kind(SHAPE, num_levels=5, acts_on=acts_on), eye(48).reshape(48, *SHAPE)
    s, t = process.times[2:3], process.times[3:4]
    start, end = (process.mean(pixels, time.expand(48)).flatten(1) for time in (s, t))
    assert_close(process.singular_values(t), torch.linalg.svdvals(end), atol=1e-12, rtol=0)
    assert process.frobenius(t) == pytest.approx(end.norm().item(), rel=1e-12)
    assert process.frobenius(t, s) == pytest.approx((end - start).norm().item(), rel=1e-12)


@pytest.mark.parametrize("acts_on", ["rows_and_columns", "channel"])
@pytest.mark.parametrize("kind", ALL)
def test_the_seed_makes_the_map(kind, acts_on):
    first, again, other = (kind(SHAPE, num_levels=5, acts_on=acts_on, seed=seed).state_dict() for seed in (3, 3, 4))
    assert first
    assert all(torch.equal(first[key], again[key]) for key in first)
    assert all((first[key] - other[key]).abs().max() > 0.1 for key in first)


@pytest.mark.parametrize(
    ("kind", "acts_on", "keys"),
    [
        *[(kind, "rows", {"left"}) for kind in MATRICES],
        *[(kind, "rows_and_columns", {"left", "right"}) for kind in MATRICES],
        *[(kind, "channel", {"left"}) for kind in MATRICES],
        (RandomBasisHeat, "rows_and_columns", {"basis.rows", "basis.columns"}),
        (RandomBasisHeat, "channel", {"basis.matrix"}),
    ],
)
def test_what_was_drawn_is_in_the_checkpoint_and_comes_back_from_it(kind, acts_on, keys):
    saved, other = (kind(SHAPE, num_levels=5, acts_on=acts_on, seed=seed) for seed in (1, 2))
    assert set(saved.state_dict()) == keys
    assert all(value.dtype == torch.float64 for value in saved.state_dict().values())
    other.load_state_dict(saved.state_dict())
    assert torch.equal(other.mean(field(), other.times), saved.mean(field(), saved.times))


@pytest.mark.parametrize("acts_on", ["rows_and_columns", "channel"])
@pytest.mark.parametrize(
    ("kind", "options"), [(RandomMatrix, {}), *[(RandomProduct, {"factors": f}) for f in ("haar", "near_identity")]]
)
def test_a_level_does_not_depend_on_how_many_follow(kind, options, acts_on):
    decay = {} if kind is RandomMatrix else {"decay": "none"}
    short, long = (kind(SHAPE, levels, acts_on=acts_on, **options, **decay) for levels in (5, 9))
    assert torch.equal(short.left, long.left[:6])
    assert short.right is None or torch.equal(short.right, long.right[:6])


CHECKSUMS = """
import torch
from heatgen.forward.random_basis_heat import RandomBasisHeat
from heatgen.forward.random_matrix import RandomMatrix
from heatgen.forward.random_product import RandomProduct

for kind in (RandomMatrix, RandomProduct, RandomBasisHeat):
    for value in kind((2, 4, 6), num_levels=5, acts_on="rows_and_columns", seed=7).state_dict().values():
        print((value.flatten() * torch.arange(1, value.numel() + 1)).sum().item())
"""


@pytest.mark.slow
def test_another_process_draws_the_same_matrices(capsys):
    exec(CHECKSUMS)
    here = [float(line) for line in capsys.readouterr().out.split()]
    environment = {**os.environ, "PYTHONHASHSEED": "5", "OMP_NUM_THREADS": "1"}
    there = subprocess.run([sys.executable, "-c", CHECKSUMS], env=environment, capture_output=True, text=True, check=True)
    assert len(here) == 6
    assert [float(line) for line in there.stdout.split()] == pytest.approx(here, abs=1e-9)


# random_matrix ----------------------------------------------------------------------------------------------------------


def test_a_random_matrix_keeps_the_energy_of_an_image_in_expectation():
    process, u0 = RandomMatrix((1, 28, 1), 400), field(1, (1, 28, 1))
    energy = process.mean(u0.expand(400, -1, -1, -1), process.times[1:]).square().sum((1, 2, 3)) / u0.square().sum()
    error = 4 * (2 / 28 / 400) ** 0.5  # the ratio is chi-squared with 28 degrees of freedom, over 28
    assert energy.mean().item() == pytest.approx(1, abs=error)


def test_acting_on_both_axes_keeps_the_energy_of_an_image_in_expectation():
    process, u0 = RandomMatrix((1, 8, 12), 400, acts_on="rows_and_columns"), field(1, (1, 8, 12))
    energy = process.mean(u0.expand(400, -1, -1, -1), process.times[1:]).square().sum((1, 2, 3)) / u0.square().sum()
    assert energy.mean().item() == pytest.approx(1, abs=4 * energy.std().item() / 20)


def test_the_entries_of_a_random_matrix_are_independent_and_normal():
    entries = RandomMatrix((1, 28, 28), 100).left[1:] * 28**0.5
    n = entries.numel()
    assert entries.mean().item() == pytest.approx(0, abs=4 / n**0.5)
    assert entries.var().item() == pytest.approx(1, abs=4 * (2 / n) ** 0.5)
    assert entries.pow(4).mean().item() == pytest.approx(3, abs=4 * (96 / n) ** 0.5)
    products = [entries[1:] * entries[:-1], entries[:, 1:] * entries[:, :-1], entries[..., 1:] * entries[..., :-1]]
    assert all(abs(product.mean().item()) < 4 / product.numel() ** 0.5 for product in products)


def test_random_matrices_are_as_badly_conditioned_as_gaussian_ones():
    assert 75 < condition_number(RandomMatrix((1, 28, 28), 200).left[1:]) < 120


# random_product ---------------------------------------------------------------------------------------------------------


def test_a_thousand_rotations_are_still_a_rotation():
    matrices = rotations(num_levels=1000)
    assert (matrices.mT @ matrices - eye(28)).abs().max() < 1e-12
    assert_close(torch.linalg.det(matrices).abs(), torch.ones(1001).double(), atol=1e-12, rtol=0)


def test_a_thousand_rotations_applied_in_float32_keep_the_energy_of_an_image():
    process, u0 = RandomProduct((1, 12, 12), 1000, decay="none"), field(1, (1, 12, 12), torch.float32)
    state = process.mean(u0, process.times[-1:])
    assert state.dtype == torch.float32
    assert_close(state.square().sum(), u0.square().sum(), atol=0, rtol=1e-5)
    matrix = process.left[-1].float()
    assert (matrix.mT @ matrix - torch.eye(12)).abs().max() < 1e-5


@pytest.mark.parametrize(
    ("decay", "gains"),
    [("none", [1, 1, 1, 1, 1]), ("velocity", [1, 0.75, 0.5, 0.25, 0]), ("deceleration", [1, 0.5625, 0.25, 0.0625, 0])],
)
@pytest.mark.parametrize("acts_on", ["rows", "rows_and_columns", "channel"])
def test_the_decay_of_a_product_of_rotations_is_all_it_forgets(decay, gains, acts_on):
    process, u0 = RandomProduct(SHAPE, 4, decay=decay, acts_on=acts_on), field(1)
    for t, gain in zip(process.times.split(1), gains, strict=True):
        assert_close(process.singular_values(t), torch.full((48,), float(gain)).double(), atol=1e-13, rtol=0)
        assert_close(process.mean(u0, t).norm(), gain * u0.norm(), atol=1e-13, rtol=0)


def test_a_product_of_rotations_decelerates_by_default():
    default, explicit = (
        RandomProduct(SHAPE, 4),
        RandomProduct(SHAPE, 4, factors="haar", decay="deceleration", acts_on="rows"),
    )
    assert torch.equal(default.left, explicit.left)
    plain = RandomProduct(SHAPE, 4, decay="none")
    assert_close(default.left[2], plain.left[2] / 4, atol=1e-15, rtol=0)


def test_each_level_turns_the_one_before_by_a_new_rotation():
    matrices = rotations()
    factors = matrices[1:] @ matrices[:-1].mT
    assert (factors.mT @ factors - eye(28)).abs().max() < 1e-12
    overlap = (factors[1:] * factors[:-1]).sum((1, 2))  # of unit variance where they are independent
    assert overlap.mean().item() == pytest.approx(0, abs=4 / 99**0.5)
    assert overlap.square().mean().item() == pytest.approx(1, abs=4 * (2 / 99) ** 0.5)
    determinants = torch.linalg.det(factors)
    assert (determinants > 0).any()
    assert (determinants < 0).any()


def test_each_level_multiplies_the_one_before_from_the_left_by_a_factor_near_the_identity():
    size, epsilon = 16, 0.2
    matrices = RandomProduct((1, size, size), 60, factors="near_identity", epsilon=epsilon, decay="none").left
    factors = torch.linalg.solve(matrices[:-1], matrices[1:], left=False)
    gaussian = (factors * (1 + epsilon**2) ** 0.5 - eye(size)) * size**0.5 / epsilon
    n = gaussian.numel()
    assert gaussian.mean().item() == pytest.approx(0, abs=4 / n**0.5)
    assert gaussian.var().item() == pytest.approx(1, abs=4 * (2 / n) ** 0.5)
    assert gaussian[-10:].var().item() == pytest.approx(1, abs=4 * (2 / (10 * size**2)) ** 0.5)


def test_a_product_near_the_identity_stays_well_conditioned():
    options = {"factors": "near_identity", "decay": "none", "epsilon": 0.1}
    last = torch.stack([RandomProduct((1, 28, 28), 100, seed=seed, **options).left[-1] for seed in range(9)])
    assert 12 < condition_number(last) < 24
    energy = last.square().sum((1, 2)) / 28
    assert energy.mean().item() == pytest.approx(1, abs=0.2)


@pytest.mark.parametrize("factors", ["haar", "near_identity"])
def test_a_stable_product_is_valid_at_a_hundred_levels(factors):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        RandomProduct((1, 28, 28), 100, factors=factors).validate()


@pytest.mark.parametrize("kind", ["matrix", "product"])
def test_a_map_that_loses_nothing_warns(kind):
    process = RandomMatrix((1, 8, 8), 3, sigma=0.001) if kind == "matrix" else RandomProduct((1, 8, 8), 3, decay="none")
    with pytest.warns(UserWarning, match=rf"forward=random_{kind} keeps .* copies of training images"):
        process.validate()


# random_basis_heat ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("acts_on", ["rows_and_columns", "channel"])
def test_heat_in_a_random_basis_forgets_as_fast_as_heat_but_is_another_map(acts_on):
    process, heat, u0 = RandomBasisHeat(SHAPE, num_levels=5, acts_on=acts_on), Heat(SHAPE, num_levels=5), field()
    assert torch.equal(process.times, heat.times)
    for k, t in enumerate(heat.times.split(1)):
        pixels = eye(48).reshape(48, *SHAPE)
        values = torch.linalg.svdvals(process.mean(pixels, t.expand(48)).flatten(1))
        assert_close(values, heat.singular_values(t), atol=1e-10, rtol=0)
        assert_close(process.singular_values(t), heat.singular_values(t), atol=1e-12, rtol=0)
        assert k == 0 or (process.mean(u0, t.expand(6)) - heat.mean(u0, t.expand(6))).abs().max() > 0.05


@pytest.mark.parametrize("acts_on", ["rows_and_columns", "channel"])
def test_heat_in_a_random_basis_is_a_semigroup(acts_on):
    process, u0 = RandomBasisHeat(SHAPE, acts_on=acts_on), field()
    s, t = torch.full((6,), 0.7, dtype=torch.float64), torch.linspace(0, 2, 6, dtype=torch.float64)
    assert_close(process.mean(process.mean(u0, s), t), process.mean(u0, s + t), atol=1e-13, rtol=0)
    assert_close(process.step(process.mean(u0, s), s, s + t, 0 * u0), process.mean(u0, s + t), atol=1e-13, rtol=0)


def decays(t):
    n, m = torch.meshgrid(torch.arange(4).double() / 4, torch.arange(6).double() / 6, indexing="ij")
    return (-(math.pi**2) * (n**2 + m**2) * t).exp()


def test_on_rows_and_columns_each_axis_is_turned_decays_and_is_turned_back():
    process, u0 = RandomBasisHeat(SHAPE, acts_on="rows_and_columns"), field()
    rows, columns = process.basis.rows, process.basis.columns
    expected = torch.einsum("nh,mw,nm,ni,mj,bcij->bchw", rows, columns, decays(0.3), rows, columns, u0)
    assert_close(rows @ rows.mT, eye(4), atol=1e-13, rtol=0)
    assert_close(columns @ columns.mT, eye(6), atol=1e-13, rtol=0)
    assert_close(process.mean(u0, torch.full((6,), 0.3, dtype=torch.float64)), expected, atol=1e-13, rtol=0)


def test_on_a_channel_all_its_pixels_are_turned_decay_and_are_turned_back():
    process, u0 = RandomBasisHeat(SHAPE, acts_on="channel"), field()
    matrix = process.basis.matrix
    expected = torch.einsum("pr,r,qr,bcq->bcp", matrix, decays(0.3).flatten(), matrix, u0.flatten(2)).reshape(u0.shape)
    assert_close(matrix.mT @ matrix, eye(24), atol=1e-13, rtol=0)
    assert_close(process.mean(u0, torch.full((6,), 0.3, dtype=torch.float64)), expected, atol=1e-13, rtol=0)


def test_the_two_axes_of_a_square_image_are_turned_differently():
    basis = RandomBasisHeat((1, 5, 5)).basis
    assert (basis.rows - basis.columns).abs().max() > 0.1


def test_heat_in_a_random_basis_takes_the_options_of_heat():
    options = {"num_levels": 5, "sigma": 0.2, "sigma_min": 0.3, "sigma_max": 4.0}
    process, heat = RandomBasisHeat(SHAPE, **options), Heat(SHAPE, **options)
    assert torch.equal(process.times, heat.times)
    assert torch.equal(process.std(process.times), heat.std(heat.times))
    with pytest.raises(ConfigError, match=r"^forward\.sigma_max must be greater than"):
        RandomBasisHeat(SHAPE, sigma_max=0.5)


# refusals ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "instead"),
    [
        *[(kind, "use forward.acts_on=rows, or forward=random_basis_heat") for kind in MATRICES],
        (RandomBasisHeat, "use forward.acts_on=rows_and_columns"),
    ],
)
def test_matrices_of_all_pixels_of_a_large_image_are_refused_before_they_are_made(monkeypatch, kind, instead):
    monkeypatch.setattr(heatgen.forward.matrix, "memory", lambda: 64 * 2**30)
    with pytest.raises(ConfigError, match=rf"^forward\.acts_on=channel.* 262144 x 262144,.* 64 GiB; {instead}\.$"):
        kind((3, 512, 512), acts_on="channel")


@pytest.mark.parametrize(
    ("kind", "acts_on", "needed"),
    [*[(kind, "rows", 6 * 4**2 * 8) for kind in MATRICES], *[(kind, "channel", 6 * 24**2 * 8) for kind in MATRICES]],
)
def test_matrices_may_take_half_of_the_memory_and_no_more(monkeypatch, kind, acts_on, needed):
    monkeypatch.setattr(heatgen.forward.matrix, "memory", lambda: 2 * needed)
    assert len(kind(SHAPE, num_levels=5, acts_on=acts_on).left) == 6
    monkeypatch.setattr(heatgen.forward.matrix, "memory", lambda: 2 * needed - 1)
    with pytest.raises(ConfigError, match=rf"^forward\.acts_on={acts_on} needs 6 matrices"):
        kind(SHAPE, num_levels=5, acts_on=acts_on)


def test_the_memory_of_this_machine_is_counted_in_bytes():
    assert 2**28 < heatgen.forward.matrix.memory() < 2**50


def test_a_wrong_value_is_refused_by_the_name_of_its_key():
    for kind, key, value in [
        *[(kind, "acts_on", value) for kind in ALL for value in ("columns", None)],
        *[(kind, "seed", value) for kind in ALL for value in (-1, "a", 0.5, None)],
        *[(kind, "num_levels", value) for kind in ALL for value in (0, "many")],
        *[(kind, "sigma", value) for kind in ALL for value in (-1, "small")],
        (RandomBasisHeat, "acts_on", "rows"),
        (RandomProduct, "factors", "rotations"),
        (RandomProduct, "decay", "velocities"),
        (RandomProduct, "epsilon", 0),
        (RandomProduct, "epsilon", "small"),
    ]:
        with pytest.raises(ConfigError, match=rf"^forward\.{key} must be"):
            kind(SHAPE, **{key: value})
