"""Runs side by side, as a table and a figure: python -m heatgen.compare FOLDER... [--publish NAME].

A sweep (train.py -m) ends with it by itself, and with publish=NAME publishes it. FOLDER is a run or a folder of runs, such
as a sweep's; the table goes there as comparison.json (a list of rows, one object a run, or a variant of its measurements),
comparison.md and comparison.png, and with --publish NAME also to docs/results/NAME.json, .md and .png.
"""

import argparse
import json
import logging
import math
import os
import re
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from heatgen import launch
from heatgen.check import ConfigError
from heatgen.directory import read_config, write_text

log = logging.getLogger("heatgen")
COMMAND = "command.txt"  # in a sweep's folder: what was called
MODES = {"train": 0, "forward": 1}  # what comes first in a table: the training, then the map
SIDE = 64  # pixels of a cloud of points, in the figure


class Comparison:
    """Hydra's callback: at the end of a sweep its runs are compared, in its folder and under `publish` in docs/results."""

    def on_run_start(self, config: Any, **_: Any) -> None:
        """Refuse `publish` where there is no sweep; the processes of a sweep's job have it from their sweep."""
        if config.get("publish") is not None and not launch.is_child():
            stop(f"publish={config.publish} is for a sweep, which has runs to compare; add -m, or use publish=null.")

    def on_multirun_start(self, config: Any, **_: Any) -> None:
        """Refuse a `publish` that is not a name, before anything is trained."""
        if config.get("publish") is not None and not re.fullmatch(r"\w[\w.-]*", str(config.publish)):
            stop(f"publish must be a name such as my_maps, not {config.publish!r}.")

    def on_multirun_end(self, config: Any, **_: Any) -> None:
        folder = Path(config.hydra.sweep.dir)
        write_text(folder / COMMAND, shlex.join(["python", Path(sys.argv[0]).name, *sys.argv[1:]]) + "\n")
        try:
            publish = config.get("publish")
            compare([folder], None if publish is None else str(publish), by_sweep=True)
        except ConfigError as error:
            log.warning("Note: the runs cannot be compared: %s", error)

    def __getattr__(self, name: str) -> Any:
        """Hydra's other events do not matter here."""
        if name.startswith("on_"):
            return lambda **_: None
        raise AttributeError(name)


def stop(message: str) -> None:
    """End with a user's mistake; Hydra would go on after any other exception of a callback."""
    print(f"Error: {message}", file=sys.stderr)
    sys.exit(1)


def find_runs(folders: Sequence[Path]) -> list[Path]:
    """The runs in these folders, those of a sweep in the order of its jobs. ConfigError where there is none."""
    runs = []
    for folder in folders:
        found = [path.parent for path in folder.glob("*/config.yaml")]
        runs += [folder] if (folder / "config.yaml").is_file() else sorted(found, key=job_number)
    if not runs:
        raise ConfigError(f"There is no run in {', '.join(map(str, folders))}; give a run's folder, or a sweep's.")
    return runs


def job_number(run: Path) -> tuple[float, str]:
    """A key that sorts 2-heat before 10-heat."""
    number = re.match(r"\d+", run.name)
    return (int(number[0]) if number else math.inf, run.name)


def settings_of(run: Path) -> dict[str, str]:
    """The overrides that the run was started with."""
    words = shlex.split((run / "overrides.txt").read_text().splitlines()[0]) if (run / "overrides.txt").is_file() else []
    return dict(word.split("=", 1) for word in words if "=" in word)


def measurements_of(run: Path) -> list[dict[str, Any]]:
    """The newest result of each mode and variant at the run's own settings, in the order of MODES, then of their names."""
    newest: dict[tuple[str, str | None], dict[str, Any]] = {}
    for path in sorted((run / "evaluation").glob("*.json")):  # their names end in the time
        content = json.loads(path.read_text())
        if "values" in content and not content.get("parameter"):
            newest[content["mode"], content.get("variant")] = content
    return sorted(newest.values(), key=lambda content: MODES.get(content["mode"], len(MODES)))


def variants_of(run: Path) -> list[tuple[str, list[dict[str, Any]]]]:
    """What stands in each row of a run: a variant's name and its results; one row, of no name, where there are no variants.

    Modes that were measured without a variant stand in the row of every variant that lacks them; one that was measured both
    with and without has a row of no name, too.
    """
    results = measurements_of(run)
    plain_modes = {result["mode"] for result in results if result.get("variant") is None}
    names = dict.fromkeys(result["variant"] for result in results if result.get("variant") is not None)
    both = any(result["mode"] in plain_modes for result in results if result.get("variant") is not None)
    rows = []
    for name in [*([None] if both or not names else []), *names]:
        own = {result["mode"] for result in results if result.get("variant") == name}
        chosen = [r for r in results if r.get("variant") == name or (r.get("variant") is None and r["mode"] not in own)]
        rows.append((name or "", chosen))
    return rows


def rows_of(runs: Sequence[Path]) -> tuple[list[dict[str, Any]], list[str]]:
    """One row a run, or a variant of a run: what differs between their settings, what the model chose, every number.

    And the columns to show: those that differ, then the headlines; none that is empty in every row.
    """
    settings = [settings_of(run) for run in runs]
    keys = dict.fromkeys(key for setting in settings for key in setting)
    swept = [key for key in keys if len({setting.get(key) for setting in settings}) > 1]
    by_run = [variants_of(run) for run in runs]
    several = any(name for variants in by_run for name, _ in variants)
    rows, shown = [], [*(swept or ["run"]), "variant", "parametrisation"]
    for run, setting, variants in zip(runs, settings, by_run, strict=True):
        chosen = OmegaConf.select(read_config(run), "model.parametrisation")
        for name, results in variants:
            row: dict[str, Any] = {"run": run.name} | {key: setting.get(key, "") for key in swept}
            row |= ({"variant": name} if several else {}) | ({"parametrisation": chosen} if chosen else {})
            for result in results:
                row |= result["values"]
                row |= {f"{key} s.e.": error for key, error in result.get("standard_errors", {}).items()}
                shown += [key for key in result["headline"] if key not in shown]
            rows.append(row)
    return rows, [key for key in shown if any(row.get(key) not in (None, "") for row in rows)]


def conditions_of(runs: Sequence[Path]) -> list[str]:
    """How the runs were measured: by mode, the facts that all of them have in common, and every caveat."""
    by_mode: dict[str, list[dict[str, Any]]] = {}
    for run in runs:
        for result in measurements_of(run):
            by_mode.setdefault(result["mode"], []).append(result)
    lines = []
    for mode, results in by_mode.items():
        facts = results[0].get("facts", {})
        common = [f"{k}: {v}" for k, v in facts.items() if all(r.get("facts", {}).get(k) == v for r in results)]
        notes = dict.fromkeys(note for result in results for note in result.get("notes", []))
        if common or notes:
            lines.append(f"- `mode={mode}`: {'; '.join([*common, *notes])}")
    return lines


def plain(key: str) -> str:
    """A column's name as a plain key: letters, digits and underscores."""
    return re.sub(r"\W+", "_", key.lower()).strip("_")


def cell(value: Any) -> str:
    """A number of four figures, or a word."""
    return f"{value:.4g}" if isinstance(value, (int, float)) else "" if value is None else str(value)


def markdown(
    name: str, rows: Sequence[dict[str, Any]], shown: Sequence[str], commands: Sequence[str], conditions: Sequence[str]
) -> str:
    """The table, under the commands that made the runs and it, above how they were measured."""
    made = [f"    {command}" for command in commands]
    lines = [f"# {name}", "", "Made by", "", *made, "", f"All numbers of every run: [{name}.json]({name}.json).", ""]
    lines += [f"| {' | '.join(shown)} |", f"|{'---|' * len(shown)}"]
    lines += [f"| {' | '.join(cell(row.get(key)) for key in shown)} |" for row in rows]
    how = ["", "How they were measured:", "", *conditions] if conditions else []
    return "\n".join([*lines, "", f"![{name}]({name}.png)", *how, ""])


def compare(
    folders: Sequence[Path], publish: str | None, docs: Path = Path("docs/results"), by_sweep: bool = False
) -> list[dict[str, Any]]:
    """Print the comparison of the runs in `folders`; write it to the first one and to docs/results/<publish>; its rows.

    by_sweep: whether a sweep does it at its end, so that its command alone makes the page.
    """
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    runs = find_runs(folders)
    rows, shown = rows_of(runs)
    table = Table(title=f"{len(runs)} runs", title_justify="left")
    for key in shown:
        table.add_column(escape(key))
    for row in rows:
        table.add_row(*[escape(cell(row.get(key))) for key in shown])
    console = Console(width=None if sys.stdout.isatty() else 160)
    console.print(table)
    calls = [(folder / COMMAND).read_text().strip() for folder in folders if (folder / COMMAND).is_file()]
    targets = [(folders[0], "comparison")] + ([(docs, publish)] if publish else [])
    for folder, name in targets:
        folder.mkdir(parents=True, exist_ok=True)
        itself = f"python -m heatgen.compare {shlex.join(map(os.path.relpath, folders))}"
        commands = calls if by_sweep else [*calls, itself + (f" --publish {publish}" if publish else "")]
        write_text(
            folder / f"{name}.json", json.dumps([{plain(k): v for k, v in row.items()} for row in rows], indent=2) + "\n"
        )
        write_text(folder / f"{name}.md", markdown(name, rows, shown, commands, conditions_of(runs)))
        draw([run for run in runs for _ in variants_of(run)], rows, shown, folder / f"{name}.png")
        console.print(f"written: {folder / name}.md, .json and .png", highlight=False, markup=False, soft_wrap=True)
    return rows


def draw(runs: Sequence[Path], rows: Sequence[dict[str, Any]], shown: Sequence[str], path: Path) -> None:
    """A line for each row: the first samples of its run where any run drew some, then a bar for each number."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    words = [key for key in shown if all(not isinstance(row.get(key), (int, float)) for row in rows)]
    numbers = [key for key in shown if key not in words]
    names = [" ".join(cell(row.get(key)) for key in words) for row in rows]
    pictures = [first_samples(run) for run in runs]
    widths = [3.4] * (any(picture is not None for picture in pictures) or not numbers) + [2] * len(numbers)
    figure, axes = plt.subplots(
        *(1, len(widths)),
        figsize=(2.2 + sum(widths) * 1.1, 0.62 * len(rows) + 0.8),
        width_ratios=widths,
        layout="constrained",
        squeeze=False,
        sharey=True,
    )
    axes[0, 0].set(ylim=(len(rows) - 0.5, -0.5), yticks=range(len(rows)), yticklabels=names)
    others = axes[0, len(widths) - len(numbers) :]
    if len(widths) > len(numbers):
        for i, picture in enumerate(pictures):
            if picture is not None:
                axes[0, 0].imshow(picture, extent=(0, 6, i + 0.48, i - 0.48), aspect="auto", interpolation="nearest")
        axes[0, 0].set(xlim=(0, 6), ylim=(len(rows) - 0.5, -0.5), title="samples", xticks=[])
    for panel, key in zip(others, numbers, strict=True):
        values = [row[key] if isinstance(row.get(key), (int, float)) else math.nan for row in rows]
        panel.barh(range(len(rows)), values, height=0.6)
        panel.set_title(key, fontsize=9)
        panel.locator_params(axis="x", nbins=4)
        panel.ticklabel_format(axis="x", scilimits=(-3, 4))
        positive = [value for value in values if value > 0 and math.isfinite(value)]
        if positive and max(positive) > 100 * min(positive):
            panel.set_xscale("log")
        for i, value in enumerate(values):
            panel.annotate(f" {cell(value)}", (value, i), va="center", fontsize=7) if math.isfinite(value) else None
        panel.margins(x=0.35)
    figure.savefig(path, dpi=110)
    plt.close(figure)


def first_samples(run: Path) -> Any:
    """The first row of the newest grid of samples that the run drew while training; None where it drew none.

    Of points, their cloud, at the left of a sheet as wide as that of a row of images.
    """
    from PIL import Image, ImageOps

    from heatgen.picture import PAPER, is_points

    grids = sorted((run / "samples").glob("step_*.png"))
    if not grids:
        return None
    config = read_config(run)
    count = OmegaConf.select(config, "callback.pictures.n", default=36)
    rows = math.ceil(count / math.ceil(math.sqrt(count)))
    with Image.open(grids[-1]) as image:
        if is_points(OmegaConf.select(config, "data.shape", default=())):
            thumbnail = image.convert("RGB").resize((SIDE, SIDE), Image.Resampling.BOX)
            return ImageOps.pad(thumbnail, (6 * SIDE, SIDE), color=PAPER, centering=(0, 0))
        return image.convert("RGB").crop((0, 0, image.width, image.height // rows + 1))


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(prog="python -m heatgen.compare", description=__doc__.splitlines()[0])
    parser.add_argument("folders", nargs="+", type=Path, help="runs, or folders of runs such as a sweep's")
    parser.add_argument("--publish", metavar="NAME", help="also write docs/results/NAME.md, .json and .png")
    options = parser.parse_args()
    try:
        compare(options.folders, options.publish)
    except ConfigError as error:
        print(f"Error: {error}", file=sys.stderr)
        sys.exit(1)


if __name__ == "__main__":
    main()
