"""hparams_search=: trials, what ends them, and what a kill leaves."""

import importlib.util
import json

import pytest
from conftest import SMALL, call
from hydra.core.override_parser.overrides_parser import OverridesParser

from heatgen.app.search import distribution
from heatgen.report import study as page

pytest.importorskip("optuna")
TINY = [word for word in SMALL if not word.startswith(("callback.pictures", "trainer.max_steps", "net."))]
TINY += [
    "callback=none",
    "trainer.max_steps=8",
    "net.norm_groups=4",
    "hparams_search=training",
    "net.model_channels=choice(4,8)",
]


def values(word):
    (override,) = OverridesParser.create().parse_overrides([word])
    return distribution(override)


def test_what_m_takes_is_what_optuna_draws_from():
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    assert values("k=tag(log,interval(1e-4,1e-2))") == FloatDistribution(1e-4, 1e-2, log=True)
    assert values("k=interval(0,2.5)") == FloatDistribution(0, 2.5)
    assert values("k=range(20,101,20)") == IntDistribution(20, 100, step=20)
    assert values("k=choice(a,b)") == values("k=a,b") == CategoricalDistribution(["a", "b"])


@pytest.mark.slow
def test_a_search_prunes_goes_on_and_says_which_trial_was_the_best(tmp_path, caplog):
    import optuna

    folder = tmp_path / "sweep"
    place = f"hydra.sweep.dir={folder}"
    few = ["hydra.sweeper.n_trials=2", "hydra.sweeper.n_startup_trials=1", "optimizer.lr=tag(log,interval(1e-6,1e-2))"]
    assert call("train", "-m", *TINY, *few, place) == 0
    study = optuna.load_study(study_name="search", storage=f"sqlite:///{folder / 'study.db'}")
    lost = study.ask(study.trials[0].distributions)  # as a kill leaves it
    assert call("train", "-m", f"resume={folder}", "hydra.sweeper.n_trials=3") == 0
    trials = study.get_trials()
    assert len(trials) == 3 and trials[2].params == lost.params and all(trial.state.is_finished() for trial in trials)
    assert sorted(run.name for run in folder.glob("*-ihd-heat-digits")) == [f"{i}-ihd-heat-digits" for i in range(3)]
    assert [set(trial.intermediate_values) for trial in trials if trial.state.name == "PRUNED"] in ([], [{4}], [{4}, {4}])
    rows = json.loads((folder / "study.json").read_text())
    assert [row["trial"] for row in rows] == [0, 1, 2] and rows[0]["state"] == "complete" and rows[0]["value"] > 0
    assert (folder / "study.png").is_file() and f"| {study.best_trial.number} | complete |" in (
        folder / "study.md"
    ).read_text()


def test_a_trial_whose_loss_is_worse_than_most_is_pruned(tmp_path):
    import optuna
    import torch

    from heatgen.callback.prune import NAME, PRUNED, Prune, storage_of

    class Strategy:
        def reduce_boolean_decision(self, decision, all):
            return decision

    class Trainer:
        is_global_zero, strategy, max_steps = True, Strategy(), 20

        def __init__(self, loss):
            self.callback_metrics, self.should_stop, self.global_step = {"val/loss": torch.tensor(loss)}, False, 4

    study = optuna.create_study(study_name=NAME, storage=storage_of(tmp_path))
    study.set_user_attr("prune", True)
    study.set_user_attr("n_startup_trials", 2)
    ended = []
    for number, loss in enumerate((1.0, 2.0, 3.0, 0.5)):
        study.ask()
        trainer, prune = Trainer(loss), Prune(tmp_path, number)
        for _ in range(2):  # a resume tells a step again
            prune.on_fit_start(trainer, None)
            prune.on_validation_end(trainer, None)
        ended.append(trainer.should_stop)
        study.tell(number, loss, state=None if not trainer.should_stop else optuna.trial.TrialState.COMPLETE)
    assert ended == [False, False, True, False]
    assert [trial.user_attrs.get(PRUNED) for trial in study.trials] == [None, None, 4, None]


def test_the_table_starts_with_the_best(tmp_path):
    trials = [
        {"trial": i, "state": s, "value": v, "k": "4"}
        for i, (s, v) in enumerate([("complete", 2.0), ("pruned", 0.1), ("fail", None), ("complete", 1.0)])
    ]
    page.write(tmp_path, trials, "train/val_loss", "minimize")
    lines = (tmp_path / "study.md").read_text().splitlines()
    assert [line.split(" | ")[0][2:] for line in lines if line.startswith("| ") and "trial" not in line] == [
        "3",
        "0",
        "1",
        "2",
    ]


@pytest.mark.slow
def test_a_search_that_cannot_be_says_why(refused, monkeypatch):
    words = ["-m", *TINY, "hydra.sweeper.objective=elbo/nll_bound"]
    assert refused("train", *words) == (
        "Error: hydra.sweeper.prune=true is for objective=train/val_loss, not elbo/nll_bound; use false."
    )
    assert refused("train", "-m", *TINY, "trainer.limit_val_batches=0") == (
        "Error: hydra.sweeper.objective=train/val_loss needs a validation; remove trainer.limit_val_batches=0."
    )
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *rest: None if name == "optuna" else find(name, *rest))
    assert refused("train", "-m", *TINY) == "Error: hparams_search= needs the package optuna: pip install optuna."
