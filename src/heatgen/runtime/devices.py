"""One process or several, for sampling and measuring: who does which samples, and the results together again."""

import sys
from collections.abc import Sequence
from contextlib import AbstractContextManager

import torch
import torch.distributed as dist
from lightning.fabric import Fabric
from lightning.fabric.utilities.exceptions import MisconfigurationException
from torch import Tensor
from tqdm import tqdm

from heatgen.check import ConfigError

DTYPES = (torch.float32, torch.float64, torch.bool, torch.uint8, torch.int64)  # of what processes tell each other
MOST_DIMENSIONS = 8
BLOCK = 2**26  # bytes that travel at a time


class Devices:
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
        self,
        accelerator: str = "cpu",
        devices: int | list[int] = 1,
        num_nodes: int = 1,
        precision: str = "32-true",
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
        self.rank, self.world = self.fabric.global_rank, self.fabric.world_size
        self.device, self.precision = self.fabric.device, precision

    @property
    def first(self) -> bool:
        """Whether this process is the one that writes and prints."""
        return self.rank == 0

    def autocast(self) -> AbstractContextManager[object]:
        """The precision that was asked for."""
        return self.fabric.autocast()

    def share(self, samples: Sequence[int]) -> Sequence[int]:
        """This process's samples: positions rank, rank + world, ..."""
        return samples[self.rank :: self.world]

    def gather(self, mine: Tensor) -> Tensor:
        """The rows of all processes' shares, in the order of the samples, on the CPU of every process: for few columns."""
        mine = mine.cpu()
        if self.world == 1:
            return mine
        whole, like = self._room(mine)
        for rank in range(self.world):
            place = whole[rank :: self.world]
            part = mine.to(like.dtype) if rank == self.rank else torch.empty(place.shape, dtype=like.dtype)
            sent = as_bytes(part).to(self.device)
            if len(sent):
                dist.broadcast(sent, rank)
            if rank != self.rank:
                as_bytes(part).copy_(sent)
            place.copy_(part.reshape(place.shape))
        return whole

    def to_first(self, mine: Tensor) -> Tensor:
        """The rows of all processes' shares, in the order of the samples, on the CPU of the first; no rows on others."""
        mine = mine.cpu()
        if self.world == 1:
            return mine
        whole, like = self._room(mine, here=self.first)
        for rank in range(self.world):
            if rank == self.rank:
                if self.first:
                    whole[:: self.world] = mine.reshape(-1, *like.shape[1:])
                else:
                    self._send(mine)
            elif self.first:
                self._receive(whole[rank :: self.world], rank)
        return whole

    def _send(self, rows: Tensor) -> None:
        """Rows to the first process, a block at a time."""
        for block in rows.split(rows_of_block(rows)) if rows.numel() else ():
            dist.send(as_bytes(block).to(self.device), 0)

    def _receive(self, place: Tensor, rank: int) -> None:
        """Rows of another process, as it sends them, into their place."""
        for block in place.split(rows_of_block(place)) if place.numel() else ():
            part = torch.empty(block.shape, dtype=block.dtype)
            sent = as_bytes(part).to(self.device)
            dist.recv(sent, rank)
            as_bytes(part).copy_(sent)
            block.copy_(part)

    def _room(self, mine: Tensor, here: bool = True) -> tuple[Tensor, Tensor]:
        """Room for the rows of all processes, of no row where it is not `here`; and no rows of their kind.

        A process without samples does not know what a row is.
        """
        words = [DTYPES.index(mine.dtype), mine.dim(), *mine.shape]
        told = torch.tensor([*words, *[0] * (MOST_DIMENSIONS + 2 - len(words))], device=self.device)
        answers = [torch.empty_like(told) for _ in range(self.world)]
        dist.all_gather(answers, told)
        heard = [answer.tolist() for answer in answers]
        code, dimensions, *shape = max(heard, key=lambda words: words[2])
        like = torch.empty(0, *shape[1:dimensions], dtype=DTYPES[code])
        count = sum(words[2] for words in heard) if here else 0
        return torch.empty(count, *like.shape[1:], dtype=like.dtype), like

    def bar(self, total: int, what: str) -> tqdm:
        """A progress bar of `total` pieces of work, with the time that is left; shown by the first process alone."""
        seconds = 0.1 if sys.stderr.isatty() else 10.0  # between updates; few in a log file
        return tqdm(total=total, desc=what, disable=not self.first, leave=False, mininterval=seconds)


def as_bytes(rows: Tensor) -> Tensor:
    """The memory of contiguous rows, as bytes."""
    return rows.contiguous().view(-1).view(torch.uint8)


def rows_of_block(rows: Tensor) -> int:
    """How many rows travel at a time."""
    return max(1, BLOCK // max(1, rows[0].numel() * rows.element_size()))
