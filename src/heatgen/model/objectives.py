"""What neural processes are trained on: functions of the log-likelihoods of frames under draws of the latent variable.

log_p: (K, B) nats, ln p(y | z_k) of all target frames of task b together. All return (B,) nats a task, to be maximised.
Source: Garnelo et al. 2018; Foong et al. 2020 (npml); Burda et al. 2016 and Le et al. 2018 (iwae).
"""

import math

import torch
from torch import Tensor

OBJECTIVES = ("elbo", "npml", "iwae", "cnp")


def normal_log_prob(y: Tensor, mean: Tensor, std: Tensor) -> Tensor:
    """ln N(y; mean, std^2), elementwise; arguments broadcast."""
    return -0.5 * ((y - mean) / std).square() - std.log() - 0.5 * math.log(2 * math.pi)


def kl(mu: Tensor, sigma: Tensor, prior_mu: Tensor, prior_sigma: Tensor) -> Tensor:
    """KL(N(mu, sigma^2) || N(prior_mu, prior_sigma^2)), summed over the last dimension.

    sum ln(sigma_p / sigma) + (sigma^2 + (mu - mu_p)^2) / (2 sigma_p^2) - 1/2.
    """
    gap = (sigma.square() + (mu - prior_mu).square()) / (2 * prior_sigma.square())
    return (prior_sigma.log() - sigma.log() + gap - 0.5).sum(-1)


def elbo(log_p: Tensor, divergence: Tensor) -> Tensor:
    """E_q ln p(y | z) - KL(q || p), z ~ q(z | context and targets); divergence: KL(q || p), (B,)."""
    return log_p.mean(0) - divergence


def npml(log_p: Tensor) -> Tensor:
    """ln (1/K) sum_k p(y | z_k), z_k ~ p(z | context): below ln p(y | context) on average, and rising with K."""
    return marginal(log_p)


def iwae(log_p: Tensor, log_ratio: Tensor) -> Tensor:
    """ln (1/K) sum_k w_k p(y | z_k), z_k ~ q: rising with K; with K = 1 its mean is the elbo.

    Args:
        log_ratio: ln w_k = ln p(z_k | context) - ln q(z_k), (K, B).
    """
    return marginal(log_p + log_ratio)


def effective_sample_size(log_weights: Tensor) -> Tensor:
    """(sum w)^2 / sum w^2 of weights given by their logarithms, (K, B) -> (B,), between 1 and K."""
    return (2 * log_weights.logsumexp(0) - (2 * log_weights).logsumexp(0)).exp()


def marginal(log_p: Tensor) -> Tensor:
    """ln (1/K) sum_k p_k from ln p_k, (K, ...), of all frames together, or of every frame or pixel by itself."""
    return torch.logsumexp(log_p, 0) - math.log(len(log_p))
