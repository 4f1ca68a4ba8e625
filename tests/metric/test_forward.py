"""The report card of a map: information, conditioning and steps against closed forms, and its picture."""

import math

import numpy as np
import pytest
import torch
from feature_toys import ctx

from heatgen.check import ConfigError
from heatgen.data.module import DataSpec
from heatgen.forward.constant_velocity import ConstantVelocity
from heatgen.forward.heat import Heat
from heatgen.forward.identity import Identity
from heatgen.forward.random_matrix import RandomMatrix
from heatgen.forward.random_velocity import RandomVelocity
from heatgen.metric.forward import Forward, information
from heatgen.noise import SampleNoise
from heatgen.picture import MARGIN, cloud

SHAPE, D, K, SIGMA, N = (1, 4, 5), 20, 10, 0.05, 30


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def orthonormal(n, seed):
    return torch.linalg.qr(normal(n, n, seed=seed)).Q


def images(n=N):
    return torch.randint(0, 256, (n, *SHAPE), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)


def measure(tmp_path, process, n=N, **settings):
    return Forward(**{"levels": K + 1} | settings)(ctx(tmp_path, n=None, process=process, train=images(n)))


# information ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("n", "d"), [(50, 6), (7, 6), (6, 6), (5, 6), (4, 40)])
def test_information_is_half_the_log_of_the_determinant_of_one_plus_the_covariance(n, d):
    x = normal(n, d) * torch.linspace(0.1, 3, d, dtype=torch.float64) + 5
    expected = 0.5 * torch.linalg.slogdet(torch.eye(d).double() + x.mT.cov()).logabsdet.item() / math.log(2)
    assert information(x) == pytest.approx(expected, rel=1e-10)
    assert information(x.float()) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("n", [5, 12, 40])
def test_information_of_independent_coefficients_is_the_sum_of_half_the_logs(n):
    """States whose covariance is exactly diag(s^2 / sigma^2): columns of a basis, without their mean."""
    rank = 4
    columns = orthonormal(n - 1, seed=1)[:, :rank]
    to_mean_zero = torch.linalg.qr(torch.cat([torch.ones(n, 1).double(), normal(n, n - 1)], dim=1)).Q[:, 1:]
    s = torch.tensor([2.0, 1.0, 0.3, 0.01], dtype=torch.float64)
    states = torch.zeros(n, 9).double()
    states[:, :rank] = (n - 1) ** 0.5 * to_mean_zero @ columns * s / SIGMA
    expected = sum(0.5 * math.log2(1 + (value / SIGMA) ** 2) for value in s.tolist())
    assert information(states) == pytest.approx(expected, rel=1e-10)


def test_information_does_not_depend_on_the_basis_or_the_mean():
    x = normal(15, 8)
    assert information(x @ orthonormal(8, seed=3) + 7) == pytest.approx(information(x), rel=1e-10)


def test_states_that_are_all_equal_hold_no_information():
    assert information(normal(1, 8).expand(10, 8)) == pytest.approx(0, abs=1e-12)


# numbers of simple maps -------------------------------------------------------------------------------------------------


def test_a_map_that_fades_evenly_takes_equal_steps_and_forgets_all(tmp_path):
    result = measure(tmp_path, ConstantVelocity(SHAPE, K, SIGMA))
    series, gain = result.series, [1 - k / K for k in range(K + 1)]
    assert series["k"] == list(range(K + 1))
    assert series["step_map"] == pytest.approx([0] + [1 / K] * K, abs=1e-12)
    rms = (images().double() / 255).square().mean().item() ** 0.5
    assert series["step_images"] == pytest.approx([0] + [rms / K] * K, abs=1e-6)
    for name in ("largest", "median", "smallest"):
        assert series[f"singular_{name}"] == pytest.approx(gain, abs=1e-12)
    assert series["condition"] == [pytest.approx(1, rel=1e-12)] * K + [math.inf]
    assert series["above_noise"] == [float(0.25 * a > (SIGMA if k else 0)) for k, a in enumerate(gain)]
    x = images().flatten(1).double() / 255
    bits = [information(a * x / SIGMA) for a in gain[1:]]
    assert math.isnan(series["information"][0])
    assert series["information"][1:] == pytest.approx(bits, rel=1e-4, abs=1e-9)

    values = result.values
    assert values["information_last"] == pytest.approx(0, abs=1e-9)
    assert values["information_needed"] == pytest.approx(math.log2(N), rel=1e-12)
    assert values["identity_error"] == 0
    assert values["condition_last"] == values["condition_largest"] == math.inf
    assert values["above_noise_last"] == 0
    assert values["step_largest"] == pytest.approx(rms / K, rel=1e-6)
    assert result.facts["map"] == "constant_velocity" and result.facts["levels"] == K
    assert result.facts["noise at K"] == SIGMA and result.facts["images"] == f"{N} of fake train"
    assert result.notes == [] and result.headline == ("information_last",)


def test_a_map_that_does_nothing_takes_no_step_and_may_hold_an_image(tmp_path):
    result = measure(tmp_path, Identity(SHAPE, K, SIGMA))
    for name in ("step_map", "step_images"):
        assert result.series[name] == [0] * (K + 1)
    assert result.series["condition"] == result.series["above_noise"] == [1] * (K + 1)
    bits = information(images().flatten(1).double() / 255 / SIGMA)
    assert bits > math.log2(N)
    assert result.values["information_last"] == pytest.approx(bits, rel=1e-4)
    assert len(result.notes) == 1 and "may still hold a training image" in result.notes[0]


def test_heat_has_the_gains_of_its_modes(tmp_path):
    process = Heat(SHAPE, K, SIGMA, sigma_min=0.5, sigma_max=4)
    series = measure(tmp_path, process).series
    n, m = torch.meshgrid(torch.arange(4.0).double() / 4, torch.arange(5.0).double() / 5, indexing="ij")
    gains = (-(math.pi**2) * (n**2 + m**2) * process.times[:, None, None]).exp().flatten(1)  # (K + 1, D)
    assert series["singular_largest"] == [1] * (K + 1)
    assert series["singular_smallest"] == pytest.approx(gains.min(1).values.tolist(), rel=1e-9)
    assert series["singular_median"] == pytest.approx(gains.median(1).values.tolist(), rel=1e-9)
    assert series["condition"] == pytest.approx((1 / gains.min(1).values).tolist(), rel=1e-9)
    steps = gains.diff(dim=0).square().mean(1).sqrt().tolist()
    assert series["step_map"] == pytest.approx([0, *steps], rel=1e-9, abs=1e-12)
    shares = [(0.25 * row > (SIGMA if k else 0)).double().mean().item() for k, row in enumerate(gains)]
    assert series["above_noise"] == pytest.approx(shares) and 0 < shares[-1] < shares[5] < 1
    x = process.basis(images().double() / 255).flatten(1)
    bits = [information(row * x / SIGMA) for row in gains[1:]]
    assert series["information"][1:] == pytest.approx(bits, rel=1e-4)


def test_the_largest_condition_number_and_step_may_be_of_any_level(tmp_path):
    process = RandomMatrix(SHAPE, 6, SIGMA, acts_on="channel", seed=4)
    result = measure(tmp_path, process, levels=7)
    conditions = [torch.linalg.cond(matrix).item() for matrix in process.left]
    assert max(conditions) != conditions[-1]
    assert result.values["condition_largest"] == pytest.approx(max(conditions), rel=1e-6)
    assert result.values["condition_last"] == pytest.approx(conditions[-1], rel=1e-6)
    x = images().double().flatten(1) / 255
    steps = [(x @ step.T).square().mean().sqrt().item() for step in process.left.diff(dim=0)]
    assert result.series["step_images"] == pytest.approx([0, *steps], rel=1e-5, abs=1e-12)
    assert result.values["step_largest"] == pytest.approx(max(steps), rel=1e-5)


def test_a_random_map_is_drawn_for_each_image_and_its_matrices_are_of_the_mean(tmp_path):
    process = RandomVelocity(SHAPE, K, SIGMA, slowest=0.0, fastest=1.0)
    series = measure(tmp_path, process).series
    velocity = process.draw(SampleNoise(range(N), 0, "map"))
    x = images().double().flatten(1) / 255
    steps = (velocity / K * x).square().mean().sqrt().item()
    assert series["step_images"] == pytest.approx([0] + [steps] * K, rel=1e-5, abs=1e-12)
    assert series["step_map"] == pytest.approx([0] + [0.5 / K] * K, rel=1e-9, abs=1e-12)
    assert series["information"][-1] == pytest.approx(information((1 - velocity) * x / SIGMA), rel=1e-4)


def test_no_information_is_known_without_noise(tmp_path):
    result = measure(tmp_path, ConstantVelocity(SHAPE, K, sigma=0))
    assert all(math.isnan(bits) for bits in result.series["information"]) and result.notes == []


# levels, images, picture ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("wanted", "found"), [(2, [0, 1, 100]), (5, [0, 1, 25, 50, 75, 100]), (11, [0, 1, *range(10, 101, 10)])]
)
def test_levels_are_spread_evenly_and_level_1_is_among_them(tmp_path, wanted, found):
    assert measure(tmp_path, ConstantVelocity(SHAPE, 100, SIGMA), levels=wanted).series["k"] == found


def test_there_are_no_more_levels_than_the_map_has(tmp_path):
    assert measure(tmp_path, ConstantVelocity(SHAPE, 3, SIGMA), levels=21).series["k"] == [0, 1, 2, 3]
    assert measure(tmp_path, ConstantVelocity(SHAPE, 1, SIGMA), levels=21).series["k"] == [0, 1]


def test_as_many_images_as_asked_for_are_measured_and_all_are_to_be_named(tmp_path):
    result = measure(tmp_path, Identity(SHAPE, K, SIGMA), images=12)
    bits = information(images()[:12].flatten(1).double() / 255 / SIGMA)
    assert result.values["information_last"] == pytest.approx(bits, rel=1e-4)
    assert result.values["information_needed"] == pytest.approx(math.log2(N))
    assert result.facts["images"] == "12 of fake train"


@pytest.mark.parametrize(("levels", "columns"), [(10, 11), (4, 5), (100, 11)])
def test_the_strip_shows_four_images_from_clean_to_the_last_level(tmp_path, levels, columns):
    picture = measure(tmp_path, ConstantVelocity(SHAPE, levels, SIGMA)).pictures["states"]
    height, width = 8 * 4 + 2, 8 * 5 + 2  # enlarged eightfold, to 40 pixels, and a margin
    assert picture.size == (columns * width + 2, 4 * height + 2)
    assert np.array_equal(np.asarray(picture)[2:34:8, 2:42:8, 0], images()[0, 0])


def test_the_rows_of_the_strip_are_images(tmp_path):
    picture = measure(tmp_path, Identity(SHAPE, K, sigma=0), n=3).pictures["states"].convert("L")
    assert picture.size == (11 * 42 + 2, 3 * 34 + 2)
    for row in range(3):
        shown = [picture.getpixel((2 + 42 * column + 4, 2 + 34 * row + 4)) for column in range(11)]
        assert shown == [images()[row, 0, 0, 0].item()] * 11


def test_the_strip_of_points_is_a_row_of_clouds():
    u0 = torch.rand(30, 1, 1, 2, generator=torch.Generator().manual_seed(0))
    picture = Forward.strip(Identity((1, 1, 2), K, sigma=0), u0, DataSpec((1, 1, 2), bits=None), seed=0)
    assert picture.size == (11 * 160 + 10 * 2 * MARGIN, 160)
    for column in range(11):
        place = column * (160 + 2 * MARGIN)
        assert picture.crop((place, 0, place + 160, 160)).tobytes() == cloud(u0, size=160).tobytes()


def test_without_a_map_it_is_refused(tmp_path):
    with pytest.raises(ConfigError, match=r"needs a map.*run=DIR.*forward=NAME"):
        measure(tmp_path, None)


@pytest.mark.parametrize("settings", [{"levels": 1}, {"images": 1}, {"images": 2.5}])
def test_settings_out_of_range_are_refused_by_name(settings):
    with pytest.raises(ConfigError, match=f"^metric.{next(iter(settings))} must be a whole number of at least 2"):
        Forward(**settings)
