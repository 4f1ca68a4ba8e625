"""A result for its readers: on the screen, as JSON in the run, as rows of the experiment's table, and its series drawn."""

import json
import math
import sys
import textwrap
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from heatgen.metric.pictures.figure import DOUBLE, MARKERS, plots, save, styled
from heatgen.metric.result import Result, Series, heading
from heatgen.runtime import directory
from heatgen.runtime.command import command_line
from heatgen.runtime.files import atomic_path, save_picture

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SHOWN = 11  # rows of a series on the screen; the JSON has them all
Written = list[tuple[Path, str]]  # files, and what each is
FILM = 150  # milliseconds that each picture of a film is shown


def report(
    result: Result,
    mode: str,
    run_dir: Path,
    runs_dir: str,
    experiment: str,
    parameter: tuple[str, object] | None,
    picture: str | None = None,
    variant: object = None,
) -> Written:
    """Write a result to <run_dir>/evaluation and the experiment's table, and print it.

    Args:
        result: what was measured.
        mode: by which mode.
        run_dir: of which run.
        runs_dir: where the tables of experiments are, in results/.
        experiment: the name of the table.
        parameter: name and value of a key that stands beside the values, None for none.
        picture: a file for the first picture, besides the one in the run.
        variant: the name of this way of measuring, which has its own row where runs are compared; None for the run's own.

    Returns:
        The files that hold it, the JSON first, and what each is.
    """
    swept = None if parameter is None else {parameter[0]: parameter[1]}
    words: dict[str, object] = {"mode": mode, "run": str(run_dir), "variant": None if variant is None else str(variant)}
    content = words | {"parameter": swept} | result.content()
    path = directory.write_result(run_dir, mode, json.loads(json.dumps(content, default=str)))
    results = directory.append_results(runs_dir, experiment, rows_of(result, mode, run_dir, experiment, parameter))
    if result.curves:
        draw_series(result.curves, mode, path.with_suffix(".png"))
    drawn = save_pictures(result, path, picture)
    console = Console(width=None if sys.stdout.isatty() else 160)  # printed last: a closed pipe loses nothing
    show(result, f"{mode}: {run_dir.name}" + ("" if variant is None else f", {variant}"), console)
    if picture is not None and not drawn:
        console.print(f"Note: mode={mode} draws no picture, so {picture} is not written.", markup=False, soft_wrap=True)
    beside = "; pictures beside it" if result.curves or result.pictures else ""
    return [(path, f"all numbers{beside}"), (results, f"a row for each number of {experiment}")]


def show(result: Result, title: str, console: Console) -> None:
    """Print values, series, facts and notes."""
    console.print(table_of_values(result, escape(title)))
    if result.curves:
        console.print(table_of_series(result.curves))
    for key, fact in result.facts.items():
        console.print(f"{key}: {fact}", highlight=False, markup=False, soft_wrap=True)
    for note in result.notes:
        console.print(f"Note: {note}", highlight=False, markup=False, soft_wrap=True)


def save_pictures(result: Result, path: Path, wanted: str | None) -> bool:
    """Write the pictures beside the JSON file `path`, the first one to `wanted` too; whether there is one that stands."""
    from heatgen.picture import save_gif  # and PyTorch, which the commands that draw results anew do without

    stills = []
    for name, image in result.pictures.items():
        if isinstance(image, list):
            with atomic_path(path.with_name(f"{path.stem}_{name}.gif")) as beside:
                save_gif(beside, image, FILM)
            continue
        save_picture(path.with_name(f"{path.stem}_{name}.png"), image)
        stills.append(image)
    if wanted is not None and stills:
        save_picture(Path(wanted), stills[0])
    return bool(stills)


def rows_of(
    result: Result, mode: str, run_dir: Path, experiment: str, parameter: tuple[str, object] | None
) -> list[dict[str, object]]:
    """A row of the experiment's table for each value."""
    common = {
        "time": datetime.now().isoformat(timespec="seconds"),
        "experiment": experiment,
        "run": "/".join(run_dir.parts[-2:]),
        "mode": mode,
        **dict(zip(("param_name", "param_value"), parameter or ("", ""), strict=True)),
        "facts": "; ".join(f"{key}: {fact}" for key, fact in result.facts.items()),
        "command": command_line(),
    }
    return [
        common | {"metric": v.name, "value": v.value, "standard_error": v.error, "unit": v.unit, "label": v.label}
        for v in result.numbers
    ]


def table_of_values(result: Result, title: str) -> Table:
    """Every value with its standard error and unit."""
    table = Table(title=title, title_justify="left")
    table.add_column("metric")
    table.add_column("value", justify="right")
    over = dict.fromkeys(result.errors_over.values())
    one, several = f" over {next(iter(over), '')}" if len(over) == 1 else "", len(over) > 1
    table.add_column(f"standard error{one}", justify="right")
    table.add_column("unit")
    for value in result.numbers:
        error = "" if value.error is None else f"{value.error:.6g}"
        error += f" ({result.errors_over[value.name]})" if several and value.name in result.errors_over else ""
        table.add_row(escape(value.label), f"{value.value:.6g}", error, escape(value.unit))
    return table


def table_of_series(curves: Sequence[Series]) -> Table:
    """The series side by side, at about ten of their places."""
    table = Table()
    for curve in curves:
        table.add_column(escape(heading(curve.label, curve.unit)), justify="right")
    length = len(curves[0].values)
    for i in sorted({round(j * (length - 1) / (SHOWN - 1)) for j in range(SHOWN)}) if length else []:
        table.add_row(*[f"{curve.values[i]:.6g}" for curve in curves])
    return table


def draw_series(curves: Sequence[Series], title: str, *paths: Path, width: float = DOUBLE) -> None:
    """Write the figure of series."""
    save(plot_series(curves, title, width), *paths)


@styled()
def plot_series(curves: Sequence[Series], title: str, width: float = DOUBLE) -> "Figure":
    """A figure of every series against the first one: a panel each, on a log scale where it spans many orders.

    NAME_se is the standard error of NAME, and a band around it.
    """
    x, *others = [curve for curve in curves if base_of(curve.name, curves) is None]
    errors = {base_of(curve.name, curves): curve.values for curve in curves}
    columns = min(max(1, int(width / 2.2)), len(others))
    rows = math.ceil(len(others) / columns)
    figure: Figure
    figure, axes = plots().subplots(rows, columns, figsize=(width, 1.9 * rows + 0.2), layout="constrained", squeeze=False)
    for panel, y in zip(axes.flat, others, strict=False):
        panel.plot(x.values, y.values, marker=MARKERS[0] if len(y.values) < 20 else "")
        if y.name in errors:
            low, high = ([v + sign * e for v, e in zip(y.values, errors[y.name], strict=True)] for sign in (-1, 1))
            panel.fill_between(x.values, low, high, alpha=0.25, linewidth=0)
        panel.set_xlabel(heading(x.label, x.unit), parse_math=False)  # text of files, in which $ is no mathematics
        panel.set_title(textwrap.fill(heading(y.label, y.unit), 36), parse_math=False)
        finite = [value for value in y.values if math.isfinite(value)]
        if finite and min(finite) > 0 and max(finite) > 1000 * min(finite):
            panel.set_yscale("log")
        if x.name == "nfe":
            panel.set(xscale="log", xticks=x.values, xticklabels=[f"{value:g}" for value in x.values])
            panel.minorticks_off()
    for panel in list(axes.flat)[len(others) :]:
        panel.axis("off")
    figure.suptitle(title, parse_math=False)
    return figure


def base_of(name: str, curves: Sequence[Series]) -> str | None:
    """Of which series this one is the standard error; None: of none."""
    base = name.removesuffix("_se")
    return base if base != name and any(curve.name == base for curve in curves) else None


def report_sweep(parameter: str, values: Sequence[float], results: Sequence[Result], mode: str, run_dir: Path) -> Written:
    """The headline values of results by a parameter (sampler.steps: by calls): a table, a figure and JSON in evaluation/."""
    first = {value.name: value for value in results[0].numbers}
    curves = [Series("parameter", list(values), label=parameter)]
    for name in results[0].headlines:
        points = [result.values.get(name, math.nan) for result in results]
        curves.append(Series(name, points, first[name].unit, first[name].label))
    series = {parameter: list(values)} | {curve.name: curve.values for curve in curves[1:]}
    units, labels = ({curve.name: getattr(curve, key) for curve in curves[1:]} for key in ("unit", "label"))
    content = {"mode": mode, "parameter": parameter, "series": series, "units": units, "labels": labels}
    path = directory.write_result(run_dir, f"{mode}_{parameter.split('.')[-1]}", content)
    x = next((curve for curve in curves if parameter == "sampler.steps" and curve.name == "nfe"), curves[0])
    draw_series([x, *(curve for curve in curves[1:] if curve.name != "nfe")], mode, path.with_suffix(".png"))
    console = Console(width=None if sys.stdout.isatty() else 160)
    console.print(table_of_series(curves))
    return [(path, f"the numbers by {parameter}"), (path.with_suffix(".png"), "drawn")]
