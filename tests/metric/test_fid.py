"""Distances between features: FID and KID, of splits and of samples, and the cache of the data's features."""

import os
from pathlib import Path

import numpy as np
import pytest
import scipy.linalg
import torch
from feature_toys import CPU, ctx, faithful, flat, script
from torch import nn
from torchmetrics.image.fid import _compute_fid
from torchmetrics.image.kid import poly_mmd

from heatgen.check import ConfigError
from heatgen.metric.extractor import FILE, Inception
from heatgen.metric.features import too_few
from heatgen.metric.fid import FID, frechet_distance
from heatgen.metric.kid import KID, polynomial_mmd
from heatgen.metric.reduction import Moments

REAL = os.environ.get("HEATGEN_INCEPTION")


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def features(n, d, seed):
    """Correlated features with a mean."""
    return normal(n, d, seed=seed) @ normal(d, d, seed=seed + 1) + normal(d, seed=seed + 2)


def moments(x):
    return Moments.of(x.split(7)).gaussian


# distances --------------------------------------------------------------------------------------------------------------


def test_moments_are_the_mean_and_the_unbiased_covariance():
    x = features(9, 4, seed=0)
    mean, covariance = moments(x.float())
    assert mean.dtype == covariance.dtype == torch.float64
    assert np.allclose(mean, x.numpy().mean(0), atol=1e-6) and np.allclose(covariance, np.cov(x.numpy().T), atol=1e-5)


def test_equal_moments_have_no_distance():
    mean, covariance = moments(features(200, 20, seed=0))
    assert frechet_distance(mean, covariance, mean, covariance) < 1e-9 * covariance.trace()


def test_a_shift_of_unit_gaussians_costs_its_square():
    shift, identity = normal(30), torch.eye(30, dtype=torch.float64)
    distance = frechet_distance(torch.zeros(30, dtype=torch.float64), identity, shift, identity)
    assert distance == pytest.approx(shift.square().sum().item(), rel=1e-12)


def test_diagonal_covariances_cost_the_squared_differences_of_their_roots():
    a, b, zero = normal(30).square(), normal(30, seed=1).square(), torch.zeros(30, dtype=torch.float64)
    expected = (a.sqrt() - b.sqrt()).square().sum().item()
    assert frechet_distance(zero, a.diag(), zero, b.diag()) == pytest.approx(expected, rel=1e-12)


def test_the_distance_is_the_one_of_scipys_matrix_root_and_of_torchmetrics():
    first, second = moments(features(300, 40, seed=0)), moments(features(200, 40, seed=5))
    root = scipy.linalg.sqrtm(first[1].numpy() @ second[1].numpy()).real
    trace = np.trace(first[1].numpy() + second[1].numpy() - 2 * root)
    by_scipy = ((first[0] - second[0]).square().sum() + trace).item()
    distance = frechet_distance(*first, *second)
    assert distance == pytest.approx(by_scipy, rel=1e-9)
    assert distance == pytest.approx(_compute_fid(*first, *second).item(), rel=1e-9)


def test_covariances_without_full_rank_are_measured_exactly():
    first, second = moments(features(12, 64, seed=0)), moments(features(20, 64, seed=5))
    distance = frechet_distance(*first, *second)
    assert distance == pytest.approx(_compute_fid(*first, *second).item(), rel=1e-4)
    u, v, zero = normal(64), normal(64, seed=1), torch.zeros(64, dtype=torch.float64)
    expected = (u @ u + v @ v - 2 * (u @ v).abs()).item()  # tr (u u^T v v^T)^(1/2) = |u . v|
    assert frechet_distance(zero, u.outer(u), zero, v.outer(v)) == pytest.approx(expected, rel=1e-6)


def test_the_distance_is_symmetric_without_full_rank_too():
    for n, m in ((60, 30), (12, 20)):
        first, second = moments(features(n, 40, seed=0)), moments(features(m, 40, seed=5))
        assert frechet_distance(*first, *second) == pytest.approx(frechet_distance(*second, *first), rel=1e-12)


def test_the_kernel_distance_is_the_one_of_torchmetrics():
    x, y = features(50, 16, seed=0), features(50, 16, seed=5)
    assert polynomial_mmd(x, y) == pytest.approx(poly_mmd(x, y).item(), rel=1e-12)


def test_the_kernel_distance_of_sets_of_unequal_sizes_leaves_out_each_features_pair_with_itself():
    x, y = features(4, 3, seed=0), features(6, 3, seed=5)

    def mean(a, b, same):
        return np.mean(
            [(p @ q / 3 + 1).item() ** 3 for i, p in enumerate(a) for j, q in enumerate(b) if not (same and i == j)]
        )

    assert polynomial_mmd(x, y) == pytest.approx(mean(x, x, True) + mean(y, y, True) - 2 * mean(x, y, False), rel=1e-12)


def test_the_kernel_distance_of_one_distribution_is_zero_in_expectation():
    values = torch.tensor([polynomial_mmd(normal(20, 8, seed=2 * i), normal(12, 8, seed=2 * i + 1)) for i in range(400)])
    error = values.std() / 20
    assert abs(values.mean()) < 4 * error
    biased = 8 * (1 / 20 + 1 / 12) / 8  # what the diagonals would add is at least this
    assert error < biased / 10


@pytest.fixture
def weights(tmp_path):
    """A stand-in for Inception: 12 means of (x - 128) / 128, over the quarters of each channel."""
    return str(script(tmp_path / "stand-in.pt", nn.AdaptiveAvgPool2d(2), nn.Flatten()))


TRAIN, TEST = [0, 30, 90, 120, 200, 255, 17], [10, 20, 60, 250]


def expected_fid(train, test):
    """All 12 features of an image are one number, so covariances are of rank 1."""
    a, b = ((np.array(v) - 128) / 128 for v in (train, test))
    return 12 * ((a.mean() - b.mean()) ** 2 + (a.std(ddof=1) - b.std(ddof=1)) ** 2)


# end to end -------------------------------------------------------------------------------------------------------------


def test_fid_of_two_splits_is_the_closed_form_and_says_that_few_images_bias_it(tmp_path, weights):
    result = FID(source="test", weights=weights)(ctx(tmp_path, train=flat(TRAIN), test=flat(TEST)))
    assert result.values["fid"] == pytest.approx(expected_fid(TRAIN, TEST), rel=1e-5)
    assert result.facts["n"] == 4 and result.facts["reference"] == "fake train, 7 images"
    assert len(result.notes) == 1 and "only 4 images, fewer than the 12 features" in result.notes[0]


@pytest.mark.parametrize(("samples", "reference", "notes"), [(12, 12, 0), (11, 12, 1), (12, 11, 1), (40, 12, 0)])
def test_a_distance_is_called_biased_below_one_image_a_feature_on_either_side(samples, reference, notes):
    found = too_few(*(Moments.of([torch.zeros(n, 12)]) for n in (samples, reference)))
    assert len(found) == notes and all("only 11 images, fewer than the 12 features" in note for note in found)


def test_kid_of_two_splits_is_the_closed_form(tmp_path, weights):
    metric = KID(source="test", weights=weights, subsets=3, subset_size=4, reference_n=4)
    result = metric(ctx(tmp_path, train=flat(TEST), test=flat([200, 210, 220, 230])))
    a, b = (torch.tensor((np.array(v) - 128) / 128)[:, None].expand(-1, 12) for v in ([200, 210, 220, 230], TEST))
    assert result.values["kid"] == pytest.approx(poly_mmd(a, b).item(), rel=1e-5)
    assert result.facts["subset_size"] == 4 and result.facts["subsets"] == 1  # three times the same four would be no spread
    assert "std_over_subsets" not in result.facts and "no standard error: it needs 20" in result.notes[-1]


def test_features_of_the_data_are_kept_and_used_again(tmp_path, weights, monkeypatch):
    first = FID(source="test", weights=weights)(ctx(tmp_path, train=flat(TRAIN), test=flat(TEST)))
    stored = sorted((tmp_path / "statistics").iterdir())
    assert sorted(int(np.load(path)["n"]) for path in stored if path.suffix == ".npz") == [4, 7]
    assert sorted(len(np.load(path)) for path in stored if path.suffix == ".npy") == [4, 7] and len(stored) == 4

    def forbidden(self, images):
        if len(images) > 1:  # the first one is looked at, whether the file is of it
            raise AssertionError("the extractor was called")
        return true(self, images)

    true = Inception.__call__
    monkeypatch.setattr(Inception, "__call__", forbidden)
    second = FID(source="test", weights=weights)(ctx(tmp_path, train=flat(TRAIN), test=flat(TEST)))
    assert second.values == first.values and sorted((tmp_path / "statistics").iterdir()) == stored
    changed = flat(TRAIN)
    changed[3, 0, 2, 2] += 1
    with pytest.raises(AssertionError, match="the extractor was called"):
        FID(source="test", weights=weights)(ctx(tmp_path, train=changed, test=flat(TEST)))
    with pytest.raises(AssertionError, match="the extractor was called"):
        FID(source="test", weights=weights, reference_n=6)(ctx(tmp_path, train=flat(TRAIN), test=flat(TEST)))


def test_kept_features_belong_to_the_network_they_were_taken_with(tmp_path):
    values = []
    for i, scale in enumerate((1.0, 3.0)):
        (tmp_path / str(i)).mkdir()
        mix = nn.Linear(12, 4, bias=False)
        nn.init.constant_(mix.weight, scale)
        path = script(tmp_path / str(i) / FILE, nn.AdaptiveAvgPool2d(2), nn.Flatten(), mix)
        result = FID(source="test", weights=str(path))(ctx(tmp_path, train=flat(TRAIN), test=flat(TEST)))
        values.append(result.values["fid"])
    assert values[1] == pytest.approx(9 * values[0], rel=1e-5)


@pytest.mark.parametrize(("truncate", "byte"), [(False, 255), (True, 254)])
def test_samples_become_bytes_by_rounding_or_as_the_original_code_does(tmp_path, weights, truncate, byte):
    measured = ctx(tmp_path, n=6, model=faithful(lambda u: 0 * u + 0.999), train=flat([255] * 3))
    distance = FID(weights=weights, truncate=truncate)(measured).values["fid"]
    assert distance == pytest.approx(12 * ((255 - byte) / 128) ** 2, abs=1e-9)


def test_every_sample_starts_from_another_training_image_and_batches_do_not_matter(tmp_path, weights):
    measured = ctx(tmp_path, n=7, model=faithful(lambda u: u), train=flat(TRAIN))
    assert FID(weights=weights)(measured).values["fid"] < 1e-9
    measured.batch_size = 3
    assert FID(weights=weights)(measured).values["fid"] < 1e-9


def test_one_image_has_no_covariance_and_is_refused(tmp_path, weights):
    images = {"train": flat(TRAIN), "test": flat(TEST), "val": flat([5])}
    with pytest.raises(ConfigError, match="n must be"):
        FID(source="test", weights=weights)(ctx(tmp_path, n=1, **images))
    with pytest.raises(ConfigError):
        FID(source="val", weights=weights)(ctx(tmp_path, **images))
    with pytest.raises(ConfigError):
        FID(source="test", reference="val", weights=weights)(ctx(tmp_path, **images))


def test_measuring_a_model_without_one_says_what_to_do(tmp_path, weights):
    with pytest.raises(ConfigError, match=r"metric\.source=model needs a run"):
        FID(weights=weights)(ctx(tmp_path, train=flat(TRAIN)))


@pytest.mark.slow
@pytest.mark.skipif(not REAL or not Path(REAL).is_file(), reason="HEATGEN_INCEPTION names no file")
def test_the_real_inception_gives_the_distance_that_torchmetrics_gives_of_its_features():
    images = torch.rand(64, 1, 28, 28, generator=torch.Generator().manual_seed(0))
    images[32:] = nn.functional.avg_pool2d(images[32:], 5, 1, 2)
    extract = Inception(Path(REAL), CPU)
    found = extract((255 * images).to(torch.uint8))
    assert found.shape == (64, 2048) and (found >= 0).all()
    first, second = moments(found[:32]), moments(found[32:])
    distance = frechet_distance(*first, *second)
    assert distance > 10
    assert distance == pytest.approx(_compute_fid(*first, *second).item(), rel=1e-4)


@pytest.mark.parametrize(("n", "d"), [(40, 1), (40, 12), (9, 30)])
def test_a_set_is_at_no_distance_from_itself_in_any_order(n, d):
    x = features(n, d, seed=0).float()
    assert frechet_distance(*moments(x), *moments(x.flip(0))) == 0
    assert frechet_distance(*moments(x[:1].expand(n, -1)), *moments(x[:1].expand(n + 3, -1))) == 0
    shifted = moments(x.double() + 0.5)
    assert frechet_distance(*moments(x), *shifted) == pytest.approx(0.25 * d, rel=1e-6)
