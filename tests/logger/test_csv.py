"""metrics.csv: rows are added, columns are added, and nothing that was written is ever lost."""

import csv

import pytest

from heatgen.logger.csv import CSVLog


def rows(folder):
    with (folder / "metrics.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def test_each_logged_step_is_a_row_with_its_exact_numbers(tmp_path):
    log = CSVLog(str(tmp_path))
    log.log_metrics({"train/loss": 0.1 + 0.2, "epoch": 0}, step=10)
    log.log_metrics({"train/loss": 1e-12, "epoch": 0}, step=20)
    assert [list(row) for row in rows(tmp_path)] == [["step", "train/loss"]] * 2
    assert [(int(r["step"]), float(r["train/loss"])) for r in rows(tmp_path)] == [(10, 0.1 + 0.2), (20, 1e-12)]


def test_a_new_column_keeps_the_old_rows(tmp_path):
    log = CSVLog(str(tmp_path))
    log.log_metrics({"train/loss": 3.0}, step=1)
    log.log_metrics({"val/loss": 4.0}, step=1)
    log.log_metrics({"train/loss": 2.0, "lr": 0.5}, step=2)
    assert [tuple(row.values()) for row in rows(tmp_path)] == [
        ("1", "3.0", "", ""),
        ("1", "", "4.0", ""),
        ("2", "2.0", "", "0.5"),
    ]
    assert list(rows(tmp_path)[0]) == ["step", "train/loss", "val/loss", "lr"]
    assert [path.name for path in tmp_path.iterdir()] == ["metrics.csv"]


def test_a_resumed_run_erases_nothing_whatever_column_it_logs_first(tmp_path):
    first = CSVLog(str(tmp_path))
    first.log_metrics({"train/loss": 3.0}, step=1)
    first.log_metrics({"val/loss": 4.0}, step=1)
    before = (tmp_path / "metrics.csv").read_bytes()
    second = CSVLog(str(tmp_path))
    assert (tmp_path / "metrics.csv").read_bytes() == before
    second.log_metrics({"val/loss": 5.0}, step=2)
    assert (tmp_path / "metrics.csv").read_bytes().startswith(before)
    second.log_metrics({"train/loss": 1.0, "new": 6.0}, step=3)
    assert [(r["step"], r["train/loss"], r["val/loss"], r["new"]) for r in rows(tmp_path)] == [
        ("1", "3.0", "", ""),
        ("1", "", "4.0", ""),
        ("2", "", "5.0", ""),
        ("3", "1.0", "", "6.0"),
    ]


def test_a_rewrite_that_is_killed_before_its_end_leaves_the_old_file_whole(tmp_path, monkeypatch):
    log = CSVLog(str(tmp_path))
    log.log_metrics({"train/loss": 3.0}, step=1)
    before = (tmp_path / "metrics.csv").read_bytes()

    def killed(*paths):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("os.replace", killed)
        with pytest.raises(KeyboardInterrupt):
            log.log_metrics({"val/loss": 4.0}, step=1)
    assert (tmp_path / "metrics.csv").read_bytes() == before
    CSVLog(str(tmp_path)).log_metrics({"val/loss": 4.0}, step=1)
    assert [r["val/loss"] for r in rows(tmp_path)] == ["", "4.0"]


def test_a_training_that_goes_on_cuts_the_rows_of_the_steps_it_does_again_and_a_half_one(tmp_path):
    log, file = CSVLog(str(tmp_path)), tmp_path / "metrics.csv"
    log.cut(0)
    assert not file.exists()
    for step in range(6):
        log.log_metrics({"train/loss": 1.0 / (step + 1), "val/loss": 2.0}, step=step)
    whole = file.read_bytes()
    log.cut(6)
    assert file.read_bytes() == whole
    log.cut(4)
    assert file.read_bytes() == b"".join(whole.splitlines(keepends=True)[:5])
    with file.open("a") as half:
        half.write("3,0.2")
    CSVLog(str(tmp_path)).cut(4)
    assert file.read_bytes() == b"".join(whole.splitlines(keepends=True)[:5])


@pytest.mark.slow
def test_the_last_step_has_its_row_with_learning_rate_and_norm_of_the_gradient(small_run):
    trained = [row for row in rows(small_run) if row["train/loss"]]
    assert [int(row["step"]) for row in trained] == [11]  # of 12 steps, with a row every 50
    assert float(trained[0]["train/lr"]) == 0.001 and float(trained[0]["train/grad_norm"]) > 0
    assert [int(row["step"]) for row in rows(small_run) if row["val/loss"]] == [3, 7, 11]
