"""net=neural_process: what must hold of every combination: order, masks, causality, consistency, equivariance."""

import copy
import itertools

import pytest
import torch
from conftest import small_np
from hydra.errors import InstantiationException
from torch.testing import assert_close

from heatgen.check import ConfigError
from heatgen.frames import Context, Frames
from heatgen.net.aggregator.attention import AttentionAggregator
from heatgen.net.aggregator.mean import MeanAggregator
from heatgen.net.encoder.set_conv import SetConvolution

SHAPE, B, N, M = (1, 8, 8), 3, 4, 5
COMBINATIONS = [
    {"encoder": encoder, "aggregator": aggregator, "causal": causal, "path": path}
    for encoder, aggregator, causal, path in itertools.product(
        ("flat", "conv", "grid"), ("mean", "attention"), (False, True), ("latent", "deterministic", "both")
    )
    if (encoder, path) != ("grid", "latent")
]
COMBINATIONS += [
    {"encoder": "set_conv", "aggregator": aggregator, "causal": causal, "path": path, "masked": True}
    for aggregator, causal, path in (("mean", False, "deterministic"), ("mean", True, "both"), ("attention", False, "both"))
]
COMBINATIONS += [
    {"encoder": "patch", "aggregator": "transformer", "causal": causal, "path": "deterministic", "patch": patch}
    for causal, patch in itertools.product((False, True), (1, 4))
]
COMBINATIONS += [{**COMBINATIONS[0], "likelihood": "low_rank"}, {**COMBINATIONS[-1], "likelihood": "low_rank"}]
COMBINATIONS += [
    {"encoder": "frame", "aggregator": "heat", "causal": causal, "path": "deterministic", "likelihood": likelihood}
    for causal, likelihood in ((False, "heteroscedastic"), (True, "low_rank"))
]
HEAT = {"encoder": "frame", "aggregator": "heat", "path": "deterministic"}
TOKENS = {"encoder": "patch", "aggregator": "transformer", "path": "deterministic"}
every = pytest.mark.parametrize("options", COMBINATIONS, ids=lambda o: "-".join(str(v) for v in o.values()))


def make(seed=0, **options):
    torch.manual_seed(seed)
    net = small_np(SHAPE, **options).double()
    if hasattr(net.aggregate, "empty"):
        torch.nn.init.normal_(net.aggregate.empty)
    return net


def numbers(*shape, seed=0):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def context(n=N, seed=1):
    return Context(Frames.of(numbers(B, n, seed=seed), numbers(B, n, *SHAPE, seed=seed + 1)))


def answer(net, given, asked, draws=2):
    """Mean and deviation (of low_rank, and what goes together), with the same eps whatever the context is."""
    known = net.represent(given, asked)
    z = None
    if known.mu is not None:
        z = known.mu + known.sigma * torch.linspace(-1, 1, draws * 4).double().reshape(draws, 1, 1, 4)
    mean, std, *factors = net.decode(known, z, asked, given.cond)
    return torch.stack([mean, std, *(f for factor in factors for f in factor.unbind(-1))])


@every
def test_the_order_of_the_context_does_not_matter(options):
    net, given, asked = make(**options), context(), numbers(B, M, seed=9)
    other = Context(given.frames.select(torch.tensor([2, 0, 3, 1])))
    assert_close(answer(net, other, asked), answer(net, given, asked), atol=1e-12, rtol=0)


@every
def test_what_fills_a_row_up_does_not_matter(options):
    net, given, asked = make(**options), context(), numbers(B, M, seed=9)
    mask = torch.tensor([True] * N + [False] * 2).expand(B, -1)
    frames = given.frames
    times, values = torch.cat([frames.times, numbers(B, 2)], 1), torch.cat([frames.values, 7 * numbers(B, 2, *SHAPE)], 1)
    padded = Context(Frames(times, values, mask))
    assert_close(answer(net, padded, asked), answer(net, given, asked), atol=1e-12, rtol=0)


@every
def test_without_context_there_is_an_answer_and_it_is_the_same_for_every_task(options):
    net, asked = make(**options), numbers(1, M, seed=9).expand(B, -1)
    said = answer(net, context(0), asked)
    assert said.isfinite().all()
    assert_close(said[:, :, 0], said[:, :, 1], atol=1e-12, rtol=0)  # rows of one matrix product, not bits
    nothing = Frames(numbers(B, 2), numbers(B, 2, *SHAPE), torch.zeros(B, 2, dtype=torch.bool))
    assert_close(answer(net, Context(nothing), asked), said, atol=1e-12, rtol=0)


@every
def test_a_target_is_answered_alone_as_among_others_and_in_any_order(options):
    net, given, asked = make(**options), context(), numbers(B, M, seed=9)
    whole = answer(net, given, asked)
    for m in range(M):
        assert_close(answer(net, given, asked[:, m : m + 1])[:, :, :, 0], whole[:, :, :, m], atol=1e-12, rtol=0)
    assert_close(answer(net, given, asked.flip(1)), whole.flip(3), atol=1e-12, rtol=0)


@every
def test_one_task_says_nothing_of_another_in_training_either(options):
    net, given, asked = make(**options).train(), context(), numbers(B, M, seed=9)
    whole, alone = answer(net, given, asked), Context(given.frames.part(slice(1, 2)))
    assert_close(answer(net, alone, asked[1:2])[:, :, 0], whole[:, :, 1], atol=1e-12, rtol=0)
    assert_close(answer(copy.deepcopy(net).eval(), given, asked), whole, atol=0, rtol=0)


@every
def test_a_causal_answer_does_not_know_the_future_and_another_does(options):
    net, given = make(**options), context()
    frames = given.frames
    asked = frames.times.mean(1, keepdim=True)
    late = (frames.times > asked)[..., None, None, None]
    assert late.any() and not late.all()
    changed = Context(Frames(frames.times, torch.where(late, 3 - frames.values, frames.values), frames.mask))
    dropped = Context(Frames(frames.times, frames.values, frames.mask & ~late[..., 0, 0, 0]))
    early = Context(Frames(frames.times, torch.where(late, frames.values, 3 - frames.values), frames.mask))
    said = answer(net, given, asked)
    for other in (changed, dropped):
        assert torch.equal(answer(net, other, asked), said) == options["causal"]
    assert not torch.equal(answer(net, early, asked), said)


def test_the_gradient_of_a_causal_answer_to_later_frames_is_0():
    for options in (o for o in COMBINATIONS if o["causal"]):
        net, given = make(**options), context()
        values = given.frames.values.requires_grad_()
        asked = given.frames.times.mean(1, keepdim=True)
        answer(net, Context(Frames(given.frames.times, values, given.frames.mask)), asked).sum().backward()
        late = given.frames.times > asked
        assert not values.grad[late].any() and values.grad[~late].any()


def test_one_noise_serves_all_times_of_a_causal_latent():
    net, given, asked = make(causal=True), context(), numbers(B, M, seed=9)
    known = net.represent(given, asked)
    assert known.mu.shape == (B, M, 4) and make().represent(given, asked).mu.shape == (B, 1, 4)
    assert known.sigma.min() >= 0.1 and known.sigma.max() <= 1


def test_the_mean_is_the_mean_and_nothing_is_its_own_encoding():
    layer = MeanAggregator(SHAPE, 6, causal=False).double()
    torch.nn.init.normal_(layer.empty)
    h, times, asked = numbers(2, 3, 6), numbers(2, 3), numbers(2, 4)
    given = torch.tensor([[True, True, False], [False] * 3])
    r, _ = layer(h, given, times, asked)
    assert r.shape == (2, 1, 6)
    assert_close(r[0, 0], h[0, :2].mean(0))
    assert_close(r[1, 0], layer.empty.detach())
    causal = MeanAggregator(SHAPE, 6, causal=True).double()
    r, _ = causal(
        h, torch.ones(2, 3, dtype=torch.bool), torch.tensor([[0.1, 0.5, 0.9]] * 2).double(), torch.tensor([[0.5, 0.0]] * 2)
    )
    assert_close(r[0, 0], h[0, :2].mean(0))
    assert_close(r[0, 1], causal.empty.detach())


def test_attention_weighs_by_head_and_sums_to_one_with_nothing():
    layer = AttentionAggregator(SHAPE, 8, causal=False, heads=2).double()
    w = layer.weights(torch.ones(2, 3, dtype=torch.bool), numbers(2, 3), numbers(2, 4))
    assert w.shape == (2, 2, 4, 3) and (w > 0).all() and (w.sum(-1) < 1).all()
    same = numbers(1, 1, 8).expand(2, 3, 8)
    layer.empty.data = same[0, 0].clone()
    r, _ = layer(same, torch.ones(2, 3, dtype=torch.bool), numbers(2, 3), numbers(2, 4))
    assert_close(r, same[:, :1].expand(2, 4, 8))


def test_a_grid_is_equivariant_where_no_wall_is_near_and_a_flat_encoder_is_not():
    spot = torch.zeros(1, 1, 1, 48, 48, dtype=torch.float64)
    spot[..., 20:24, 20:24] = 1
    moved = spot.roll((3, 2), (-2, -1))
    asked, times = numbers(1, 2), numbers(1, 1)
    for encoder, equal in (("grid", True), ("conv", False)):
        torch.manual_seed(0)
        net = small_np((1, 48, 48), encoder=encoder, path="deterministic").double()
        a, b = (answer(net, Context(Frames.of(times, u)), asked) for u in (spot, moved))
        assert torch.allclose(a.roll((3, 2), (-2, -1)), b, atol=1e-9) == equal


def test_privileged_features_change_nothing_at_first_and_never_without_them():
    given, asked = context(), numbers(B, M, seed=9)
    hinted = make(path="both", privileged_dim=3)
    plain = small_np(SHAPE, path="both").double()
    plain.load_state_dict(
        {k: v for k, v in hinted.state_dict().items() if not k.startswith(("privileged_encoder.", "merge."))}
    )
    assert torch.equal(answer(plain, given, asked), answer(hinted, given, asked))
    facts = numbers(B, N, 3)
    assert torch.equal(hinted.represent(given, asked, facts).mu, plain.represent(given, asked).mu)
    torch.nn.init.normal_(hinted.merge[-1].weight)
    assert not torch.equal(hinted.represent(given, asked, facts).mu, plain.represent(given, asked).mu)
    assert torch.equal(hinted.represent(given, asked).mu, plain.represent(given, asked).mu)


def test_pixels_that_are_not_seen_do_not_matter_and_are_told_from_zeros():
    net, given, asked = make(masked=True, encoder="grid", path="deterministic"), context(), numbers(B, M, seed=9)
    seen = numbers(B, N, 1, 8, 8, seed=5) < 0.3
    frames = given.frames
    hidden = Frames(frames.times, torch.where(seen, frames.values, 9 * frames.values), frames.mask)
    said = answer(net, Context(frames, seen), asked)
    assert_close(answer(net, Context(hidden, seen), asked), said)
    zeros = Frames(frames.times, frames.values * seen, frames.mask)
    assert not torch.allclose(answer(net, Context(zeros), asked), said)


@pytest.mark.parametrize("options", [{"encoder": "set_conv"}, {"encoder": "patch", "aggregator": "transformer"}])
def test_sensors_count_with_their_frames_in_any_order_and_no_sensor_at_all_is_finite(options):
    net, frames = make(masked=True, path="deterministic", **options), context().frames
    seen, asked = numbers(B, N, 1, 8, 8, seed=5) < 0.1, numbers(B, M, seed=9)
    said = answer(net, Context(frames, seen), asked)
    hidden = Frames(frames.times, torch.where(seen, frames.values, 9 + frames.values), frames.mask)
    assert torch.equal(answer(net, Context(hidden, seen), asked), said)
    order = torch.tensor([2, 0, 3, 1])
    assert_close(answer(net, Context(frames.select(order), seen[:, order]), asked), said, atol=1e-12, rtol=0)
    blind = answer(net, Context(frames, torch.zeros_like(seen)), asked)
    assert blind.isfinite().all() and not torch.allclose(blind, said)


def test_the_set_convolution_is_the_sum_over_sensors():
    layer = SetConvolution(1.3).double()
    values, seen = numbers(2, 3, 5, 7), (numbers(2, 1, 5, 7, seed=1) < 0.2).double()
    said = layer(values, seen)
    for b, i, j in itertools.product(range(2), range(5), range(7)):
        mass, density = torch.zeros(3).double(), 0.0
        for k, m in seen[b, 0].nonzero().tolist():
            weight = torch.exp(torch.tensor(-((i - k) ** 2 + (j - m) ** 2) / (2 * 1.3**2), dtype=torch.float64))
            mass, density = mass + weight * values[b, :, k, m], density + weight
        assert_close(
            said[b, :, i, j].detach(), torch.cat([mass / (density + 1e-8), density.reshape(1)]), rtol=1e-6, atol=1e-9
        )
    said.sum().backward()
    assert layer.log_length.grad.isfinite() and layer.log_length.grad != 0
    assert_close(layer(values, torch.zeros_like(seen)), torch.zeros(2, 4, 5, 7).double())


def test_sensors_and_their_answers_move_together():
    seen = torch.zeros(1, 1, 1, 48, 48, dtype=torch.bool)
    seen[..., 20:24, 20:24] = numbers(4, 4) < 0.5
    values, asked, times = numbers(1, 1, 1, 48, 48), numbers(1, 2), numbers(1, 1)
    torch.manual_seed(0)
    net = small_np((1, 48, 48), encoder="set_conv", path="deterministic", masked=True).double()
    a, b = (
        answer(net, Context(Frames.of(times, values.roll(by, (-2, -1))), seen.roll(by, (-2, -1))), asked)
        for by in ((0, 0), (3, 2))
    )
    assert_close(a[..., 13:32, 13:33], b[..., 16:35, 15:35], atol=1e-9, rtol=0)  # what no wall reaches
    assert not torch.allclose(a, b, atol=1e-4)


def test_privileged_facts_respect_the_order_of_time():
    net, frames, facts = make(causal=True, path="both", privileged_dim=3), context().frames, numbers(B, N, 3)
    torch.nn.init.normal_(net.merge[-1].weight)
    asked = frames.times.mean(1, keepdim=True)
    late = (frames.times > asked)[..., None]
    said, later, earlier = (
        net.represent(Context(frames), asked, x).mu
        for x in (facts, torch.where(late, 9 - facts, facts), torch.where(late, facts, 9 - facts))
    )
    assert torch.equal(said, later) and not torch.equal(said, earlier)
    nothing = net.represent(context(0), asked, facts[:, :0])
    assert nothing.mu.isfinite().all() and nothing.mu.shape == (B, 1, 4)


@pytest.mark.parametrize("options", [{}, {"encoder": "patch", "aggregator": "transformer", "path": "deterministic"}])
def test_the_numbers_of_a_map_are_told(options):
    net, asked = make(conditional=True, **options), numbers(B, M, seed=9)
    for n in (0, N):
        a, b = (answer(net, Context(context(n).frames, cond=numbers(B, 2, seed=seed)), asked) for seed in (0, 1))
        assert not torch.allclose(a, b)


def test_the_deviation_has_one_floor():
    for kind in ("heteroscedastic", "homoscedastic"):
        net = make(likelihood=kind, min_std=0.3)
        std = answer(net, context(), numbers(B, M, seed=9))[1]
        assert std.min() > 0.3 and (std.unique().numel() == 1) == (kind == "homoscedastic")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"encoder": "grid"}, ["net.encoder=GridEncoder", "net.deterministic=true"]),
        ({"width": 6, "aggregator": "attention"}, ["net.width = 6", "net.aggregator.heads = 4"]),
        ({"min_std": 0}, ["net.likelihood.min_std"]),
        ({"encoder": "set_conv", "path": "both"}, ["net.encoder=SetConvEncoder", "net.masked=true"]),
        ({"encoder": "patch", "path": "deterministic"}, ["PatchEncoder", "MeanAggregator", "another net/encoder"]),
        ({"aggregator": "transformer"}, ["FlatEncoder gives vectors", "TransformerAggregator takes tokens of patches"]),
        ({**TOKENS, "path": "both"}, ["PatchEncoder", "net.latent=null"]),
        ({**TOKENS, "patch": 3}, ["net.encoder.patch=3 must divide", "use net.encoder.patch=2"]),
        ({**TOKENS, "layers": 0}, ["net.aggregator.layers"]),
        ({**HEAT, "masked": True}, ["FrameEncoder reads whole frames", "net.masked=false"]),
        ({"path": "deterministic", "deterministic": False}, ["net.latent=null", "net.deterministic=true"]),
        ({"privileged_dim": 3, "path": "deterministic"}, ["net.privileged_dim", "net.latent"]),
        ({"causal": 1}, ["net.causal must be true or false"]),
        ({"hidden": 0}, ["net.hidden"]),
        ({"shape": (1, 1, 3), "encoder": "conv"}, ["at least 4 pixels a side, not 1 x 3", "net/encoder=flat"]),
    ],
)
def test_what_does_not_fit_is_refused_by_key(options, words):
    with pytest.raises((ConfigError, InstantiationException)) as refusal:  # Hydra wraps those of nested nodes
        small_np(**options)
    assert all(word in str(refusal.value) for word in words), refusal.value


def test_z_is_one_for_all_times_whatever_r_comes_from():
    """A bound with one posterior needs one z; attention looks at the time asked, a mean does not."""
    net = make(encoder="flat", aggregator="attention", path="both")
    known = net.represent(context(), numbers(B, M, seed=9))
    assert known.r.shape[1] == M and known.mu.shape[1] == 1
