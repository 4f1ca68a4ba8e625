"""What every method that knows E[u_0 | u_t] has in common: its score, and Gaussian reverse steps, over any linear map."""

from typing import Self

import torch
from torch import Tensor

from heatgen.data.module import DataModule
from heatgen.model.interface import inverse
from heatgen.model.score import ScoreMethod
from heatgen.runtime.peers import ALONE, Peers


class DenoisingMethod(ScoreMethod):
    """A method that writes `denoise(u, t)`, an estimate v of u_0, and `denoise_variance(t)`, its error by coefficient.

    With the noise estimate eps = L(t)^-1 (u - A(t) v - b(t)):  score = -L(t)^-1 eps, and the reverse step from t to s
    has mean A(s) v + b(s) + rho eps and variance L(s)^2 - rho^2 + (A(s) - rho A(t) / L(t))^2 * denoise_variance(t), with the
    map's `coupling` rho. With exact estimates and Gaussian data these steps are exact, however long they are.

    Source: Song et al. 2021 (DDIM), eqs. 7 and 12, with operators in place of numbers; Bao et al. 2022 for the variance.
    """

    has_markov_forward = True
    noise_last_step = True
    any_time = True

    def denoise(self, u: Tensor, t: Tensor) -> Tensor:
        """An estimate of E[u_0 | u_t = u], (B, C, H, W), for times t, (B,)."""
        raise NotImplementedError

    def denoise_variance(self, t: Tensor) -> Tensor | None:
        """The variance of u_0 around it by coefficient, broadcastable to (B, C, H, W); None: left out of the steps."""
        return None

    @torch.no_grad()
    def measure(self, data: DataModule, images: int, peers: Peers = ALONE) -> None:
        """Measure the error of the estimate on so many validation images at every level, for `errors_at`."""

        def gap(model: Self, u0: Tensor, u: Tensor, k: int) -> Tensor:
            return u0 - model.denoise(u, model.process.times[k].expand(len(u0)))

        self.errors = self.measure_errors(data, images, gap, peers)

    def score(self, u: Tensor, t: Tensor) -> Tensor:
        """An estimate of the gradient of log p_t(u), (B, C, H, W), by Tweedie's formula; 0 where L is."""
        return -self.process.scale_coefficients(self.noise_estimate(u, t, self.denoise(u, t)), inverse(self.process.std(t)))

    def reverse_mean(self, u: Tensor, t: Tensor, s: Tensor) -> Tensor:
        """The mean of u_s given u_t = u, (B, C, H, W), for times t > s, (B,)."""
        return self.target_mean(self.denoise(u, t), u, t, s)

    def reverse_std(self, t: Tensor, s: Tensor) -> Tensor:
        """The noise of the reverse step from t to s over the coefficients, broadcastable to (B, C, H, W), float64."""
        variance, error, process = self.target_std(t, s) ** 2, self.denoise_variance(t), self.process
        if error is not None:  # of the estimate
            slope = process.gain(s) - process.coupling(s, t) * process.gain(t) * inverse(process.std(t))
            variance = variance + slope.double() ** 2 * error.double()
        return variance.sqrt()
