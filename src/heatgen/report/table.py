"""A result, told: a table on the screen, JSON in the run, rows in the experiment's table, a figure of its series."""

import json
import math
import sys
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from heatgen.metric.metric import Result
from heatgen.picture import save_gif
from heatgen.runtime import directory
from heatgen.runtime.command import command_line

SHOWN = 11  # rows of a series on the screen; the JSON has them all
FILM = 150  # milliseconds that each picture of a film is seen


def number(value: float) -> str:
    """Six figures, as a reader wants them."""
    return f"{value:.6g}"


def report(
    result: Result,
    mode: str,
    run: Path,
    runs_dir: str,
    experiment: str,
    parameter: tuple[str, Any] | None,
    picture: str | None = None,
    variant: Any = None,
) -> Path:
    """Print the result, write it to <run>/evaluation and add it to the experiment's table; the path of the JSON file.

    variant: the name of this way of measuring, which has its own row where runs are compared; None for the run's own.
    """
    console = Console(width=None if sys.stdout.isatty() else 160)
    title = f"{mode}: {run.name}" + ("" if variant is None else f", {variant}")
    console.print(table_of_values(result, escape(title)))
    if result.series:
        console.print(table_of_series(result.series))
    for key, fact in result.facts.items():
        console.print(f"{key}: {fact}", highlight=False, markup=False, soft_wrap=True)
    for note in result.notes:
        console.print(f"Note: {note}", highlight=False, markup=False, soft_wrap=True)

    content = {
        "mode": mode,
        "run": str(run),
        "variant": None if variant is None else str(variant),
        "values": result.values,
        "standard_errors": result.errors,
        "headline": list(result.headline or list(result.values)[:1]),
        "facts": result.facts,
        "notes": result.notes,
        "parameter": None if parameter is None else {parameter[0]: parameter[1]},
        "series": result.series,
        "references": result.references,
    }
    path = directory.write_result(run, mode, json.loads(json.dumps(content, default=str)))
    if result.series:
        draw_series(result.series, path.with_suffix(".png"), mode)
    stills = []
    for name, image in result.pictures.items():
        if isinstance(image, list):
            save_gif(path.with_name(f"{path.stem}_{name}.gif"), image, FILM)
            continue
        image.save(path.with_name(f"{path.stem}_{name}.png"))
        stills.append(image)
    if picture is not None and stills:
        Path(picture).parent.mkdir(parents=True, exist_ok=True)
        stills[0].save(picture)
    elif picture is not None:
        console.print(f"Note: mode={mode} draws no picture, so {picture} is not written.", markup=False, soft_wrap=True)
    swept = dict(zip(("param_name", "param_value"), parameter or ("", ""), strict=True))
    common = {
        "time": datetime.now().isoformat(timespec="seconds"),
        "experiment": experiment,
        "run": "/".join(run.parts[-2:]),
        "mode": mode,
        "facts": "; ".join(f"{key}: {fact}" for key, fact in result.facts.items()),
        "command": command_line(),
    }
    rows = [
        common | swept | {"metric": key, "value": value, "standard_error": result.errors.get(key)}
        for key, value in result.values.items()
    ]
    results = directory.append_results(runs_dir, experiment, rows)
    console.print(f"written: {path}\nadded to: {results}", highlight=False, markup=False, soft_wrap=True)
    return path


def table_of_values(result: Result, title: str) -> Table:
    """Every value with its standard error."""
    table = Table(title=title, title_justify="left")
    table.add_column("metric")
    table.add_column("value", justify="right")
    table.add_column("standard error", justify="right")
    for key, value in result.values.items():
        error = result.errors.get(key)
        table.add_row(escape(key), number(value), "" if error is None else number(error))
    return table


def table_of_series(series: Mapping[str, Sequence[float]]) -> Table:
    """The series side by side, at about ten of their places."""
    table = Table()
    for name in series:
        table.add_column(escape(name), justify="right")
    length = len(next(iter(series.values())))
    for i in sorted({round(j * (length - 1) / (SHOWN - 1)) for j in range(SHOWN)}) if length else []:
        table.add_row(*[number(column[i]) for column in series.values()])
    return table


def draw_series(series: Mapping[str, Sequence[float]], path: Path, title: str) -> None:
    """A figure of every series against the first one: a panel each, on a log scale where it spans many orders."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    (x_name, x), *others = series.items()
    columns = min(3, len(others))
    rows = math.ceil(len(others) / columns)
    figure, axes = plt.subplots(rows, columns, figsize=(4.2 * columns, 3 * rows), layout="constrained", squeeze=False)
    for panel, (name, y) in zip(axes.flat, others, strict=False):
        panel.plot(x, y, marker="o" if len(y) < 20 else "")
        panel.set(xlabel=x_name, title=name)
        finite = [value for value in y if math.isfinite(value)]
        if finite and min(finite) > 0 and max(finite) > 1000 * min(finite):
            panel.set_yscale("log")
    for panel in list(axes.flat)[len(others) :]:
        panel.axis("off")
    figure.suptitle(title)
    figure.savefig(path, dpi=110)
    plt.close(figure)


def report_sweep(parameter: str, values: Sequence[float], results: Sequence[Result], mode: str, run: Path) -> Path:
    """The headline values of results at several values of a parameter: a table, a figure and JSON in <run>/evaluation."""
    names = results[0].headline or list(results[0].values)[:1]
    series = {parameter: list(values)} | {name: [result.values.get(name, math.nan) for result in results] for name in names}
    console = Console(width=None if sys.stdout.isatty() else 160)
    console.print(table_of_series(series))
    path = directory.write_result(run, f"{mode}_{parameter}", {"mode": mode, "parameter": parameter, "series": series})
    draw_series(series, path.with_suffix(".png"), mode)
    console.print(f"written: {path} and .png", highlight=False, markup=False, soft_wrap=True)
    return path
