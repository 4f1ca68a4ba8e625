"""What every method is: a LightningModule with a loss, and with what a sampler or a metric asks of it."""

import copy
import functools
from collections.abc import Callable, Sequence
from typing import Self, TypedDict

import lightning as L
import torch
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor, nn

from heatgen import check
from heatgen.check import ConfigError
from heatgen.data.module import DataModule
from heatgen.data.stream import Batch
from heatgen.forward.process import ForwardProcess
from heatgen.model.schedule import GroupOptions, renew, warmup_factor
from heatgen.noise import Noise, SampleNoise, batches, mix
from heatgen.sampler.interface import OnStep, Sampler

OptimizerFactory = Callable[[list[nn.Parameter]], torch.optim.Optimizer]
BATCH = 128  # samples at a time in `measure_errors`


class MethodSettings(TypedDict, total=False):
    """The options of every method; `Method` explains them."""

    warmup_steps: int
    prior_std: float | None
    seed: int
    freeze: Sequence[str]


def inverse(std: Tensor) -> Tensor:
    """1 / std, and 0 where std is 0."""
    return torch.where(std > 0, 1 / std.clamp(min=torch.finfo(std.dtype).tiny), torch.zeros_like(std))


def rms(std: Tensor) -> Tensor:
    """The root mean square over the coefficients, (B, C, H, W) -> (B, 1, 1, 1)."""
    return std.square().mean((1, 2, 3), keepdim=True).sqrt()


def data_of(trainer: L.Trainer) -> DataModule:
    """The data of a training."""
    data: DataModule = trainer.datamodule  # type: ignore[attr-defined]  # set by `fit`, declared nowhere
    return data


class Method(L.LightningModule):
    """A generative model of u_0, given a forward process.

    A subclass writes `loss(batch, rng)` and one interface that samplers need (`heatgen.sampler.interface`):
    `reverse_mean(u, t, s)` with `reverse_std(t, s)`; or `score(u, t)` (`ScoreMethod`); or `denoise(u, t)`
    (`DenoisingMethod`, which derives the others).

    Args:
        process: the forward map; its levels are those of the training and of `generate`.
        net: called as net(x, level, cond); see `network`.
        sampler: the way back from u_K to u_0, options bound; None for a method with uses_sampler = False.
        optimizer: parameters -> torch optimizer; None for a method with trainable = False.
        warmup_steps: linear warm-up of the learning rate, in optimizer steps.
        prior_std: the noise on initial states, in units of a pixel; None: the model's own (`initial_std`).
        seed: of all noise.
        freeze: patterns of the names of weights that are not trained, such as net.encoder.*

    Raises:
        ConfigError: a value is out of range.
    """

    process: ForwardProcess
    net: nn.Module
    trainable = True  # whether there is anything to train
    uses_sampler = True  # whether `generate` calls the sampler
    has_markov_forward = False  # whether reverse steps undo a Markov process, or noises of levels are independent given u_0
    step_loss: Tensor  # the loss of the latest training step, a scalar
    val_losses: Tensor  # the sum of a validation's losses so far, and how many they are; float64
    noise_last_step = False  # whether the reverse step to t = 0 draws noise too, of `reverse_std`

    def __init__(
        self,
        process: ForwardProcess,
        net: nn.Module,
        sampler: Sampler | None,
        optimizer: OptimizerFactory | None,
        warmup_steps: int = 0,
        prior_std: float | None = None,
        seed: int = 0,
        freeze: Sequence[str] = (),
    ):
        super().__init__()
        self.process, self.net, self.sampler, self.make_optimizer = process, net, sampler, optimizer
        self.warmup_steps = check.integer("model.warmup_steps", warmup_steps, minimum=0)
        self.prior_std = None if prior_std is None else check.number("model.prior_std", prior_std, minimum=0)
        self.seed = check.integer("seed", seed, minimum=0)
        if isinstance(freeze, str) or not all(isinstance(pattern, str) for pattern in freeze or ()):
            raise ConfigError(f"model.freeze must be a list of names, such as ['net.encoder.*'], not {freeze!r}.")
        self.frozen = list(freeze or ())
        self.group_options: list[GroupOptions] = []  # of the optimizer's groups, as the config has them
        self.chosen: dict[str, str] = {}  # config key -> what the method chose where the config says auto
        self.check_net()

    def check_net(self) -> None:
        """ConfigError unless the network can be called as `network` does."""
        if isinstance(self.net, nn.Module) and type(self.net).forward is nn.Module.forward:
            name = type(self.net).__module__.rsplit(".", 1)[-1]
            raise ConfigError(f"net={name} is a network of neural processes; use model=np, or another network.")

    def loss(self, batch: Batch, rng: SampleNoise) -> Tensor:
        """The loss of each sample of a batch, (B,); `rng` is all the randomness it may use."""
        raise NotImplementedError

    def network(self, x: Tensor, t: Tensor, s: Tensor | None = None) -> Tensor:
        """The output of the network, net(x, level(t), cond), like x.

        Args:
            x: its input, (B, M, H, W).
            t: times, (B,), which it sees as levels 0 .. K.
            s: where a step from t ends, which `cond` may depend on; None: at t.
        """
        cond = self.process.cond(t, t if s is None else s)
        output: Tensor = self.net(x, self.process.level(t).to(x), None if cond is None else cond.to(x))
        return output.to(x)

    # sampling -------------------------------------------------------------------------------------------------------

    def bound(self, rng: SampleNoise) -> Self:
        """This model with the random part of its map drawn for the samples of `rng`; itself where there is none."""
        return self.bind(self.process.draw(rng))

    def bind(self, draws: Tensor | None) -> Self:
        """This model with these random numbers of its map, (B, ...); itself where they are None.

        A shallow copy with a table of submodules of its own: all weights are shared, only the map differs.
        """
        if draws is None:
            return self
        bound = copy.copy(self)
        bound._modules = dict(self._modules)
        bound.process = self.process.bind(draws)
        return bound

    def initial_state(self, u0: Tensor, rng: Noise) -> Tensor:
        """A draw of the prior around training images u0, (B, C, H, W): A(t_K) u_0 + b(t_K) + initial_std eps."""
        state = self.process.mean(u0, self.process.times[-1:].expand(len(u0)))
        return state + self.process.scale_coefficients(rng.normal_like(state), self.initial_std())

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
        return self.process.scale_coefficients(eps, self.reverse_std(t, s))

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

    @torch.no_grad()
    def generate(self, u_last: Tensor, rng: Noise, on_step: OnStep | None = None) -> Tensor:
        """Samples of u_0.

        Args:
            u_last: states at level K, (B, C, H, W).
            rng: where the noise of the steps comes from.
            on_step: called with (k, u_k) for every state on the way, k = K-1 .. 0.
        """
        assert self.sampler is not None, "a method without a sampler writes its own generate"
        return self.sampler(self, u_last, self.process.times, rng=rng, on_step=on_step)

    # what is measured on data ---------------------------------------------------------------------------------------

    def prepare(self, data: DataModule) -> None:
        """Measure on training data what the loss needs to know, into buffers; most methods need nothing."""

    def calibrate(self, data: DataModule) -> None:
        """Measure on held-out data what sampling needs to know; most methods need nothing."""

    def measure_errors(self, data: DataModule, images: int, gap: Callable[[Self, Tensor, Tensor, int], Tensor]) -> Tensor:
        """The mean square of gap(model, u_0, u_k, k) over validation images, by level and coefficient.

        Args:
            data: whose validation images are degraded, anew at each level, by noise of their own.
            images: how many, at most.
            gap: what is to be small, (B, C, H, W), of the model with its map drawn.

        Returns:
            (K + 1, C, H, W) float64, 0 at level 0.
        """
        n, process = min(images, len(data.images("val"))), self.process
        total = torch.zeros(process.num_levels + 1, *process.shape, dtype=torch.float64, device=process.times.device)
        for indices in batches(range(n), BATCH):
            u0 = data.get("val", indices).to(process.times.device)
            rng = SampleNoise(indices, self.seed, "calibrate")
            model = self.bound(rng)
            for k in range(1, process.num_levels + 1):
                u = model.process.perturb(u0, process.times[k].expand(len(u0)), rng.normal_like(u0))
                total[k] += process.basis(gap(model, u0, u, k)).double().square().sum(0)
        return total / n

    # training -------------------------------------------------------------------------------------------------------

    def times_for(self, rng: SampleNoise) -> Tensor:
        """A time for each sample, (B,): levels uniform on (0, K], or on 1 .. K for a map that is known there alone."""
        process = self.process
        if not process.is_diagonal:
            return process.times[rng.integers(1, process.num_levels).to(process.times.device)]
        level = process.num_levels * (1 - rng.uniform_like(torch.empty(len(rng.generators), 1)))[:, 0].to(process.times)
        low = level.long().clamp(max=process.num_levels - 1)
        return torch.lerp(process.times[low], process.times[low + 1], level - low)

    def on_fit_start(self) -> None:
        self.prepare(data_of(self.trainer))

    def build_optimizer(self, parameters: list[nn.Parameter]) -> torch.optim.Optimizer:
        """The optimizer of these parameters. ConfigError where its options do not fit."""
        assert self.make_optimizer is not None, "a method without an optimizer is not trained"
        try:
            optimizer = self.make_optimizer(parameters)
        except (TypeError, ValueError, IndexError) as error:
            raise ConfigError(f"optimizer cannot be built ({error}); check its values.") from error
        for group in optimizer.param_groups:
            for key, value in group.items():
                if isinstance(value, float):
                    check.number(f"optimizer.{key}", value)
        return optimizer

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """The optimizer, and a linear warm-up of its learning rate."""
        optimizer = self.build_optimizer([p for p in self.parameters() if p.requires_grad])
        self.group_options = [{key: group[key] for key in group if key != "params"} for group in optimizer.param_groups]
        factor = functools.partial(warmup_factor, warmup_steps=self.warmup_steps)
        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: factor(step))
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def on_train_start(self) -> None:
        """Give the optimizer and its schedule the options of the config again, as a checkpoint brings those of its own."""
        for config in self.trainer.lr_scheduler_configs:
            renew(config.scheduler, self.group_options, self.warmup_steps)

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

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        keys = batch["key"].tolist()
        torch.manual_seed(mix(self.seed, "layers", *keys))  # dropout: so that a resumed run repeats it
        loss = self.loss(batch, SampleNoise(keys, self.seed, "train")).mean()
        self.step_loss = loss.detach()
        self.log("train/loss", loss, prog_bar=True, batch_size=len(keys), sync_dist=True)
        return loss

    def on_validation_epoch_start(self) -> None:
        self.val_losses = torch.zeros(2, dtype=torch.float64, device=self.device)

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """Add up the losses of this process's own samples; what is there only to fill its share belongs to another."""
        losses = self.loss(batch, SampleNoise(batch["key"], self.seed, "validation")).double()
        own = (batch["index"] % self.trainer.world_size == self.trainer.global_rank).to(losses)
        self.val_losses += torch.stack([losses @ own, own.sum()])

    def on_validation_epoch_end(self) -> None:
        """val/loss: the mean over all samples, whatever the shares of the processes are."""
        total = self.trainer.strategy.reduce(self.val_losses, reduce_op="sum")
        assert isinstance(total, Tensor)
        self.log("val/loss", (total[0] / total[1]).float(), prog_bar=True)
