"""Signals that ask this process to end; `heatgen.runtime.children` hands them on.

A process that has nothing to save obeys at once: its `finally` clauses run, and it ends with exit code 128 + n and without a
traceback. A training notes the signal, saves at its next step and ends itself. A process that waits for others ends after
them. A second Ctrl-C ends at once, whatever is being done.
"""

import _thread
import atexit
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT, signal.SIGUSR1, signal.SIGUSR2)
CLEANING = 10  # seconds that `finally` clauses may take

Handler = Callable[[int, FrameType | None], object]

_received: list[int] = []  # in this order
_foreign: dict[int, Handler] = {}  # the handlers of a launcher, which wait while a training notes
_noting = 0  # whether signals are noted; contexts within contexts are counted
_guest: dict[int, Handler] | None = None  # the handlers of a program that trains from Python; None: this is a command
_is_child = False  # whether a parent hands its signals on to this process, which may have had them already
_before_end: Callable[[], None] | None = None  # what a second Ctrl-C does first
_advice: Callable[[], str] = str  # how the user goes on after a signal; str gives ""


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


def received() -> list[int]:
    """All signals that asked this process to end, in this order."""
    return list(_received)


def of_a_child() -> None:
    """From here on a second Ctrl-C is left to the parent: one that is sent to all processes comes to this one twice."""
    global _is_child
    _is_child = True


def advise(how: str | Callable[[], str]) -> None:
    """Say how the user goes on, should a signal end this process from here on; or what tells it then."""
    global _advice
    _advice = how if callable(how) else lambda: how


def advice() -> str:
    """What `advise` was given last; "" for nothing."""
    return _advice()


def stop_if_caught(said: bool = False) -> None:
    """Stopped, where a signal was noted."""
    if _received:
        raise Stopped(_received[0], said)


def _receive(number: int, frame: FrameType | None) -> None:
    """The handler of all of them."""
    first = not _received
    take(number)
    if first and not _noting:
        _thread.start_new_thread(_end_later, (128 + number,))  # where something swallows the exception
        raise Stopped(number)


def take(number: int) -> None:
    """Note a signal that came; a second Ctrl-C ends at once, unless this process has a parent that does it."""
    again = number == signal.SIGINT and signal.SIGINT in _received and not _is_child and _guest is None
    _received.append(number)
    if again:
        if _before_end:
            _before_end()
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

    A program that this is a guest of handles all of them again. Whoever was kept waiting while a training noted hears now of
    the signals that came, in this order.
    """
    global _noting
    _noting = 0
    if threading.current_thread() is not threading.main_thread():
        return
    if _guest is not None:
        _foreign.clear()
        for number, handler in _guest.items():
            signal.signal(number, handler)
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


def hold() -> None:
    """From here on the signals that this process handles are noted, not obeyed; their handlers stay as they are."""
    global _noting
    _noting = 1


@contextmanager
def held(before_end: Callable[[], None]) -> Iterator[None]:
    """Signals are held in here.

    Args:
        before_end: what a second Ctrl-C does before it ends this process.
    """
    global _before_end, _noting
    outer, _before_end = _before_end, before_end
    _noting += 1
    try:
        yield
    finally:
        _before_end = outer
        _noting = max(0, _noting - 1)


@contextmanager
def guest() -> Iterator[None]:
    """Within it this process is somebody else's program: a training notes signals, saves and stops; nothing else is done."""
    global _guest
    _received.clear()
    advise("")
    main = threading.current_thread() is threading.main_thread()
    before = {number: signal.getsignal(number) for number in ENDING} if main else {}
    _guest = {number: handler for number, handler in before.items() if handler is not None}  # type: ignore[misc]  # or a number
    try:
        yield
    finally:
        obey()
        _guest = None


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
