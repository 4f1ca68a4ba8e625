"""Nothing of a run that is not finished stands in a comparison, and what is lacking is said."""

import json

import pytest

from heatgen.check import ConfigError
from heatgen.report.story import Story
from heatgen.report.unfinished import finished_runs, go_on, lacking_of

CONFIG = "optimizer: {lr: 0.1}\ntrainer: {max_steps: 12, max_epochs: null}\nevaluate: null\n"


def make(run, steps=None, modes=(), config=CONFIG, started="2026-01-01T10:00:00", ended="2026-01-01_11-00-00"):
    (run / "evaluation").mkdir(parents=True)
    (run / "config.yaml").write_text(config)
    (run / "env.txt").write_text(f"started 2026-01-01T09:00:00\ngit x\nstarted {started}\n")
    if steps is not None:
        (run / "evaluation" / f"train_{ended}.json").write_text(json.dumps({"mode": "train", "values": {"steps": steps}}))
    for mode in modes:
        (run / "evaluation" / f"{mode}_{ended}.json").write_text(json.dumps({"mode": mode, "values": {"x": 1.0}}))
    return run


def test_a_run_is_finished_when_its_training_and_what_it_asked_for_have_ended(tmp_path):
    assert lacking_of(make(tmp_path / "a", 12)) is None
    assert lacking_of(make(tmp_path / "b")) == "its training has not ended"
    assert (
        Story.of(tmp_path / "b").to_go_on == f"heatgen train resume={tmp_path / 'b'}"
        and not Story.of(tmp_path / "a").to_go_on
    )
    assert lacking_of(make(tmp_path / "c", 8, started="2026-01-01T12:00:00")) == "its training has not ended (8 of 12 steps)"
    assert lacking_of(make(tmp_path / "d", 8)) is None  # a callback ended it
    asks = CONFIG.replace("null\n", "['n=4', 'mode=fid n=4']\n").replace(
        "max_epochs: ['n=4', 'mode=fid n=4']", "max_epochs: null"
    )
    assert lacking_of(make(tmp_path / "e", 12, ["elbo"], asks)) == "mode=fid has not been measured"
    assert lacking_of(make(tmp_path / "f", 12, ["elbo", "fid"], asks)) is None
    assert lacking_of(make(tmp_path / "g", config="optimizer: null\ntrainer: {max_steps: 12}\n")) is None  # exact answers
    stopped = make(tmp_path / "h", 12)
    (stopped / "stopped.txt").write_text("NaN")
    assert "not finite" in lacking_of(stopped)


def test_runs_that_are_not_finished_are_left_out_and_named(tmp_path, caplog):
    good, bad = make(tmp_path / "0-a", 12), make(tmp_path / "1-b")
    assert finished_runs([tmp_path]) == [good]
    assert f"{bad} is left out: its training has not ended." in caplog.text
    with pytest.raises(ConfigError, match="no finished run to compare"):
        finished_runs([bad])


@pytest.mark.parametrize("config", ["a: [1", "!!python/name:os.system", "[1, 2]", "3"])
def test_a_config_that_is_none_is_named(tmp_path, config):
    run = make(tmp_path / "a", 12, config=config)
    with pytest.raises(ConfigError, match=f"{run / 'config.yaml'} cannot be read"):
        lacking_of(run)


def test_a_sweep_that_is_not_finished_has_no_comparison(tmp_path):
    make(tmp_path / "0-a", 12, ["forward", "memorisation"])
    make(tmp_path / "1-b", 12, ["forward"])
    make(tmp_path / "2-c")
    (tmp_path / "sweep.json").write_text(json.dumps({"arguments": [], "again": [], "jobs": 5}))
    with pytest.raises(ConfigError) as refused:
        finished_runs([tmp_path])
    sentence = str(refused.value)
    assert (
        "1-b: mode=memorisation has not been measured; 2-c: its training has not ended; job 3: not begun; job 4" in sentence
    )
    assert f"-m resume={tmp_path}, or" in sentence
    (tmp_path / "2-c" / "config.yaml").write_text(CONFIG.replace("evaluate: null", "evaluate: [n=4]"))
    assert go_on(tmp_path) == f"heatgen train -m resume={tmp_path} trust=true"  # else it would not be measured
    assert finished_runs([tmp_path / "0-a"]) == [tmp_path / "0-a"]
