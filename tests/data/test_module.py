"""The endless training stream, held-out splits and batches: what every data set shares."""

import pickle
from types import SimpleNamespace

import pytest
import torch

from heatgen.check import ConfigError
from heatgen.data.images import Pixels, Subset, hold_out
from heatgen.data.module import DataModule
from heatgen.data.stream import Items, Stream

N, SHAPE = 20, (1, 3, 4)


def numbered(n=N):
    """Images that hold 12 different bytes each; byte 0 of image i is i, and no image is its own mirror."""
    return Pixels((torch.arange(n)[:, None] + 20 * torch.arange(12)).to(torch.uint8).reshape(n, *SHAPE))


def module(start=0, steps=10, rank=0, world=1, accumulate=1, n=N, **settings):
    """A data module as a trainer at optimizer step `start` of `steps` sees it."""
    data = DataModule(shape=list(SHAPE), **{"batch_size": 8, "seed": 3} | settings)
    data.read = lambda split: numbered(n)
    data.trainer = SimpleNamespace(
        global_step=start, max_steps=steps, global_rank=rank, world_size=world, accumulate_grad_batches=accumulate
    )
    return data


def stream(**settings):
    return list(module(**settings).train_dataloader())


def numbers(batches):
    return torch.cat([batch["index"] for batch in batches]).tolist()


def same(first, second):
    return len(first) == len(second) and all(
        torch.equal(a[key], b[key]) for a, b in zip(first, second, strict=True) for key in ("u0", "index", "key")
    )


def test_every_sample_comes_exactly_once_an_epoch_and_in_another_order_each_time():
    order = numbers(stream(batch_size=8, steps=5))
    assert sorted(order[:N]) == list(range(N)) and sorted(order[N:]) == list(range(N))
    assert order[:N] != order[N:] and order[:N] != list(range(N))


def test_the_order_depends_on_the_seed_and_the_position_alone():
    expected = numbers(stream(batch_size=8, steps=5))
    assert numbers(stream(batch_size=4, steps=10)) == expected
    torch.manual_seed(99)
    assert numbers(stream(batch_size=8, steps=5)) == expected
    assert numbers(stream(batch_size=8, steps=5, seed=4)) != expected


def test_a_batch_pairs_each_image_with_its_own_number_and_position():
    batch = stream()[3]
    assert torch.equal(batch["u0"][:, 0, 0, 0] * 255, batch["index"].float())
    assert batch["key"].tolist() == list(range(24, 32))


@pytest.mark.parametrize("accumulate", [1, 2])
def test_a_stream_from_step_s_is_the_tail_of_the_whole_stream(accumulate):
    whole = stream(steps=6, flip=True, accumulate=accumulate)
    assert same(stream(start=4, steps=6, flip=True, accumulate=accumulate), whole[4 * accumulate :])


def test_the_shares_of_two_processes_interleave_to_the_batch_of_one():
    one, first, second = (stream(rank=r, world=w, flip=True, steps=4) for r, w in ((0, 1), (0, 2), (1, 2)))
    for batch, a, b in zip(one, first, second, strict=True):
        for key in ("u0", "index", "key"):
            assert torch.equal(torch.stack([a[key], b[key]], dim=1).flatten(0, 1), batch[key])


def test_a_batch_that_does_not_divide_among_the_devices_is_refused_by_name():
    with pytest.raises(ConfigError, match=r"data\.batch_size = 8 must be a multiple of the 3 devices"):
        stream(world=3)


def test_flip_mirrors_about_half_of_the_images_and_leaves_the_others():
    flipped, plain = stream(flip=True, steps=250), stream(steps=250)
    u, v = (torch.cat([batch["u0"] for batch in batches]) for batches in (flipped, plain))
    mirrored = (u == v.flip(-1)).flatten(1).all(1)
    assert torch.equal(u[~mirrored], v[~mirrored])
    assert abs(mirrored.sum().item() - 1000) < 4 * 500**0.5


def test_whether_an_image_is_mirrored_depends_on_its_position_alone():
    together = Stream(numbered(), seed=3, flip=True).__getitems__(range(40))["u0"]
    alone = Stream(numbered(), seed=3, flip=True)
    assert all(torch.equal(alone.__getitems__([p])["u0"][0], together[p]) for p in reversed(range(40)))
    assert not torch.equal(Stream(numbered(), seed=4, flip=True).__getitems__(range(40))["u0"], together)


def test_mirroring_leaves_the_stored_images_as_they_were():
    images = numbered()
    Stream(images, seed=3, flip=True).__getitems__(range(40))
    assert torch.equal(images.array, numbered().array)


def test_loading_processes_give_the_batches_of_the_main_process():
    assert same(stream(num_workers=2, flip=True, steps=6), stream(flip=True, steps=6))


def test_a_stream_can_be_sent_to_a_process_that_is_started_any_way():
    copy = pickle.loads(pickle.dumps(Stream(numbered(), seed=3, flip=True)))
    assert torch.equal(copy.__getitems__(range(30))["u0"], Stream(numbered(), 3, True).__getitems__(range(30))["u0"])


def test_validation_shares_are_disjoint_and_complete_and_in_order():
    shares = [numbers(module(rank=r, world=2, batch_size=6).val_dataloader()) for r in (0, 1)]
    assert shares == [list(range(0, N, 2)), list(range(1, N, 2))]


@pytest.mark.parametrize("world", [1, 2, 3, 8])
@pytest.mark.parametrize("n", [1, 2, 5, 12, 13])
def test_validation_shares_are_equally_long_and_a_sample_counts_in_one_of_them(n, world):
    shares = [list(module(rank=r, world=world, n=n, batch_size=6).val_dataloader()) for r in range(world)]
    assert len({tuple(map(len, (batch["index"] for batch in share))) for share in shares}) == 1
    counted = [[i for i in numbers(share) if i % world == rank] for rank, share in enumerate(shares)]
    assert counted == [list(range(rank, n, world)) for rank in range(world)]


def test_held_out_images_are_disjoint_and_complete_and_never_depend_on_the_seed():
    rest, held = hold_out(numbered(), 6, "data.val_size")
    parts = [part.pixels(range(len(part)))[:, 0, 0, 0].tolist() for part in (rest, held)]
    assert len(parts[1]) == 6 and sorted(parts[0] + parts[1]) == list(range(N))
    assert parts[1] != list(range(6)) and parts[1] != list(range(N - 6, N))
    torch.manual_seed(5)
    assert hold_out(numbered(), 6, "data.val_size")[1].indices == held.indices


@pytest.mark.parametrize("size", [0, N, 2.5, True])
def test_a_bad_number_of_held_out_images_is_refused_by_its_key(size):
    with pytest.raises(ConfigError, match=r"^data\.val_size must be"):
        hold_out(numbered(), size, "data.val_size")


def test_prior_images_come_without_replacement_while_they_last():
    data = module()
    first = (data.prior_images(range(N), seed=1)[:, 0, 0, 0] * 255).tolist()
    assert sorted(first) == list(range(N)) and first != list(range(N))
    assert torch.equal(data.prior_images(range(N, 2 * N), seed=1), data.prior_images(range(N), seed=1))
    assert torch.equal(data.prior_images([7, 2], seed=1)[:, 0, 0, 0] * 255, torch.tensor([first[7], first[2]]))
    assert not torch.equal(data.prior_images(range(N), seed=2), data.prior_images(range(N), seed=1))


def test_batches_are_float32_fractions_of_the_bytes():
    images = Pixels(torch.tensor([0, 1, 128, 255], dtype=torch.uint8).reshape(1, 1, 2, 2))
    u0 = Items(images).__getitems__([0])["u0"]
    assert u0.dtype == torch.float32
    assert torch.equal(u0.flatten(), torch.tensor([0, 1 / 255, 128 / 255, 1]))


def test_images_of_another_shape_are_refused_by_name():
    data = module()
    data.read = lambda split: Pixels(torch.zeros(2, 1, 4, 3, dtype=torch.uint8))
    with pytest.raises(ConfigError, match=r"data.shape = \[1, 3, 4\] differs .* \[1, 4, 3\]"):
        data.images("train")


def test_a_fingerprint_changes_with_one_pixel_and_with_the_choice_of_images():
    changed = numbered()
    changed.array[7, 0, 1, 2] += 1
    prints = [images.fingerprint() for images in (numbered(), numbered(), changed)]
    assert prints[0] == prints[1] != prints[2]
    parts = [Subset(numbered(), [1, 2]), Subset(numbered(), [1, 2]), Subset(numbered(), [1, 3]), Subset(changed, [1, 2])]
    assert len({part.fingerprint() for part in parts}) == 3
    assert parts[0].fingerprint() == parts[1].fingerprint()


def labelled(n=N):
    """Numbered images, with their number squared as label."""
    images = numbered(n)
    images.labels = torch.arange(n) ** 2
    return images


def test_labels_go_with_their_images_through_every_choice():
    rest, held = hold_out(labelled(), 6, "data.val_size")
    for part in (rest, held, Subset(rest, [3, 1, 1]), Subset(labelled(), [19, 0])):
        first_bytes = part.pixels(range(len(part)))[:, 0, 0, 0].long()
        assert torch.equal(part.labels, first_bytes**2) and part.labels.dtype == torch.int64


def test_images_without_labels_have_none_however_they_are_chosen():
    rest, held = hold_out(numbered(), 6, "data.val_size")
    assert all(images.labels is None for images in (numbered(), rest, held, Subset(rest, [1])))


def test_labels_are_no_part_of_a_fingerprint():
    """It names features, which labels do not change."""
    assert labelled().fingerprint() == numbered().fingerprint()


def test_the_prior_order_is_that_of_the_prior_images():
    data = module()
    order = data.prior_order(range(2 * N + 3), seed=1)
    assert sorted(order[:N]) == list(range(N)) and order[N:] == order[: N + 3]
    assert torch.equal(data.prior_images(range(2 * N + 3), seed=1), data.get("train", order))
    assert data.prior_order([7, 2, 27], seed=1) == [order[7], order[2], order[7]]
    assert data.prior_order(range(N), seed=2) != order[:N]


def test_a_limit_takes_the_same_random_images_whatever_the_seed_and_another_fingerprint():
    few, again, whole = module(limit=6), module(limit=6, seed=9), module()
    chosen = [(data.images("train").pixels(range(6))[:, 0, 0, 0]).tolist() for data in (few, again)]
    assert chosen[0] == chosen[1] == sorted(set(chosen[0])) and chosen[0] != list(range(6))
    assert len(few.images("train")) == 6 and len(module(limit=N).images("val")) == N
    assert few.images("train").fingerprint() != whole.images("train").fingerprint()
    assert module(limit=N + 1).images("train").fingerprint() == whole.images("train").fingerprint()
    assert sorted(numbers(stream(limit=6, batch_size=6, steps=1))) == list(range(6))


@pytest.mark.parametrize("limit", [0, -1, 2.5, True])
def test_a_limit_that_is_no_count_is_refused_by_its_key(limit):
    with pytest.raises(ConfigError, match=r"^data\.limit must be a whole number of at least 1"):
        module(limit=limit)


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_an_image_that_is_not_finite_is_named_by_split_and_number_wherever_it_is_read(bad):
    u = torch.zeros(N, *SHAPE, dtype=torch.float64)
    u[13, 0, 2, 1] = bad
    data = module(steps=3)
    data.read = lambda split: Pixels(u)
    data.trainer.max_steps = 3
    sentence = r"1 of {} images of split {} hold NaN or inf \(the first is number 13\)"
    with pytest.raises(ConfigError, match=sentence.format(3, "test")):
        data.get("test", [4, 13, 2])
    with pytest.raises(ConfigError, match=sentence.format(8, "val")):
        list(data.val_dataloader())
    with pytest.raises(ConfigError, match=sentence.format(8, "train")):
        list(data.train_dataloader())
    assert data.get("test", [4, 12, 2]).isfinite().all()


def test_large_numbers_whose_sum_overflows_are_finite():
    data = module()
    data.read = lambda split: Pixels(torch.full((N, *SHAPE), 3e38))
    assert data.get("test", [0, 1]).max() == 3e38
