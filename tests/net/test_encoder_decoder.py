"""The encoder-decoder: its symmetries on the periodic box, what it is told, and no weight without an effect."""

import pytest
import torch
import torch.nn.functional as F
from torch.testing import assert_close

from heatgen.check import ConfigError
from heatgen.net.encoder_decoder import Constants, EncoderDecoder

SIZES = [(8, 8), (7, 5), (2, 9), (2, 2)]
T = torch.tensor([1.0, 7.0])


def small(shape, **options):
    return EncoderDecoder(shape, **{"channels": 4, "blocks": 3, **options})


def randomised(net):
    """`net` in double precision with no weight left at zero."""
    generator = torch.Generator().manual_seed(0)
    for parameter in net.parameters():
        torch.nn.init.normal_(parameter, std=0.3, generator=generator)
    return net.double()


def images(batch, *shape):
    return torch.randn(batch, *shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def test_the_number_of_weights_is_the_one_of_the_docstring():
    net = EncoderDecoder((1, 32, 32))
    count = sum(parameter.numel() for parameter in net.parameters())
    enter, blocks, middle, leave = 2 * 32 * 9 + 32, (10 + 8) * (32 * 32 * 9 + 32), 32 + 1 + 32 * 9 + 32, 32 * 25 + 1
    assert count == enter + blocks + middle + leave
    assert f"{count:,} weights with the defaults" in EncoderDecoder.__doc__


@pytest.mark.parametrize("size", SIZES)
def test_a_new_net_gives_exactly_zero(size):
    x = images(2, 3, *size).float()
    assert torch.equal(small((3, *size))(x, T), torch.zeros_like(x))


@pytest.mark.parametrize("kernel_size", [1, 3, 5])
@pytest.mark.parametrize("size", SIZES)
def test_a_shift_around_the_box_shifts_the_output(size, kernel_size):
    net, x = randomised(small((2, *size), kernel_size=kernel_size)), images(2, 2, *size)
    shift = {"shifts": (1, 3), "dims": (-2, -1)}
    y = net(x, T)
    assert y.shape == x.shape
    assert_close(net(x.roll(**shift), T), y.roll(**shift), atol=1e-9, rtol=1e-9)
    assert (y - y.mean((2, 3), keepdim=True)).abs().amax((1, 2, 3)).min() > 1e-3


def test_the_network_is_the_formula_of_its_docstring():
    net, x = randomised(small((1, 6, 6), blocks=4)), images(2, 1, 6, 6)

    def conv(layer, h):
        pad = layer.kernel_size[0] // 2
        return F.conv2d(F.pad(h, [pad] * 4, mode="circular") if pad else h, layer.weight, layer.bias)

    def block(b, h):
        return F.leaky_relu(conv(b[2], F.leaky_relu(conv(b[0], h), 0.01)), 0.01)

    level = (T / 100).double().reshape(2, 1, 1, 1).expand(2, 1, 6, 6)
    h = [conv(net.in_conv, torch.cat([x, level], dim=1))]
    for b in net.encoder:
        h.append(h[-1] + block(b, h[-1]))
    d = conv(net.middle[1], conv(net.middle[0], h[4]))
    d = d + block(net.decoder[0], d)
    d = d + h[2]
    d = d + block(net.decoder[1], d)
    d = block(net.decoder[2], d)
    assert_close(net(x, T), conv(net.out_conv, d), atol=1e-12, rtol=1e-12)


@pytest.mark.parametrize("bottleneck", [1, 2, None])
@pytest.mark.parametrize("blocks", [2, 3, 5])
def test_every_weight_takes_part(blocks, bottleneck):
    net = randomised(small((2, 6, 7), blocks=blocks, bottleneck=bottleneck))
    net(images(2, 2, 6, 7), T).square().sum().backward()
    assert [name for name, p in net.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0] == []


def test_two_stacked_fields_give_one():
    net, x = randomised(small((1, 4, 4), inputs=2)), images(2, 2, 4, 4)
    y = net(x, T)
    assert y.shape == (2, 1, 4, 4)
    assert (net(x + torch.tensor([0.0, 1.0]).reshape(2, 1, 1), T) - y).abs().max() > 1e-3


@pytest.mark.parametrize("time", [True, False])
def test_the_level_is_told_as_a_share_of_all_levels_or_not_at_all(time):
    net, x = randomised(small((1, 4, 4), time=time)), images(2, 1, 4, 4)
    same = torch.equal(net(x, T), net(x, T + 1))
    assert same == (not time)
    told = Constants(time, 50, False)(x, T, None)
    assert_close(told[:, 1:], (T / 50).double().reshape(2, 1, 1, 1).expand(2, 1, 4, 4)[:, : int(time)], atol=1e-7, rtol=0)


def test_a_conditional_network_is_told_both_numbers_of_each_sample_and_insists_on_them():
    net, x = randomised(small((1, 4, 4), conditional=True)), images(2, 1, 4, 4)
    cond = torch.tensor([[0.2, 0.9], [0.4, 0.5]])
    y = net(x, T, cond)
    for column in (0, 1):
        other = cond.clone()
        other[1, column] += 0.5
        change = (net(x, T, other) - y).abs().amax((1, 2, 3))
        assert change[0] == 0 and change[1] > 1e-3
    with pytest.raises(AssertionError, match="needs cond"):
        net(x, T)


@pytest.mark.parametrize(
    ("key", "options"),
    [
        ("net.channels", {"channels": 0}),
        ("net.blocks", {"blocks": 1}),
        ("net.kernel_size", {"kernel_size": 4}),
        ("net.kernel_size", {"kernel_size": 0}),
        ("net.bottleneck", {"bottleneck": 0}),
        ("net.inputs", {"inputs": 0}),
        ("net.time", {"time": 1}),
        ("net.num_levels", {"num_levels": 0}),
        ("net.conditional", {"conditional": "yes"}),
        ("data.shape", {"shape": (1, 8, 1)}),
        ("data.shape", {"shape": (1, 2, 8), "kernel_size": 7}),
    ],
)
def test_a_wrong_value_is_refused_by_the_name_of_its_key(key, options):
    with pytest.raises(ConfigError, match=rf"^{key} "):
        small(**{"shape": (1, 8, 8), **options})
