"""Large evaluations: sums in place of rows, several processes, a kill on the way, statistics of others, flat memory."""

import os
import sys
import time
import traceback
from collections.abc import Callable
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from conftest import together
from feature_toys import Values, ctx, faithful, flat

from heatgen.check import ConfigError
from heatgen.forward.heat import Heat
from heatgen.metric import tiles
from heatgen.metric.elbo import ELBO
from heatgen.metric.fid import FID
from heatgen.metric.inception_score import InceptionScore
from heatgen.metric.kid import KID
from heatgen.metric.memorisation import Memorisation
from heatgen.metric.reduction import Moments, Rows
from heatgen.runtime import partial, signals
from heatgen.runtime.devices import Devices
from heatgen.runtime.partial import Partial

TRAIN = torch.randint(0, 256, (40, 1, 2, 3), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
METRICS = {
    "fid": FID,
    "kid": lambda: KID(subsets=3, subset_size=8),
    "inception_score": lambda: InceptionScore(splits=3),
    "memorisation": Memorisation,
}
N = 37


@pytest.fixture(autouse=True)
def values(monkeypatch):
    """The features of an image are its bytes, its classes their softmax."""
    extractor = Values(lambda features: (features / 100).softmax(1))
    for metric in (FID, KID, InceptionScore):
        monkeypatch.setattr(metric, "make_extractor", lambda self, ctx: extractor)


def measured(tmp_path, drawn=None, words=None, stop=None):
    """A context whose model is faithful, but for half of its blue, and leaves the process, as killed, at a batch."""

    def way_back(u):
        if drawn is not None:
            drawn.append(len(u))
            if len(drawn) == stop:
                os._exit(9)
        return u**2

    output = ctx(tmp_path, N, faithful(way_back), train=TRAIN, test=TRAIN[:9] // 2, val=TRAIN[9:12])
    output.partial = words and Partial(tmp_path / "partial", words)
    return output


def at_once(monkeypatch):
    """Save behind every batch, whatever it costs."""
    monkeypatch.setattr(partial, "EVERY", 0.0)
    monkeypatch.setattr(partial, "SHARE", 1e9)


def in_child(work: Callable[[], None]) -> int:
    """Do it in a process of its own, without what is flushed at an exit; its exit code."""
    child = os.fork()
    if child:
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    try:
        work()
        os._exit(0)
    except BaseException:
        traceback.print_exc()
        sys.stderr.flush()
        os._exit(1)


# sums --------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("batch", [7, 1024, 3000])
def test_moments_of_batches_are_those_of_all_rows_whatever_a_batch_is_and_where_the_mean_is_large(batch):
    x = torch.randn(2500, 5, generator=torch.Generator().manual_seed(1), dtype=torch.float64) + 1e6
    mean, covariance = Moments.of(x.split(batch)).gaussian
    assert torch.allclose(mean, x.mean(0), rtol=1e-15) and torch.allclose(covariance, x.mT.cov(), rtol=1e-9)
    assert torch.equal(covariance, Moments.of([x]).gaussian[1])  # bit for bit


def test_no_row_is_held_where_moments_are_enough():
    kept = Moments.of(torch.ones(5000, 4).split(128))
    held = sum(tensor.numel() for name, tensor in kept.state().items() if name != "marks")
    assert len(kept) == 5000 and kept.constant and held < 1024 * 4 + 40


# a kill ------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", METRICS)
def test_an_evaluation_that_was_killed_goes_on_and_gives_the_same_number_bit_for_bit(name, tmp_path, monkeypatch):
    whole = METRICS[name]()(measured(tmp_path)).values
    at_once(monkeypatch)
    for stop in (5, 4):  # batches of 4 samples; the second one behind the first
        assert in_child(lambda stop=stop: METRICS[name]()(measured(tmp_path, [], "a", stop))) == 9
    drawn: list[int] = []
    wanted = measured(tmp_path, drawn, "a")
    assert METRICS[name]()(wanted).values == whole
    assert sum(drawn) == N - 4 * (4 + 3)
    wanted.partial.remove()
    assert not (tmp_path / "partial").exists()


def test_what_was_saved_is_for_the_same_evaluation_alone_and_a_file_that_is_not_whole_is_made_again(tmp_path, monkeypatch):
    whole = KID()(measured(tmp_path)).values
    at_once(monkeypatch)
    assert in_child(lambda: KID()(measured(tmp_path, [], "a", 7))) == 9
    for words, more in (("b", 0), ("a", 4)):
        drawn: list[int] = []
        if words == "a":
            files = sorted((tmp_path / "partial").rglob("*.pt"))
            broken = next(path for path in files if path.stem.endswith("8"))
            broken.write_bytes(broken.read_bytes()[:-200])
        assert KID()(measured(tmp_path, drawn, words)).values == whole
        assert sum(drawn) == N - more


def test_a_signal_is_told_that_the_same_command_goes_on(tmp_path, monkeypatch):
    at_once(monkeypatch)
    advised: list[str] = []
    monkeypatch.setattr(signals, "advise", advised.append)

    class Ended(BaseException):
        pass

    def end(status):
        raise Ended

    monkeypatch.setattr(os, "_exit", end)
    with pytest.raises(Ended):
        FID()(measured(tmp_path, [], "a", 3))
    assert advised == ["the same command goes on behind what is saved"]


def test_where_nothing_can_be_saved_the_number_stands(tmp_path, monkeypatch, caplog):
    def full(path, content):
        raise OSError(28, "No space left on device", str(path))

    at_once(monkeypatch)
    whole = KID()(measured(tmp_path)).values
    monkeypatch.setattr(partial, "save_tensors", full)
    with caplog.at_level("INFO", "heatgen"):
        assert KID()(measured(tmp_path, words="a")).values == whole
    assert "No space left on device" in caplog.text


def levels(tmp_path, words=None):
    """A context of bytes for the ELBO, whose training images are read in 40 tiles."""
    output = measured(tmp_path, words=words)
    process = Heat((1, 2, 3), num_levels=4, sigma=0.05, sigma_min=0.5, sigma_max=2.0)
    std = torch.full((1, 1, 1, 1), 0.07, dtype=torch.float64)
    output.model = SimpleNamespace(process=process, initial_std=lambda: std)
    output.model.bound = lambda noise: output.model
    return output


def test_the_prior_of_an_elbo_goes_on_between_two_tiles_of_training_images(tmp_path, monkeypatch):
    monkeypatch.setattr(tiles, "MOST", 1)
    whole = ELBO()._last(levels(tmp_path), range(9))
    at_once(monkeypatch)

    def counted(tmp_path, stop=None):
        wanted, reads = levels(tmp_path, "a"), []
        get = wanted.data.get

        def read(split, indices):
            reads.append(split)
            if reads.count("train") == stop:
                os._exit(9)
            return get(split, indices)

        wanted.data.get = read
        return wanted, reads

    assert in_child(lambda: ELBO()._last(counted(tmp_path, 30)[0], range(9))) == 9
    wanted, reads = counted(tmp_path)
    assert torch.equal(ELBO()._last(wanted, range(9)), whole) and reads.count("train") == 40 - 29

    def work(rank: int) -> None:
        wanted = levels(tmp_path)
        wanted.devices = devices_of(rank, 2)
        assert torch.allclose(ELBO()._last(wanted, range(9)), whole, rtol=1e-12)

    assert together(work, 2) == [0, 0]


# several processes -------------------------------------------------------------------------------------------------------


def devices_of(rank: int, world: int) -> Devices:
    devices = Devices("cpu")
    devices.rank, devices.world = rank, world
    return devices


@pytest.mark.parametrize("n", [1, 2, 7])
def test_rows_of_three_processes_come_together_in_order(n, monkeypatch):
    monkeypatch.setattr("heatgen.runtime.peers.BLOCK", 64)
    rows = {"rows": torch.arange(n * 10.0).reshape(n, 2, 5).double(), "flags": torch.arange(n) % 2 == 0}

    def work(rank: int) -> None:
        devices = devices_of(rank, 3)
        for whole in rows.values():
            mine = whole[devices.share(range(n))] if devices.rank < n else torch.empty(0)
            assert torch.equal(devices.gather(mine), whole)
            found = devices.to_first(mine)
            assert torch.equal(found, whole) if devices.first else len(found) == 0

    assert together(work, 3) == [0, 0, 0]


@pytest.mark.parametrize("name", METRICS)
def test_two_processes_measure_what_one_does(name, tmp_path):
    whole = METRICS[name]()(measured(tmp_path)).values

    def work(rank: int) -> None:
        devices = devices_of(rank, 2)
        wanted = measured(tmp_path / "two")
        wanted.devices = devices
        values = METRICS[name]()(wanted).values
        assert values == (pytest.approx(whole, rel=1e-6, abs=1e-9) if devices.first else {})

    (tmp_path / "two").mkdir()
    assert together(work, 2) == [0, 0]


def test_samples_that_are_not_finite_are_refused_by_all_processes(tmp_path):
    def work(rank: int) -> None:
        devices = devices_of(rank, 2)
        wanted = ctx(tmp_path, N, faithful(lambda u: u / (u > 0.2)), train=TRAIN, test=TRAIN, val=TRAIN)
        wanted.devices, wanted.model.divergence = devices, lambda: "use another sampler"
        with pytest.raises(ConfigError, match=r"of 37 samples hold NaN or inf"):
            FID()(wanted)

    assert together(work, 2) == [0, 0]


# statistics of others ----------------------------------------------------------------------------------------------------


def statistics(path, **arrays):
    np.savez(path, **arrays)
    return FID(source="test", reference=str(path))


def moments(images):
    x = images.flatten(1).double().numpy()
    return {"mu": x.mean(0), "sigma": np.cov(x, rowvar=False)}


def test_a_file_of_moments_as_clean_fid_has_them_is_a_reference(tmp_path):
    with_split = FID(source="test")(measured(tmp_path))
    result = statistics(tmp_path / "digits.npz", **moments(TRAIN))(measured(tmp_path))
    assert result.values["fid"] == pytest.approx(with_split.values["fid"], rel=1e-9)
    assert result.facts["reference"].startswith("digits.npz, BLAKE2b ")
    (own,) = (tmp_path / "statistics").glob("fake_train_*.npz")  # what we keep is such a file, too
    assert FID(source="test", reference=str(own))(measured(tmp_path)).values == pytest.approx(with_split.values, rel=1e-9)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda m: {"mu": m["mu"]}, "has no sigma"),
        (lambda m: m | {"mu": m["mu"][:5]}, r"mu \[5\] and sigma \[6, 6\], and values gives 6 features"),
        (lambda m: m | {"sigma": m["sigma"] + np.eye(6, k=1) * 900}, "not symmetric"),
        (lambda m: m | {"sigma": m["sigma"] - 1e5 * np.eye(6)}, "negative eigenvalue"),
        (lambda m: m | {"mu": m["mu"] * np.nan}, "NaN or inf"),
        (lambda m: m | {"mu": m["mu"].astype(str)}, "something else than real numbers"),
        (lambda m: m | {"sigma": np.array([{}], dtype=object)}, "cannot be read"),
    ],
)
def test_a_file_of_other_moments_is_refused_before_anything_is_drawn(change, words, tmp_path):
    metric, drawn = statistics(tmp_path / "a.npz", **change(moments(TRAIN))), []
    metric.source = "model"
    with pytest.raises(ConfigError, match=rf"metric\.reference=.*a\.npz.* {words}.*give clean-fid's statistics"):
        metric(measured(tmp_path, drawn))
    assert not drawn


def test_files_that_are_none_and_metrics_that_need_more_than_moments_are_refused(tmp_path):
    (tmp_path / "text.npz").write_text("no array")
    np.save(tmp_path / "array.npy", np.ones(6))
    os.rename(tmp_path / "array.npy", tmp_path / "array.npz")
    np.savez(tmp_path / "kid.npz", feats=np.ones((40, 6)))
    np.savez(tmp_path / "whole.npz", **moments(TRAIN))
    (tmp_path / "cut.npz").write_bytes((tmp_path / "whole.npz").read_bytes()[:-60])
    flipped = bytearray((tmp_path / "whole.npz").read_bytes())
    flipped[len(flipped) // 2] ^= 1
    (tmp_path / "flipped.npz").write_bytes(flipped)
    np.savez_compressed(tmp_path / "bomb.npz", mu=np.ones(6), sigma=np.zeros((600, 600)))
    for name, words in (
        ("text.npz", "cannot be read"),
        ("none.npz", "is not a file"),
        ("array.npz", "cannot be read"),
        ("kid.npz", "has no mu"),
        ("cut.npz", "cannot be read"),
        ("flipped.npz", r"cannot be read \(Bad CRC-32"),
        ("bomb.npz", r"sigma \[600, 600\], and values gives 6 features"),
    ):
        with pytest.raises(ConfigError, match=words):
            FID(reference=str(tmp_path / name))(measured(tmp_path))
    with pytest.raises(ConfigError, match="has moments alone, enough for mode=fid only"):
        KID(reference="a.npz")
    with pytest.raises(ConfigError, match=r"remove metric\.reference_n"):
        FID(reference="a.npz", reference_n=10)
    with pytest.raises(ConfigError, match=r"metric\.reference must be one of train, val, test"):
        FID(reference="a.npy")


def test_rows_go_on_behind_what_was_loaded():
    first, second = Rows(), Rows()
    first.add(torch.ones(2, 3), range(2))
    second.load(first.state())
    for kept in (first, second):
        kept.add(torch.zeros(1, 3), [2])
        assert torch.equal(kept.state()["rows"], torch.zeros(1, 3)) and len(kept.tensor) == len(kept.marks[0]) + 1 == 3


def test_inception_score_of_a_split_reads_its_images_in_order(tmp_path):
    images = flat(range(0, 240, 6), (1, 2, 3))
    wanted = ctx(tmp_path, 40, train=images, test=images)
    result = InceptionScore(source="test", splits=4)(wanted)
    assert result.values["inception_score"] == pytest.approx(1, abs=1e-9) and result.facts["n"] == 40


# other work of the same kind ---------------------------------------------------------------------------------------------


def test_more_samples_go_on_where_fewer_were_killed_and_fewer_leave_what_reaches_farther(tmp_path, monkeypatch):
    at_once(monkeypatch)
    for n, stop, drawn_before in ((10, 3, 0), (N, 5, 8), (10, None, 0), (N, None, 8 + 16)):
        drawn: list[int] = []
        wanted = measured(tmp_path, drawn, "a", stop)
        wanted.n = n
        whole = measured(tmp_path)
        whole.n = n
        if stop:
            assert in_child(lambda wanted=wanted: FID()(wanted)) == 9
            continue
        assert FID()(wanted).values == FID()(whole).values and sum(drawn) == n - drawn_before
        wanted.partial.remove()
    assert not (tmp_path / "partial").exists()


def test_a_reference_that_was_kept_before_the_kill_does_not_hide_the_samples(tmp_path, monkeypatch):
    at_once(monkeypatch)
    assert in_child(lambda: FID()(measured(tmp_path, [], "a", 5))) == 9  # it has made the reference, too
    drawn: list[int] = []
    wanted = measured(tmp_path, drawn, "a")
    FID()(wanted)
    assert sum(drawn) == N - 16 and list(tmp_path.glob("statistics/*.npz"))
    wanted.partial.remove()
    assert not (tmp_path / "partial").exists()  # that of the reference is gone, too


def test_what_nobody_goes_on_from_is_removed(tmp_path, monkeypatch):

    at_once(monkeypatch)
    places = [("a", "weights"), ("a", "other weights"), ("b", "weights"), ("c", "weights")]
    made = [Partial(tmp_path / "partial", *words).folder for words in places]
    for folder in made:
        (folder / "x").mkdir(parents=True)
    for path in (*made[3].rglob("*"), made[3], made[3].parent):
        os.utime(path, (time.time() - 8 * 24 * 3600,) * 2)
    Partial(tmp_path / "partial", "a", "weights").tidy()
    assert [folder.exists() for folder in made] == [True, False, True, False]
