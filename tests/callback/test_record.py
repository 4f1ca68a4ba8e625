"""The rows of a training."""

import os
import signal
from pathlib import Path

import pytest
from conftest import SMALL, call

from heatgen.callback.pictures import Pictures


@pytest.mark.slow
def test_a_training_that_signals_stopped_has_the_rows_of_one_that_was_left_alone(tmp_path: Path, monkeypatch) -> None:
    words = [*SMALL, "trainer.log_every_n_steps=2", "trainer.max_steps=11", "evaluate=[]"]
    whole, stopped, due = tmp_path / "whole", tmp_path / "stopped", [8, 5, 3]
    assert call("train", *words, f"hydra.run.dir={whole}") == 0

    def stop(self: Pictures, trainer, *_) -> None:
        if due and trainer.global_step == due[-1]:
            due.pop()
            os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(Pictures, "on_train_batch_end", stop)
    assert [call("train", *words, f"hydra.run.dir={stopped}") for _ in range(4)] == [128 + signal.SIGTERM] * 3 + [0]
    rows = (stopped / "metrics.csv").read_text()
    assert rows == (whole / "metrics.csv").read_text() and rows.splitlines()[-1].startswith("10,")
