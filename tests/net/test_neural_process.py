"""net=neural_process: what must hold of every combination: order, masks, causality, consistency, equivariance."""

import copy
import itertools

import pytest
import torch
from torch.testing import assert_close

from heatgen.check import ConfigError
from heatgen.frames import Context, Frames
from heatgen.net.aggregator import Aggregator
from heatgen.net.frame_encoder import SetConvolution
from heatgen.net.neural_process import NeuralProcess

SHAPE, B, N, M = (1, 8, 8), 3, 4, 5
SMALL = {"width": 8, "latent": 4, "hidden": 16, "channels": 8, "layers": 2}
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
    {"encoder": "heat", "aggregator": "heat", "causal": causal, "path": "deterministic", "likelihood": likelihood}
    for causal, likelihood in ((False, "heteroscedastic"), (True, "low_rank"))
]
TOKENS = {"encoder": "patch", "aggregator": "transformer", "path": "deterministic"}
every = pytest.mark.parametrize("options", COMBINATIONS, ids=lambda o: "-".join(str(v) for v in o.values()))


def make(seed=0, **options):
    torch.manual_seed(seed)
    net = NeuralProcess(SHAPE, **SMALL, **options).double()
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
    assert_close(said[:, :, 0], said[:, :, 1], atol=0, rtol=0)
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
    layer = Aggregator("mean", 6, causal=False).double()
    torch.nn.init.normal_(layer.empty)
    h, times, asked = numbers(2, 3, 6), numbers(2, 3), numbers(2, 4)
    given = torch.tensor([[True, True, False], [False] * 3])
    r = layer(h, given, times, asked)
    assert r.shape == (2, 1, 6)
    assert_close(r[0, 0], h[0, :2].mean(0))
    assert_close(r[1, 0], layer.empty.detach())
    causal = Aggregator("mean", 6, causal=True).double()
    r = causal(
        h, torch.ones(2, 3, dtype=torch.bool), torch.tensor([[0.1, 0.5, 0.9]] * 2).double(), torch.tensor([[0.5, 0.0]] * 2)
    )
    assert_close(r[0, 0], h[0, :2].mean(0))
    assert_close(r[0, 1], causal.empty.detach())


def test_attention_weighs_by_head_and_sums_to_one_with_nothing():
    layer = Aggregator("attention", 8, causal=False, heads=2).double()
    w = layer.weights(torch.ones(2, 3, dtype=torch.bool), numbers(2, 3), numbers(2, 4))
    assert w.shape == (2, 2, 4, 3) and (w > 0).all() and (w.sum(-1) < 1).all()
    same = numbers(1, 1, 8).expand(2, 3, 8)
    layer.empty.data = same[0, 0].clone()
    assert_close(layer(same, torch.ones(2, 3, dtype=torch.bool), numbers(2, 3), numbers(2, 4)), same[:, :1].expand(2, 4, 8))


def test_a_grid_is_equivariant_where_no_wall_is_near_and_a_flat_encoder_is_not():
    spot = torch.zeros(1, 1, 1, 48, 48, dtype=torch.float64)
    spot[..., 20:24, 20:24] = 1
    moved = spot.roll((3, 2), (-2, -1))
    asked, times = numbers(1, 2), numbers(1, 1)
    for encoder, equal in (("grid", True), ("conv", False)):
        torch.manual_seed(0)
        net = NeuralProcess((1, 48, 48), encoder=encoder, path="deterministic", **SMALL).double()
        a, b = (answer(net, Context(Frames.of(times, u)), asked) for u in (spot, moved))
        assert torch.allclose(a.roll((3, 2), (-2, -1)), b, atol=1e-9) == equal


def test_hints_change_nothing_at_first_and_never_without_them():
    given, asked = context(), numbers(B, M, seed=9)
    hinted = make(path="both", privileged=3)
    plain = NeuralProcess(SHAPE, **SMALL, path="both").double()
    plain.load_state_dict({k: v for k, v in hinted.state_dict().items() if not k.startswith(("hint.", "merge."))})
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
    net = NeuralProcess((1, 48, 48), encoder="set_conv", path="deterministic", masked=True, **SMALL).double()
    a, b = (
        answer(net, Context(Frames.of(times, values.roll(by, (-2, -1))), seen.roll(by, (-2, -1))), asked)
        for by in ((0, 0), (3, 2))
    )
    assert_close(a[..., 13:32, 13:33], b[..., 16:35, 15:35], atol=1e-9, rtol=0)  # what no wall reaches
    assert not torch.allclose(a, b, atol=1e-4)


def test_privileged_facts_respect_the_order_of_time():
    net, frames, facts = make(causal=True, path="both", privileged=3), context().frames, numbers(B, N, 3)
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
    ("options", "sentence"),
    [
        ({"encoder": "flatt"}, r"^net\.encoder must be one of flat, conv, grid, set_conv, patch"),
        ({"aggregator": "sum"}, r"^net\.aggregator must be one of mean, attention, transformer"),
        ({"encoder": "grid"}, r"^net\.encoder=grid needs its maps, which net\.path=latent drops"),
        ({"path": "none"}, r"^net\.path must be one of"),
        ({"width": 6}, r"^net\.width = 6 must be a multiple of net\.heads = 4"),
        ({"min_std": 0}, r"^net\.min_std must be a number greater than 0"),
        ({"encoder": "set_conv", "masked": True}, r"^net\.encoder=set_conv needs its maps, which net\.path=latent drops"),
        ({"encoder": "set_conv", "path": "both"}, r"^net\.encoder=set_conv must be told .* use net\.masked=true"),
        ({"encoder": "patch"}, r"^net\.encoder=patch and net\.aggregator=transformer need each other.*; use net=tnp"),
        ({"aggregator": "transformer"}, r"need each other, and net\.encoder=flat has net\.aggregator=transformer"),
        ({**TOKENS, "path": "both"}, r"^net\.encoder=patch has no latent, which net\.path=both needs"),
        ({**TOKENS, "patch": 3}, r"^net\.patch = 3 must divide both sides of frames of 8 x 8 pixels; use net\.patch=2"),
        ({**TOKENS, "layers": 0}, r"^net\.layers must be a whole number of at least 1"),
        ({"privileged": 3, "path": "deterministic"}, r"^net\.privileged are told to a latent alone"),
        ({"causal": 1}, r"^net\.causal must be true or false"),
    ],
)
def test_what_does_not_fit_is_refused_by_key(options, sentence):
    with pytest.raises(ConfigError, match=sentence):
        NeuralProcess(SHAPE, **{**SMALL, **options})
    with pytest.raises(ConfigError, match="needs at least 4 pixels a side, not 1 x 3"):
        NeuralProcess((1, 1, 3), encoder="conv")


def test_z_is_one_for_all_times_whatever_r_comes_from():
    """A bound with one posterior needs one z; attention looks at the time asked, a mean does not."""
    net = make(encoder="flat", aggregator="attention", path="both")
    known = net.represent(context(), numbers(B, M, seed=9))
    assert known.r.shape[1] == M and known.mu.shape[1] == 1
