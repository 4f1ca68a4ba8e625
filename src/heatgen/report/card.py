"""The model card of an exported run: a README.md that says what it is, how it was made, and what was measured of it."""

import html
import json
import re
import shlex
from collections.abc import Mapping
from pathlib import Path

from heatgen.report.better import caption
from heatgen.report.page import cell, markdown_table
from heatgen.report.rows import conditions_of, headings_of, variants_of
from heatgen.runtime import exported
from heatgen.runtime.directory import OVERRIDES
from heatgen.runtime.files import read_small

PICTURE = "samples.png"
SPECIAL = re.compile(r"([\\`*_\[\]|~#$])")
FOLDERS = re.compile(r"(?<![\w:/])/(?:[^\s/;]+/)+")  # of an absolute path
PRIVATE = ("hydra.", "runs_dir=", "data_dir=", "data.data_dir=", "resume=", "trust=")  # arguments of this machine alone


def plain(text: object) -> str:
    """A text of a file as it is read on the page, on one line: none of its marks means anything to Markdown or HTML."""
    return SPECIAL.sub(r"\\\1", html.escape(" ".join(str(text).split()), quote=False))


def card(run_dir: Path, config: Mapping[str, object], needs: str, picture: bool, pushed: str | None, version: str) -> str:
    """The page of a run.

    Args:
        run_dir: the run.
        config: that is exported with it.
        needs: what the model needs to draw samples, a sentence.
        picture: whether there is PICTURE beside the page.
        pushed: the name on the hub; None: it is not pushed.
        version: of heatgen.

    Raises:
        ConfigError: a result of the run is damaged.
    """
    parts = {group: option_of(config.get(group)) for group in ("model", "forward", "net", "data")}
    data, name = config.get("data"), config.get("name") or run_dir.name
    parts |= {"data": "memory"} if exported.in_memory(data) else {}
    shape = data.get("shape") if isinstance(data, Mapping) else None
    tags = [word for word in dict.fromkeys(["heatgen", *parts.values()]) if re.fullmatch(r"[a-z0-9_]+", word)]
    lines = ["---", "library_name: heatgen", f"tags: [{', '.join(tags)}]", "---", "", f"# {plain(name)}", ""]
    what = ", ".join(f"{group} {plain(option)}" for group, option in parts.items())
    lines += [f"A generative model made with heatgen {version}: {what}."]
    lines += [f"Its samples have the shape {plain(shape)}.", ""]
    lines += [f"![samples]({PICTURE})", ""] if picture else []
    lines += usage(pushed), needs, ""
    lines += ["## How it was made", "", *commands(run_dir), *images(run_dir)]
    lines += ["## What was measured", "", *measurements(run_dir)]
    lines += ["## Versions", "", *versions(run_dir)]
    return "\n".join(lines).rstrip() + "\n"


def option_of(node: object) -> str:
    """What a config calls a part: the file of its class."""
    target = str(node.get("_target_", "")) if isinstance(node, Mapping) else ""
    return (target.split(".")[-2:-1] or ["unknown"])[0]


def usage(pushed: str | None) -> str:
    """How the model is used, after it is downloaded."""
    first = "Install heatgen with `pip install 'heatgen[hub]'`"
    first += f", get the files with `hf download {pushed} --local-dir .`" if pushed else ""
    code = ["import heatgen", "", f'run = heatgen.load("{exported.FILE}")', "run.sample(n=16)"]
    return "\n".join(["## How to use it", "", f"{first}, and beside {exported.FILE}:", "", "```python", *code, "```", ""])


def commands(run_dir: Path) -> list[str]:
    """What was typed to train it, a line for each start, without the folders of the machine."""
    path = run_dir / OVERRIDES
    try:
        starts = [shlex.split(line) for line in read_small(path).splitlines()] if path.is_file() else []
    except (OSError, ValueError):
        starts = []
    kept = [[FOLDERS.sub("", word) for word in words if not word.lstrip("+").startswith(PRIVATE)] for words in starts]
    typed = [" ".join(shlex.join(["heatgen", "train", *words]).split()) for words in kept]
    return [f"    {line}" for line in typed] + ["" for _ in typed[:1]]


def images(run_dir: Path) -> list[str]:
    """How many images each split of its data had, where the run says."""
    try:
        counts = json.loads(read_small(run_dir / "data.json"))["images"].items()
        return [f"Images: {', '.join(f'{plain(split)} {int(count)}' for split, count in counts)}.", ""]
    except (OSError, ValueError, LookupError, TypeError, AttributeError):  # as of one that was imported
        return []


def measurements(run_dir: Path) -> list[str]:
    """Every number that was measured of the run, with its error, and what a reader must know of them."""
    headings, rows, shown = headings_of([run_dir]), list[list[str]](), list[str]()
    for variant, results in variants_of(run_dir):
        for result in results:
            for name, value in result["values"].items():
                number = cell(value, result.get("standard_errors", {}).get(name))
                over = result.get("errors_over", {}).get(name, "")
                rows.append([plain(word) for word in (headings[name], number, over, result["mode"], variant)])
                shown.append(name)
    if not rows:
        return ["Nothing yet; `heatgen evaluate` does it.", ""]
    table = markdown_table(["what", "value ± standard error", "error over", "mode", "variant"], rows)
    notes = [f"- {plain(FOLDERS.sub('', line.removeprefix('- ')))}" for line in conditions_of([run_dir])]
    return [*table, "", plain(caption(list(dict.fromkeys(shown)), headings)), "", *notes, *([""] if notes else [])]


def versions(run_dir: Path) -> list[str]:
    """The versions that it was trained with, of the last start."""
    try:
        text = read_small(run_dir / "env.txt")
    except (OSError, ValueError):
        return ["Not known."]
    last = text.rpartition("started ")[2].splitlines()[1:]
    return [f"- {plain(line)}" for line in last]
