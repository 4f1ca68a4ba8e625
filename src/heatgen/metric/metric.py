"""What every metric is: an object called with what there is to measure, giving numbers with their errors and facts."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from heatgen.data.module import DataModule
from heatgen.forward.process import ForwardProcess
from heatgen.noise import SampleNoise, batches
from heatgen.runtime.devices import Devices


@dataclass
class Result:
    """values: name -> number; errors: name -> its standard error; facts: what a reader must know; notes: caveats.

    series: columns of equal length, the first one the abscissa; pictures: name -> image, or the images of a film;
    headline: the values that stand for the result beside those of other runs (None: the first one); references: name ->
    values of what is known exactly, which have a row of their own beside the runs.
    """

    values: dict[str, float]
    errors: dict[str, float] = field(default_factory=dict)
    facts: dict[str, Any] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    series: dict[str, list[float]] = field(default_factory=dict)
    pictures: dict[str, Image.Image | list[Image.Image]] = field(default_factory=dict)
    headline: tuple[str, ...] | None = None
    references: dict[str, dict[str, float]] = field(default_factory=dict)


@dataclass
class EvalContext:
    """What is measured: a model and its forward process (None: data alone), its data; how many samples, where, seed."""

    model: Any
    data: DataModule
    data_name: str
    devices: Devices
    n: int | None
    batch_size: int
    seed: int
    process: ForwardProcess | None = None

    def sample(self, n: int, finish: Callable[[Tensor], Tensor], what: str = "sampling") -> Tensor:
        """finish(u_0) of n samples of the model, in order, on every process; each sample's noise depends on its number."""

        def draw(samples: Sequence[int], advance: Callable[[], object]) -> Tensor:
            u0 = self.data.prior_images(samples, self.seed).to(self.devices.device)
            noise = SampleNoise(samples, self.seed, "sample")
            model = self.model.bound(noise)
            with self.devices.autocast():
                state = model.initial_state(u0, noise)
                return finish(model.generate(state, noise, lambda k, u: advance()))

        return self._each(range(n), draw, what, self.model.process.num_levels)

    def each(self, samples: Sequence[int], work: Callable[[Sequence[int]], Tensor], what: str) -> Tensor:
        """work(batch) -> one row a sample, over all samples and devices; the rows in order, on every process."""

        def once(run: Sequence[int], advance: Callable[[], object]) -> Tensor:
            rows = work(run)
            advance()
            return rows

        return self._each(samples, once, what, 1)

    def _each(self, samples: Sequence[int], work: Callable[..., Tensor], what: str, pieces: int) -> Tensor:
        runs = batches(self.devices.share(samples), self.batch_size)
        with self.devices.bar(len(runs) * pieces, what) as bar:
            rows = [work(run, bar.update).cpu() for run in runs]
        return self.devices.gather(torch.cat(rows) if rows else torch.empty(0))
