"""model=diffusion: its formulas against the Wiener filter, Karras et al., exact reverse steps, and what it refuses."""

import math
from types import SimpleNamespace

import pytest
import torch
from conftest import call, shipped_map
from gaussian_toys import gaussian
from scipy import stats
from torch.testing import assert_close

from heatgen.app.api import load
from heatgen.check import ConfigError
from heatgen.data.module import DataSpec
from heatgen.forward.blurring import Blurring
from heatgen.forward.constant_velocity import ConstantVelocity
from heatgen.forward.heat import Heat
from heatgen.forward.kinematics import Kinematics
from heatgen.forward.moments import MEASURED
from heatgen.forward.random_matrix import RandomMatrix
from heatgen.forward.random_velocity import RandomVelocity
from heatgen.forward.stochastic_heat import StochasticHeat
from heatgen.forward.variance_exploding import VarianceExploding
from heatgen.model.diffusion import Diffusion
from heatgen.noise import SampleNoise
from heatgen.oracle.gaussian import GaussianOracle
from heatgen.sampler.ancestral import ancestral

SHAPE = (1, 4, 6)
K = 5
SIGMA = 0.1
MAPS = {
    "stochastic_heat": lambda: StochasticHeat(SHAPE, K),
    "heat": lambda: Heat(SHAPE, K, SIGMA),
    "gentle_heat": lambda: Heat(SHAPE, K, SIGMA, sigma_max=0.8),
    "constant_velocity": lambda: ConstantVelocity(SHAPE, K, SIGMA),
    "variance_exploding": lambda: VarianceExploding(SHAPE, K, 0.05, 4.0),
    "blurring": lambda: Blurring(SHAPE, K),
    "kinematics": lambda: Kinematics(SHAPE, K, SIGMA),
    "random_velocity": lambda: RandomVelocity(SHAPE, K, SIGMA, slowest=0.2, fastest=0.9),
    "random_matrix": lambda: RandomMatrix(SHAPE, K, SIGMA),
}
LOSE_A = ("heat", "constant_velocity", "random_velocity")
DIAGONAL = [name for name in MAPS if name != "random_matrix"]
MARKOV = ["stochastic_heat", "heat", "constant_velocity", "variance_exploding", "blurring"]
SPREAD = torch.linspace(0.2, 1.5, math.prod(SHAPE)).double().reshape(SHAPE)  # of each coefficient
MEAN = torch.linspace(-0.4, 0.7, math.prod(SHAPE)).double().reshape(SHAPE)


def silent(u, k, cond=None):
    return torch.zeros_like(u)


def make(process, net=silent, mean=MEAN, **settings):
    """A model that has measured these coefficients."""
    model = Diffusion(process, net, ancestral, None, **settings)
    model.mean.copy_(mean)
    model.spectrum.copy_(SPREAD**2)
    return model


def normal(n, seed=0):
    return torch.randn(n, *SHAPE, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def of(tensor):
    """Data whose training and validation fields are these."""
    return SimpleNamespace(batch_size=128, images=lambda split: tensor, get=lambda split, samples: tensor[list(samples)])


def draw(process, n, seed=3):
    return process.basis.inverse(MEAN + SPREAD * normal(n, seed))


def levels(process):
    return process.times[1:]


# the formulas ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["stochastic_heat", "heat", "blurring"])
def test_a_silent_network_is_the_wiener_filter_of_the_measured_spectrum(name):
    process = MAPS[name]()
    model = Diffusion(process, silent, ancestral, None)
    model.prepare(of(draw(process, 50)))
    boundary = "periodic" if name == "stochastic_heat" else "neumann"
    oracle = GaussianOracle(process, DataSpec(SHAPE, (-3.0, 3.0), boundary, None, model.spectrum))
    u, t = normal(K), levels(process)
    mean = process.basis.inverse(model.mean.expand(K, *SHAPE))
    expected = mean + oracle.posterior_mean(u - process.mean(mean, t), t)
    assert_close(model.denoise(u, t), expected, atol=1e-10, rtol=0)
    assert_close(model.score(u, t), oracle.score(u - process.mean(mean, t), t), atol=1e-8, rtol=1e-9)


def test_with_a_number_for_preconditioning_the_formulas_are_those_of_karras():
    process, seen = MAPS["variance_exploding"](), []

    def net(x, k, cond):
        seen.append(x)
        return torch.sin(x)

    model = make(process, net, preconditioning="scalar")
    u, t = normal(K), levels(process)
    noise = (2 * t).sqrt().reshape(-1, 1, 1, 1)
    size = (MEAN**2 + SPREAD**2).mean().sqrt()  # sigma_data
    skip = size**2 / (size**2 + noise**2)
    out, into = noise * size / (size**2 + noise**2).sqrt(), 1 / (size**2 + noise**2).sqrt()
    assert_close(model.denoise(u, t), skip * u + out * torch.sin(into * u), atol=1e-12, rtol=0)
    assert_close(seen[0], into * u, atol=1e-12, rtol=0)
    u0, eps = normal(K, 1), normal(K, 2)
    expected = (u0 - skip * (u0 + noise * eps)) / out
    assert_close(model._target(u0, eps, t), expected, atol=1e-10, rtol=0)


@pytest.mark.parametrize("name", DIAGONAL)
def test_input_and_target_have_unit_variance_in_each_coefficient_and_no_correlation(name):
    process = MAPS[name]()
    seen = []
    model, t = make(process, lambda x, k, cond: seen.append(x) or x), levels(process)
    mean = process.basis.inverse(MEAN.expand(K, *SHAPE))
    signal, nothing = process.basis.inverse(SPREAD.expand(K, *SHAPE)), torch.zeros(K, *SHAPE).double()
    eps = process.basis.inverse(torch.ones(K, *SHAPE).double())
    targets = [process.basis(model._target(u0, noise, t)) for u0, noise in ((mean + signal, nothing), (mean, eps))]
    for u0, noise in ((mean + signal, nothing), (mean, eps)):
        model.denoise(process.perturb(u0, t, noise), t)
    inputs = [process.basis(x) for x in seen]
    one = torch.ones(K, *SHAPE).double()
    assert_close(targets[0] ** 2 + targets[1] ** 2, one, atol=1e-10, rtol=0)
    assert_close(inputs[0] ** 2 + inputs[1] ** 2, one, atol=1e-8, rtol=0)
    assert_close(targets[0] * inputs[0] + targets[1] * inputs[1], 0 * one, atol=1e-8, rtol=0)


def answered(name):
    """Models of a map with every prediction type that it allows, and every preconditioning where that matters."""
    for prediction_type in ("preconditioned", "x0", "eps", "score"):
        lost = name in LOSE_A and prediction_type in ("eps", "score")
        if lost or (name == "random_matrix" and prediction_type != "x0"):
            continue
        for kind in ("coefficient", "scalar") if prediction_type == "preconditioned" else ("coefficient",):
            yield make(MAPS[name](), prediction_type=prediction_type, preconditioning=kind)


@pytest.mark.parametrize("name", MAPS)
def test_a_network_that_gives_the_target_returns_the_field(name):
    for model in (model.bound(SampleNoise(range(K), 0)) for model in answered(name)):
        process = model.process
        u0, eps = normal(K, 1), normal(K, 2)
        later = levels(process)
        for t in (later,) if name == "random_matrix" else (later, later - 0.4 * process.times.diff()):
            u = process.perturb(u0, t, eps)
            answer = model._target(u0, eps, t)
            model.net = lambda x, k, cond, answer=answer: answer
            assert_close(model.denoise(u, t), u0, atol=1e-6, rtol=0)
            assert_close(model.noise_estimate(u, t, model.denoise(u, t)), eps, atol=1e-6, rtol=0)


@pytest.mark.parametrize("name", MAPS)
def test_the_loss_of_a_network_that_gives_the_target_is_0(name, monkeypatch):
    u0, target = normal(8), Diffusion._target
    for model in answered(name):
        answers = []
        monkeypatch.setattr(
            Diffusion, "_target", lambda self, *a, answers=answers: answers[0] if answers else target(self, *a)
        )
        before = model.loss({"u0": u0}, SampleNoise(range(8), 0))
        assert (before > 0.01).all()
        bound = model.bound(rng := SampleNoise(range(8), 0))
        t, eps = model.times_for(rng), rng.normal_like(u0)
        answers.append(target(bound, u0, eps, t))
        model.net = lambda x, k, cond, answers=answers: answers[0]
        assert_close(model.loss({"u0": u0}, SampleNoise(range(8), 0)), torch.zeros(8).double(), atol=1e-12, rtol=0)


@pytest.mark.parametrize("name", DIAGONAL)
def test_the_loss_of_a_silent_network_is_1_a_pixel_on_average(name):
    n, process = 600, MAPS[name]()
    losses = make(process).loss({"u0": draw(process, n)}, SampleNoise(range(n), 0))
    assert abs(losses.mean() - 1) < 4.5 * losses.std() / math.sqrt(n)
    assert losses.std() == pytest.approx(math.sqrt(2 / math.prod(SHAPE)), rel=0.2)


@pytest.mark.parametrize("prediction_type", ["x0", "eps", "score"])
def test_networks_of_other_prediction_types_see_states_of_unit_size(prediction_type):
    n, process, seen = 600, MAPS["gentle_heat"](), []
    model = make(process, lambda x, k, cond: seen.append(x) or x, prediction_type=prediction_type)
    u0, eps = draw(process, n), normal(n, 9)
    for time in levels(process):
        t = time.expand(n)
        model.denoise(process.perturb(u0, t, eps), t)
        size = seen[-1].square().flatten(1).mean(1)
        assert abs(size.mean() - 1) < 4.5 * size.std() / math.sqrt(n)


@pytest.mark.parametrize("name", DIAGONAL)
@pytest.mark.parametrize("kind", ["coefficient", "scalar"])
def test_the_score_is_tweedies_formula_in_the_basis_of_the_map(name, kind):
    model = make(MAPS[name](), lambda x, k, cond: torch.tanh(x + k.reshape(-1, 1, 1, 1)), preconditioning=kind)
    model = model.bound(SampleNoise(range(K), 0))
    process, u, t = model.process, normal(K), levels(model.process)
    v = process.basis(model.denoise(u, t))
    by_hand = (process.gain(t) * v + process.offset(t) - process.basis(u)) / process.std(t) ** 2
    assert_close(model.score(u, t), process.basis.inverse(by_hand), atol=1e-8, rtol=1e-8)


def test_the_score_of_a_matrix_map_is_tweedies_formula():
    model = make(MAPS["random_matrix"](), lambda x, k, cond: torch.tanh(x))
    process, u, t = model.process, normal(K), levels(model.process)
    expected = torch.stack([process.left[k + 1] @ model.denoise(u, t)[k] - u[k] for k in range(K)]) / SIGMA**2
    assert_close(model.score(u, t), expected, atol=1e-8, rtol=0)


def test_the_network_sees_the_level_and_the_condition_of_the_bound_map():
    calls = []
    model = make(MAPS["random_velocity"](), lambda x, k, cond: calls.append((k, cond)) or x)
    model.bound(SampleNoise(range(K), 0)).denoise(normal(K), levels(model.process))
    level, cond = calls[0]
    velocity = model.process.draw(SampleNoise(range(K), 0))[:, 0]
    assert_close(level, torch.arange(1, K + 1).double(), atol=1e-12, rtol=0)
    assert_close(cond, (1 - velocity * levels(model.process))[:, None].expand(K, 2), atol=1e-12, rtol=0)


# reverse steps -----------------------------------------------------------------------------------------------------------


def exact_model(name):
    """The best estimate and its error at each level, for centred data."""
    process = MAPS[name]()
    model = make(process, mean=torch.zeros(SHAPE))
    gain, std = process.gain(process.times), process.std(process.times)
    model.errors = (SPREAD**2 * std**2 / (gain**2 * SPREAD**2 + std**2)).expand(-1, *SHAPE)
    return model


@pytest.mark.parametrize("name", MARKOV)
@pytest.mark.parametrize("share", [0.0, 0.3, 0.8])
def test_reverse_steps_of_exact_estimates_are_exact_however_long_they_are(name, share):
    model = exact_model(name)
    process, t = model.process, levels(model.process)
    s = share * t
    early, late = (process.gain(time) ** 2 * SPREAD**2 + process.std(time) ** 2 for time in (s, t))
    ratio, noise = process.ratio(s, t), process.step_std(s, t) ** 2
    u = normal(K)
    mean = process.basis.inverse(ratio * early / late * process.basis(u))
    assert_close(model.reverse_mean(u, t, s), mean, atol=1e-9, rtol=0)
    variance = model.reverse_std(t, s).expand(K, *SHAPE) ** 2
    assert_close(variance, (early * noise / late).expand(K, *SHAPE), atol=1e-12, rtol=1e-6)


def test_they_are_those_of_the_oracle():
    process = StochasticHeat((1, 8, 8), K)
    oracle = GaussianOracle(process, gaussian(mean=0.3))
    model = Diffusion(process, silent, ancestral, None)
    model.mean.zero_()
    model.spectrum.copy_(oracle.spectrum)
    model.errors = oracle.posterior_variance(process.times)
    t, s = process.times[[4]], process.times[[1]]
    u = torch.randn(1, 1, 8, 8, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    ahead = GaussianOracle(process, DataSpec((1, 8, 8), (-3.0, 3.0), "periodic", None, oracle.variance(s)[0]))
    assert_close(model.reverse_mean(u, t, s), ahead.posterior_mean(u, t - s), atol=1e-9, rtol=0)
    assert_close(model.reverse_std(t, s) ** 2, ahead.posterior_variance(t - s), atol=1e-12, rtol=1e-8)


@pytest.mark.parametrize("share", [0.0, 0.25, 0.7])
def test_the_small_variance_is_the_posterior_of_ddpm(share):
    model = make(MAPS["variance_exploding"](), reverse_variance="small")
    t = levels(model.process)
    expected = (2 * share * t) * (2 * t - 2 * share * t) / (2 * t)
    assert_close(model.reverse_std(t, share * t).flatten() ** 2, expected, atol=1e-12, rtol=1e-10)
    assert model.noise_label() == "small"


def test_steps_of_matrix_maps_have_the_noise_they_lead_to():
    model = make(MAPS["random_matrix"](), lambda x, k, cond: torch.tanh(x))
    t, s, u = model.process.times[[3]], model.process.times[[2]], normal(1)
    assert_close(model.reverse_mean(u, t, s), model.process.mean(model.denoise(u, t), s), atol=1e-12, rtol=0)
    assert model.reverse_std(t, s).item() == pytest.approx(SIGMA, rel=1e-12)


@pytest.mark.parametrize("name", ["stochastic_heat", "blurring"])
def test_samples_of_exact_estimates_have_the_law_of_the_data(name):
    n, model = 800, exact_model(name)
    noise = SampleNoise(range(n), 1)
    u_last = model.initial_state(model.process.basis.inverse(SPREAD * normal(n)), noise)
    z = model.process.basis(model.generate(u_last, noise)) / SPREAD
    assert z.mean(0).abs().max() < 4.5 / math.sqrt(n)
    assert (z.square().mean(0) - 1).abs().max() < 4.5 * math.sqrt(2 / n)


# what is measured --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["stochastic_heat", "variance_exploding", "random_matrix"])
def test_preparing_measures_mean_and_variance_of_each_coefficient(name):
    process = MAPS[name]()
    u0 = draw(process, 300)
    model = Diffusion(process, silent, ancestral, None)
    assert model.mean.eq(0).all() and model.spectrum.eq(1).all()
    model.prepare(of(u0))
    c = process.basis(u0)
    assert_close(model.mean, c.mean(0), atol=1e-12, rtol=0)
    assert_close(model.spectrum, c.var(0, correction=0), atol=1e-12, rtol=0)
    other = Diffusion(process, silent, ancestral, None)
    other.load_state_dict(model.state_dict())
    assert torch.equal(other.mean, model.mean) and torch.equal(other.spectrum, model.spectrum)


def test_preparing_looks_at_many_fields_at_most():
    asked = []

    def get(split, samples):
        asked.append((split, list(samples)))
        return torch.ones(len(samples), *SHAPE)

    Diffusion(MAPS["heat"](), silent, ancestral, None).prepare(
        SimpleNamespace(batch_size=128, images=lambda split: range(MEASURED + 7), get=get)
    )
    assert {split for split, _ in asked} == {"train"}
    assert [i for _, samples in asked for i in samples] == list(range(MEASURED))


def test_a_clipped_estimate_stays_within_the_values_of_training_images():
    process, u0, wild = MAPS["blurring"](), draw(MAPS["blurring"](), 300), lambda x, k, cond: 1e3 * torch.tanh(x)
    model, free = (
        Diffusion(process, wild, ancestral, None, "eps", clip=clip, reverse_variance="small") for clip in (True, False)
    )
    model.prepare(of(u0))
    free.prepare(of(u0))
    other = Diffusion(process, wild, ancestral, None, "eps", clip=True)
    other.load_state_dict(model.state_dict())
    states, times = normal(K), levels(process)
    assert free.denoise(states, times).abs().max() > 100
    for clipped in (model, other):
        assert_close(clipped.denoise(states, times), free.denoise(states, times).clamp(u0.min().item(), u0.max().item()))
    shown = model.generate(normal(4), SampleNoise(range(4), 0))
    assert u0.min() - 1e-6 <= shown.min() and shown.max() <= u0.max() + 1e-6


def test_a_coefficient_that_never_varies_does_no_harm():
    process = MAPS["stochastic_heat"]()
    model = make(process, lambda x, k, cond: torch.tanh(x))
    model.mean[0, 0, 0], model.spectrum[0, 0, 0] = 2.0, 0.0
    c = SPREAD * normal(20)
    c[:, 0, 0, 0] = 2.0
    assert model.loss({"u0": process.basis.inverse(c)}, SampleNoise(range(20), 0)).isfinite().all()
    c = process.basis(model.denoise(normal(K), levels(process)))
    assert_close(c[:, 0, 0, 0], torch.full((K,), 2.0).double(), atol=1e-4, rtol=0)


def test_calibrating_measures_the_known_error_of_an_estimate():
    n, process = 64, MAPS["heat"]()
    u0 = draw(process, n)
    model = make(process, silent, prediction_type="x0", calibration_images=40)
    model.calibrate(of(u0))  # the estimate is 0
    expected = process.basis(u0[:40]).square().mean(0)
    assert_close(model.errors[1:], expected.expand(K, *SHAPE), atol=1e-12, rtol=0)
    assert model.errors[0].eq(0).all()
    half = model.denoise_variance(torch.lerp(process.times[2:3], process.times[3:4], torch.tensor(0.5).double()))
    assert_close(half[0], expected, atol=1e-12, rtol=0)
    assert_close(model.denoise_variance(process.times[1:2] / 2)[0], expected / 2, atol=1e-12, rtol=0)


@pytest.mark.parametrize("name", MARKOV)
def test_the_measured_error_of_the_wiener_filter_is_the_posterior_variance(name):
    n, process = 500, MAPS[name]()
    model = make(process, calibration_images=n)
    model.calibrate(of(draw(process, n)))
    expected = exact_model(name).errors[1:]
    assert ((model.errors[1:] - expected).abs() <= 5 * math.sqrt(2 / n) * expected + 1e-12).all()
    assert model.noise_label() == "measured"


def test_the_error_of_a_random_map_is_that_over_its_draws():
    n, process = 1000, MAPS["random_velocity"]()
    model = make(process, calibration_images=n)
    model.calibrate(of(draw(process, n)))
    v = torch.linspace(0.2, 0.9, 2001).double().reshape(-1, 1, 1, 1)
    for k in range(1, K + 1):
        gain = 1 - v * k / K
        expected = (SPREAD**2 * SIGMA**2 / (gain**2 * SPREAD**2 + SIGMA**2)).mean(0)
        assert ((model.errors[k] - expected).abs() < 0.35 * expected).all()
        assert model.errors[k].mean() == pytest.approx(expected.mean().item(), rel=0.1)


def test_sampling_with_the_measured_error_needs_a_measurement():
    model = make(MAPS["heat"]())
    with pytest.raises(AssertionError, match="call calibrate"):
        model.reverse_std(model.process.times[[2]], model.process.times[[1]])
    small = make(MAPS["heat"](), reverse_variance="small")
    small.calibrate(None)
    assert small.denoise_variance(small.process.times[[2]]) is None


# training ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["heat", "variance_exploding"])
def test_levels_are_uniform_and_never_0(name):
    n, model = 3000, make(MAPS[name]())
    number = model.process.level(model.times_for(SampleNoise(range(n), 0)))
    assert number.min() > 0 and number.max() <= K
    assert stats.kstest(number.numpy(), stats.uniform(0, K).cdf).pvalue > 1e-3
    for drawn, expected in ((0.0, K), (1 - 2**-24, K * 2**-24)):
        noise = SimpleNamespace(uniform=lambda *shape, drawn=drawn: torch.full((1, *shape), drawn))
        t = model.times_for(noise)
        assert 0 < t.item() <= model.process.times[-1]
        assert model.process.level(t).item() == pytest.approx(expected, rel=1e-6)


def test_a_matrix_map_is_trained_at_each_of_its_levels():
    n, model = 3000, make(MAPS["random_matrix"]())
    counts = torch.bincount(model.process.level(model.times_for(SampleNoise(range(n), 0))).round().long(), minlength=K + 1)
    assert counts[0] == 0 and (counts[1:] - n / K).abs().max() < 4.5 * math.sqrt(n / K)


@pytest.mark.parametrize("name", ["stochastic_heat", "random_velocity"])
def test_the_loss_of_a_sample_depends_on_its_key_alone(name):
    model, u0 = make(MAPS[name](), lambda x, k, cond: torch.tanh(x)), normal(5)
    together = model.loss({"u0": u0}, SampleNoise(range(5), 3))
    alone = torch.cat([model.loss({"u0": u0[[j]]}, SampleNoise([j], 3)) for j in range(5)])
    assert_close(together, alone, atol=1e-12, rtol=0)
    assert not torch.isclose(together, model.loss({"u0": u0}, SampleNoise(range(5), 4))).any()


# what is chosen and refused ----------------------------------------------------------------------------------------------


def test_auto_chooses_by_the_map():
    for build in MAPS.values():
        model = make(build())
        expected = "preconditioned" if model.process.is_diagonal else "x0"
        assert model.prediction_type == model.chosen["prediction_type"] == expected
        assert "prediction_type" not in make(build(), prediction_type="x0").chosen


def test_a_wrong_value_is_refused_by_key_and_fix():
    for key, value, name, fix in (
        ("prediction_type", "eps", "heat", "forward=heat.*preconditioned or x0"),
        ("prediction_type", "eps", "random_matrix", "forward=random_matrix.*x0"),
        ("prediction_type", "preconditioned", "random_matrix", "forward=random_matrix.*use x0"),
        ("prediction_type", "scor", "heat", "did you mean score"),
        ("preconditioning", "none", "heat", ""),
        ("reverse_variance", "large", "heat", ""),
        ("calibration_images", 1, "heat", ""),
        ("scale_input", 1, "heat", ""),
        ("scale_input", False, "heat", "prediction_type=x0"),
    ):
        with pytest.raises(ConfigError, match=rf"model\.{key}.*{fix}"):
            make(MAPS[name](), **{key: value})


def test_a_hidden_map_is_refused():
    with pytest.raises(ConfigError, match=r"forward\.conditional=false.*use model=ihd"):
        make(shipped_map("random_velocity", SHAPE, K, conditional=False))


# from the command line ---------------------------------------------------------------------------------------------------


SMALL_FIELDS = [
    "data=grf",
    "data.resolution=8",
    "data.train_size=40",
    "data.val_size=8",
    "data.batch_size=8",
    "data.recommended.unet.model_channels=8",
    "data.recommended.unet.norm_groups=4",
    "forward.num_levels=4",
    "model.warmup_steps=0",
    "trainer.accelerator=cpu",
    "trainer.max_steps=4",
    "trainer.val_check_interval=2",
    "callback.pictures.every=0",
]


@pytest.mark.slow
def test_a_training_can_be_sampled_by_any_sampler_that_suits_it(tmp_path, refused):
    folder = tmp_path / "runs" / "own"
    arguments = ["model=diffusion", "forward=stochastic_heat", *SMALL_FIELDS, f"hydra.run.dir={folder}"]
    assert call("train", *arguments) == 0
    model, data, cfg = load(folder)
    assert cfg.model.prediction_type == "preconditioned"
    c = model.process.basis(data.get("train", range(40)).double())
    assert_close(model.mean, c.mean(0), atol=1e-6, rtol=0)
    assert_close(model.spectrum, c.var(0, correction=0), atol=1e-6, rtol=1e-5)
    drawn = {}
    for sampler in ("ancestral", "heun"):
        assert call("sample", f"run={folder}", "n=2", f"sampler={sampler}", "trainer.accelerator=cpu") == 0
        path = folder / "samples" / f"delta_measured_seed_0_{sampler}" / "samples.pt"
        drawn[sampler] = torch.load(path, weights_only=True)["samples"]
        assert drawn[sampler].shape == (2, 1, 8, 8) and drawn[sampler].isfinite().all()
    assert not torch.isclose(drawn["heun"], drawn["ancestral"]).all()
    sentence = refused("sample", f"run={folder}", "n=2", "sampler=exact", "trainer.accelerator=cpu")
    assert (
        "sampler=exact" in sentence
        and "model=diffusion" in sentence
        and "use sampler=ancestral or " in sentence
        and " or heun" in sentence
    )
