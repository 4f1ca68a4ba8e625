"""What every model that knows E[u_0 | u_t] has in common: its score, and Gaussian reverse steps, over any linear map."""

from typing import Any

from torch import Tensor

from heatgen.model.module import Method, inverse


class Denoiser(Method):
    """A method that writes `denoise(u, t)`, an estimate v of u_0, and `denoise_variance(t)`, its error by coefficient.

    With the noise estimate eps = L(t)^-1 (u - A(t) v - b(t)):  score = -L(t)^-1 eps, and the reverse step from t to s
    has mean A(s) v + b(s) + rho eps and variance L(s)^2 - rho^2 + (A(s) - rho A(t) / L(t))^2 * denoise_variance(t), with the
    map's `coupling` rho. With exact estimates and Gaussian data these steps are exact, however long they are.
    Source: Song et al. 2021 (DDIM), eqs. 7 and 12, with operators in place of numbers; Bao et al. 2022 for the variance.
    """

    markov = True
    noise_at_end = True

    def denoise(self, u: Tensor, t: Tensor) -> Tensor:
        """An estimate of E[u_0 | u_t = u], (B, C, H, W)."""
        raise NotImplementedError

    def denoise_variance(self, t: Tensor) -> Tensor | None:
        """The variance of u_0 around it by coefficient, broadcastable to (B, C, H, W); None: left out of the steps."""
        return None

    def score(self, u: Tensor, t: Tensor) -> Tensor:
        """An estimate of the gradient of log p_t(u), (B, C, H, W); Tweedie's formula."""
        return -self.process.colour(self.noise_estimate(u, t, self.denoise(u, t)), inverse(self.process.std(t)))

    def reverse_mean(self, u: Tensor, t: Tensor, s: Tensor) -> Tensor:
        """The mean of u_s given u_t = u for times t > s, (B, C, H, W)."""
        return self.target_mean(self.denoise(u, t), u, t, s)

    def reverse_std(self, t: Tensor, s: Tensor) -> Tensor:
        """The noise of the reverse step from t to s over the coefficients, broadcastable to (B, C, H, W), float64."""
        return (self.target_std(t, s) ** 2 + self._spread(t, s)).sqrt()

    def _spread(self, t: Tensor, s: Tensor) -> Any:
        error = self.denoise_variance(t)
        if error is None:
            return 0.0
        process = self.process
        slope = process.gain(s) - process.coupling(s, t) * process.gain(t) * inverse(process.std(t))
        return slope.double() ** 2 * error.double()
