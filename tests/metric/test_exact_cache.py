"""Exact answers are computed once for all models of a sweep, and again whenever anything that they depend on is other."""

import pytest
import torch
from test_likelihood import DATA, ctx, make

from heatgen.forward.neumann_heat import NeumannHeat
from heatgen.metric import exact_cache, likelihood
from heatgen.metric.likelihood import Likelihood
from heatgen.metric.neural_process_tasks import double
from heatgen.oracle.find import exact_trajectories


@pytest.fixture
def computed(monkeypatch, tmp_path):
    """How often exact columns were computed, in a folder of the test's own; without pictures, which take time."""
    for name in ("likelihoods", "frames", "film"):
        monkeypatch.setattr(f"heatgen.metric.likelihood.pictures.{name}", lambda *rest: None)
    count, whole = [], likelihood.exact_columns
    monkeypatch.setattr(likelihood, "exact_columns", lambda *rest: (count.append(1), whole(*rest))[1])
    monkeypatch.setattr(DATA, "data_dir", str(tmp_path))
    return count


def columns(model, n_context=1, indices=(0, 1), seed=0):
    """The columns of a few tasks."""
    metric, context = Likelihood(targets=4, draws=2), ctx(model)
    object.__setattr__(context, "seed", seed)
    oracle = exact_trajectories(model.process, DATA.spec, model.noise_std)
    with torch.no_grad():
        return metric.columns(context, oracle, n_context, indices)[:, 6:]


@pytest.mark.slow
def test_another_model_finds_the_answers_and_whatever_is_other_does_not(computed, monkeypatch, tmp_path) -> None:
    first = columns(make())
    assert torch.equal(columns(make(channels=8)), first) and len(computed) == 1  # another network
    slower = NeumannHeat((1, 8, 8), 9, diffusivity=[0.01, 0.09], diffusivities=4, conditional=False)
    other = make()
    other.noise_std = 0.2
    for i, change in enumerate(
        [{"model": make(process=slower)}, {"model": other}, {"seed": 1}, {"n_context": 3}, {"indices": (0, 2)}]
    ):
        assert not torch.equal(columns(**{"model": make()} | change), first)
        assert len(computed) == 2 + i, change
    monkeypatch.setattr(exact_cache, "code", lambda: "another version")
    assert torch.equal(columns(make()), first) and len(computed) == 7


@pytest.mark.slow
def test_a_damaged_file_is_computed_again(computed, tmp_path) -> None:
    first = columns(make())
    (path,) = (tmp_path / "statistics" / "exact").iterdir()
    whole = path.read_bytes()
    for damaged in (b"", whole[:-40], whole.replace(whole[150:160], bytes(10))):
        path.write_bytes(damaged)
        assert torch.equal(columns(make()), first) and path.read_bytes() == whole
    path.write_bytes(whole)
    assert torch.equal(columns(make()), first) and len(computed) == 4
    path.unlink()
    path.parent.rmdir()
    path.parent.write_text("no folder")
    assert torch.equal(columns(make()), first)


def test_the_law_and_the_map_are_in_the_name() -> None:
    model, metric = make(), Likelihood(targets=4)
    task = metric.task(ctx(model), 1, [0])
    oracle = exact_trajectories(model.process, DATA.spec, model.noise_std)
    shown = [double(task.context), double(task.target)]
    names = {exact_cache.fingerprint(oracle, exact_cache.probes(oracle, shown))}
    for change in ("middle", "width", "noise_std", "waves", "prior", "processes"):
        before = getattr(oracle, change)
        setattr(oracle, change, before[:-1] if change == "processes" else before * 1.0000001)
        names.add(exact_cache.fingerprint(oracle, exact_cache.probes(oracle, shown)))
        setattr(oracle, change, before)
    assert len(names) == 7
