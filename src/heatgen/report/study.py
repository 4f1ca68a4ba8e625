"""A search for hyper-parameters as a table and a figure: study.json, study.md and study.png in its sweep's folder."""

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path

from heatgen.metric.pictures.figure import DOUBLE, plots, save, styled
from heatgen.report.page import markdown_table
from heatgen.runtime.files import write_text

Trial = Mapping[str, object]  # trial (its number), state, value, and the parameters


def write(folder: Path, trials: Sequence[Trial], objective: str, direction: str) -> None:
    """Write the trials of a study, given in the order of their numbers, into the folder of its sweep."""
    keys = list(dict.fromkeys(key for trial in trials for key in trial if key not in ("trial", "state", "value")))
    write_text(folder / "study.json", json.dumps(list(trials), indent=2) + "\n")
    ranked = sorted(trials, key=lambda trial: rank(trial, direction))
    cells = [[words(trial.get(key)) for key in ("trial", "state", "value", *keys)] for trial in ranked]
    table = markdown_table(["trial", "state", objective, *keys], cells)
    note = "A pruned trial has the val/loss that it ended with. All trials as data: [study.json](study.json)."
    write_text(folder / "study.md", "\n".join(["# study", "", note, "", *table, "", "![study](study.png)", ""]))
    draw(trials, keys, objective, direction, folder / "study.png")


def rank(trial: Trial, direction: str) -> tuple[bool, float]:
    """A key that sorts the best trial first, those behind it that were not complete."""
    value = trial["value"]
    number = float(value) if isinstance(value, (int, float)) else math.inf
    return trial["state"] != "complete", -number if direction == "maximize" and math.isfinite(number) else number


def words(value: object) -> str:
    """A cell of the table."""
    return "" if value is None else f"{value:.6g}" if isinstance(value, float) else str(value)


def number(value: object) -> object:
    """A choice that is written as a number, as that number."""
    try:
        return float(value) if isinstance(value, str) else value
    except ValueError:
        return value


@styled()
def draw(trials: Sequence[Trial], keys: Sequence[str], objective: str, direction: str, path: Path) -> None:
    """The best value so far against the trials, and the values against each parameter."""
    plt = plots()
    figure, axes = plt.subplots(
        1, 1 + len(keys), figsize=(max(DOUBLE, 1.8 * (1 + len(keys))), 2.2), layout="constrained", squeeze=False
    )
    better = max if direction == "maximize" else min
    valued = [(trial, float(str(trial["value"]))) for trial in trials if trial["value"] is not None]
    done = [[value for trial, value in valued[: i + 1] if trial["state"] == "complete"] for i in range(len(valued))]
    best = [better(values, default=math.nan) for values in done]
    axes[0, 0].step([trial["trial"] for trial, _ in valued], best, where="post", color="0.6", label="the best so far")
    for panel, key in zip(axes[0], ("trial", *keys), strict=True):
        for state, marker in (("complete", "o"), ("pruned", "x")):
            chosen = [(number(trial[key]), value) for trial, value in valued if trial["state"] == state and key in trial]
            panel.plot([x for x, _ in chosen], [y for _, y in chosen], marker, label=state if chosen else None)
        numbers = [x for trial, _ in valued if isinstance(x := number(trial.get(key)), (int, float))]
        if key != "trial" and len(numbers) > 1 and min(numbers) > 0 and max(numbers) > 20 * min(numbers):
            panel.set_xscale("log")
        elif numbers:
            panel.locator_params(axis="x", nbins=3, integer=all(float(x).is_integer() for x in numbers))
        panel.set(xlabel=key, ylabel=objective if key == "trial" else "")
    axes[0, 0].legend()
    save(figure, path)
