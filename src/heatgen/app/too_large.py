"""A training step that the memory cannot hold: what to use in place of what this run has."""

import lightning as L
from omegaconf import DictConfig

from heatgen.check import ConfigError
from heatgen.runtime import engine, explain


def too_large(error: BaseException, cfg: DictConfig, trainer: L.Trainer) -> ConfigError | None:
    """The sentence for a training that ends as memory does: what of its config can change, and to what; None for others."""
    cause = next((cause for cause in explain.causes(error) if explain.is_of_memory(cause)), None)
    if cause is None:
        return None
    device, size, parts = trainer.strategy.root_device, int(cfg.data.batch_size), int(trainer.accumulate_grad_batches)
    ways = []
    if size % 2 == 0 and size // 2 % trainer.world_size == 0:
        steps = f"trainer.accumulate_grad_batches={2 * parts}"
        ways.append(f"data.batch_size={size // 2} with {steps} (the same steps, in more parts)")
    elif size > trainer.world_size:
        ways.append("a lower data.batch_size")
    if cfg.net.get("checkpointing") is False and ".ssm." not in cfg.model._target_:
        ways.append("net.checkpointing=true")
    if device.type == "cuda" and str(trainer.precision).startswith("32"):
        ways.append(f"trainer.precision={engine.narrow(device)}")
    *others, last = [*ways, "a smaller network or data.shape"]
    use = f"{', '.join(others)} or {last}" if others else last
    place = "this machine" if device.type == "cpu" else str(device)
    return ConfigError(
        f"A step with data.batch_size={size} does not fit into the memory of {place}, which has no room"
        f"{explain.more_of(cause)}; use {use}."
    )
