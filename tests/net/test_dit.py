"""The diffusion transformer: attention by hand, what it sees and does not, and its own promises about sizes and levels."""

import pytest
import torch
from conftest import call
from torch.testing import assert_close

from heatgen.check import ConfigError
from heatgen.net.dit import Block, DiT, positions

SMALL = {"patch": 2, "width": 16, "depth": 2, "heads": 2}
SIZES = [(8, 8), (6, 10), (2, 4)]


def small(shape, **options):
    return DiT(shape, **{**SMALL, **options}).eval()


def randomised(net, seed=0):
    generator = torch.Generator().manual_seed(seed)
    for parameter in net.parameters():
        torch.nn.init.normal_(parameter, std=0.3, generator=generator)
    return net


def images(batch, *shape):
    return torch.randn(batch, *shape, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("size", SIZES)
def test_a_new_net_gives_exactly_zero_and_any_size_keeps_its_shape(size):
    net, x, t = small((3, *size)), images(3, 3, *size), torch.tensor([1.0, 4.0, 50.0])
    assert torch.equal(net(x, t), torch.zeros_like(x))
    y = randomised(net)(x, t)
    assert y.shape == x.shape and y.abs().max() > 0.1
    assert_close(y[1:2], net(x[1:2], t[1:2]), atol=1e-4, rtol=1e-4)


def test_a_new_block_does_nothing():
    x = images(2, 5, 16)
    assert torch.equal(Block(16, 2, 0.0)(x, images(2, 16)), x)


def test_a_block_is_modulated_attention_and_a_network_of_each_token():
    block, x, embedding = randomised(Block(16, 2, 0.0)), images(2, 5, 16), images(2, 16)
    b, a, g, b2, a2, g2 = block.modulation[1](torch.nn.functional.silu(embedding)).reshape(2, 6, 1, 16).unbind(1)

    def normed(z):
        return (z - z.mean(-1, keepdim=True)) / (z.var(-1, correction=0, keepdim=True) + 1e-6).sqrt()

    q, k, v = block.qkv((1 + a) * normed(x) + b).reshape(2, 5, 3, 2, 8).unbind(2)
    share = torch.einsum("bihc,bjhc->bhij", q, k).div(8**0.5).softmax(-1)
    middle = x + g * block.project(torch.einsum("bhij,bjhc->bihc", share, v).flatten(2))
    hidden = block.feed[0]((1 + a2) * normed(middle) + b2)
    expected = middle + g2 * block.feed[3](torch.nn.functional.gelu(hidden, approximate="tanh"))
    assert_close(block(x, embedding), expected, atol=1e-4, rtol=1e-4)


def test_without_places_patches_that_change_their_order_change_it_in_the_output_and_with_them_they_do_more():
    net, x, t = randomised(small((2, 6, 8))), images(2, 2, 6, 8), torch.tensor([3.0, 9.0])
    moved = {"shifts": (2, 4), "dims": (-2, -1)}  # whole patches, around the edges
    with_places = (net(x.roll(**moved), t) - net(x, t).roll(**moved)).abs().max()
    net.positions.zero_()
    assert_close(net(x.roll(**moved), t), net(x, t).roll(**moved), atol=1e-4, rtol=1e-4)
    assert with_places > 0.05


def test_places_are_different_and_near_ones_alike():
    found = positions(5, 7, 32)
    assert found.shape == (35, 32)
    similarity = found @ found.mT
    assert (similarity.diagonal() - 16).abs().max() < 1e-4 and (similarity.fill_diagonal_(0) < 15.9).all()
    assert similarity[0, 1] > similarity[0, 3] and similarity[0, 7] > similarity[0, 21]  # along a row, along a column


def test_every_pixel_sees_every_other_one():
    net, x = randomised(small((1, 8, 8))), images(1, 1, 8, 8).requires_grad_()
    net(x, torch.ones(1))[0, 0, 7, 7].backward()
    assert (x.grad.abs() > 1e-7).all()


@pytest.mark.parametrize("pair", [(0, 1), (99, 100), (3, 3.5)])
def test_the_number_of_the_level_changes_the_output(pair):
    net, x = randomised(small((1, 6, 6))), images(1, 1, 6, 6).expand(2, -1, -1, -1)
    first, second = net(x, torch.tensor(pair).float())
    assert (first - second).abs().max() > 1e-3 * first.abs().max()


def test_what_a_network_is_told_has_no_effect_until_it_has_learned():
    net, x, t = small((1, 6, 6), conditional=True), images(2, 1, 6, 6), torch.tensor([3.0, 3.0])
    randomised(torch.nn.ModuleList(module for name, module in net.named_children() if name != "cond_embed"))
    low, high = torch.zeros(2, 2), torch.tensor([[1.0, 0.5]]).expand(2, 2)
    assert torch.equal(net(x, t, low), net(x, t, high)) and net(x, t, low).abs().max() > 0.1
    assert (randomised(net)(x, t, low) - net(x, t, high)).abs().amax(dim=(1, 2, 3)).min() > 1e-3
    with pytest.raises(AssertionError, match="needs cond"):
        net(x, t)


def test_every_parameter_takes_part_and_dropout_acts_in_training_only():
    net, x, t = randomised(small((2, 6, 8), dropout=0.5)), images(2, 2, 6, 8), torch.tensor([1.0, 2.0])
    assert torch.equal(net(x, t), net(x, t))
    net(x, t).square().sum().backward()
    assert [name for name, p in net.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0] == []
    net.train()
    assert not torch.equal(net(x, t), net(x, t))


@pytest.mark.parametrize(
    ("key", "options"),
    [
        (r"net\.patch=3 must divide both sides of fields of 8 x 8 pixels; use net\.patch=2", {"patch": 3}),
        (r"net\.width must be a multiple of 4 and of net\.heads = 3, not 16", {"heads": 3}),
        (r"net\.width must be a multiple of 4", {"width": 18}),
        (r"net\.heads ", {"heads": 0}),
        (r"net\.depth ", {"depth": 0}),
        (r"net\.dropout ", {"dropout": 1.5}),
        (r"net\.inputs ", {"inputs": 0}),
        (r"net\.conditional ", {"conditional": "yes"}),
    ],
)
def test_a_wrong_value_is_refused_by_the_name_of_its_key(key, options):
    with pytest.raises(ConfigError, match=rf"^{key}"):
        small((1, 8, 8), **options)


@pytest.mark.slow
def test_it_trains_on_digits_with_the_sizes_that_the_data_recommend(tmp_path):
    folder = tmp_path / "run"
    words = ["model=diffusion", "forward=flow", "sampler=multistep", "net=dit", "trainer.max_steps=30", "evaluate=[]"]
    words += [
        "trainer.accelerator=cpu",
        "callback.pictures.every=0",
        "forward.num_levels=5",
        "model.warmup_steps=5",
        "callback.ema.decay=0.9",
    ]
    assert call("train", *words, f"hydra.run.dir={folder}") == 0
    rows = (folder / "metrics.csv").read_text().splitlines()
    losses = [float(row.split(",")[rows[0].split(",").index("val/loss")] or "nan") for row in rows[1:]]
    assert min(loss for loss in losses if loss == loss) < 0.97  # a new network, which gives 0, has 1
    assert call("sample", f"run={folder}", "n=2", "trainer.accelerator=cpu") == 0
