"""The how-tos, explanations and the tutorial do what they say: each page literally, from top to bottom, in fresh folders.

Blocks of a page, in order: one with title="FILE" is written to FILE; else bash is run by `bash -e`, python as a script, and
text is only read. The section "In the repository" has a copy of the repository, all others share a folder that is empty.
"""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import ROOT

DOCS = ROOT / "docs"
BLOCK = re.compile(r'^```(\w*)(?: title="([^"]+)")?\n(.*?)^```$', re.M | re.S)
PAGES = sorted(path for part in ("howto", "explanation") for path in (DOCS / part).glob("*.md") if "```" in path.read_text())
COPIED = ("conf", "src", "train.py", "sample.py", "evaluate.py")  # of the repository
SLURM = {"submitit_slurm": "submitit_local"}  # what stands in for a cluster; and `srun COMMAND` is COMMAND
HURRY = {  # the tutorial, in two minutes
    "train": " trainer.max_steps=4 callback.pictures.every=0",
    "sample": " n=4",
    "evaluate": " n=40",
}


class Reader:
    """Does the blocks of a page.

    Args:
        folder: an empty one, in which the reader has all others.
    """

    def __init__(self, folder: Path):
        self.folder, self.done = folder, 0
        bin_dir = folder / "bin"
        bin_dir.mkdir()
        (bin_dir / "srun").write_text('#!/bin/sh\nexec "$@"\n')
        (bin_dir / "srun").chmod(0o755)
        self.path = os.pathsep.join([str(bin_dir), str(Path(sys.executable).parent), os.environ["PATH"]])

    def follow(self, page: str) -> None:
        """Do a page, section by section."""
        for section in re.split(r"^(?=## )", page, flags=re.M):
            repository = section.startswith("## In the repository\n")
            place = self.folder / ("repository" if repository else "empty")
            if not place.exists():
                self.settle(place, repository)
            for language, title, body in BLOCK.findall(section):
                self.do(language, title, body, place, place / "src" if repository else ROOT / "src")

    @staticmethod
    def settle(place: Path, repository: bool) -> None:
        """A copy of the repository, or an empty folder."""
        place.mkdir()
        for name in COPIED if repository else ():
            if (ROOT / name).is_dir():
                shutil.copytree(ROOT / name, place / name, ignore=shutil.ignore_patterns("__pycache__", "*.egg-info"))
            else:
                shutil.copy(ROOT / name, place / name)

    def do(self, language: str, title: str, body: str, place: Path, source: Path) -> None:
        """Write a block to its file, or run it; what fails fails the test."""
        if title:
            (place / title).parent.mkdir(parents=True, exist_ok=True)
            (place / title).write_text(body)
        elif language != "text":
            command = {"bash": ["bash", "-e", "-c"], "python": [sys.executable, "-c"]}[language]
            environment = {key: value for key, value in os.environ.items() if key not in ("HEATGEN_RUNS", "HEATGEN_DATA")}
            environment |= {"PATH": self.path, "PYTHONPATH": str(source)}
            done = subprocess.run([*command, body], cwd=place, env=environment, capture_output=True, text=True, timeout=900)
            assert done.returncode == 0, f"{body}\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}"
            self.done += 1


@pytest.mark.slow
@pytest.mark.pages
@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.stem)
def test_a_page_does_what_it_says(path: Path, tmp_path: Path) -> None:
    page = path.read_text()
    if path.stem == "slurm":
        assert all(word in page for word in SLURM)
        page = re.sub("|".join(SLURM), lambda found: SLURM[found[0]], page)
    reader = Reader(tmp_path)
    reader.follow(page)
    assert reader.done


@pytest.mark.slow
@pytest.mark.pages
def test_the_tutorial_does_what_it_says(tmp_path: Path) -> None:
    page = (DOCS / "tutorial.md").read_text()
    page = re.sub(r"^(heatgen (train|sample|evaluate)\b.*)$", lambda found: found[1] + HURRY[found[2]], page, flags=re.M)
    reader = Reader(tmp_path)
    reader.follow(page)
    assert reader.done > 4


def test_there_is_a_page_for_each_thing_of_ones_own() -> None:
    own = {"images", "map", "data", "network", "model", "metric", "callback"}
    assert {f"own_{name}" for name in own} <= {path.stem for path in PAGES}
    for name in own - {"images"}:
        page = (DOCS / "howto" / f"own_{name}.md").read_text()
        assert "\n## In the repository\n" in page and "\n## In a package of your own\n" in page, name
