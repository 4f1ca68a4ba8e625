"""Everything on the pretend GPU, and what the host waits for: python -m tests.pretend [WORD...].

A line for each model, map, sampler and metric whose name holds one of the words: how often a training step, a step of the
way back, or a whole measurement waits, and where.
"""

import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from heatgen.data.module import DataModule
from heatgen.model.module import Method

from . import cases, metrics
from .cases import Waits
from .gpu import Gpu


def line(name: str, what: str, waits: Waits) -> None:
    """One line of the table."""
    places = "; ".join(f"{n} x {kind} {place.split()[0]}" for (kind, _, place), n in waits.most_common())
    print(f"{name:40s} {what:30s} {waits.total():5d}  {places}", flush=True)


def trained(name: str, model: Method, data: DataModule) -> Iterator[tuple[str, str, Waits]]:
    """The lines of a model."""
    with Gpu() as gpu:
        if model.trainable:
            yield name, "training step", cases.train(gpu, model, data)
        for sampler in cases.samplers(model):
            try:
                step = f"sampling step, {sampler or 'one pass'}"
                yield name, step, cases.sample(gpu, cases.with_sampler(model, sampler), data)
            except ValueError as refused:  # ConfigError: the map has no such steps
                print(f"{name:40s} sampling step, {sampler}: {str(refused)[:120]}", flush=True)
        for mismatch in gpu.mismatches:
            print(f"{name:40s} MISMATCH {mismatch}", flush=True)


def rows(words: list[str]) -> Iterator[tuple[str, str, Waits]]:
    """All lines of the table."""
    wanted = lambda name: not words or any(word in name for word in words)  # noqa: E731
    for model in filter(wanted, cases.MODELS):
        yield from trained(model, *cases.make(cases.config(*cases.arguments(model))))
    for model in ("ihd", "diffusion"):
        for chosen in cases.MAPS:
            if wanted(name := f"{model} over {chosen}"):
                try:
                    yield from trained(name, *cases.over(model, chosen))
                except ValueError as refused:
                    print(f"{name:40s} {str(refused)[:120]}", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        for mode in filter(wanted, metrics.nodes()):
            with Gpu() as gpu:
                yield mode, "mode", metrics.measure(gpu, mode, Path(folder))


def main() -> None:
    """The command."""
    began = time.process_time()
    for row in rows(sys.argv[1:]):
        line(*row)
    print(f"{time.process_time() - began:.0f} s of CPU")


if __name__ == "__main__":
    main()
