"""report.html of a run: what was run, how it learned, what it draws, what was measured."""

import json
import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from heatgen.metric.result import heading
from heatgen.report import html
from heatgen.report.better import NEITHER, better
from heatgen.report.films import Film, film, still
from heatgen.report.page import cell
from heatgen.report.rows import Measured, read_result
from heatgen.report.seeds import is_number
from heatgen.report.story import Curve, Story, lines_of, readable, thinned
from heatgen.runtime.command import call
from heatgen.runtime.directory import CONFIG

NAME = "report.html"
GRIDS, FOLDERS, POINTS, PICTURES, FILES = 8, 4, 400, 60, 100  # that a page shows at most, POINTS of a curve
PARTS = ("evaluation/*", "samples/*", "samples/*/*")
MADE_OF = ("*.yaml", "*.csv", "*.json", "overrides.txt", "env.txt", "stopped.txt", *PARTS)  # what a page is made of
LISTED = ("*", *PARTS, "checkpoints/*")  # what it has links to
ALL = "all series"  # what the figure of a result's series is called
MANY = 12  # numbers of a result, of which a page shows those of its headline first
WORDS = {"train": "training", "val": "validation", "lr": "learning rate", "grad_norm": "gradient norm"}  # in logged names


@dataclass(frozen=True)
class Number:
    """A value for people: its text has its error, which is over independent things such as images."""

    name: str
    label: str
    unit: str
    text: str
    better: str
    over: str


@dataclass(frozen=True)
class Sampling:
    """What samples/ holds of one sampling: its name, how it was drawn, its pictures."""

    name: str
    facts: Mapping[str, str]
    grid: str | None
    film: Film | None


def write_report(run_dir: Path) -> Path:
    """Write the page of a run, unless it is there and nothing is newer. ConfigError where a file of the run is damaged."""
    path = run_dir / NAME
    with readable(run_dir):
        if not is_fresh(path):
            html.write_page(path, rendered(Story.of(run_dir)))
    return path


def is_fresh(path: Path) -> bool:
    """Whether a page is of this version and newer than what it is made of."""
    if not html.is_current(path):
        return False
    files = (file for pattern in MADE_OF for file in path.parent.glob(pattern))
    return all(file.lstat().st_mtime_ns <= path.stat().st_mtime_ns for file in files)


def rendered(story: Story) -> str:
    """The page of a run."""
    training, samplings = of_training(story), list(samplings_of(story))
    return html.page(
        "run.html",
        ("chart.js", "run.js"),
        story=story,
        heading=heading,
        commands=[f"{call('train')} {shlex.join(words)}" for words in story.calls],
        training=training,
        samplings=samplings,
        hero=next((one for one in (*samplings, training) if one.film is not None), None),
        grids=grids_of(story.run_dir),
        measured=list(measured(story)),
        many=MANY,
        headlines=headlines(story),
        files=files_of(story.run_dir),
        data={"charts": charts({name: thinned(curve, POINTS) for name, curve in story.curves.items()})},
    )


def of_training(story: Story) -> Sampling:
    """What was drawn last while the run was trained."""
    path, steps = story.run_dir / "samples" / "process.gif", story.config.get("sampler.steps", "")
    seed = story.config.get("callback.pictures.seed", "")
    shown = film(path, *(int(steps), False) if steps.isdecimal() else (story.levels, True)) if path.is_file() else None
    return Sampling("drawn while training", {"seed": seed} if seed else {}, None, shown)


def samplings_of(story: Story) -> Iterator[Sampling]:
    """The newest samplings of a run, with their pictures."""
    for folder, settings in settings_of(story.run_dir):
        steps, way = settings.get("steps"), folder / "process.gif"
        grid = (steps, False) if isinstance(steps, int) else (story.levels, True)
        shown = film(way, *(0, False) if settings.get("interpolate") else grid) if way.is_file() else None
        facts = {key: str(value)[:80] for key, value in settings.items() if value is not None and value is not False}
        yield Sampling(folder.name, facts, still(folder / "grid.png"), shown)


def settings_of(run_dir: Path) -> list[tuple[Path, dict[str, object]]]:
    """The folders of the newest samplings of a run, and how they were drawn."""
    found = [path.parent for path in (run_dir / "samples").glob("*/grid.png")]
    newest = sorted(found, key=lambda folder: folder.stat().st_mtime_ns, reverse=True)[:FOLDERS]
    return [(folder, dict(json.loads("".join(lines_of(folder / "settings.json")) or "{}"))) for folder in newest]


def grids_of(run_dir: Path) -> list[tuple[int, str]]:
    """Some of the grids that were drawn while training, the first and the last among them, by their optimizer steps."""
    paths = sorted(path for path in (run_dir / "samples").glob("step_*.png") if path.stem[5:].isdecimal())
    last = len(paths) - 1
    chosen = sorted({round(i * last / (GRIDS - 1)) for i in range(GRIDS)}) if paths else []
    return [(int(paths[i].stem[5:]), still(paths[i])) for i in chosen]


def number_of(result: Measured, name: str, values: Mapping[str, float | None], errors: Mapping[str, float | None]) -> Number:
    """One of the values of a result."""
    error, way = errors.get(name), better(name)
    text = cell(values[name], error if is_number(error) else None) or "no number"
    over = result.get("errors_over", {}).get(name, "") if is_number(error) else ""
    judged = "" if way == NEITHER or result["mode"] == "train" else way
    return Number(name, result.get("labels", {}).get(name, name), result.get("units", {}).get(name, ""), text, judged, over)


def numbers(result: Measured) -> list[Number]:
    """The values of a result."""
    values = result.get("values", {})
    return [number_of(result, name, values, result.get("standard_errors", {})) for name in values]


def headlines(story: Story) -> list[Number]:
    """What stands for the run beside others: the headline of each result."""
    plain = [result for result in story.foremost() if result.get("variant") is None]
    found = [number for result in plain for number in numbers(result) if number.name in result["headline"]]
    return list({number.name: number for number in found}.values())


def measured(story: Story) -> Iterator[dict[str, object]]:
    """Each measurement for people, the newest series over parameters behind those at the run's own settings."""
    left = PICTURES
    for path, result in [*sorted(story.results.items(), key=is_training), *sweeps_of(story.run_dir)]:
        rows, errors = result.get("references", {}), result.get("reference_errors", {})
        files = pictures_of(path)
        pictures = {name: film(file) if file.suffix == ".gif" else still(file) for name, file in files[:left]}
        left -= len(pictures)
        all_numbers = numbers(result)
        first = [number for number in all_numbers if number.name in result.get("headline", [])]
        yield {
            "name": name_of(result),
            "numbers": all_numbers,
            "first": first if len(all_numbers) > MANY and first else all_numbers,
            "references": {
                row: [number_of(result, name, of, errors.get(row, {})) for name in of] for row, of in rows.items()
            },
            "facts": {key: str(fact)[:500] for key, fact in result.get("facts", {}).items()},
            "notes": result.get("notes", []),
            "pictures": pictures,
            "more": [file.relative_to(story.run_dir) for _, file in files[len(pictures) :]],
            "path": path.relative_to(story.run_dir),
        }


def is_training(result: tuple[Path, Measured]) -> bool:
    """Whether a result is that of the training itself, which stands last."""
    return result[1]["mode"] == "train"


def name_of(result: Measured) -> str:
    """What a measurement is called: its mode, and its variant or what it is against."""
    mode, variant, swept = result["mode"], result.get("variant"), result.get("parameter")
    name = "training" if mode == "train" else mode
    return f"{name} against {swept}" if swept else f"{name}, {variant}" if variant else name


def sweeps_of(run_dir: Path) -> list[tuple[Path, Measured]]:
    """The newest series over each parameter that was swept."""
    newest = {}
    for path in sorted((run_dir / "evaluation").glob("*.json")):
        result = read_result(path)
        if "values" not in result and isinstance(result.get("parameter"), str):
            newest[result["mode"], str(result["parameter"])] = path, result
    return list(newest.values())


def pictures_of(path: Path) -> list[tuple[str, Path]]:
    """The pictures and films beside the file of a result, by what they show."""
    stems, found = [other.stem for other in path.parent.glob("*.json")], []
    for picture in sorted(file for file in path.parent.iterdir() if file.suffix in (".png", ".gif")):
        owner = max((stem for stem in stems if picture.stem.startswith(stem)), key=len, default="")
        if owner == path.stem:
            found.append((picture.stem[len(owner) :].strip("_").replace("_", " ") or ALL, picture))
    return sorted(found, key=lambda pair: pair[0] == ALL)


def charts(curves: Mapping[str, Curve]) -> list[dict[str, object]]:
    """A chart for each quantity that was logged: the loss first, its splits together."""
    groups: dict[str, list[dict[str, object]]] = {}
    for name, curve in curves.items():
        split, _, what = name.rpartition("/")
        groups.setdefault(what, []).append({"label": WORDS.get(split, split or what), "points": curve})
    names = sorted(groups, key=lambda what: (what != "loss", what))
    by_split = {what: sorted(groups[what], key=lambda one: one["label"] != WORDS["train"]) for what in names}
    return [{"title": WORDS.get(what, what.replace("_", " ")), "series": each} for what, each in by_split.items()]


def files_of(run_dir: Path) -> Sequence[tuple[Path, int]]:
    """What the run's folder holds, and how large it is: config.yaml first; of very many files, the first."""
    paths = [path for pattern in LISTED for path in sorted(run_dir.glob(pattern)) if path.is_file()]
    kept = [path for path in paths if path.name != NAME and not path.name.startswith(".")]
    first = sorted(kept, key=lambda path: path.name != CONFIG)[:FILES]
    return [(path.relative_to(run_dir), path.stat().st_size) for path in first]
