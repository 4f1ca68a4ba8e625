"""Longer trainings, the most important first: python -m benchmarks.gpu.queue [--minutes 9.5] [--state DIR] [--carry DIR].

Each call goes on with the first training that is not done, then with the next while time is left. Everything lies in
--state. With --carry it is packed into files of 15 MiB now and then and at the end, and unpacked from them where --state is
empty: files carried to another machine go on there. The weights of a training that is measured are not carried.
"""

import argparse
import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from benchmarks.child import ROOT, environment
from benchmarks.gpu.__main__ import ENDING, end
from benchmarks.gpu.carry import pack, unpack
from benchmarks.gpu.parts import TINY
from benchmarks.gpu.pictures import digits
from heatgen.check import ConfigError
from heatgen.runtime.children import start
from heatgen.runtime.explain import entry
from heatgen.runtime.files import absolute, write_text

EVERY = 120  # seconds of work that a kill of this command costs on another machine
RESERVE = 2 * ENDING  # seconds to save and to pack in, at the end
START = 45  # seconds that a training, or a measurement, is begun for
SMALL = (
    "net.model_channels=64",
    "net.multipliers=[1,1,1]",
    "net.attention_levels=[2]",
)  # 3.7 million weights
USUAL = (
    *("callback.pictures.every=5000", "callback.checkpoints.every=500", "trainer.val_check_interval=1000"),
    "compile=auto",  # as another machine may have no compiler
)


@dataclass(frozen=True)
class Job:
    """A training: the words of train.py and its steps, those of the measurements behind it, and the data that it needs.

    Args:
        name: of its folder.
        steps: until it is done.
        words: of train.py.
        measured: of evaluate.py, one measurement each.
        needs: a folder below the folder of data; None: nothing.
        tiny: words that make it small, to see that it works.
    """

    name: str
    steps: int
    words: tuple[str, ...]
    measured: tuple[tuple[str, ...], ...] = ()
    needs: str | None = None
    tiny: tuple[str, ...] = TINY


DIGITS = ("data=image_folder", "data.path={digits}", "data.shape=[1,28,28]", "experiment=ihd_mnist", *SMALL)
ELBO = ("mode=elbo", "n=256")
FID = ("mode=fid", "n=10000")  # Inception's weights: $HEATGEN_INCEPTION
CIFAR = "cifar-10-batches-py"
IMAGES = 47_000  # steps of 128 of the 6 million images that published curves are read at


def quick(paper: str) -> tuple[str, ...]:
    """The words of a paper's method on CIFAR-10."""
    return "experiment=quick_cifar10", f"experiment/paper={paper}"


FIELDS = ("forward.num_levels=4", "data.batch_size=4", "data.train_size=64")
JOBS = (  # the most important first
    Job("flow_matching_cifar10", IMAGES, quick("flow_matching"), (("sampler=heun", "sampler.steps=25", *FID),), CIFAR),
    Job("ddpm_cosine_cifar10", IMAGES, quick("ddpm_cosine"), (FID,), CIFAR),
    Job("ihd_cifar10_small", IMAGES, quick("ihd"), (FID, ELBO), CIFAR),
    Job("blurring_cifar10", IMAGES, quick("blurring"), (FID,), CIFAR),
    Job("ihd_fashion_mnist", 50_000, ("experiment=ihd_fashion_mnist", *SMALL), (ELBO,), "FashionMNIST"),
    Job("ihd_digits", 30_000, DIGITS, (ELBO, ("mode=memorisation", "n=256"))),
    Job("diffusion_digits", 30_000, (*DIGITS, "model=diffusion"), (ELBO,)),
    Job("velocity_digits", 30_000, (*DIGITS, "forward=constant_velocity"), (ELBO,)),
    Job("smdp_grf", 10_000, ("data=grf", "model=smdp"), (("mode=reconstruction", "n=100"),), tiny=FIELDS),
    Job("ihd_cifar10", 100_000, ("experiment=ihd_cifar10",), (ELBO,), CIFAR),
)


def options_of(arguments: list[str]) -> argparse.Namespace:
    """What was asked for."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu.queue", description="Longer trainings, one by one.")
    parser.add_argument("--minutes", type=float, default=9.5, help="of this call")
    parser.add_argument("--state", default=f"{os.environ.get('HEATGEN_RUNS', 'runs')}/queue", help="where everything lies")
    parser.add_argument("--carry", help="a folder for what is taken to another machine")
    parser.add_argument("--only", nargs="+", choices=[job.name for job in JOBS], help="these trainings alone")
    parser.add_argument("--steps", type=int, help="of each training, in place of its own")
    parser.add_argument("--tiny", action="store_true", help="the smallest sizes")
    parser.add_argument("--device", default="gpu", choices=("gpu", "cpu"), help="cpu: to see that the command works")
    return parser.parse_args(arguments)


@dataclass(frozen=True)
class Queue:
    """How one call works on the jobs.

    Args:
        state: where everything lies.
        device: gpu | cpu.
        until: when the call is over, in seconds of time.monotonic.
        tiny: whether sizes are the smallest.
        keep: called now and then, to pack what there is.
    """

    state: Path
    device: str
    until: float
    tiny: bool = False
    keep: Callable[[], None] = lambda: None

    @property
    def left(self) -> float:
        """Seconds."""
        return self.until - RESERVE - time.monotonic()

    def child(self, words: list[str], log: Path) -> int | str:
        """The exit code of a command, its output appended to a file; it is told to end when the time is over."""
        with log.open("a") as file:
            process = start([sys.executable, *words], environment(), cwd=ROOT, stdout=file, stderr=subprocess.STDOUT)
            try:
                while self.left > 0:
                    try:
                        return int(process.wait(max(1.0, min(self.left, EVERY))))
                    except subprocess.TimeoutExpired:
                        self.keep()
                return "its time was over"
            finally:
                end(process)

    def go_on(self, job: Job, steps: int, before: Mapping[str, object]) -> dict[str, object]:
        """A slice of a training, and its measurements once it is done; what is known of it."""
        folder, log = self.state / "runs" / job.name, self.state / f"{job.name}.log"
        words = [word.format(digits=self.state / "digits") for word in job.words]
        data = [word for word in words if word.startswith("data.path=")]
        if data:
            digits(self.state / "digits")
        on = f"trainer.accelerator={self.device}"
        ended: int | str = 0
        if done_steps(folder) < steps:  # a signal ends it, which saves where it is; the same command goes on there
            small = (*job.tiny, "callback.checkpoints.every=10") if self.tiny else ()
            own = [on, f"trainer.max_steps={steps}", f"hydra.run.dir={folder}"]
            ended = self.child(["train.py", *words, *USUAL, *small, *own], log)
        known: dict[str, object] = {"steps": done_steps(folder), "of": steps, "ended": ended}
        if done_steps(folder) < steps:
            return known
        for measured in job.measured:
            name = " ".join(measured)
            known[name] = before.get(name, "not begun")
            if known[name] != 0 and self.left > START:
                few = [re.sub(r"^n=\d+$", "n=4", word) for word in measured] if self.tiny else measured
                known[name] = self.child(["evaluate.py", f"run={folder}", *few, *data, on], log)
        known["measured"] = all(known[" ".join(words)] == 0 for words in job.measured)
        return known


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


def known_of(state: Path) -> dict[str, object]:
    """What is known of each training."""
    notes = state / "queue.json"
    return dict(json.loads(notes.read_text())) if notes.exists() else {}


def is_measured(known: Mapping[str, object], name: str) -> bool:
    """Whether nothing of a training is left to do."""
    own = known.get(name)
    return isinstance(own, dict) and bool(own.get("measured"))


def main() -> None:
    """Go on with the queue. ConfigError where there is no GPU."""
    options, begin = options_of(sys.argv[1:]), time.monotonic()
    import torch

    if options.device == "gpu" and not torch.cuda.is_available():
        raise ConfigError("python -m benchmarks.gpu.queue finds no CUDA GPU here; --device cpu shows that it works.")
    state = absolute(options.state)
    carry = None if options.carry is None else absolute(options.carry)
    if carry is not None and not any(state.glob("*")) and unpack(carry, state):
        print(f"unpacked: {carry} to {state}", flush=True)
    state.mkdir(parents=True, exist_ok=True)
    known = known_of(state)

    def keep() -> None:
        if carry is not None:
            pack(state, carry, lambda name: is_measured(known, name))

    queue = Queue(state, options.device, begin + 60 * options.minutes, options.tiny, keep)
    try:
        for job in JOBS:
            if (options.only and job.name not in options.only) or is_measured(known, job.name):
                continue
            if lack := missing(job):
                print(f"{job.name}: left out, {lack}")
                continue
            if queue.left < START:
                break
            before = known.get(job.name)
            try:
                known[job.name] = queue.go_on(job, options.steps or job.steps, before if isinstance(before, dict) else {})
            except Exception as error:  # of one training costs none of the others
                known[job.name] = {"ended": f"{type(error).__name__}: {error}"}
            print(f"{job.name}: {json.dumps(known[job.name])}", flush=True)
            write_text(state / "queue.json", json.dumps(known, indent=1) + "\n")
            keep()
    finally:
        keep()


if __name__ == "__main__":
    entry(main)
