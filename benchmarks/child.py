"""Whole commands: in this process, or in a child whose time and memory are read."""

import os
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stderr, redirect_stdout, suppress
from io import StringIO
from pathlib import Path

import numpy as np
import torch

ROOT = Path(__file__).resolve().parents[1]
FOLDERS = ("HEATGEN_DATA", "HEATGEN_RUNS")


@contextmanager
def fake_mnist(folder: Path, count: int = 4096) -> Iterator[None]:
    """Within it, data=mnist is noise of its shape, and runs go to `folder`."""
    raw = folder / "data" / "MNIST" / "raw"
    raw.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(0)
    for stem, n in (("train", count + 5000), ("t10k", 256)):
        pixels = rng.integers(0, 256, (n, 28, 28), dtype=np.uint8)
        header = np.array([n, 28, 28], ">u4").tobytes()
        (raw / f"{stem}-images-idx3-ubyte").write_bytes(b"\0\0\x08\x03" + header + pixels.tobytes())
        labels = (pixels[:, 0, 0] % 10).tobytes()
        (raw / f"{stem}-labels-idx1-ubyte").write_bytes(b"\0\0\x08\x01" + header[:4] + labels)
    with variables(HEATGEN_DATA=str(folder / "data"), HEATGEN_RUNS=str(folder / "runs")):
        yield


@contextmanager
def variables(**values: str) -> Iterator[None]:
    """Environment variables within it."""
    before = {key: os.environ.get(key) for key in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for key, value in before.items():
            os.environ.pop(key, None)
            os.environ.update({} if value is None else {key: value})


def train(device: torch.device, *words: str) -> None:
    """`train.py WORDS` in this process, its screen kept. RuntimeError with what it said where it fails."""
    from hydra.core.global_hydra import GlobalHydra

    from heatgen.app.cli import run

    accelerator = "gpu" if device.type == "cuda" else "cpu"
    arguments, sys.argv = sys.argv, [str(ROOT / "train.py"), *words, f"trainer.accelerator={accelerator}"]
    said, code = StringIO(), 0
    try:
        with redirect_stdout(said), redirect_stderr(said):
            run("train")
    except SystemExit as stop:
        code = int(stop.code or 0) if not isinstance(stop.code, str) else 1
    finally:
        sys.argv = arguments
        with suppress(Exception):
            GlobalHydra.instance().clear()
    if code:
        raise RuntimeError(f"train.py {' '.join(words)} ended with {code}: {said.getvalue()[-2000:]}")


def seconds_of(command: Sequence[str]) -> float:
    """The seconds of a child from start to end. RuntimeError where it fails."""
    start = time.perf_counter()
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, env=environment())
    taken = time.perf_counter() - start
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)} ended with {done.returncode}: {done.stderr[-2000:]}")
    return taken


def peak_of(code: str) -> float:
    """The largest memory, in MiB, of a child that executes some Python. RuntimeError where it fails.

    VmHWM of Linux, as the ru_maxrss of a child begins with that of its parent; elsewhere ru_maxrss.
    """
    body = f"{code}\nfrom benchmarks.child import own_peak\nprint(own_peak())"
    done = subprocess.run(
        [sys.executable, "-c", body], cwd=ROOT, capture_output=True, text=True, check=False, env=environment()
    )
    if done.returncode:
        raise RuntimeError(f"a child ended with {done.returncode}: {done.stderr[-2000:]}")
    return float(done.stdout.split()[-1])


def own_peak() -> float:
    """The largest memory that this process has had, in MiB."""
    status = Path("/proc/self/status")
    if status.exists():
        return int(status.read_text().partition("VmHWM:")[2].split()[0]) / 2**10
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10)


def environment() -> dict[str, str]:
    """That of a child, which finds what this process finds."""
    places = [str(ROOT), str(ROOT / "src"), os.environ.get("PYTHONPATH", "")]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(place for place in places if place)}
