"""Preconditioning by coefficient: what is known of u_0 from second moments, and the rest in units of its own deviation."""

from dataclasses import dataclass

from torch import Tensor

from heatgen.forward.process import ForwardProcess


@dataclass(frozen=True)
class Preconditioning:
    """v = m + (A S / V) c + L sqrt(S / V) F(c / sqrt(V)),    c = u_t - b - A m,    V = A^2 S + L^2,    by coefficient.

    What F should give, F* for v = u_0, has unit variance in each coefficient of data with mean m and variance S, and so has
    what it is given.

    Args:
        process: a diagonal map.
        mean, spectrum: m and S over the coefficients, broadcastable to (B, C, H, W), float64; S > 0.
    """

    process: ForwardProcess
    mean: Tensor
    spectrum: Tensor

    def coefficients(self, t: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """A, L and V at t, float64."""
        gain, std = self.process.gain(t).double(), self.process.std(t).double()
        return gain, std, gain**2 * self.spectrum + std**2

    def removed(self, t: Tensor) -> Tensor:
        """The share of the variance of u_0 that a linear estimate from u_t leaves, sum(S L^2 / V) / sum(S); (B,) float64."""
        _, std, variance = self.coefficients(t)
        lost = (std**2 / variance).masked_fill(variance == 0, 0.0) * self.spectrum
        return lost.flatten(1).sum(1) / self.spectrum.expand(lost.shape[1:]).sum()

    def centred(self, u: Tensor, t: Tensor) -> Tensor:
        """c, the coefficients of u - b - A m."""
        return self.process.basis(u.double()) - self.process.offset(t) - self.process.gain(t) * self.mean

    def input(self, u: Tensor, t: Tensor) -> Tensor:
        """c / sqrt(V) as a field, (B, C, H, W), in the precision of u."""
        _, _, variance = self.coefficients(t)
        return self.process.basis.inverse(self.centred(u, t) * variance.rsqrt()).to(u)

    def slope(self, t: Tensor) -> Tensor:
        """L sqrt(S / V), how far v goes with F."""
        _, std, variance = self.coefficients(t)
        return std * (self.spectrum / variance).sqrt()

    def estimate(self, u: Tensor, t: Tensor, output: Tensor) -> Tensor:
        """v of F = output, (B, C, H, W), in the precision of u."""
        gain, _, variance = self.coefficients(t)
        basis, known = self.process.basis, gain * self.spectrum / variance * self.centred(u, t)
        return basis.inverse(self.mean + known + self.slope(t) * basis(output.double())).to(u)

    def target(self, u0: Tensor, eps: Tensor, t: Tensor) -> Tensor:
        """F* of u_t = A u_0 + b + L eps, (B, C, H, W) float64: (u_0 - m - A S / V c) / (L sqrt(S / V)).

        It is taken without that difference of near numbers.
        """
        gain, std, variance = self.coefficients(t)
        basis, scale = self.process.basis, self.spectrum.sqrt()
        target = std / scale * (basis(u0.double()) - self.mean) - gain * scale * basis(eps.double())
        return basis.inverse(target / variance.sqrt())
