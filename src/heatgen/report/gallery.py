"""index.html over a folder of runs: all of them, to be sorted, filtered, and seen side by side."""

import math
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from tqdm import tqdm

from heatgen.check import ConfigError
from heatgen.metric.result import heading
from heatgen.report import html
from heatgen.report.better import HIGHER, LOWER, better
from heatgen.report.films import still
from heatgen.report.run_page import NAME, WORDS, Number, number_of, settings_of, write_report
from heatgen.report.story import PLACES, Story, readable, thinned
from heatgen.runtime.directory import CONFIG

INDEX = "index.html"
SIDES = ((60, 320), (200, 200))  # pixels of a picture where there are so many runs; beyond them the last
LEAST = 120
POINTS = 120  # of a curve
GROUPS = {"model": ("model", "models"), "forward": ("map", "maps"), "data": ("data", "data sets")}  # for people
WAYS = {LOWER: -1, HIGHER: 1}


@dataclass(frozen=True)
class Entry:
    """A run in the gallery.

    Args:
        place: its folder, from that of the gallery.
        story: what its folder tells.
        numbers: its headline values, by their column.
        values: the same as plain numbers.
        pictures: its samples, by what makes them comparable.
    """

    place: Path
    story: Story
    numbers: dict[str, Number]
    values: dict[str, float]
    pictures: dict[str, str]

    @classmethod
    def of(cls, run_dir: Path, root: Path, side: int) -> "Entry":
        """That of a run. ConfigError where a file of it is damaged."""
        with readable(run_dir):
            story = Story.of(run_dir)
            numbers, values = {}, {}
            for result in story.foremost():
                known = {
                    name: value for name, value in result["values"].items() if value is not None and math.isfinite(value)
                }
                for name in [name for name in result["headline"] if name in known]:
                    column = f"{name}, {result['variant']}" if result.get("variant") else name
                    numbers[column] = number_of(result, name, known, result.get("standard_errors", {}))
                    values[column] = float(known[name])
            return cls(run_dir.relative_to(root), story, numbers, values, pictures_of(story, side))

    def data(self, title: str) -> dict[str, object]:
        """What the page's script needs of it, by its name there."""
        story = self.story
        return {
            "title": title,
            "href": html.link(self.place / NAME),
            "data": story.option("data"),
            "pictures": {key: one if i else None for i, (key, one) in enumerate(self.pictures.items())},  # 0 is in its row
            "curves": {name: thinned(curve, POINTS) for name, curve in story.curves.items()},
            "numbers": {column: number.text for column, number in self.numbers.items()},
            "values": self.values,
            "config": {
                key.removesuffix("._target_"): value.removeprefix("heatgen.") if key.endswith("._target_") else value
                for key, value in story.config.items()
                if key not in PLACES
            },
        }


def pictures_of(story: Story, side: int) -> dict[str, str]:
    """The newest samples drawn while training, and those of each seed that were drawn later."""
    found, grids = {}, sorted((story.run_dir / "samples").glob("step_*.png"))
    if grids:
        found[f"training, seed {story.config.get('callback.pictures.seed', '')}"] = still(grids[-1], side)
    for folder, settings in settings_of(story.run_dir):
        usual = not any(settings.get(key) for key in ("same_init", "share_noise", "interpolate"))
        found.setdefault(f"seed {settings.get('seed')}" if usual else folder.name, still(folder / "grid.png", side))
    return found


def runs_under(root: Path) -> Iterator[Path]:
    """Every run in a folder but those of debug=, however deep, by their paths; links to folders are not followed."""
    for place, folders, files in os.walk(root):
        folders.sort()
        if CONFIG in files:
            yield Path(place)
            folders.clear()
        folders[:] = [name for name in folders if name[0] != "." and Path(place, name) != root / "debug"]


def write_gallery(root: Path) -> tuple[Path, int, dict[Path, str]]:
    """Write the gallery of a folder of runs, and the page of each.

    Returns:
        Its path, how many runs it has, and what is wrong with each of those that are damaged.

    Raises:
        ConfigError: there is no run.
    """
    runs = list(runs_under(root))
    if not runs:
        raise ConfigError(f"There is no run in {root}; give a run's folder, or a folder of runs.")
    side = next((side for most, side in SIDES if len(runs) <= most), LEAST)
    entries, wrong = [], {}
    for run_dir in tqdm(runs, "reports", disable=len(runs) < 2, leave=False):
        try:
            write_report(run_dir)
            entries.append(Entry.of(run_dir, root, side))
        except ConfigError as error:
            wrong[run_dir.relative_to(root)] = str(error)
    html.write_page(root / INDEX, rendered(root, entries, wrong))
    return root / INDEX, len(runs), wrong


def rendered(root: Path, entries: Sequence[Entry], wrong: dict[Path, str]) -> str:
    """The page of the gallery."""
    labels = {column: heading(number.label, number.unit) for entry in entries for column, number in entry.numbers.items()}
    columns = {column: column.replace(column.split(", ")[0], label, 1) for column, label in labels.items()}
    titles = [entry.story.title for entry in entries]
    titles = [title if titles.count(title) == 1 else str(entry.place) for title, entry in zip(titles, entries, strict=True)]
    options = {group: sorted({entry.story.option(group) for entry in entries}) for group in GROUPS}
    counted = [(len(entries), "runs"), *((len(options[group]), words) for group, (_, words) in GROUPS.items())]
    return html.page(
        "gallery.html",
        ("chart.js", "gallery.js"),
        name=root.resolve().name,
        entries=list(zip(titles, entries, strict=True)),
        wrong=wrong,
        columns=columns,
        groups={group: label for group, (label, _) in GROUPS.items()},
        options=options,
        counts=[(count, words if count != 1 else words[:-1]) for count, words in counted],
        data={
            "runs": [entry.data(title) for title, entry in zip(titles, entries, strict=True)],
            "columns": list(columns.items()),
            "better": {column: WAYS.get(better(column.split(", ")[0]), 0) for column in columns},
            "words": WORDS,
        },
    )
