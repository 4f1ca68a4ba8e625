"""Two processes that train together, beside two that train alone at the same time."""

import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import lightning as L

from benchmarks.cases.trainer import SMALL
from benchmarks.child import ROOT, environment, fake_mnist
from benchmarks.harness import Bench, Entry, Note, row_of

SECONDS = 75
STEPS, FIRST = 40, 10
BATCH = 32  # images of each process


class Stamps(L.Callback):
    """Writes the seconds of each step of the first process to a file at the end."""

    def __init__(self, path: str):
        import time

        self.path, self.clock, self.stamps = path, time.perf_counter, list[float]()

    def on_train_batch_end(self, trainer: L.Trainer, *_: object) -> None:
        self.stamps.append(self.clock())

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if trainer.global_rank == 0:
            spans = [b - a for a, b in zip(self.stamps[FIRST:], self.stamps[FIRST + 1 :], strict=False)]
            Path(self.path).write_text("\n".join(map(str, spans)))


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


def read(path: Path) -> list[float]:
    """The seconds of the steps of a training."""
    return [float(line) for line in path.with_suffix(".txt").read_text().split()]


def measure(bench: Bench) -> Iterator[Entry]:
    """The step of two processes for 2 x 32 images, beside the mean step of two trainings of 32 images each."""
    if bench.quick or (os.cpu_count() or 1) < 2:
        yield Note("processes", "two processes", "they need two cores and half a minute: not with --quick")
        return
    with tempfile.TemporaryDirectory() as place, fake_mnist(Path(place)):
        folder = Path(place)
        shared, alone = [], []
        for i in range(2):
            two = ["trainer=ddp", "trainer.devices=2", "trainer.accelerator=cpu"]
            together([words(folder, f"two{i}", 2 * BATCH, *two)])
            bench.step()
            together([words(folder, f"one{i}{j}", BATCH) for j in range(2)])
            bench.step()
            shared.append(statistics.median(read(folder / f"two{i}")))
            alone.append(statistics.fmean(statistics.median(read(folder / f"one{i}{j}")) for j in range(2)))
        name = f"small network, {BATCH} images a process, one thread each"
        yield row_of("processes", name, "two processes together", "two that are alone", shared, alone)
