"""The parts of the GPU's command: how each is started, how long it may take, and what is read of what it leaves."""

import csv
import importlib.util
import json
import re
import shutil
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.gpu.pictures import blobs, digits

Found = dict[str, object]
PROCESSES = 4  # that share the tests, where pytest-xdist is installed
TABLE = ("original", "steps", "graphs", "heat", "trainer", "models", "noise", "growth", "compiled")
OUTCOMES = ("PASSED", "FAILED", "ERROR", "SKIPPED", "not ended")
WORD = "(PASSED|FAILED|ERROR|SKIPPED)"  # before a test's name or behind it
OF_A_TEST = re.compile(
    rf"(?:\[gw\d+\] \[ *\d+%\] )?(?:{WORD} )?(tests/\S+?::.+?)(?: {WORD}(?: \(.*)?(?: +\[ *\d+%\])?)?(?: - (.*))?"
)
TINY = (
    *("net.model_channels=8", "net.norm_groups=4", "net.num_res_blocks=1", "net.multipliers=[1,2]"),
    *("net.attention_levels=[1]", "data.batch_size=8", "forward.num_levels=6"),
)


@dataclass(frozen=True)
class Way:
    """How the command was asked to work."""

    device: str  # cuda | cpu
    tiny: bool
    folder: Path  # for files of the parts

    @property
    def accelerator(self) -> str:
        """The same for conf/trainer."""
        return "gpu" if self.device == "cuda" else "cpu"


@dataclass(frozen=True)
class Part:
    """A child process with a limit.

    Args:
        name: of the part.
        seconds: at most; it is ended then, and what it has written by then counts.
        command: its words, for so many seconds that are left.
        read: what it left, as plain data.
    """

    name: str
    seconds: float
    command: Callable[[Way, float], Sequence[str]]
    read: Callable[[Way], Found]


def test_command(way: Way, seconds: float) -> list[str]:
    """pytest of what is marked `cuda`, each test in a line of its own as soon as it has ended."""
    few = ["-k", "integers or likelihood"] if way.tiny else []
    several = ["-n", str(PROCESSES)] if importlib.util.find_spec("xdist") and way.device == "cuda" else []
    words = ["-v", "-m", "cuda", "tests/cuda", "-p", "no:cacheprovider", "--color=no", "--tb=short"]
    return [sys.executable, "-m", "pytest", *words, *several, *few]


def test_results(way: Way) -> Found:
    """How many tests passed, and the others by name with what pytest says of them in its summary, if it came that far."""
    ended: dict[str, tuple[str, str]] = {}
    for line in (way.folder / "tests.log").read_text(errors="replace").splitlines():
        if found := OF_A_TEST.fullmatch(line.rstrip()):
            first, name, second, reason = found.groups()
            ended[name] = first or second or ended.get(name, ("not ended",))[0], reason or ""
    words = {kind: [f"{name} {reason}".strip() for name, (how, reason) in ended.items() if how == kind] for kind in OUTCOMES}
    return {
        "tests": len(ended),
        **{kind.lower(): len(names) if kind == "PASSED" else names for kind, names in words.items()},
    }


def table_command(way: Way, seconds: float) -> list[str]:
    """The benchmarks on the GPU, the most important first; none is begun in the last sixth of the time."""
    (way.folder / "table" / "table.json").unlink(missing_ok=True)
    own = ["--device", way.device, "--out", str(way.folder / "table"), "--title", "table", "--seconds", str(seconds * 5 / 6)]
    return [sys.executable, "-m", "benchmarks", *own, *(["--quick", "--only", "noise"] if way.tiny else ["--only", *TABLE])]


def table_results(way: Way) -> Found:
    """The rows of all benchmarks that were done."""
    return {"rows": json.loads((way.folder / "table" / "table.json").read_text())}


def training_command(way: Way, seconds: float, name: str, words: Sequence[str]) -> list[str]:
    """A training that ends by itself, with its checkpoints, within the time that is left."""
    shutil.rmtree(way.folder / name, ignore_errors=True)  # that of an earlier call
    most = 5 if way.tiny else max(20, int(min(120, seconds - 30)))
    time = f"+trainer.max_time=00:00:{most // 60:02}:{most % 60:02}"
    every = ["trainer.val_check_interval=200", "callback.checkpoints.every=1000", "callback.pictures.every=1000"]
    own = [f"trainer.accelerator={way.accelerator}", f"hydra.run.dir={way.folder / name}", "trainer.max_steps=1000000"]
    own.append("compile=false")  # which takes most of two minutes
    return [sys.executable, "train.py", *words, *every, *own, time, *(TINY if way.tiny else ())]


def training_results(way: Way, name: str) -> Found:
    """Steps, seconds and losses of a training, from what it wrote."""
    folder = way.folder / name
    found: Found = {}
    for result in sorted((folder / "evaluation").glob("train_*.json")):
        found["result"] = json.loads(result.read_text())["values"]
    with (folder / "metrics.csv").open() as file:
        rows = [{key: value for key, value in row.items() if value} for row in csv.DictReader(file)]
    found["steps"] = max((int(row["step"]) for row in rows), default=0)
    found["val/loss"] = [[int(row["step"]), float(row["val/loss"])] for row in rows if "val/loss" in row][:40]
    return found


def grey(way: Way, seconds: float) -> list[str]:
    """The published MNIST setting on digits of its size."""
    place = digits(way.folder / "digits", 64 if way.tiny else None)
    data = ["data=image_folder", f"data.path={place}", "data.shape=[1,28,28]"]
    return training_command(way, seconds, "grey", ["experiment=ihd_mnist", *data])


def colour(way: Way, seconds: float) -> list[str]:
    """The published CIFAR-10 setting on blobs of its size."""
    place = blobs(way.folder / "blobs", 64 if way.tiny else 4000)
    data = ["data=image_folder", f"data.path={place}", "data.shape=[3,32,32]", "forward.num_levels=200"]
    return training_command(way, seconds, "colour", ["experiment=ihd_cifar10", *data])


PARTS = (
    Part("tests", 130, test_command, test_results),
    Part("table", 160, table_command, table_results),
    Part("training_grey", 150, grey, lambda way: training_results(way, "grey")),
    Part("training_colour", 150, colour, lambda way: training_results(way, "colour")),
)
