"""What cannot be printed costs the screen only."""

import io
import os
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import ROOT

from heatgen.runtime.explain import entry
from heatgen.runtime.screen import listed, painted

WORK = """
import logging, subprocess, sys
from pathlib import Path
from heatgen.runtime.explain import entry

def work():
    logging.basicConfig(stream=sys.stdout, level="INFO")
    for place in (sys.stdout, sys.stderr):
        print("x" * 100000, file=place, flush=True)
    logging.info("a line")
    subprocess.run(["sh", "-c", "echo child"])
    with open(sys.argv[1], "w") as file:
        file.write("done")

entry(work)
"""
CLOSED = {
    "stdout": ">&-",
    "stderr": "2>&-",
    "all": "<&- >&- 2>&-",
    "full": ">/dev/full 2>/dev/full",
    "reader": "2>&1 | true",
    "head": "2>&1 | head -c 20",
}


def shell(command: list[str], closed: str) -> int:
    """Run a command in a shell that does something to its outputs; its own exit code."""
    words = ["bash", "-c", f'"$@" {closed}; exit ${{PIPESTATUS[0]}}', "-", *command]
    return subprocess.run(words, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=os.environ).returncode


@pytest.mark.parametrize("closed", CLOSED.values(), ids=CLOSED)
def test_the_work_is_done_whatever_becomes_of_the_screen(closed: str, tmp_path: Path) -> None:
    assert shell([sys.executable, "-c", WORK, str(tmp_path / "file")], closed) == 0
    assert (tmp_path / "file").read_text() == "done"


def test_letters_that_a_screen_does_not_know_are_marked(tmp_path: Path) -> None:
    code = "from heatgen.runtime.explain import entry; entry(lambda: print('\\u03b5 = 0.1'))"
    environment = {**os.environ, "PYTHONIOENCODING": "ascii"}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, "? = 0.1\n", "")


@pytest.mark.slow
def test_a_measurement_is_kept_where_nothing_can_be_printed(own_run: Path) -> None:
    command = [sys.executable, "evaluate.py", f"run={own_run}", "mode=elbo", "n=4", "metric.levels=null"]
    assert shell(command, ">&- 2>&-") == 0
    assert len(list((own_run / "evaluation").glob("elbo_*.json"))) == 1


class Terminal(io.StringIO):
    """A stream that says it is a terminal."""

    def isatty(self) -> bool:
        return True


def test_first_words_are_in_colour_on_a_terminal_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    text = "trained 3 steps\nwritten: a\n         Note: b\nNote: c\nok    d\noked e"
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.delenv("NO_COLOR", raising=False)
    first, last = "\033[32mwritten:\033[0m a\n         Note: b\n", "\033[33mNote:\033[0m c\n\033[32mok\033[0m    d\noked e"
    assert painted(text, Terminal()) == f"trained 3 steps\n{first}{last}"
    assert painted(text, io.StringIO()) == text
    monkeypatch.setenv("NO_COLOR", "1")
    assert painted(text, Terminal()) == text
    monkeypatch.delenv("NO_COLOR")
    monkeypatch.setenv("TERM", "dumb")
    assert painted(text, Terminal()) == text


def test_a_list_stands_in_columns_below_its_label() -> None:
    assert listed("next", [("sample", "more"), ("evaluate", "")]) == "next:    sample    more\n         evaluate"
    assert listed("written", []) == ""


@pytest.mark.parametrize("chosen", [None, "ACTIVE"])
def test_threads_of_a_job_wait_without_spinning_unless_the_environment_says_otherwise(monkeypatch, chosen):
    monkeypatch.delenv("OMP_WAIT_POLICY", raising=False)
    if chosen:
        monkeypatch.setenv("OMP_WAIT_POLICY", chosen)
    seen = []
    entry(lambda: seen.append(os.environ["OMP_WAIT_POLICY"]))
    assert seen == [chosen or "PASSIVE"]
