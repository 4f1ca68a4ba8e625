"""data=hot_spots: squares where they should be, of the amplitudes and places of the law; every hypothesis; refusals."""

import math

import pytest
import torch
from hydra import compose, initialize_config_dir
from scipy.ndimage import gaussian_filter
from scipy.stats import chisquare, kstest
from torch.testing import assert_close

from heatgen.app.options import CONF
from heatgen.check import ConfigError
from heatgen.data.hot_spots import HotSpotFields, HotSpots, Spot, draw_spots, smoothing_matrix
from heatgen.data.module import SPLITS
from heatgen.forward.neumann_heat import NeumannHeat


def spots(resolution=16, **settings):
    sizes = {"train_size": 30, "val_size": 5, "test_size": 4}
    return HotSpotFields(**{"shape": [1, resolution, resolution], "resolution": resolution} | sizes | settings)


def preset(name):
    with initialize_config_dir(str(CONF), version_base="1.3"):
        cfg = compose("train", [f"data={name}"]).data
    return {key: value for key, value in cfg.items() if key not in ("_target_", "recommended", "data_dir", "seed")}


def everything(data, split="train"):
    return data.get(split, range(len(data.images(split))))[:, 0]


def truths(law, n, seed=0):
    """The single square of each of n train fields."""
    squares = [draw_spots(law, seed, "train", i) for i in range(n)]
    assert all(len(found) == 1 for found in squares)
    return [found[0] for found in squares]


# reproducible ------------------------------------------------------------------------------------------------------------


def test_a_field_depends_on_its_seed_split_and_number_alone():
    data = spots()
    fields = {split: everything(data, split) for split in SPLITS}
    assert [tuple(fields[split].shape) for split in SPLITS] == [(30, 16, 16), (5, 16, 16), (4, 16, 16)]
    assert all(fields[split].dtype == torch.float32 for split in SPLITS)
    backwards, longer = spots(), spots(train_size=50)
    assert torch.equal(everything(longer)[:30], fields["train"])
    assert torch.equal(everything(backwards, "test"), fields["test"])
    assert torch.equal(backwards.get("train", [7, 3])[:, 0], fields["train"][[7, 3]])
    every = torch.cat([*fields.values(), everything(spots(data_seed=1))])
    assert len(every.flatten(1).unique(dim=0)) == len(every) == 69
    assert data.images("train").fingerprint() == spots().images("train").fingerprint()


def test_what_was_drawn_is_the_field():
    data = spots(spots=[1, 3], half_side=[1, 5])
    for i, u in enumerate(everything(data)):
        assert_close(u.double(), data.law.field(draw_spots(data.law, 0, "train", i)), atol=1e-6, rtol=0)


def test_what_a_set_says_of_itself():
    spec = spots(amplitude=[1.0, 2.0]).spec
    assert spec.value_range == (0.0, 2.0) and spec.bits is None and spec.boundary == "neumann" and spec.spectrum is None
    assert spec.spots == HotSpots(16, (2, 3, 4), (1.0, 2.0), 0.06)
    assert spots().spec.value_range == (0.0, 1.0)
    assert [spots(n).law.half_sides for n in (2, 4, 8, 50)] == [(1,), (1,), (1, 2), (6, 7, 8, 9, 10, 11, 12)]


# the law -----------------------------------------------------------------------------------------------------------------


def test_a_square_is_hot_inside_and_cold_outside():
    data = spots(smoothing=0)
    for u, (s, row, column, amplitude) in zip(everything(data), truths(data.law, 30), strict=True):
        assert 0.7 <= amplitude <= 1 and 0 <= row <= 16 - 2 * s and 0 <= column <= 16 - 2 * s
        inside = u[row : row + 2 * s, column : column + 2 * s]
        assert (inside == torch.tensor(amplitude).float()).all()
        assert (u != 0).sum() == (2 * s) ** 2


def test_every_place_inside_the_box_is_as_probable_as_every_other():
    law = spots(8, half_side=3).law
    drawn = truths(law, 3000)
    counts = torch.zeros(3, 3)
    for _, row, column, _ in drawn:
        counts[row, column] += 1
    assert counts.sum() == 3000 and chisquare(counts.flatten()).pvalue > 1e-3
    assert (law.field([Spot(3, 2, 2, 1.0)])[-1, -1] > 0.3) and counts[2, 2] > 0  # up to the last row and column


def test_every_half_side_and_number_of_squares_is_as_probable_as_every_other():
    law = spots(half_side=[2, 6], spots=[1, 3]).law
    drawn = [draw_spots(law, 0, "train", i) for i in range(3000)]
    numbers = torch.tensor([len(squares) for squares in drawn])
    sides = torch.tensor([square.half_side for squares in drawn for square in squares])
    assert chisquare(numbers.bincount()[1:]).pvalue > 1e-3 and numbers.unique().tolist() == [1, 2, 3]
    assert chisquare(sides.bincount()[2:]).pvalue > 1e-3 and sides.unique().tolist() == [2, 3, 4, 5, 6]


def test_amplitudes_are_uniform_and_have_nothing_to_do_with_place_or_size():
    drawn = torch.tensor(truths(spots().law, 2000), dtype=torch.float64)
    assert kstest(drawn[:, 3].numpy(), "uniform", args=(0.7, 0.3)).pvalue > 1e-3
    correlation = torch.corrcoef(drawn.mT) - torch.eye(4)
    assert correlation[3].abs().max() < 4 / 2000**0.5
    assert {square.amplitude for square in truths(spots(amplitude=0.8).law, 20)} == {0.8}


@pytest.mark.parametrize("smoothing", [0, 0.06, 0.3])
def test_the_heat_of_a_field_is_that_of_its_squares(smoothing):
    data = spots(smoothing=smoothing, spots=[1, 3])
    for i, u in enumerate(everything(data)):
        heat = sum(square.amplitude * (2 * square.half_side) ** 2 for square in draw_spots(data.law, 0, "train", i))
        assert u.double().sum().item() == pytest.approx(heat, rel=1e-6)


def test_squares_add_up_where_they_overlap():
    law = spots(spots=2).law
    for i in range(20):
        first, second = draw_spots(law, 0, "train", i)
        assert_close(law.field([first, second]), law.field([first]) + law.field([second]), atol=1e-14, rtol=0)
    assert (law.field([first, first]) - 2 * law.field([first])).abs().max() < 1e-14


# the smoothing -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("width", [0, 0.02, 0.06, 0.5])
def test_smoothing_conserves_heat_and_looks_the_same_from_both_sides(width):
    S = smoothing_matrix(12, width)
    assert S.shape == (12, 12) and S.dtype == torch.float64
    assert_close(S, S.mT, atol=1e-15, rtol=0)
    assert_close(S, S.flip(0, 1), atol=1e-14, rtol=0)
    assert_close(S.sum(0), torch.ones(12, dtype=torch.float64), atol=1e-13, rtol=0)
    assert torch.equal(smoothing_matrix(12, 0), torch.eye(12, dtype=torch.float64))
    assert_close(smoothing_matrix(12, 0.03) @ smoothing_matrix(12, 0.04), smoothing_matrix(12, 0.05), atol=1e-14, rtol=0)


def test_smoothing_is_the_heat_equation_and_scipys_gaussian():
    sharp, soft = (spots(50, half_side=[5, 9], smoothing=smoothing).law for smoothing in (0, 0.06))
    flow = NeumannHeat((1, 50, 50), diffusivity=1, solver="dct_spectral")
    for square in truths(soft, 5):
        u = sharp.field([square])
        heated = flow.mean(u[None, None], torch.tensor([0.06**2 / 2], dtype=torch.float64))[0, 0]
        assert_close(soft.field([square]), heated, atol=1e-12, rtol=0)
        filtered = torch.from_numpy(gaussian_filter(u.numpy(), 3, mode="reflect", truncate=8))
        assert_close(soft.field([square]), filtered, atol=1e-12, rtol=0)


# every hypothesis --------------------------------------------------------------------------------------------------------


def test_templates_are_every_square_once_with_its_probability():
    law = spots().law
    fields, names, weights = law.templates()
    count = 13**2 + 11**2 + 9**2
    assert fields.shape == (count, 16, 16) and weights.shape == (count,) and fields.dtype == weights.dtype == torch.float64
    assert len(set(names)) == len(names) == count
    assert {s: sum(name[0] == s for name in names) for s in (2, 3, 4)} == {2: 13**2, 3: 11**2, 4: 9**2}
    assert weights.sum().item() == pytest.approx(1)
    for s, places in [(2, 13), (3, 11), (4, 9)]:
        own = weights[[name[0] == s for name in names]]
        assert_close(own, torch.full_like(own, 1 / 3 / places**2), atol=1e-15, rtol=0)
    assert_close(fields.sum((1, 2)), torch.tensor([(2 * name[0]) ** 2 for name in names]).double(), atol=1e-11, rtol=0)


@pytest.mark.parametrize("smoothing", [0, 0.06])
def test_every_field_is_its_amplitude_times_one_of_the_templates(smoothing):
    data = spots(smoothing=smoothing, train_size=100)
    fields, names, _ = data.law.templates()
    for u, (s, row, column, amplitude) in zip(everything(data).double(), truths(data.law, 100), strict=True):
        assert_close(u, amplitude * fields[names.index((s, row, column))], atol=1e-6, rtol=0)
        flat = fields.flatten(1)
        residual = u.square().sum() - (flat @ u.flatten()) ** 2 / flat.square().sum(1)  # after the best amplitude
        assert names[int(residual.argmin())] == (s, row, column)


def test_a_template_is_a_product_of_profiles():
    law = HotSpots(8, (2,), (1.0, 1.0), 0.1)
    fields, names, _ = law.templates()
    profiles = law.profiles(2)
    assert profiles.shape == (5, 8)
    for field, (_, row, column) in zip(fields, names, strict=True):
        assert torch.equal(field, profiles[row, :, None] * profiles[column, None, :])


# the shipped settings ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "law", "count"),
    [
        ("hot_spots", HotSpots(16, (2, 3, 4), (0.7, 1.0), 0.06), 371),
        ("hot_spots_seed", HotSpots(50, (5, 6, 7, 8, 9), (0.7, 1.0), 0.06), 6885),
        ("hot_spots_notebook", HotSpots(50, tuple(range(5, 15)), (1.0, 2.0), 0.06), 10570),
    ],
)
def test_a_shipped_setting_has_the_numbers_of_its_source(name, law, count):
    data = HotSpotFields(**preset(name))
    assert data.law == data.spec.spots == law
    assert data.sizes == {"train": 512, "val": 256, "test": 1024}
    assert data.spec.value_range == (0.0, law.amplitudes[1])
    assert sum((law.resolution - 2 * s + 1) ** 2 for s in law.half_sides) == count
    assert sum(len(law.profiles(s)) ** 2 for s in law.half_sides) == count
    assert math.isclose(law.smoothing * law.resolution, 3) or name == "hot_spots"


# refusals ----------------------------------------------------------------------------------------------------------------


def test_a_wrong_value_is_refused_by_the_name_of_its_key():
    for key, values in [
        ("resolution", {"resolution": 1}),
        ("spots", {"spots": 0}),
        ("spots", {"spots": [1, 2, 3]}),
        ("spots", {"spots": [3, 1]}),
        ("half_side", {"half_side": 2.5}),
        ("half_side", {"half_side": [0, 2]}),
        ("half_side", {"half_side": 9}),
        ("half_side", {"half_side": [2, 9]}),
        ("half_side", {"half_side": "wide"}),
        ("amplitude", {"amplitude": [0.0, 1.0]}),
        ("amplitude", {"amplitude": [1.0, 0.7]}),
        ("amplitude", {"amplitude": None}),
        ("smoothing", {"smoothing": -0.1}),
        ("train_size", {"train_size": 0}),
        ("data_seed", {"data_seed": -1}),
    ]:
        with pytest.raises(ConfigError, match=rf"^data\.{key} must be"):
            spots(**{"shape": [1, 16, 16], **values})


def test_a_shape_of_its_own_is_refused():
    with pytest.raises(ConfigError, match=r"^data\.shape = \[1, 8, 8\] must be \[1, n, n\] with n = data\.resolution = 16"):
        spots(shape=[1, 8, 8])


def test_a_square_as_large_as_the_box_is_the_box():
    law = spots(half_side=8).law
    (square,) = truths(law, 1)
    assert_close(law.field([square]), square.amplitude * torch.ones(16, 16, dtype=torch.float64), atol=1e-12, rtol=0)
