"""What every method is: a LightningModule with a loss, a currency for samplers, and reconstructions."""

import copy
import functools
import math
from collections.abc import Callable
from typing import Any

import lightning as L
import torch
from torch import Tensor, nn

from heatgen import check
from heatgen.check import ConfigError
from heatgen.noise import Noise, SampleNoise, batches, mix

OnStep = Callable[[int, Tensor], None]
BATCH = 128  # samples at a time in `measure_errors`


def warmup_factor(step: int, warmup_steps: int) -> float:
    """The learning rate's factor at optimizer step `step` = 0, 1, ...: min(step / warmup_steps, 1), 1 without warm-up."""
    return min(step / warmup_steps, 1.0) if warmup_steps else 1.0


def inverse(std: Tensor) -> Tensor:
    """1 / std, and 0 where std is 0."""
    return torch.where(std > 0, 1 / std.clamp(min=torch.finfo(std.dtype).tiny), torch.zeros_like(std))


def rms(std: Tensor) -> Tensor:
    """The root mean square over coefficients, (B, 1, 1, 1)."""
    return std.square().mean((1, 2, 3), keepdim=True).sqrt()


def has_gain(process: Any) -> bool:
    """Whether A(t) is diagonal in a basis, and so known between the levels too."""
    try:
        return math.isfinite(process.gain(process.times[-1:]).sum().item())
    except ConfigError:
        return False


class Method(L.LightningModule):
    """A generative model of u_0, given a forward process.

    A subclass writes `loss(batch, noise)` and one currency that samplers need: `reverse_mean(u, t, s)` with
    `reverse_std(t, s)`, or `score(u, t)`, or `denoise(u, t)`. What it picks by itself it notes in `chosen`, by config key.
    process: a ForwardProcess; net: net(x, t, cond); sampler: sampler(model, u_K, levels, generator, on_step) -> u_0;
    optimizer: parameters -> torch optimizer; warmup_steps: linear warm-up of the learning rate, in optimizer steps;
    prior_std: the noise on initial states, None for the model's own (`initial_std`); seed: of all noise.
    """

    process: Any
    net: nn.Module
    trainable = True  # whether there is anything to train
    uses_sampler = True  # whether `generate` calls it
    has_markov_forward = (
        False  # whether its reverse steps undo a Markov process; if not, noises of levels are independent given u_0
    )
    noise_last_step = False  # whether the reverse step to t = 0 draws noise too, of `reverse_std`

    def __init__(
        self,
        process: nn.Module,
        net: nn.Module,
        sampler: Callable[..., Tensor],
        optimizer: Callable[..., torch.optim.Optimizer],
        warmup_steps: int = 0,
        prior_std: float | None = None,
        seed: int = 0,
    ):
        super().__init__()
        self.process, self.net, self.sampler, self.make_optimizer = process, net, sampler, optimizer
        self.warmup_steps = check.integer("model.warmup_steps", warmup_steps, minimum=0)
        self.prior_std = None if prior_std is None else check.number("model.prior_std", prior_std, minimum=0)
        self.seed = check.integer("seed", seed, minimum=0)
        self.chosen: dict[str, str] = {}
        self.matrices = not has_gain(self.process)

    def loss(self, batch: dict[str, Tensor], noise: SampleNoise) -> Tensor:
        """The loss of each sample of a batch, (B,); `noise` is all the randomness it may use."""
        raise NotImplementedError

    # sampling -------------------------------------------------------------------------------------------------------

    def bound(self, noise: SampleNoise) -> Any:
        """This model with the random part of its map drawn for the samples of `noise`; itself where there is none."""
        return self.bind(self.process.draw(noise))

    def bind(self, draws: Tensor | None) -> Any:
        """This model with these random numbers of its map, sharing the weights; itself where there are none."""
        if draws is None:
            return self
        view = copy.copy(self)
        view._modules = {**self._modules, "process": self.process.bind(draws)}
        return view

    def initial_state(self, u0: Tensor, noise: Noise) -> Tensor:
        """A draw of the prior around training images u0, (B, C, H, W): A(t_K) u_0 + b(t_K) + initial_std eps."""
        state = self.process.mean(u0, self.process.times[-1:].expand(len(u0)))
        return state + self.process.scale_coefficients(noise.normal_like(state), self.initial_std())

    def initial_std(self) -> Tensor:
        """The noise of initial states over the coefficients: prior_std, or the forward's own at level K."""
        last = self.process.times[-1:]
        return (
            self.process.std(last) if self.prior_std is None else self.process.column(torch.full_like(last, self.prior_std))
        )

    def reverse_std(self, t: Tensor, s: Tensor) -> Tensor:
        """The noise of the reverse step from t to s over the coefficients, broadcastable to (B, C, H, W)."""
        raise NotImplementedError

    def reverse_noise(self, eps: Tensor, t: Tensor, s: Tensor) -> Tensor:
        """The noise of the reverse step from t to s, from white noise eps."""
        return self.process.scale_coefficients(eps, self.reverse_std(t, s))

    def noise_estimate(self, u: Tensor, t: Tensor, u0: Tensor) -> Tensor:
        """eps = L(t)^-1 (u - A(t) u_0 - b(t)), (B, C, H, W); 0 where L is."""
        return self.process.scale_coefficients(u - self.process.mean(u0, t), inverse(self.process.std(t)))

    def target_mean(self, u0: Tensor, u: Tensor, t: Tensor, s: Tensor) -> Tensor:
        """E[u_s | u_t = u, u_0], what a reverse step aims at, (B, C, H, W): A(s) u_0 + b(s), + rho eps if `markov`.

        rho: the map's `coupling`; eps: `noise_estimate`.
        """
        state = self.process.mean(u0, s)
        if not self.has_markov_forward:
            return state
        return state + self.process.scale_coefficients(self.noise_estimate(u, t, u0), self.process.coupling(s, t))

    def target_std(self, t: Tensor, s: Tensor) -> Tensor:
        """The deviation of u_s given u_t and u_0 over the coefficients, broadcastable to (B, C, H, W), float64."""
        if not self.has_markov_forward:
            return self.process.std(torch.maximum(s, self.process.times[1])).double()
        std, rho = self.process.std(s).double(), self.process.coupling(s, t).double()
        return (std**2 - rho**2).clamp(min=0).sqrt()

    def physics_step(self, u: Tensor, t: Tensor, s: Tensor, factor: float) -> Tensor:
        """One step of the score and the physics backwards, from t to s: w - P(w) with w = u + factor Q^2 score(u, t).

        P is the `increment` and Q^2 the variance of the map's step forward from s to t. Subtracting what the step forward
        would add is the stable stand-in, 2 - a by coefficient, for the inverse 1 / a of a step that multiplies by a.
        factor 1 gives the mean of the reverse SDE's step, 1/2 the probability flow; first order in t - s, and no mode is
        stiff. For methods with `score`. Source: Holzschuh et al. 2023, section 2.
        """
        process: Any = self.process
        score = self.score(u, t)  # type: ignore[operator]
        denoised = u + process.scale_coefficients(score, factor * process.step_std(s, t) ** 2)
        return (denoised - process.increment(denoised, s, t)).to(u)

    def euler_step(self, u: Tensor, t: Tensor, s: Tensor, factor: float) -> Tensor:
        """One explicit Euler step of the reverse equation, from t to s: u - (t - s) (f(u, t) - factor g(t)^2 score(u, t)).

        f, g: the map's `drift` and `diffusion`. factor 1 is the reverse SDE's step without its noise, 1/2 the probability
        flow. ConfigError where A(t) cannot be inverted. Source: Song et al. 2021, eqs. 6 and 13.
        """
        process: Any = self.process
        if not process.rate(t).isfinite().all():
            raise ConfigError(
                f"A({t.max().item():.4g}) of forward={process.name} is not invertible, so its drift is infinite; use "
                "sampler.step=physics or another sampler."
            )
        score = self.score(u, t)  # type: ignore[operator]
        slope = process.drift(u, t) - process.scale_coefficients(score, factor * process.diffusion(t) ** 2)
        return (u - process.column(t - s) * slope).to(u)

    def noise_label(self) -> str:
        """What tells the samples of one reverse noise from those of another, as a word."""
        return "own"

    def prepare(self, data: Any) -> None:
        """Measure on training data what the loss needs to know, into buffers; most methods need nothing."""

    def on_fit_start(self) -> None:
        self.prepare(self.trainer.datamodule)  # type: ignore[attr-defined]

    def calibrate(self, data: Any) -> None:
        """Measure on held-out data what sampling needs to know; most methods need nothing."""

    def measure_errors(self, data: Any, images: int, gap: Callable[..., Tensor]) -> Tensor:
        """The mean square of gap(model, u_0, u_k, k) over `images` validation images, by level and coefficient, float64.

        (K + 1, C, H, W), 0 at level 0; each image is degraded anew at each level, by noise of its own.
        """
        n, process = min(images, len(data.images("val"))), self.process
        total = torch.zeros(process.num_levels + 1, *process.shape, dtype=torch.float64, device=process.times.device)
        for samples in batches(range(n), BATCH):
            u0 = data.get("val", samples).to(process.times.device)
            noise = SampleNoise(samples, self.seed, "calibrate")
            model = self.bound(noise)
            for k in range(1, process.num_levels + 1):
                u = model.process.perturb(u0, process.times[k].expand(len(u0)), noise.normal_like(u0))
                total[k] += process.basis(gap(model, u0, u, k)).double().square().sum(0)
        return total / n

    def observed(self, white: float) -> Any:
        """This model, told that its states at level K were seen through white noise of this deviation, if it can use it."""
        return self

    @torch.no_grad()
    def generate(self, u_last: Tensor, noise: Noise, on_step: OnStep | None = None) -> Tensor:
        """Samples of u_0 from states u_last at level K, (B, C, H, W); on_step(k, u_k) sees every state on the way."""
        return self.sampler(self, u_last, self.process.times, rng=noise, on_step=on_step)

    @torch.no_grad()
    def reconstruct(self, u_last: Tensor, n: int, seed: int = 0) -> Tensor:
        """n draws of u_0 for each state u_last at level K, (n, B, C, H, W); the noise depends on (seed, draw, item)."""
        items = range(len(u_last))
        noises = [SampleNoise(items, seed, "reconstruct", i) for i in range(n)]
        return torch.stack([self.bound(noise).generate(u_last, noise) for noise in noises])

    # training -------------------------------------------------------------------------------------------------------

    def times_for(self, noise: SampleNoise) -> Tensor:
        """A time for each sample, (B,): level numbers uniform on (0, K], or on 1 .. K for a map known there alone."""
        process = self.process
        if self.matrices:
            return process.times[noise.integers(1, process.num_levels).to(process.times.device)]
        level = process.num_levels * (1 - noise.uniform_like(torch.empty(len(noise.generators), 1)))[:, 0].to(process.times)
        low = level.long().clamp(max=process.num_levels - 1)
        return torch.lerp(process.times[low], process.times[low + 1], level - low)

    def configure_optimizers(self) -> Any:
        """The optimizer, and a linear warm-up of its learning rate."""
        try:
            optimizer = self.make_optimizer([p for p in self.parameters() if p.requires_grad])
        except (TypeError, ValueError) as error:
            raise ConfigError(f"model.optimizer cannot be built ({error}); check its values.") from error
        factor = functools.partial(warmup_factor, warmup_steps=self.warmup_steps)
        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: factor(step))
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def configure_gradient_clipping(
        self,
        optimizer: torch.optim.Optimizer,
        gradient_clip_val: float | None = None,
        gradient_clip_algorithm: str | None = None,
    ) -> None:
        """Clip by global norm; a sharded (FSDP) model has to do it itself."""
        sharded = getattr(self.trainer.model, "clip_grad_norm_", None)
        if sharded is not None and gradient_clip_val:
            sharded(gradient_clip_val)
        else:
            self.clip_gradients(optimizer, gradient_clip_val, gradient_clip_algorithm)

    def training_step(self, batch: dict[str, Tensor], batch_idx: int) -> Tensor:
        keys = batch["key"].tolist()
        torch.manual_seed(mix(self.seed, "layers", *keys))  # dropout: so that a resumed run repeats it
        loss = self.loss(batch, SampleNoise(keys, self.seed, "train")).mean()
        self.log("train/loss", loss, prog_bar=True, batch_size=len(keys), sync_dist=True)
        return loss

    def validation_step(self, batch: dict[str, Tensor], batch_idx: int) -> None:
        losses = self.loss(batch, SampleNoise(batch["key"], self.seed, "validation"))
        self.log("val/loss", losses.mean(), prog_bar=True, batch_size=len(losses), sync_dist=True)
