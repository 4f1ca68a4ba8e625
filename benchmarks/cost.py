"""What the published settings cost: python -m benchmarks.cost [--results FILE ...] prints a table in Markdown.

A step of a network that `python -m benchmarks --only steps` has timed takes that time, in the fastest precision and layout
that was timed, for as many images as a step has. Of the others it is an estimate: the operations of their network (three
passes for one of training, four with net.checkpointing), each as fast as those of the timed network that has nearly as many.
"""

import argparse
import json
import math
import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.child import ROOT
from heatgen.check import ConfigError
from heatgen.report.page import markdown_table
from heatgen.runtime.explain import entry

if TYPE_CHECKING:
    from omegaconf import DictConfig

CONF = ROOT / "conf" / "experiment"
RESULTS = ("docs/results/performance.json", "docs/results/gpu.json", "runs/benchmarks/performance.json")
TIMED = re.compile(r"(\w+), batch (\d+), training")  # the name of a row
HEADINGS = ("experiment", "steps", "images a step", "GFLOP an image", "a step takes", "all take", "how it is known")
UNITS = {"years": 365.25 * 86400, "days": 86400.0, "hours": 3600.0, "minutes": 60.0, "s": 1.0, "ms": 1e-3}


@dataclass(frozen=True)
class Setting:
    """A shipped training: its steps, the images of each, and the operations of a training pass of one."""

    name: str
    steps: int
    images: int
    flops: float


def settings() -> list[Setting]:
    """Every experiment of one network; those that are tables of small ones say in their files what they are sized for."""
    from heatgen.app.compose import compose

    names = [path.stem for path in sorted(CONF.glob("[!_]*.yaml")) if "MULTIRUN" not in path.read_text()]
    configs = {name: compose(f"experiment={name}") for name in names}
    return [
        Setting(name, cfg.trainer.max_steps, cfg.data.batch_size * cfg.trainer.accumulate_grad_batches, flops(cfg))
        for name, cfg in configs.items()
    ]


def flops(cfg: "DictConfig") -> float:
    """Operations of a training pass of one image through its network, which is built and called without numbers."""
    import torch

    from benchmarks.floors import count
    from heatgen.app.build import instantiate

    node = cfg.net
    with torch.device("meta"), torch.no_grad():
        net = instantiate(node)
        channels, *sides = node.shape
        x, t = torch.empty(1, channels * node.get("inputs", 1), *sides), torch.zeros(1)
        forward = count(lambda: net(x, t, torch.zeros(1, 2) if node.get("conditional") else None))
    window = cfg.model.get("window_final") or 1  # of smdp: steps of the network for one of training, at most
    return (4 if node.get("checkpointing") else 3) * forward * window


def timed(path: Path) -> tuple[str, dict[str, float]] | None:
    """The device of a file of results, and seconds of training an image by experiment; None where it has none to trust."""
    first, *rest = json.loads(path.read_text())
    if len(rest) == 1 and "kind" not in rest[0]:  # that of benchmarks.gpu
        first, *rest = rest[0].get("table", {}).get("rows") or [first]
    found: dict[str, float] = {}
    for row in rest if not first.get("quick") else ():
        if row.get("benchmark") == "steps" and (match := TIMED.fullmatch(row["name"])):
            own = min(row["value"], row["other_value"]) / 1e3 / int(match[2])
            found[match[1]] = min(own, found.get(match[1], math.inf))
    return (str(first["device"]), found) if found else None


def rows(wanted: Sequence[Setting], seconds: Mapping[str, float]) -> list[list[str]]:
    """The rows of a table, one a setting, from seconds of training an image of some of them."""
    known = [one for one in wanted if one.name in seconds]
    table = []
    for one in wanted:
        near = min(known, key=lambda other: abs(math.log(other.flops / one.flops)))
        step = one.images * seconds[near.name] * one.flops / near.flops
        how = "measured" if near is one else f"estimate, as fast as {near.name}"
        sizes = [f"{one.steps:,}", str(one.images), f"{one.flops / 1e9:.3g}"]
        table.append([one.name, *sizes, duration(step), duration(step * one.steps), how])
    return table


def duration(seconds: float) -> str:
    """Seconds in the largest unit of which they are two or more."""
    unit = next((unit for unit, size in UNITS.items() if seconds >= 2 * size), "ms")
    return f"{seconds / UNITS[unit]:.3g} {unit}"


def main() -> None:
    """Print a table for each machine. ConfigError where no file has a time."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.cost", description="What the published settings cost.")
    parser.add_argument("--results", nargs="+", type=Path, help="files of results; default: those that there are")
    options = parser.parse_args(sys.argv[1:])
    paths = options.results or [path for path in map(ROOT.joinpath, RESULTS) if path.is_file()]
    found = dict(known for path in paths if (known := timed(path)))  # of one machine, the last
    if not found:
        names = ", ".join(map(str, paths)) or " and ".join(RESULTS)
        raise ConfigError(f"No time of a training step is in {names}; run python -m benchmarks --only steps.")
    wanted = settings()
    for device, seconds in found.items():
        print(f"One {device}:\n", *markdown_table(HEADINGS, rows(wanted, seconds)), "", sep="\n")


if __name__ == "__main__":
    entry(main)
