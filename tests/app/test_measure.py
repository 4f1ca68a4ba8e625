"""What is measured at the end of a training."""

import logging
from types import SimpleNamespace

import pytest

from heatgen.app.measure import check_evaluate, measure
from heatgen.check import ConfigError
from heatgen.runtime import launch, ranks


@pytest.fixture
def commands(monkeypatch):
    """The commands that would be run; the exit code of each is that of `codes`, or 0."""
    seen = SimpleNamespace(words=[], codes=[])

    def call(verb, words):
        assert verb == "evaluate"
        seen.words.append(words)
        return seen.codes.pop(0) if seen.codes else 0

    monkeypatch.setattr(launch, "call", call)
    for name in ("LOCAL_RANK", "RANK", "SLURM_NTASKS", "SLURM_PROCID", ranks.OWN_CHILD):
        monkeypatch.delenv(name, raising=False)
    return seen


@pytest.mark.parametrize(
    ("evaluate", "in_sweep", "expected"),
    [
        (None, False, []),
        (None, True, [["mode=forward"], ["mode=memorisation", "n=200"]]),
        ([], True, []),
        (
            ["mode=elbo", "mode=fid n=9 metric.weights='a b.pt'"],
            True,
            [["mode=elbo"], ["mode=fid", "n=9", "metric.weights=a b.pt"]],
        ),
    ],
)
def test_a_finished_run_is_measured_as_it_says_and_in_a_sweep_in_two_ways(evaluate, in_sweep, expected, commands, tmp_path):
    measure(tmp_path, evaluate, "some runs", "cpu", in_sweep)
    for words in commands.words:
        assert words[:4] == [f'run="{tmp_path}"', 'runs_dir="some runs"', "trust=true", "trainer.accelerator=cpu"]
    assert [words[4:] for words in commands.words] == expected


def test_a_measurement_that_fails_ends_the_job_with_one_sentence(commands, tmp_path):
    commands.codes = [0, 1]
    with pytest.raises(ConfigError, match=f"evaluate=b failed .* the training is whole, in {tmp_path}"):
        measure(tmp_path, ["a", "b", "c"], "runs", "cpu", False)
    assert len(commands.words) == 2
    measure(tmp_path, ["a", "b", "c"], "runs", "cpu", False)  # what has been measured is not measured again
    assert [words[4:] for words in commands.words[2:]] == [["b"], ["c"]]


@pytest.mark.parametrize(
    ("rank", "ours", "wanted", "notes"),
    [("0", False, True, 1), ("1", False, True, 0), ("0", True, True, 0), ("0", False, False, 0)],
)
def test_one_of_several_processes_measures_nothing_and_where_nobody_will_says_so(
    rank, ours, wanted, notes, commands, tmp_path, monkeypatch, caplog
):
    monkeypatch.setenv("LOCAL_RANK", rank)
    monkeypatch.setenv("RANK", rank)
    if ours:
        monkeypatch.setenv(ranks.OWN_CHILD, "1")
    with caplog.at_level(logging.WARNING, "heatgen"):
        measure(tmp_path, ["mode=elbo"] if wanted else None, "runs", "cpu", False)
    assert commands.words == [] and len(caplog.records) == notes
    assert all(f"run={tmp_path} afterwards" in record.getMessage() for record in caplog.records)


@pytest.mark.parametrize(("wanted", "said"), [("mode=elbo", "must be a list"), (["mode=elbow"], "did you mean elbo?")])
def test_what_cannot_be_measured_is_refused_before_the_training(wanted, said):
    with pytest.raises(ConfigError, match="evaluate") as caught:
        check_evaluate(wanted)
    assert said in str(caught.value)
