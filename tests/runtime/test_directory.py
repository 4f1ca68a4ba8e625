"""Finding runs again, and writing results that never replace older ones."""

import csv
import json
import os
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime

import pytest

from heatgen.check import ConfigError
from heatgen.runtime import directory
from heatgen.runtime.directory import append_results, describe_run, find_run, write_result


def make_run(folder, modified):
    folder.mkdir(parents=True)
    (folder / "config.yaml").write_text("seed: 0\n")
    os.utime(folder / "config.yaml", (modified, modified))
    return folder


def test_latest_is_the_run_whose_config_is_the_newest_however_deep(tmp_path):
    make_run(tmp_path / "sweeps" / "2026-01-03" / "9-ihd", modified=1000)  # the last by name
    newest = make_run(tmp_path / "sweeps" / "2026-01-01" / "0-ihd", modified=3000)
    make_run(tmp_path / "ihd-heat-digits" / "2026-01-02", modified=2000)  # the first by name
    assert find_run("latest", str(tmp_path)) == newest.resolve()


def test_a_run_is_found_by_its_directory_as_an_absolute_path(tmp_path, monkeypatch):
    run = make_run(tmp_path / "runs" / "a", modified=1000)
    monkeypatch.chdir(tmp_path)
    assert find_run("runs/a", "elsewhere") == run.resolve()


@pytest.mark.parametrize("runs", ["", "never made"])
def test_latest_of_no_runs_says_how_to_start_one(tmp_path, runs):
    with pytest.raises(ConfigError, match=r"There is no run under .*; start one with"):
        find_run("latest", str(tmp_path / runs))


def test_a_missing_run_and_one_without_a_config_are_told_apart(tmp_path):
    with pytest.raises(ConfigError, match="nowhere does not exist"):
        find_run(str(tmp_path / "nowhere"), str(tmp_path))
    (tmp_path / "empty").mkdir()
    with pytest.raises(ConfigError, match=r"empty has no config\.yaml"):
        find_run(str(tmp_path / "empty"), str(tmp_path))


def test_latest_of_runs_to_draw_from_passes_over_one_without_a_checkpoint(tmp_path):
    for name, modified in (("a", 1000), ("b", 2000)):
        make_run(tmp_path / name, modified)
    with pytest.raises(ConfigError, match="has a checkpoint yet; wait for one"):
        find_run("latest", str(tmp_path), trained=True)
    (tmp_path / "a" / "checkpoints").mkdir()
    (tmp_path / "a" / "checkpoints" / "best.ckpt").touch()
    assert find_run("latest", str(tmp_path), trained=True) == (tmp_path / "a").resolve()
    assert find_run("latest", str(tmp_path)) == (tmp_path / "b").resolve()


def test_a_resume_replaces_the_config_and_adds_to_the_history(tmp_path):
    describe_run(tmp_path, "seed: 0\n", ["seed=0"])
    describe_run(tmp_path, "seed: 1\n", ["resume=latest", "seed=1"])
    assert (tmp_path / "config.yaml").read_text() == "seed: 1\n"
    assert (tmp_path / "overrides.txt").read_text() == "seed=0\nresume=latest seed=1\n"
    lines = (tmp_path / "env.txt").read_text().splitlines()
    assert sum(line.startswith("started ") for line in lines) == 2
    assert sum(line.startswith("torch ") for line in lines) == 2
    assert sorted(path.name for path in tmp_path.iterdir()) == ["config.yaml", "env.txt", "overrides.txt"]


def test_results_of_the_same_second_never_replace_each_other(tmp_path, monkeypatch):
    class Frozen(datetime):
        @classmethod
        def now(cls, tz=None):
            return cls(2026, 1, 2, 3, 4, 5)

    monkeypatch.setattr(directory, "datetime", Frozen)
    paths = [write_result(tmp_path, mode, {"value": i}) for i, mode in enumerate(["fid", "fid", "fid", "kid"])]
    assert [path.name for path in paths] == [
        "fid_2026-01-02_03-04-05.json",
        "fid_2026-01-02_03-04-05_2.json",
        "fid_2026-01-02_03-04-05_3.json",
        "kid_2026-01-02_03-04-05.json",
    ]
    assert [json.loads(path.read_text())["value"] for path in paths] == [0, 1, 2, 3]
    assert len(list((tmp_path / "evaluation").iterdir())) == 4


def test_results_are_added_to_the_experiments_table_under_one_header(tmp_path):
    row = {"experiment": "sweep", "run": 'a, "b"', "mode": "fid", "metric": "fid", "value": 1.25, "standard_error": None}
    first = append_results(str(tmp_path), "sweep", [row | {"param_name": "delta", "param_value": 0.01}])
    second = append_results(str(tmp_path), "sweep", [row | {"value": 2.5}, row | {"value": 3}])
    assert first == second == tmp_path / "results" / "sweep.csv"
    with first.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [float(r["value"]) for r in rows] == [1.25, 2.5, 3]
    assert [r["param_value"] for r in rows] == ["0.01", "", ""]
    assert {r["run"] for r in rows} == {'a, "b"'}
    assert tuple(rows[0]) == directory.RESULT_COLUMNS


def test_rows_that_several_jobs_add_at_once_are_all_there_under_one_header(tmp_path):
    def add(job):
        append_results(str(tmp_path), "sweep", [{"run": f"job {job}", "metric": "m" * 3000, "value": i} for i in range(99)])

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(add, range(16)))
    with (tmp_path / "results" / "sweep.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [int(row["value"]) for row in rows] == 16 * list(range(99))  # the rows of a job stand together


def test_a_run_that_goes_on_with_other_images_says_so(tmp_path):
    facts = {"images": {"train": 20, "val": 2}, "limit": None}
    assert directory.describe_data(tmp_path, facts) is None
    assert directory.describe_data(tmp_path, facts) is None
    more = facts | {"images": {"train": 25, "val": 2}}
    assert "are {'train': 25, 'val': 2} now and were {'train': 20, 'val': 2}" in str(directory.describe_data(tmp_path, more))
    assert json.loads((tmp_path / "data.json").read_text()) == more
    (tmp_path / "data.json").write_text("[1, 2")
    assert directory.describe_data(tmp_path, facts) is None


@pytest.mark.parametrize("make", ["fifo", "loop", "zero", "foreign", "bytes"])
def test_a_table_of_results_that_is_none_is_named_and_not_added_to(tmp_path, make):
    path = tmp_path / "results" / "trial.csv"
    path.parent.mkdir()
    if make == "fifo":
        os.mkfifo(path)
    elif make in ("loop", "zero"):
        path.symlink_to(path if make == "loop" else "/dev/zero")
    else:
        path.write_bytes(b"a,b\n1,2\n" if make == "foreign" else bytes(range(256)))
    with pytest.raises((ConfigError, OSError), match=r"trial\.csv"):
        directory.append_results(str(tmp_path), "trial", [{"run": "a", "metric": "b", "value": 1.0}])
