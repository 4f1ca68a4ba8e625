"""All soak scripts one after the other, each for its share of so many minutes: python -m tests.soak MINUTES [SCRIPT...]."""

import argparse
import os
import runpy
import sys
import time

from tests.soak import jobs

SHARES = {  # of the time
    "kills": 30,
    "configurations": 18,
    "inputs": 18,
    "pairs": 12,
    "signals": 10,
    "sweeps": 6,
    "ranks": 4,
    "hostile": 2,
}


def run(name: str, *arguments: str) -> bool:
    """One script in a fork of this process; whether it has found something bad."""
    sys.stdout.flush()
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            sys.argv = [f"tests.soak.{name}", *arguments]
            runpy.run_module(f"tests.soak.{name}", run_name="__main__", alter_sys=True)
        except SystemExit as stop:
            code = int(stop.code or 0)
        finally:
            sys.stdout.flush()
            os._exit(code)
    return os.waitpid(pid, 0)[1] != 0


def main() -> int:
    """The command; 1 where one of the scripts has found something bad."""
    parser = argparse.ArgumentParser(prog="python -m tests.soak", description=str(__doc__).splitlines()[0])
    parser.add_argument("minutes", nargs="?", type=float, default=10, help="of all scripts together (default 10)")
    parser.add_argument("scripts", nargs="*", help=f"default: {' '.join(SHARES)}")
    parser.add_argument("--seed", type=int, default=int(time.time()) % 100000, help="of the trials (default: the time)")
    options = parser.parse_args()
    jobs.warm()
    names, bad = options.scripts or list(SHARES), False
    for name in names:
        share = options.minutes * SHARES[name] / sum(SHARES[name] for name in names)
        bad |= run(name, "1000000", f"--minutes={share:.3f}", f"--seed={options.seed}")
    return int(bad)


if __name__ == "__main__":
    sys.exit(main())
