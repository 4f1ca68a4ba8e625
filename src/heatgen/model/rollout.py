"""What methods that are trained along stretches of a trajectory have in common: the stretches, and their growth."""

import itertools
from collections.abc import Callable
from typing import Unpack

import torch
from torch import Tensor, nn

from heatgen import check
from heatgen.check import ConfigError
from heatgen.data.stream import Batch
from heatgen.forward.process import ForwardProcess
from heatgen.model.interface import rms
from heatgen.model.module import Method, MethodSettings, OptimizerFactory
from heatgen.noise import SampleNoise
from heatgen.picture import is_points
from heatgen.sampler.interface import Sampler

Step = Callable[[Tensor, Tensor, Tensor], Tensor]  # (u, from, to) -> u


class RolloutSettings(MethodSettings, total=False):
    """The options of every method that is trained along trajectories; `Rollout` explains them."""

    window_start: int
    window_add: int
    window_every: int
    window_stages: int
    window_final: int | None
    jitter: bool
    noise_in_rollout: bool
    gradient_cut: int
    training_noise: float


class Rollout(Method):
    """A method that steps from level to level, its own states fed back, against a trajectory of the forward map.

    Each sample draws a window of S + 1 neighbouring times, 0 and t_K included, and the map's trajectory on it. S grows in
    training; validation uses S = 1. A subclass writes `rollout`.

    Args:
        window_start: S at first, in steps.
        window_add: what S grows by, every `window_every` optimizer steps.
        window_every: see there.
        window_stages: how many sizes there are before the final one.
        window_final: S at last; None: the last stage's.
        jitter: inner times move by up to half a step either way.
        noise_in_rollout: the map's noise is added to each predicted state.
        gradient_cut: steps after which gradients stop.
        training_noise: of the trajectories, in units of the map's own.
        settings: see `Method`.

    Raises:
        ConfigError: a value is out of range, or the map has no noisy step between all neighbouring levels.

    Source: Holzschuh et al. 2023, section 2 and appendix.
    """

    has_markov_forward = True

    def __init__(
        self,
        process: ForwardProcess,
        net: nn.Module,
        sampler: Sampler | None,
        optimizer: OptimizerFactory | None,
        window_start: int = 6,
        window_add: int = 2,
        window_every: int = 1000,
        window_stages: int = 7,
        window_final: int | None = 20,
        jitter: bool = True,
        noise_in_rollout: bool = False,
        gradient_cut: int = 32,
        training_noise: float = 1.0,
        **settings: Unpack[MethodSettings],
    ):
        super().__init__(process, net, sampler, optimizer, **settings)
        self.window_start = check.integer("model.window_start", window_start, minimum=1)
        self.window_add = check.integer("model.window_add", window_add, minimum=0)
        self.window_every = check.integer("model.window_every", window_every, minimum=1)
        self.window_stages = check.integer("model.window_stages", window_stages, minimum=1)
        self.window_final = None if window_final is None else check.integer("model.window_final", window_final, minimum=1)
        self.jitter = check.boolean("model.jitter", jitter)
        self.noise_in_rollout = check.boolean("model.noise_in_rollout", noise_in_rollout)
        self.gradient_cut = check.integer("model.gradient_cut", gradient_cut, minimum=1)
        self.training_noise = check.number("model.training_noise", training_noise, above=0)
        self._check_steps()

    def _check_steps(self) -> None:
        name = check.option_name(self)
        others = ("heat_kernel",) if is_points(self.process.shape) else ("stochastic_heat", "heat")
        fix = f"use forward={' or '.join(other for other in others if other != self.process.name)}"
        times = self.process.times
        if self.process.is_random:
            raise ConfigError(
                f"model={name} needs one map for all, and forward={self.process.name} is drawn at random: {fix}."
            )
        if not (rms(self.process.step_std(times[:-1], times[1:])) > 0).all():  # ConfigError without steps
            raise ConfigError(
                f"model={name} needs a map with noise in every step; forward={self.process.name} has none: {fix}."
            )

    def check_steps(self, t: Tensor, s: Tensor) -> None:
        """ConfigError for all that `sampler.steps` may ask for, as steps of other lengths are not learned."""
        name, last = check.option_name(self), self.process.num_levels
        raise ConfigError(f"model={name} learns steps of one level, so sampler.steps must be K = {last}, or null.")

    def window(self) -> int:
        """S, the steps of a window at this moment of the training."""
        if not self.training or self._trainer is None:
            return 1
        stage = self.global_step // self.window_every
        size = self.window_start + self.window_add * min(stage, self.window_stages - 1)
        if stage >= self.window_stages and self.window_final is not None:
            size = self.window_final
        return min(size, self.process.num_levels)

    def trajectory(self, u0: Tensor, size: int, rng: SampleNoise) -> tuple[Tensor, list[Tensor]]:
        """One window of a trajectory for each sample.

        Args:
            u0: where the trajectories start, (B, C, H, W).
            size: S, the steps of a window.
            rng: of the window, of the jitter and of the map's noise.

        Returns:
            The times, (S + 1, B), ascending, and the states of the map at them, (B, C, H, W) each.
        """
        process = self.process
        first = rng.integers(0, process.num_levels - size)
        indices = first[:, None] + torch.arange(size + 1, device=first.device)  # of levels, (B, S + 1)
        levels = indices.double()
        if self.jitter:
            inner = (indices > 0) & (indices < process.num_levels)
            shift = rng.uniform(process.num_levels + 1).double() - 0.5
            levels = levels + shift.gather(1, indices) * inner
        low = levels.long().clamp(max=process.num_levels - 1)
        grid = process.times.to(low.device)
        times = torch.lerp(grid[low], grid[low + 1], levels - low).mT.to(process.times)
        eps = self.training_noise * rng.normal_like(u0)
        states = [process.perturb(u0, times[0], eps)]
        for s, t in itertools.pairwise(times):
            states.append(process.step(states[-1], s, t, self.training_noise * rng.normal_like(u0)))
        return times, states

    def reverse_std(self, t: Tensor, s: Tensor) -> Tensor:
        """Q, the noise of trajectories between s and t, broadcastable to (B, C, H, W)."""
        return self.training_noise * self.process.step_std(s, t)

    def disturb(self, u: Tensor, s: Tensor, t: Tensor, rng: SampleNoise) -> Tensor:
        """u with the noise of the step between s and t, where noise_in_rollout asks for it."""
        if not self.noise_in_rollout:
            return u
        return u + self.process.scale_coefficients(rng.normal_like(u), self.reverse_std(t, s)).to(u)

    def rollout(self, times: Tensor, states: list[Tensor], rng: SampleNoise) -> Tensor:
        """The loss of each sample over a window, (B,); times and states as in `trajectory`."""
        raise NotImplementedError

    def unroll(self, step: Step, times: Tensor, states: list[Tensor], rng: SampleNoise) -> Tensor:
        """sum over the steps of |predicted - true|^2 a pixel, in units of the step's own noise; predictions are fed back.

        Args:
            step: step(u, from, to) -> u.
            times: (S + 1, B), in the order of the steps.
            states: the true ones at these times, (B, C, H, W) each.
            rng: of the noise on predicted states.

        Returns:
            The loss of each sample, (B,).
        """
        u, total = states[0], states[0].new_zeros(len(states[0]))
        for i, (start, end, truth) in enumerate(zip(times[:-1], times[1:], states[1:], strict=True), 1):
            u = step(u, start, end)
            early, late = torch.minimum(start, end), torch.maximum(start, end)
            scale = rms(self.reverse_std(late, early)).flatten().to(u)
            total = total + (u - truth).square().flatten(1).mean(1) / scale**2
            u = self.disturb(u, early, late, rng)
            if i % self.gradient_cut == 0:
                u = u.detach()
        return total

    def loss(self, batch: Batch, rng: SampleNoise) -> Tensor:
        """The loss of each sample over a random window of the present size, (B,)."""
        times, states = self.trajectory(batch["u0"], self.window(), rng)
        return self.rollout(times, states, rng)
