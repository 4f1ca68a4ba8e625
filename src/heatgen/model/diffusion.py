"""model=diffusion: denoising score matching with the exact marginals of any forward map."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from heatgen import check
from heatgen.check import ConfigError
from heatgen.model.denoiser import Denoiser
from heatgen.model.module import rms
from heatgen.noise import SampleNoise, batches

HEADS = ("auto", "preconditioned", "x0", "eps", "score")
VARIANCES = ("measured", "small")
MEASURED = 10_000  # training images at most that the spectrum is measured on
TINY = 1e-10  # the least variance of a coefficient, in units of the mean one


class Diffusion(Denoiser):
    """E[u_0 | u_t] learned at every t, from u_t = A u_0 + b + L eps with t continuous; score and steps derived from it.

    prediction_type: what the network gives. preconditioned: with c the coefficients of u_t - b - A m and v = A^2 S + L^2,

        u_0 = m + (A S / v) c + L sqrt(S / v) F(c / sqrt(v)),   loss |F - F*|^2 a pixel,

    whose target F* has unit variance in every coefficient. m, S: mean and variance of each coefficient, measured on training
    images (preconditioning=coefficient), or of all of them together (scalar). x0: F = u_0; eps: F = eps; score:
    F = rms(L) times the score; their networks see u / rms(v), and the loss is |F - F*|^2 too. auto: preconditioned where
    the map is diagonal, else x0. reverse_variance: of the reverse steps, measured (with the error of the estimate by
    coefficient, on calibration_images validation images) or small (as if the estimate were u_0 itself).
    ConfigError for a value out of range or a prediction_type that the map forbids.
    Source: Vincent 2011; Karras et al. 2022, section 5, with operators for numbers.
    """

    mean: Tensor
    spectrum: Tensor

    def __init__(
        self,
        process: nn.Module,
        net: nn.Module,
        sampler: Callable[..., Tensor],
        optimizer: Callable[..., torch.optim.Optimizer],
        prediction_type: str = "auto",
        preconditioning: str = "coefficient",
        reverse_variance: str = "measured",
        calibration_images: int = 256,
        **settings: Any,
    ):
        super().__init__(process, net, sampler, optimizer, **settings)
        if self.process.withholds_cond:
            raise ConfigError("model=diffusion uses T, which forward.conditional=false hides; use model=ihd.")
        self.prediction_type = self._choose(check.choice("model.prediction_type", prediction_type, HEADS))
        self.preconditioning = check.choice("model.preconditioning", preconditioning, ("coefficient", "scalar"))
        self.reverse_variance = check.choice("model.reverse_variance", reverse_variance, VARIANCES)
        self.calibration_images = check.integer("model.calibration_images", calibration_images, minimum=2)
        for name in ("mean", "spectrum"):
            self.register_buffer(name, torch.full(self.process.shape, float(name == "spectrum"), dtype=torch.float64))

    def _choose(self, wanted: str) -> str:
        if wanted == "auto":
            wanted = self.chosen["prediction_type"] = "x0" if self.matrices else "preconditioned"
        if wanted == "preconditioned" and self.matrices:
            raise ConfigError(
                f"model.prediction_type=preconditioned needs a diagonal map; forward={self.process.name} is not: use x0."
            )
        lost = self.matrices or self.process.is_random or self.process.gain(self.process.times).abs().min() < 1e-6
        if wanted in ("eps", "score") and lost:
            raise ConfigError(
                f"model.prediction_type={wanted} divides by A(t), which forward={self.process.name} may lose; "
                "use preconditioned or x0."
            )
        return wanted

    @torch.no_grad()
    def prepare(self, data: Any) -> None:
        """Measure mean and variance of each coefficient of training images, in the map's basis."""
        n = min(MEASURED, len(data.images("train")))
        total = torch.zeros(2, *self.process.shape, dtype=torch.float64, device=self.mean.device)
        for samples in batches(range(n), 1024):
            c = self.process.basis(data.get("train", samples).to(self.mean.device).double())
            total += torch.stack([c.sum(0), c.square().sum(0)])
        self.mean.copy_(total[0] / n)
        self.spectrum.copy_((total[1] / n - self.mean**2).clamp(min=0))

    # the estimate -------------------------------------------------------------------------------------------------------

    def _prior(self) -> tuple[Tensor, Tensor]:
        """m and S of the preconditioning, broadcastable to (B, C, H, W)."""
        overall = self.spectrum.mean()
        if self.preconditioning == "scalar":
            return torch.zeros_like(self.mean), (self.spectrum + self.mean**2).mean().expand_as(self.spectrum)
        return self.mean, self.spectrum.clamp(min=TINY * float(overall) + 1e-30)

    def _network(self, u: Tensor, t: Tensor) -> Tensor:
        cond = self.process.cond(t, t)
        return self.net(u, self.process.level(t).to(u), None if cond is None else cond.to(u)).to(u)

    def _scale(self, t: Tensor) -> Tensor:
        """1 / rms(v), (B, 1, 1, 1): the size of the states of level t."""
        signal = (self.spectrum + self.mean**2).mean()
        gain = 1.0 if self.matrices else self.process.gain(t).double().square().mean((1, 2, 3), keepdim=True)
        return (gain * signal + self.process.std(t).double().square().mean((1, 2, 3), keepdim=True)).rsqrt()

    def _coefficients(self, t: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """A, L, v and S over the coefficients at t."""
        gain, std, (_, spectrum) = self.process.gain(t).double(), self.process.std(t).double(), self._prior()
        return gain, std, gain**2 * spectrum + std**2, spectrum

    def _centred(self, u: Tensor, t: Tensor) -> Tensor:
        """The coefficients of u - b - A m."""
        mean, _ = self._prior()
        return self.process.basis(u.double()) - self.process.offset(t) - self.process.gain(t) * mean

    def _output(self, u: Tensor, t: Tensor) -> Tensor:
        """F: what the network says of u."""
        if self.prediction_type == "preconditioned":
            _, _, variance, _ = self._coefficients(t)
            return self._network(self.process.basis.inverse(self._centred(u, t) * variance.rsqrt()).to(u), t)
        return self._network((u * self._scale(t)).to(u), t)

    def denoise(self, u: Tensor, t: Tensor) -> Tensor:
        """The estimate of E[u_0 | u_t = u], (B, C, H, W)."""
        output, process = self._output(u, t), self.process
        if self.prediction_type == "x0":
            return output
        gain, std, variance, spectrum = self._coefficients(t)
        if self.prediction_type == "preconditioned":
            (mean, _), basis = self._prior(), process.basis
            known = gain * spectrum / variance * self._centred(u, t)
            return basis.inverse(mean + known + std * (spectrum / variance).sqrt() * basis(output.double())).to(u)
        eps = output if self.prediction_type == "eps" else -process.scale_coefficients(output, std / rms(std))
        noiseless = process.basis((u - process.scale_coefficients(eps, std)).double()) - process.offset(t)
        return process.basis.inverse(noiseless / gain).to(u)

    def denoise_variance(self, t: Tensor) -> Tensor | None:
        """The measured error of the estimate by coefficient, (B, C, H, W); None where it is left out."""
        if self.reverse_variance == "small" or self.matrices:
            return None
        return self.measured_variance(t)

    def noise_label(self) -> str:
        """Which variance the reverse steps have, as a word."""
        return self.reverse_variance

    def calibrate(self, data: Any) -> None:
        """Measure the error of the estimate on validation images at every level, if reverse_variance needs it."""
        if self.reverse_variance == "measured" and not self.matrices:
            self.measure(data, self.calibration_images)

    # training -----------------------------------------------------------------------------------------------------------

    def loss(self, batch: dict[str, Tensor], noise: SampleNoise) -> Tensor:
        """|F(u_t) - F*|^2 a pixel, (B,)."""
        u0, model = batch["u0"], self.bound(noise)
        t = self.times_for(noise).to(model.process.times)
        eps = noise.normal_like(u0)
        u = model.process.perturb(u0, t, eps)
        return (model._output(u, t) - model._target(u0, u, eps, t).to(u)).square().flatten(1).mean(1)

    def _target(self, u0: Tensor, u: Tensor, eps: Tensor, t: Tensor) -> Tensor:
        if self.prediction_type in ("x0", "eps"):
            return u0 if self.prediction_type == "x0" else eps
        if self.prediction_type == "score":
            std = self.process.std(t)
            return -self.process.scale_coefficients(eps, rms(std) / std)
        gain, std, variance, spectrum = self._coefficients(t)
        mean, _ = self._prior()
        clean, noise = self.process.basis(u0.double()) - mean, self.process.basis(eps.double())
        # (u_0 - m - A S / v c) / (L sqrt(S / v)), without a difference of near numbers
        return self.process.basis.inverse((std / spectrum.sqrt() * clean - gain * spectrum.sqrt() * noise) / variance.sqrt())
