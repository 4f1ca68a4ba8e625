"""Frames: what fits together, what is chosen, and what the mask counts."""

import pytest
import torch
from lightning.pytorch.utilities import move_data_to_device
from torch.testing import assert_close

from heatgen.frames import Frames, concatenate


def frames(batch=2, n=3, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return Frames.of(torch.rand(batch, n, generator=generator), torch.randn(batch, n, 1, 2, 3, generator=generator))


def same(a, b):
    return all(torch.equal(getattr(a, name), getattr(b, name)) for name in ("times", "values", "mask"))


def test_the_mask_counts():
    x = frames()
    assert x.count.tolist() == [3, 3]
    mask = torch.tensor([[True, False, True], [False, False, False]])
    assert Frames(x.times, x.values, mask).count.tolist() == [2, 0]


def test_the_same_frames_of_all_or_each_its_own_are_selected():
    x = frames()
    both = x.select(torch.tensor([2, 0]))
    assert_close(both.times, x.times[:, [2, 0]], atol=0, rtol=0)
    assert_close(both.values, x.values[:, [2, 0]], atol=0, rtol=0)
    own = x.select(torch.tensor([[2, 0], [1, 1]]))
    assert_close(own.values[0], x.values[0, [2, 0]], atol=0, rtol=0)
    assert_close(own.times[1], x.times[1, [1, 1]], atol=0, rtol=0)
    assert x.select(torch.arange(0)).values.shape == (2, 0, 1, 2, 3)


def test_cut_and_put_together_is_the_same():
    x = frames(n=5)
    assert same(concatenate(x.select(torch.arange(2)), x.select(torch.arange(2, 5))), x)
    assert same(concatenate(x.select(torch.arange(0)), x), x)
    assert x.part(slice(1, 2)).values.shape == (1, 5, 1, 2, 3)
    assert torch.equal(x.part(slice(1, 2)).times, x.times[1:])


def test_lightning_moves_a_batch_of_frames():
    moved = move_data_to_device({"context": frames()}, torch.device("meta"))
    assert moved["context"].values.device.type == "meta" and moved["context"].mask.device.type == "meta"


def test_frames_that_do_not_fit_are_refused():
    x = frames()
    for times, values, mask in [
        (x.times[0], x.values, x.mask),
        (x.times, x.values[:, :, 0], x.mask),
        (x.times[:, :2], x.values, x.mask[:, :2]),
        (x.times, x.values, x.mask[:1]),
        (x.times, x.values, x.mask.float()),
    ]:
        with pytest.raises(ValueError, match=r"[Ff]rames"):
            Frames(times, values, mask)
    with pytest.raises(AttributeError):
        x.times = x.times + 1
