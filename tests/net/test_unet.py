"""The U-Net against the published parameter counts, explicit attention, and its own promises about sizes and levels."""

import pytest
import torch
from torch.testing import assert_close

from heatgen.check import ConfigError
from heatgen.net.unet import Attention, UNet, sinusoid

PUBLISHED = {  # channels, size, model_channels, multipliers, num_res_blocks, attention_levels: parameters
    "mnist": (1, 28, 128, (1, 2, 2), 4, (2,), 42_082_049),
    "small_mnist": (1, 28, 64, (1, 1, 1), 4, (2,), 3_704_129),
    "cifar10": (3, 32, 128, (1, 2, 2, 2), 4, (2, 3), 61_060_867),
    "afhq64": (3, 64, 128, (1, 2, 3, 4), 2, (2, 3), 88_217_219),
    "ffhq128": (3, 128, 128, (1, 2, 3, 4, 5), 2, (2, 3, 4), 159_981_443),
    "lsun128": (3, 128, 128, (1, 2, 3, 4, 5), 4, (2, 3, 4), 261_828_227),
}
SMALL = {"model_channels": 8, "multipliers": (1, 2), "num_res_blocks": 1, "attention_levels": (1,), "norm_groups": 4}
SIZES = [(8, 8), (7, 7), (5, 12), (9, 2), (2, 1)]


def small(shape, **options):
    return UNet(shape, **{**SMALL, **options}).eval()


def randomised(net):
    """`net` with no weight left at zero."""
    generator = torch.Generator().manual_seed(0)
    for parameter in net.parameters():
        torch.nn.init.normal_(parameter, std=0.2, generator=generator)
    return net


def images(batch, *shape):
    return torch.randn(batch, *shape, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize(
    ("channels", "size", "width", "multipliers", "blocks", "levels", "count"), PUBLISHED.values(), ids=PUBLISHED
)
def test_the_number_of_parameters_is_the_published_one(channels, size, width, multipliers, blocks, levels, count):
    with torch.device("meta"):
        net = UNet((channels, size, size), width, multipliers, blocks, levels)
    assert sum(parameter.numel() for parameter in net.parameters()) == count


@pytest.mark.parametrize("size", SIZES)
def test_a_new_net_gives_exactly_zero(size):
    torch.manual_seed(0)
    net = UNet((3, *size), **SMALL)
    assert torch.equal(net(images(2, 3, *size), torch.tensor([1.0, 7.0])), torch.zeros(2, 3, *size))


@pytest.mark.parametrize("levels", [(), (0,), (1, 2)])
@pytest.mark.parametrize("size", SIZES)
def test_any_size_keeps_its_shape_and_items_do_not_see_each_other(size, levels):
    net = randomised(small((2, *size), multipliers=(1, 2, 3), attention_levels=levels))
    x, t = images(3, 2, *size), torch.tensor([1.0, 4.0, 50.0])
    y = net(x, t)
    assert y.shape == x.shape
    assert_close(y[1:2], net(x[1:2], t[1:2]), atol=1e-4, rtol=1e-4)
    assert not torch.allclose(y[1:2], net(x[:1], t[1:2]), atol=1e-2)


@pytest.mark.parametrize("pair", [(0, 1), (1, 2), (99, 100)])
def test_the_number_of_the_level_changes_the_output(pair):
    net, x = randomised(small((1, 6, 6))), images(1, 1, 6, 6).expand(2, -1, -1, -1)
    first, second = net(x, torch.tensor(pair).float())
    assert (first - second).abs().max() > 1e-3 * first.abs().max()


def test_the_embedding_of_a_level_is_its_cosines_then_its_sines():
    angles = torch.tensor([[0.0, 0.0], [3.0, 0.03], [100.0, 1.0]])
    expected = torch.cat([angles.cos(), angles.sin()], dim=1)
    assert_close(sinusoid(torch.tensor([0, 3, 100]), 4), expected, atol=1e-6, rtol=0)


def test_attention_is_the_softmax_of_scaled_products_over_all_pixels():
    layer, x = randomised(Attention(8, groups=4)), images(2, 8, 3, 5)
    q, k, v = layer.qkv(layer.norm(x.flatten(2))).chunk(3, dim=1)
    weights = torch.einsum("bci,bcj->bij", q, k).div(8**0.5).softmax(-1)
    expected = x + layer.project(torch.einsum("bij,bcj->bci", weights, v)).reshape(x.shape)
    assert_close(layer(x), expected, atol=1e-5, rtol=1e-5)


def test_dropout_acts_in_training_only():
    net, x, t = randomised(small((1, 6, 6), dropout=0.5)), images(1, 1, 6, 6), torch.ones(1)
    assert torch.equal(net(x, t), net(x, t))
    net.train()
    assert not torch.equal(net(x, t), net(x, t))


def test_every_parameter_takes_part():
    net = randomised(small((2, 6, 7)))
    net(images(2, 2, 6, 7), torch.tensor([1.0, 2.0])).square().sum().backward()
    assert [name for name, p in net.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0] == []


@pytest.mark.parametrize("size", SIZES)
def test_the_layout_in_memory_changes_nothing_but_speed(size):
    options = {"multipliers": (1, 2), "attention_levels": (0, 1)}
    last, first = (randomised(small((2, *size), memory_format=f, **options)) for f in ("channels_last", "contiguous"))
    first.load_state_dict(last.state_dict())
    x, t = images(3, 2, *size), torch.tensor([1.0, 4.0, 50.0])
    outputs = [net(state, t) for net in (last, first) for state in (x, x.contiguous(memory_format=torch.channels_last))]
    assert outputs[0].abs().max() > 0.1
    for output in outputs:
        assert_close(output, outputs[-2], atol=1e-5, rtol=1e-5)
        assert output.is_contiguous()
    weight = dict(last.named_parameters())["down.0.block.first.2.weight"]
    assert weight.is_contiguous(memory_format=torch.channels_last) and not weight.is_contiguous()


@pytest.mark.parametrize("padding", ["zeros", "circular"])
@pytest.mark.parametrize("size", [(8, 8), (4, 12)])
def test_with_circular_padding_alone_a_shift_around_the_box_shifts_the_output(size, padding):
    net, x, t = randomised(small((2, *size), padding=padding)), images(2, 2, *size), torch.ones(2)
    y, shift = net(x, t), {"shifts": (2, 4), "dims": (-2, -1)}  # whole pixels of the coarsest resolution
    gap = (net(x.roll(**shift), t) - y.roll(**shift)).abs().max() / y.abs().max()
    assert gap < 1e-5 if padding == "circular" else gap > 1e-2


def test_what_a_network_is_told_has_no_effect_until_it_has_learned():
    torch.manual_seed(0)
    net, x, t = small((1, 6, 6), conditional=True), images(2, 1, 6, 6), torch.tensor([3.0, 3.0])
    randomised(torch.nn.ModuleList(module for name, module in net.named_children() if name != "cond_embed"))
    low, high = torch.zeros(2, 2), torch.tensor([[1.0, 0.5]]).expand(2, 2)
    assert net(x, t, low).abs().max() > 0.1
    assert torch.equal(net(x, t, low), net(x, t, high))
    randomised(net)
    told = net(x, t, high)
    assert (net(x, t, low) - told).abs().amax(dim=(1, 2, 3)).min() > 1e-3
    for column in (0, 1):
        other = high.clone()
        other[1, column] += 0.3
        change = (net(x, t, other) - told).abs().amax(dim=(1, 2, 3))
        assert change[0] < 1e-5 and change[1] > 1e-3  # its own sample alone


def test_a_conditional_network_insists_on_being_told():
    net, x, t = small((1, 6, 6), conditional=True), images(1, 1, 6, 6), torch.ones(1)
    with pytest.raises(AssertionError, match="needs cond"):
        net(x, t)


def test_a_network_that_is_not_conditional_has_no_weights_for_it_and_ignores_it():
    net, x, t = randomised(small((1, 6, 6))), images(1, 1, 6, 6), torch.ones(1)
    assert not any(name.startswith("cond_embed") for name, _ in net.named_parameters())
    assert torch.equal(net(x, t), net(x, t, torch.ones(1, 2)))


@pytest.mark.parametrize(
    ("key", "options"),
    [
        ("net.norm_groups", {"norm_groups": 3}),
        ("net.norm_groups", {"norm_groups": 0}),
        ("net.norm_groups", {"model_channels": 48, "norm_groups": 32}),
        ("net.multipliers", {"multipliers": (2, 2)}),
        ("net.multipliers", {"multipliers": ()}),
        ("net.multipliers", {"multipliers": 2}),
        ("net.multipliers", {"multipliers": (1, 0)}),
        ("net.attention_levels", {"attention_levels": (2,)}),
        ("net.attention_levels", {"attention_levels": (-1,)}),
        ("net.attention_levels", {"attention_levels": ("last",)}),
        ("net.model_channels", {"model_channels": "wide"}),
        ("net.num_res_blocks", {"num_res_blocks": 0}),
        ("net.dropout", {"dropout": 1.5}),
        ("net.conditional", {"conditional": "yes"}),
        ("net.memory_format", {"memory_format": True}),
        ("net.padding", {"padding": "reflect"}),
        ("net.checkpointing", {"checkpointing": 1}),
    ],
)
def test_a_wrong_value_is_refused_by_the_name_of_its_key(key, options):
    with pytest.raises(ConfigError, match=rf"^{key} "):
        small((1, 8, 8), **options)


def saved_bytes(net, x, t):
    """What a forward pass keeps for the backward pass."""
    kept = {}

    def pack(tensor):
        kept[tensor.untyped_storage()._cdata] = tensor
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        net(x, t)
    weights = {weight.untyped_storage()._cdata for weight in net.parameters()}
    return sum(tensor.untyped_storage().nbytes() for key, tensor in kept.items() if key not in weights)


def test_checkpointing_gives_the_same_bits_with_dropout_and_keeps_a_part_of_the_activations():
    nets = [small((1, 12, 12), dropout=0.3, checkpointing=checkpointing) for checkpointing in (False, True)]
    nets[1].load_state_dict(randomised(nets[0]).state_dict())
    found, x, t = [], images(4, 1, 12, 12), torch.arange(4.0)
    for net in nets:
        torch.manual_seed(1)
        output = net.train()(x, t)
        output.square().sum().backward()
        found.append([output, torch.rand(1), *(weight.grad for weight in net.parameters())])
    assert all(torch.equal(a, b) for a, b in zip(*found, strict=True))
    assert saved_bytes(nets[1], x, t) < saved_bytes(nets[0], x, t) / 3
    with torch.no_grad():
        assert torch.equal(nets[0].eval()(x, t), nets[1].eval()(x, t))


def test_checkpointing_is_refused_where_a_derivative_is_taken_forward():
    from heatgen import compose
    from heatgen.app.build import build

    words = ["model=ssm", "net=unet", "net.checkpointing=true", "forward.num_levels=3"]
    with pytest.raises(ConfigError, match=r"net\.checkpointing=true does not go with model=ssm"):
        build(compose(*words, "net.model_channels=8", "net.norm_groups=4"))
