"""mode=calibration: what draws its own data is calibrated, and what is too sure or too shy is not."""

import json
import math

import pytest
import torch
from conftest import call
from scipy import stats
from test_likelihood import DATA, REGIME, Exact, ctx, make

from heatgen.check import ConfigError
from heatgen.forward.neumann_heat import NeumannHeat
from heatgen.metric.calibration import BINS, Calibration, repeated, uniform_distance
from heatgen.metric.context import EvalContext
from heatgen.metric.likelihood import Likelihood
from heatgen.metric.neural_process_tasks import moments
from heatgen.metric.pictures.calibration import coverages
from heatgen.metric.scoring_rules import coverage, histogram
from heatgen.model.prediction import Prediction
from heatgen.noise import SampleNoise
from heatgen.runtime.devices import Devices

K, B, M, SHAPE = 3, 200, 2, (1, 4, 4)


@pytest.fixture
def plain(monkeypatch):
    """Without pictures, which take time."""
    for name in ("pit", "reliability"):
        monkeypatch.setattr(f"heatgen.metric.calibration.pictures.{name}", lambda *rest: None)


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def mixture(rank=0):
    factor = 0.3 * normal(K, B, M, *SHAPE, rank, seed=3) if rank else None
    return Prediction(normal(K, B, M, *SHAPE), 0.2 + normal(K, B, M, *SHAPE, seed=1).abs(), factor)


def drawn(said, seed=0):
    """Frames from the prediction itself: one draw of the latent for each task."""
    which = torch.randint(len(said.mean), (B,), generator=torch.Generator().manual_seed(seed))
    return said.sample(SampleNoise(range(B), seed, "truth"))[which, torch.arange(B)]


def columns(said, y):
    """The columns of `measure` and the shares of the PIT."""
    found = Calibration(draws=5).measure(said, y, SampleNoise(range(B), "draws"))
    return found[:, :5].unbind(1), found[:, 5:]


@pytest.mark.parametrize("rank", [0, 2])
def test_data_from_the_prediction_itself_has_a_uniform_pit_and_nominal_coverage(rank):
    said = mixture(rank)
    (_, _, *covered), shares = columns(said, drawn(said))
    for level, share in zip((0.5, 0.9, 0.95), covered, strict=True):
        assert share.mean().item() == pytest.approx(level, abs=4 * share.std().item() / B**0.5)
        assert share.std().item() / B**0.5 < 0.03
    distance, error = uniform_distance(shares)
    assert distance < 4 * error + 0.02 and error < 0.02
    nominal, observed = coverages(shares.mean(0))
    assert nominal[BINS // 4] == 0.5 and observed[BINS // 4] == pytest.approx(covered[0].mean().item(), abs=0.005)
    assert observed[0] == 0 and observed[-1] == pytest.approx(1)


@pytest.mark.parametrize(("factor", "sign"), [(0.5, -1), (2.0, 1)])
def test_too_sure_covers_too_little_and_too_shy_too_much_and_both_cost(factor, sign):
    said = Prediction(normal(1, B, M, *SHAPE), torch.ones(1, B, M, *SHAPE, dtype=torch.float64))
    y = drawn(said)
    (best, energy, _, ninety, _), shares = columns(said, y)
    (crps, worse, _, wrong, _), off = columns(Prediction(said.mean, factor * said.own), y)
    assert (wrong - ninety).mean().item() * sign > 0.05 and (crps - best).mean() > 0.01 and (worse - energy).mean() > 0.01
    assert uniform_distance(off)[0] > 5 * uniform_distance(shares)[0]
    expected = stats.norm.cdf(factor * stats.norm.ppf(0.95)) * 2 - 1
    assert wrong.mean().item() == pytest.approx(expected, abs=0.02)


def test_the_energy_score_is_the_double_loop_over_draws_of_frames():
    said = mixture()
    y = drawn(said)
    (_, energy, *_), _ = columns(said, y)
    x = said.sample(SampleNoise(range(B), "draws"))
    for b in (0, 7):
        each = []
        for m in range(M):
            near = sum((x[k, b, m] - y[b, m]).square().sum().sqrt() for k in range(K)) / K
            far = sum((x[k, b, m] - x[j, b, m]).square().sum().sqrt() for k in range(K) for j in range(K)) / (K * (K - 1))
            each.append((near - far / 2) / math.sqrt(16))
        assert energy[b].item() == pytest.approx(sum(each).item() / M, rel=1e-10)


def test_without_a_latent_several_draws_of_the_noise_are_made():
    one = Prediction(normal(1, B, M, *SHAPE), torch.ones(1, B, M, *SHAPE, dtype=torch.float64), normal(1, B, M, *SHAPE, 2))
    many = repeated(one, 5)
    x = many.sample(SampleNoise(range(B), "draws"))
    assert x.shape == (5, B, M, *SHAPE) and not torch.equal(x[0], x[1])
    assert torch.equal(many.std[3], one.std[0]) and repeated(many, 9) is many


def test_the_distance_is_that_of_kolmogorov_and_smirnov():
    u = normal(6, 500).sigmoid()
    found, error = uniform_distance(histogram(u, BINS))
    assert found == pytest.approx(stats.kstest(u.flatten().numpy(), "uniform").statistic, abs=1 / BINS) and error > 0
    flat = (torch.arange(4000, dtype=torch.float64) + 0.5).reshape(1, -1) / 4000
    assert uniform_distance(histogram(flat.expand(3, -1), BINS))[0] == pytest.approx(0, abs=1e-12)
    assert coverage(flat, 0.9).item() == pytest.approx(0.9)


@pytest.mark.slow
def test_the_best_gaussians_have_the_exact_numbers():
    base = make(path="deterministic")
    model = Exact(base.process, base.net, None, None, REGIME).eval()
    result = Calibration(contexts=[0, 3], targets=4, draws=4)(ctx(model))
    for number in (0, 3):
        for name in ("crps", "energy_score", "ks_distance", "coverage_50", "coverage_90", "coverage_95"):
            key = f"{name}_context_{number}"
            assert result.values[key] == pytest.approx(result.values[f"exact_{key}"], abs=2e-3)
            assert result.errors[key] >= 0
    assert result.values["coverage_90_context_3"] == pytest.approx(0.9, abs=0.03)
    assert result.values["ks_distance_context_3"] < 0.05
    assert result.values["exact_crps_context_3"] == pytest.approx(0.05 / math.sqrt(math.pi), rel=0.1)  # noise alone
    assert result.values["exact_crps_context_3"] < result.values["exact_crps_context_0"]
    assert result.headline == (
        "crps_context_3",
        "energy_score_context_3",
        "ks_distance_context_3",
        "coverage_90_context_3",
    )
    assert set(result.pictures) == {"pit", "reliability"} and any("best independent" in note for note in result.notes)


@pytest.mark.usefixtures("plain")
def test_an_untrained_network_is_worse_than_the_exact_answer_however_tasks_are_cut():
    model, metric = make(), Calibration(contexts=[1], targets=4, draws=4)
    found = metric(ctx(model))
    again = metric(EvalContext(model, DATA, "hot_spots", Devices("cpu", 1), 20, 7, 0, model.process))
    assert found.values == pytest.approx(again.values, rel=1e-4, abs=1e-4)
    assert found.values["crps_context_1"] > 2 * found.values["exact_crps_context_1"]
    assert found.values["ks_distance_context_1"] > 0.1 and found.facts["draws"] == 4
    assert len({len(x) for x in found.series.values()}) == 1


@pytest.mark.usefixtures("plain")
def test_a_map_that_is_told_has_no_exact_numbers():
    process = NeumannHeat((1, 8, 8), 9, diffusivity=[0.01, 0.1], diffusivities=4, conditional=True)
    result = Calibration(contexts=[1], targets=4, draws=2)(ctx(make(process=process, conditional=True), n=4))
    assert "exact_crps_context_1" not in result.values
    assert any(note.startswith("no exact calibration: forward=neumann_heat") for note in result.notes)


def test_tasks_are_those_of_the_likelihood_and_all_levels_have_the_same_context():
    whom, run = ctx(make()), [3, 5, 8]
    mine, other = (metric(contexts=[2], targets=4, draws=4) for metric in (Calibration, Likelihood))
    task, same = mine.task(whom, 2, run), other.task(whom, 2, run)
    assert torch.equal(task.target.values, same.target.values)
    every, times = mine.everything(whom, 2, run), whom.model.process.times
    assert torch.equal(every.context.values, task.context.values) and torch.equal(every.target.times[1], times)
    places = torch.searchsorted(times, task.target.times.contiguous())
    assert torch.equal(every.target_clean[torch.arange(3)[:, None], places], task.target_clean)
    said = mine.predict(whom, task, run)
    parts = torch.cat([part.mean for part in mine.predict_all(whom, every, run)], dim=2)
    assert torch.allclose(parts[:, torch.arange(3)[:, None], places], said.mean, atol=1e-5)


def test_the_moments_are_those_of_the_mixture():
    said = mixture(2)
    mean, std = moments(said)
    second = (said.std.square() + said.mean.square()).mean(0)
    assert torch.allclose(mean, said.mean.mean(0)) and torch.allclose(std.square() + mean.square(), second)


def test_what_is_out_of_range_is_refused():
    with pytest.raises(ConfigError, match=r"metric\.draws must be"):
        Calibration(draws=1)
    with pytest.raises(ConfigError, match=r"needs a run.*model=np"):
        Calibration()(ctx(None))


@pytest.mark.slow
def test_both_modes_from_the_command_line(tmp_path):
    folder = tmp_path / "runs" / "own"
    words = [
        "model=np",
        "net=grid_conv_cnp",
        "data=hot_spots",
        "forward=neumann_heat",
        "data.resolution=8",
        "data.test_size=16",
    ]
    few = ["trainer.max_steps=3", "trainer.accelerator=cpu", "callback.pictures.every=0", "net.encoder.channels=4"]
    assert call("train", *words, *few, f"hydra.run.dir={folder}") == 0
    for mode, name, pictures in (
        ("calibration", "exact_crps_context_3", {"pit", "reliability"}),
        ("physics", "exact_energy_drift_context_3", {"physics"}),
    ):
        assert call("evaluate", f"run={folder}", f"mode={mode}", "n=8", "trainer.accelerator=cpu") == 0
        (path,) = (folder / "evaluation").glob(f"{mode}_*.json")
        assert json.loads(path.read_text())["values"][name] >= 0
        assert {p.stem.removeprefix(f"{path.stem}_") for p in path.parent.glob(f"{path.stem}_*.png")} == pictures
