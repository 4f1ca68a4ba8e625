"""A result, told: a table on the screen, JSON in the run, rows in the experiment's table, a figure of its series."""

import json
import shlex
import sys
from datetime import datetime
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from heatgen import directory
from heatgen.metric.metric import Result


def number(value: float) -> str:
    """Six figures, as a reader wants them."""
    return f"{value:.6g}"


def report(result: Result, mode: str, run: Path, runs_dir: str, experiment: str, parameter: tuple[str, Any] | None) -> Path:
    """Print the result, write it to <run>/evaluation and add it to the experiment's table; the path of the JSON file."""
    table = Table(title=f"{mode}: {run.name}", title_justify="left")
    table.add_column("metric")
    table.add_column("value", justify="right")
    table.add_column("standard error", justify="right")
    for key, value in result.values.items():
        error = result.errors.get(key)
        table.add_row(escape(key), number(value), "" if error is None else number(error))
    console = Console()
    console.print(table)
    for key, fact in result.facts.items():
        console.print(f"{key}: {fact}", highlight=False, markup=False, soft_wrap=True)
    for note in result.notes:
        console.print(f"Note: {note}", highlight=False, markup=False, soft_wrap=True)

    content = {
        "mode": mode,
        "run": str(run),
        "values": result.values,
        "standard_errors": result.errors,
        "facts": result.facts,
        "notes": result.notes,
        "parameter": None if parameter is None else {parameter[0]: parameter[1]},
        "series": result.series,
    }
    path = directory.write_result(run, mode, json.loads(json.dumps(content, default=str)))
    if result.series:
        draw_series(result.series, path.with_suffix(".png"), mode)
    swept = dict(zip(("param_name", "param_value"), parameter or ("", ""), strict=True))
    common = {
        "time": datetime.now().isoformat(timespec="seconds"),
        "experiment": experiment,
        "run": "/".join(run.parts[-2:]),
        "mode": mode,
        "facts": "; ".join(f"{key}: {fact}" for key, fact in result.facts.items()),
        "command": shlex.join(["python", Path(sys.argv[0]).name, *sys.argv[1:]]),
    }
    rows = [
        common | swept | {"metric": key, "value": value, "standard_error": result.errors.get(key)}
        for key, value in result.values.items()
    ]
    results = directory.append_results(runs_dir, experiment, rows)
    console.print(f"written: {path}\nadded to: {results}", highlight=False, markup=False, soft_wrap=True)
    return path


def draw_series(series: dict[str, list[float]], path: Path, title: str) -> None:
    """A figure of every series against the first one."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    (x_name, x), *others = series.items()
    figure, axes = plt.subplots(figsize=(6, 3.5), layout="constrained")
    for name, y in others:
        axes.plot(x, y, label=name)
    axes.set(xlabel=x_name, title=title)
    axes.legend()
    figure.savefig(path, dpi=120)
    plt.close(figure)
