"""Noise that depends on what it is for: reproducible in any batch, independent across keys, of the right law."""

import math

import pytest
import scipy.stats
import torch
from torch.testing import assert_close

from heatgen.noise import SampleNoise, SharedNoise, SphericalNoise, batches, generator, mix

SHAPE = (2, 3, 4)


def like(batch, dtype=torch.float32):
    return torch.empty(batch, *SHAPE, dtype=dtype)


def draws(samples, *keys):
    """Everything that can be drawn, twice, by sample."""
    noise, u = SampleNoise(samples, *keys), like(len(samples))
    rounds = [(noise.normal_like(u), noise.uniform_like(u), noise.integers(0, 10**9)) for _ in range(2)]
    return {sample: [x[j] for values in rounds for x in values] for j, sample in enumerate(samples)}


def normals(samples, *keys):
    return SampleNoise(samples, *keys).normal_like(like(len(samples)))


@pytest.mark.parametrize("samples", [[5], [5, 6], [9, 5, 0], [3, 1, 4, 5, 9, 2, 6, 0], [5, 5]])
def test_a_sample_gets_the_same_numbers_in_any_batch(samples):
    whole = draws(range(10), 7, "sample")
    for sample, values in draws(samples, 7, "sample").items():
        assert all(torch.equal(a, b) for a, b in zip(values, whole[sample], strict=True))


@pytest.mark.parametrize("keys", [(8, "sample"), (7, "prior"), (7,), (), ("7", "sample"), ("sample", 7), (7, "sample", 0)])
def test_other_keys_give_other_numbers(keys):
    assert not torch.isclose(normals(range(5), 7, "sample"), normals(range(5), *keys)).any()


def test_samples_and_draws_are_different_streams():
    noise = SampleNoise(range(3), 7)
    values = torch.cat([noise.normal_like(like(3)) for _ in range(4)])
    correlation = torch.corrcoef(values.flatten(1))
    assert values.unique().numel() == values.numel()
    assert (correlation - torch.eye(12)).abs().max() < 0.8


def test_samples_may_be_a_tensor():
    assert torch.equal(normals(torch.tensor([4, 2]), 1), normals([4, 2], 1))


def test_the_dtype_is_that_of_the_field_and_the_numbers_are_those_of_float32():
    double = SampleNoise([1, 2], 0).normal_like(like(2, torch.float64))
    assert double.dtype == torch.float64
    assert_close(double, SampleNoise([1, 2], 0).normal_like(like(2)).double(), rtol=0, atol=1e-5)


def test_normal_numbers_are_standard_normal_over_samples():
    values = normals(range(2000), 0, "law").flatten().numpy()
    n = len(values)
    assert abs(values.mean()) < 4 / math.sqrt(n)
    assert abs(values.var() - 1) < 4 * math.sqrt(2 / n)
    assert scipy.stats.kstest(values, "norm").pvalue > 1e-3


def test_uniform_numbers_are_uniform_over_samples():
    values = SampleNoise(range(2000), 0).uniform_like(like(2000)).flatten().numpy()
    assert values.min() >= 0 and values.max() < 1
    assert scipy.stats.kstest(values, "uniform").pvalue > 1e-3


@pytest.mark.parametrize(("low", "high"), [(1, 6), (0, 1), (-2, 2), (3, 3)])
def test_integers_cover_both_ends_evenly_and_nothing_else(low, high):
    n, options = 3000, high - low + 1
    values = SampleNoise(range(n), 0).integers(low, high)
    assert values.dtype == torch.int64
    assert set(values.tolist()) == set(range(low, high + 1))
    counts = torch.bincount(values - low, minlength=options)
    assert (counts - n / options).abs().max() <= 4 * math.sqrt(n / options * (1 - 1 / options))


def test_shared_noise_is_one_draw_for_all_and_fresh_each_time():
    noise = SharedNoise(3, "shared")
    first, second = noise.normal_like(like(4)), noise.normal_like(like(4))
    assert first.shape == (4, *SHAPE)
    assert torch.equal(first, first[:1].expand(4, *SHAPE))
    assert not torch.isclose(first, second).any()
    assert torch.equal(SharedNoise(3, "shared").normal_like(like(1)), first[:1])


def test_spherical_noise_ends_in_its_two_streams():
    noise = SphericalNoise(torch.tensor([0, math.pi / 2]), SampleNoise([0], 1), SampleNoise([1], 1))
    streams = SampleNoise([0, 1], 1)
    for _ in range(3):
        assert_close(noise.normal_like(like(2)), streams.normal_like(like(2)), atol=1e-6, rtol=0)


@pytest.mark.parametrize("angle", [0.0, 0.3, math.pi / 4, 1.1, math.pi / 2])
def test_spherical_noise_has_unit_variance_at_every_angle(angle):
    u = torch.empty(1, 1, 150, 200)
    values = SphericalNoise(torch.tensor([angle]), SampleNoise([0], 1), SampleNoise([1], 1)).normal_like(u)
    assert abs(values.mean()) < 4 / math.sqrt(u.numel())
    assert abs(values.var() - 1) < 4 * math.sqrt(2 / u.numel())


def test_spherical_noise_moves_along_the_arc_between_its_streams():
    angles = torch.linspace(0, math.pi / 2, 5)
    values = SphericalNoise(angles, SampleNoise([0], 1), SampleNoise([1], 1)).normal_like(like(5))
    expected = [math.cos(a) * normals([0], 1)[0] + math.sin(a) * normals([1], 1)[0] for a in angles.tolist()]
    assert_close(values, torch.stack(expected), atol=1e-6, rtol=0)


@pytest.mark.parametrize(
    ("keys", "seed"),
    [
        ((0,), 2631537505891389924),
        ((42, "order", 3), 5500105927861195030),
        ((0, "sample", 17), 1801527950781828149),
    ],
)
def test_seeds_never_change(keys, seed):
    assert mix(*keys) == seed


def test_seeds_tell_apart_keys_that_look_alike():
    alike = [(1, 23), (12, 3), (123,), ("1", 23), (1, "23"), ("1, 23",), (23, 1), (1, 23, ""), ()]
    assert len({mix(*keys) for keys in alike}) == len(alike)


def test_seeds_fit_every_generator():
    seeds = [mix(i) for i in range(1000)]
    assert len(set(seeds)) == 1000
    assert min(seeds) >= 0 and 2**62 < max(seeds) < 2**63
    assert generator(5).initial_seed() == mix(5)


@pytest.mark.parametrize(("n", "size", "lengths"), [(7, 3, [3, 3, 1]), (6, 3, [3, 3]), (2, 5, [2]), (0, 4, [])])
def test_batches_cut_the_samples_in_order(n, size, lengths):
    runs = batches(range(n), size)
    assert [len(run) for run in runs] == lengths
    assert [sample for run in runs for sample in run] == list(range(n))
