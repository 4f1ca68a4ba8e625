"""The command: python -m benchmarks [--only NAME ...] [--quick | --full] [--device cpu | cuda] [--out DIR] [--guard]."""

import argparse
import os
import shlex
import sys
import time
from pathlib import Path

from heatgen.check import ConfigError
from heatgen.runtime.explain import entry


def options_of(arguments: list[str]) -> argparse.Namespace:
    """What was asked for."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description="How fast heatgen is, beside other ways.")
    parser.add_argument("--only", nargs="+", metavar="NAME", help="these benchmarks alone, the names of files in cases/")
    parser.add_argument("--quick", action="store_true", help="tiny sizes, to see that it works")
    parser.add_argument("--full", action="store_true", help="what takes long on a CPU too")
    parser.add_argument("--again", action="store_true", help="measure again what --out holds already")
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"), help="where; default: cpu")
    parser.add_argument("--threads", type=int, help="of the CPU; default: one a core")
    parser.add_argument("--seconds", type=float, help="begin no more benchmarks after so many; default: no limit")
    parser.add_argument("--out", default=f"{os.environ.get('HEATGEN_RUNS', 'runs')}/benchmarks", help="where results go")
    parser.add_argument("--publish", action="store_true", help="write the page to docs/results too")
    parser.add_argument("--title", default="performance", help="of the page: TITLE.md, .json and .png")
    parser.add_argument("--guard", action="store_true", help="only the ratios of budget.json; exit code 1 if one is too low")
    return parser.parse_args(arguments)


def main() -> None:
    """Measure, or guard. ConfigError for what cannot be."""
    options = options_of(sys.argv[1:])
    import torch

    from benchmarks import floors, guard
    from benchmarks.harness import Bench
    from benchmarks.suite import Suite, names

    if options.device == "cuda" and not torch.cuda.is_available():
        raise ConfigError("--device cuda finds no CUDA GPU here; use --device cpu.")
    if options.threads is not None and options.threads < 1:
        raise ConfigError(f"--threads must be at least 1, not {options.threads}.")
    if options.threads:
        torch.set_num_threads(options.threads)
    device = torch.device(options.device)
    if options.guard:
        guard.guard(Bench(device, floors.Floors(1.0, {floors.FLOAT32: 1.0}, 0.0), quick=options.quick), guard.budget())
        return
    bench = Bench(device, floors.measure(device, options.quick), options.quick, options.full)
    command = f"python -m benchmarks {shlex.join(sys.argv[1:])}".rstrip()
    until = None if options.seconds is None else time.monotonic() + options.seconds
    suite = Suite(bench, Path(options.out), options.title, command, options.again, until)
    suite.run(options.only or names())
    if options.publish:
        suite.page(Path("docs/results"), figure=True)
    print(f"written: {suite.folder / options.title}.md, .json and .png{' and docs/results' if options.publish else ''}")


if __name__ == "__main__":
    entry(main)
