"""How many samples at a time: what batch_size=auto chooses, and what is said where a batch does not fit."""

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

import torch
from torch import Tensor

from heatgen.check import ConfigError
from heatgen.data.module import DataModule
from heatgen.model.module import Method
from heatgen.model.prior import start
from heatgen.runtime import engine, explain
from heatgen.runtime.devices import Devices
from heatgen.runtime.partial import Partial

log = logging.getLogger("heatgen")
FIXED = 128  # what auto is on a CPU, and without a model
SHARE = 0.5  # of the free memory of a GPU: what is made of samples needs some too
PROBES = (4, 16)  # samples whose step is measured
MOST = 4096


class Enough(Exception):
    """A step has been made."""


def settle(
    wanted: int | str,
    model: Method | None,
    data: DataModule,
    devices: Devices,
    n: int | None,
    seed: int,
    partial: Partial | None,
) -> int:
    """The batch size that was asked for; in place of auto the largest that fits, the same in all processes.

    Args:
        wanted: a number, or auto.
        model: on its device, neither compiled nor captured yet; None: data are measured alone.
        data: its data.
        devices: the processes.
        n: samples of all of them; None: not known.
        seed: of the samples.
        partial: work that may have been begun with a batch size, which it keeps.
    """
    if not isinstance(wanted, str):
        return wanted
    if model is None or devices.device.type != "cuda":
        return FIXED
    known = partial.batch_size if partial is not None and devices.first else 0
    size = int(devices.gather(torch.tensor([known])).max())
    if not size:
        share = MOST if n is None else -(-n // devices.world)
        mine = fitting(lambda batch: used(model, data, devices, seed, batch), lambda: free(devices.device), share)
        size = int(devices.gather(torch.tensor([mine])).min())
    if devices.first:
        log.info("batch_size=auto chose %d", size)
        if partial is not None:
            partial.batch_size = size
    return size


def fitting(bytes_of: Callable[[int], int], room: Callable[[], int], share: int) -> int:
    """The largest batch that is expected to fit: a power of two, or all samples, or MOST.

    The memory of a step is taken to be a line through two small batches.

    Args:
        bytes_of: what a step of so many samples takes. OutOfMemoryError where they do not fit.
        room: bytes that are free, of which SHARE is for the batch; asked when the steps are made.
        share: samples of this process.
    """
    first, second = PROBES
    try:
        bytes_of(first)  # in which libraries take memory for themselves, once
        low = bytes_of(first)
    except torch.OutOfMemoryError:
        return 1
    try:
        high = bytes_of(second)
    except torch.OutOfMemoryError:
        return min(first, share)
    each = max(1.0, (high - low) / (second - first))
    rest = max(0.0, low - first * each)
    size = max(1, int((SHARE * room() - rest) / each))
    return min(share, MOST, 1 << (size.bit_length() - 1)) if size < share else min(share, MOST)


def used(model: Method, data: DataModule, devices: Devices, seed: int, batch: int) -> int:
    """Bytes of the device that the first reverse step of so many samples takes."""

    def on_step(k: int, u: Tensor) -> None:
        raise Enough

    torch.cuda.synchronize(devices.device)
    torch.cuda.reset_peak_memory_stats(devices.device)
    before = torch.cuda.memory_allocated(devices.device)
    begin = start(model, data, range(batch), seed, devices.device)
    with suppress(Enough), devices.autocast():
        begin.model.generate(begin.state, begin.rng, on_step)
    return torch.cuda.max_memory_allocated(devices.device) - before


def free(device: torch.device) -> int:
    """Bytes of a GPU that nobody uses."""
    torch.cuda.empty_cache()
    return torch.cuda.mem_get_info(device)[0]


@contextmanager
def explained(size: int, devices: Devices) -> Iterator[None]:
    """Within it, memory that is not there is one sentence that names batch_size and what to use.

    Raises:
        ConfigError: see above.
    """
    try:
        yield
    except Exception as error:
        if refused := too_large(error, size, devices):
            raise refused from error
        raise


def too_large(error: BaseException, size: int, devices: Devices) -> ConfigError | None:
    """The sentence for samples whose batch the memory does not hold; None for another error, or one that says it itself."""
    causes = list(explain.causes(error))
    cause = next((cause for cause in causes if explain.is_of_memory(cause)), None)
    if cause is None or any(isinstance(other, ConfigError) for other in causes):
        return None
    on_gpu = devices.device.type != "cpu"
    ways = [f"batch_size={size // 2}"] if size > 1 else []
    if on_gpu and devices.precision.startswith("32"):
        ways.append(f"trainer.precision={engine.narrow(devices.device)}")
    if not ways or not on_gpu:
        ways.append("trainer.accelerator=cpu" if on_gpu else "a smaller n")
    place = str(devices.device) if on_gpu else "this machine"
    return ConfigError(
        f"batch_size={size} does not fit into the memory of {place}, which has no room{explain.more_of(cause)}; "
        f"use {' or '.join(ways)}."
    )
