"""Several processes on one machine: start one a device, wait for them, end them together.

Each process does the same verb with the same arguments, and finds its rank in the environment, where Lightning looks for
it. The process that the user started only waits. So each job of a sweep gets processes of its own, nothing of one job
leaks into the next, and nothing private of Lightning is touched.
"""

import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from heatgen import check
from heatgen.check import ConfigError
from heatgen.runtime import claim, signals
from heatgen.runtime.children import start, waiting_for
from heatgen.runtime.ranks import OWN_CHILD, is_child, is_own_child, world

if TYPE_CHECKING:
    from heatgen.runtime.devices import Devices

TAIL = 15  # lines of a failed process's output that are shown
ACCELERATORS = ("auto", "cpu", "gpu", "cuda")  # times and bases are float64, which others lack
LAUNCHERS = (  # how the variables begin by which a process is known as a task of torchrun, SLURM, MPI or LSF
    *("TORCHELASTIC_", "OMPI_", "PMI_", "PMIX_", "JSM_"),
    *("SLURM_NTASKS", "SLURM_PROCID", "SLURM_LOCALID", "SLURM_STEP"),
)
FEW = 4  # processes that any CPU may have; above, no more than it has cores
PRECISIONS = ("auto", "32-true", "bf16-mixed", "16-mixed", "64-true")  # weights of 16 bits would not learn


@dataclass(frozen=True)
class DeviceRequest:
    """The devices that conf/trainer asks for, on each of `num_nodes` machines; a process for each of them.

    Raises:
        ConfigError: a value is none of those that Lightning and heatgen have, there is no GPU, or too much for a CPU.
    """

    accelerator: str = "auto"
    devices: int | str | list[int] = 1  # how many, or their numbers, also as "0,1"; auto or -1: all
    num_nodes: int = 1
    precision: str = "32-true"

    def __post_init__(self) -> None:
        check.choice("trainer.accelerator", self.accelerator, ACCELERATORS)
        check.choice("trainer.precision", self.precision, PRECISIONS)
        check.integer("trainer.num_nodes", self.num_nodes, minimum=1)
        if self.num_nodes > 1 and not is_child():
            raise ConfigError(f"trainer.num_nodes={self.num_nodes} needs srun or torchrun, which start it on each machine.")
        if self.accelerator in ("gpu", "cuda"):
            import torch

            if not torch.cuda.is_available():
                raise ConfigError(f"trainer.accelerator={self.accelerator} finds no CUDA GPU here; use trainer=cpu.")
        if self.count > 1 or listed(self.devices) != 1:
            self._check_devices()
        wanted = self.count * self.num_nodes
        if is_child() and not is_own_child() and (started := world()) != wanted:
            fix = "one process a device" if started % self.num_nodes else f"trainer.devices={started // self.num_nodes}"
            asked = f"trainer.devices={self.devices} and trainer.num_nodes={self.num_nodes} are {wanted}"
            raise ConfigError(f"{started} processes were started, and {asked}; give {fix}, or start as many.")

    def _check_devices(self) -> None:
        """ConfigError for GPUs that are not there, and for more processes than a CPU can do with."""
        accelerator, devices = placed(self.accelerator, self.devices)
        if accelerator == "cpu":
            if self.count > (most := max(FEW, os.cpu_count() or 1)):
                raise ConfigError(f"trainer.devices={self.devices} is {self.count} processes on a CPU; give at most {most}.")
            return
        import torch

        there = torch.cuda.device_count()
        if (max(devices) + 1 if isinstance(devices, list) else self.count) > there:
            has = "one GPU, number 0" if there == 1 else f"{there} GPUs, numbers 0 to {there - 1}"
            raise ConfigError(f"trainer.devices={self.devices} is more than this machine has: {has}.")

    @property
    def count(self) -> int:
        """How many processes that means on this machine."""
        return count_devices(self.accelerator, self.devices)

    def open(self, own: str = "32-true") -> "Devices":
        """The processes, to sample and measure on; this one is one of them. own: the precision that auto is."""
        from heatgen.runtime import engine
        from heatgen.runtime.devices import Devices

        accelerator, devices = placed(self.accelerator, self.devices)
        kind = engine.kind_of(accelerator)
        precision = engine.inherited_precision(own, kind) if self.precision == "auto" else self.precision
        engine.check_precision(precision, kind)
        return Devices(accelerator, devices, self.num_nodes, precision)


def listed(devices: object) -> object:
    """`trainer.devices` with numbers in words, as "0,1" or "2", read as such."""
    words = [word.strip() for word in devices.split(",")] if isinstance(devices, str) else []
    if len(words) > 1 and not words[-1]:
        words.pop()  # "0," is the list of one
    if not words or not all(word.isdecimal() for word in words):
        return devices
    return [int(word) for word in words] if "," in str(devices) else int(words[0])


def count_devices(accelerator: str, devices: object) -> int:
    """How many processes `trainer.devices` means on this machine. ConfigError for what is neither number, list nor auto."""
    devices = listed(devices)
    if isinstance(devices, (list, tuple)):
        numbers = {number for number in devices if isinstance(number, int) and not isinstance(number, bool) and number >= 0}
        if not devices or len(numbers) != len(devices):
            raise ConfigError(f"trainer.devices={list(devices)} must be different numbers of devices, such as [0,1].")
        return len(devices)
    if devices in ("auto", -1, "-1"):
        import torch

        return max(1, torch.cuda.device_count()) if accelerator in ("auto", "gpu", "cuda") else 1
    if isinstance(devices, bool) or not isinstance(devices, int) or devices < 1:
        raise ConfigError(f"trainer.devices must be a number of at least 1, a list or auto, not {devices!r}.")
    return devices


def placed(accelerator: str, devices: object) -> tuple[str, int | list[int]]:
    """What Lightning takes, for auto a GPU where there is one and else the CPU: a number of devices, or a list of GPUs."""
    if accelerator == "auto":
        import torch

        accelerator = "cuda" if torch.cuda.is_available() else "cpu"
    count, numbers = count_devices(accelerator, devices), listed(devices)
    return accelerator, list(numbers) if isinstance(numbers, (list, tuple)) and accelerator != "cpu" else count


@contextmanager
def free_port() -> Iterator[int]:
    """A port of this machine that nobody else is given meanwhile; a process that is told of it can listen there."""
    with socket.socket() as keeper:
        keeper.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as PyTorch's store does; two may bind, one listens
        keeper.bind(("127.0.0.1", 0))
        yield int(keeper.getsockname()[1])


def command_of(verb: str, arguments: Sequence[str]) -> list[str]:
    """The words that do a verb in a process of its own."""
    return [sys.executable, "-m", "heatgen.app", verb, *arguments]


def environment() -> dict[str, str]:
    """The environment of such a process, which finds the packages that this one finds, and is no task of a launcher's."""
    places = [sys.path[0], os.environ.get("PYTHONPATH", "")]
    own = {key: value for key, value in os.environ.items() if not key.startswith(LAUNCHERS)}
    return {**own, "PYTHONPATH": os.pathsep.join(place for place in places if place)}


def call(verb: str, arguments: Sequence[str]) -> int:
    """Do a verb in a process of its own, to which signals are handed on; its exit code."""
    children: list[subprocess.Popen[bytes]] = []
    with waiting_for(children) as hand_on:
        children.append(start(command_of(verb, arguments), environment()))
        while children[0].poll() is None:
            hand_on()
            time.sleep(0.05)
    return children[0].returncode


def launch(verb: str, arguments: Sequence[str], count: int, folder: Path) -> int:
    """Do a verb in several processes together.

    The first process talks to the terminal, the others to <folder>/process_<rank>.log. Signals are handed on to all of
    them, and they end with this process.

    Args:
        verb: train, sample or evaluate.
        arguments: of its command line.
        count: how many processes.
        folder: where their logs go.

    Returns:
        The exit code of the first process that fails, else 0.

    Raises:
        Stopped: a signal came; they have ended.
    """
    common = environment() | {"MASTER_ADDR": "127.0.0.1", "WORLD_SIZE": str(count), "NODE_RANK": "0", OWN_CHILD: "1"}
    common.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // count)))
    folder.mkdir(parents=True, exist_ok=True)
    logs = [folder / f"process_{i}.log" for i in range(count)]
    children: list[subprocess.Popen[bytes]] = []
    with free_port() as port, waiting_for(children) as hand_on:
        for i in range(count):
            variables = common | {"MASTER_PORT": str(port), "LOCAL_RANK": str(i), "RANK": str(i)}
            output = None if i == 0 else logs[i].open("ab")
            options = {"stdout": output, "stderr": output, "pass_fds": claim.descriptors()}  # locked as long as one lives
            children.append(start(command_of(verb, arguments), variables, **options))
            if output:
                output.close()
        return wait(children, logs, hand_on)


def wait(children: Sequence[subprocess.Popen[bytes]], logs: Sequence[Path], hand_on: Callable[[], None]) -> int:
    """Wait until all have ended, or one has failed and the others had a few seconds to follow; signals are handed on."""
    while all(child.poll() in (None, 0) for child in children):
        if all(child.poll() == 0 for child in children):
            return 0
        hand_on()
        time.sleep(0.1)
    deadline = time.monotonic() + 10
    while any(child.poll() is None for child in children) and time.monotonic() < deadline:
        hand_on()
        time.sleep(0.1)
    failed = [i for i, child in enumerate(children) if child.poll() not in (None, 0)]
    if 0 not in failed and not signals.caught():  # the first process has said nothing
        lines = logs[failed[0]].read_text(errors="replace").splitlines()[-TAIL:]
        print("\n".join([f"Process {failed[0]} failed:", *lines]), file=sys.stderr)
    code = children[failed[0]].returncode
    return code if code > 0 else 128 - code
