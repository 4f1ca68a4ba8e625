"""The fully connected net: the published sizes, each formula by hand, and what each way to be told the time can learn."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch.testing import assert_close

from heatgen.check import ConfigError
from heatgen.net.mlp import MLP, TIMES

T = torch.tensor([1.0, 37.5])
TOLD = [time for time in TIMES if time != "none"]
POINT = (1, 1, 1)


def small(shape=POINT, seed=0, **options):
    torch.manual_seed(seed)
    return MLP(shape, **{"width": 6, "depth": 2, "embedding": 8, **options})


def points(batch, *shape):
    return torch.randn(batch, *shape, generator=torch.Generator().manual_seed(1))


def count(net):
    return sum(parameter.numel() for parameter in net.parameters())


def test_the_numbers_of_weights_are_those_of_the_published_networks():
    assert count(MLP(POINT, 8, 1, "additive", embedding=256, scale=30.0)) == 2 * 8 + 257 * 8 + 9 == 2081
    assert count(MLP(POINT, 8, 3, "raw")) == 3 * 8 + 2 * 9 * 8 + 9 == 177


@pytest.mark.parametrize("depth", [1, 3])
@pytest.mark.parametrize("time", TIMES)
def test_the_output_is_the_formula(time, depth):
    net = small((3, 1, 1), time=time, depth=depth, num_levels=50).double()
    x, t = points(2, 3, 1, 1).double(), T.double()
    w, tau = dict(net.named_parameters()), t[:, None] / 50

    def affine(name, h):
        return torch.einsum("oi,bi->bo", w[f"{name}.weight"], h) + w.get(f"{name}.bias", 0)

    e = torch.empty(2, 0, dtype=torch.float64)
    if time in ("additive", "concat", "film"):
        angles = 2 * math.pi * tau * net.state_dict()["embed.frequencies"]
        e = torch.cat([torch.sin(angles), torch.cos(angles)], dim=1)
    h = {"raw": torch.cat([x[:, :, 0, 0], tau], 1), "concat": torch.cat([x[:, :, 0, 0], e], 1)}.get(time, x[:, :, 0, 0])
    films = torch.zeros(2, 3 + depth * 12, dtype=torch.float64)
    if time == "film":
        films = affine("film.2", F.silu(affine("film.0", torch.cat([e, torch.log(tau + 1e-3)], 1))))
        h = (1 + films[:, :3]) * h
    skipped = w["skip"][0] * h if time == "film" else 0
    for i in range(depth):
        start = 3 + 12 * i
        h = (1 + films[:, start : start + 6]) * affine(f"hidden.{i}", h) + films[:, start + 6 : start + 12]
        h = F.silu(h + F.silu(affine("add", e)) if time == "additive" and i == 0 else h)
    assert_close(net(x, t)[:, :, 0, 0], affine("out_layer", h) + skipped)


@pytest.mark.parametrize("time", TIMES)
@pytest.mark.parametrize("shape", [POINT, (1, 1, 5), (3, 4, 2)])
def test_any_shape_two_inputs_and_cond(shape, time):
    net = small(shape, time=time, inputs=2, conditional=True)
    x, cond = points(2, 2 * shape[0], *shape[1:]), torch.tensor([[0.1, 0.2], [0.3, 0.4]])
    y = net(x, T, cond)
    assert y.shape == (2, *shape)
    assert not torch.equal(net(x, T, cond + 1), y)
    assert not torch.equal(net(torch.cat([x[:, : shape[0]], -x[:, shape[0] :]], 1), T, cond), y)
    assert y.dtype == torch.float32 and net.double()(x.double(), T, cond).dtype == torch.float64


@pytest.mark.parametrize("time", TIMES)
def test_the_level_is_told_between_whole_numbers_too_or_not_at_all(time):
    net, x = small(time=time), points(2, *POINT)
    assert torch.equal(net(x, T), net(x, T + 0.5)) == (time == "none")


@pytest.mark.parametrize("time", ["additive", "concat", "film"])
def test_the_frequencies_are_in_the_checkpoint_and_are_not_trained(time):
    net, other, x = small(time=time, scale=5.0), small(seed=1, time=time, scale=5.0), points(2, *POINT)
    assert "embed.frequencies" not in dict(net.named_parameters())
    assert not torch.equal(net.embed.frequencies, other.embed.frequencies)
    other.load_state_dict(net.state_dict())
    assert torch.equal(net(x, T), other(x, T))


def test_the_frequencies_have_the_standard_deviation_asked_for():
    frequencies = small(time="concat", embedding=20_000, scale=30.0).embed.frequencies
    assert frequencies.shape == (10_000,)
    assert abs(frequencies.std().item() / 30 - 1) < 0.03 and abs(frequencies.mean().item()) < 1.0


def slopes(net, x):
    """d net / dx at the place x for a few levels, (6,)."""
    places = torch.full((6, *POINT), x, dtype=torch.float64, requires_grad=True)
    net(places, torch.linspace(1, 100, 6, dtype=torch.float64)).sum().backward()
    return places.grad.flatten()


@pytest.mark.parametrize("sign", [1, -1])
def test_the_slope_of_the_published_additive_net_depends_on_time_near_0_and_not_far_away(sign):
    net = small(time="additive", depth=1, width=8, embedding=256, scale=30.0).double()
    w, a = net.hidden[0].weight[:, 0], net.out_layer.weight[0]
    assert_close(slopes(net, sign * 1e5), (w * a)[sign * w > 0].sum().expand(6).detach())
    assert slopes(net, 0.0).std() > 1e-3


@pytest.mark.parametrize("depth", [1, 3])
@pytest.mark.parametrize("time", TOLD)
def test_far_away_only_film_has_a_slope_that_depends_on_time(time, depth):
    spread = slopes(small(time=time, depth=depth, width=32).double(), 1e6).std()
    assert spread > 1e-3 if time == "film" else spread < 1e-9


def error_after(net, steps):
    """The mean squared error of net(x, t) = x t^-1/2 after some training, for x = t^1/2 eps and 1e-3 < t < 1."""
    generator = torch.Generator().manual_seed(2)
    optimizer = torch.optim.Adam(net.parameters(), 3e-3)
    losses = []
    for _ in range(steps):
        t = 1 - (1 - 1e-3) * torch.rand(512, generator=generator)
        eps = torch.randn(512, *POINT, generator=generator)
        loss = (net(eps * t[:, None, None, None].sqrt(), 100 * t) - eps).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return sum(losses[-50:]) / 50


@pytest.mark.slow
def test_film_learns_to_divide_by_the_noise_and_the_published_additive_net_hardly():
    film = error_after(small(width=32), 400)
    additive = error_after(small(time="additive", width=8, depth=1, embedding=256, scale=30.0), 400)
    nothing = error_after(small(time="none", width=32), 400)
    assert film < 1.5e-3
    assert additive > 50 * film
    assert nothing > 50 * film


@pytest.mark.parametrize(
    ("key", "options"),
    [
        ("data.shape", {"shape": 3}),
        ("net.width", {"width": 0}),
        ("net.depth", {"depth": 0}),
        ("net.time", {"time": "flim"}),
        ("net.time", {"time": True}),
        ("net.embedding", {"embedding": 7}),
        ("net.embedding", {"embedding": 0}),
        ("net.scale", {"scale": 0.0}),
        ("net.num_levels", {"num_levels": 0}),
        ("net.conditional", {"conditional": 1}),
        ("net.inputs", {"inputs": 0}),
    ],
)
def test_a_wrong_value_is_refused_in_one_sentence_that_names_its_key(key, options):
    with pytest.raises(ConfigError, match=rf"^{key} must be [^\n]*[.?]$"):
        small(**options)
