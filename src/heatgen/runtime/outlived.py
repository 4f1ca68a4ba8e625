"""A program that ends the workers which outlive their parent; it is run as a file, without site-packages: it starts fast."""

import os
import signal
import sys
import time
from contextlib import suppress
from pathlib import Path

PARENT = "HEATGEN_PARENT"  # in the environment of a child: the process id of its parent
SAVING = 3  # seconds that a training may take which has lost its parent
POLL = 0.25  # seconds from one look at the parent to the next


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


if __name__ == "__main__":
    sweep_up(int(sys.argv[1]))
