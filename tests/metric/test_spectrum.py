"""mode=spectrum: rings and powers against closed forms, and a classifier that tells what differs and nothing else."""

import math

import pytest
import torch
from feature_toys import ctx, faithful
from torch.testing import assert_close

from heatgen.basis import Cosine
from heatgen.check import ConfigError
from heatgen.data.grf import GRF
from heatgen.data.module import DataSpec
from heatgen.data.ring import Ring
from heatgen.metric.context import EvalContext
from heatgen.metric.spectrum import Rings, Spectrum, told_apart
from heatgen.runtime.devices import Devices

N = 300


def fields(way_back=None, n=N, **options):
    """Gaussian fields of a known spectrum, and a model whose samples are training fields after a way back."""
    data = GRF(n=2.0, resolution=16, train_size=N, val_size=N, test_size=N, shape=[1, 16, 16], **options)
    model = None if way_back is None else faithful(way_back)
    return EvalContext(model, data, "grf", Devices(accelerator="cpu"), n, 64, seed=0)


def within(value, expected, errors=4):
    return abs(value.value - expected) < errors * value.error


def named(result):
    return {value.name: value for value in result.numbers}


@pytest.mark.parametrize("boundary", ["periodic", "neumann"])
@pytest.mark.parametrize("shape", [(1, 8, 8), (2, 6, 15), (3, 1, 9), (1, 2, 2)])
def test_white_noise_has_power_1_in_every_ring_and_a_constant_none(boundary, shape):
    rings = Rings(DataSpec(shape, boundary=boundary))
    assert rings.sizes.sum() == shape[1] * shape[2] - 1 and (rings.sizes > 0).all()
    assert (rings.wave_numbers.diff() > 0).all() and rings.wave_numbers[-1] <= math.sqrt(0.5) + 1e-12
    n = 4000
    power = rings.power(torch.randn(n, *shape, generator=torch.Generator().manual_seed(0)) + 5)
    spread = (2 / (rings.sizes * shape[0] * n)).sqrt()
    assert ((power.mean(0) - 1).abs() < 5 * spread).all()
    assert rings.power(torch.full((1, *shape), 3.0)).abs().max() < 1e-20


@pytest.mark.parametrize(("boundary", "cycles"), [("periodic", 3), ("neumann", 1.5)])
def test_a_wave_is_in_the_ring_of_its_cycles_a_pixel_along_either_side(boundary, cycles):
    height, width = 8, 24
    rings = Rings(DataSpec((1, height, width), boundary=boundary))
    phase = 0.5 if boundary == "neumann" else 0.0
    for size, axis in ((height, 1), (width, 0)):
        count = cycles * size / 24
        wave = torch.cos(2 * math.pi * count * (torch.arange(size).double() + phase) / size)
        field = wave[:, None].expand(height, width) if axis else wave.expand(height, width)
        power = rings.power(field[None, None])[0] * rings.sizes
        assert rings.wave_numbers[power.argmax()].item() == pytest.approx(cycles / 24, rel=0.1)
        assert power.max() == pytest.approx(power.sum().item(), rel=1e-9)
    assert power.sum() == pytest.approx(height * width / 2)


@pytest.mark.slow
def test_data_against_data_are_not_told_apart_and_have_the_exact_spectrum():
    result = Spectrum(source="val")(fields())
    found = named(result)
    assert within(found["classifier_accuracy"], 0.5) and within(found["classifier_auc"], 0.5)
    floor = result.references["equal spectra, as few images"]["spectral_error_radial"]
    assert found["spectral_error_radial"].value < 2 * floor
    assert within(found["spectral_error_exact"], 0, 5)
    series = {name: torch.tensor(values) for name, values in result.series.items()}
    assert ((series["power"] - series["power_exact"]).abs() < 5 * series["power_se"]).all()
    assert ((series["ratio"] - 1).abs() < 5 * series["ratio_se"]).all()
    assert result.facts["waves"] == "Fourier" and result.pictures["spectrum"].width > 300


@pytest.mark.slow
def test_white_noise_is_told_and_so_is_another_scale():
    noisy = Spectrum()(fields(lambda u: u + 0.3 * torch.randn(u.shape, generator=torch.Generator().manual_seed(1))))
    found = named(noisy)
    assert found["classifier_accuracy"].value > 0.9 and found["classifier_auc"].value > 0.95
    assert noisy.series["ratio"][-1] > 1.5 and not within(found["spectral_error_exact"], 0, 5)
    twice = named(Spectrum()(fields(lambda u: 2 * u)))
    gap = twice["spectral_error_radial"]
    assert within(gap, math.log(4)) and 0 < gap.error < 0.1 * gap.value


@pytest.mark.slow
def test_the_classifier_is_at_chance_on_average_and_its_error_is_that_of_repetition():
    rng = torch.Generator().manual_seed(0)
    draws = [told_apart(*torch.randn(2, 100, 4, generator=rng).double(), folds=5, seed=i) for i in range(16)]
    for i in (0, 1):
        values = torch.tensor([draw[i].value for draw in draws])
        errors = torch.tensor([draw[i].error for draw in draws])
        assert abs(values.mean() - 0.5) < 4 * values.std() / 16**0.5
        assert 0.5 < errors.mean() / values.std() < 2


def test_samples_of_bytes_are_rounded_and_measured_in_cosine_waves(tmp_path):
    images = torch.randint(0, 256, (40, 3, 6, 8), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    model = faithful(lambda u: u + 0.4 / 255)
    result = Spectrum(folds=2)(ctx(tmp_path, n=20, model=model, train=images[:20], test=images[20:]))
    rows = Cosine(6, 8)(images[:20].double() / 255).square().mean(1).flatten(1)[:, 1:]
    series = {name: torch.tensor(values).double() for name, values in result.series.items()}
    rings = Rings(DataSpec((3, 6, 8)))
    assert (series["power"] * rings.sizes).sum().item() == pytest.approx(rows.sum(1).mean().item(), rel=1e-6)
    assert_close(series["wave_number"], rings.wave_numbers, atol=0, rtol=1e-6)
    assert result.facts["waves"] == "cosine" and "power_exact" not in series


def test_what_cannot_be_measured_is_refused(tmp_path):
    points = fields()
    points.data, points.data_name = Ring(shape=[1, 1, 2]), "ring"
    black = ctx(
        tmp_path, train=torch.zeros(30, 1, 4, 4, dtype=torch.uint8), test=torch.zeros(30, 1, 4, 4, dtype=torch.uint8)
    )
    for words, ask in (
        ("metric.source and metric.reference are both val; choose two", lambda: Spectrum("val", "val")),
        ("metric.high must be a number of at least 0 and of at most 1", lambda: Spectrum(high=2)),
        ("metric.folds must be a whole number of at least 2", lambda: Spectrum(folds=1)),
        ("mode=spectrum measures images, and data=ring has points", lambda: Spectrum("val")(points)),
        ("mode=spectrum needs a run|needs a run; give run=DIR", lambda: Spectrum()(fields())),
        (
            "metric.folds=10 needs 20 images of either kind, and there are 19 of test; raise n",
            lambda: Spectrum("val")(fields(n=19)),
        ),
        ("n must be a whole number of at least 2, not None", lambda: Spectrum()(fields(lambda u: u, n=None))),
        ("needs power at each wave number, which images of test lack", lambda: Spectrum("train")(black)),
    ):
        with pytest.raises(ConfigError, match=words):
            ask()
