"""What samplers, metrics and pictures ask of a model, whatever it was trained by."""

import copy
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor, nn

from heatgen import check
from heatgen.data.module import DataModule
from heatgen.forward.process import ForwardProcess
from heatgen.model.grid import Grid
from heatgen.model.preconditioning import Preconditioning
from heatgen.noise import Noise, SampleNoise, batches
from heatgen.runtime.peers import ALONE, Peers
from heatgen.sampler.interface import OnStep, Sampler

BATCH = 128  # samples at a time in `measure_errors`, at most
REHEARSED = 100  # steps at most in `rehearse`


def inverse(std: Tensor) -> Tensor:
    """1 / std, and 0 where std is 0."""
    return torch.where(std > 0, 1 / std.clamp(min=torch.finfo(std.dtype).tiny), torch.zeros_like(std))


def rms(std: Tensor) -> Tensor:
    """The root mean square over the coefficients, (B, C, H, W) -> (B, 1, 1, 1)."""
    return std.square().mean((1, 2, 3), keepdim=True).sqrt()


@dataclass
class Calls:
    """The calls of a model's network, or of exact answers, each times its samples; shared by copies that `bind` makes."""

    all: int = 0
    drawing: int = 0  # of these, for samples that were drawn
    samples: int = 0
    seconds: float = 0.0  # that they took

    @property
    def nfe(self) -> float | None:
        """Calls a sample; None where none was drawn."""
        return self.drawing / self.samples if self.samples else None

    @contextmanager
    def sampling(self, samples: int) -> Iterator[None]:
        """Within it so many samples are drawn; where that fails, they do not count."""
        before, start = self.all, time.monotonic()
        yield
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        self.drawing, self.samples = self.drawing + self.all - before, self.samples + samples
        self.seconds += time.monotonic() - start


class GenerativeModel(nn.Module):
    """A generative model of u_0, given a forward process, as one samples and measures it; `heatgen.model.module` trains it.

    A subclass writes one interface that samplers need (`heatgen.sampler.interface`): `reverse_mean(u, t, s)` with
    `reverse_std(t, s)`; or `score(u, t)` (`ScoreMethod`); or `denoise(u, t)` (`DenoisingMethod`, which derives the others).
    """

    process: ForwardProcess
    net: nn.Module
    sampler: Sampler | None  # the way back from u_K to u_0
    prior_std: float | None  # the noise on initial states, in units of a pixel; None: the model's own
    seed: int  # of all noise
    trainable = True  # whether there is anything to train
    uses_sampler = True  # whether `generate` calls the sampler
    has_markov_forward = False  # whether reverse steps undo a Markov process, or noises of levels are independent given u_0
    takes_random_noise = False  # whether a map may hide the size of its noise (`random_noise_only`)
    not_compiled = ""  # why its network cannot be compiled, as the end of a sentence
    noise_size: Tensor | None = None  # of each sample, (B, 1), where the map draws and hides it (`random_noise_only`)
    noise_last_step = False  # whether the reverse step to t = 0 draws noise too, of `reverse_std`
    errors: Tensor | None = None  # what `calibrate` measures, where it does: by level and coefficient, (K + 1, C, H, W)
    any_time: bool = False  # whether it is defined at times between levels too
    grid = Grid()  # the times that the sampler visits

    def __init__(self) -> None:
        super().__init__()
        self.calls = Calls()

    @property
    def gaussian_noise(self) -> bool:
        """Whether the noise of u_t is Gaussian and independent of u_0, as samplers with noise in their steps assume."""
        return not self.process.random_noise_only

    def network(self, x: Tensor, t: Tensor, s: Tensor | None = None) -> Tensor:
        """The output of the network, net(x, level(t), cond), like x.

        Args:
            x: its input, (B, M, H, W).
            t: times, (B,), which it sees as levels 0 .. K.
            s: where a step from t ends, which `cond` may depend on; None: at t.
        """
        self.calls.all += len(x)
        cond = self.process.cond(t, t if s is None else s)
        output: Tensor = self.net(x, self.process.level(t).to(x), None if cond is None else cond.to(x))
        return output.to(x)

    # sampling -------------------------------------------------------------------------------------------------------

    def bound(self, rng: SampleNoise) -> Self:
        """This model with the random part of its map drawn for the samples of `rng`; itself where there is none."""
        return self.bind(self.process.draw(rng))

    def bind(self, draws: Tensor | None) -> Self:
        """This model with these random numbers of its map, (B, ...); itself where they are None.

        A shallow copy with a table of submodules of its own: all weights are shared, only the map differs. A hidden size of
        noise (`random_noise_only`) is kept beside the map, so that whatever reads its `std` does not know it.
        """
        if draws is None:
            return self
        bound = copy.copy(self)
        bound._modules = dict(self._modules)
        if self.process.random_noise_only:
            bound.noise_size = draws.to(self.process.times)
        else:
            bound.process = self.process.bind(draws)
        return bound

    def sized(self, eps: Tensor) -> Tensor:
        """White noise, (B, C, H, W), times the hidden size of each sample's noise, where the map has one."""
        return eps if self.noise_size is None else eps * self.process.column(self.noise_size).to(eps)

    def initial_state(self, u0: Tensor, rng: Noise) -> Tensor:
        """A draw of the prior around training images u0, (B, C, H, W): A(t_K) u_0 + b(t_K) + initial_std eps."""
        return self.initial_draw(self.process.mean(u0, self.process.times[-1:].expand(len(u0))), rng)

    def initial_draw(self, state: Tensor, rng: Noise) -> Tensor:
        """A draw of the prior around A(t_K) u_0 + b(t_K), (B, C, H, W), which has initial_std eps added."""
        return state + self.process.scale_coefficients(self.sized(rng.normal_like(state)), self.initial_std())

    def initial_std(self) -> Tensor:
        """The noise of initial states over the coefficients, (1, ...): prior_std, or the map's own at level K."""
        last = self.process.times[-1:]
        if self.prior_std is None:
            return self.process.std(last)
        return self.process.column(torch.full_like(last, self.prior_std))

    def reverse_std(self, t: Tensor, s: Tensor) -> Tensor:
        """The noise of the reverse step from t to s over the coefficients, broadcastable to (B, C, H, W)."""
        raise NotImplementedError

    def reverse_noise(self, eps: Tensor, t: Tensor, s: Tensor) -> Tensor:
        """The noise of the reverse step from t to s, from white noise eps, (B, C, H, W)."""
        return self.process.scale_coefficients(self.sized(eps), self.reverse_std(t, s))

    def noise_estimate(self, u: Tensor, t: Tensor, u0: Tensor) -> Tensor:
        """eps = L(t)^-1 (u - A(t) u_0 - b(t)), (B, C, H, W); 0 where L is."""
        return self.process.scale_coefficients(u - self.process.mean(u0, t), inverse(self.process.std(t)))

    def target_mean(self, u0: Tensor, u: Tensor, t: Tensor, s: Tensor) -> Tensor:
        """E[u_s | u_t = u, u_0], what a reverse step aims at, (B, C, H, W).

        A(s) u_0 + b(s), and with has_markov_forward + rho eps: the map's `coupling` times the `noise_estimate`.
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

    def noise_label(self) -> str:
        """A word for the noise of the reverse steps, in the names of sample folders."""
        return "own"

    def divergence(self) -> str:
        """What to do where samples of this model are not finite; the end of a sentence."""
        if not self.trainable:
            return "the way back diverges: use another sampler, or sampler.steps"
        instead = "checkpoint, sampler or sampler.steps" if self.uses_sampler else "checkpoint or weights"
        return f"the way back diverges: use another {instead}, or train again with a lower optimizer.lr"

    def observed(self, white: float) -> Self:
        """This model for states at level K that carry white noise of this deviation, where it can make use of that."""
        return self

    @property
    def measured(self) -> Preconditioning | None:
        """The second moments of the data, where the model has measured them; None: it has not."""
        return None

    def check_steps(self, t: Tensor, s: Tensor) -> None:
        """ConfigError where the model has no step from a time t to the time s below it, (B,) each."""

    def sampling_times(self) -> Tensor:
        """The times of `grid`, (N + 1,). ConfigError where the model or its map is not defined there."""
        times = self.grid.times(self.process, self.any_time, check.option_name(self), self.measured)
        if times is not self.process.times:
            self.check_steps(times[1:], times[:-1])
        return times

    @property
    def num_steps(self) -> int:
        """N, the steps that a sampler takes."""
        return len(self.sampling_times()) - 1

    @torch.no_grad()
    def generate(self, u_last: Tensor, rng: Noise, on_step: OnStep | None = None) -> Tensor:
        """Samples of u_0.

        Args:
            u_last: states at level K, (B, C, H, W).
            rng: where the noise of the steps comes from.
            on_step: called with (k, u) for every state on the way, at the k-th of `sampling_times`, k = N-1 .. 0.
        """
        return self.way_back(u_last, self.sampling_times(), rng, on_step)

    @torch.no_grad()
    def way_back(self, u: Tensor, times: Tensor, rng: Noise, on_step: OnStep | None = None) -> Tensor:
        """Samples of u_0 from states u at the last of these ascending times, (B, C, H, W); see `generate`."""
        assert self.sampler is not None, "a method without a sampler writes its own generate"
        with self.calls.sampling(len(u)), check.deferred():
            return self.sampler(self, u, times, rng=rng, on_step=on_step)

    @torch.no_grad()
    def rehearse(self) -> None:
        """Take up to a hundred steps of the sampler with 0 in place of the network: what they refuse is refused now.

        From end to end where the model is of any time, else the lowest levels.
        """
        rng = SampleNoise([0], self.seed, "rehearsal")
        trial, channels = copy.copy(self.bound(rng)), self.process.shape[0]
        trial.network = lambda x, t, s=None: torch.zeros_like(x[:, :channels])  # type: ignore[method-assign]
        if trial.errors is None:
            trial.errors = torch.zeros(self.process.num_levels + 1, *self.process.shape, dtype=torch.float64)
        assert self.sampler is not None, "a method without a sampler has no steps"
        times = self.sampling_times()
        chosen = torch.linspace(0, len(times) - 1, min(len(times), REHEARSED + 1)).round().long()
        times = times[chosen if self.any_time and self.process.is_diagonal else slice(REHEARSED + 1)]
        self.sampler(trial, torch.zeros(1, *self.process.shape), times, rng=rng)

    # what is measured on data ---------------------------------------------------------------------------------------

    def calibrate(self, data: DataModule, peers: Peers = ALONE) -> None:
        """Measure on held-out data what sampling needs to know, shared by these processes; most methods need nothing."""

    def errors_at(self, t: Tensor) -> Tensor:
        """The measured `errors` at times t, (B,), linear between levels, (B, C, H, W) float64."""
        assert self.errors is not None, "call calibrate(data) first"
        level = self.process.level(t).clamp(0, self.process.num_levels)
        low = level.floor().long().clamp(max=self.process.num_levels - 1)
        return torch.lerp(self.errors[low], self.errors[low + 1], self.process.column(level - low).to(self.errors))

    def measure_errors(
        self, data: DataModule, images: int, gap: Callable[[Self, Tensor, Tensor, int], Tensor], peers: Peers = ALONE
    ) -> Tensor:
        """The mean square of gap(model, u_0, u_k, k) over validation images, by level and coefficient.

        Args:
            data: whose validation images are degraded, anew at each level, by noise of their own.
            images: how many, at most.
            gap: what is to be small, (B, C, H, W), of the model with its map drawn.
            peers: the processes that share the images; the answer is the same on all of them.

        Returns:
            (K + 1, C, H, W) float64, 0 at level 0.
        """
        n, process = min(images, len(data.images("val"))), self.process
        total = torch.zeros(process.num_levels + 1, *process.shape, dtype=torch.float64, device=process.times.device)
        with peers.together():
            for indices in batches(peers.share(range(n)), min(BATCH, data.batch_size)):
                u0 = data.get("val", indices).to(process.times.device)
                rng = SampleNoise(indices, self.seed, "calibrate")
                model = self.bound(rng)
                for k in range(1, process.num_levels + 1):
                    u = model.process.perturb(u0, process.times[k].expand(len(u0)), model.sized(rng.normal_like(u0)))
                    total[k] += process.basis(gap(model, u0, u, k)).double().square().sum(0)
        return peers.sum(total) / n
