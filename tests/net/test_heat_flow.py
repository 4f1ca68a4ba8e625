"""Waves against the heat equation, hypotheses against dense normal laws, and what the network starts from."""

import math

import pytest
import torch
from conftest import small_np
from torch.distributions import MultivariateNormal
from torch.testing import assert_close

from heatgen.forward.neumann_heat import NeumannHeat
from heatgen.frames import Context, Frames
from heatgen.net.heat_flow import KNOTS, HeatBlock, Hypotheses, Waves

SHAPE, B, N = (1, 3, 4), 2, 3
S = 0.1


def numbers(*shape, seed=0):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize("laplacian, solver", [("five_point", "dct_semidiscrete"), ("spectral", "dct_spectral")])
@pytest.mark.parametrize("shape", [(1, 6, 4), (2, 5, 5), (1, 1, 3)])
def test_waves_are_those_of_a_box_with_insulating_walls_and_flow_as_heat_does(shape, laplacian, solver):
    waves, u = Waves(shape, laplacian).double(), numbers(3, *shape)
    assert_close(waves.back(waves(u)), u, atol=1e-6, rtol=0)
    assert_close(waves(u).square().sum(-1), u.square().flatten(-2).sum(-1), atol=1e-5, rtol=0)
    process = NeumannHeat(shape, 4, diffusivity=0.03, solver=solver)
    expected = process.mean(u, torch.full((3,), 0.5).double())
    time = torch.tensor(0.03 * 0.5).double()
    assert_close(waves.back(waves.flow(time) * waves(u)), expected, atol=1e-5, rtol=0)
    assert_close(waves.knots.sum(0), torch.ones(shape[-2] * shape[-1]).double(), atol=1e-5, rtol=0)


def test_hypotheses_have_the_posterior_and_the_evidence_of_gaussian_fields():
    torch.manual_seed(0)
    waves = Waves(SHAPE).double()
    layer = Hypotheses(waves, (0.005, 0.2), 0.05).double()
    torch.nn.init.normal_(layer.log_kappa)
    layer.log_noise.data.fill_(math.log(S))
    times, y = numbers(B, N), numbers(B, N, *SHAPE, seed=1)
    allowed = torch.tensor([[[True, True, True], [True, False, True]]]).expand(B, -1, -1)
    mean, seen, told, fit, known = layer(waves(y), times, allowed)
    kappa = (layer.log_kappa @ waves.knots).exp()
    size, choices = 12, (0, 7, 23)
    for b in range(B):
        for m in range(2):
            rows, logs = allowed[b, m].nonzero()[:, 0], []
            for r in choices:
                gain = waves.flow(times[b, rows] * layer.log_rate[r].exp())  # (n, size)
                # the same model as one dense normal law of all frames
                prior = torch.diag(S**2 / kappa[r])
                design = torch.cat([torch.diag(g) for g in gain])
                law = MultivariateNormal(
                    torch.zeros(len(rows) * size).double(),
                    design @ prior @ design.mT + S**2 * torch.eye(len(rows) * size).double(),
                )
                data = waves(y[b, rows, 0]).flatten()
                logs.append(law.log_prob(data))
                gain_matrix = prior @ design.mT @ torch.linalg.inv(law.covariance_matrix)
                assert_close(mean[b, m, r, 0], gain_matrix @ data)
            found = fit[b, m, list(choices)]
            assert_close(found - found[0], torch.stack(logs) - logs[0])
    assert_close(known, (told / kappa).log1p().sum(-1))
    assert seen.shape == (B, 2, len(kappa), 1, size)


def test_a_block_believes_frames_that_say_all_and_the_network_where_they_say_nothing():
    waves = Waves(SHAPE).double()
    block = HeatBlock(waves, 1, 4, 8).double()
    h, v, x, truth = numbers(B, 4, 3, 4), numbers(B, 8), numbers(B, *SHAPE, seed=2), numbers(B, *SHAPE, seed=3)
    nothing = torch.zeros(B, 1, 12).double()
    assert_close(block(h, v, x, nothing, nothing)[2], x, atol=1e-5, rtol=0)  # the guess starts as it was
    much = torch.full((B, 1, 12), 1e12).double()
    assert_close(block(h, v, x, much * waves(truth), much)[2], truth, atol=1e-5, rtol=0)


def test_it_starts_near_the_exact_mean_of_a_gaussian_field():
    """Before training: the mixture's mean, which flows as heat, where the decoder adds nothing yet."""
    torch.manual_seed(0)
    net = small_np((1, 8, 8), encoder="frame", aggregator="heat", path="deterministic", layers=4)
    for parameter in net.decoder.coefficients[-1].parameters():
        torch.nn.init.zeros_(parameter)
    process = NeumannHeat((1, 8, 8), 9, diffusivity=0.03)
    u0, times = numbers(4, 1, 8, 8).float(), torch.linspace(0, 1, 10).expand(4, -1)
    u0 = process.mean(u0, torch.full((4,), 0.1))
    clean = process.mean(u0.repeat_interleave(10, 0), times.flatten()).reshape(4, 10, 1, 8, 8).float()
    known = net.represent(Context(Frames.of(times[:, ::2], clean[:, ::2])), times)
    mean = net.decode(known, None, times, None)[0][0]
    assert (mean - clean).square().mean().sqrt() < 0.3 * (clean - clean.mean()).square().mean().sqrt()
    assert known.features.shape == (4, 1, 17) and known.r.shape == (4, 1, 8, 8, 8)


def test_filters_are_linear_between_knots():
    waves = Waves((1, 16, 16))
    assert waves.knots.shape == (KNOTS, 256) and ((waves.knots > 0).sum(0) <= 2).all()
