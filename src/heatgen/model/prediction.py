"""The law that a neural process predicts for target frames: a mixture, over draws of its latent, of Gaussians."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from heatgen.basis import exact
from heatgen.model.objectives import normal_log_prob
from heatgen.noise import Noise


@dataclass
class Prediction:
    """y = mean_k + F_k e + own_k eps for draw k, with e ~ N(0, I) of L numbers for all target frames together.

    Draws are equally probable.

    Args:
        mean: (K, B, M, C, H, W).
        own: the deviation of each pixel by itself, of the same shape.
        factor: F, (K, B, M, C, H, W, L), or None where pixels are independent given the draw.
    """

    mean: Tensor
    own: Tensor
    factor: Tensor | None = None

    @property
    def std(self) -> Tensor:
        """The deviation of every pixel given the draw, (K, B, M, C, H, W)."""
        return self.own if self.factor is None else (self.own.square() + self.factor.square().sum(-1)).sqrt()

    def pixels(self, y: Tensor) -> Tensor:
        """ln p_k of every pixel by itself, (K, B, M, C, H, W); y: (B, M, C, H, W)."""
        return normal_log_prob(y, self.mean, self.std)

    def frames(self, y: Tensor) -> Tensor:
        """ln p_k of every frame by itself, (K, B, M)."""
        if self.factor is None:
            return self.pixels(y).flatten(3).sum(3)
        return low_rank_log_prob((y - self.mean).flatten(3), self.own.flatten(3), self.factor.flatten(3, 5))

    def joint(self, y: Tensor, mask: Tensor | None = None) -> Tensor:
        """ln p_k of all frames together.

        Args:
            y: (B, M, C, H, W).
            mask: (B, M) bool, False for frames that do not count; None: all count.

        Returns:
            (K, B).
        """
        if self.factor is None:
            return (self.frames(y) if mask is None else self.frames(y) * mask).sum(2)
        counts = torch.ones_like(self.mean[0, :, :, 0, 0, 0]) if mask is None else mask.to(self.mean)
        counts = counts[:, :, None, None, None].expand_as(y)
        residual, factor = (y - self.mean) * counts, self.factor * counts[..., None]
        own = self.own * counts + (1 - counts)  # frames that do not count are 0 +- 1, and taken away below
        value = low_rank_log_prob(residual.flatten(2), own.flatten(2), factor.flatten(2, 5))
        return value + 0.5 * math.log(2 * math.pi) * (1 - counts).flatten(1).sum(1)

    def sample(self, rng: Noise) -> Tensor:
        """One draw of the target frames for each draw of the latent, with the noise on them, (K, B, M, C, H, W)."""
        eps = rng.normal_like(self.mean.transpose(0, 1)).transpose(0, 1)  # (B, K, ...): each task has a stream of its own
        y = self.mean + self.own * eps
        if self.factor is None:
            return y
        e = rng.normal_like(self.factor[:, :, 0, 0, 0, 0].transpose(0, 1)).transpose(0, 1)
        with exact(y.device):
            return y + torch.einsum("kbmchwl,kbl->kbmchw", self.factor, e)


def low_rank_log_prob(residual: Tensor, own: Tensor, factor: Tensor) -> Tensor:
    """ln N(residual; 0, F F^T + diag(own^2)), by Woodbury's identity, exact; (..., d), (..., d), (..., d, L) -> (...)."""
    with exact(residual.device):
        white, scaled = residual / own, factor / own[..., None]
        inner = scaled.mT @ scaled + torch.eye(factor.shape[-1], dtype=scaled.dtype, device=scaled.device)
        root, failed = torch.linalg.cholesky_ex(inner)  # the other one waits to see whether it has failed
        root = root.masked_fill((failed > 0)[..., None, None], torch.nan)
        explained = torch.linalg.solve_triangular(root, (scaled.mT @ white[..., None]), upper=False)[..., 0]
    size = residual.shape[-1]
    log_det = own.log().sum(-1) + root.diagonal(dim1=-2, dim2=-1).log().sum(-1)
    output: Tensor = (
        -0.5 * (white.square().sum(-1) - explained.square().sum(-1)) - log_det - 0.5 * size * math.log(2 * math.pi)
    )
    return output
