"""mode=physics: true trajectories keep every law, and what breaks one is found."""

import pytest
import torch
from test_likelihood import DATA, REGIME, ctx, make

from heatgen.check import ConfigError
from heatgen.forward.neumann_heat import NeumannHeat
from heatgen.metric import neural_process_tasks
from heatgen.metric.context import EvalContext
from heatgen.metric.physics import LAWS, Physics, laws, summary
from heatgen.model.np import NeuralProcessMethod
from heatgen.model.prediction import Prediction
from heatgen.runtime.devices import Devices


class Knowing(NeuralProcessMethod):
    """Says the clean frames, changed by `spoil` (frames, times -> frames)."""

    spoil = staticmethod(lambda u, t: u)

    def predict(self, task, draws, noise=None, times=None):
        asked = task.target.times if times is None else times
        places = torch.searchsorted(task.target.times[0].contiguous(), asked.contiguous())
        u = self.spoil(task.target_clean[torch.arange(len(asked))[:, None], places], asked[..., None, None, None])
        return Prediction(u[None], torch.ones_like(u)[None])


@pytest.fixture
def plain(monkeypatch):
    """Without pictures, which take time."""
    monkeypatch.setattr("heatgen.metric.physics.pictures.over_time", lambda *rest: None)


def knowing(spoil=None, **options):
    base = make(path="deterministic", **options)
    model = Knowing(base.process, base.net, None, None, REGIME).eval()
    if spoil is not None:
        model.spoil = spoil
    return model


def measure(model, **options):
    return Physics(**{"contexts": [1], "targets": 4, "draws": 3, **options})(ctx(model, n=6)).values


def test_a_model_that_knows_the_truth_keeps_every_law():
    result = Physics(contexts=[0, 2], targets=4, draws=3)(ctx(knowing(), n=6))
    for number in (0, 2):
        for law in LAWS:
            assert result.values[f"{law}_context_{number}"] == pytest.approx(0, abs=1e-6)
            assert result.values[f"true_{law}_context_{number}"] == pytest.approx(0, abs=1e-6)
        assert result.values[f"exact_energy_drift_context_{number}"] == pytest.approx(0, abs=1e-9)
        assert f"energy_drift_draws_context_{number}" not in result.values
    assert set(result.pictures) == {"physics"} and result.headline[0] == "energy_drift_context_2"
    assert result.facts["levels"] == 9 and result.facts["tolerance"] == 0.01
    assert any("several diffusivities" in note for note in result.notes)


@pytest.mark.usefixtures("plain")
def test_the_exact_mean_of_one_known_diffusivity_keeps_every_law():
    found = measure(knowing(process=NeumannHeat((1, 8, 8), 9, diffusivity=0.05)), contexts=[2])
    for law in LAWS:
        assert found[f"exact_{law}_context_2"] == pytest.approx(0, abs=1e-9)


@pytest.mark.parametrize(
    ("spoil", "broken", "kept"),
    [
        (lambda u, t: u + 5 * t, {"energy_drift", "overshoot"}, {"undershoot"}),
        (lambda u, t: u - 5 * t, {"energy_drift", "undershoot"}, {"overshoot"}),
        (lambda u, t: u * (1 - 0.5 * t), {"energy_drift"}, {"entropy_decrease", "overshoot"}),
        (lambda u, t: u.flip(1), {"entropy_decrease", "overshoot", "violations"}, {"energy_drift"}),
    ],
)
@pytest.mark.usefixtures("plain")
def test_what_breaks_a_law_is_found_by_it_and_the_truth_beside_it_is_not(spoil, broken, kept):
    found = measure(knowing(spoil))
    for law in broken:
        assert found[f"{law}_context_1"] > 1e-3
    for law in kept:
        assert found[f"{law}_context_1"] == pytest.approx(0, abs=1e-6)
    for law in LAWS:
        assert found[f"true_{law}_context_1"] == pytest.approx(0, abs=1e-6)


@pytest.mark.usefixtures("plain")
def test_the_drift_of_a_leak_is_its_root_mean_square():
    found = measure(knowing(lambda u, t: u + 0.1 * t))
    times = torch.arange(1, 10) / 9
    assert found["energy_drift_context_1"] == pytest.approx(0.1 * times.square().mean().sqrt().item(), rel=1e-4)


def test_laws_are_those_of_a_trajectory_by_hand():
    """Energy 1, 2, 0; maxima 3, 4, 3.5; minima 0, 0, -0.2; entropy .5, .4, .6."""
    found = torch.tensor([[1.0, 3, 0, 0.5], [2, 4, 0, 0.4], [0, 3.5, -0.2, 0.6]], dtype=torch.float64)
    assert laws(found, 0.3).tolist() == pytest.approx([1, 0.5, 0.1, 0.5, 0.05])
    assert laws(found, 0.1)[3] == 1 and laws(found, 2.0)[3] == 0
    assert summary(torch.tensor([[[0.0, 1.0], [1.0, 2.0]]])).tolist() == pytest.approx([1, 2, 0, 0.75])


@pytest.mark.usefixtures("plain")
def test_draws_of_an_untrained_network_stand_beside_its_mean_however_levels_are_cut(monkeypatch):
    model, metric = make(), Physics(contexts=[1], targets=4, draws=4)
    found = metric(ctx(model, n=5))
    assert found.values["energy_drift_draws_context_1"] > 1e-4
    assert len({len(x) for x in found.series.values()}) == 1
    monkeypatch.setattr(neural_process_tasks, "FRAMES", 3)
    again = metric(EvalContext(model, DATA, "hot_spots", Devices("cpu", 1), 5, 2, 0, model.process))
    assert found.values == pytest.approx(again.values, rel=1e-4, abs=1e-6)


def test_what_is_out_of_range_is_refused():
    with pytest.raises(ConfigError, match=r"metric\.tolerance"):
        Physics(tolerance=-1)
    with pytest.raises(ConfigError, match=r"metric\.contexts"):
        Physics(contexts=3)
    with pytest.raises(ConfigError, match=r"needs a run.*model=np"):
        Physics()(ctx(None))
