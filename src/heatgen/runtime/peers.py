"""The processes that share one piece of work: who does which samples, and the results together again."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
import torch.distributed as dist
from torch import Tensor

from heatgen.runtime import ranks

DTYPES = (torch.float32, torch.float64, torch.bool, torch.uint8, torch.int64)  # of what processes tell each other
MOST_DIMENSIONS = 8
BLOCK = 2**26  # bytes that travel at a time


class Peers:
    """This process and those beside it; sample i belongs to process i mod world.

    Args:
        rank: the number of this process.
        world: how many there are.
        device: of this process, through which they speak.
    """

    def __init__(self, rank: int = 0, world: int = 1, device: torch.device | str = "cpu"):
        self.rank, self.world, self.device = rank, world, torch.device(device)

    @property
    def first(self) -> bool:
        """Whether this process is the one that writes and prints."""
        return self.rank == 0

    @contextmanager
    def together(self) -> Iterator[None]:
        """Work on a share, without a word to the others: an error of one is an error of all, and nobody waits for it."""
        if self.world == 1:
            yield
        else:
            with ranks.together():
                yield

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
        if not self.first:
            for block in blocks_of(mine):
                dist.send(as_bytes(block).to(self.device), 0)
            return whole
        whole[:: self.world] = mine.reshape(-1, *like.shape[1:])
        for rank in range(1, self.world):
            for block in blocks_of(whole[rank :: self.world]):
                part = torch.empty(block.shape, dtype=block.dtype)
                sent = as_bytes(part).to(self.device)
                dist.recv(sent, rank)
                as_bytes(part).copy_(sent)
                block.copy_(part)
        return whole

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

    def sum(self, mine: Tensor) -> Tensor:
        """The sum over all processes, the same bits on each of them, where `mine` is, which it may replace."""
        if self.world == 1:
            return mine
        total = mine.to(self.device)  # the one on which they speak
        dist.all_reduce(total)
        return total.to(mine.device)


ALONE = Peers()  # the only process


def as_bytes(rows: Tensor) -> Tensor:
    """The memory of contiguous rows, as bytes."""
    return rows.contiguous().view(-1).view(torch.uint8)


def blocks_of(rows: Tensor) -> Sequence[Tensor]:
    """Rows in the blocks that travel at a time, of at most BLOCK bytes or one row."""
    blocks: Sequence[Tensor] = rows.split(max(1, BLOCK // (rows[0].numel() * rows.element_size()))) if rows.numel() else ()
    return blocks
