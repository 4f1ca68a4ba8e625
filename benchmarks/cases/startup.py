"""From the prompt to the help, and to the first step, of the three entry points; beside importing PyTorch and Lightning."""

import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from benchmarks.child import seconds_of, variables
from benchmarks.harness import Bench, Entry, row_of

SECONDS = 120
IMPORT = "import torch, lightning"
SMALL = (
    *("data.recommended.unet.model_channels=8", "data.recommended.unet.norm_groups=4", "forward.num_levels=4"),
    *("trainer.accelerator=cpu", "trainer.max_steps=1", "trainer.val_check_interval=1", "callback.pictures.every=0"),
)
ON_CPU = "trainer.accelerator=cpu"


def commands(run: str) -> dict[str, tuple[str, ...]]:
    """The words of each command that is timed."""
    return {
        "train.py --help": ("train.py", "--help"),
        "sample.py --help": ("sample.py", "--help"),
        "evaluate.py --help": ("evaluate.py", "--help"),
        "train.py, one step": ("train.py", *SMALL),
        "sample.py, one sample": ("sample.py", f"run={run}", "n=1", ON_CPU),
        "evaluate.py, one map": ("evaluate.py", "mode=forward", "run=null", "forward=heat", "data=digits", "n=8", ON_CPU),
    }


def measure(bench: Bench) -> Iterator[Entry]:
    """A row for each command."""
    with tempfile.TemporaryDirectory() as folder, variables(HEATGEN_RUNS=str(Path(folder) / "runs")):
        run = f"{folder}/run"
        seconds_of([sys.executable, "train.py", *SMALL, f"hydra.run.dir={run}"])
        ways = {name: [sys.executable, *words] for name, words in commands(run).items()}
        ways[IMPORT] = [sys.executable, "-c", "import torch, lightning.pytorch"]
        if bench.quick:
            ways = {name: ways[name] for name in ("train.py --help", IMPORT)}
        times: dict[str, list[float]] = {name: [] for name in ways}
        for _ in range(1 if bench.quick else 3):
            for name, command in ways.items():
                times[name].append(seconds_of(command))
                bench.step()
        yield from (row_of("startup", name, name, IMPORT, times[name], times[IMPORT]) for name in ways if name != IMPORT)
