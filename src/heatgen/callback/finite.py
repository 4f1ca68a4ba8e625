"""What keeps a training finite: a number that is not stops it, or its step is left out, before anything of it is saved."""

import logging
from contextlib import ExitStack
from pathlib import Path
from typing import NoReturn

import lightning as L
import torch
from torch import Tensor

from heatgen import check
from heatgen.check import ConfigError
from heatgen.model.module import Method
from heatgen.runtime.directory import STOPPED
from heatgen.runtime.files import write_text

POLICIES = ("stop", "skip")
PATIENCE = 100  # steps in a row that are left out, and no more
EVERY = 50  # steps at most from one look to the next, where a look waits for a device or for other processes

log = logging.getLogger("heatgen")


class Finite(L.Callback):
    """Looks at the loss and the norm of the gradient of every step, at val/loss, and at all that is about to be saved.

    One process on a CPU looks at each step before it is taken. A GPU or several processes would have to wait for that: there
    the numbers are kept where they are, and looked at every min(log_every_n_steps, 50) steps, before each validation and
    before each checkpoint, by all processes together. A gradient that overflows with trainer.precision=16-mixed is none of
    this: its scaler leaves the step out by itself, at most 100 in a row. What `check.refuse` finds on a GPU is looked at
    together with the steps.

    Args:
        on_nonfinite: stop: the training ends in one sentence, and the last finite checkpoint stays. skip: the weights, the
            averages and the state of the optimizer stay as they are at that step, which counts as one; looked at before
            every step, on any device. 100 such steps in a row, weights or a val/loss that are not finite stop it all the
            same.

    Raises:
        ConfigError: on_nonfinite is neither.
    """

    def __init__(self, on_nonfinite: str = "stop"):
        self.on_nonfinite = check.choice("trainer.on_nonfinite", on_nonfinite, POLICIES)
        self.skipped = 0  # steps that were left out
        self.left_out = 0  # the number of the latest of them
        self.in_a_row = 0
        self.losses: list[Tensor] = []  # of the batches of the step that is being made
        self.gradient = torch.zeros(())  # its norm in the latest step
        self.pending: list[tuple[int, Tensor, Tensor]] = []  # step, loss and norm of the gradient, not yet looked at
        self.doubts: list[check.Doubt] = []  # not yet looked at
        self.loss: float | None = None  # of the latest step that was looked at, on this process
        self._deferred = ExitStack()  # holds `check.deferred` while the training runs

    def on_fit_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._deferred.enter_context(check.deferred(self.doubts))

    def on_fit_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._deferred.close()

    def on_exception(self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException) -> None:
        self._deferred.close()

    def on_before_backward(self, trainer: L.Trainer, pl_module: L.LightningModule, loss: Tensor) -> None:
        assert isinstance(pl_module, Method)
        self.losses.append(pl_module.step_loss)  # `loss` may be scaled

    def on_before_optimizer_step(
        self, trainer: L.Trainer, pl_module: L.LightningModule, optimizer: torch.optim.Optimizer
    ) -> None:
        self.gradient = norm_of_gradient(optimizer)
        self.pending.append((trainer.global_step + 1, torch.stack(self.losses).mean(), self.gradient))
        self.losses.clear()
        alone = trainer.world_size == 1 and pl_module.device.type == "cpu"
        if alone or self.on_nonfinite == "skip":
            self.look(trainer, pl_module)

    def on_train_batch_end(self, trainer: L.Trainer, pl_module: L.LightningModule, *_: object) -> None:
        if len(self.pending) >= min(trainer.log_every_n_steps, EVERY):  # type: ignore[attr-defined]  # set by Lightning
            self.look(trainer, pl_module)

    def on_validation_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self.look(trainer, pl_module)

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self.refuse(trainer)
        loss = trainer.callback_metrics.get("val/loss")
        if loss is not None and not loss.isfinite():
            stop(trainer, f"The validation loss after step {trainer.global_step} is", trainer.global_step + 1)

    def before_saving(self, trainer: L.Trainer, model: L.LightningModule, averages: list[Tensor]) -> None:
        """ConfigError, in all processes, unless the steps so far and all tensors that change in a training are finite."""
        self.look(trainer, model)
        self.check_weights(trainer, model, averages)

    def check_weights(self, trainer: L.Trainer, model: L.LightningModule, averages: list[Tensor]) -> None:
        """ConfigError unless the weights, their averages and the state of the optimizer are finite."""
        state = [list(optimizer.state.values()) for optimizer in trainer.optimizers]
        content = {"weights": dict(model.named_parameters()), "averages": averages, "optimizer": state}
        bad = check.first_nonfinite(content)
        if not trainer.strategy.reduce_boolean_decision(bad is None, all=True):
            what = "weights" if bad is None else bad.split(".")[0]
            words = {"weights": "The weights", "averages": "The averaged weights", "optimizer": "The optimizer's state"}
            verb = "is" if what == "optimizer" else "are"
            stop(trainer, f"{words[what]} after step {trainer.global_step} {verb}", trainer.global_step + 1)

    def look(self, trainer: L.Trainer, model: L.LightningModule) -> None:
        """Judge the steps since the last look, in all processes alike. ConfigError where the training has to stop."""
        self.refuse(trainer)
        if not self.pending:
            return
        steps = [step for step, _, _ in self.pending]
        numbers = torch.stack([x.float() for _, *pair in self.pending for x in pair]).reshape(-1, 2)
        self.pending.clear()
        fine = numbers.isfinite().float()
        if trainer.world_size > 1:
            reduced = trainer.strategy.reduce(fine, reduce_op="min")
            assert isinstance(reduced, Tensor)
            fine = reduced
        rows = torch.cat([numbers, fine], dim=1).tolist()  # one wait
        self.loss = rows[-1][0]
        for step, (_, _, loss, gradient) in zip(steps, rows, strict=True):
            if loss and gradient:
                self.in_a_row = 0
            else:
                self._judge(trainer, model, step, "gradient" if loss else "loss")

    def refuse(self, trainer: L.Trainer) -> None:
        """ConfigError, in all processes, where one of the doubts is true."""
        if not self.doubts:
            return
        sentence = check.settle(self.doubts)
        if not trainer.strategy.reduce_boolean_decision(sentence is None, all=True):
            raise ConfigError(sentence or "Another process of this training has stopped, and says why in its log.")

    def _judge(self, trainer: L.Trainer, model: L.LightningModule, step: int, what: str) -> None:
        """Stop because of this step, or leave it out."""
        self.in_a_row += 1
        legal = what == "gradient" and getattr(trainer.precision_plugin, "scaler", None) is not None
        if self.in_a_row >= PATIENCE:
            stop(trainer, f"The {what} of step {step}, the last of {PATIENCE} in a row, is", step)
        if legal:
            return
        if self.on_nonfinite == "stop":
            stop(trainer, f"The {what} of step {step} is", step)
        self.check_weights(trainer, model, [])
        for parameter in model.parameters():
            parameter.grad = None  # which an optimizer passes over
        self.left_out, self.skipped = step, self.skipped + 1
        if self.in_a_row == 1:
            log.warning("step %d is left out: its %s is not finite.", step, what)

    @property
    def state_key(self) -> str:
        return "Finite"

    def state_dict(self) -> dict[str, int]:
        return {"skipped": self.skipped} if self.skipped else {}

    def load_state_dict(self, state_dict: dict[str, int]) -> None:
        self.skipped = state_dict["skipped"]


def finite_of(trainer: L.Trainer) -> Finite | None:
    """What keeps a training finite, where something does."""
    callbacks: list[L.Callback] = trainer.callbacks  # type: ignore[attr-defined]  # set by Lightning, declared nowhere
    return next((callback for callback in callbacks if isinstance(callback, Finite)), None)


def norm_of_gradient(optimizer: torch.optim.Optimizer) -> Tensor:
    """The norm of all gradients of an optimizer; a scalar."""
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    gradients = [p.grad for p in parameters if p.grad is not None]
    if not gradients:
        return torch.zeros((), device=parameters[0].device)
    norm: Tensor = torch.stack(torch._foreach_norm(gradients)).norm()
    return norm


def folder(trainer: L.Trainer) -> Path:
    """Where a run's checkpoints are."""
    return Path(trainer.default_root_dir) / "checkpoints"


def stop(trainer: L.Trainer, what: str, step: int) -> NoReturn:
    """ConfigError: what is not finite, what to lower, where the last finite checkpoint is; the run keeps the sentence."""
    sentence = (
        f"{what} not finite (NaN or inf), so the training has stopped and nothing of it is saved; "
        f"{advice(trainer, step)}; {last_finite(trainer)}."
    )
    if trainer.is_global_zero:
        write_text(Path(trainer.default_root_dir) / STOPPED, f"{sentence}\n")
    raise ConfigError(sentence)


def advice(trainer: L.Trainer, step: int) -> str:
    """What to change in a new run, whose step `step` would otherwise go wrong again."""
    precision = str(trainer.precision)
    others = [f"trainer.precision={'bf16-mixed or 32-true' if precision == '16-mixed' else '32-true'}"]
    others = others if precision in ("16-mixed", "bf16-mixed") else []
    if step == 1:
        words = "no step had been made, so look at the values of the data and at the options of forward, model and net"
        return " or at ".join([words, *others])
    rates = [group.get("initial_lr", group["lr"]) for optimizer in trainer.optimizers for group in optimizer.param_groups]
    others = [*(["trainer.gradient_clip_val=1"] if not trainer.gradient_clip_val else []), *others]
    return " or with ".join([f"start a new run with optimizer.lr lower than {max(rates):g}", *others])


def last_finite(trainer: L.Trainer) -> str:
    """Where the newest checkpoint of the run is; all that are saved are finite."""
    found = {}
    for path in (folder(trainer) / "best.ckpt", folder(trainer) / "last.ckpt"):
        if path.is_file():
            found[path] = torch.load(path, map_location="cpu", weights_only=True, mmap=True)["global_step"]
    if not found:
        return "no checkpoint had been saved yet"
    newest = max(found, key=lambda path: (found[path], path.name))
    return f"the last finite checkpoint is {newest} (step {found[newest]})"
