"""The learning rate of a training: a linear warm-up, also where a training goes on with another rate."""

from collections.abc import Sequence
from typing import Any

from torch.optim.lr_scheduler import LambdaLR

GroupOptions = dict[str, Any]  # the options of one group of an optimizer's weights, as the config has them


def warmup_factor(step: int, warmup_steps: int) -> float:
    """The learning rate's factor at optimizer step `step` = 0, 1, ...: min(step / warmup_steps, 1), 1 without warm-up."""
    return min(step / warmup_steps, 1.0) if warmup_steps else 1.0


def renew(schedule: object, options: Sequence[GroupOptions], warmup_steps: int) -> None:
    """Give a schedule and its optimizer the options of the config again, as a checkpoint brings those of its own.

    Args:
        schedule: of `Method.configure_optimizers`; another one is left as it is.
        options: of each group of its optimizer.
        warmup_steps: of the warm-up.
    """
    if not isinstance(schedule, LambdaLR):
        return
    schedule.base_lrs = [own["lr"] for own in options]
    rates = [rate * warmup_factor(schedule.last_epoch, warmup_steps) for rate in schedule.base_lrs]
    for group, own, rate in zip(schedule.optimizer.param_groups, options, rates, strict=True):
        group |= own | {"initial_lr": own["lr"], "lr": rate}
    schedule._last_lr = list(rates)
