"""What every method is: a `GenerativeModel` with a loss and a training, by Lightning."""

import functools
from collections.abc import Callable, Sequence
from typing import TypedDict

import lightning as L
import torch
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor, nn

from heatgen import check
from heatgen.check import ConfigError
from heatgen.data.module import DataModule
from heatgen.data.stream import Batch
from heatgen.forward.process import ForwardProcess
from heatgen.model.interface import GenerativeModel
from heatgen.model.schedule import GroupOptions, renew, warmup_factor
from heatgen.noise import SampleNoise, mix
from heatgen.runtime import engine
from heatgen.runtime.peers import ALONE, Peers
from heatgen.sampler.interface import Sampler

OptimizerFactory = Callable[[list[nn.Parameter]], torch.optim.Optimizer]


class MethodSettings(TypedDict, total=False):
    """The options of every method; `Method` explains them."""

    warmup_steps: int
    prior_std: float | None
    seed: int
    freeze: Sequence[str]


def data_of(trainer: L.Trainer) -> DataModule:
    """The data of a training."""
    data: DataModule = trainer.datamodule  # type: ignore[attr-defined]  # set by `fit`, declared nowhere
    return data


def peers_of(trainer: L.Trainer) -> Peers:
    """The processes of a training."""
    return Peers(trainer.global_rank, trainer.world_size, trainer.strategy.root_device)


class Method(GenerativeModel, L.LightningModule):
    """A generative model of u_0, given a forward process, and its training.

    A subclass writes `loss(batch, rng)` and one interface that samplers need (`GenerativeModel`).

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

    step_loss: Tensor  # the loss of the latest batch of training, a scalar, which `Record` and `Finite` look at
    val_losses: Tensor  # the sum of a validation's losses so far, and how many they are; float64

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
        if process.random_noise_only and not self.takes_random_noise:
            pair = f"model={check.option_name(self)} cannot use forward={process.name}"
            raise ConfigError(f"{pair}, whose noise has a hidden size; use model=diffusion.")

    def check_net(self) -> None:
        """ConfigError unless the network can be called as `network` does."""
        if isinstance(self.net, nn.Module) and type(self.net).forward is nn.Module.forward:
            name = type(self.net).__name__
            raise ConfigError(f"net= gives {name}, a network of neural processes; use model=np, or another network.")

    def loss(self, batch: Batch, rng: SampleNoise) -> Tensor:
        """The loss of each sample of a batch, (B,); `rng` is all the randomness it may use."""
        raise NotImplementedError

    def times_for(self, rng: SampleNoise) -> Tensor:
        """A time for each sample, (B,): levels uniform on (0, K], or on 1 .. K for a map that is known there alone."""
        process = self.process
        if not process.is_diagonal:
            return process.times[rng.integers(1, process.num_levels).to(process.times.device)]
        return process.time_of(process.num_levels * (1 - rng.uniform(1))[:, 0].to(process.times))

    def prepare(self, data: DataModule, peers: Peers = ALONE) -> None:
        """Measure on training data, shared by these processes, what the loss needs to know; most methods need nothing."""

    def on_fit_start(self) -> None:
        self.prepare(data_of(self.trainer), peers_of(self.trainer))

    def build_optimizer(self, parameters: list[nn.Parameter]) -> torch.optim.Optimizer:
        """The optimizer of these parameters. ConfigError where its options do not fit."""
        assert self.make_optimizer is not None, "a method without an optimizer is not trained"
        try:
            optimizer = engine.build_optimizer(self.make_optimizer, parameters)
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
            engine.settle(config.scheduler.optimizer)

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        torch.manual_seed(mix(self.seed, "layers", batch["first"]))  # dropout: so that a resumed run repeats it
        loss = self.loss(batch, SampleNoise(batch["key"], self.seed, "train")).mean()
        self.step_loss = loss.detach()
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
