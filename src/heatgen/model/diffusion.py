"""model=diffusion: denoising score matching with the exact marginals of any forward map."""

from typing import Unpack

import torch
from torch import Tensor, nn

from heatgen import check
from heatgen.check import ConfigError
from heatgen.data.module import DataModule
from heatgen.data.stream import Batch
from heatgen.forward.moments import extent, floored
from heatgen.forward.process import ForwardProcess
from heatgen.model.coupling import COUPLINGS, transported
from heatgen.model.denoiser import DenoisingMethod
from heatgen.model.interface import rms
from heatgen.model.loss_weight import WEIGHTS, check_weight, root
from heatgen.model.module import MethodSettings, OptimizerFactory
from heatgen.model.preconditioning import KINDS, NETWORK_INPUTS, Preconditioning, check_use, measure_moments, prior_moments
from heatgen.model.prediction_type import Velocity, choose, loses_u0
from heatgen.model.time_density import DENSITIES, TimeDensity
from heatgen.noise import SampleNoise
from heatgen.runtime.peers import ALONE, Peers
from heatgen.sampler.interface import Sampler, function_of, members_of, protocol_of


class Diffusion(DenoisingMethod):
    """E[u_0 | u_t] or the score learned at every t, from u_t = A u_0 + b + L eps with t continuous; steps derived from it.

    The loss of a sample is w |F - F*|^2 a pixel, F what the network gives and F* what `prediction_type` asks for:

        preconditioned    u_0 = m + (A S / V) c + L sqrt(S / V) F    (`heatgen.model.preconditioning`),

    by coefficient, whose F* has unit variance; m, S: the mean and variance of each coefficient of training images;

        x0    F* = u_0,        eps    F* = eps,        score    F* = -sigma L^-1 eps = sigma * score,    sigma = rms(L),
        velocity    F* = (A' u_0 + b' + L' eps) / n(t), n: its size (`heatgen.model.prediction_type.Velocity`),

    whose networks see u / rms(u_t), or u itself with scale_input=false. w is 1 for weight=prediction, else what makes it a
    weight (`heatgen.model.loss_weight.root`) of |v - u_0|^2, v the estimate. The minimiser of score is that of
    sigma^2 / D |s(u_t, t) - grad log p_t(u_t)|^2; its `score` is F / sigma, and where the map loses part of u_0 that is all
    there is: neither `denoise` nor reverse steps, so sampler=ode or sde.

    Args:
        prediction_type: auto: preconditioned where the map is diagonal, else x0.
        preconditioning: of preconditioned, and of weight=edm and whitened: coefficient: m and S by coefficient; scalar:
            m = 0, and the mean square of all; centred: one m, that of a pixel, and one S about it, as EDM on data of mean 0.
        network_input: of preconditioned: whitened, wiener or state, see `Preconditioning`.
        scale_input: whether networks of x0, eps, score and velocity see states of unit size.
        time_density, density_mean, density_std: how often each time is trained (`heatgen.model.time_density`).
        weight, norm: prediction | edm | velocity | soft | min_snr | whitened; l2 | l1: |w^(1/2) (F - F*)| in its place.
        clip: the estimate of u_0 is held within the values of training images, as by the samplers of DDPM; a score that
            the network gives itself is not.
        coupling: independent | ot: noises and images of a process's batch are paired by optimal transport, which changes the
            marginals. The probability flow (sampler=heun) leads to the data nonetheless, steps with noise do not.
        reverse_variance: of reverse steps: measured, with the error of the estimate by coefficient; small, without.
        calibration_images: validation images that this error is measured on.
        settings: see `Method`.

    Raises:
        ConfigError: a value is out of range, or the map forbids the prediction_type or the sampler.

    Source: Vincent 2011; Song et al. 2021, eq. 7; Karras et al. 2022, section 5, with operators for numbers.
    """

    takes_random_noise = True
    mean: Tensor
    spectrum: Tensor
    range: Tensor | None  # of training images, (2,), with clip

    def __init__(
        self,
        process: ForwardProcess,
        net: nn.Module,
        sampler: Sampler | None,
        optimizer: OptimizerFactory | None,
        prediction_type: str = "auto",
        preconditioning: str = "coefficient",
        network_input: str = "whitened",
        scale_input: bool = True,
        clip: bool = False,
        reverse_variance: str = "measured",
        calibration_images: int = 256,
        time_density: str = "uniform",
        density_mean: float | None = None,
        density_std: float | None = None,
        weight: str = "prediction",
        norm: str = "l2",
        coupling: str = "independent",
        **settings: Unpack[MethodSettings],
    ):
        super().__init__(process, net, sampler, optimizer, **settings)
        self.scale_input = check.boolean("model.scale_input", scale_input)
        self.prediction_type = choose(process, prediction_type, self.scale_input)
        if prediction_type == "auto":
            self.chosen["prediction_type"] = self.prediction_type
        self.score_only = self.prediction_type == "score" and loses_u0(process)
        self.coupling = check.choice("model.coupling", coupling, COUPLINGS)
        if sampler is not None:
            self._check_sampler(sampler)
        self.preconditioning = check.choice("model.preconditioning", preconditioning, KINDS)
        self.network_input = check_use(
            "model.network_input", network_input, NETWORK_INPUTS, "model.prediction_type", self.prediction_type
        )
        self.reverse_variance = check.choice("model.reverse_variance", reverse_variance, ("measured", "small"))
        self.calibration_images = check.integer("model.calibration_images", calibration_images, minimum=2)
        self.norm = check.choice("model.norm", norm, ("l2", "l1"))
        self.weight = check.choice("model.weight", weight, WEIGHTS)
        if weight == "whitened" and preconditioning != "coefficient":
            raise ConfigError(f"model.weight=whitened needs model.preconditioning=coefficient, not {preconditioning}.")
        check_weight(self.weight, process, self.score_only)
        density = check.choice("model.time_density", time_density, list(DENSITIES)), density_mean, density_std
        self.density = None if density == ("uniform", None, None) else TimeDensity(process, *density)
        for name in ("mean", "spectrum"):
            self.register_buffer(name, torch.full(process.shape, float(name == "spectrum"), dtype=torch.float64))
        if check.boolean("model.clip", clip) and self.score_only:
            raise ConfigError(f"model.clip=true holds an estimate of u_0; {self.refusal}")
        self.register_buffer("range", torch.tensor([-torch.inf, torch.inf]) if clip else None)

    @property
    def gaussian_noise(self) -> bool:
        """Whether the noise of u_t is Gaussian and independent of u_0."""
        return super().gaussian_noise and self.coupling != "ot"

    def _check_sampler(self, sampler: Sampler) -> None:
        """ConfigError where it needs what there is not: more than a score, or noise that is Gaussian."""
        needs = members_of(protocol_of(sampler) or object)
        process, churn = self.process, getattr(sampler, "keywords", {}).get("churn")
        gaussian = churn or not {"score", "reverse_noise", "gaussian_noise"}.isdisjoint(needs)
        if gaussian and not self.gaussian_noise:
            cause = f"forward={process.name}" if process.random_noise_only else "model.coupling=ot"
            raise ConfigError(
                f"sampler={function_of(sampler).__name__} takes Gaussian steps, wrong for {cause}; use sampler=heun "
                "without churn."
            )
        if self.score_only and not {"denoise", "reverse_mean"}.isdisjoint(needs):
            raise ConfigError(self.refusal)

    @property
    def refusal(self) -> str:
        """Why there is no estimate of u_0 where there is a score only."""
        return (
            f"model.prediction_type=score divides by A(t) to estimate u_0, which forward={self.process.name} may lose; use "
            "sampler=ode or sde, or model.prediction_type=auto."
        )

    @torch.no_grad()
    def prepare(self, data: DataModule, peers: Peers = ALONE) -> None:
        """Measure mean and variance of each coefficient of training images, in the map's basis, if they are used."""
        if self.coupling == "ot" and data.batch_size < (least := 2 * peers.world):
            raise ConfigError(f"model.coupling=ot pairs two images a process or more; raise data.batch_size to {least}.")
        self.times_for(SampleNoise([0], "prepare"))  # a table of times is made before the first step
        if self.range is not None:
            self.range.copy_(extent(data, peers))
        if not self._measures:
            return
        mean, spectrum = measure_moments(self.process, data, peers)
        self.mean.copy_(mean)
        self.spectrum.copy_(spectrum)

    @property
    def _measures(self) -> bool:
        """Whether it uses moments of the data."""
        return self.prediction_type not in ("x0", "eps", "score") or self.scale_input or self.weight != "prediction"

    @property
    def measured(self) -> Preconditioning | None:
        """See `GenerativeModel.measured`."""
        return Preconditioning(self.process, self.mean, floored(self.spectrum)) if self._measures else None

    # the estimate -------------------------------------------------------------------------------------------------------

    def _scale(self, t: Tensor) -> Tensor:
        """1 / rms(u_t), (B, 1, 1, 1)."""
        power, process = self.spectrum + self.mean**2, self.process
        signal = (process.gain(t).double() ** 2 * power if process.is_diagonal else power).mean((-3, -2, -1), keepdim=True)
        return (signal + process.std(t).double().square().mean((1, 2, 3), keepdim=True)).rsqrt()

    def _velocity(self, t: Tensor) -> Velocity:
        """What prediction_type=velocity means at t."""
        return Velocity(self.process, t, self.spectrum + self.mean**2)

    @property
    def known(self) -> Preconditioning:
        """What is known of u_0 from m and S."""
        return Preconditioning(
            self.process, *prior_moments(self.process, self.mean, self.spectrum, self.preconditioning), self.network_input
        )

    def _output(self, u: Tensor, t: Tensor) -> Tensor:
        """F, (B, C, H, W)."""
        if self.prediction_type == "preconditioned":
            return self.network(self.known.input(u, t), t)
        return self.network((u * self._scale(t)).to(u) if self.scale_input else u, t)

    def denoise(self, u: Tensor, t: Tensor) -> Tensor:
        """The estimate of E[u_0 | u_t = u], (B, C, H, W), for times t, (B,). ConfigError where only the score is known."""
        if self.score_only:
            raise ConfigError(self.refusal)
        estimate = self._estimate(u, t)
        return estimate if self.range is None else estimate.clamp(*self.range)

    def _estimate(self, u: Tensor, t: Tensor) -> Tensor:
        """`denoise` before it is clipped."""
        output, process = self._output(u, t), self.process
        if self.prediction_type == "x0":
            return output
        if self.prediction_type == "preconditioned":
            return self.known.estimate(u, t, output)
        if self.prediction_type == "velocity":
            return self._velocity(t).solve(u, output).to(u)
        gain, std, _ = self.known.coefficients(t)
        eps = output if self.prediction_type == "eps" else -process.scale_coefficients(output, std / rms(std))
        noiseless = process.basis((u - process.scale_coefficients(eps, std)).double()) - process.offset(t)
        return process.basis.inverse(noiseless / gain).to(u)

    def score(self, u: Tensor, t: Tensor) -> Tensor:
        """An estimate of the gradient of log p_t(u), (B, C, H, W), for times t > 0, (B,)."""
        if self.prediction_type == "score":
            return self._output(u, t) / rms(self.process.std(t)).to(u)
        return super().score(u, t)

    def denoise_variance(self, t: Tensor) -> Tensor | None:
        """The measured error of the estimate by coefficient, (B, C, H, W); None where it is left out."""
        if self.reverse_variance == "small" or not self.process.is_diagonal:
            return None
        return self.errors_at(t)

    def noise_label(self) -> str:
        """Which variance the reverse steps have, as a word."""
        return self.reverse_variance

    def calibrate(self, data: DataModule, peers: Peers = ALONE) -> None:
        """Measure the error of the estimate on validation images at every level, if reverse_variance needs it."""
        if self.reverse_variance == "measured" and self.process.is_diagonal and not self.score_only:
            self.measure(data, self.calibration_images, peers)

    # training -----------------------------------------------------------------------------------------------------------

    def times_for(self, rng: SampleNoise) -> Tensor:
        """A time for each sample, (B,), of the time density."""
        return super().times_for(rng) if self.density is None else self.density.draw(rng)

    def loss(self, batch: Batch, rng: SampleNoise) -> Tensor:
        """w |F(u_t) - F*|^2 a pixel, or w^(1/2) |F - F*|, (B,)."""
        u0, model = batch["u0"], self.bound(rng)
        t = self.times_for(rng).to(model.process.times)
        eps = rng.normal_like(u0)
        eps = model.sized(transported(u0, eps) if self.coupling == "ot" else eps)
        u = model.process.perturb(u0, t, eps)
        gap = model._output(u, t) - model._target(u0, eps, t).to(u)
        if self.weight != "prediction":
            factor = model._slope(t) * root(self.weight, model.process, t, self.known.spectrum)
            gap = model.process.scale_coefficients(gap, factor)
        return (gap.square() if self.norm == "l2" else gap.abs()).flatten(1).mean(1)

    def _slope(self, t: Tensor) -> Tensor:
        """|dv / dF| by coefficient, v the estimate of u_0 that F gives."""
        if self.prediction_type == "velocity":
            return self._velocity(t).slope()
        if self.prediction_type == "preconditioned":
            return self.known.slope(t)
        gain, std, _ = self.known.coefficients(t)
        if self.prediction_type == "x0":
            return torch.ones_like(gain)
        return (std / gain if self.prediction_type == "eps" else std**2 / (gain * rms(std))).abs()

    def _target(self, u0: Tensor, eps: Tensor, t: Tensor) -> Tensor:
        if self.prediction_type in ("x0", "eps"):
            return u0 if self.prediction_type == "x0" else eps
        if self.prediction_type == "velocity":
            return self._velocity(t).target(u0, eps)
        if self.prediction_type == "score":
            std = self.process.std(t)
            return -self.process.scale_coefficients(eps, rms(std) / std)
        return self.known.target(u0, eps, t)
