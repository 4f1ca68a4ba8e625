"""model=supervised: its losses by hand, its one pass, and masks that belong to samples."""

import functools
from types import SimpleNamespace

import pytest
import torch
from conftest import shipped_map
from torch.testing import assert_close

from heatgen.check import ConfigError
from heatgen.forward.heat import Heat
from heatgen.forward.random_velocity import RandomVelocity
from heatgen.model.supervised import Supervised
from heatgen.net.bayesian_unet import BayesianUNet
from heatgen.net.encoder_decoder import EncoderDecoder
from heatgen.net.fno import FNO
from heatgen.net.unet import UNet
from heatgen.noise import SampleNoise, SharedNoise

SHAPE = (2, 6, 5)
K = 4
SIGMA = 0.1
NETS = {
    "unet": UNet(SHAPE, 4, (1, 2), 1, (), 0.0, 2),
    "encoder_decoder": EncoderDecoder(SHAPE, channels=4, blocks=2, time=False),
    "fno": FNO(SHAPE, modes=2, width=4),
    "bayesian_unet": BayesianUNet(SHAPE, channels=(4, 4), dropout=0.3),
}


def heat(sigma=SIGMA):
    return Heat(SHAPE, K, sigma)


def make(net, process=None, **settings):
    optimizer = functools.partial(torch.optim.AdamW, lr=1e-3, weight_decay=1e-4)
    return Supervised(process or heat(), net, None, optimizer, **settings).eval()


def images(batch, seed=0):
    return torch.rand(batch, *SHAPE, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def randomised(net):
    generator = torch.Generator().manual_seed(0)
    for parameter in net.parameters():
        torch.nn.init.normal_(parameter, std=0.3, generator=generator)
    return net.double()


def half(y, k, cond=None):
    """The prediction is half of y."""
    return -0.5 * y


@pytest.mark.parametrize(("input", "std"), [("process", SIGMA), ("white", 0.03)])
@pytest.mark.parametrize("loss", ["supervised", "physics"])
def test_the_loss_is_the_mean_square_of_the_error_or_of_the_mismatch(loss, input, std):
    model, u0, eps = make(half, loss=loss, input=input, noise_std=0.03), images(3), images(3, seed=1) - 0.5
    end = model.process.times[[K] * 3]
    y = model.process.mean(u0, end) + std * eps
    gap = y / 2 - u0 if loss == "supervised" else y - model.process.mean(y / 2, end)
    losses = model.loss({"u0": u0}, SimpleNamespace(normal_like=lambda u: eps))
    assert_close(losses, torch.stack([g.square().mean() for g in gap]), atol=1e-12, rtol=0)


@pytest.mark.parametrize(("loss", "offset"), [("supervised", 0.0), ("physics", 0.0), ("physics", 0.2)])
def test_the_loss_of_a_perfect_answer_without_noise_is_0_and_physics_sees_no_more_than_the_last_level_shows(loss, offset):
    u0, process = images(3), heat(0.0)
    lost = offset * torch.linalg.eigh(torch.eye(SHAPE[1], dtype=torch.float64)).eigenvectors[0].cumsum(0)[:, None]
    model = make(lambda y, k, cond: u0 + lost - y, process, loss=loss)
    losses = model.loss({"u0": u0}, SampleNoise(range(3), 0))
    mismatch = process.mean(lost.expand(1, *SHAPE), process.times[-1:]).square().mean()
    assert_close(losses, mismatch.expand(3), atol=1e-20, rtol=1e-9)


def test_the_physics_loss_is_the_noise_for_the_true_image():
    u0 = images(2000, seed=3)
    model = make(lambda y, k, cond: u0 - y, loss="physics")
    losses = model.loss({"u0": u0}, SampleNoise(range(2000), 0))
    assert abs(losses.mean() - SIGMA**2) < 4 * SIGMA**2 * (2 / losses.numel() / 60) ** 0.5


@pytest.mark.parametrize("name", NETS)
def test_one_pass_gives_the_answer_and_the_callback_sees_it(name):
    model, y, seen = make(randomised(NETS[name])), images(2), []
    u0 = model.generate(y, SampleNoise(range(2), 0), lambda k, u: seen.append((k, u)))
    assert len(seen) == 1 and seen[0][0] == 0 and seen[0][1] is u0
    assert u0.shape == y.shape and not u0.requires_grad
    if name != "bayesian_unet":
        k = torch.full((2,), float(K), dtype=torch.float64)
        assert_close(u0, (y + model.net(y, k)).detach(), atol=1e-12, rtol=0)


@pytest.mark.parametrize("name", NETS)
def test_draws_differ_with_dropout_masks_alone_and_belong_to_samples(name):
    model, y = make(randomised(NETS[name])), images(4)
    draws = torch.stack([model.generate(y, SampleNoise(range(4), seed)) for seed in range(3)])
    assert_close(draws[1, :2], model.generate(y[:2], SampleNoise(range(2), 1)), atol=1e-10, rtol=0)
    spread = draws.std(0).amax((1, 2, 3))
    assert (spread > 1e-3).all() if name == "bayesian_unet" else (spread < 1e-10).all()
    assert_close(model.predict(y), model.predict(y), atol=0, rtol=0)  # the masks are gone


def test_masks_may_be_shared_between_samples_and_are_put_away_after_an_error():
    model, y = make(randomised(NETS["bayesian_unet"])), images(1).expand(3, *SHAPE)
    shared = model.generate(y, SharedNoise(0))
    assert_close(shared, shared[:1].expand_as(shared), atol=1e-10, rtol=0)
    with pytest.raises(RuntimeError):
        model.generate(y[:, :1], SampleNoise(range(3), 0))
    assert all(module.source is None for module in model.net.modules() if hasattr(module, "source"))


@pytest.mark.parametrize("name", NETS)
@pytest.mark.parametrize("loss", ["supervised", "physics"])
def test_every_weight_learns(name, loss):
    model = make(randomised(NETS[name]), loss=loss)
    model.zero_grad()
    model.loss({"u0": images(2)}, SampleNoise(range(2), 0)).sum().backward()
    assert [name for name, p in model.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0] == []


@pytest.mark.parametrize("conditional", [True, False])
def test_a_random_map_is_one_for_the_input_and_for_the_condition(conditional):
    process, seen = RandomVelocity(SHAPE, K, 0.0, 0.2, 0.8, conditional=conditional), []

    def net(y, k, cond):
        seen.append((y, cond))
        return torch.zeros_like(y)

    u0, model = images(5), make(net, process)
    losses = model.loss({"u0": u0}, SampleNoise(range(5), 0))
    velocity = process.draw(SampleNoise(range(5), 0)).reshape(5)
    y, cond = seen[0]
    assert_close(y, (1 - velocity).reshape(5, 1, 1, 1) * u0, atol=1e-12, rtol=0)
    assert_close(losses, (y - u0).square().mean((1, 2, 3)), atol=1e-12, rtol=0)
    if conditional:
        assert_close(cond, torch.stack([1 - velocity, torch.ones(5).double()], dim=1), atol=1e-12, rtol=0)
    else:
        assert cond is None


@pytest.mark.parametrize("name", ["random_matrix", "kinematics", "blurring"])
def test_it_learns_along_any_map(name):
    model = make(half, shipped_map(name, SHAPE, K), loss="physics")
    losses = model.loss({"u0": images(2)}, SampleNoise(range(2), 0))
    assert losses.shape == (2,) and losses.isfinite().all()


def test_the_loss_of_a_sample_does_not_depend_on_its_batch():
    model, u0 = make(randomised(NETS["fno"])), images(4)
    together = model.loss({"u0": u0}, SampleNoise(range(4), 3))
    alone = torch.cat([model.loss({"u0": u0[[j]]}, SampleNoise([j], 3)) for j in range(4)])
    assert_close(together, alone, atol=1e-12, rtol=0)


@pytest.mark.parametrize(
    ("settings", "std"),
    [
        ({}, SIGMA),
        ({"input": "white", "noise_std": 0.03}, 0.03),
        ({"input": "white", "prior_std": 0.4}, 0.4),
        ({"prior_std": 0}, 0.0),
    ],
)
def test_an_initial_state_has_the_noise_of_the_input_unless_given(settings, std):
    model, u0, eps = make(half, **settings), images(3), images(3, seed=1)
    state = model.initial_state(u0, SimpleNamespace(normal_like=lambda u: eps))
    assert_close(state, model.process.mean(u0, model.process.times[[K] * 3]) + std * eps, atol=1e-12, rtol=0)


def test_it_needs_no_sampler():
    assert not Supervised.uses_sampler


def test_a_wrong_value_is_refused_by_the_name_of_its_key():
    for key, value in {"loss": "l1", "input": "noise", "noise_std": -1.0}.items():
        with pytest.raises(ConfigError, match=rf"model\.{key} "):
            make(half, **{key: value})
