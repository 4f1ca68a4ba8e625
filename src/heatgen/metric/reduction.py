"""What is kept of rows that come batch by batch: the rows themselves, or sums of them; see `EvalContext.reduce`."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Self

import torch
from torch import Tensor

from heatgen.runtime.devices import Devices

BLOCK = 1024  # rows that are added to moments at once, whatever a batch is
BAD_SAMPLE, BAD_ROW = 1, 2  # bits of a row's mark


class Reduction:
    """What a metric needs of the rows of this process's samples, which come in order.

    A subclass writes `absorb` and `together`, and names its `sums` or writes `state` and `load`. Each row has a mark:
    whether its sample, and it, are finite.
    """

    depends = ""  # what a state depends on besides the rows, such as how many there will be
    sums: tuple[str, ...] = ()  # attributes, tensors that a state holds besides

    def __init__(self) -> None:
        self.count = 0  # rows of this process so far
        self.saved = 0  # how many batches of them the next state need not hold, where a state follows another
        self.low, self.high = torch.empty(0), torch.empty(0)  # the least and the largest of each column, (F,)
        self.marks: list[Tensor] = []

    def __len__(self) -> int:
        return self.count

    @property
    def width(self) -> int:
        """How many numbers a row has."""
        return self.low.numel()

    @property
    def constant(self) -> bool:
        """Whether there are rows, and all are the same."""
        return self.count > 0 and bool((self.low == self.high).all())

    def add(self, rows: Tensor, places: Sequence[int], sound: Tensor | None = None) -> None:
        """Take the rows, (B, ...), of the samples at these places; sound: which samples are finite, (B,); None: all."""
        flat = rows.reshape(len(rows), -1) if len(rows) else rows.reshape(0, 0)
        mark = BAD_ROW * (~flat.isfinite().all(1)).to(torch.uint8)
        self.marks.append(mark if sound is None else mark + BAD_SAMPLE * (~sound.cpu()).to(torch.uint8))
        if len(rows):
            low, high = flat.amin(0), flat.amax(0)
            self.low, self.high = (
                (torch.minimum(self.low, low), torch.maximum(self.high, high)) if self.count else (low, high)
            )
        self.count += len(rows)
        self.absorb(rows, places)

    def fill(self, blocks: Iterable[Tensor]) -> Self:
        """Take blocks of rows, those of samples 0, 1, ..., all of them finite."""
        for block in blocks:
            self.add(block, range(self.count, self.count + len(block)))
        return self

    def absorb(self, rows: Tensor, places: Sequence[int]) -> None:
        """Take rows, which are counted already."""
        raise NotImplementedError

    def state(self) -> dict[str, Tensor]:
        """What a file must hold to go on from here, with the files of before where there are such."""
        marks = torch.cat([torch.empty(0, dtype=torch.uint8), *self.marks[self.saved :]])
        own = {"count": torch.tensor(self.count), "low": self.low, "high": self.high, "marks": marks}
        return own | {name: getattr(self, name) for name in self.sums}

    def load(self, state: Mapping[str, Tensor]) -> None:
        """Go on from a state, or behind states that were loaded before it."""
        self.count, self.low, self.high = int(state["count"]), state["low"], state["high"]
        self.marks = [*self.marks[: self.saved], state["marks"]]
        for name in self.sums:
            setattr(self, name, state[name])

    def together(self, devices: Devices) -> Self:
        """What all processes have, on the first of them."""
        self.count = int(devices.to_first(torch.tensor([self.count])).sum())
        ends = [devices.to_first(x[None] if self.width else x) for x in (self.low, self.high)]
        if len(ends[0]):
            self.low, self.high = ends[0].amin(0), ends[1].amax(0)
        return self


class Rows(Reduction):
    """The rows themselves, float32 or as they are."""

    def __init__(self) -> None:
        super().__init__()
        self.parts: list[Tensor] = []

    @classmethod
    def of(cls, rows: Tensor) -> "Rows":
        """Rows that are there, (N, ...)."""
        return cls().fill([rows])

    def absorb(self, rows: Tensor, places: Sequence[int]) -> None:
        self.parts.append(rows)

    @property
    def tensor(self) -> Tensor:
        """All of them, (N, ...)."""
        if len(self.parts) > 1:
            self.parts = [torch.cat(self.parts)]
        return self.parts[0] if self.parts else torch.empty(0)

    def state(self) -> dict[str, Tensor]:
        """Those since the last state."""
        rows = self.parts[self.saved :]
        output = super().state() | {"rows": torch.cat(rows) if rows else torch.empty(0)}
        self.saved = len(self.parts)
        return output

    def load(self, state: Mapping[str, Tensor]) -> None:
        super().load(state)
        self.parts.append(state["rows"])
        self.saved = len(self.parts)

    def together(self, devices: Devices) -> Self:
        super().together(devices)
        self.parts = [devices.to_first(self.tensor)]
        return self


class LogSums(Reduction):
    """ln sum exp of rows (N, F), by column, float64."""

    sums = ("rows",)

    def __init__(self) -> None:
        super().__init__()
        self.rows = torch.empty(0).double()  # (1, F), or none

    def absorb(self, rows: Tensor, places: Sequence[int]) -> None:
        self.rows = torch.logsumexp(torch.cat([self.rows, rows]) if len(self.rows) else rows, dim=0, keepdim=True)


class Moments(Reduction):
    """Mean and covariance of rows (N, F), in float64: their number, mean and scatter sum (x - mean)(x - mean)^T.

    Rows are added in blocks of the same size whatever a batch is, with the centred sums of the blocks merged, so that no
    digits are lost where the mean is large.

    Source:
        Chan, Golub and LeVeque 1983, eq. 2.1.
    """

    def __init__(self) -> None:
        super().__init__()
        self.total = 0  # rows in `mean` and `scatter`; the others wait
        self.mean, self.scatter = torch.empty(0).double(), torch.empty(0, 0).double()
        self.waiting: list[Tensor] = []

    @classmethod
    def of(cls, blocks: Iterable[Tensor]) -> "Moments":
        """Those of blocks of rows, (N, F) together."""
        return cls().fill(blocks)

    def absorb(self, rows: Tensor, places: Sequence[int]) -> None:
        self.waiting.append(rows.flatten(1))
        if sum(map(len, self.waiting)) >= BLOCK:
            found = torch.cat(self.waiting)
            whole = len(found) // BLOCK * BLOCK
            self.waiting = [found[whole:].clone()]
            for block in found[:whole].split(BLOCK):
                self._merge_rows(block)

    def _merge_rows(self, rows: Tensor) -> None:
        if len(rows):
            x = rows.double()
            mean = x.mean(0)
            self._merge(len(x), mean, (x - mean).mT @ (x - mean))

    def _merge(self, total: int, mean: Tensor, scatter: Tensor) -> None:
        if self.total:
            gap, n = mean - self.mean, self.total + total
            self.scatter = self.scatter.add_(scatter).add_(gap.outer(gap), alpha=self.total * total / n)
            self.mean = self.mean + gap * (total / n)
            self.total = n
        else:
            self.total, self.mean, self.scatter = total, mean, scatter

    def settle(self) -> None:
        """Add the rows that wait for a block to be full."""
        if self.waiting:
            self._merge_rows(torch.cat(self.waiting))
        self.waiting = []

    def take(self, mean: Tensor, covariance: Tensor, total: int = 2) -> None:
        """Be moments that are known, of so many rows; `count` is 0 where nobody knows their number."""
        self.total, self.mean, self.scatter = total, mean, covariance * (total - 1)

    @property
    def gaussian(self) -> tuple[Tensor, Tensor]:
        """Mean (F,) and unbiased covariance (F, F), float64; of at least two rows."""
        self.settle()
        return self.mean, self.scatter / (self.total - 1)

    def state(self) -> dict[str, Tensor]:
        waiting = torch.cat(self.waiting) if self.waiting else torch.empty(0)
        sums = {"total": torch.tensor(self.total), "mean": self.mean, "scatter": self.scatter, "waiting": waiting}
        return super().state() | sums

    def load(self, state: Mapping[str, Tensor]) -> None:
        super().load(state)
        self.total, self.mean, self.scatter = int(state["total"]), state["mean"], state["scatter"]
        self.waiting = [state["waiting"]] if len(state["waiting"]) else []

    def together(self, devices: Devices) -> Self:
        super().together(devices)
        self.settle()
        if devices.world > 1:
            mine = torch.tensor([self.total]), self.mean[None], self.scatter[None]
            totals, means, scatters = (devices.to_first(x if self.total else x[:0]) for x in mine)
            self.total = 0
            for total, mean, scatter in zip(totals.tolist(), means, scatters, strict=True):
                self._merge(total, mean, scatter)
        return self
