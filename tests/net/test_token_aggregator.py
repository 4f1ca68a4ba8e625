"""net/aggregator=transformer: which token may attend to which, by hand, and what no token learns."""

import torch
from torch.testing import assert_close

from heatgen.net.aggregator.transformer import TransformerAggregator
from heatgen.net.decoder.patch import PatchDecoder
from heatgen.net.encoder.patch import PatchEncoder
from heatgen.net.layers import places

B, N, M, R = 2, 3, 4, 8


def make(causal=False, layers=3):
    torch.manual_seed(0)
    layer = TransformerAggregator((1, 2, 2), R, causal, heads=2, hidden=16, layers=layers).double()
    layer.forward = lambda *inputs: TransformerAggregator.forward(layer, *inputs)[0]  # without the features that it has not
    return layer


def numbers(*shape, seed=0):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def everything(n=N):
    return torch.ones(B, n, dtype=torch.bool)


def test_a_frame_is_cut_into_patches_with_their_places_and_put_together_again():
    encoder, decoder = PatchEncoder((2, 4, 6), 1, 8, 8, patch=2), PatchDecoder((3, 4, 6), 1, 0, 8, 2, 8, patch=2)
    y = torch.rand(5, 2, 4, 6)
    h = encoder(y, torch.rand(5, 1))
    assert h.shape == (5, 8, 2, 3) and decoder(h, torch.rand(5, 1)).shape == (5, 6, 4, 6)
    assert encoder(y[:0], torch.rand(0, 1)).shape == (0, 8, 2, 3)
    assert_close(places(h)[1, 2], torch.tensor([0.75, 5 / 6]))
    time = torch.zeros(1, 1)
    changed = y[:1].clone()
    changed[..., 2:, 2:4] = 7
    moved = (encoder(y[:1], time) != encoder(changed, time)).any(1)[0]
    assert moved.nonzero().tolist() == [[1, 1]]
    r = torch.rand(1, 8, 2, 3)
    other = r.clone()
    other[..., 1, 1] = 7
    moved = (decoder(r, time) != decoder(other, time)).any(1)[0]
    assert moved[2:, 2:4].all() and moved.sum() == 4
    same = encoder(torch.ones(1, 2, 4, 6), time).flatten(2)
    assert not torch.allclose(same[..., :1], same[..., 1:])  # a token knows its place


def test_tokens_attend_to_nothing_and_to_the_context_and_never_to_targets():
    given = torch.tensor([[True, True, False]])
    times, asked = torch.tensor([[0.5, 0.2, 0.1]]), torch.tensor([[0.3, 0.0]])
    free, causal = (make(c).allowed(given, times, asked, 1)[0].int().tolist() for c in (False, True))
    assert free == [[1, 1, 1, 0]] * 5
    assert causal == [[1, 1, 1, 0], [1, 0, 1, 0], [1, 0, 0, 0], [1, 0, 1, 0], [1, 0, 0, 0]]
    tokens = make().allowed(given, times, asked, 2)
    assert tokens.shape == (1, 10, 7) and tokens[0, 3].int().tolist() == [1, 1, 1, 1, 1, 0, 0]
    assert make().allowed(given[:, :0], times[:, :0], asked, 2).shape == (1, 4, 1)


def test_a_frame_that_comes_later_is_not_known_by_any_number_of_hops():
    """Added, replaced, or told through a third frame that is later than it; nor has its gradient any way back."""
    layer, h, times = make(causal=True), numbers(B, N, R, 2, 2), torch.tensor([[0.2, 0.4, 0.8]] * B).double()
    asked = torch.tensor([[0.5, 0.3]] * B).double()
    said = layer(h, everything(), times, asked)
    hidden = torch.cat([everything(2), ~everything(1)], 1)
    assert torch.equal(layer(h, hidden, times, asked), said)
    assert torch.equal(layer(torch.cat([h[:, :2], 9 - h[:, 2:]], 1), everything(), times, asked), said)
    assert_close(layer(h[:, :2], everything(2), times[:, :2], asked), said, atol=1e-12, rtol=0)
    middle = torch.cat([h[:, :1], 9 - h[:, 1:2], h[:, 2:]], 1)
    changed = layer(middle, everything(), times, asked)
    assert torch.equal(changed[:, 1], said[:, 1]) and not torch.allclose(changed[:, 0], said[:, 0])
    h.requires_grad_()
    layer(h, everything(), times, asked)[:, 1].square().sum().backward()
    assert not h.grad[:, 1:].any() and h.grad[:, 0].any()
    assert not torch.allclose(make()(h, hidden, times, asked), make()(h, everything(), times, asked))


def test_order_padding_and_other_targets_do_not_matter_and_nothing_is_finite():
    layer, h, times, asked = make(), numbers(B, N, R, 2, 2), numbers(B, N, seed=1), numbers(B, M, seed=2)
    said = layer(h, everything(), times, asked)
    assert said.shape == (B, M, R, 2, 2)
    order = torch.tensor([2, 0, 1])
    assert_close(layer(h[:, order], everything(), times[:, order], asked), said, atol=1e-12, rtol=0)
    assert_close(layer(h, everything(), times, asked[:, 2:3]), said[:, 2:3], atol=1e-12, rtol=0)
    more = layer(torch.cat([h, 7 * h], 1), torch.cat([everything(), ~everything()], 1), torch.cat([times, times], 1), asked)
    assert_close(more, said, atol=1e-12, rtol=0)
    nothing = layer(h[:, :0], everything(0), times[:, :0], asked)
    assert nothing.isfinite().all()
    assert_close(layer(h, ~everything(), times, asked), nothing, atol=1e-12, rtol=0)
    nothing.square().sum().backward()
    assert layer.empty.grad.any() and all(p.grad is None or p.grad.isfinite().all() for p in layer.parameters())
