"""Commands of heatgen: forks of a parent that has imported torch already, so that each takes a second, or real processes."""

import atexit
import contextlib
import importlib
import os
import pkgutil
import resource
import runpy
import signal
import subprocess
import sys
import threading
import time
import traceback
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NoReturn

ROOT = Path(__file__).resolve().parents[2]
MARK = "HEATGEN_SOAK"  # a word in the environment of a job, by which the processes that it started are found
VERBS = ("train", "sample", "evaluate")
GIB = 2**30

for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[name] = "1"  # no threads that a fork would lose, and the same bits everywhere
os.environ["JE_ARROW_MALLOC_CONF"] = "background_thread:false"  # of pyarrow, which comes with datasets


def warm() -> None:
    """Import all of heatgen, and what it imports late."""
    import heatgen

    for module in pkgutil.walk_packages(heatgen.__path__, "heatgen."):
        if not module.name.endswith("__main__"):
            with contextlib.suppress(ImportError):  # of an extra that is not installed
                importlib.import_module(module.name)
    for late in (
        "h5py",
        "matplotlib.pyplot",
        "sklearn.datasets",
        "lightning.pytorch.trainer",
        "imageio_ffmpeg",
        "rich.progress",
    ):
        importlib.import_module(late)
    torch = importlib.import_module("torch")
    torch.set_num_threads(1)
    assert threading.active_count() == 1 and len(os.listdir("/proc/self/task")) == 1, "a fork would lose threads"


@dataclass
class Job:
    """A command that runs in a session of its own, with its output in a file.

    Args:
        pid: of its first process.
        words: what was called.
        log: its output.
        mark: the word in the environment of what it starts.
    """

    pid: int
    words: Sequence[str]
    log: Path
    mark: str
    started: float = field(default_factory=time.monotonic)
    code: int | None = None  # as a shell has it: 128 + the number of the signal that ended it
    seconds: float = 0.0

    def poll(self) -> int | None:
        """Its exit code, None while it runs."""
        if self.code is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                code = os.waitstatus_to_exitcode(status)
                self.code, self.seconds = code if code >= 0 else 128 - code, time.monotonic() - self.started
        return self.code

    def wait(self, limit: float) -> int | None:
        """Its exit code, None if it runs longer than `limit` seconds from now."""
        deadline = time.monotonic() + limit
        while self.poll() is None and time.monotonic() < deadline:
            time.sleep(0.01)
        return self.code

    def output(self) -> str:
        """What it has printed."""
        return self.log.read_text(errors="replace") if self.log.exists() else ""

    def send(self, number: int, pid: int | None = None) -> None:
        """Send a signal to its first process, or to another of its processes."""
        if pid is not None or self.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid if pid is None else pid, number)

    def others(self) -> list[int]:
        """The processes of this job that are alive, but for its first one."""
        found = []
        for entry in os.listdir("/proc"):
            if entry.isdigit() and int(entry) != self.pid and self._owns(entry):
                found.append(int(entry))
        return found

    def _owns(self, pid: str) -> bool:
        try:
            state, _, _, session = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[:4]
            marked = f"{MARK}={self.mark}".encode() in Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
            return state != "Z" and (int(session) == self.pid or marked)
        except (OSError, ValueError):
            return False

    def orphans(self, limit: float = 5) -> list[int]:
        """The processes that are alive `limit` seconds after the first one has ended."""
        deadline = time.monotonic() + limit
        while (alive := self.others()) and time.monotonic() < deadline:
            time.sleep(0.1)
        return alive

    def end(self) -> None:
        """Kill what is left of it."""
        for pid in (*([] if self.poll() is not None else [self.pid]), *self.others()):
            self.send(signal.SIGKILL, pid)
        self.wait(10)


def command(words: Sequence[str]) -> list[str]:
    """The command line of `train ...`, `sample ...`, `evaluate ...` or `MODULE ...`, for a shell."""
    first = [str(ROOT / f"{words[0]}.py")] if words[0] in VERBS else ["-m", words[0]]
    return [sys.executable, *first, *words[1:]]


def fork(
    words: Sequence[str],
    log: Path,
    env: Mapping[str, str] | None = None,
    gate: tuple[int, int] | None = None,
    memory: float | None = None,
    streams: Mapping[int, int | str | None] | None = None,
) -> Job:
    """Start a command as a fork of this process, in the folder of its log.

    Args:
        words: train | sample | evaluate | a module, and its arguments.
        log: where its output goes.
        env: further variables of its environment.
        gate: both ends of a pipe; the command starts when this process closes the second.
        memory: GiB of address space that it may have.
        streams: file descriptors that are something else: another one, the name of a file, or None for closed.
    """
    mark, log = uuid.uuid4().hex, log.absolute()
    pid = os.fork()
    if pid:
        return Job(pid, tuple(words), log, mark)
    try:
        os.setsid()
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        redirect(log, streams or {})
        os.environ.update({MARK: mark} | dict(env or {}))
        os.chdir(log.parent)
        sys.path[1:1] = (env or {}).get("PYTHONPATH", "").split(os.pathsep)
        if memory:
            resource.setrlimit(resource.RLIMIT_AS, (int(memory * GIB), int(memory * GIB)))
        if gate:
            os.close(gate[1])
            os.read(gate[0], 1)
            os.close(gate[0])
        perform(words)
    finally:
        os._exit(70)


def redirect(log: Path, streams: Mapping[int, int | str | None]) -> None:
    """Send this process's output to a file, and give it nothing to read."""
    log.parent.mkdir(parents=True, exist_ok=True)
    output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    nothing = os.open(os.devnull, os.O_RDONLY)
    for number, source in ((0, nothing), (1, output), (2, output)):
        os.dup2(source, number)
    sys.stdout, sys.stderr = (os.fdopen(number, "w", closefd=False) for number in (1, 2))  # which pytest has replaced
    for number, name in streams.items():
        if name is None:
            os.close(number)
        else:
            os.dup2(name if isinstance(name, int) else os.open(name, os.O_RDWR), number)


def perform(words: Sequence[str]) -> NoReturn:
    """Do a command in this process and end it, as Python would."""
    code = 0
    try:
        if words[0] in VERBS:
            from heatgen.app import cli

            sys.argv = [str(ROOT / f"{words[0]}.py"), *words[1:]]
            sys.path[0] = str(ROOT)
            cli.run(words[0])
        else:
            sys.argv = list(words)
            sys.modules.pop(words[0], None)
            runpy.run_module(words[0], run_name="__main__", alter_sys=True)
    except SystemExit as stop:
        code = stop.code if isinstance(stop.code, int) else int(stop.code is not None)
    except KeyboardInterrupt:
        code = 128 + signal.SIGINT
    except BaseException:
        code = 1
        with contextlib.suppress(OSError, ValueError, AttributeError):
            traceback.print_exc()
    try:
        threading._shutdown()
        atexit._run_exitfuncs()
        sys.stdout.flush()
    except OSError:
        code = code or 120  # as Python has it where what was printed cannot be written
    os._exit(code)


def spawn(words: Sequence[str], log: Path, env: Mapping[str, str] | None = None) -> Job:
    """Start a command as a process of its own, in a session of its own and in the folder of its log."""
    mark = uuid.uuid4().hex
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("ab") as output:
        process = subprocess.Popen(
            command(words),
            env={**os.environ, MARK: mark} | dict(env or {}),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
            cwd=log.parent,
        )
    process.returncode = 0  # Job waits for it
    return Job(process.pid, tuple(words), log.absolute(), mark)
