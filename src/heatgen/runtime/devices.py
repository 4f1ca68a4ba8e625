"""One process or several, for sampling and measuring: who does which samples, and the results together again."""

import sys
from contextlib import AbstractContextManager

from lightning.fabric import Fabric
from lightning.fabric.utilities.exceptions import MisconfigurationException
from tqdm import tqdm

from heatgen.check import ConfigError
from heatgen.runtime.peers import Peers


class Devices(Peers):
    """The processes that a DeviceRequest asks for, this one among them; sample i belongs to process i mod world.

    Args:
        accelerator: cpu, gpu or cuda, as Lightning names them.
        devices: how many on each machine, or a list of GPUs.
        num_nodes: machines.
        precision: of `autocast`, as Lightning names it.

    Raises:
        ConfigError: there are no such devices.
    """

    def __init__(
        self, accelerator: str = "cpu", devices: int | list[int] = 1, num_nodes: int = 1, precision: str = "32-true"
    ):
        many = num_nodes * (len(devices) if isinstance(devices, list) else devices) > 1
        try:
            self.fabric = Fabric(
                accelerator=accelerator,
                devices=devices,
                num_nodes=num_nodes,
                strategy="ddp" if many else "auto",
                precision=precision,  # type: ignore[arg-type]  # one of launch.PRECISIONS
            )
        except (ValueError, RuntimeError, TypeError, MisconfigurationException) as error:
            reason = " ".join(str(error).split()).rstrip(".")
            raise ConfigError(f"trainer.devices={devices} cannot be had ({reason}); give others.") from error
        self.fabric.launch()
        super().__init__(self.fabric.global_rank, self.fabric.world_size, self.fabric.device)
        self.precision = precision

    def autocast(self) -> AbstractContextManager[object]:
        """The precision that was asked for."""
        return self.fabric.autocast()

    def bar(self, total: int, what: str) -> tqdm:
        """A progress bar of `total` pieces of work, with the time that is left; shown by the first process alone."""
        seconds = 0.1 if sys.stderr.isatty() else 10.0  # between updates; few in a log file
        return tqdm(total=total, desc=what, disable=not self.first, leave=False, mininterval=seconds)
