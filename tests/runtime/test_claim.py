"""Folders that nobody else has: claimed in one instant, locked while a process or one of its children lives."""

import json
import multiprocessing
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from heatgen.check import ConfigError
from heatgen.runtime import claim
from heatgen.runtime.directory import write_result

FORK = multiprocessing.get_context("fork")
HOLD = """
import subprocess, sys, time
from pathlib import Path
from heatgen.runtime import claim
with claim.lock(Path(sys.argv[1])):
    if len(sys.argv) > 2:
        child = subprocess.Popen(["sleep", "60"], pass_fds=claim.descriptors())
    print(child.pid if len(sys.argv) > 2 else 0, flush=True)
    time.sleep(60)
"""


def at_once(function, folder: Path, count: int = 6) -> list[Path]:
    """What a function gives in several processes, in one instant."""
    with FORK.Pool(count, signal.signal, (signal.SIGTERM, signal.SIG_DFL)) as pool:  # which ends them, whatever a test left
        return pool.map(function, [folder] * count, chunksize=1)


def result_of(folder: Path) -> Path:
    return write_result(folder, "fid", {"values": {"fid": 1.0}})


def test_every_process_that_claims_a_folder_in_one_instant_gets_its_own(tmp_path: Path) -> None:
    found = at_once(claim.claim, tmp_path / "runs" / "now")
    assert {path.name for path in found} == {"now", *(f"now_{i}" for i in range(2, 7))}


def test_no_result_of_one_second_is_lost(tmp_path: Path) -> None:
    found = at_once(result_of, tmp_path)
    assert len(set(found)) == 6 == len(list((tmp_path / "evaluation").iterdir()))
    assert all(json.loads(path.read_text())["values"]["fid"] == 1 for path in found)


def hold(folder: Path, *words: str) -> tuple[subprocess.Popen[str], int]:
    """A process that has locked a folder, and the child that it started with the lock."""
    command = [sys.executable, "-c", HOLD, str(folder), *words]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    return process, int(process.stdout.readline())


def test_who_comes_second_is_told_who_is_there(tmp_path: Path) -> None:
    process, _ = hold(tmp_path)
    try:
        told = f"{tmp_path} is being trained by process {process.pid} on {socket.gethostname()} since "
        with pytest.raises(ConfigError, match=told), claim.lock(tmp_path):
            pass
    finally:
        process.kill()
        process.wait()
    with claim.lock(tmp_path):
        assert json.loads((tmp_path / ".lock").read_text())["host"] == socket.gethostname()
    assert (tmp_path / ".lock").read_text() == ""


def test_an_orphan_keeps_the_lock_of_its_parent(tmp_path: Path) -> None:
    process, child = hold(tmp_path, "with a child")
    process.kill()
    process.wait()
    with pytest.raises(ConfigError, match="is being trained"), claim.lock(tmp_path):
        pass
    subprocess.run(["kill", f"-{signal.SIGKILL}", str(child)], check=True)
    with claim.lock(tmp_path, patience=5):
        pass


def test_a_folder_that_came_to_nothing_is_removed_and_one_that_holds_something_is_not(tmp_path: Path) -> None:
    empty, full, other = (tmp_path / name for name in ("empty", "full", "other"))
    other.mkdir()
    assert claim.make(empty) and claim.make(full) and not claim.make(other)
    with claim.lock(empty):
        (empty / "train.log").touch()
    (full / "config.yaml").touch()
    for folder in (empty, full, other):
        claim.give_up(folder)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["full", "other"]
    claim.made.clear()


def test_a_lock_waits_for_processes_that_are_about_to_end(tmp_path: Path) -> None:
    process, _ = hold(tmp_path)
    began = time.monotonic()
    with pytest.raises(ConfigError), claim.lock(tmp_path, patience=0.3):
        pass
    assert time.monotonic() - began >= 0.3
    process.kill()
    process.wait()
