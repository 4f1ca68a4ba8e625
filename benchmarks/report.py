"""The entries of a benchmark for its readers: on the screen, as Markdown, as a figure."""

import math
import os
import platform
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table

from benchmarks.floors import Floors
from benchmarks.harness import Entry, Growth, Note, Row
from heatgen.metric.pictures.figure import DOUBLE, plots, save, styled
from heatgen.report.page import cell, markdown_table

BARS = 60  # rows of a figure


def ratio(entry: Row) -> str:
    """A ratio to two figures behind the point."""
    return f"{entry.ratio:.2f}"


def cells(entry: Row) -> list[str]:
    """A row of the table."""
    share = "" if not entry.floor else f"{100 * entry.floor / entry.value:.3g} % ({entry.bound})"
    spread = f"{entry.low:.2f} to {entry.high:.2f}" if entry.rounds > 1 else "one run"
    facts = "".join(f"; {key}: {value}" for key, value in entry.facts.items())
    values = [f"{value:.4g} {entry.unit}" for value in (entry.value, entry.other_value)]
    return [entry.name + facts, entry.ours, entry.other, ratio(entry), spread, *values, share]


def growth_cells(entry: Growth) -> list[str]:
    """A row of the table of exponents."""
    slope, error = entry.fit
    points = ", ".join(f"{cell(x)}: {y:.3g} {entry.unit}" for x, y in entry.points)
    return [entry.name, entry.variable, f"{slope:.2f}" + ("" if math.isnan(error) else f" ± {error:.2g}"), points]


ROW_HEADINGS = ["what", "ours", "beside", "ratio", "quartiles", "ours takes", "beside takes", "floor / ours"]
GROWTH_HEADINGS = ["what", "grows with", "exponent", "points"]


def show(entries: Sequence[Entry]) -> None:
    """Print the entries of a benchmark."""
    console = Console(width=None if os.isatty(1) else 200)
    rows, growths = [e for e in entries if isinstance(e, Row)], [e for e in entries if isinstance(e, Growth)]
    for headings, lines in ((ROW_HEADINGS, [cells(e) for e in rows]), (GROWTH_HEADINGS, [growth_cells(e) for e in growths])):
        if lines:
            table = Table(*headings)
            for line in lines:
                table.add_row(*line)
            console.print(table)
    for note in (e for e in entries if isinstance(e, Note)):
        console.print(f"left out: {note.name}: {note.text}", markup=False, highlight=False)


def machine(device: torch.device, floors: Floors) -> dict[str, object]:
    """Where it was measured."""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else processor()
    return {
        "device": name,
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "python": platform.python_version(),
        "copy GB/s": round(floors.bandwidth / 1e9, 1),
        **{f"{key} GFLOP/s": round(peak / 1e9) for key, peak in floors.peaks.items()},
        "launch us": round(floors.launch * 1e6, 2),
    }


def processor() -> str:
    """The name of the CPU."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    named = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(named, platform.processor() or platform.machine())


def markdown(title: str, command: str, facts: Mapping[str, object], entries: Mapping[str, Sequence[Entry]]) -> str:
    """The page of a whole benchmark.

    Args:
        title: of the page; also the name of its JSON.
        command: that wrote it.
        facts: of the machine.
        entries: by the name of the benchmark.
    """
    lines = [f"# {title}", "", f"Written by `{command}`; the same as data: [{title}.json]({title}.json).", ""]
    lines += [", ".join(f"{key} {value}" for key, value in facts.items()) + ".", ""]
    lines += [
        "A ratio is the time of what stands beside over ours, run in turn in one process: above 1 ours is faster (with MiB: "
        "smaller). Quartiles are over the rounds. The floor is what ours would take at the peak of this machine.",
        "",
    ]
    for name, found in entries.items():
        lines += [f"## {name}", "", *listed(found), ""]
    return "\n".join(lines)


def listed(entries: Sequence[Entry]) -> list[str]:
    """Entries as tables of a page, and what was left out below them."""
    rows, growths = [e for e in entries if isinstance(e, Row)], [e for e in entries if isinstance(e, Growth)]
    lines = [*markdown_table(ROW_HEADINGS, [cells(e) for e in rows]), ""] if rows else []
    lines += [*markdown_table(GROWTH_HEADINGS, [growth_cells(e) for e in growths]), ""] if growths else []
    return [*lines, *(f"Left out: {e.name}: {e.text}." for e in entries if isinstance(e, Note))]


@styled()
def draw(entries: Mapping[str, Sequence[Entry]], path: Path, title: str) -> None:
    """A bar for each ratio on a log scale, with its quartiles, and a panel with the growths."""
    rows = [e for found in entries.values() for e in found if isinstance(e, Row) and e.unit == "ms"][:BARS]
    growths = [e for found in entries.values() for e in found if isinstance(e, Growth) and len(e.points) > 1]
    plt = plots()
    height = max(4.0, 0.22 * len(rows) + 1)
    figure, (left, right) = plt.subplots(1, 2, figsize=(2 * DOUBLE, height), layout="constrained", width_ratios=(3, 2))
    places, ratios = range(len(rows)), [row.ratio for row in rows]
    errors = [[row.ratio - row.low for row in rows], [row.high - row.ratio for row in rows]]
    left.barh(places, ratios, xerr=errors, height=0.7, color=["C0" if r >= 1 else "C1" for r in ratios], log=True)
    left.axvline(1, color="black", linewidth=1)
    names = [f"{row.benchmark}: {row.name}: {row.ours} beside {row.other}" for row in rows]
    left.set(yticks=places, yticklabels=names, ylim=(len(rows) - 0.5, -0.5), xlabel="times as fast")
    left.tick_params(axis="y", labelsize=6)
    for growth in growths:
        x, y = zip(*growth.points, strict=True)
        label = f"{growth.name}, {growth.variable}: {growth.fit[0]:.2f}"
        right.loglog([a / x[0] for a in x], [b / y[0] for b in y], marker="o", label=label)
    right.set(xlabel="size, relative to the smallest", ylabel="time or memory, likewise", title="growth, with its exponent")
    right.legend(fontsize=6, loc="upper center", bbox_to_anchor=(0.5, -0.06))
    figure.suptitle(title)
    save(figure, path)
