"""All soak scripts one after the other, each for its share of so many minutes: python -m tests.soak MINUTES [SCRIPT...]."""

import subprocess
import sys

from tests.soak.jobs import ROOT

SHARES = {  # of the time
    "kills": 30,
    "configurations": 20,
    "inputs": 20,
    "pairs": 12,
    "signals": 8,
    "sweeps": 5,
    "ranks": 3,
    "hostile": 2,
}


def main(arguments: list[str]) -> int:
    """The command; 1 where one of the scripts has found something bad."""
    minutes, names = float(arguments[0] if arguments else 10), arguments[1:] or list(SHARES)
    whole = sum(SHARES[name] for name in names)
    bad = 0
    for name in names:
        share = f"--minutes={minutes * SHARES[name] / whole:.3f}"
        bad |= subprocess.run([sys.executable, "-m", f"tests.soak.{name}", "1000000", share], cwd=ROOT).returncode
    return bad


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
