"""model=ihd: inverse heat dissipation, learning one step back along any forward map."""

import math
from typing import Self, Unpack

import torch
from torch import Tensor, nn

from heatgen import check
from heatgen.check import ConfigError
from heatgen.data.module import DataModule
from heatgen.data.stream import Batch
from heatgen.forward.process import TYPICAL_STD, ForwardProcess
from heatgen.model.module import Method, MethodSettings, OptimizerFactory
from heatgen.noise import SampleNoise
from heatgen.runtime.peers import ALONE, Peers
from heatgen.sampler.interface import Sampler

PARAMETRISATIONS = ("auto", "residual", "ratio", "x0", "direct")
DELTA_MODES = ("constant", "per_step", "spectral")
DELTA_RATIO = 1.25  # delta over the forward's noise, the paper's best for both FID and pictures


def untrained_errors(process: ForwardProcess) -> dict[str, float]:
    """By parametrisation: the expected |target - mu|^2 of a network that gives 0, for white images, mean over the levels.

    With images of standard deviation tau: residual tau^2 |A(s) - A(t)|_F^2 + |b(s) - b(t)|^2 + |L(t)|_F^2; x0
    tau^2 |A(s)|_F^2; ratio r^2 |L(t)|_F^2 with r = A(s) / A(t), and tau^2 |A(s)|_F^2 where A(t) = 0; it is left out where
    A(t) is not one number, or drawn at random: it may come near 0 anywhere.
    """
    has_ratio = has_one_ratio(process)
    dimensions, total = math.prod(process.shape), {"residual": 0.0, "ratio": 0.0, "x0": 0.0}
    for t, s in zip(process.times[1:].split(1), process.times[:-1].split(1), strict=True):
        noise = process.std(t).double().square().mean().item() * dimensions
        shift = (process.offset(s) - process.offset(t)).double().square().mean().item() * dimensions
        signal = (TYPICAL_STD * process.frobenius(s)) ** 2
        total["residual"] += (TYPICAL_STD * process.frobenius(t, s)) ** 2 + shift + noise
        total["x0"] += signal
        if has_ratio:
            ratio = safe_ratio(process, t, s).item()
            total["ratio"] += ratio**2 * noise if ratio else signal
    if not has_ratio:
        del total["ratio"]
    return {name: error / process.num_levels for name, error in total.items()}


def has_one_ratio(process: ForwardProcess) -> bool:
    """Whether A(s) / A(t) is one number that is known."""
    return process.is_scalar and (not process.is_random or process.random_noise_only)


def safe_ratio(process: ForwardProcess, t: Tensor, s: Tensor) -> Tensor:
    """A(s) / A(t), and 0 where A(t) = 0: nothing of the image is left to scale."""
    before, after = process.gain(s), process.gain(t)
    return torch.where(after == 0, torch.zeros_like(after), before / after)


class IHD(Method):
    """p(u_{k-1} | u_k) = N(mu(u_k, k), delta^2), trained on the next less-degraded, noise-free state.

    Loss of a sample: sum over pixels of (A(t_{k-1}) u_0 + b(t_{k-1}) - mu(u_k, k))^2, k uniform on 1 .. K.

    Args:
        parametrisation: residual mu = u_k + f(u_k, k); ratio mu = b_{k-1} + A_{k-1} / A_k (u_k - b_k) + f, where A is one
            number; x0 mu = A(t_{k-1}) f + b(t_{k-1}); direct mu = f; auto takes that of the first three whose untrained
            network is nearest to the target (`untrained_errors`), residual where `cond` of a random map is withheld.
        train_top_level: false draws k from 1 .. K-1, as the original code does (its first sampling step is then untrained).
        delta: the noise of each reverse step with delta_mode=constant, in units of a pixel; None: 1.25 times the map's noise
            at level k-1 (at least level 1).
        delta_mode: constant; per_step, delta_k^2 = sigma^2 + MSE_k / D; spectral, the same for each coefficient of the map's
            basis. The errors MSE_k are measured by `calibrate`.
        calibration_images: validation images that it measures them on.
        settings: see `Method`.

    Raises:
        ConfigError: a value is out of range, or the parametrisation does not suit the map.

    Source: Rissanen et al. 2023, eqs. 9 and 10, Algorithms 1 and 2.
    """

    takes_random_noise = True

    def __init__(
        self,
        process: ForwardProcess,
        net: nn.Module,
        sampler: Sampler | None,
        optimizer: OptimizerFactory | None,
        parametrisation: str = "auto",
        train_top_level: bool = True,
        delta: float | None = None,
        delta_mode: str = "constant",
        calibration_images: int = 128,
        **settings: Unpack[MethodSettings],
    ):
        super().__init__(process, net, sampler, optimizer, **settings)
        self.parametrisation = self._choose(check.choice("model.parametrisation", parametrisation, PARAMETRISATIONS))
        self.top_level = self.process.num_levels - (0 if check.boolean("model.train_top_level", train_top_level) else 1)
        if self.top_level < 1:
            raise ConfigError("model.train_top_level=false needs forward.num_levels of at least 2.")
        self.delta = None if delta is None else check.number("model.delta", delta, minimum=0)
        self.delta_mode = check.choice("model.delta_mode", delta_mode, DELTA_MODES)
        if self.delta is not None and delta_mode != "constant":
            raise ConfigError(f"model.delta_mode={delta_mode} finds its own delta; remove delta, or use constant.")
        self.calibration_images = check.integer("model.calibration_images", calibration_images, minimum=1)
        self.errors: Tensor | None = None  # MSE of level k by coefficient, (K + 1, 1 or C, 1 or H, 1 or W)

    def _choose(self, wanted: str) -> str:
        hides = self.process.withholds_cond and not self.process.random_noise_only  # of what A(t) is
        if hides and wanted in ("ratio", "x0"):
            raise ConfigError(f"model.parametrisation={wanted} uses T, which forward.conditional=false hides; use residual.")
        if wanted == "ratio" and not has_one_ratio(self.process):
            raise ConfigError(
                f"model.parametrisation=ratio needs a map with one number for A(t); forward={self.process.name} has none."
            )
        if wanted != "auto":
            return wanted
        errors = {"residual": 0.0} if hides else untrained_errors(self.process)
        wanted = min(errors, key=lambda name: errors[name])
        self.chosen["parametrisation"] = wanted
        return wanted

    # the reverse step -----------------------------------------------------------------------------------------------

    def _mean(self, u: Tensor, t: Tensor, s: Tensor) -> Tensor:
        process = self.process
        skips = self.parametrisation == "x0" and process.is_random  # and the network knows the ends of single levels alone
        output = self.network(u, t, process.times[process.level(t).round().long() - 1] if skips else s)
        if self.parametrisation == "x0":
            return process.mean(output, s)
        if self.parametrisation == "ratio":
            ratio, start, end = safe_ratio(process, t, s).to(u), process.offset(t).to(u), process.offset(s).to(u)
            return end + ratio * (u - start) + output
        return u + output if self.parametrisation == "residual" else output

    def _refuse_skips(self, t: Tensor, s: Tensor, sentence: str) -> None:
        """ConfigError with this sentence unless every s is the level next to t."""
        single = ((self.process.level(t) - self.process.level(s)) - 1).abs() < 1e-6
        check.refuse(~single, lambda: sentence)

    def check_steps(self, t: Tensor, s: Tensor) -> None:
        """ConfigError where s is not the level next to t, unless parametrisation=x0: the others learn single steps only."""
        if self.parametrisation != "x0":
            takes = f"model.parametrisation={self.parametrisation} takes single levels"
            self._refuse_skips(t, s, f"{takes}; use x0 to skip some.")
        if self.delta_mode != "constant":
            self._refuse_skips(t, s, f"model.delta_mode={self.delta_mode} takes single levels; use constant to skip some.")

    def reverse_mean(self, u: Tensor, t: Tensor, s: Tensor) -> Tensor:
        """mu: the mean of u_s given u_t = u, (B, C, H, W), for times t > s, (B,). ConfigError as of `check_steps`."""
        self.check_steps(t, s)
        return self._mean(u, t, s)

    def reverse_std(self, t: Tensor, s: Tensor) -> Tensor:
        """delta of the step from t to s over the coefficients, broadcastable to (B, C, H, W), float64."""
        if self.delta is not None:
            return torch.full_like(self.process.column(s).double(), self.delta)
        sigma = self.process.std(torch.maximum(s, self.process.times[1])).double()
        if self.delta_mode == "constant":
            return DELTA_RATIO * sigma
        assert self.errors is not None, "call calibrate(data) first"
        return (sigma**2 + self.errors[self.process.level(t).round().long()]).sqrt()

    def initial_std(self) -> Tensor:
        """prior_std where given; else, with delta_mode=constant, delta or 1.25 times the forward's noise at level K."""
        if self.prior_std is not None or self.delta_mode != "constant":
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
        """Measure MSE_k, the mean over validation images of (A(t_{k-1}) u_0 + b(t_{k-1}) - mu)^2, if delta_mode needs it."""
        if self.delta_mode == "constant":
            return

        def gap(model: Self, u0: Tensor, u: Tensor, k: int) -> Tensor:
            t, s = (model.process.times[i].expand(len(u0)) for i in (k, k - 1))
            return model.process.mean(u0, s) - model.reverse_mean(u, t, s)

        errors = self.measure_errors(data, self.calibration_images, gap, peers)
        self.errors = errors if self.delta_mode == "spectral" else errors.mean((1, 2, 3), keepdim=True)

    # training -------------------------------------------------------------------------------------------------------

    def loss(self, batch: Batch, rng: SampleNoise) -> Tensor:
        """sum over pixels of (A(t_{k-1}) u_0 + b(t_{k-1}) - mu(u_k, k))^2, (B,)."""
        u0, model = batch["u0"], self.bound(rng)
        k = rng.integers(1, self.top_level).to(u0.device)
        t, s = self.process.times[k], self.process.times[k - 1]
        u = model.process.perturb(u0, t, model.sized(rng.normal_like(u0)))
        return (model.process.mean(u0, s) - model._mean(u, t, s)).square().flatten(1).sum(1)
