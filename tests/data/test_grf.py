"""Gaussian random fields against their law: variance, slope, spectrum by mode; reproducible; files and the command."""

import fcntl
import math
import os
from types import SimpleNamespace

import h5py
import numpy as np
import pytest
import torch
from conftest import SMALL, call
from omegaconf import OmegaConf
from PIL import Image

from heatgen.basis import Fourier
from heatgen.check import ConfigError
from heatgen.data.grf import GRF, PUBLISHED_SUFFIX
from heatgen.data.grf_fields import draw_field, main
from heatgen.data.images import Pixels
from heatgen.data.module import SPLITS, DataModule, DataSpec
from heatgen.data.stream import Stream, turned
from heatgen.metric.context import EvalContext
from heatgen.metric.fid import FID
from heatgen.metric.forward import Forward
from heatgen.metric.kid import KID
from heatgen.metric.memorisation import Memorisation
from heatgen.metric.suite import Suite
from heatgen.runtime.devices import Devices

VARIANCE = 6.016748  # the sum of |k|^-4 over the whole wave numbers of 32x32


def grf(resolution=32, **settings):
    return GRF(**{"shape": [1, resolution, resolution], "resolution": resolution} | settings)


def few(resolution=8, **settings):
    return grf(resolution, **{"train_size": 30, "val_size": 5, "test_size": 4} | settings)


def everything(data, split):
    return data.get(split, range(len(data.images(split))))


@pytest.fixture(scope="module")
def fields():
    return np.stack([draw_field(4, 32, 0, "train", i) for i in range(2500)])


def ratios(x, spectrum):
    """Mean squared coefficient over its variance, for every coefficient but k = 0; x: (B, N, N)."""
    c = Fourier(*x.shape[1:])(torch.as_tensor(x)[:, None]).double()
    assert c[..., 0, 0].abs().max() < 1e-4
    return (c.square().mean(0) / spectrum).flatten()[1:]


# the law -----------------------------------------------------------------------------------------------------------------


def test_the_variance_is_the_sum_of_the_law_over_all_modes(fields):
    k = np.fft.fftfreq(32, 1 / 32)
    squares = (k[:, None] ** 2 + k**2).flatten()[1:]
    assert (squares**-2).sum() == pytest.approx(VARIANCE, abs=1e-6)
    per_field = np.square(fields).mean((1, 2))
    assert abs(per_field.mean() - VARIANCE) < 4 * per_field.std() / 50  # a field's variance varies by a half: 1 % is 1 sigma
    law = torch.from_numpy(32**2 * (k[:, None] ** 2 + k**2).clip(1) ** -2.0)
    assert ratios(fields, law).mean().item() == pytest.approx(1, abs=4 * (2 / 1023 / 2500) ** 0.5)  # so within 0.4 %


def test_the_spectrum_falls_with_the_fourth_power_of_the_wave_number(fields):
    k = np.fft.fftfreq(32, 1 / 32)
    size, energy = np.hypot(k[:, None], k), np.abs(np.fft.fft2(fields)) ** 2
    band = (size >= 1) & (size <= 16)
    slope = np.polyfit(np.log(size[band]), np.log(energy.mean(0)[band]), 1)[0]
    assert slope == pytest.approx(-4, abs=0.05)


def test_every_field_has_mean_zero(fields):
    assert np.abs(fields.mean((1, 2))).max() < 1e-12


@pytest.mark.parametrize(("resolution", "n"), [(32, 4), (8, 4), (7, 4), (8, 2.5), (6, 0)])
def test_every_coefficient_has_the_variance_that_spec_says(resolution, n):
    data = grf(resolution, n=n, train_size=4000)
    r = ratios(everything(data, "train")[:, 0].double(), data.spec.spectrum[0])
    z = (r - 1) / (2 / 4000) ** 0.5
    assert z.abs().max() < 4.8 and z.square().mean().item() == pytest.approx(1, abs=6 * (2 / len(z)) ** 0.5)
    assert z.mean().abs() < 4 / len(z) ** 0.5


@pytest.mark.slow
def test_the_modes_that_are_their_own_mirror_have_no_other_variance():
    """At k = -k the FFT is real: half of what the fields drew there is lost, and what is left has all the variance."""
    data = grf(8, train_size=20000)
    x = np.fft.fft2(everything(data, "train")[:, 0].double().numpy(), norm="ortho")[:, [0, 4, 4], [4, 0, 4]]
    assert np.abs(x.imag).max() < 1e-5
    expected = data.spec.spectrum[0, [0, 4, 4], [4, 0, 4]].numpy()
    assert np.square(x.real).mean(0) == pytest.approx(expected, rel=4 * (2 / 20000) ** 0.5)


def test_the_spectrum_is_that_of_the_law_over_the_variance_of_the_train_fields():
    data = grf()
    spectrum, (mean, std) = data.spec.spectrum, data.statistics
    assert spectrum.shape == (1, 32, 32) and spectrum.dtype == torch.float64 and mean == pytest.approx(0, abs=1e-12)
    scaled = spectrum[0] * std**2 / VARIANCE
    at = [scaled[0, k].item() for k in (0, 1, 2, 3, 4, 5, 8, 16)]
    assert at == pytest.approx([0, 170.2, 10.64, 2.10, 0.665, 0.272, 0.0416, 0.0026], rel=2e-3)
    assert scaled.mean() == pytest.approx(1, rel=1e-6)
    assert data.spec == DataSpec((1, 32, 32), (-3.0, 3.0), "periodic", None, data.variances)
    assert data.spec.spectrum is spectrum  # measured once


# normalisation, reproducibility ------------------------------------------------------------------------------------------


def test_all_splits_are_normalised_by_the_train_fields():
    data = few()
    raw = {split: np.stack([draw_field(4, 8, 0, split, i) for i in range(n)]) for split, n in data.sizes.items()}
    mean, std = raw["train"].mean(), raw["train"].std()
    for split in SPLITS:
        got = everything(data, split)
        assert got.dtype == torch.float32 and got.shape == (data.sizes[split], 1, 8, 8)
        assert np.allclose(got[:, 0].numpy(), (raw[split] - mean) / std, atol=1e-6)
    train = everything(data, "train").double()
    assert train.mean().item() == pytest.approx(0, abs=1e-7) and train.std(correction=0).item() == pytest.approx(1, abs=1e-6)


def test_a_field_depends_on_its_seed_split_and_number_alone():
    first, torch_state = draw_field(4, 8, 0, "train", 3), torch.get_rng_state()
    torch.manual_seed(5)
    assert np.array_equal(draw_field(4, 8, 0, "train", 3), first) and first.dtype == np.float64
    torch.set_rng_state(torch_state)
    others = [draw_field(4, 8, *keys) for keys in ((1, "train", 3), (0, "val", 3), (0, "train", 4))]
    assert all(np.abs(np.corrcoef(first.flatten(), other.flatten())[0, 1]) < 0.95 for other in others)
    small, large = few().source("train"), few(train_size=60).source("train")
    assert np.array_equal(small.raw(range(30)), large.raw(range(30))) and np.array_equal(small.raw([3])[0], first)


def test_the_training_seed_does_not_change_the_fields_and_the_data_seed_does():
    assert torch.equal(everything(few(seed=1), "val"), everything(few(seed=2), "val"))
    assert not torch.equal(everything(few(data_seed=1), "val"), everything(few(), "val"))


def test_nothing_is_made_or_read_before_it_is_asked_for(tmp_path):
    data = few(path=str(tmp_path / "later"))
    assert data.spec.shape == (1, 8, 8) and data.spec.boundary == "periodic" and not data._sources
    with pytest.raises(ConfigError, match="later is not a folder"):
        data.spec.spectrum  # noqa: B018
    assert main([f"out={tmp_path / 'later'}", "resolution=8", "train=30", "val=5", "test=4"]) == 0
    assert torch.equal(data.spec.spectrum, few().spec.spectrum)


def test_values_out_of_range_are_refused():
    for settings, match in (
        ({"n": -1}, r"data\.n must be"),
        ({"resolution": 1, "shape": [1, 1, 1]}, r"data\.resolution must be .* at least 2"),
        ({"val_size": 0}, r"data\.val_size must be"),
        ({"data_seed": -1}, r"data\.data_seed must be"),
        ({"augment": "yes"}, r"data\.augment must be true or false"),
        ({"shape": [1, 16, 16]}, r"data\.shape = \[1, 16, 16\] must be .* data\.resolution = 8"),
        ({"shape": [3, 8, 8]}, r"data\.shape = \[3, 8, 8\] must be"),
    ):
        with pytest.raises(ConfigError, match=match):
            few(**settings)


# augmentation ------------------------------------------------------------------------------------------------------------


def test_a_square_has_eight_orientations_and_each_comes_from_two_numbers():
    u = torch.arange(9.0).reshape(1, 3, 3)
    ways = turned(u.expand(16, -1, -1, -1), torch.arange(16))
    seen = [tuple(way.flatten().tolist()) for way in ways]
    assert all(seen.count(way) == 2 for way in seen) and len(set(seen)) == 8
    assert torch.equal(ways[0], u) and torch.equal(ways[4], u.flip(-2)) and torch.equal(ways[8], u.flip(-1))
    assert all(torch.equal(ways[i], u.rot90(i % 4, (-2, -1)).flip(axes)) for i, axes in ((1, []), (3, []), (14, [-2, -1])))


def augmented(data, positions, seed=3, augment=True):
    return Stream(data.images("train"), seed, augment=augment).__getitems__(positions)


def test_augmentation_is_chosen_by_position_and_all_ways_are_equally_frequent():
    data, positions = few(), range(1600)
    batch, plain = augmented(data, positions), augmented(data, positions, augment=False)
    assert torch.equal(batch["index"], plain["index"]) and torch.equal(batch["key"], plain["key"])
    ways = torch.stack([turned(plain["u0"], torch.full((1600,), way)) for way in range(8)])
    hits = (ways == batch["u0"]).flatten(2).all(2)
    assert (hits.sum(0) == 1).all()
    assert ((hits.sum(1) - 200).abs() < 4 * (1600 * 7 / 64) ** 0.5).all()
    for p in (1599, 40, 3):
        assert torch.equal(augmented(data, [p])["u0"][0], batch["u0"][p])
    assert not torch.equal(augmented(data, range(30), seed=4)["u0"], batch["u0"][:30])


def test_augmentation_leaves_the_spectrum_and_the_stored_fields_as_they_were():
    data = grf(8, train_size=4000)
    before = data.get("train", range(50))
    u = augmented(data, range(4000))["u0"][:, 0].double()
    z = (ratios(u, data.spec.spectrum[0]) - 1) / (2 / 4000) ** 0.5
    assert z.abs().max() < 4.5
    assert torch.equal(data.get("train", range(50)), before)


def test_the_training_batches_are_augmented_and_the_others_are_not():
    data = few(augment=True, batch_size=10)
    data.trainer = SimpleNamespace(global_step=0, max_steps=6, global_rank=0, world_size=1, accumulate_grad_batches=1)
    train = torch.cat([batch["u0"] for batch in data.train_dataloader()])
    assert torch.equal(train, augmented(data, range(60), seed=0)["u0"])
    assert torch.equal(torch.cat([batch["u0"] for batch in data.val_dataloader()]), everything(data, "val"))


def test_bytes_can_be_augmented_too_and_only_squares():
    images = Pixels(torch.arange(9, dtype=torch.uint8).reshape(1, 1, 3, 3))
    got = Stream(images, 0, augment=True).__getitems__(range(60))["u0"]
    assert len({tuple(u.flatten().tolist()) for u in got}) == 8 and got.max() == 8 / 255
    with pytest.raises(ConfigError, match=r"data\.augment=true turns square images, not \[1, 3, 4\]"):
        DataModule(shape=[1, 3, 4], augment=True)


# files and the command ---------------------------------------------------------------------------------------------------


def write(folder, *more):
    return main([f"out={folder}", "resolution=8", "train=30", "val=5", "test=4", *more])


@pytest.mark.parametrize("layout", ["contiguous", "published"])
def test_the_files_of_the_command_are_the_fields_in_memory(tmp_path, capsys, layout):
    assert write(tmp_path / "new" / "grf", f"layout={layout}", "seed=5") == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 3 and all(line.startswith("written: ") and layout in line for line in lines)
    assert "train.h5 (30 fields of 8x8, float64" in lines[0]
    memory, stored = few(data_seed=5), few(path=str(tmp_path / "new" / "grf"), train_size=1, num_workers=2, batch_size=10)
    for split in SPLITS:
        n = memory.sizes[split]
        assert len(stored.images(split)) == n
        assert np.array_equal(stored.source(split).raw(range(n)), memory.source(split).raw(range(n)))
        assert torch.equal(everything(stored, split), everything(memory, split))
        assert stored.images(split).fingerprint() == memory.images(split).fingerprint()
    assert stored.statistics == memory.statistics and torch.equal(stored.spec.spectrum, memory.spec.spectrum)
    stored.trainer = SimpleNamespace(global_step=0, max_steps=6, global_rank=0, world_size=1, accumulate_grad_batches=1)
    loaded = torch.cat([batch["u0"] for batch in stored.train_dataloader()])
    assert torch.equal(loaded, augmented(memory, range(60), seed=0, augment=False)["u0"])


def test_float32_files_are_the_fields_rounded(tmp_path):
    assert write(tmp_path, "dtype=float32") == 0
    data = few(path=str(tmp_path))
    assert np.array_equal(data.source("val").raw(range(5)), few().source("val").raw(range(5)).astype(np.float32))


def test_files_of_the_published_names_without_attributes_are_read(tmp_path):
    assert write(tmp_path, "layout=published") == 0
    for split in SPLITS:
        with h5py.File(tmp_path / f"{split}.h5", "a") as file:
            file.attrs.clear()
        (tmp_path / f"{split}.h5").rename(tmp_path / f"2d_gaussian_random_field_4{PUBLISHED_SUFFIX[split]}.h5")
    for split in SPLITS:
        assert torch.equal(everything(few(path=str(tmp_path)), split), everything(few(), split))
    with pytest.raises(ConfigError, match=r"neither of train\.h5 and 2d_gaussian_random_field_3\.h5"):
        few(path=str(tmp_path), n=3).images("train")
    assert write(tmp_path) == 0
    with pytest.raises(ConfigError, match=r"both of val\.h5 and 2d_gaussian_random_field_4_val\.h5"):
        few(path=str(tmp_path)).source("val")


def test_files_that_do_not_fit_the_settings_are_refused(tmp_path):
    assert write(tmp_path, "n=3") == 0
    with pytest.raises(ConfigError, match=r"train\.h5 holds fields of n = 3 and data\.n is 4; use data\.n=3"):
        few(path=str(tmp_path)).prepare_data()
    with pytest.raises(ConfigError, match=r"8x8 and data\.resolution is 16; use data\.resolution=8"):
        few(16, path=str(tmp_path), n=3).prepare_data()
    with h5py.File(tmp_path / "train.h5", "w") as file:
        file["fields"] = np.ones((3, 8, 8))
    with pytest.raises(ConfigError, match=r"train fields of data\.path = .* are all equal"):
        few(path=str(tmp_path), n=3).prepare_data()


def test_the_command_replaces_no_file_unless_told(tmp_path, capsys):
    assert write(tmp_path) == 0
    before = (tmp_path / "train.h5").read_bytes()
    (tmp_path / "train.h5").rename(tmp_path / "kept.h5")
    assert write(tmp_path, "seed=1") == 1
    error = capsys.readouterr().err.splitlines()[-1]
    assert error.startswith("Error: ") and "val.h5 is already there" in error and not (tmp_path / "train.h5").exists()
    assert write(tmp_path, "overwrite=true") == 0 and len((tmp_path / "train.h5").read_bytes()) == len(before)


def test_a_folder_of_fields_is_written_by_one_process_at_a_time(tmp_path, capsys):
    with (tmp_path / ".lock").open("w") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        print('{"pid": 7, "host": "node", "since": "noon"}', file=other, flush=True)
        for words in ([], ["overwrite=true"]):
            assert write(tmp_path, *words) == 1
            assert "is being written by process 7 on node since noon; wait for it or end it." in capsys.readouterr().err
            assert os.listdir(tmp_path) == [".lock"]
    assert write(tmp_path) == 0 and sorted(os.listdir(tmp_path)) == ["test.h5", "train.h5", "val.h5"]


@pytest.mark.parametrize(
    ("words", "match"),
    [
        ([], "out is missing; give the folder for the files as out=FOLDER."),
        (["out=x", "resolutoin=8"], "resolutoin is not a key; did you mean resolution?"),
        (["out=x", "fast"], "fast cannot be read; write key=value"),
        (["out=x", "train=2.5"], "train must be a whole number of at least 1, not 2.5."),
        (["out=x", "n=steep"], "n must be a number of at least 0, not 'steep'."),
        (["out=x", "layout=publish"], "did you mean published?"),
        (["out=x", "overwrite=1"], "overwrite must be true or false, not 1."),
        (["out=/dev/null/x"], "/dev/null/x cannot be written"),
        (["out=x", "layout=published", "dtype=float32"], "layout=published holds float64"),
    ],
)
def test_a_mistake_on_the_command_line_is_one_sentence(tmp_path, monkeypatch, capsys, words, match):
    monkeypatch.chdir(tmp_path)
    assert main([*words]) == 1
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("Error: ")]
    assert len(lines) == 1 and match in lines[0]


def test_the_command_tells_its_keys(capsys):
    assert main(["--help"]) == 0
    text = capsys.readouterr().out
    assert all(
        f"{key}=" in text for key in ("out", "n", "resolution", "train", "val", "test", "seed", "layout", "overwrite")
    )


# pictures and measurements -----------------------------------------------------------------------------------------------


def ctx(data, model=None, process=None, n=12):
    return EvalContext(model, data, "grf", Devices(accelerator="cpu"), n, 4, seed=0, process=process)


def test_zero_is_mid_grey_and_bytes_are_as_they_were():
    u = torch.tensor([-3.0, 0.0, 3.0, 4.5])
    assert few().spec.to_unit(u).tolist() == [0, 0.5, 1, 1.25]
    assert torch.equal(DataSpec((1, 2, 2)).to_unit(u), u)


def test_the_strip_of_a_map_shows_fields_with_zero_in_mid_grey():
    from heatgen.forward.heat import Heat
    from heatgen.picture import grid

    data = few()
    strip = Forward(levels=2).strip(Heat((1, 8, 8), 2, 0.0), data.get("train", range(4)), data.spec, 0, states=2)
    first = grid(data.spec.to_unit(data.get("train", range(4))), columns=1)
    assert np.array_equal(np.asarray(strip)[2:42, 2:42], np.asarray(first)[2:42, 2:42])


def test_memorisation_does_not_clip_fields():
    toy = SimpleNamespace(
        process=SimpleNamespace(num_levels=1),
        num_steps=1,
        initial_state=lambda u0, noise: u0,
        generate=lambda u, noise, on_step: u,
        noise_label=lambda: "0",
    )
    toy.bound = lambda rng: toy
    result = Memorisation()(ctx(few(), toy))
    assert result.values["own_median"] == 0 and result.values["nearest_is_own"] == 1


@pytest.mark.parametrize(("metric", "mode"), [(FID, "fid"), (KID, "kid"), (Suite, "suite")])
def test_metrics_of_images_refuse_fields(metric, mode):
    match = f"mode={mode} measures images; data=grf has continuous fields; use mode=reconstruction or mode=score."
    with pytest.raises(ConfigError, match=match):
        metric(source="test")(ctx(few()))


@pytest.mark.slow
def test_a_run_trains_draws_and_is_measured_in_nats(tmp_path, refused):
    run = tmp_path / "runs" / "grf"
    small = ["data=grf", "data.resolution=8", "data.train_size=40", "data.val_size=8", "data.test_size=8"]
    assert call("train", *SMALL, *small, f"hydra.run.dir={run}") == 0
    assert OmegaConf.load(run / "config.yaml").data.shape == [1, 8, 8]
    picture = np.asarray(Image.open(run / "samples" / "step_000012.png").convert("L")).astype(float)
    assert picture[4:40, 4:40].std() > 5
    assert call("sample", f"run={run}", "n=4", "trainer.accelerator=cpu") == 0
    assert call("evaluate", f"run={run}", "mode=elbo", "n=8", "trainer.accelerator=cpu") == 0
    import json

    (path,) = run.rglob("*elbo*.json")
    values = json.loads(path.read_text())["values"]
    assert values["nll_bound"] == pytest.approx(values["nll_bound_nats"] / 64 / math.log(2))
    assert "use mode=reconstruction" in refused("evaluate", f"run={run}", "mode=fid", "n=8", "trainer.accelerator=cpu")
