"""The Bayesian U-Net: its masks belong to samples, its symmetries, and what it refuses."""

import math

import pytest
import torch
from torch.testing import assert_close

from heatgen.check import ConfigError
from heatgen.net.bayesian_unet import BayesianUNet, SpatialDropout
from heatgen.noise import SampleNoise, SharedNoise

SIZES = [(8, 8), (7, 5), (4, 9)]
T = torch.tensor([1.0, 7.0])


def small(shape, **options):
    return BayesianUNet(shape, **{"channels": (4, 6, 8), "dropout": 0.3, **options}).eval()


def randomised(net):
    """`net` in double precision with no weight left at zero."""
    generator = torch.Generator().manual_seed(0)
    for parameter in net.parameters():
        torch.nn.init.normal_(parameter, std=0.3, generator=generator)
    return net.double()


def images(batch, *shape):
    return torch.randn(batch, *shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def with_masks(net, x, t, source):
    for module in net.modules():
        if isinstance(module, SpatialDropout):
            module.source = source
    return net(x, t)


@pytest.mark.parametrize("size", SIZES)
def test_a_new_net_gives_exactly_zero(size):
    x = images(2, 3, *size).float()
    assert torch.equal(small((3, *size))(x, T), torch.zeros_like(x))


def test_a_shift_by_the_coarsest_pixel_shifts_the_output_and_by_less_not():
    net, x = randomised(small((2, 8, 16))), images(2, 2, 8, 16)
    y = net(x, T)
    for shift, holds in [((4, 8), True), ((0, 4), True), ((1, 0), False)]:
        gap = (net(x.roll(shift, (-2, -1)), T) - y.roll(shift, (-2, -1))).abs().max()
        assert gap < 1e-9 if holds else gap > 1e-3


@pytest.mark.parametrize("size", SIZES)
def test_any_size_keeps_its_shape_and_every_weight_takes_part(size):
    net, x = randomised(small((2, *size))), images(2, 2, *size)
    y = net(x, T)
    assert y.shape == x.shape
    y.square().sum().backward()
    assert [name for name, p in net.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0] == []


@pytest.mark.parametrize("source", ["own", "torch"])
def test_dropout_takes_whole_channels_at_its_rate_and_keeps_the_mean(source):
    torch.manual_seed(0)
    layer, batch = SpatialDropout(0.3).train(source == "torch"), 300
    layer.source = SampleNoise(range(batch), 0) if source == "own" else None
    y = layer(torch.ones(batch, 40, 3, 2))
    assert torch.equal(y, y[:, :, :1, :1].expand_as(y))
    assert_close(y.unique(), torch.tensor([0.0, 1 / 0.7]))
    assert abs((y == 0).float().mean() - 0.3) < 4 * math.sqrt(0.3 * 0.7 / (40 * batch))
    assert (y[:, :, 0, 0] == 0).float().mean(0).max() < 0.5 and (y[:, :, 0, 0] == 0).float().mean(1).std() > 0.03


def test_dropout_is_off_without_a_source_and_out_of_training_and_where_nothing_is_dropped():
    x = images(2, 3, 4, 4)
    assert torch.equal(SpatialDropout(0.5).eval()(x), x)
    assert torch.equal(SpatialDropout(0.0).train()(x), x)


def test_the_masks_of_a_sample_depend_on_its_stream_alone():
    net, x = randomised(small((1, 8, 8))), images(4, 1, 8, 8)
    t = torch.ones(4)
    together = with_masks(net, x, t, SampleNoise(range(4), 3))
    for j in (3, 1):
        alone = with_masks(net, x[[j]], t[:1], SampleNoise([j], 3))
        assert_close(together[[j]], alone, atol=1e-10, rtol=0)
        assert (with_masks(net, x[[j]], t[:1], SampleNoise([j], 4)) - alone).abs().max() > 1e-3
    same = x[:1].expand(4, -1, -1, -1)
    assert (with_masks(net, same, t, SampleNoise(range(4), 3)).diff(dim=0)).abs().amax((1, 2, 3)).min() > 1e-3
    shared = with_masks(net, same, t, SharedNoise(3))
    assert_close(shared, shared[:1].expand_as(shared), atol=1e-10, rtol=0)
    assert torch.equal(with_masks(net, x, t, None), net(x, t))


@pytest.mark.parametrize("linear", [True, False])
def test_without_activations_one_level_is_an_affine_map(linear):
    net = randomised(small((1, 6, 6), channels=[4], activation="none" if linear else "leaky_relu"))
    a, b = images(2, 1, 6, 6).split(1)
    t = T[:1]
    gap = (net(a + b, t) - net(a, t) - net(b, t) + net(torch.zeros_like(a), t)).abs().max()
    assert gap < 1e-9 if linear else gap > 1e-3


@pytest.mark.parametrize("time", [True, False])
def test_the_level_is_told_or_not(time):
    net, x = randomised(small((1, 4, 4), time=time)), images(2, 1, 4, 4)
    assert torch.equal(net(x, T), net(x, T + 1)) == (not time)


@pytest.mark.parametrize(("size", "levels"), [((8, 8), 4), ((7, 30), 3), ((2, 3), 2)])
def test_it_has_as_many_levels_as_the_shorter_side_can_be_halved(size, levels):
    x = images(2, 1, *size)
    assert randomised(small((1, *size), channels=[2] * levels))(x, T).shape == x.shape
    with pytest.raises(ConfigError, match=rf"^net.channels may have {levels} levels"):
        small((1, *size), channels=[2] * (levels + 1))


@pytest.mark.parametrize(
    ("key", "options"),
    [
        ("net.channels", {"channels": []}),
        ("net.channels", {"channels": 16}),
        ("net.dropout", {"dropout": 1}),
        ("net.dropout", {"dropout": -0.1}),
        ("net.activation", {"activation": "relu"}),
        ("net.time", {"time": 1}),
        ("net.num_levels", {"num_levels": 0}),
        ("net.conditional", {"conditional": 1}),
        ("data.shape", {"shape": (1, 1, 8), "channels": [4]}),
    ],
)
def test_a_wrong_value_is_refused_by_the_name_of_its_key(key, options):
    with pytest.raises(ConfigError, match=rf"^{key} "):
        small(**{"shape": (1, 8, 8), **options})
