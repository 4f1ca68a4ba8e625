"""TAB in a real bash: what is on the line behind it."""

import os
import pty
import re
import select
import shutil
import sys
import time
from pathlib import Path

import pytest
from conftest import ROOT

from heatgen.app.completion import candidates

BASH = shutil.which("bash")


def test_words_are_those_of_the_verb() -> None:
    assert {"train", "sample", "completion"} < {*candidates("heatgen ")}
    assert {"model=", "model.", "seed=", "experiment="} < {*candidates("heatgen train ")}
    found = candidates("python sample.py ")
    assert {"run=", "sampler=", "data."} < {*found} and not {"model=", "forward", "forward=", "experiment"} & {*found}
    assert not [word for word in found if word.startswith(("_", "hydra"))]


def test_options_and_keys_of_the_chosen_ones_and_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "model=smdp" in candidates("heatgen train model=s") and "model=_base" not in candidates("heatgen train model=")
    assert "experiment=paper/" in candidates("heatgen train experiment=pa")
    assert "experiment=paper/edm" in candidates("heatgen train experiment=paper/e")
    assert "sampler.churn=" in candidates("python train.py sampler=heun sampler.ch")
    (tmp_path / "runs" / "mine" / "one").mkdir(parents=True)
    (tmp_path / "runs" / "mine" / "one" / "config.yaml").write_text("seed: 0")
    monkeypatch.chdir(tmp_path)
    assert candidates("heatgen sample run=") == ["run=latest", "run=runs/mine/", "run=latest"]
    assert "resume=runs/mine/one" in candidates("heatgen train resume=runs/mine/o")
    assert candidates("heatgen compare ru") == [] == candidates("python other.py mod")


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A folder with commands `heatgen` and `python` of this environment."""
    (tmp_path / "heatgen").write_text(f'#!/bin/sh\nexec {sys.executable} -m heatgen.app "$@"\n')
    (tmp_path / "python").write_text(f'#!/bin/sh\nexec {sys.executable} "$@"\n')
    for name in ("heatgen", "python"):
        (tmp_path / name).chmod(0o755)
    return tmp_path


def typed(home: Path, line: str) -> str:
    """The line that bash has after a TAB behind `line`."""
    child, terminal = pty.fork()
    if child == 0:
        os.chdir(ROOT)
        os.environ.update(PATH=f"{home}:{os.environ['PATH']}", PS1="> ", TERM="dumb", INPUTRC="/dev/null")
        os.execv(str(BASH), ["bash", "--norc", "--noprofile", "-i"])
    shown = ""

    def until(pattern: str, seconds: float = 60) -> None:
        nonlocal shown
        end = time.monotonic() + seconds
        while not re.search(pattern, shown) and time.monotonic() < end:
            if select.select([terminal], [], [], 0.2)[0]:
                shown += os.read(terminal, 4096).decode(errors="replace")
        assert re.search(pattern, shown), shown

    try:
        os.write(terminal, b'eval "$(heatgen completion)"; bind "set bell-style none"; echo re""ady\n')
        until(r"ready\s+> ")  # so that bash reads the line itself
        shown = ""
        os.write(terminal, line.encode() + b"\t#")
        until(r"#")
        return next(found for found in re.findall(r"[^\r\n]*#", shown)).split("> ")[-1].removesuffix("#")
    finally:
        os.write(terminal, b"\x15exit\n")  # Ctrl-U: the line is forgotten, nothing runs
        os.close(terminal)
        os.waitpid(child, 0)


@pytest.mark.slow
@pytest.mark.skipif(BASH is None, reason="there is no bash")
@pytest.mark.parametrize(
    ("line", "whole"),
    [
        ("heatgen tr", "heatgen train "),
        ("heatgen train model=smd", "heatgen train model=smdp "),
        ("heatgen train experiment=pap", "heatgen train experiment=paper/"),
        ("python train.py sampler=heun sampler.sub", "python train.py sampler=heun sampler.substeps="),
        ("python evaluate.py mode=precis", "python evaluate.py mode=precision_recall "),
        ("python CHANGE", "python CHANGELOG.md "),
    ],
)
def test_a_tab_in_bash_completes_the_line(home: Path, line: str, whole: str) -> None:
    assert typed(home, line) == whole
