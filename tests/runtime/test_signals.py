"""Signals end a process with its tidying done, a training saves first, and nobody outlives a parent."""

import io
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest
from conftest import ROOT, SMALL

from heatgen.runtime import children, signals
from heatgen.runtime.children import Attended

ENTRY = """
import signal, sys, time
from pathlib import Path
from heatgen.runtime import signals
from heatgen.runtime.explain import entry

def work():
    try:
        print("ready", flush=True)
        time.sleep(60)
    finally:
        print("tidy", flush=True)
"""
CHILD = f"""{ENTRY}
entry(work)
"""
NOTING = f"""{ENTRY}
def work():
    signals.note()
    print("ready", flush=True)
    while not signals.caught():
        time.sleep(0.01)
    print("saved", flush=True)
    time.sleep(60)
entry(work)
"""
PATIENT = NOTING.replace('print("ready"', 'signals.of_a_child(); print("ready"').replace("sleep(60)", "sleep(1)")
WAITING = f"""{ENTRY}
import os
from heatgen.runtime.children import start, waiting_for
def work():
    children = []
    with waiting_for(children) as hand_on:
        children.append(start([sys.executable, "-c", {CHILD!r}], dict(os.environ)))
        while children[0].poll() is None:
            hand_on()
            time.sleep(0.01)
entry(work)
"""
LAUNCHED = f"""{ENTRY}
def requeue(number, frame):
    print("requeued", flush=True)
    sys.exit(7)
signal.signal(signal.SIGUSR2, requeue)
def work():
    signals.note()
    print("ready", flush=True)
    while not signals.caught():
        time.sleep(0.01)
    print("saved", flush=True)
    signals.obey()
entry(work)
"""


@contextmanager
def running(command: Sequence[str], ready: str = "ready") -> Iterator["subprocess.Popen[str]"]:
    """A command that has said that it is ready, in a session of its own, which has ended afterwards."""
    hangup = signal.signal(signal.SIGHUP, signal.SIG_DFL)  # whatever these tests run under
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, cwd=ROOT, start_new_session=True
    )
    signal.signal(signal.SIGHUP, hangup)
    try:
        assert process.stdout
        seen = ""
        while ready not in seen:
            word = process.stdout.read(1)
            assert word, seen
            seen += word
        yield process
    finally:
        process.kill()
        process.wait()


def ended(process: "subprocess.Popen[str]", seconds: float = 30) -> str:
    """What a process prints until it ends, which it must in time."""
    words, _ = process.communicate(timeout=seconds)
    return words.strip()


def children_of(process: int) -> set[int]:
    """The processes below one."""
    parents = {}
    for status in Path("/proc").glob("[0-9]*/stat"):
        try:
            parents[int(status.parent.name)] = int(status.read_text().rpartition(")")[2].split()[1])
        except (OSError, ValueError):
            continue
    found, below = set(), {process}
    while below:
        below = {child for child, parent in parents.items() if parent in below}
        found |= below
    return found


def gone(processes: set[int], seconds: float = 5) -> bool:
    """Whether all of them have ended in time; a process that nobody waits for counts as ended."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        states = [Path(f"/proc/{process}/stat") for process in processes]
        if all(not state.exists() or state.read_text().rpartition(")")[2].split()[0] == "Z" for state in states):
            return True
        time.sleep(0.05)
    return False


@pytest.mark.parametrize("number", signals.ENDING)
def test_a_signal_ends_a_process_in_one_sentence_with_its_tidying_done(number: int) -> None:
    with running([sys.executable, "-c", CHILD]) as process:
        process.send_signal(number)
        assert ended(process).split("\n") == ["tidy", f"Stopped by {signals.name_of(number)}."]
        assert process.returncode == 128 + number


def test_a_hangup_that_nohup_ignores_stays_ignored() -> None:
    with running(["nohup", sys.executable, "-c", CHILD]) as process:
        process.send_signal(signal.SIGHUP)
        time.sleep(0.3)
        assert process.poll() is None


def test_a_second_ctrl_c_ends_at_once_what_is_still_saving() -> None:
    with running([sys.executable, "-c", NOTING]) as process:
        process.send_signal(signal.SIGINT)
        assert process.stdout and "saved" in [process.stdout.readline().strip() for _ in range(2)]
        process.send_signal(signal.SIGINT)
        ended(process, 5)
        assert process.returncode == 128 + signal.SIGINT


def test_a_ctrl_c_that_a_child_gets_twice_is_one() -> None:
    with running([sys.executable, "-c", PATIENT]) as process:
        process.send_signal(signal.SIGINT)
        assert process.stdout and "saved" in [process.stdout.readline().strip() for _ in range(2)]
        process.send_signal(signal.SIGINT)
        ended(process)
        assert process.returncode == 0


def test_a_launcher_that_handles_a_signal_hears_of_it_once_all_is_saved() -> None:
    with running([sys.executable, "-c", LAUNCHED]) as process:
        process.send_signal(signal.SIGUSR2)
        assert ended(process).split() == ["saved", "requeued"] and process.returncode == 7


def test_signals_are_handed_on_to_children_which_the_parent_waits_for() -> None:
    with running([sys.executable, "-c", WAITING]) as process:
        process.send_signal(signal.SIGTERM)
        assert ended(process).split("\n") == ["tidy", "Stopped by SIGTERM."]
        assert process.returncode == 128 + signal.SIGTERM


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="needs /proc")
def test_children_do_not_outlive_a_parent_that_is_killed() -> None:
    with running([sys.executable, "-c", WAITING]) as process:
        children = children_of(process.pid)
        process.kill()
        assert children and gone(children)


def test_an_orphan_prints_nothing() -> None:
    said = io.StringIO()
    Attended(said, os.getppid()).write("heard")
    Attended(said, os.getppid() + 1).write("ConnectionResetError")
    assert said.getvalue() == "heard"


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc").is_dir(), reason="needs /proc")
def test_a_training_in_two_processes_saves_and_says_how_to_go_on(tmp_path: Path) -> None:
    words = [*SMALL, "trainer.max_steps=100000", "callback.pictures.every=0", "callback.progress.refresh_rate=1"]
    command = [sys.executable, "train.py", *words, "trainer.devices=2", f"hydra.run.dir={tmp_path / 'run'}"]
    with running(command, "/100000 [00:0") as process:
        process.send_signal(number := signal.SIGHUP)
        lines = ended(process, 120).replace("\r", "\n").splitlines()
        assert process.returncode == 128 + number and not any("Traceback" in line for line in lines)
        (sentence,) = [line for line in lines if "go on with" in line]
        assert sentence.startswith(f"stopped by {signals.name_of(number)} at step ")
        assert sentence.endswith(f"train.py resume={tmp_path / 'run'}")
        assert (tmp_path / "run" / "checkpoints" / "last.ckpt").is_file()


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc").is_dir(), reason="needs /proc")
def test_nobody_outlives_a_training_that_is_killed(tmp_path: Path) -> None:
    words = [*SMALL, "trainer.max_steps=100000", "callback.pictures.every=0", "callback.progress.refresh_rate=1"]
    command = [sys.executable, "train.py", *words, "trainer.devices=2", "data.num_workers=1"]
    with running(command, "training:   0%|          | 1") as process:
        children = children_of(process.pid)
        os.kill(process.pid, signal.SIGKILL)
        assert len(children) >= 4 and gone(children)  # two that train, and load with two


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="the system does not say what a process handles")
def test_signals_go_on_to_processes_below_nohup_too_and_not_to_those_that_ignore_them() -> None:
    handled = (
        "import signal, sys, time; from heatgen.runtime import signals; signals.obey(); print(flush=True); time.sleep(60)"
    )
    deaf = "import time; from heatgen.runtime import children; children.in_loader(0); print(flush=True); time.sleep(60)"
    starts = [[sys.executable, "-c", handled], ["nohup", sys.executable, "-c", handled], [sys.executable, "-c", deaf]]
    below = [subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) for command in starts]
    try:
        for child in below:
            assert child.stdout is not None and child.stdout.readline() == b"\n"
        assert children.workers(os.getpid()) & {child.pid for child in below} == {below[0].pid, below[1].pid}
    finally:
        for child in below:
            child.kill()
            child.communicate()
