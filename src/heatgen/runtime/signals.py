"""Signals that ask a process to end, and children that end with their parent.

A process that has nothing to save obeys at once: its `finally` clauses run, and it ends with exit code 128 + n and without a
traceback. A training notes the signal, saves at its next step and ends itself. A process that waits for others hands it on
and ends after them. A second Ctrl-C ends at once, whatever is being done.
"""

import _thread
import atexit
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
from types import FrameType

ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT, signal.SIGUSR1, signal.SIGUSR2)
PARENT = "HEATGEN_PARENT"  # in the environment of a child: the process id of its parent
CLEANING = 10  # seconds that `finally` clauses may take
SAVING = 3  # seconds that a training may take which has lost its parent
POLL = 0.25  # seconds from one look at the parent to the next

Handler = Callable[[int, FrameType | None], object]

_received: list[int] = []  # in this order
_foreign: dict[int, Handler] = {}  # the handlers of a launcher, which wait while a training notes
_children: list["subprocess.Popen[bytes]"] = []  # of `waiting_for`
_noting = 0  # whether signals are noted; contexts within contexts are counted
_orphaned = False  # whether the parent of this process has ended
_advice = ""  # how the user goes on after a signal


class Stopped(SystemExit):
    """The end that a signal asked for; exit code 128 + number.

    Args:
        number: of the signal.
        said: whether the user has been told.
    """

    def __init__(self, number: int, said: bool = False):
        super().__init__(128 + number)
        self.number, self.said = number, said


def name_of(number: int) -> str:
    """A signal in words."""
    return "Ctrl-C" if number == signal.SIGINT else signal.Signals(number).name


def caught() -> int:
    """The first signal that asked this process to end; 0 where none did."""
    return _received[0] if _received else 0


def advise(how: str) -> None:
    """Say how the user goes on, should a signal end this process from here on."""
    global _advice
    _advice = how


def advice() -> str:
    """What `advise` was given last; "" for nothing."""
    return _advice


def stop_if_caught(said: bool = False) -> None:
    """Stopped, where a signal was noted."""
    if _received:
        raise Stopped(_received[0], said)


def _receive(number: int, frame: FrameType | None) -> None:
    """The handler of all of them."""
    first = not _received
    _take(number)
    if first and not _noting:
        _thread.start_new_thread(_end_later, (128 + number,))  # where something swallows the exception
        raise Stopped(number)


def _take(number: int) -> None:
    """Note a signal; a second Ctrl-C ends at once."""
    again = number == signal.SIGINT and signal.SIGINT in _received
    _received.append(number)
    if again:
        for child in _children:
            child.kill()
        os._exit(128 + number)


def _end_later(code: int) -> None:
    time.sleep(CLEANING)
    if not _noting:
        os._exit(code)


def _is_foreign(number: int) -> bool:
    """Whether a signal is not ours to handle: a launcher's own, such as that of submitit, or a hangup that nohup ignores."""
    handler = signal.getsignal(number)
    if handler == signal.SIG_IGN:
        return number == signal.SIGHUP
    ours = (signal.SIG_DFL, signal.default_int_handler, _receive)
    return number in (signal.SIGUSR1, signal.SIGUSR2) and handler not in ours


def obey() -> None:
    """From here on a signal ends this process; SIGUSR1 and SIGUSR2 are left to whoever handles them.

    Whoever was kept waiting while a training noted hears now of the signals that came, in this order.
    """
    global _noting
    _noting = 0
    if threading.current_thread() is not threading.main_thread():
        return
    waiting: dict[int, Handler] = {number: _foreign.pop(number) for number in list(_foreign)}
    for number in ENDING:
        if number in waiting:
            signal.signal(number, waiting[number])
        elif not _is_foreign(number):
            signal.signal(number, _receive)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, ENDING)  # which a parent blocks while this process starts
    for came in [came for came in _received if came in waiting]:
        waiting[came](came, None)


def note() -> None:
    """From here on signals are noted (`caught`), not obeyed, until `obey`; also those that somebody else handles."""
    global _noting
    _noting = 1
    if threading.current_thread() is not threading.main_thread():
        return
    for number in ENDING:
        handler = signal.getsignal(number)
        if _is_foreign(number) and callable(handler):
            _foreign[number] = handler
        if not _is_foreign(number) or callable(handler):
            signal.signal(number, _receive)


@contextmanager
def noted() -> Iterator[None]:
    """Signals are noted in here; afterwards they are obeyed again, and whoever handled them before hears of them."""
    note()
    try:
        yield
    finally:
        obey()


@contextmanager
def obeyed() -> Iterator[None]:
    """An entry point: signals end it. The handlers of before are put back at its end; Ctrl-C then ends it without a word."""
    _received.clear()
    advise("")
    main = threading.current_thread() is threading.main_thread()
    before = {number: signal.getsignal(number) for number in ENDING} if main else {}
    obey()
    try:
        yield
    finally:
        for number, handler in before.items():
            if handler is not None:
                signal.signal(number, handler)
        atexit.register(signal.signal, signal.SIGINT, signal.SIG_DFL)


# children ----------------------------------------------------------------------------------------------------------------


def start(command: Sequence[str], environment: dict[str, str], **options: object) -> "subprocess.Popen[bytes]":
    """A child in a session of its own, so that a terminal reaches this process alone; it ends with this process.

    Signals are kept for it until it can obey them.

    Args:
        command: its words.
        environment: its variables.
        options: of Popen.
    """
    own = environment | {PARENT: str(os.getpid())}
    before = signal.pthread_sigmask(signal.SIG_BLOCK, ENDING)  # which the child inherits
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
    global _children, _noting
    told: dict[int, int] = {}  # by process id, how many of the signals

    def hand_on() -> None:
        for child in children:
            for number in _received[told.get(child.pid, 0) :]:
                child.send_signal(number)
            told[child.pid] = len(_received)

    before, _children = _children, children
    _noting += 1
    try:
        yield hand_on
    finally:
        _children = before
        _noting = max(0, _noting - 1)
        for child in children:
            child.kill()
            child.wait()
    stop_if_caught(said=True)


def end_with_parent() -> None:
    """End this process when the one that started it has ended, however: a training may save before.

    It is the one that `start` put into the environment; where there is none nothing is done.
    """
    word = os.environ.pop(PARENT, "")
    if word.isdigit() and (parent := int(word)) != os.getpid():
        _thread.start_new_thread(_watch, (parent, SAVING))


def in_loader(_: int) -> None:
    """What a data loading process begins with: it ends with its trainer, and leaves all signals to it."""
    for number in ENDING:
        signal.signal(number, signal.SIG_IGN)
    if (parent := parent_process()) and parent.pid:
        _thread.start_new_thread(_watch, (parent.pid, 0))


def orphaned() -> bool:
    """Whether this process ends because the one that started it has ended."""
    return _orphaned


def _watch(parent: int, saving: int) -> None:
    global _orphaned
    while os.getppid() == parent:
        time.sleep(POLL)
    _orphaned = True
    if saving:
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(saving)
    os._exit(128 + signal.SIGTERM)


def hand_on_to_workers(own: bool) -> None:
    """From here on signals go to all processes below this one that handle them, and this one waits for their end.

    Args:
        own: whether the processes are a part of this one, so that they end with it, and a signal waits for them to begin.
    """
    global _noting
    _noting = 1
    if own:
        os.environ[PARENT] = str(os.getpid())
        signal.pthread_sigmask(signal.SIG_BLOCK, ENDING)  # which they inherit, until they can obey
        command = [sys.executable, "-S", __file__, str(os.getpid())]
        nowhere = subprocess.DEVNULL
        subprocess.Popen(command, stdin=nowhere, stdout=nowhere, stderr=nowhere, start_new_session=True)
    _thread.start_new_thread(_tell_workers, ())


def _tell_workers() -> None:
    told: set[int] = set()
    while True:
        if came := signal.sigtimedwait(ENDING, POLL / 2):
            _take(came.si_signo)
        for worker in workers(os.getpid()) - told if _received else ():
            number = signal.SIGTERM if _received[0] == signal.SIGINT else _received[0]  # not a second Ctrl-C
            with suppress(ProcessLookupError):
                os.kill(worker, number)
            told.add(worker)


def workers(root: int) -> set[int]:
    """The processes below `root` that handle the signals that ask to end; none where the system does not say which."""
    below, parents = {root}, {}
    for status in Path("/proc").glob("[0-9]*/status"):
        with suppress(OSError, ValueError):
            facts = dict(line.split(":\t", 1) for line in status.read_text().splitlines() if ":\t" in line)
            parents[int(status.parent.name)] = int(facts["PPid"]), int(facts.get("SigCgt", "0"), 16)
    while more := {child for child, (parent, _) in parents.items() if parent in below} - below:
        below |= more
    wanted = sum(1 << (number - 1) for number in ENDING)
    return {process for process in below - {root} if parents[process][1] & wanted == wanted}


def sweep_up(parent: int) -> None:
    """Wait for the end of the parent of this process, and end those of its workers that have not begun to watch it."""
    while os.getppid() == parent:
        time.sleep(POLL)
    time.sleep(SAVING)
    sign = f"{PARENT}={parent}".encode()
    for environment in Path("/proc").glob("[0-9]*/environ"):
        with suppress(OSError):
            if (process := int(environment.parent.name)) != os.getpid() and sign in environment.read_bytes().split(b"\0"):
                os.kill(process, signal.SIGKILL)


def begin_job() -> None:
    """Begin a job in a process of a launcher: signals end it, and its sweep's end is its own."""
    obey()
    end_with_parent()
    stop_if_caught()


if __name__ == "__main__":
    sweep_up(int(sys.argv[1]))
