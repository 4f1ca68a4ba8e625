"""mode=likelihood: an exact prediction has the exact likelihood, and one draw makes all three kinds one."""

import json
import math
import tempfile

import pytest
import torch
from conftest import call, small_np
from PIL import Image

from heatgen.check import ConfigError
from heatgen.data.grf import GRF
from heatgen.data.hot_spots import HotSpotFields
from heatgen.forward.neumann_heat import NeumannHeat
from heatgen.forward.stochastic_heat import StochasticHeat
from heatgen.metric.calibration import Calibration
from heatgen.metric.context import EvalContext
from heatgen.metric.likelihood import Likelihood, noise_surplus
from heatgen.metric.physics import Physics
from heatgen.model.np import NeuralProcessMethod
from heatgen.model.prediction import Prediction
from heatgen.noise import SampleNoise
from heatgen.oracle.find import exact_trajectories
from heatgen.oracle.trajectory import noise_ceiling
from heatgen.regime.first_frame import FirstFrame
from heatgen.regime.random import Random
from heatgen.runtime.devices import Devices

N = 8
PLACE = tempfile.TemporaryDirectory()
SIZES = {"train_size": 8, "val_size": 8, "test_size": 40}
DATA = HotSpotFields(resolution=N, shape=[1, N, N], half_side=[1, 2], data_dir=PLACE.name, **SIZES)
REGIME = Random(context=[1, 3], targets=4)


def make(regime=REGIME, process=None, **net):
    torch.manual_seed(0)
    net = small_np((1, N, N), **{"channels": 4, **net})
    process = process or NeumannHeat((1, N, N), 9, diffusivity=[0.01, 0.1], diffusivities=4, conditional=False)
    return NeuralProcessMethod(process, net, None, None, regime).eval()


@pytest.fixture
def plain(monkeypatch):
    """Without pictures, which take time."""
    for name in ("likelihoods", "frames", "film"):
        monkeypatch.setattr(f"heatgen.metric.likelihood.pictures.{name}", lambda *rest: None)


def ctx(model, data=DATA, n=20, name="hot_spots"):
    return EvalContext(model, data, name, Devices("cpu", 1), n, 16, 0, model and model.process)


class Exact(NeuralProcessMethod):
    """Says what the exact moments say."""

    def predict(self, task, draws, noise=None, times=None):
        oracle = exact_trajectories(self.process, DATA.spec, self.noise_std)
        asked = task.target.times
        mean, variance = oracle.mean(task.context, asked), oracle.variance(task.context, asked)
        return Prediction(mean[None], (variance + self.noise_std**2).sqrt()[None])


@pytest.mark.slow
@pytest.mark.usefixtures("plain")
def test_the_best_gaussians_have_the_factorised_likelihood_and_the_exact_error():
    base = make(path="deterministic")
    model = Exact(base.process, base.net, None, None, REGIME).eval()
    found = Likelihood(contexts=[0, 3], targets=4, draws=3)(ctx(model)).values
    for number in (0, 3):
        for kind in ("joint", "frame", "pixel"):
            exact = found[f"exact_factorised_context_{number}"]
            assert found[f"{kind}_context_{number}"] == pytest.approx(exact, abs=1e-6)
        assert found[f"rmse_context_{number}"] == pytest.approx(found[f"exact_rmse_context_{number}"], rel=1e-5)
        assert found[f"exact_joint_context_{number}"] >= found[f"exact_frame_context_{number}"] - 1e-6
        assert found[f"gap_context_{number}"] > 0
    assert found["exact_frame_context_3"] > found["exact_frame_context_0"] + 0.05


@pytest.mark.usefixtures("plain")
def test_no_model_is_above_the_exact_one_and_more_draws_give_more():
    few, many = (Likelihood(contexts=[1], targets=4, draws=k)(ctx(make())) for k in (1, 32))
    assert few.values["joint_context_1"] < many.values["joint_context_1"] < many.values["exact_joint_context_1"]
    assert few.values["effective_draws_context_1"] == pytest.approx(1) and many.values["effective_draws_context_1"] > 1
    assert few.values["joint_context_1"] == pytest.approx(few.values["frame_context_1"], abs=1e-6)
    assert few.values["pixel_context_1"] == pytest.approx(few.values["frame_context_1"], abs=1e-6)


@pytest.mark.slow
def test_values_do_not_depend_on_how_tasks_are_cut_and_have_their_facts(request):
    model, metric = make(), Likelihood(contexts=[1, 2], targets=4, draws=4)
    result = metric(ctx(model))
    request.getfixturevalue("plain")
    again = metric(EvalContext(model, DATA, "hot_spots", Devices("cpu", 1), 20, 7, 0, model.process))
    assert result.values == pytest.approx(again.values, rel=1e-5)
    wanted = ("frame_context_1", "frame_context_2", "gap_context_2", "rmse_context_2")
    assert result.headline == wanted
    facts = {"n": 20, "split": "hot_spots test", "regime": "random", "target frames": 4, "draws": 4, "min_std": 0.01}
    assert facts.items() <= result.facts.items() and result.facts["noise ceiling"] == "1.57679"
    assert result.series["num_context"] == [1.0, 2.0] and len({len(x) for x in result.series.values()}) == 1
    assert set(result.pictures) == {"likelihoods", "frames", "film"}
    film = result.pictures["film"]
    assert len(film) == 10 and len({page.size for page in film}) == 1 and film[0].tobytes() != film[-1].tobytes()


@pytest.mark.usefixtures("plain")
def test_what_is_known_exactly_has_rows_of_its_own():
    result = Likelihood(contexts=[1, 2], targets=4, draws=2)(ctx(make()))
    names = ["exact", "exact, independent pixels", "noise ceiling"]
    exact, best, ceiling = (result.references[name] for name in names)
    assert list(result.references) == names
    for end in ("_context_1", "_context_2"):
        assert exact[f"frame{end}"] == result.values[f"exact_frame{end}"] and exact[f"gap{end}"] == 0
        gap = (exact[f"frame{end}"] - best[f"frame{end}"]) * N * N
        assert best[f"gap{end}"] == pytest.approx(gap) and gap > 0
        assert exact[f"rmse{end}"] == best[f"rmse{end}"] == result.values[f"exact_rmse{end}"] and f"rmse{end}" not in ceiling
        assert exact[f"joint{end}"] == result.values[f"exact_joint{end}"] and f"pixel{end}" not in exact
        for kind in ("joint", "frame", "pixel"):
            assert best[f"{kind}{end}"] == result.values[f"exact_factorised{end}"]
            assert ceiling[f"{kind}{end}"] == pytest.approx(1.57679, abs=1e-5)
        gap = (exact[f"frame{end}"] - ceiling[f"frame{end}"]) * N * N  # of means, where the metric averages differences
        assert ceiling[f"gap{end}"] == pytest.approx(gap, rel=1e-9)


@pytest.mark.usefixtures("plain")
def test_the_bound_is_the_objective_and_what_facts_add_to_it_is_seen_in_training_mode():
    torch.manual_seed(0)
    net = small_np((1, N, N), privileged_dim=3)
    torch.nn.init.normal_(net.merge[-1].weight)
    model = NeuralProcessMethod(make().process, net, None, None, REGIME, privileged="facts").eval()
    values = Likelihood(contexts=[1], targets=4, draws=2)(ctx(model)).values
    names = [f"bound{privileged}_{split}" for split in ("train", "test") for privileged in ("", "_privileged")]
    assert len({values[name] for name in names}) == 4 and not model.training
    run = list(range(8))
    loss = model.loss({"u0": DATA.get("train", run)}, SampleNoise(run, 0, "bound", "train"))
    chosen = SampleNoise([0], 0, "likelihood").permutation(40)[0, :20].sort().values
    few = [i for i in chosen.tolist() if i < 8]
    assert values["bound_train"] == pytest.approx(-loss[few].mean().item(), rel=1e-5)
    plain = Likelihood(contexts=[1], targets=4, draws=2)(ctx(make(path="deterministic"))).values
    assert not any("bound" in name for name in plain)


@pytest.mark.usefixtures("plain")
def test_gaussian_fields_have_an_exact_line_and_told_maps_have_none():
    data = GRF(resolution=N, shape=[1, N, N], train_size=32, val_size=4, test_size=8)
    model = make(process=StochasticHeat((1, N, N), 9, g=0.0))
    result = Likelihood(contexts=[1], targets=4, draws=2)(ctx(model, data, 8, "grf"))
    assert result.values["gap_context_1"] > 0
    driven = make(process=StochasticHeat((1, N, N), 9, g=0.1))
    result = Likelihood(contexts=[1], targets=4, draws=2)(ctx(driven, data, 8, "grf"))
    assert any("forward=stochastic_heat is driven by noise between frames" in note for note in result.notes)
    process = NeumannHeat((1, N, N), 9, diffusivity=[0.01, 0.1], diffusivities=4, conditional=True)
    told = make(process=process, conditional=True)
    result = Likelihood(contexts=[1], targets=4, draws=2)(ctx(told))
    assert "exact_joint_context_1" not in result.values and not result.references
    assert any(note.startswith("no exact likelihood: forward=neumann_heat is drawn at random") for note in result.notes)


@pytest.mark.usefixtures("plain")
def test_a_regime_of_its_own_context_is_measured_once():
    result = Likelihood(targets=4, draws=2)(ctx(make(FirstFrame(targets=4))))
    assert result.facts["regime"] == "first_frame" and math.isnan(result.series["num_context"][0])
    assert result.headline[0] == "frame"


def test_the_surplus_of_the_noise_is_its_log_density_minus_the_ceiling():
    clean = torch.randn(5, 4, 1, N, N, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    y = clean + 0.05 * torch.randn(clean.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    expected = torch.distributions.Normal(clean, 0.05).log_prob(y).flatten(1).mean(1) - noise_ceiling(0.05)
    assert torch.allclose(noise_surplus(y, clean, 0.05), expected)


@pytest.mark.usefixtures("plain")
def test_exact_rows_have_errors_without_the_noise_and_rise_with_the_context_within_them():
    result = Likelihood(contexts=[0, 1, 3], targets=4, draws=2)(ctx(make(), n=40))
    exact, errors = result.references["exact"], result.reference_errors["exact"]
    noise = result.errors["noise_surplus_context_3"]
    assert noise == pytest.approx(1 / math.sqrt(2 * 40 * 4 * N * N), rel=0.3)  # a chi^2 of all dimensions of all tasks
    assert 0 < errors["frame_context_3"] < noise / 3 and result.errors["exact_joint_context_3"] < noise / 3
    for fewer, more in ((0, 1), (1, 3)):
        error = math.hypot(errors[f"frame_context_{fewer}"], errors[f"frame_context_{more}"])
        assert exact[f"frame_context_{more}"] > exact[f"frame_context_{fewer}"] - 2 * error
    assert exact["joint_context_3"] < noise_ceiling(0.05) and "noise ceiling" in result.reference_errors
    assert "joint_context_3" not in result.reference_errors["noise ceiling"]  # by formula
    assert set(result.errors_over.values()) == {"tasks"}


@pytest.mark.parametrize("metric", [Likelihood, Calibration, Physics])
def test_too_many_frames_are_refused_by_the_keys_of_the_metric(metric):
    with pytest.raises(ConfigError, match=r"^metric\.contexts=\[1, 8\] and metric\.targets=4 ask for up to 12 frames"):
        metric(contexts=[1, 8], targets=4)(ctx(make()))
    with pytest.raises(ConfigError, match=r"^metric\.targets=10 ask for up to 11 frames, and the run has 10"):
        metric(targets=10)(ctx(make(FirstFrame(targets=4))))


def test_what_is_out_of_range_is_refused_by_key():
    for options in ({"contexts": 3}, {"contexts": [-1]}, {"targets": 0}, {"draws": 0}, {"split": "all"}):
        with pytest.raises(ConfigError, match=f"metric.{next(iter(options))}"):
            Likelihood(**options)


def test_other_models_and_too_few_tasks_are_refused():
    with pytest.raises(ConfigError, match=r"needs a run.*model=np"):
        Likelihood()(ctx(None))
    with pytest.raises(ConfigError, match="n must be"):
        Likelihood()(ctx(make(), n=1))


@pytest.mark.slow
def test_from_the_command_line(tmp_path):
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
    assert call("evaluate", f"run={folder}", "mode=likelihood", "n=8", "trainer.accelerator=cpu") == 0
    (path,) = (folder / "evaluation").glob("likelihood_*.json")
    content = json.loads(path.read_text())
    assert content["values"]["gap_context_3"] > 0
    assert len(list(path.parent.glob(f"{path.stem}_*.png"))) == 2
    with Image.open(path.with_name(f"{path.stem}_film.gif")) as film:
        assert film.n_frames == 20 and film.width > 4 * film.height
