"""Two processes that train together, beside two that train alone at the same time; and growth with their number."""

import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import lightning as L

from benchmarks.cases.trainer import SMALL
from benchmarks.child import ROOT, environment, fake_mnist
from benchmarks.harness import Bench, Entry, Growth, Note, row_of

SECONDS = 110
STEPS, FIRST = 40, 10
BATCH = 32  # images of each process
ROUNDS = 2


class Stamps(L.Callback):
    """Writes the seconds of each step of the first process, and those of its CPU time, to a file at the end."""

    def __init__(self, path: str):
        self.path, self.stamps = path, list[tuple[float, float]]()

    def on_train_batch_end(self, trainer: L.Trainer, *_: object) -> None:
        self.stamps.append((time.perf_counter(), time.process_time()))

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if trainer.global_rank == 0:
            pairs = zip(self.stamps[FIRST:], self.stamps[FIRST + 1 :], strict=False)
            spans = [f"{b[0] - a[0]} {b[1] - a[1]}" for a, b in pairs]
            Path(self.path).write_text("\n".join(spans))


def words(folder: Path, name: str, batch: int, *more: str) -> list[str]:
    """A training whose steps are timed."""
    steps = [f"trainer.max_steps={STEPS}", f"trainer.val_check_interval={10 * STEPS}", "trainer.accelerator=cpu"]
    still = ["callback.pictures.every=0", f"callback.checkpoints.every={10 * STEPS}", "trainer.limit_val_batches=1"]
    probe = f"+callback.stamps={{_target_: benchmarks.cases.processes.Stamps, path: {folder / name}.txt}}"
    own = ["experiment=ihd_mnist", *SMALL, f"data.batch_size={batch}", probe, f"hydra.run.dir={folder / name}"]
    return [sys.executable, "train.py", *own, *steps, *still, *more]


def together(commands: Sequence[Sequence[str]]) -> None:
    """Children at the same time. RuntimeError where one fails."""
    own = environment() | {"OMP_NUM_THREADS": "1"}
    children = [
        subprocess.Popen(command, cwd=ROOT, env=own, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        for command in commands
    ]
    said = [child.communicate()[0] for child in children]
    for child, words in zip(children, said, strict=True):
        if child.returncode:
            raise RuntimeError(f"a training ended with {child.returncode}: {words[-2000:]}")


def read(path: Path) -> tuple[float, float]:
    """The seconds of a step of a training, and those of its CPU time: medians."""
    lines = [line.split() for line in path.with_suffix(".txt").read_text().splitlines()]
    seconds, cpu = (statistics.median(map(float, column)) for column in zip(*lines, strict=True))
    return seconds, cpu


def measure(bench: Bench) -> Iterator[Entry]:
    """The step of two processes for 2 x 32 images, beside the mean step of two trainings of 32 images each.

    And how it grows with the number of processes, up to that of the cores, with as many images for each.
    """
    if bench.quick or (os.cpu_count() or 1) < 2:
        yield Note("processes", "two processes", "they need two cores and half a minute: not with --quick")
        return
    counts = [2**i for i in range(4) if 2**i <= (os.cpu_count() or 1)]
    with tempfile.TemporaryDirectory() as place, fake_mnist(Path(place)):
        folder = Path(place)
        shared: dict[int, list[tuple[float, float]]] = {count: [] for count in counts}
        alone: list[tuple[float, float]] = []
        for i in range(ROUNDS):
            for count in counts:
                devices = ["trainer=ddp", f"trainer.devices={count}", "trainer.accelerator=cpu"]
                together([words(folder, f"shared{count}{i}", count * BATCH, *devices)])
                shared[count].append(read(folder / f"shared{count}{i}"))
                bench.step()
            together([words(folder, f"alone{i}{j}", BATCH) for j in range(2)])
            pair = [read(folder / f"alone{i}{j}") for j in range(2)]
            alone.append((statistics.fmean(x for x, _ in pair), statistics.fmean(x for _, x in pair)))
            bench.step()
        name = f"small network, {BATCH} images a process, one thread each"
        (both, both_cpu), (own, own_cpu) = zip(*shared[2], strict=True), zip(*alone, strict=True)
        facts = {"CPU time": round(statistics.median(own_cpu) / statistics.median(both_cpu), 3)}
        yield row_of("processes", name, "two processes together", "two that are alone", both, own, None, facts)
        points = tuple((float(count), 1e3 * statistics.median(x for x, _ in shared[count])) for count in counts)
        yield Growth("processes", f"{name}: step", "processes", points)
