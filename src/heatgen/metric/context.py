"""What every metric is called with: what there is to measure, and how to work through samples on every device."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from heatgen import check
from heatgen.check import ConfigError
from heatgen.data.module import DataModule
from heatgen.forward.process import ForwardProcess
from heatgen.metric.result import Result
from heatgen.model.module import Method
from heatgen.model.prior import start
from heatgen.noise import SampleNoise, batches
from heatgen.runtime.devices import Devices


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
    """

    model: Method | None
    data: DataModule
    data_name: str
    devices: Devices
    n: int | None
    batch_size: int
    seed: int
    process: ForwardProcess | None = None

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
        what: str = "sampling",
        fix: str = "the samples are finite, so use another metric.extractor",
    ) -> Tensor:
        """finish(u_0) of n samples of the model, in order, on every process; each sample's noise depends on its index.

        Only the sampling is in the precision that was asked for, not `finish`. ConfigError, on every process, where a sample
        or what becomes of it is not finite; fix: what to do where only the latter is not.
        """
        model, sound = self.trained("sampling"), []

        def draw(indices: Sequence[int], advance: Callable[[], object]) -> Tensor:
            def on_step(k: int, u: Tensor) -> None:
                advance()

            begin = start(model, self.data, indices, self.seed, self.devices.device)
            with self.devices.autocast():
                u0 = begin.model.generate(begin.state, begin.rng, on_step)
            sound.append(u0.flatten(1).isfinite().all(1, keepdim=True).cpu())
            return finish(u0.nan_to_num(nan=0.0, posinf=0.0, neginf=0.0))  # those that are not are refused below

        rows = self.advancing(range(n), draw, what, model.process.num_levels)
        passed = self.devices.gather(torch.cat(sound) if sound else torch.empty(0, 1, dtype=torch.bool))
        if not passed.all():
            check.finite("samples", torch.where(passed, 0.0, torch.nan), model.divergence())
        return check.finite(f"rows of {what}", rows, fix)

    def each(
        self,
        indices: Sequence[int],
        work: Callable[[Sequence[int]], Tensor],
        what: str,
        known: Sequence[int] | None = None,
        fix: str = "use another checkpoint, or train again with a lower optimizer.lr",
    ) -> Tensor:
        """work(batch) -> one row a sample, over all samples and devices; the rows in order, on every process.

        Args:
            indices: the samples.
            work: measures a batch of them.
            what: is measured, for the bar.
            known: the columns that must be finite, as others may be undefined; None: all.
            fix: what to do where a row is not finite.

        Raises:
            ConfigError: on every process, where such a number of a row is NaN or inf.
        """

        def once(batch: Sequence[int], advance: Callable[[], object]) -> Tensor:
            rows = work(batch)
            advance()
            return rows

        rows = self.advancing(indices, once, what, 1)
        check.finite(f"rows of {what}", rows if known is None or not len(rows) else rows[:, known], fix, numbers=indices)
        return rows

    def advancing(
        self, indices: Sequence[int], work: Callable[[Sequence[int], Callable[[], object]], Tensor], what: str, pieces: int
    ) -> Tensor:
        """The same for work(batch, advance) that calls `advance` after each of its `pieces`, which moves the bar."""
        parts = batches(self.devices.share(indices), self.batch_size)
        with self.devices.bar(len(parts) * pieces, what) as bar:
            rows = [work(part, bar.update).cpu() for part in parts]
        return self.devices.gather(torch.cat(rows) if rows else torch.empty(0))


def marked(result: Result, mode: str) -> Result:
    """A result whose numbers that are not finite are stated in a note; JSON has null in their place.

    ConfigError where a number that stands for the whole result is not finite.
    """
    lost = [v for v in result.numbers if not math.isfinite(v.value)]
    unsure = [v for v in result.numbers if v.error is not None and math.isfinite(v.value) and not math.isfinite(v.error)]
    for value in lost:
        if value.name in result.headlines:
            raise ConfigError(
                f"mode={mode} gives no finite {value.label} ({value.value}), so nothing is written; use another checkpoint, "
                "or train again with a lower optimizer.lr."
            )
    words = [f"{value.label} ({value.value})" for value in lost]
    words += [f"the standard error of {value.label} ({value.error})" for value in unsure]
    for curve in result.curves:
        if bad := sum(not math.isfinite(x) for x in curve.values):
            words.append(f"{curve.label} at {bad} of {len(curve.values)} places")
    if words:
        result.notes.append(f"not defined here, and null in the JSON file: {', '.join(words)}.")
    return result
