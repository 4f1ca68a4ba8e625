"""The children and workers of a process: signals are handed on to them, and they end with their parent, however it ends."""

import _thread
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from multiprocessing import parent_process
from pathlib import Path
from typing import TextIO, cast

from heatgen.runtime import outlived, screen, signals
from heatgen.runtime.outlived import PARENT, POLL, SAVING

SETTLED = 0.2  # seconds in which the system gives a process another parent whose own has ended
orphaned = threading.Event()  # the parent of this process has ended


def start(command: Sequence[str], environment: dict[str, str], **options: object) -> "subprocess.Popen[bytes]":
    """A child in a session of its own, so that a terminal reaches this process alone; it ends with this process.

    Signals are kept for it until it can obey them. options: of Popen.
    """
    own = environment | {PARENT: str(os.getpid())}
    before = signal.pthread_sigmask(signal.SIG_BLOCK, signals.ENDING)  # which the child inherits
    try:
        return subprocess.Popen(command, env=own, start_new_session=True, **options)  # type: ignore[call-overload,no-any-return]
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextmanager
def waiting_for(children: list["subprocess.Popen[bytes]"]) -> Iterator[Callable[[], None]]:
    """Signals are handed on to these children, and end this process after them.

    Args:
        children: which may still grow.

    Yields:
        What hands on the signals that came, to be called now and then.

    Raises:
        Stopped: a signal came.
    """
    told: dict[int, int] = {}  # by process id, how many of the signals

    def hand_on() -> None:
        for child in children:
            came = signals.received()
            for number in came[told.get(child.pid, 0) :]:
                child.send_signal(number)
            told[child.pid] = len(came)

    def kill() -> None:
        for child in children:
            child.kill()

    try:
        with signals.held(before_end=kill):
            yield hand_on
    finally:
        kill()
        for child in children:
            child.wait()
    signals.stop_if_caught(said=True)


def end_with_parent() -> None:
    """End this process when the one that started it has ended, however: a training may save before.

    It is the one that `start` put into the environment; where there is none nothing is done.
    """
    word = os.environ.pop(PARENT, "")
    if word.isdigit() and (parent := int(word)) != os.getpid():
        signals.of_a_child()
        _thread.start_new_thread(_watch, (parent, SAVING))


class Attended(screen.Screen):
    """A Screen of a child, to which nothing is printed any more when its parent has ended: what it says is of that alone."""

    def __init__(self, stream: TextIO, parent: int):
        super().__init__(stream)
        self.parent, self.last = parent, 0.0

    def write(self, text: str) -> int:
        """Print, unless the parent has ended; its connections break a moment before the system says so."""
        if time.monotonic() - self.last > 1:
            time.sleep(SETTLED)
        self.last = time.monotonic()
        return super().write(text) if os.getppid() == self.parent else len(text)


def in_loader(_: int) -> None:
    """What a data loading process begins with: it ends with its trainer, and leaves all signals to it."""
    for number in signals.ENDING:
        signal.signal(number, signal.SIG_IGN)
    if (parent := parent_process()) and parent.pid:
        sys.stderr = cast(TextIO, Attended(screen.of(sys.stderr), parent.pid))
        _thread.start_new_thread(_watch, (parent.pid, 0))


def _watch(parent: int, saving: int) -> None:
    while os.getppid() == parent:
        time.sleep(POLL)
    orphaned.set()
    if saving:
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(saving)
    os._exit(128 + signal.SIGTERM)


def hand_on_to_workers(own: bool) -> None:
    """From here on signals go to all processes below this one that handle them, and this one waits for their end.

    Args:
        own: whether the processes are a part of this one, so that they end with it, and a signal waits for them to begin.
    """
    signals.hold()
    if own:
        os.environ[PARENT] = str(os.getpid())
        signal.pthread_sigmask(signal.SIG_BLOCK, signals.ENDING)  # which they inherit, until they can obey
        command = [sys.executable, "-S", outlived.__file__, str(os.getpid())]
        nowhere = subprocess.DEVNULL
        subprocess.Popen(command, stdin=nowhere, stdout=nowhere, stderr=nowhere, start_new_session=True)
    _thread.start_new_thread(_tell_workers, ())


def end_workers() -> None:
    """End joblib's processes, which have handed in their jobs: Python would wait for them to tidy up, maybe for ever."""
    module = sys.modules.get("joblib.externals.loky.reusable_executor")
    if (executor := getattr(module, "_executor", None)) is not None:
        executor.shutdown(wait=True, kill_workers=True)


def _tell_workers() -> None:
    told: set[int] = set()
    while True:
        if came := signal.sigtimedwait(signals.ENDING, POLL / 2):
            signals.take(came.si_signo)
        for worker in workers(os.getpid()) - told if signals.caught() else ():
            number = signal.SIGTERM if signals.caught() == signal.SIGINT else signals.caught()  # not a second Ctrl-C
            with suppress(ProcessLookupError):
                os.kill(worker, number)
            told.add(worker)


def workers(root: int) -> set[int]:
    """The processes below `root` that handle the signals that ask to end, or ignore some, as below nohup; none where the
    system does not say which."""
    below, parents = {root}, {}
    for status in Path("/proc").glob("[0-9]*/status"):
        with suppress(OSError, ValueError):
            facts = dict(line.split(":\t", 1) for line in status.read_text().splitlines() if ":\t" in line)
            caught, ignored = (int(facts.get(name, "0"), 16) for name in ("SigCgt", "SigIgn"))
            parents[int(status.parent.name)] = int(facts["PPid"]), caught, caught | ignored
    while more := {child for child, (parent, *_) in parents.items() if parent in below} - below:
        below |= more
    wanted, term = sum(1 << (number - 1) for number in signals.ENDING), 1 << (signal.SIGTERM - 1)
    return {process for process in below - {root} if parents[process][1] & term and parents[process][2] & wanted == wanted}


def begin_job() -> None:
    """Begin a job in a process of a launcher: signals end it, and its sweep's end is its own."""
    signals.obey()
    end_with_parent()
    signals.stop_if_caught()
