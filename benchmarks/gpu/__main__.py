"""The command: python -m benchmarks.gpu [--minutes 9.5] [--only PART ...] [--out DIR] [--device cpu --tiny]."""

import argparse
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from benchmarks.child import ROOT, environment
from benchmarks.gpu.parts import PARTS, Found, Part, Way
from heatgen.check import ConfigError
from heatgen.runtime.children import start
from heatgen.runtime.explain import entry
from heatgen.runtime.files import absolute, write_text

TAIL = 1500  # characters that are kept of the output of a part that failed
ENDING = 10  # seconds that a part has to end once it is told to
LEAST = 20  # seconds that a part is begun for


def options_of(arguments: list[str]) -> argparse.Namespace:
    """What was asked for."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu", description="Tests, figures and trainings on a GPU.")
    parser.add_argument("--minutes", type=float, default=9.5, help="of all of it, at most")
    parser.add_argument("--only", nargs="+", choices=[part.name for part in PARTS], help="these parts alone")
    parser.add_argument("--device", default="cuda", choices=("cuda", "cpu"), help="cpu: to see that the command works")
    parser.add_argument("--tiny", action="store_true", help="the smallest sizes")
    parser.add_argument("--work", default=f"{os.environ.get('HEATGEN_RUNS', 'runs')}/gpu", help="where the parts write")
    parser.add_argument("--out", default="docs/results", help="where gpu.md and gpu.json go")
    return parser.parse_args(arguments)


def run(part: Part, way: Way, seconds: float, found: Found) -> None:
    """Run a part; what it found, how long it took and how it ended go into `found`, also where this command is ended."""
    begin, log, limit = time.monotonic(), way.folder / f"{part.name}.log", min(part.seconds, seconds)
    own = environment() | {"HEATGEN_CUDA_TESTS": way.device, "PYTHONUNBUFFERED": "1"}
    found |= {"seconds": 0.0, "ended": "with this command"}
    command = part.command(way, limit)
    with log.open("w") as file:
        child = start(command, own, cwd=ROOT, stdout=file, stderr=subprocess.STDOUT)
        try:
            found["ended"] = child.wait(limit)
        except subprocess.TimeoutExpired:
            found["ended"] = "its time was over"
        finally:
            end(child)
            found["seconds"] = round(time.monotonic() - begin, 1)
            try:
                found |= part.read(way)
            except Exception as error:  # whatever a process leaves that was ended: the other parts go on
                found["nothing to read"] = f"{type(error).__name__}: {error}"
            if found["ended"] != 0:
                found["said"] = log.read_text(errors="replace")[-TAIL:]


def end(child: "subprocess.Popen[bytes]") -> None:
    """Ask a child to end, see that it does, and that none of its workers stays."""
    if child.poll() is None:
        child.terminate()
        try:
            child.wait(ENDING)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(child.pid, signal.SIGKILL)  # `start` gave it a group of its own


def machine(device: str) -> Found:
    """The card and what drives it."""
    import torch

    facts: Found = {"torch": torch.__version__, "cores": os.cpu_count()}
    if device == "cuda":
        card = torch.cuda.get_device_properties(0)
        facts |= {"card": card.name, "memory GiB": round(card.total_memory / 2**30), "CUDA": torch.version.cuda}
    return facts


def markdown(facts: Mapping[str, object], found: Mapping[str, Found]) -> str:
    """The page of all parts so far."""
    from benchmarks.harness import Entry, of_json
    from benchmarks.report import listed

    lines = ["# gpu", "", "Written by `python -m benchmarks.gpu`; the same as data: [gpu.json](gpu.json).", ""]
    lines += [", ".join(f"{key} {value}" for key, value in facts.items()) + ".", ""]
    for name, content in found.items():
        lines += [f"## {name}", "", f"{content['seconds']} s, ended: {content['ended']}.", ""]
        rows = content.get("rows")
        if isinstance(rows, list):
            entries: list[Entry] = [of_json(row) for row in rows if row["kind"] != "machine"]
            lines += [*listed(entries), ""]
        apart = ("seconds", "ended", "rows")
        lines += [*(f"- {key}: {json.dumps(value)}" for key, value in content.items() if key not in apart), ""]
    return "\n".join(lines)


def main() -> None:
    """Run the parts one after another, and write the page after each. ConfigError where there is no GPU."""
    options, begin = options_of(sys.argv[1:]), time.monotonic()
    import torch

    if options.device == "cuda" and not torch.cuda.is_available():
        raise ConfigError("python -m benchmarks.gpu finds no CUDA GPU here; --device cpu --tiny shows that it works.")
    folder, out = absolute(options.work), Path(options.out)
    folder.mkdir(parents=True, exist_ok=True)
    way, until = Way(options.device, options.tiny, folder), begin + 60 * options.minutes
    facts, found = machine(options.device), dict[str, Found]()
    for part in PARTS:
        left = until - time.monotonic() - 2 * ENDING
        if options.only and part.name not in options.only:
            continue
        mine = found[part.name] = {"seconds": 0.0, "ended": "no time was left"}
        try:
            if left >= LEAST:
                print(f"{part.name}: at most {min(left, part.seconds):.0f} s", flush=True)
                run(part, way, left, mine)
        except Exception as error:  # of one part costs none of the others
            mine["ended"] = f"{type(error).__name__}: {error}"
        finally:
            write_text(out / "gpu.json", json.dumps([{"kind": "machine", **facts}, found], indent=1) + "\n")
            write_text(out / "gpu.md", markdown(facts, found))
        print(f"{part.name}: {summary(mine)}", flush=True)
    print(f"written: {out / 'gpu.md'} and .json")


def summary(content: Found) -> str:
    """A part's end in a line."""
    words = [f"{content['seconds']} s", f"ended: {content['ended']}"]
    words += [f"{key} {value}" for key, value in content.items() if key in ("tests", "passed")]
    rows: Sequence[object] | object = content.get("rows")
    return ", ".join([*words, *([f"{len(rows)} rows"] if isinstance(rows, list) else [])])


if __name__ == "__main__":
    entry(main)
