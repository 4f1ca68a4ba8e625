"""What every metric is called with: what there is to measure, and how to work through samples on every device."""

import logging
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import Tensor

from heatgen import check
from heatgen.check import ConfigError
from heatgen.data.module import DataModule
from heatgen.forward.process import ForwardProcess
from heatgen.metric.reduction import BAD_ROW, BAD_SAMPLE, Reduction, Rows
from heatgen.metric.result import Result, Value
from heatgen.model.interface import Calls
from heatgen.model.module import Method
from heatgen.model.prior import start
from heatgen.noise import SampleNoise, batches
from heatgen.runtime import signals
from heatgen.runtime.devices import Devices
from heatgen.runtime.partial import Partial, Piece

log = logging.getLogger("heatgen")
Kept = TypeVar("Kept", bound=Reduction)
FIX = "use another checkpoint, or train again with a lower optimizer.lr"  # numbers that are not finite


@dataclass
class EvalContext:
    """What is measured, and how. A metric is an object that is called with it and returns a `Result`.

    Args:
        model: a trained model, on its device; None where data are measured alone.
        data: the data of the model, or those that are measured alone.
        data_name: what a config calls them.
        devices: the processes that share the work.
        n: how many samples, images or tasks; None: all there are.
        batch_size: samples at a time.
        seed: of all noise.
        process: the model's forward process, or the one that is looked at; None where data are measured alone.
        partial: where work that takes long is saved, to go on from there; None: nowhere.
    """

    model: Method | None
    data: DataModule
    data_name: str
    devices: Devices
    n: int | None
    batch_size: int
    seed: int
    process: ForwardProcess | None = None
    partial: Partial | None = None
    drawn: bool = False  # whether samples have been drawn by this process

    def trained(self, mode: str) -> Method:
        """The model. ConfigError where there is none."""
        if self.model is None:
            raise ConfigError(f"mode={mode} needs a run; give run=DIR.")
        return self.model

    def choose(self, mode: str, split: str, key: str, what: str = "images") -> list[int]:
        """The indices of the n images of a split that are measured, ascending: a random choice by `key` and the seed.

        ConfigError for fewer than 2.
        """
        total = len(self.data.images(split))
        n = total if self.n is None else min(check.integer("n", self.n, minimum=2), total)
        if n < 2:
            raise ConfigError(f"mode={mode} needs at least 2 {what}; metric.split={split} has {n}; use another split.")
        return SampleNoise([0], self.seed, key).permutation(total)[0, :n].sort().values.tolist()

    def dequantised(self, split: str, indices: Sequence[int], dtype: torch.dtype) -> Tensor:
        """Images of a split, (B, C, H, W) on the device; bytes x as (255 x + U) / 256, U uniform on [0, 1), below 1."""
        u0 = self.data.get(split, indices)
        if self.data.spec.bits is not None:
            uniform = SampleNoise(indices, self.seed, "dequantise").uniform_like(u0)
            u0 = ((255 * u0.double() + uniform) / 256).to(dtype).clamp(max=1 - 2**-24)  # below 1, rounding or not
        return u0.to(self.devices.device, dtype)

    def sample(
        self,
        n: int,
        finish: Callable[[Tensor], Tensor],
        into: Kept,
        key: str = "",
        what: str = "sampling",
        fix: str = "the samples are finite, so use another metric.extractor",
        tell: Callable[[Tensor, Sequence[int]], None] = lambda rows, places: None,
    ) -> Kept:
        """finish(u_0) of n samples of the model, reduced batch by batch; each sample's noise depends on its index alone.

        Only the sampling is in the precision that was asked for, not `finish`.

        Args:
            n: how many samples, of all processes together.
            finish: of u_0 (B, C, H, W) on the device, a row for each, on the CPU.
            into: what takes the rows of this process's samples; `together` joins those of all.
            key: what the rows depend on besides the settings of the evaluation, such as a file.
            what: is done, for the bar.
            fix: what to do where rows are not finite and samples are.
            tell: is called with the rows of a batch and their samples, before they are counted.

        Raises:
            ConfigError: on every process, where a sample or what becomes of it is not finite.
        """
        model = self.trained("sampling")

        def draw(indices: Sequence[int], advance: Callable[[], object]) -> tuple[Tensor, Tensor]:
            def on_step(k: int, u: Tensor) -> None:
                advance()

            begin = start(model, self.data, indices, self.seed, self.devices.device)
            with self.devices.autocast():
                u0 = begin.model.generate(begin.state, begin.rng, on_step)
            # those that are not finite are refused below
            self.drawn = True
            rows = finish(u0.nan_to_num(nan=0.0, posinf=0.0, neginf=0.0))
            tell(rows, indices)
            return rows, u0.flatten(1).isfinite().all(1)

        self.reduce(range(n), draw, into, what, model.num_steps, key=key)
        self.count_calls()
        if (bad := self.marked(into, BAD_SAMPLE)).any():
            check.finite("samples", torch.where(bad, torch.nan, 0.0), model.divergence())
        self.refuse_rows(into, what, fix)
        return into

    def count_calls(self) -> None:
        """Draw a sample, whose calls count, where all were drawn elsewhere: before, for another metric, or by others."""
        if not self.drawn:
            begin = start(self.trained("sampling"), self.data, [0], self.seed, self.devices.device)
            with self.devices.autocast():
                begin.model.generate(begin.state, begin.rng)
            begin.model.calls.seconds = math.nan

    def with_nfe(self, result: Result) -> Result:
        """A result with the calls of the network, or of exact answers, a sample, where any process has drawn one."""
        calls = Calls() if self.model is None else self.model.calls
        counts = self.devices.gather(torch.tensor([[calls.drawing, calls.samples]])).sum(0).tolist()
        if nfe := Calls(0, *counts).nfe:
            result.headline = (*result.headlines, "nfe")
            result.add(Value("nfe", nfe, label="NFE"))
        return result

    def marked(self, kept: Reduction, bit: int) -> Tensor:
        """Which rows of all processes have a mark, in order, on each of them, (N,)."""
        return (self.devices.gather(torch.cat([torch.empty(0, dtype=torch.uint8), *kept.marks])) & bit) > 0

    def refuse_rows(self, kept: Reduction, what: str, fix: str, numbers: Sequence[int] | None = None) -> None:
        """ConfigError, on every process, where rows are not finite; the arguments are those of `check.finite`."""
        check.finite(f"rows of {what}", torch.where(self.marked(kept, BAD_ROW), torch.nan, 0.0), fix, numbers)

    def each(
        self,
        indices: Sequence[int],
        work: Callable[[Sequence[int]], Tensor],
        what: str,
        known: Sequence[int] | None = None,
        fix: str = FIX,
        size: int | None = None,
    ) -> Tensor:
        """work(batch) -> one row a sample, over all samples and devices; the rows in order, on every process.

        Args:
            indices: the samples.
            work: measures a batch of them.
            what: is measured, for the bar.
            known: the columns that must be finite, as others may be undefined; None: all.
            fix: what to do where a row is not finite.
            size: of a batch; None: batch_size.

        Raises:
            ConfigError: on every process, where such a number of a row is NaN or inf.
        """

        def whole(batch: Sequence[int], advance: Callable[[], object]) -> Tensor:
            rows = work(batch)
            advance()
            return rows

        rows = self.advancing(indices, whole, what, 1, size)
        check.finite(f"rows of {what}", rows if known is None or not len(rows) else rows[:, known], fix, numbers=indices)
        return rows

    def advancing(
        self,
        indices: Sequence[int],
        work: Callable[[Sequence[int], Callable[[], object]], Tensor],
        what: str,
        pieces: int,
        size: int | None = None,
    ) -> Tensor:
        """The same for work(batch, advance) that calls `advance` after each of its `pieces`, which moves the bar.

        size: of a batch; None: batch_size.
        """
        kept = Rows()
        self.reduce(indices, lambda batch, advance: (work(batch, advance).cpu(), None), kept, what, pieces, size)
        return self.devices.gather(kept.tensor)

    def reduce(
        self,
        indices: Sequence[int],
        work: Callable[[Sequence[int], Callable[[], object]], tuple[Tensor, Tensor | None]],
        into: Reduction,
        what: str,
        pieces: int = 1,
        size: int | None = None,
        key: str | None = None,
    ) -> None:
        """Give the rows of this process's share of the samples to a reduction, batch by batch, with no word to the others.

        Where `partial` is given, the reduction is saved now and then, and goes on from what was saved.

        Args:
            indices: the samples of all processes.
            work: of a batch, and of what moves the bar: its rows, and which of its samples are finite, None for all.
            into: what takes the rows.
            what: is done, for the bar.
            pieces: how often work moves the bar.
            size: of a batch; None: batch_size.
            key: what the rows depend on besides the settings of the evaluation and the samples' own numbers; None: also on
                n, and which samples there are.
        """
        mine, size = self.devices.share(indices), size or self.batch_size
        words = f"{what} {size} {into.depends} " + (f"{self.n} {list(indices)}" if key is None else key)
        process = (self.devices.rank, self.devices.world)
        piece = None if self.partial is None else self.partial.piece(into, words, process, len(mine), size)
        if into.count and self.devices.first:
            done = min(into.count * self.devices.world, len(indices))
            log.info("%s: goes on behind %d of %d.", what, done, len(indices))
        parts = batches(mine[into.count :], size)
        with self.devices.bar(len(parts) * pieces, what) as bar, saved(piece):
            for part in parts:
                rows, sound = work(part, bar.update)
                into.add(rows, part, sound)
                if piece:
                    piece.save_now_and_then()


@contextmanager
def saved(piece: Piece | None) -> Iterator[None]:
    """Work that is saved where a signal or a fault ends it, and at its end where it took long."""
    try:
        yield
    except ConfigError:  # it would be refused again
        raise
    except BaseException:
        if piece:
            piece.save()
            if piece.at:
                signals.advise("the same command goes on behind what is saved")
        raise
    if piece:
        piece.save_now_and_then()


def marked(result: Result, mode: str) -> Result:
    """A result whose numbers that are not finite are stated in a note; JSON has null in their place.

    ConfigError where a number that stands for the whole result is not finite.
    """
    lost = [v for v in result.numbers if not math.isfinite(v.value)]
    unsure = [v for v in result.numbers if v.error is not None and math.isfinite(v.value) and not math.isfinite(v.error)]
    for value in lost:
        if value.name in result.headlines:
            raise ConfigError(f"mode={mode} gives no finite {value.label} ({value.value}), so nothing is written; {FIX}.")
    words = [f"{value.label} ({value.value})" for value in lost]
    words += [f"the standard error of {value.label} ({value.error})" for value in unsure]
    for curve in result.curves:
        if bad := sum(not math.isfinite(x) for x in curve.values):
            words.append(f"{curve.label} at {bad} of {len(curve.values)} places")
    if words:
        result.notes.append(f"not defined here, and null in the JSON file: {', '.join(words)}.")
    return result
