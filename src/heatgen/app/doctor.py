"""What this machine has for heatgen, and what to do about what it has not: heatgen doctor."""

import argparse
import fcntl
import importlib.util
import os
import platform
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from importlib.metadata import PackageNotFoundError, metadata, version
from pathlib import Path

from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

from heatgen.runtime.command import NAME, call
from heatgen.runtime.screen import painted

LEAST = 2**30  # bytes free, below which there is a note
INCEPTION = "inception-2015-12-05.pt"
SETS = {  # data=NAME -> where its files are looked for, beginning with those under data_dir
    "fashion_mnist": ("FashionMNIST/raw", "FashionMNIST", "/usr/share/datasets/fashion-mnist"),
    "mnist": ("MNIST/raw", "MNIST", "/usr/share/datasets/mnist"),
    "cifar10": ("cifar-10-batches-py",),
}
FOLDERS = ("afhq", "ffhq", "lsun_church")  # data=NAME, whose images a user puts under data_dir
EXTRAS = {  # extra -> what it is for
    "sweep": "hydra/launcher=joblib",
    "cluster": "hydra/launcher=submitit_slurm",
    "ray": "hydra/launcher=ray",
    "optuna": "hparams_search=",
    "mlflow": "logger=mlflow",
    "lmdb": "LSUN as it comes",
    "hub": "heatgen export",
    "huggingface": "data=huggingface",
    "notebooks": "make notebooks",
    "docs": "make docs",
}
HIDDEN = ("test", "dev", "browser")  # extras of those who change heatgen
IN_A_WHEEL = (Path(__file__).resolve().parents[1] / "conf").is_dir()  # else in the repository


@dataclass(frozen=True)
class Found:
    """One line: ok, note (something could be better) or fail (something required is missing), what it is, and the cure."""

    mark: str
    what: str
    cure: str = ""

    def __str__(self) -> str:
        return f"{self.mark:<5} {self.what}" + (f"; {self.cure}" if self.cure else "")


ok, note, fail = (partial(Found, mark) for mark in ("ok", "note", "fail"))


def checks(data_dir: Path, runs_dir: Path) -> Iterator[Found]:
    """Everything that is looked at, what takes long last."""
    yield from packages()
    yield place("runs_dir", runs_dir, "HEATGEN_RUNS", fail)
    yield place("data_dir", data_dir, "HEATGEN_DATA", note)
    yield from data_sets(data_dir)
    yield from weights(data_dir)
    yield video()
    yield from torch_and_devices()


def packages() -> Iterator[Found]:
    """heatgen, Python and what heatgen requires; then the extras."""
    try:
        told = metadata(NAME)
    except PackageNotFoundError:
        yield fail(f"{NAME} is not installed", "pip install -e . in its folder")
        return
    python, wanted = platform.python_version(), SpecifierSet(told["Requires-Python"])
    here = f"{NAME} {version(NAME)} on Python {python}"
    yield ok(here) if python in wanted else fail(here, f"use Python {wanted}")
    every = [Requirement(line) for line in told.get_all("Requires-Dist") or ()]
    required = [one for one in every if one.marker is None or one.marker.evaluate()]
    lacking = [f"'{one}'" for one in required if not installed(one)]
    if lacking:
        yield fail("required packages are missing or of another version", f"pip install {' '.join(lacking)}")
    else:
        names = ", ".join(f"{name} {version(name)}" for name in ("torch", "lightning", "hydra-core"))
        yield ok(f"all {len(required)} required packages, among them {names}")
    have = []
    for name in [name for name in told.get_all("Provides-Extra") or () if name not in HIDDEN]:
        own = [one for one in every if one not in required and one.marker and one.marker.evaluate({"extra": name})]
        purpose = f"{name} ({EXTRAS[name]})" if name in EXTRAS else name
        if all(installed(one) for one in own if one.name != NAME):
            have.append(purpose)
        else:
            what = f"'{NAME}[{name}]'" if IN_A_WHEEL else f"-e '.[{name}]'"
            yield note(f"the extra {purpose} is not installed", f"if you need it: pip install {what}")
    yield ok(f"extras: {', '.join(have) or 'none'}")


def installed(requirement: Requirement) -> bool:
    """Whether a package is there in a version that fits."""
    try:
        return requirement.specifier.contains(version(requirement.name), prereleases=True)
    except PackageNotFoundError:
        return False


def place(key: str, folder: Path, variable: str, otherwise: Callable[..., Found]) -> Found:
    """Whether files can be written and locked in a folder, which may have to be made; nothing stays there."""
    there = next(parent for parent in (folder.absolute(), *folder.absolute().parents) if parent.exists())
    try:
        with tempfile.NamedTemporaryFile(dir=there) as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        what = f"{key} = {folder}: no file can be written and locked there ({error.strerror})"
        return otherwise(what, f"set {variable} to a folder of yours")
    free = shutil.disk_usage(there).free
    here = f"{key} = {folder}{'' if folder.exists() else ' (to be made)'}: {free / 2**30:.1f} GiB free"
    return ok(here) if free >= LEAST else note(here, f"make room, or set {variable} to another disk")


def data_sets(data_dir: Path) -> Iterator[Found]:
    """Which data sets are here, and how the others come."""
    spec = importlib.util.find_spec("sklearn")
    folders = [Path(folder) for folder in (spec.submodule_search_locations or () if spec else ())]
    digits = any((folder / "datasets" / "data" / "digits.csv.gz").is_file() for folder in folders)
    yield ok("data=digits: of scikit-learn") if digits else fail("data=digits is not here", "pip install scikit-learn")
    lacking = []
    for name, places in SETS.items():
        if found := next((data_dir / where for where in places if any((data_dir / where).glob("*"))), None):
            yield ok(f"data={name}: {found}")
        else:
            lacking.append(f"data={name}")
    for name in [name for name in FOLDERS if (data_dir / name).is_dir()]:
        yield ok(f"data={name}: {data_dir / name}")
    if lacking:
        yield note(f"not here: {', '.join(lacking)}", f"each is downloaded when it is first used, to {data_dir}")


def weights(data_dir: Path) -> Iterator[Found]:
    """The networks that metrics look through."""
    own, places = os.environ.get("HEATGEN_INCEPTION"), [data_dir / INCEPTION, Path(tempfile.gettempdir()) / INCEPTION]
    found = own or next((path for path in places if path.is_file()), None)
    if own and not Path(own).is_file():
        yield note(f"HEATGEN_INCEPTION={own} is no file", "unset it, or put the network there")
    elif found:
        yield ok(f"Inception, for mode=fid and its like: {found}")
    else:
        cure = f"it is downloaded when it is first used; where there is no network, put {INCEPTION} there"
        yield note(f"Inception, for mode=fid and its like, is not in {data_dir}", cure)
    files = ", ".join(sorted(path.stem for path in (data_dir / "extractors").glob("*.pt")))
    none = note("no classifiers, for metric.extractor=classifier", "python -m heatgen.app.classifier digits trains one")
    yield ok(f"classifiers, for metric.extractor=classifier: of {files}") if files else none


def video() -> Found:
    """Whether MP4s can be written."""
    try:
        import imageio_ffmpeg

        return ok(f"ffmpeg, for MP4: {Path(imageio_ffmpeg.get_ffmpeg_exe()).name}")
    except (ImportError, RuntimeError):
        return fail("ffmpeg, for MP4, is not found", "pip install --force-reinstall imageio-ffmpeg")


def torch_and_devices() -> Iterator[Found]:
    """PyTorch, which takes seconds to import, and what it computes on."""
    try:
        import torch

        from heatgen.runtime.engine import narrow
    except Exception as error:  # a library that does not fit can raise anything
        yield fail(f"PyTorch cannot be imported ({reason(error)})", "pip install --force-reinstall torch torchvision")
        return
    cores, threads = usable_cores(), torch.get_num_threads()
    cpu = f"CPU: {cores} cores, of which PyTorch uses {threads}"
    yield ok(cpu) if threads >= cores else note(cpu, "unset OMP_NUM_THREADS where nothing else runs")
    devices = [torch.device("cuda", i) for i in range(torch.cuda.device_count())]
    fitting = "install a PyTorch that fits the driver: https://pytorch.org/get-started/locally"
    try:
        for device in devices:
            memory = torch.cuda.get_device_properties(device).total_memory / 2**30
            yield ok(f"GPU {device.index}: {torch.cuda.get_device_name(device)}, {memory:.0f} GiB")
    except (RuntimeError, AssertionError) as error:  # the driver counts it, and CUDA does not start
        yield note(f"there is a GPU that PyTorch {torch.__version__} cannot use ({reason(error)})", fitting)
        return
    if not devices and (shutil.which("nvidia-smi") or Path("/proc/driver/nvidia/version").exists()):
        yield note(f"there is an NVIDIA driver, and PyTorch {torch.__version__} sees no GPU", fitting)
    elif not devices:
        yield ok("no GPU: trainings run on the CPU; digits and points need no more")
    wide = narrow(devices[0] if devices else torch.device("cpu"))
    yield ok(f"trainer.precision=auto: {wide}" + (" for wide networks, 32-true for others" if wide != "32-true" else ""))
    compiler = os.environ.get("CXX", "g++")
    none = note(f"compile=true needs a C++ compiler, and {compiler} is not found", "install one, or leave compile=auto")
    yield ok(f"compile=true: {compiler}") if shutil.which(compiler) else none


def reason(error: BaseException) -> str:
    """The first line of what an error says."""
    return (str(error).splitlines() or [type(error).__name__])[0]


def usable_cores() -> int:
    """How many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def main() -> None:
    """The command; exit code 1 where something that is required is missing."""
    parser = argparse.ArgumentParser(prog=f"{NAME} doctor", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data-dir", type=Path, default=os.environ.get("HEATGEN_DATA", "data"), help="where data sets are")
    parser.add_argument("--runs-dir", type=Path, default=os.environ.get("HEATGEN_RUNS", "runs"), help="where runs go")
    options = parser.parse_args()
    failed = 0
    for found in checks(options.data_dir, options.runs_dir):
        failed += found.mark == "fail"
        print(painted(str(found), sys.stdout), flush=True)
    end = f"{failed} required things are missing" if failed else f"all that is required is here; next: {call('train')}"
    print(f"\n{end}")
    sys.exit(1 if failed else 0)
