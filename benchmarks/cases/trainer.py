"""What Lightning, the data and the callbacks add: steps of a whole `train.py`, in turn with the same step in a bare loop."""

import statistics
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import lightning as L

from benchmarks import ours
from benchmarks.child import fake_mnist, train
from benchmarks.floors import synchronize
from benchmarks.harness import Bench, Entry, Row, row_of

SECONDS = 90
WARM = 3  # steps that are not counted
SMALL = (
    "net.model_channels=16",
    "net.norm_groups=8",
    "net.num_res_blocks=1",
    "net.multipliers=[1,2]",
    "net.attention_levels=[]",
)
PUBLISHED = 128  # images of a step of the published setting
taken: dict[str, list[float]] = {}  # seconds of the steps of the training that runs now, and of the bare ones


class Probe(L.Callback):
    """A bare step after each step of a training, of another model that is built alike; both are timed.

    Args:
        words: of the training.
        precision: of both.
        cpu_time: whether seconds are CPU time of this process, where others disturb it.
    """

    def __init__(self, words: list[str], precision: str, cpu_time: bool = False):
        self.words, self.precision = words, precision
        self.clock = time.process_time if cpu_time else time.perf_counter
        self.bare: ours.Training | None = None
        self.since = 0.0

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: object, batch: object, *_: object
    ) -> None:
        assert isinstance(batch, dict)
        device = pl_module.device
        synchronize(device)
        now = self.clock()
        if self.bare is None:
            self.bare = ours.Training(ours.made(device, *self.words), batch["u0"].clone(), self.precision)
            taken.update(whole=[], bare=[])
        elif trainer.global_step > WARM:
            taken["whole"].append(now - self.since)
        start = self.clock()
        self.bare()
        synchronize(device)
        self.since = self.clock()
        if trainer.global_step > WARM:
            taken["bare"].append(self.since - start)


def overhead(bench: Bench, name: str, batch: int, steps: int, words: tuple[str, ...], work: Path) -> Row:
    """The row of a whole training."""
    precision = "bf16-mixed" if bench.on_gpu else "32-true"
    cpu_time = "true" if bench.clock is time.process_time else "false"
    own = ("experiment=ihd_mnist", "net.dropout=0", f"data.batch_size={batch}", *words)
    listed = ",".join(f"'{word}'" for word in own)
    probe = f"words: [{listed}], precision: {precision}, cpu_time: {cpu_time}"
    train(
        bench.device,
        *own,
        f"trainer.max_steps={steps + WARM}",
        f"trainer.val_check_interval={10 * steps}",
        f"callback.checkpoints.every={10 * steps}",
        "callback.pictures.every=0",
        "trainer.limit_val_batches=1",
        f"trainer.precision={precision}",
        f"+callback.probe={{_target_: benchmarks.cases.trainer.Probe, {probe}}}",
        f"hydra.run.dir={work / name.replace(' ', '_')}",
    )
    whole, bare = taken["whole"], taken["bare"]
    extra = 1e3 * statistics.median(a - b for a, b in zip(whole, bare[: len(whole)], strict=True))
    bench.step()
    facts = {"extra ms a step": round(extra, 3)}
    return row_of("trainer", f"{name}, batch {batch}", "whole training", "bare step", whole, bare[: len(whole)], None, facts)


def measure(bench: Bench) -> Iterator[Entry]:
    """A small network at the published batch, where the overhead shows; the published one at a batch that a CPU can take.

    Both overheads together beside the published step: measured on a GPU, computed from a smaller batch on a CPU.
    """
    with tempfile.TemporaryDirectory() as folder, fake_mnist(Path(folder)):
        work = Path(folder)
        if bench.quick:
            yield overhead(bench, "tiny network", 4, 4, ours.TINY, work)
            return
        small = overhead(bench, "small network", PUBLISHED, 40, SMALL, work)
        yield small
        batch = PUBLISHED if bench.on_gpu else 4
        large = overhead(bench, "published network", batch, 40 if bench.on_gpu else 12, (), work)
        yield large
        if not bench.on_gpu:
            yield published(small, large, batch)


def published(small: Row, large: Row, batch: int) -> Row:
    """The published setting by computation: its bare step from that of a smaller batch, and the larger of both overheads."""
    extra = max(0.0, *(float(row.facts["extra ms a step"]) for row in (small, large)))
    bare = large.other_value * PUBLISHED / batch
    ratio = bare / (bare + extra)
    facts = {"how": f"computed: the bare step of {batch} images times {PUBLISHED // batch}, and the larger overhead"}
    name = f"published network, batch {PUBLISHED}"
    values = (bare + extra, bare, ratio, ratio, ratio)
    return Row("trainer", name, "whole training", "bare step", *values, large.rounds, facts=facts)
