"""The screen: what cannot be printed costs the screen only, never the work.

A reader that has gone (`| head`), a full disk behind `>`, a terminal that was closed, an output that was closed from the
start (`>&-`): the rest is printed to nowhere, and the work goes on.
"""

import logging
import os
import re
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TextIO, cast

COLOURS = {  # the first word of a line -> its colour on a terminal
    **dict.fromkeys(("Error:", "fail"), "1;31"),
    **dict.fromkeys(("Note:", "note"), "33"),
    **dict.fromkeys(("ok", "written:"), "32"),
    "next:": "1;36",
}
FIRST = re.compile(rf"^({'|'.join(COLOURS)})(?= )", re.MULTILINE)


def painted(text: str, stream: TextIO) -> str:
    """Text with the first word of its lines in colour where the stream is a terminal with colours and NO_COLOR is unset."""
    plain = os.environ.get("NO_COLOR") or os.environ.get("TERM", "dumb") == "dumb" or not stream.isatty()
    return text if plain else FIRST.sub(lambda found: f"\033[{COLOURS[found[1]]}m{found[1]}\033[0m", text)


def listed(label: str, rows: Sequence[tuple[str, str]]) -> str:
    """Lines such as "written: FILE  what it is", the label before the first one."""
    width = max((len(name) for name, _ in rows), default=0)
    heads = [f"{label}:" if i == 0 else "" for i in range(len(rows))]
    return "\n".join(f"{head:<9}{name:<{width}}  {what}".rstrip() for head, (name, what) in zip(heads, rows, strict=True))


class Painter(logging.Formatter):
    """A log's messages as they are, `painted` for standard output."""

    def format(self, record: logging.LogRecord) -> str:
        return painted(super().format(record), sys.stdout)


class Screen:
    """An output that never fails; everything else is that of the stream.

    Args:
        stream: where to print.
    """

    def __init__(self, stream: TextIO):
        self.stream = stream

    def write(self, text: str) -> int:
        """Print; characters that the stream does not know become question marks."""
        try:
            return self.stream.write(text)
        except UnicodeEncodeError:
            known = self.stream.encoding
            return self.write(text.encode(known, "replace").decode(known))
        except BlockingIOError:
            pass  # a pipe that is full for a moment
        except (OSError, ValueError):
            self.lose()
        return len(text)

    def writelines(self, lines: list[str]) -> None:
        """Print them all."""
        for line in lines:
            self.write(line)

    def flush(self) -> None:
        """Print what waits."""
        try:
            self.stream.flush()
        except BlockingIOError:
            pass
        except (OSError, ValueError):
            self.lose()

    def lose(self) -> None:
        """From here on print to nowhere, also what waits and what child processes print."""
        try:
            place = self.stream.fileno()
        except (OSError, ValueError):
            return
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, place)
        os.close(nowhere)

    def __getattr__(self, name: str) -> object:
        return getattr(self.stream, name)


def open_missing() -> None:
    """Open what was closed from the start, to nowhere, so that no file of ours takes its number and what is printed."""
    for place in (0, 1, 2):
        try:
            os.fstat(place)
        except OSError:
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)  # the lowest free number


def of(stream: TextIO | None) -> TextIO:
    """A Screen on a stream; on nowhere for None, which Python has for an output that was closed."""
    if isinstance(stream, Screen):
        return stream
    return cast(TextIO, Screen(open(os.devnull, "w") if stream is None else stream))


@contextmanager
def guarded() -> Iterator[None]:
    """sys.stdout and sys.stderr are Screens; to the end of the process, where they are its own."""
    open_missing()
    before = sys.stdout, sys.stderr
    sys.stdout, sys.stderr = screens = of(sys.stdout), of(sys.stderr)
    try:
        yield
    finally:
        for screen in screens:
            screen.flush()
        if before[0] not in (sys.__stdout__, None):
            sys.stdout = before[0]
        if before[1] not in (sys.__stderr__, None):
            sys.stderr = before[1]
