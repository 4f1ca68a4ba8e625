"""The soak scripts themselves: they try, count, and name what repeats a trial."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.slow
def test_a_script_counts_what_it_tried_and_finds_nothing(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "tests.soak.kills", "1", "--seed", "41", "--work", str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr[-3000:]
    assert "kills: 1 trials" in done.stdout and "; 0 bad" in done.stdout
