"""Noise is a function of what it is for: the published integers, the same in any batch, independent, of the right law."""

import math

import numpy as np
import pytest
import scipy.stats
import torch
from torch.testing import assert_close

from heatgen import noise
from heatgen.noise import MASK, SampleNoise, SharedNoise, SphericalNoise, batches, fill, generator, mix, philox

SHAPE = (2, 3, 4)


def like(batch, dtype=torch.float32):
    return torch.empty(batch, *SHAPE, dtype=dtype)


def draws(samples, *keys):
    """Everything that can be drawn, twice, by sample."""
    rng, u = SampleNoise(samples, *keys), like(len(samples))
    rounds = [(rng.normal_like(u), rng.uniform_like(u), rng.integers(0, 10**9), rng.permutation(9)) for _ in range(2)]
    return {sample: [x[j] for values in rounds for x in values] for j, sample in enumerate(samples)}


def normals(samples, *keys):
    return SampleNoise(samples, *keys).normal_like(like(len(samples)))


# the integers ------------------------------------------------------------------------------------------------------------

PI = ["243f6a88", "85a308d3", "13198a2e", "03707344"], ["a4093822", "299f31d0"]
KNOWN = {  # counter and key -> words, of Random123's kat_vectors
    "zeros": (["0"] * 4, ["0"] * 2, "6627e8d5 e169c58d bc57ac4c 9b00dbd8"),
    "ones": (["ffffffff"] * 4, ["ffffffff"] * 2, "408f276d 41c83b0e a20bc7c6 6d5451fd"),
    "pi": (*PI, "d16cfe09 94fdcceb 5001e420 24126ea1"),
}


@pytest.mark.parametrize("make", [torch.tensor, np.array], ids=["torch", "numpy"])
@pytest.mark.parametrize("name", KNOWN)
def test_philox_gives_the_known_answers(name, make):
    counter, key, expected = KNOWN[name]
    k0, k1 = (int(word, 16) for word in key)
    words = philox(*(make([int(word, 16)]) for word in counter), k0 | k1 << 32)
    assert " ".join(f"{int(word[0]) & MASK:08x}" for word in words) == expected


def test_a_draw_has_the_words_of_its_block_its_number_and_its_sample():
    samples, draw, blocks = [0, 7, 2**40 + 5, -3], 6, 5
    rng = SampleNoise(samples, "words")
    rng.draws = draw
    found = rng._fill(4 * blocks, torch.int64, None, noise.as_words)
    for row, sample in zip(found, samples, strict=True):
        for place, word in enumerate(row.tolist()):
            counter = (place % blocks, draw, sample & MASK, sample >> 32 & MASK)
            assert word == int(philox(*(torch.tensor([x]) for x in counter), mix("words"))[place // blocks][0]) & MASK


@pytest.mark.parametrize("law", [noise.as_words, noise.as_normal])
@pytest.mark.parametrize("size", [1, 3, 64, 10**6])
def test_pieces_of_any_size_and_both_libraries_give_the_same(law, size, monkeypatch):
    monkeypatch.setattr(noise, "CPU_BLOCKS", size)
    indices = torch.tensor([3, 1, 2**35])
    whole = torch.empty(3, 4, 10, dtype=torch.int64 if law is noise.as_words else torch.float64)
    pieces = fill(law, 10, indices, 2, mix("pieces"), whole.dtype)
    names = indices[:, None]
    law(philox(torch.arange(10)[None], torch.tensor([[2]]), names & MASK, names >> 32 & MASK, mix("pieces")), whole, torch)
    assert_close(pieces, whole, rtol=0, atol=0 if law is noise.as_words else 1e-14)


@pytest.mark.slow
def test_numbers_can_be_compiled_in_one_graph():
    def both(u, rng):
        return rng.normal_like(u) + rng.uniform_like(u) + rng.integers(0, 9)[:, None, None, None]

    compiled = torch.compile(both, backend="eager", fullgraph=True)
    one, two = (SampleNoise(torch.arange(5), "compiled") for _ in range(2))
    assert_close(compiled(like(5), one), both(like(5), two), rtol=0, atol=1e-5)


# the same in any batch ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("samples", [[5], [5, 6], [9, 5, 0], [3, 1, 4, 5, 9, 2, 6, 0], [5, 5]])
def test_a_sample_gets_the_same_numbers_in_any_batch(samples):
    whole = draws(range(10), 7, "sample")
    for sample, values in draws(samples, 7, "sample").items():
        assert all(torch.equal(a, b) for a, b in zip(values, whole[sample], strict=True))


def test_samples_may_be_a_tensor_and_any_whole_number_of_64_bits():
    samples = [4, 2, -1, 2**62, 2**32 + 4]
    values = normals(samples, 1)
    assert torch.equal(normals(torch.tensor(samples), 1), values)
    assert values.unique().numel() == values.numel()


def test_a_draw_does_not_depend_on_what_was_drawn_before_it():
    first, second = SampleNoise([1, 2], 0), SampleNoise([1, 2], 0)
    first.normal(1000), second.integers(0, 1)
    assert torch.equal(first.normal(5), second.normal(5))


@pytest.mark.parametrize("transform", [torch.func.grad, lambda f: lambda u: torch.func.jvp(f, (u,), (u,))[1]])
def test_numbers_can_be_drawn_inside_of_derivatives(transform):
    def energy(u):
        rng = SampleNoise([0, 1], 0)
        return (u * rng.normal_like(u) + u * rng.integers(3, 3)[:, None]).sum()

    numbers = SampleNoise([0, 1], 0).normal(2)
    expected = numbers + 3 if transform is torch.func.grad else (numbers + 3).sum()
    assert_close(transform(energy)(torch.ones(2, 2)), expected)


def test_numbers_are_made_where_the_samples_or_the_field_are():
    rng = SampleNoise(torch.arange(3, device="meta"), 0)
    assert {rng.normal(2).device.type, rng.integers(0, 3).device.type, rng.permutation(4).device.type} == {"meta"}
    assert SampleNoise(range(3), 0).normal_like(torch.empty(3, 2, device="meta")).device.type == "meta"


# independent -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("keys", [(8, "sample"), (7, "prior"), (7,), (), ("7", "sample"), ("sample", 7), (7, "sample", 0)])
def test_other_keys_give_other_numbers(keys):
    assert not torch.isclose(normals(range(5), 7, "sample"), normals(range(5), *keys)).any()


def test_samples_draws_blocks_and_keys_are_uncorrelated_streams():
    n = 4096  # numbers a stream: a correlation is N(0, 1/n)
    streams = [SampleNoise([0, 1, 2**32], key).normal(n) for key in range(3)]
    rng = SampleNoise([0, 1, 2**32], 0)
    streams += [rng.normal(n) for _ in range(4)][1:]
    first = streams[0]
    values = torch.cat([*streams, first.roll(1, 1), first.roll(n // 4, 1), first.reshape(3, 4, -1).mT.flatten(1)])
    for x in (values, values.square(), values.abs().log()):
        correlation = torch.corrcoef(x.double()) - torch.eye(len(values))
        assert correlation.abs().max() < 5 / math.sqrt(n)


def test_no_counter_is_used_twice():
    rng = SampleNoise(range(50), 0)
    words = torch.cat([rng._fill(4 * 40, torch.int64, None, noise.as_words).reshape(50, 4, 40) for _ in range(20)])
    blocks = ((words[:, 0] << 31) ^ words[:, 1]).flatten()
    assert blocks.unique().numel() == blocks.numel()  # of 63 random bits: two of 40,000 are equal with probability 1e-10
    collisions = words.numel() - words.unique().numel()
    expected = words.numel() ** 2 / 2**33  # birthdays among 32 bits: a Poisson number
    assert abs(collisions - expected) < 5 * math.sqrt(expected) + 3


def test_every_bit_of_a_word_is_as_often_0_as_1():
    words = SampleNoise(range(100), 0)._fill(400, torch.int64, None, noise.as_words).flatten()
    shares = torch.stack([(words >> bit & 1).double().mean() for bit in range(32)])
    assert (shares - 0.5).abs().max() < 4.5 * 0.5 / math.sqrt(words.numel())


# of the right law --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_normal_numbers_are_standard_normal(dtype):
    values = SampleNoise(range(2000), 0, "law").normal(100, dtype=dtype).flatten().double().numpy()
    n = len(values)
    for power, moment in ((1, 0), (2, 1), (3, 0), (4, 3), (6, 15)):
        spread = math.sqrt(scipy.stats.norm.moment(2 * power) - moment**2)
        assert abs((values**power).mean() - moment) < 4 * spread / math.sqrt(n)
    assert scipy.stats.kstest(values, "norm").pvalue > 1e-3
    tail = scipy.stats.norm.sf(abs(values[abs(values) > 3])) / scipy.stats.norm.sf(3)
    assert scipy.stats.kstest(tail, "uniform").pvalue > 1e-3


def test_words_at_their_ends_give_finite_normal_numbers():
    ends = torch.tensor([0, 1, MASK - 1, MASK])
    x, y = (z.flatten() for z in torch.meshgrid(ends, ends, indexing="ij"))
    for dtype in (torch.float32, torch.float64):
        out = torch.empty(1, 4, 16, dtype=dtype)
        noise.as_normal((x, y, x, y), out, torch)
        assert out.isfinite().all() and out.abs().max() < 6.8
        assert out.abs().max() == pytest.approx(math.sqrt(-2 * math.log(2**-33)), rel=1e-6)


def test_normal_numbers_of_float64_are_those_of_float32_and_finer():
    double, single = (SampleNoise(range(9), 0).normal(1000, dtype=dtype) for dtype in (torch.float64, torch.float32))
    assert_close(double, single.double(), rtol=0, atol=1e-4)  # near 0 the radius is coarse in float32
    assert (double - single).abs().median() < 1e-6 and (double != single).double().mean() > 0.99


@pytest.mark.parametrize(
    ("dtype", "bits"), [(torch.float16, 11), (torch.bfloat16, 8), (torch.float32, 24), (torch.float64, 32)]
)
def test_uniform_numbers_are_uniform_exact_and_below_1(dtype, bits):
    values = SampleNoise(range(2000), 0).uniform(24, dtype=dtype).flatten()
    assert values.dtype == dtype and values.min() >= 0 and values.max() < 1
    steps = values.double() * 2**bits
    assert torch.equal(steps, steps.floor()) and (bits > 24 or steps.long().remainder(2).any())
    assert abs((values.double() + 2.0 ** -(bits + 1)).mean() - 0.5) < 4 / math.sqrt(12 * len(values))
    if bits >= 24:
        assert scipy.stats.kstest(values.numpy(), "uniform").pvalue > 1e-3
        floor = SampleNoise(range(2000), 0).uniform(24).flatten()
        assert torch.equal((values.double() * 2**24).floor() / 2**24, floor.double())  # the same numbers, cut


@pytest.mark.parametrize(("low", "high"), [(1, 6), (0, 1), (-2, 2), (3, 3), (0, 2**31 - 1)])
def test_integers_cover_both_ends_evenly_and_nothing_else(low, high):
    n, options = 3000, high - low + 1
    values = SampleNoise(range(n), 0).integers(low, high)
    assert values.dtype == torch.int64 and values.min() >= low and values.max() <= high
    parts = min(options, 16)
    counts = torch.bincount((values - low) * parts // options, minlength=parts)
    assert (counts - n / parts).abs().max() <= 4 * math.sqrt(n / parts * (1 - 1 / parts))


def test_orders_are_permutations_and_all_equally_often():
    orders = SampleNoise(range(4800), 0).permutation(4)
    assert torch.equal(orders.sort(1).values, torch.arange(4).expand(4800, 4))
    counts = torch.bincount((orders * torch.tensor([64, 16, 4, 1])).sum(1), minlength=256)
    counts = counts[counts > 0]
    assert len(counts) == 24 and scipy.stats.chisquare(counts.numpy()).pvalue > 1e-3


def test_a_million_normal_numbers_have_the_tails_of_the_law():
    values = SampleNoise(range(10), 1).normal(10**5).flatten()
    for bound in (1, 2, 3, 4):
        share = 2 * scipy.stats.norm.sf(bound)
        assert abs((values.abs() > bound).double().mean() - share) < 4.5 * math.sqrt(share / len(values))


# one noise for several samples -------------------------------------------------------------------------------------------


def test_shared_noise_is_one_draw_for_all_and_fresh_each_time():
    rng = SharedNoise(3, "shared")
    first, second = rng.normal_like(like(4)), rng.normal_like(like(4))
    assert first.shape == (4, *SHAPE)
    assert torch.equal(first, first[:1].expand(4, *SHAPE))
    assert not torch.isclose(first, second).any()
    assert torch.equal(SharedNoise(3, "shared").normal_like(like(1)), first[:1])


def test_spherical_noise_ends_in_its_two_streams():
    rng = SphericalNoise(torch.tensor([0, math.pi / 2]), SampleNoise([0], 1), SampleNoise([1], 1))
    streams = SampleNoise([0, 1], 1)
    for _ in range(3):
        assert_close(rng.normal_like(like(2)), streams.normal_like(like(2)), atol=1e-6, rtol=0)


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


# seeds -------------------------------------------------------------------------------------------------------------------


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
