"""model=ihd: inverse heat dissipation, learning one step back along any forward map."""

import functools
from typing import Self, Unpack

import torch
from torch import Tensor, nn

from heatgen import check
from heatgen.check import ConfigError
from heatgen.data.module import DataModule
from heatgen.data.stream import Batch
from heatgen.forward.moments import floored
from heatgen.forward.process import ForwardProcess
from heatgen.model.module import Method, MethodSettings, OptimizerFactory
from heatgen.model.parametrisation import has_one_ratio, safe_ratio, untrained_errors
from heatgen.model.preconditioning import KINDS, NETWORK_INPUTS, Preconditioning, check_use, measure_moments, prior_moments
from heatgen.noise import SampleNoise
from heatgen.runtime.peers import ALONE, Peers
from heatgen.sampler.interface import Sampler

PARAMETRISATIONS = ("auto", "residual", "ratio", "x0", "direct", "preconditioned")
TARGETS, LEVELS = ("clean", "noisy"), ("discrete", "continuous")
DELTA_MODES = ("constant", "per_step", "spectral")
SKIPPING = (  # a key, its values with which steps may skip levels, and how one comes to one
    ("parametrisation", ("x0", "preconditioned"), "train with model.parametrisation=x0"),
    ("delta_mode", ("constant",), "use delta_mode=constant"),  # but for a model that estimates u_0
)
DELTA_RATIO = 1.25  # delta over the forward's noise, the paper's best for both FID and pictures


class IHD(Method):
    """p(u_{k-1} | u_k) = N(mu(u_k, k), delta^2), trained on the next less-degraded, noise-free state.

    Loss of a sample: sum over pixels of (A(t_{k-1}) u_0 + b(t_{k-1}) - mu(u_k, k))^2, k uniform on 1 .. K; with
    parametrisation=preconditioned of (F* - F)^2, where preconditioning=coefficient makes all waves weigh the same.

    With target=noisy the target has the noise of the input, A(s) u_0 + b(s) + L(s) eps with the eps of u_t, so that where L
    is constant the network only deblurs. Sampling adds no noise: that of u_K stays in the picture down to level 1. As
    L(0) = 0, the target of the last step is u_0: this step alone denoises, and its network sees one noise, L(t_1).

    Args:
        parametrisation: residual mu = u_k + f(u_k, k); ratio mu = b_{k-1} + A_{k-1} / A_k (u_k - b_k) + f, where A is one
            number; x0 mu = A(t_{k-1}) f + b(t_{k-1}); direct mu = f; preconditioned, over a diagonal map, as x0 with v of
            `Preconditioning` for f; auto takes that of the first three whose untrained network is nearest to the target
            (`untrained_errors`), residual where `cond` of a random map is withheld.
        target: clean or noisy; noisy x0 has L(s) eps in mu too, eps the noise of u_k that f leaves (a step of DDIM).
        preconditioning: of preconditioned: coefficient, scalar or centred, as of `Diffusion`.
        network_input: of preconditioned: whitened, wiener or state, see `Preconditioning`.
        levels: discrete, k = 1 .. K; continuous, uniform on (0, K], s one level below, at least 0, with x0 (as auto) or
            preconditioned, and a diagonal map: `sampler.steps` may be any number. Networks see levels of the trained map.
        train_top_level: false draws k from 1 .. K-1, as the original code does (its first sampling step is then untrained).
        delta: the noise of each reverse step with delta_mode=constant, in units of a pixel; None: 1.25 times the map's noise
            where the step ends, however long it is (at least that of level 1), and none with target=noisy.
        delta_mode: constant; per_step, delta_k^2 = sigma^2 + MSE_k / D; spectral, the same for each coefficient of the map's
            basis. The errors MSE_k are measured by `calibrate`.
        calibration_images: validation images that it measures them on.
        settings: see `Method`.

    Raises:
        ConfigError: a value is out of range, or the parametrisation does not suit the map.

    Source: Rissanen et al. 2023, eqs. 9 and 10, Algorithms 1 and 2.
    """

    takes_random_noise = True
    mean: Tensor  # of each coefficient of training images, with parametrisation=preconditioned
    spectrum: Tensor  # and its variance

    def __init__(
        self,
        process: ForwardProcess,
        net: nn.Module,
        sampler: Sampler | None,
        optimizer: OptimizerFactory | None,
        parametrisation: str = "auto",
        target: str = "clean",
        preconditioning: str = "coefficient",
        network_input: str = "whitened",
        levels: str = "discrete",
        train_top_level: bool = True,
        delta: float | None = None,
        delta_mode: str = "constant",
        calibration_images: int = 128,
        **settings: Unpack[MethodSettings],
    ):
        super().__init__(process, net, sampler, optimizer, **settings)
        self.noisy = check.choice("model.target", target, TARGETS) == "noisy"
        self.any_time = check.choice("model.levels", levels, LEVELS) == "continuous"
        self.parametrisation = self._choose(check.choice("model.parametrisation", parametrisation, PARAMETRISATIONS))
        used = "model.parametrisation", self.parametrisation
        self.preconditioning = check_use("model.preconditioning", preconditioning, KINDS, *used)
        self.network_input = check_use("model.network_input", network_input, NETWORK_INPUTS, *used)
        if self.parametrisation == "preconditioned":
            for name in ("mean", "spectrum"):
                self.register_buffer(name, torch.full(process.shape, float(name == "spectrum"), dtype=torch.float64))
        self.top_level = self.process.num_levels - (0 if check.boolean("model.train_top_level", train_top_level) else 1)
        if self.top_level < 1:
            raise ConfigError("model.train_top_level=false needs forward.num_levels of at least 2.")
        self.delta = None if delta is None else check.number("model.delta", delta, minimum=0)
        self.delta_mode = check.choice("model.delta_mode", delta_mode, DELTA_MODES)
        if self.delta is not None and delta_mode != "constant":
            raise ConfigError(f"model.delta_mode={delta_mode} finds its own delta; remove delta, or use constant.")
        if self.noisy and delta_mode != "constant":
            raise ConfigError(f"model.target=noisy adds no noise, so model.delta_mode={delta_mode} has none; use constant.")
        self.calibration_images = check.integer("model.calibration_images", calibration_images, minimum=1)
        diagonal = process.is_diagonal and not process.has_random_gain
        self.estimates_u0 = self.parametrisation in ("x0", "preconditioned") and diagonal and not self.noisy
        self.errors: Tensor | None = None  # of u_0, where it estimates that, or of the next state, by level and coefficient

    def _choose(self, wanted: str) -> str:
        hides = self.process.withholds_cond and self.process.has_random_gain
        if hides and wanted in ("ratio", "x0", "preconditioned"):
            raise ConfigError(f"model.parametrisation={wanted} uses T, which forward.conditional=false hides; use residual.")
        if wanted == "ratio" and not has_one_ratio(self.process):
            raise ConfigError(
                f"model.parametrisation=ratio needs a map with one number for A(t); forward={self.process.name} has none."
            )
        if wanted == "preconditioned" and not self.process.is_diagonal:
            raise ConfigError(
                f"model.parametrisation=preconditioned needs a diagonal map; forward={self.process.name} is none; use x0."
            )
        unsuited = hides or not self.process.is_diagonal
        if self.any_time and (unsuited or wanted not in ("auto", "x0", "preconditioned")):
            other = f"forward={self.process.name}" if unsuited else f"model.parametrisation={wanted}"
            raise ConfigError(f"model.levels=continuous needs x0 and a known diagonal map, not {other}; use discrete.")
        if wanted != "auto":
            return wanted
        errors = {"residual": 0.0} if hides else untrained_errors(self.process, self.noisy)
        wanted = "x0" if self.any_time else min(errors, key=lambda name: errors[name])
        self.chosen["parametrisation"] = wanted
        return wanted

    @torch.no_grad()
    def prepare(self, data: DataModule, peers: Peers = ALONE) -> None:
        """Measure mean and variance of each coefficient of training images, in the map's basis, if they are used."""
        if self.parametrisation == "preconditioned":
            mean, spectrum = measure_moments(self.process, data, peers)
            self.mean.copy_(mean)
            self.spectrum.copy_(spectrum)

    @property
    def known(self) -> Preconditioning:
        """What is known of u_0 from its mean and variances."""
        return Preconditioning(
            self.process, *prior_moments(self.process, self.mean, self.spectrum, self.preconditioning), self.network_input
        )

    @property
    def measured(self) -> Preconditioning | None:
        """See `GenerativeModel.measured`."""
        return (
            Preconditioning(self.process, self.mean, floored(self.spectrum))
            if self.parametrisation == "preconditioned"
            else None
        )

    # the reverse step -----------------------------------------------------------------------------------------------

    def _output(self, u: Tensor, t: Tensor, s: Tensor) -> Tensor:
        """What the network gives."""
        if self.parametrisation not in ("x0", "preconditioned"):
            return self.network(u, t, s)
        process = self.process  # cond of a step is learned for single levels only
        s = process.time_of((process.level(t) - 1).clamp(min=0)) if process.is_random else s
        return self.network(self.known.input(u, t) if self.parametrisation == "preconditioned" else u, t, s)

    def _estimate(self, u: Tensor, t: Tensor, s: Tensor) -> Tensor:
        """v, the estimate of u_0, of x0 and preconditioned."""
        output = self._output(u, t, s)
        return self.known.estimate(u, t, output) if self.parametrisation == "preconditioned" else output

    def _mean(self, u: Tensor, t: Tensor, s: Tensor) -> Tensor:
        process = self.process
        if self.parametrisation in ("x0", "preconditioned"):
            v = self._estimate(u, t, s)
            state = process.mean(v, s)
            if not self.noisy:
                return state
            return state + process.scale_coefficients(self.noise_estimate(u, t, v), process.std(s))
        output = self._output(u, t, s)
        if self.parametrisation == "ratio":
            ratio, start, end = safe_ratio(process, t, s).to(u), process.offset(t).to(u), process.offset(s).to(u)
            return end + ratio * (u - start) + output
        return u + output if self.parametrisation == "residual" else output

    def check_steps(self, t: Tensor, s: Tensor) -> None:
        """ConfigError where s is not the level next to t, unless parametrisation and delta_mode skip levels."""
        for key, skips, cure in SKIPPING:
            if getattr(self, key) not in skips and not self.estimates_u0:
                takes = f"takes one level a step, so sampler.steps must be K = {self.process.num_levels}, or null"
                sentence = f"model.{key}={getattr(self, key)} {takes}; {cure} to skip levels."
                skipped = (self.process.level(t) - self.process.level(s) - 1).abs() >= 1e-6
                check.refuse(skipped, functools.partial(str, sentence))

    def reverse_mean(self, u: Tensor, t: Tensor, s: Tensor) -> Tensor:
        """mu: the mean of u_s given u_t = u, (B, C, H, W), for times t > s, (B,). ConfigError as of `check_steps`."""
        self.check_steps(t, s)
        return self._mean(u, t, s)

    def reverse_std(self, t: Tensor, s: Tensor) -> Tensor:
        """delta of the step from t to s over the coefficients, broadcastable to (B, C, H, W), float64."""
        if self.delta is not None or self.noisy:
            return torch.full_like(self.process.column(s).double(), self.delta or 0.0)
        sigma = self.process.std(torch.maximum(s, self.process.times[1])).double()
        if self.delta_mode == "constant":
            return DELTA_RATIO * sigma
        assert self.errors is not None, "call calibrate(data) first"
        if not self.estimates_u0:
            return (sigma**2 + self.errors[self.process.level(t).round().long()]).sqrt()
        error = self.process.gain(s).double() ** 2 * self.errors_at(t)
        return (sigma**2 + (error if self.delta_mode == "spectral" else error.mean((1, 2, 3), keepdim=True))).sqrt()

    def initial_std(self) -> Tensor:
        """prior_std where given; else, with constant delta_mode and clean targets, delta or 1.25 times the noise at K."""
        if self.prior_std is not None or self.delta_mode != "constant" or self.noisy:
            return super().initial_std()
        last = self.process.times[-1:]
        if self.delta is not None:
            return torch.full_like(self.process.column(last), self.delta)
        return DELTA_RATIO * self.process.std(last)

    def noise_label(self) -> str:
        """delta as a word: its value where it is one number, else its mode."""
        if self.delta_mode != "constant":
            return self.delta_mode
        times = self.process.times
        values = self.reverse_std(times[1:], times[:-1])
        return f"{values.max():g}" if values.min() == values.max() else f"{DELTA_RATIO:g}x"

    @torch.no_grad()
    def calibrate(self, data: DataModule, peers: Peers = ALONE) -> None:
        """Measure the mean square of A(s) u_0 + b(s) - mu over validation images, by coefficient, if delta_mode needs it.

        At s one level below t; where mu is A(s) v + b(s) that of u_0 - v, which tells it for every s.
        """
        if self.delta_mode == "constant":
            return

        def gap(model: Self, u0: Tensor, u: Tensor, k: int) -> Tensor:
            t, s = (model.process.times[i].expand(len(u0)) for i in (k, k - 1))
            if model.estimates_u0:
                return u0 - model._estimate(u, t, s)
            return model.process.mean(u0, s) - model.reverse_mean(u, t, s)

        errors = self.measure_errors(data, self.calibration_images, gap, peers)
        kept = self.delta_mode == "spectral" or self.estimates_u0
        self.errors = errors if kept else errors.mean((1, 2, 3), keepdim=True)

    # training -------------------------------------------------------------------------------------------------------

    def loss(self, batch: Batch, rng: SampleNoise) -> Tensor:
        """sum over pixels of (A(t_{k-1}) u_0 + b(t_{k-1}) - mu(u_k, k))^2, (B,); with target=noisy of L(t_{k-1}) eps too.

        With parametrisation=preconditioned of (F* - F)^2.
        """
        u0, model = batch["u0"], self.bound(rng)
        t, s = self._step(rng, u0.device)
        eps = model.sized(rng.normal_like(u0))
        u = model.process.perturb(u0, t, eps)
        if self.parametrisation == "preconditioned":
            return (model.known.target(u0, eps, t).to(u) - model._output(u, t, s)).square().flatten(1).sum(1)
        target = model.process.mean(u0, s)
        if self.noisy:
            target = target + model.process.scale_coefficients(eps, model.process.std(s))
        return (target - model._mean(u, t, s)).square().flatten(1).sum(1)

    def _step(self, rng: SampleNoise, device: torch.device) -> tuple[Tensor, Tensor]:
        """The times t > s of a step for each sample, (B,) each."""
        if not self.any_time:
            k = rng.integers(1, self.top_level).to(device)
            return self.process.times[k], self.process.times[k - 1]
        level = self.top_level * (1 - rng.uniform(1, dtype=torch.float64, device=device)[:, 0])
        return self.process.time_of(level), self.process.time_of((level - 1).clamp(min=0))
