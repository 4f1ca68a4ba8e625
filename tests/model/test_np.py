"""model=np and its kin: the loss by hand, what reaches what, objectives that fit, and runs from the command line."""

import dataclasses
import functools
import math

import pytest
import torch
from conftest import call, small_np
from torch.testing import assert_close

from heatgen.app.api import load
from heatgen.check import ConfigError
from heatgen.data.hot_spots import HotSpotFields
from heatgen.forward.constant_velocity import ConstantVelocity
from heatgen.forward.random_velocity import RandomVelocity
from heatgen.frames import Frames, concatenate
from heatgen.model.np import NeuralProcessMethod
from heatgen.model.tasks import make_task
from heatgen.net.mlp import MLP
from heatgen.noise import SampleNoise
from heatgen.regime.forecast import Forecast
from heatgen.regime.random import Random

SHAPE, K = (1, 6, 6), 9
REGIME = Random(context=[1, 3], targets=4)
FIELDS = HotSpotFields(resolution=6, shape=[1, 6, 6], train_size=20)
CNP = {"path": "deterministic"}
adam = functools.partial(torch.optim.Adam, lr=1e-3)


def make(process=None, regime=REGIME, net=None, **settings):
    torch.manual_seed(0)
    net = small_np(SHAPE, **(net or {}))
    return NeuralProcessMethod(process or ConstantVelocity(SHAPE, K, sigma=0.1), net, None, adam, regime, **settings)


def batch(b=5):
    sizes = torch.linspace(0.5, 2, b).reshape(-1, 1, 1, 1)
    u0 = sizes * torch.rand(b, *SHAPE, generator=torch.Generator().manual_seed(1))
    return {"u0": u0, "index": torch.arange(b), "key": torch.arange(b)}


def noise(b=5):
    return SampleNoise(range(b), 0, "train")


@pytest.mark.parametrize("counted", ["all", "targets"])
def test_the_loss_of_a_network_without_a_latent_is_minus_the_log_likelihood_a_dimension(counted):
    """Of the frames that count, of Gaussians with the network's mean and deviation; padding does not count."""
    model = make(net=CNP, counted=counted)
    assert model.objective == "cnp" == model.chosen["objective"]
    task = make_task(model.process, batch()["u0"], REGIME, noise(), 0.1)
    frames = concatenate(task.context, task.target) if counted == "all" else task.target
    prediction = model.predict(task, 1, times=frames.times)
    mean, std = prediction.mean[0].double(), prediction.std[0].double()
    log_p = -((frames.values - mean) ** 2) / (2 * std**2) - std.log() - math.log(2 * math.pi) / 2
    expected = -(log_p.flatten(2).sum(2) * frames.mask).sum(1) / (frames.mask.sum(1) * 36)
    assert_close(model.loss(batch(), noise()).double(), expected, rtol=1e-5, atol=1e-5)


def test_what_counts_follows_from_the_path_and_can_be_chosen():
    assert make().counted == make().chosen["counted"] == "all"
    assert make(net=CNP).counted == "targets"
    assert make(counted="targets").counted == "targets"


@pytest.mark.parametrize("objective", ["elbo", "npml", "iwae"])
def test_the_loss_of_a_sample_depends_on_the_sample_alone(objective):
    model = make(objective=objective)
    whole = model.loss(batch(), noise())
    alone = model.loss({"u0": batch()["u0"][2:3]}, SampleNoise([2], 0, "train"))
    assert whole.shape == (5,) and whole.isfinite().all()
    assert_close(whole[2:3], alone, rtol=1e-5, atol=1e-5)


def test_with_one_draw_and_the_same_noise_elbo_and_iwae_differ_by_the_noise_of_the_divergence_alone():
    a, b = (make(objective=objective, draws=1) for objective in ("elbo", "iwae"))
    many = {"u0": batch(1)["u0"].expand(800, *SHAPE)}
    gap = a.loss(many, noise(800)) - b.loss(many, noise(800))
    assert abs(gap.mean()) < 4 * gap.std() / 800**0.5 and gap.std() > 0


def test_targets_reach_the_decoder_through_the_latent_alone():
    """With both paths, changing the posterior's z to the prior's would leave r as it is: r never sees targets."""
    model, seen = make(net={"path": "both"}, objective="elbo"), []
    real = model.net.decode
    model.net.decode = lambda known, z, asked, told: seen.append(known.r) or real(known, z, asked, told)
    model.loss(batch(), noise())
    task = make_task(model.process, batch()["u0"], REGIME, noise(), 0.1)
    prior = model.net.represent(model._context(task.context, task), model.tau(task.target.times))
    assert_close(seen[0], prior.r)


def test_privileged_facts_are_used_in_training_alone():
    plain, hinted = make(), make(net={"privileged_dim": 3}, privileged="facts")
    hinted.net.load_state_dict(plain.net.state_dict(), strict=False)
    assert_close(hinted.train().loss(batch(), noise()), plain.loss(batch(), noise()))  # the residual starts at 0
    torch.nn.init.normal_(hinted.net.merge[-1].weight)
    assert not torch.allclose(hinted.train().loss(batch(), noise()), plain.loss(batch(), noise()))
    assert_close(hinted.eval().loss(batch(), noise()), plain.eval().loss(batch(), noise()))
    values = {}
    for privileged in ("facts", "zero", "shuffled"):
        model = make(net={"privileged_dim": 3}, privileged=privileged).train()
        model.net.load_state_dict(hinted.net.state_dict())
        model.prepare(FIELDS)
        values[privileged] = model.loss(batch(), noise())
    assert not torch.allclose(values["facts"], values["zero"]) and not torch.allclose(values["facts"], values["shuffled"])


@pytest.mark.parametrize("process", [None, RandomVelocity(SHAPE, K, sigma=0.1)])
def test_shuffled_facts_are_those_of_another_field_whatever_else_is_in_the_batch(process):
    model = make(process, net={"privileged_dim": 3, "conditional": process is not None}, privileged="shuffled").train()
    torch.nn.init.normal_(model.net.merge[-1].weight)
    model.prepare(FIELDS)
    seen = []
    represent = model.net.represent
    model.net.represent = lambda context, times, facts=None: seen.append(facts) or represent(context, times, facts)

    def told(indices):
        """The facts that the posterior sees of these tasks, and their losses."""
        u0, names = FIELDS.get("train", indices), torch.tensor(indices)
        loss = model.loss({"u0": u0, "index": names, "key": 100 + names}, SampleNoise(100 + names, 0, "train"))
        return seen[-1], loss

    facts, losses = told(list(range(16)))
    shares = [told(list(range(rank, 16, 2))) for rank in range(2)]  # of two processes
    for i in range(16):
        alone, loss = told([i])
        assert torch.equal(facts[i], alone[0]) and torch.equal(facts[i], shares[i % 2][0][i // 2])
        assert_close(losses[i], loss[0], rtol=1e-5, atol=1e-5)
        model.privileged = "facts"
        own, loss = told([i])
        assert not torch.allclose(own, alone) and loss[0] != losses[i]
        model.privileged = "shuffled"
    model.eval()
    again, _ = told([0])
    assert again is None  # a validation has no facts


def test_shuffled_facts_need_another_field():
    model = make(net={"privileged_dim": 3}, privileged="shuffled")
    with pytest.raises(ConfigError, match=r"^model\.privileged=shuffled needs 2 training fields"):
        model.prepare(HotSpotFields(resolution=8, shape=[1, 8, 8], train_size=1))


def test_an_oracle_is_told_facts_of_the_context_when_it_predicts_and_no_other_is():
    task = make_task(make().process, batch()["u0"], REGIME, noise(), 0.1)
    other = dataclasses.replace(task, privileged=5 - task.privileged)
    targets = torch.cat([task.privileged[:, :3], 5 - task.privileged[:, 3:]], 1)
    for privileged in ("oracle", "facts", "zero", "shuffled"):
        model = make(net={"privileged_dim": 3, "path": "both"}, privileged=privileged)
        torch.nn.init.normal_(model.net.merge[-1].weight)
        for mode in (True, False):
            model.train(mode)
            said, changed, same = (
                model.predict(t, 2, noise()).mean for t in (task, other, dataclasses.replace(task, privileged=targets))
            )
            assert torch.equal(said, changed) == (privileged != "oracle") and torch.equal(said, same)
    facts = make(net={"privileged_dim": 3, "path": "both"}, privileged="facts").train()
    oracle = make(net={"privileged_dim": 3, "path": "both"}, privileged="oracle")
    for model in (oracle, facts):
        torch.nn.init.normal_(model.net.merge[-1].weight, generator=torch.Generator().manual_seed(0))
    assert torch.equal(oracle.train().loss(batch(), noise()), oracle.eval().loss(batch(), noise()))
    assert not torch.allclose(oracle.loss(batch(), noise()), facts.loss(batch(), noise()))


def test_an_oracle_without_context_is_finite_and_cannot_draw_a_clean_frame():
    model = make(net={"privileged_dim": 3}, privileged="oracle", regime=Random(context=[0, 0], targets=4))
    assert model.loss(batch(), noise()).isfinite().all()
    with pytest.raises(ConfigError, match=r"^model\.privileged=oracle cannot draw samples.* use model\.privileged=facts"):
        model.generate(torch.randn(2, *SHAPE), noise(2))


ENCODERS = [
    {"encoder": "flat"},
    {"encoder": "conv"},
    {"encoder": "grid", "path": "both"},
    {"encoder": "grid", "path": "deterministic"},
    {"encoder": "set_conv", "path": "deterministic", "masked": True},
    {"encoder": "patch", "aggregator": "transformer", "path": "deterministic", "patch": 2, "layers": 2},
]


@pytest.mark.slow
@pytest.mark.parametrize("likelihood", ["heteroscedastic", "low_rank"])
@pytest.mark.parametrize("options", ENCODERS, ids=lambda o: o["encoder"])
def test_any_encoder_learns_predicts_and_draws_with_either_likelihood(options, likelihood):
    model = make(net={**options, "likelihood": likelihood, "rank": 3})
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    losses = []
    for _ in range(15):
        losses.append(model.loss(batch(), noise()).mean())
        optimizer.zero_grad()
        losses[-1].backward()
        assert all(p.grad is not None and p.grad.isfinite().all() for p in model.net.decoder.parameters())
        optimizer.step()
    assert losses[-1] < losses[0]
    task = make_task(model.process, batch()["u0"], REGIME, noise(), 0.1)
    said = model.predict(task, 2, noise())
    assert said.joint(task.target.values).isfinite().all() and said.sample(noise()).isfinite().all()
    assert (said.factor is None) == (likelihood != "low_rank")
    assert model.generate(torch.randn(5, *SHAPE), noise()).shape == (5, *SHAPE)


def test_a_drawn_frame_keeps_what_goes_together_and_leaves_the_noise_out():
    model = make(net={"path": "deterministic", "likelihood": "low_rank"})
    size = (1, 4, 1, *SHAPE)
    model.net.decode = lambda *_: (torch.zeros(size), torch.full(size, 0.1), torch.ones(*size, 1))
    u0 = model.generate(torch.randn(4, *SHAPE), noise(4))
    assert_close(u0, u0[:, :, :1, :1].expand_as(u0), atol=1e-3, rtol=0)
    assert u0[:, 0, 0, 0].unique().numel() == 4


@pytest.mark.slow
def test_errors_that_go_together_are_more_likely_where_they_are_told_together():
    """Frames of one pattern of unknown size and nothing given: all pixels are off by the same factor."""
    u0 = torch.randn(64, 1, 1, 1) * (0.5 + batch(1)["u0"])
    losses = {}
    for likelihood in ("heteroscedastic", "low_rank"):
        net = {"path": "deterministic", "likelihood": likelihood, "rank": 2, "hidden": 32}
        model = make(net=net, regime=Random(context=[0, 0], targets=3))
        optimizer = torch.optim.Adam(model.parameters(), lr=5e-3)
        for step in range(200):
            loss = model.loss({"u0": u0}, SampleNoise(range(64), step)).mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        losses[likelihood] = loss.item()
    assert losses["low_rank"] < losses["heteroscedastic"] - 0.3


def test_a_causal_model_predicts_the_same_whatever_comes_later():
    model = make(regime=Forecast(context=[1, 3], targets=4), net={"causal": True, "path": "both"})
    assert model.objective == "npml"
    task = make_task(model.process, batch()["u0"], model.regime, noise(), 0.1)
    late = Frames.of(task.target.times[:, -1:] + 0.0, torch.randn(5, 1, *SHAPE))
    told_more = make_task(model.process, batch()["u0"], model.regime, noise(), 0.1)
    told_more.context = concatenate(task.context, late)
    times = task.target.times[:, :-1].minimum(task.target.times[:, -1:] - 0.01)
    before, after = (model.predict(t, 3, SampleNoise(range(5), 1), times) for t in (task, told_more))
    assert torch.equal(before.mean, after.mean) and torch.equal(before.std, after.std)


def test_u_0_is_drawn_given_the_last_state():
    model = make(RandomVelocity(SHAPE, K, sigma=0.1), net={"conditional": True, "path": "both"})
    u = torch.randn(4, *SHAPE)
    first, again, other = (model.bound(noise(4)).generate(u, SampleNoise(range(4), seed)) for seed in (1, 1, 2))
    assert first.shape == (4, *SHAPE) and torch.equal(first, again) and not torch.equal(first, other)


@pytest.mark.slow
def test_a_few_steps_learn_a_single_task():
    """One field again and again: the loss falls towards that of the noise, -ln std - 1.42 a dimension."""
    model = make(net=CNP | {"hidden": 32}, regime=Random(context=[2, 2], targets=6))
    optimizer = torch.optim.Adam(model.parameters(), lr=5e-3)
    u0 = {"u0": batch(1)["u0"].expand(8, *SHAPE)}
    for step in range(400):
        loss = model.loss(u0, SampleNoise(range(8 * step, 8 * step + 8), 0)).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    floor = math.log(0.1) + 1.4189
    assert floor < loss.item() + 0.1 < floor + 0.5


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"objective": "cnp"}, r"^model\.objective=cnp does not fit a network that has a latent; use auto"),
        ({"objective": "elbo", "net": CNP}, r"^model\.objective=elbo does not fit .* has no latent"),
        ({"objective": "elbo", "net": {"causal": True}}, r"one posterior for all times; with net\.causal=true use npml"),
        ({"privileged": "facts"}, r"^model\.privileged=facts does not fit net\.privileged_dim=0; use net=lupi_np"),
        (
            {"net": {"privileged_dim": 3}, "privileged": "facts", "objective": "npml"},
            r"^model\.privileged=facts is for a posterior, and model\.objective=npml has none; use elbo or iwae",
        ),
        ({"net": {"privileged_dim": 3}}, r"^model\.privileged=none does not fit net\.privileged_dim=3"),
        ({"net": {"privileged_dim": 2}, "privileged": "facts"}, r"net\.privileged_dim=2; use net\.privileged_dim=3\.$"),
        ({"counted": "some"}, r"^model\.counted must be one of"),
        ({"draws": 0}, r"^model\.draws must be a whole number of at least 1"),
        ({"regime": Random()}, r"ask for up to 13 frames of 10"),
    ],
)
def test_what_does_not_fit_is_refused_by_key(settings, sentence):
    with pytest.raises(ConfigError, match=sentence):
        make(**settings)


def test_another_network_is_refused():
    with pytest.raises(ConfigError, match=r"^model=np needs net=neural_process or one of its presets"):
        NeuralProcessMethod(ConstantVelocity(SHAPE, K), MLP(SHAPE), None, adam, REGIME)


WHOLE = [  # from the first picture to the last number
    ["model=np", "forward=constant_velocity"],
    [
        "model=np",
        "net=attentive_np",
        "forward=heat_kernel",
        "data=gaussian_mixture",
        "data.train_size=64",
        "data.val_size=8",
    ],
]


@pytest.mark.slow
@pytest.mark.parametrize(
    "words",
    [
        *WHOLE,
        ["model=lupi_np", "forward=heat"],
        ["model=np", "net=heat_cnp", "forward=random_velocity"],
        ["model=np", "net=grid_conv_np", "forward=random_matrix"],
        ["model=np", "net=causal_np", "forward=random_velocity", "regime=forecast"],
        ["model=np", "net=grid_conv_cnp", "forward=heat", "regime=sensors", "net.masked=true"],
        ["model=np", "net=conv_cnp", "regime=sensors", "forward=heat"],
        ["model=np", "net=tnp", "forward=random_velocity"],
        ["model=np", "net=gnp", "forward=constant_velocity"],
    ],
    ids=lambda words: words[0],
)
def test_any_neural_process_trains_on_any_map_and_samples(tmp_path, words):
    folder = tmp_path / "runs" / "own"
    small = ["forward.num_levels=13", "trainer.max_steps=3", "trainer.accelerator=cpu", "callback.pictures.n=4"]
    small += [] if words in WHOLE else ["net.width=16", "callback.pictures.every=0"]
    assert call("train", *words, *small, f"hydra.run.dir={folder}") == 0
    run = load(folder, device="cpu")
    assert isinstance(run.model, NeuralProcessMethod)
    if words not in WHOLE:
        assert run.sample(n=3).tensor.isfinite().all()
        return
    assert call("sample", f"run={folder}", "n=3", "trainer.accelerator=cpu") == 0
    assert call("evaluate", f"run={folder}", "mode=reconstruction", "n=4", "metric.draws=2", "trainer.accelerator=cpu") == 0
