"""The Fourier neural operator: spectral convolutions by hand, resolution independence, symmetries and sizes."""

import math

import pytest
import torch
from torch.testing import assert_close

from heatgen.check import ConfigError
from heatgen.net.fno import FNO, SpectralConv

SIZES = [(8, 8), (7, 5), (2, 9), (3, 1), (16, 6)]
T = torch.tensor([1.0, 7.0])


def small(shape, **options):
    return FNO(shape, **{"modes": 3, "width": 4, **options})


def randomised(net, std=0.3):
    """`net` in double precision with no weight left at zero."""
    generator = torch.Generator().manual_seed(0)
    for parameter in net.parameters():
        torch.nn.init.normal_(parameter, std=std, generator=generator)
    return net.double()


def images(batch, *shape):
    return torch.randn(batch, *shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def waves(size, channels=1):
    """A field of wave numbers up to 2, the same function on every grid: (2, channels, size, size)."""
    y, x = torch.meshgrid(*[torch.arange(size, dtype=torch.float64) / size] * 2, indexing="ij")
    terms = [(1, 0), (0, 2), (2, 1), (1, -2), (0, 0)]
    amplitudes = torch.randn(2, channels, len(terms), 2, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    angles = torch.stack([2 * math.pi * (a * y + b * x) for a, b in terms])
    return torch.einsum("bcnr,nrhw->bchw", amplitudes, torch.stack([angles.cos(), angles.sin()], dim=1))


@pytest.mark.parametrize("size", SIZES)
def test_a_new_net_gives_exactly_zero(size):
    x = images(2, 3, *size).float()
    assert torch.equal(small((3, *size))(x, T), torch.zeros_like(x))


@pytest.mark.parametrize("size", SIZES)
def test_without_the_grid_a_shift_around_the_box_shifts_the_output_and_with_it_not(size):
    shift, x = {"shifts": (1, 3), "dims": (-2, -1)}, images(2, 2, *size)
    for grid in (False, True):
        net = randomised(small((2, *size), grid=grid))
        y = net(x, T)
        assert y.shape == x.shape
        gap = (net(x.roll(**shift), T) - y.roll(**shift)).abs().max()
        assert gap > 1e-3 if grid else gap < 1e-10


def test_a_spectral_convolution_multiplies_each_kept_frequency_by_its_matrix_and_drops_the_others():
    layer, height, width = randomised(SpectralConv(2, 2, (1, 7, 8))), 7, 8
    low, high = torch.view_as_complex(layer.low), torch.view_as_complex(layer.high)
    for k, kx in [(0, 1), (1, 0), (1, 1), (-1, 0), (-2, 1), (2, 0), (3, 1), (0, 2), (-3, 0), (1, 3)]:
        axes = [torch.arange(size, dtype=torch.float64) / size for size in (height, width)]
        y, x = torch.meshgrid(*axes, indexing="ij")
        wave = torch.exp(2j * math.pi * (k * y + kx * x))
        amplitude = torch.tensor([0.7 - 0.2j, -0.4 + 1.1j], dtype=torch.complex128)
        field = (amplitude[:, None, None] * wave).real
        expected = torch.zeros(2, dtype=torch.complex128)
        if kx < 2 and -2 <= k < 2:
            expected = amplitude @ (low[:, :, k, kx] if k >= 0 else high[:, :, k, kx])
        if kx == 0:  # a real field has -k with the conjugate amplitude, which has a matrix of its own
            conjugate = torch.zeros(2, dtype=torch.complex128)
            if -2 <= -k < 2:
                conjugate = amplitude.conj() @ (low[:, :, -k, 0] if k <= 0 else high[:, :, -k, 0])
            expected = (expected + conjugate.conj()) / 2
        assert_close(layer(field[None])[0], (expected[:, None, None] * wave).real, atol=1e-12, rtol=0)


def test_a_spectral_convolution_of_a_function_does_not_depend_on_the_grid():
    layer = randomised(SpectralConv(3, 4, (1, 16, 16)))
    coarse, fine = layer(waves(16, 3)), layer(waves(48, 3))
    assert coarse.abs().max() > 0.1
    assert_close(fine[:, :, ::3, ::3], coarse, atol=1e-10, rtol=0)


@pytest.mark.parametrize("grid", [False, True])
def test_the_network_answers_nearly_the_same_on_a_finer_grid(grid):
    net = randomised(FNO((1, 24, 24), modes=4, width=6, grid=grid))
    outputs = {size: net(waves(size), T)[:, :, :: size // 24, :: size // 24] for size in (24, 48, 96)}
    errors = [((outputs[size] - outputs[96]).std() / outputs[96].std()).item() for size in (24, 48)]
    assert errors[0] < 0.05
    assert errors[1] < errors[0] / 1.9  # the channels i / H jump at the edge, so with them the error is of first order


@pytest.mark.parametrize("modes", [1, 3, 12])
@pytest.mark.parametrize("size", [(8, 8), (7, 5), (2, 9)])
def test_every_weight_takes_part_however_many_modes_are_asked_for(size, modes):
    net = randomised(small((2, *size), modes=modes))
    net(images(2, 2, *size), T).square().sum().backward()
    assert [name for name, p in net.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0] == []


@pytest.mark.parametrize("size", [(4, 20), (5, 3), (1, 1)])
def test_a_field_smaller_than_in_training_uses_the_modes_it_has(size):
    net, x = randomised(small((1, 16, 16), modes=6, grid=False)), images(2, 1, *size)
    y = net(x, T)
    assert_close(net(x.roll((1, 2), (-2, -1)), T), y.roll((1, 2), (-2, -1)), atol=1e-9, rtol=0)


def test_the_weights_are_real_and_the_number_is_that_of_the_published_network():
    net = FNO((1, 32, 32), time=False)
    count = sum(parameter.numel() for parameter in net.parameters())
    spectral = 4 * 2 * 20 * 20 * 12 * 12 * 2
    assert count == spectral + 20 * (3 + 1) + 4 * 20 * 21 + 128 * 21 + 129 == 926_177
    assert all(parameter.is_floating_point() for parameter in net.parameters())


def test_frequencies_are_taken_in_single_precision_under_autocast():
    net, x = randomised(small((1, 8, 8))).float(), images(2, 1, 8, 8).float()
    seen = []
    net.spectral[0].register_forward_hook(lambda layer, inputs, output: seen.append(output.dtype))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        half = net(x, T)
    assert seen == [torch.float32]
    assert_close(half.float(), net(x, T), atol=0.1, rtol=0.1)


@pytest.mark.parametrize("time", [True, False])
def test_the_level_is_told_or_not(time):
    net, x = randomised(small((1, 4, 4), time=time)), images(2, 1, 4, 4)
    assert torch.equal(net(x, T), net(x, T + 1)) == (not time)


@pytest.mark.parametrize(
    ("key", "options"),
    [
        ("net.modes", {"modes": 0}),
        ("net.width", {"width": 0}),
        ("net.grid", {"grid": "no"}),
        ("net.time", {"time": None}),
        ("net.num_levels", {"num_levels": 0.5}),
        ("net.conditional", {"conditional": 1}),
    ],
)
def test_a_wrong_value_is_refused_by_the_name_of_its_key(key, options):
    with pytest.raises(ConfigError, match=rf"^{key} "):
        small((1, 8, 8), **options)
