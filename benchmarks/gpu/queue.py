"""Longer trainings, the most important first: python -m benchmarks.gpu.queue [--minutes 10] [--state DIR] [--carry DIR].

Each call goes on with the first training that is not done, for at most 10 minutes, then with the next while time is left.
Everything lies in --state. With --carry it is packed into files of 15 MiB at the end and after each training, and unpacked
from them where --state is empty: files carried to another machine go on there.
"""

import argparse
import io
import json
import os
import subprocess
import sys
import tarfile
import time
from dataclasses import dataclass
from pathlib import Path

from benchmarks.child import ROOT, environment
from benchmarks.gpu.__main__ import ENDING, end
from benchmarks.gpu.pictures import digits
from heatgen.check import ConfigError
from heatgen.runtime.children import start
from heatgen.runtime.explain import entry
from heatgen.runtime.files import absolute, atomic_path, write_text

SLICE = 600  # seconds of a training in one call
PIECE = 15 * 2**20  # bytes of a file that is carried
START = 60  # seconds that a training may take to begin and to end
SMALL = (
    "net.model_channels=64",
    "net.multipliers=[1,1,1]",
    "net.attention_levels=[2]",
)  # 3.7 million weights
NEVER = ("callback.pictures.every=5000", "callback.checkpoints.every=500", "trainer.val_check_interval=1000")


@dataclass(frozen=True)
class Job:
    """A training: the words of train.py and its steps, those of the measurements behind it, and the data that it needs.

    Args:
        name: of its folder.
        steps: until it is done.
        words: of train.py.
        measured: of evaluate.py, one measurement each.
        needs: a folder below the folder of data; None: nothing.
    """

    name: str
    steps: int
    words: tuple[str, ...]
    measured: tuple[tuple[str, ...], ...] = ()
    needs: str | None = None


DIGITS = ("data=image_folder", "data.path={digits}", "data.shape=[1,28,28]", "experiment=ihd_mnist", *SMALL)
ELBO = ("mode=elbo", "n=256")
JOBS = (  # the most important first
    Job("ihd_fashion_mnist", 50_000, ("experiment=ihd_fashion_mnist", *SMALL), (ELBO,), "FashionMNIST"),
    Job("ihd_digits", 30_000, DIGITS, (ELBO, ("mode=memorisation", "n=256"))),
    Job("diffusion_digits", 30_000, (*DIGITS, "model=diffusion"), (ELBO,)),
    Job("velocity_digits", 30_000, (*DIGITS, "forward=constant_velocity"), (ELBO,)),
    Job("smdp_grf", 10_000, ("data=grf", "model=smdp"), (("mode=reconstruction", "n=100"),)),
    Job("ihd_cifar10", 100_000, ("experiment=ihd_cifar10",), (ELBO,), "cifar-10-batches-py"),
)


def options_of(arguments: list[str]) -> argparse.Namespace:
    """What was asked for."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu.queue", description="Longer trainings, one by one.")
    parser.add_argument("--minutes", type=float, default=10, help="of this call")
    parser.add_argument("--state", default=f"{os.environ.get('HEATGEN_RUNS', 'runs')}/queue", help="where everything lies")
    parser.add_argument("--carry", help="a folder for what is taken to another machine")
    parser.add_argument("--only", nargs="+", choices=[job.name for job in JOBS], help="these trainings alone")
    parser.add_argument("--steps", type=int, help="of each training, in place of its own")
    parser.add_argument("--device", default="gpu", choices=("gpu", "cpu"), help="cpu: to see that the command works")
    return parser.parse_args(arguments)


def done_steps(folder: Path) -> int:
    """The optimizer steps of a training in its last checkpoint."""
    import torch

    checkpoint = folder / "checkpoints" / "last.ckpt"
    if not checkpoint.is_file():
        return 0
    return int(torch.load(checkpoint, map_location="cpu", weights_only=True, mmap=True)["global_step"])


def data_dir() -> Path:
    """Where data sets are."""
    return absolute(os.environ.get("HEATGEN_DATA", "data"))


def missing(job: Job) -> str | None:
    """What a job lacks; None where it can run."""
    places = [data_dir() / job.needs, Path("/usr/share/datasets/fashion-mnist")] if job.needs else []
    if not places or places[0].exists() or (job.needs == "FashionMNIST" and places[1].exists()):
        return None
    return f"{places[0]} is not there"


def child(words: list[str], log: Path, seconds: float) -> int | str:
    """The exit code of a command, its output appended to a file; it is told to end when its time is over."""
    with log.open("a") as file:
        process = start([sys.executable, *words], environment(), cwd=ROOT, stdout=file, stderr=subprocess.STDOUT)
        try:
            return int(process.wait(max(1.0, seconds)))
        except subprocess.TimeoutExpired:
            return "its time was over"
        finally:
            end(process)


def go_on(job: Job, state: Path, device: str, steps: int, seconds: float) -> dict[str, object]:
    """A slice of a training, and its measurements once it is done; what is known of it."""
    folder, begin = state / "runs" / job.name, time.monotonic()
    log = state / f"{job.name}.log"
    words = [word.format(digits=state / "digits") for word in job.words]
    if any(str(state / "digits") in word for word in words):
        digits(state / "digits")
    own = [f"trainer.accelerator={device}", f"trainer.max_steps={steps}", f"hydra.run.dir={folder}"]
    if device == "cpu":
        own.append("trainer.precision=auto")  # published settings have 16-mixed, which is for a GPU
    ended: int | str = 0
    if done_steps(folder) < steps:  # a signal ends it, which saves where it is; the same command goes on there
        ended = child(["train.py", *words, *NEVER, *own], log, min(seconds, SLICE) - ENDING)
    known: dict[str, object] = {"steps": done_steps(folder), "of": steps, "ended": ended}
    if done_steps(folder) >= steps:
        for measured in job.measured:
            left = seconds - (time.monotonic() - begin)
            if left > START:
                name = " ".join(measured)
                known[name] = child(["evaluate.py", f"run={folder}", *measured, f"trainer.accelerator={device}"], log, left)
        known["measured"] = all(known.get(" ".join(words)) == 0 for words in job.measured)
    return known


def pack(state: Path, carry: Path) -> None:
    """Everything of a state but pictures, as numbered files of at most PIECE bytes."""
    carry.mkdir(parents=True, exist_ok=True)
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as archive:
        for path in sorted(state.rglob("*")):
            useless = path.suffix in (".png", ".gif", ".mp4") or path.name == "best.ckpt"
            if path.is_file() and not useless:
                archive.add(path, path.relative_to(state))
    content = stream.getvalue()
    pieces = [content[i : i + PIECE] for i in range(0, len(content), PIECE)]
    for i, piece in enumerate(pieces):
        with atomic_path(carry / f"queue.{i:03}") as beside:
            beside.write_bytes(piece)
    for old in carry.glob("queue.[0-9]*"):
        if int(old.suffix[1:]) >= len(pieces):
            old.unlink()
    write_text(carry / "queue.json", json.dumps({"pieces": len(pieces), "bytes": len(content)}))


def unpack(carry: Path, state: Path) -> bool:
    """A state from its pieces; whether there were any. ConfigError where some are missing."""
    listed = carry / "queue.json"
    if not listed.is_file():
        return False
    expected = json.loads(listed.read_text())
    paths = [carry / f"queue.{i:03}" for i in range(expected["pieces"])]
    content = b"".join(path.read_bytes() for path in paths if path.is_file())
    if len(content) != expected["bytes"]:
        raise ConfigError(f"{carry} has {len(content)} of {expected['bytes']} bytes; bring all its files, or empty it.")
    state.mkdir(parents=True, exist_ok=True)
    with tarfile.open(fileobj=io.BytesIO(content)) as archive:
        archive.extractall(state, filter="data")
    return True


def main() -> None:
    """Go on with the queue. ConfigError where there is no GPU."""
    options = options_of(sys.argv[1:])
    import torch

    if options.device == "gpu" and not torch.cuda.is_available():
        raise ConfigError("python -m benchmarks.gpu.queue finds no CUDA GPU here; --device cpu shows that it works.")
    state, until = absolute(options.state), time.monotonic() + 60 * options.minutes
    carry = None if options.carry is None else absolute(options.carry)
    if carry is not None and not (state / "queue.json").exists() and unpack(carry, state):
        print(f"unpacked: {carry} to {state}")
    state.mkdir(parents=True, exist_ok=True)
    notes = state / "queue.json"
    known: dict[str, object] = json.loads(notes.read_text()) if notes.exists() else {}
    for job in JOBS:
        before = known.get(job.name)
        left = until - time.monotonic()
        if (options.only and job.name not in options.only) or (isinstance(before, dict) and before.get("measured")):
            continue
        if lack := missing(job):
            print(f"{job.name}: left out, {lack}")
            continue
        if left < START:
            break
        known[job.name] = go_on(job, state, options.device, options.steps or job.steps, left)
        print(f"{job.name}: {json.dumps(known[job.name])}", flush=True)
        write_text(notes, json.dumps(known, indent=1) + "\n")
        if carry is not None:
            pack(state, carry)


if __name__ == "__main__":
    entry(main)
