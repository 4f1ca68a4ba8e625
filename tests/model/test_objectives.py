"""The objectives of neural processes, on a toy whose every integral is known, and as pure functions."""

import math

import pytest
import torch
from torch.distributions import Normal, kl_divergence
from torch.testing import assert_close

from heatgen.model.objectives import (
    effective_sample_size,
    elbo,
    iwae,
    kl,
    marginal,
    normal_log_prob,
    npml,
)

S, M = 0.5, 6  # noise and frames of the toy: z ~ N(0, 1), y_m = z + S eps_m
Y = torch.tensor([0.3, -0.2, 0.9, 0.4, 0.1, 0.6], dtype=torch.float64)
EXACT = torch.distributions.MultivariateNormal(
    torch.zeros(M).double(), S**2 * torch.eye(M).double() + torch.ones(M, M).double()
).log_prob(Y)
POSTERIOR = Normal(Y.sum() / (M + S**2), S / math.sqrt(M + S**2))
WIDE = Normal(torch.tensor(0.1).double(), torch.tensor(0.6).double())  # not the posterior


def draws(law, k, repeats, seed=0):
    """z and ln p(Y | z), (K, repeats) each."""
    torch.manual_seed(seed)
    z = law.sample((k, repeats))
    return z, normal_log_prob(Y, z[..., None], torch.tensor(S).double()).sum(2)


def weights(z, law):
    return Normal(0.0, 1.0).log_prob(z) - law.log_prob(z)


def test_the_divergence_is_torchs_and_0_between_equals():
    torch.manual_seed(0)
    mu, sigma, mu2, sigma2 = (torch.rand(2, 3, 5).double() + 0.1 for _ in range(4))
    expected = kl_divergence(Normal(mu, sigma), Normal(mu2, sigma2)).sum(-1)
    assert_close(kl(mu, sigma, mu2, sigma2), expected)
    assert (expected > 0).all() and not kl(mu, sigma, mu, sigma).any()
    assert_close(normal_log_prob(mu, mu2, sigma), Normal(mu2, sigma).log_prob(mu))


def test_the_elbo_misses_the_evidence_by_the_divergence_to_the_true_posterior():
    _, log_p = draws(WIDE, 1, 200_000)
    divergence = kl_divergence(WIDE, Normal(torch.zeros(1).double(), 1.0))
    value = elbo(log_p, divergence)
    error = value.std() / len(value) ** 0.5
    assert abs(value.mean() - (EXACT - kl_divergence(WIDE, POSTERIOR))) < 4 * error


def test_with_the_true_posterior_every_draw_gives_the_evidence():
    z, log_p = draws(POSTERIOR, 3, 50)
    assert_close(iwae(log_p, weights(z, POSTERIOR)), EXACT.expand(50))
    assert_close(effective_sample_size(log_p + weights(z, POSTERIOR)), torch.full((50,), 3.0).double())


@pytest.mark.parametrize("law", [WIDE, Normal(torch.zeros(()).double(), torch.ones(()).double())])
def test_importance_weighted_bounds_rise_with_the_number_of_draws_and_stay_below_the_evidence(law):
    values, errors = [], []
    for k in (1, 2, 4, 16, 64):
        z, log_p = draws(law, k, 20_000, seed=k)
        value = iwae(log_p, weights(z, law)) if law is WIDE else npml(log_p)
        values.append(value.mean().item())
        errors.append(value.std().item() / len(value) ** 0.5)
    assert all(a < b + 3 * e for a, b, e in zip(values, values[1:], errors[1:], strict=False))
    assert values[0] < values[-1] < EXACT.item() + 3 * errors[-1]
    assert values[-1] == pytest.approx(EXACT.item(), abs=0.05 + 4 * errors[-1])


def test_one_draw_of_the_importance_weighted_bound_is_the_elbo_on_average():
    z, log_p = draws(WIDE, 1, 200_000)
    value = iwae(log_p, weights(z, WIDE))
    expected = EXACT - kl_divergence(WIDE, POSTERIOR)
    assert abs(value.mean() - expected) < 4 * value.std() / len(value) ** 0.5


def test_marginals_of_frames_are_means_of_densities():
    log_p = torch.log(torch.tensor([[[0.2, 0.5]], [[0.4, 0.1]]]).double())
    assert_close(marginal(log_p).exp(), torch.tensor([[0.3, 0.3]]).double())
    assert_close(npml(log_p.sum(2)).exp(), torch.tensor([(0.2 * 0.5 + 0.4 * 0.1) / 2]).double())


def test_the_effective_sample_size_is_between_one_and_all():
    even, sharp = torch.zeros(8, 1), torch.tensor([0.0] + [-50.0] * 7)[:, None]
    assert effective_sample_size(even).item() == pytest.approx(8) and effective_sample_size(sharp).item() == pytest.approx(1)
