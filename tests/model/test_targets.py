"""model=diffusion: the velocity, densities of time, weights, norms and couplings, against closed forms and SciPy."""

import functools
import math
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from conftest import FORWARDS, shipped_map
from gaussian_toys import gaussian
from scipy import stats
from scipy.optimize import linear_sum_assignment
from torch.testing import assert_close

from heatgen.app.build import build
from heatgen.app.compose import compose
from heatgen.check import ConfigError
from heatgen.forward.blurring import Blurring
from heatgen.forward.heat import Heat
from heatgen.forward.heat_kernel import HeatKernel
from heatgen.forward.identity import Identity
from heatgen.forward.levels import uniform
from heatgen.forward.noise_level import noise_to_signal
from heatgen.forward.process import ForwardProcess
from heatgen.forward.random_matrix import RandomMatrix
from heatgen.forward.random_velocity import RandomVelocity
from heatgen.forward.stochastic_heat import StochasticHeat
from heatgen.forward.variance_exploding import VarianceExploding
from heatgen.model.coupling import transported
from heatgen.model.diffusion import Diffusion
from heatgen.model.loss_weight import WEIGHTS, root
from heatgen.noise import SampleNoise
from heatgen.oracle.gaussian import GaussianOracle
from heatgen.runtime.peers import Peers
from heatgen.sampler.ancestral import ancestral
from heatgen.sampler.cold import cold
from heatgen.sampler.heun import heun
from heatgen.sampler.momentum import momentum

CONF = Path(__file__).resolve().parents[2] / "conf" / "model"
SHAPE, K = (2, 4, 6), 5


class Flow(ForwardProcess):
    """Flow matching."""

    def __init__(self, shape=SHAPE, num_levels=K):
        super().__init__(shape, uniform(num_levels))

    def gain(self, t):
        return 1 - self.column(t)

    def std(self, t):
        return self.column(t)


class Drift(Flow):
    """A map with an offset."""

    def offset(self, t):
        return self.column(t.sin()) * torch.ones(SHAPE).to(t)


MAPS = {
    "flow": Flow,
    "drift": Drift,
    "variance_exploding": lambda: VarianceExploding(SHAPE, K, 0.05, 4.0),
    "heat_kernel": lambda: HeatKernel(SHAPE, K, clock="geometric"),
    "blurring": lambda: Blurring(SHAPE, K),
    "gentle_heat": lambda: StochasticHeat(SHAPE, K),
    "student_t": lambda: shipped_map("student_t", SHAPE, K, degrees_of_freedom=5),
}
TYPES = ("preconditioned", "x0", "eps", "score", "velocity")
SPREAD = torch.linspace(0.2, 1.5, math.prod(SHAPE)).double().reshape(SHAPE)
MEAN = torch.linspace(-0.4, 0.7, math.prod(SHAPE)).double().reshape(SHAPE)


def normal(n, seed=0):
    return torch.randn(n, *SHAPE, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def wiggle(x, k, cond=None):
    return torch.tanh(x + 0.1 * k.reshape(-1, 1, 1, 1))


def make(process, net=wiggle, sampler=ancestral, **settings):
    model = Diffusion(process, net, sampler, None, **settings)
    model.mean.copy_(MEAN)
    model.spectrum.copy_(SPREAD**2)
    return model


def each(process):
    """Models of all prediction types that a map allows."""
    for prediction_type in TYPES:
        try:
            yield make(process, sampler=None, prediction_type=prediction_type)
        except ConfigError:
            assert prediction_type == "eps" and process.gain(process.times[-1:]).min() == 0


def many_times(process):
    times = process.times
    return torch.cat([times[1:], times[1:] - 0.4 * times.diff(), times[1:2] * 1e-3])


# the velocity ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", MAPS)
def test_u0_and_the_noise_follow_from_the_velocity_at_all_times(name):
    model = make(MAPS[name](), sampler=None, prediction_type="velocity")
    process, t = model.process, many_times(model.process)
    u0, eps = normal(len(t), 1), normal(len(t), 2)
    u = process.perturb(u0, t, eps)
    target = model._target(u0, eps, t)
    model.net = lambda x, k, cond: target
    assert_close(model.denoise(u, t), u0, atol=1e-5, rtol=0)
    assert_close(model.noise_estimate(u, t, model.denoise(u, t)), eps, atol=1e-5, rtol=0)


@pytest.mark.parametrize("name", FORWARDS)
def test_a_shipped_map_gives_u0_back_from_its_velocity_or_refuses_it_by_name(name):
    shape, fields = (1, 8, 8), torch.rand(64, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    process = shipped_map(name, shape, 10)
    process.prepare(SimpleNamespace(images=lambda split: fields, get=lambda split, chosen: fields[list(chosen)]))
    try:
        model = Diffusion(process, wiggle, None, None, prediction_type="velocity")
    except ConfigError as error:
        assert f"forward={name}" in str(error) and "x0" in str(error)
        assert name not in ("flow", "edm", "variance_preserving", "equal_snr", "blue_noise", "warm", "blurring")
        return
    t = many_times(process)
    u0, eps = fields[: len(t)].double(), torch.randn(len(t), *shape, generator=torch.Generator().manual_seed(1)).double()
    u = process.perturb(u0, t, eps)
    target = model._target(u0, eps, t)
    model.net = lambda x, k, cond: target
    assert_close(model.denoise(u, t), u0, atol=1e-5, rtol=0)


@pytest.mark.parametrize("name", ["flow", "drift", "blurring"])
def test_the_target_is_the_slope_of_the_state_in_units_of_its_size(name):
    model = make(MAPS[name](), prediction_type="velocity")
    process, h = model.process, 1e-5
    t = torch.tensor([0.1, 0.37, 0.9]).double()
    u0, eps = process.basis.inverse(MEAN + SPREAD * normal(4000, 1)), normal(4000, 2)
    for time in t.split(1):
        time = time.expand(4000)
        change = (process.perturb(u0, time + h, eps) - process.perturb(u0, time - h, eps)) / (2 * h)
        target = model._target(u0, eps, time)
        size = (change / target).median()
        assert_close(size * target, change, atol=1e-6, rtol=1e-6)
        if name != "drift":  # whose size leaves out that b' and the mean image may point the same way
            assert target.square().mean().item() == pytest.approx(1, rel=0.03)


def test_of_a_flow_it_is_the_noise_minus_the_image_and_of_noise_alone_the_noise():
    u0, eps, t = normal(K, 1), normal(K, 2), Flow().times[1:]
    size = (1 + (SPREAD**2 + MEAN**2).mean()).sqrt()
    model = make(Flow(), prediction_type="velocity")
    assert_close(size * model._target(u0, eps, t), eps - u0, atol=1e-12, rtol=0)
    noise = make(MAPS["variance_exploding"](), prediction_type="velocity")
    assert_close(noise._target(u0, eps, noise.process.times[1:]), eps, atol=1e-12, rtol=0)


def test_eulers_step_of_a_flow_is_heuns_of_order_1():
    model = make(Flow(num_levels=8), prediction_type="velocity")
    u = end = normal(3)
    size = (1 + (SPREAD**2 + MEAN**2).mean()).sqrt()
    for k in range(8, 0, -1):
        u = u - size * model._output(u, model.process.times[k].expand(3)) / 8
    assert_close(heun(model, end, model.process.times, order=1), u, atol=2e-7, rtol=0)


@pytest.mark.parametrize("name", ["flow", "variance_exploding", "blurring"])
def test_every_prediction_type_of_an_exact_denoiser_has_the_exact_score(name):
    """F of v = E[u_0 | u_t] is F*(v, eps(v)), as F* is linear; with it denoise is v and the score that of the oracle."""
    shape = (1, 8, 8)
    build = {"flow": Flow, "variance_exploding": VarianceExploding, "blurring": Blurring}[name]
    spec = gaussian(shape, "neumann" if name == "blurring" else "periodic", mean=0.3)
    oracle = GaussianOracle(build(shape, K), spec)
    for model in each_of(build(shape, K), shape):
        t = model.process.times[1:]
        u = torch.randn(K, *shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
        v = oracle.posterior_mean(u, t)
        model._output = lambda u, t, model=model, v=v: model._target(v, model.noise_estimate(u, t, v), t)
        if not model.score_only:
            assert_close(model.denoise(u, t), v, atol=1e-7, rtol=0)
        assert_close(model.score(u, t), oracle.score(u, t), atol=1e-6, rtol=1e-6)


def each_of(process, shape):
    for prediction_type in TYPES:
        if prediction_type != "eps" or process.gain(process.times[-1:]).min() > 1e-6:
            yield Diffusion(process, wiggle, None, None, prediction_type=prediction_type)


@pytest.mark.parametrize("name", MAPS)
def test_the_preconditioned_target_has_unit_variance_at_every_time_on_the_data_that_were_measured(name):
    process = MAPS[name]()
    fields = process.basis.inverse(MEAN + SPREAD * normal(60, 3))
    model = Diffusion(process, wiggle, None, None, prediction_type="preconditioned")
    model.prepare(SimpleNamespace(batch_size=8, images=lambda split: fields, get=lambda split, chosen: fields[list(chosen)]))
    for t in many_times(process):
        nothing, t = torch.zeros_like(fields), t.expand(len(fields))
        signal = process.basis(model._target(fields, nothing, t)).var(0, correction=0)
        one = process.basis.inverse(torch.ones_like(fields))
        noise = process.basis(model._target(process.basis.inverse(model.mean.expand_as(fields)), one, t))[0].square()
        assert_close(signal + noise, torch.ones(SHAPE).double(), atol=1e-9, rtol=0)


def test_centred_preconditioning_is_that_of_the_same_images_shifted_and_stretched():
    """Images x in [0, 1] with noise sigma, and 2 x - 1 with 2 sigma, as published: the same inputs and targets."""
    fields, targets, inputs = normal(60, 3) * 0.2 + 0.4, [], []
    for images, sigma in ((fields, 1.0), (2 * fields - 1, 2.0)):
        process = VarianceExploding(SHAPE, K, 0.1 * sigma, 10 * sigma)
        model = Diffusion(
            process, lambda x, k, cond: inputs.append(x) or x, None, None, "preconditioned", preconditioning="centred"
        )
        get = lambda split, chosen, images=images: images[list(chosen)]  # noqa: E731
        model.prepare(SimpleNamespace(batch_size=8, images=lambda split, images=images: images, get=get))
        t, eps = process.times[1:].repeat(60 // K), normal(60, 4)
        targets.append(model._target(images, eps, t))
        model.denoise(process.perturb(images, t, eps), t)
    assert_close(*targets, atol=1e-9, rtol=0)
    assert_close(*inputs, atol=1e-9, rtol=0)
    signal = (targets[0] - targets[0].mean()).square().mean()
    assert 0.8 < signal < 1.2


def test_a_filtered_input_has_unit_size_and_is_0_where_nothing_of_the_image_is_left():
    process, seen = Flow(), []
    model = make(process, lambda x, k, cond: seen.append(x) or x, prediction_type="preconditioned", network_input="wiener")
    u0 = process.basis.inverse(MEAN + SPREAD * normal(4000, 5))
    for t in process.times[1:]:
        t = t.expand(len(u0))
        model.denoise(process.perturb(u0, t, normal(4000, 6)), t)
    assert process.gain(process.times[-1:]).max() == 0 and not seen[-1].any()
    for x in seen[:-1]:
        assert x.square().mean().item() == pytest.approx(1, rel=0.02)


# the density of time -----------------------------------------------------------------------------------------------------


def drawn_at(model, places):
    """The times at which so much of the density lies below."""
    uniform = 1 - torch.as_tensor(places, dtype=torch.float64)
    return model.times_for(SimpleNamespace(uniform=lambda *shape, dtype=None: uniform[:, None]))


@pytest.mark.parametrize("name", ["flow", "variance_exploding", "blurring", "gentle_heat", "student_t"])
@pytest.mark.parametrize(("mean", "std"), [(None, None), (-0.5, 2.0)])
def test_the_logarithm_of_the_noise_level_is_normal_on_the_range_of_the_map(name, mean, std):
    model = make(MAPS[name](), sampler=None, time_density="lognormal", density_mean=mean, density_std=std)
    places, process = torch.linspace(0.001, 1, 400), model.process
    x = noise_to_signal(process, drawn_at(model, places)).log()
    low, high = noise_to_signal(process, torch.stack([1e-12 * process.times[1], process.times[-1]])).log().tolist()
    mean, std = (-1.2 - math.log(2), 1.2) if mean is None else (mean, std)
    low, high = stats.norm.cdf([low, high], mean, std)
    expected = low + (high - low) * places.numpy()
    assert abs(stats.norm.cdf(x, mean, std) - expected).max() < 2e-4
    assert (drawn_at(model, [2.0**-32, 1.0]) > 0).all()


@pytest.mark.parametrize(("mean", "std"), [(None, None), (0.8, 0.8)])
def test_the_logit_of_time_is_normal(mean, std):
    for process in (Flow(), MAPS["gentle_heat"](), Heat(SHAPE, K, 0.1)):
        model = make(process, time_density="logit_normal", density_mean=mean, density_std=std)
        places = torch.linspace(0.001, 0.999, 200)
        x = (drawn_at(model, places) / process.times[-1]).logit()
        assert_close(x, torch.from_numpy(stats.norm.ppf(places.double(), mean or 0, std or 1)), atol=1e-6, rtol=0)
        ends = drawn_at(model, [2.0**-32, 1.0])
        assert ends[0] > 0 and ends[1] <= process.times[-1]


@pytest.mark.parametrize("density", ["lognormal", "logit_normal"])
def test_the_time_of_a_sample_is_one_draw_by_its_key(density):
    model = make(Flow(), time_density=density)
    rng = SampleNoise(range(5), 0)
    together = model.times_for(rng)
    assert rng.draws == 1 and len(together.unique()) == 5
    assert_close(together, torch.cat([model.times_for(SampleNoise([j], 0)) for j in range(5)]), atol=1e-14, rtol=0)


# weights and norms -------------------------------------------------------------------------------------------------------


def test_weights_of_a_flow_are_those_of_the_papers():
    t = torch.tensor([1e-4, 0.03, 0.05, 0.3, 0.8, 1.0]).double()
    spectrum, sigma, process = SPREAD**2, (t / (1 - t)).reshape(-1, 1, 1, 1), Flow(num_levels=40)
    weight = {name: root(name, process, t, spectrum).square() for name in WEIGHTS[1:]}
    edm = ((sigma**2 + spectrum) / (sigma**2 * spectrum))[:-1]
    assert_close(weight["edm"][:-1], edm, atol=0, rtol=1e-9)
    assert_close(weight["edm"][-1], 1 / spectrum, atol=0, rtol=1e-9)
    assert_close(weight["velocity"].flatten(), 1 / t.clamp(min=0.05) ** 2, atol=0, rtol=1e-9)
    assert_close(weight["soft"].flatten(), (1 - t) ** 2, atol=1e-15, rtol=1e-9)
    assert_close(weight["min_snr"].flatten(), ((1 - t) / (2 * t)).square().clamp(max=5), atol=1e-15, rtol=1e-9)
    assert_close(weight["whitened"][0], 1 / spectrum, atol=0, rtol=1e-9)


@pytest.mark.parametrize("name", MAPS)
def test_the_loss_is_the_weight_times_the_squared_error_of_u0_for_every_prediction_type(name):
    """Whose minimiser is E[u_0 | u_t] whatever the weight, and whose gradient is 0 where the estimate is exact."""
    u0 = normal(6)
    for weight in WEIGHTS[1:]:
        for model in each(MAPS[name]()):
            if model.score_only:
                continue
            model.weight = weight
            bound = model.bound(rng := SampleNoise(range(6), 0))
            process, t = bound.process, model.times_for(rng)
            u = process.perturb(u0, t, bound.sized(rng.normal_like(u0)))
            gap = process.basis(bound.denoise(u, t) - u0)
            expected = (root(weight, process, t, SPREAD**2) * gap).square().flatten(1).mean(1)
            assert_close(model.loss({"u0": u0}, SampleNoise(range(6), 0)), expected, atol=1e-9, rtol=1e-6)


def test_edm_is_the_weight_of_the_preconditioned_loss_and_velocity_that_of_the_velocity():
    u0, rng = normal(64), [SampleNoise(range(64), 0) for _ in range(4)]
    for name in ("flow", "blurring"):
        own, edm = (make(MAPS[name](), weight=weight) for weight in ("prediction", "edm"))
        assert_close(edm.loss({"u0": u0}, rng[0]), own.loss({"u0": u0}, rng[1]), atol=1e-12, rtol=1e-9)
        rng = rng[2:] or rng
    own, weighed = (make(Flow(), prediction_type="velocity", weight=weight) for weight in ("prediction", "velocity"))
    late = Flow().level(own.times_for(SampleNoise(range(64), 0))) > 0.05 * K
    size = 1 + (SPREAD**2 + MEAN**2).mean()
    losses = [model.loss({"u0": u0}, SampleNoise(range(64), 0))[late] for model in (own, weighed)]
    assert_close(size * losses[0], losses[1], atol=1e-12, rtol=1e-9)


def test_the_norm_l1_is_the_mean_absolute_error():
    model, u0 = make(Flow(), prediction_type="x0", norm="l1", weight="soft"), normal(6)
    rng = SampleNoise(range(6), 0)
    t = model.times_for(rng)
    gap = model.denoise(model.process.perturb(u0, t, rng.normal_like(u0)), t) - u0
    expected = (model.process.gain(t) * gap).abs().flatten(1).mean(1)
    assert_close(model.loss({"u0": u0}, SampleNoise(range(6), 0)), expected, atol=1e-12, rtol=0)


# which noise goes with which image ---------------------------------------------------------------------------------------


def test_optimal_transport_permutes_the_noises_to_the_optimum_of_scipy():
    u0, eps = torch.rand(12, *SHAPE), normal(12, 2).float()
    cost = torch.cdist(u0.flatten(1).double(), eps.flatten(1).double()).square().numpy()
    rows, columns = linear_sum_assignment(cost)
    paired = transported(u0, eps)
    assert (u0 - paired).double().square().sum().item() == pytest.approx(cost[rows, columns].sum(), rel=1e-6)
    assert cost[rows, columns].sum() < cost.trace()
    assert sorted(paired[:, 0, 0, 0].tolist()) == sorted(eps[:, 0, 0, 0].tolist())
    assert_close(transported(2 * u0 - 1, eps), paired, atol=0, rtol=0)


def test_a_coupled_loss_takes_the_noises_of_its_own_keys_in_that_order():
    u0, seen = normal(8), []
    settings = {"coupling": "ot", "prediction_type": "x0", "scale_input": False}
    model = make(Flow(), lambda x, k, cond: seen.append(x) or x, sampler=heun, **settings)
    losses = [model.loss({"u0": u0}, SampleNoise(range(8), 3)) for _ in range(2)]
    rng = SampleNoise(range(8), 3)
    t = model.times_for(rng)
    assert torch.equal(seen[0], model.process.perturb(u0, t, transported(u0, rng.normal_like(u0))))
    assert torch.equal(*losses)


# what is refused ---------------------------------------------------------------------------------------------------------


def test_what_a_map_forbids_is_one_sentence_that_names_both():
    heat, matrix = Heat(SHAPE, K, 0.1), RandomMatrix(SHAPE, K, 0.1)
    silent, drawn = Heat(SHAPE, K, 0.0), RandomVelocity(SHAPE, K, 0.1)
    still, far = Identity(SHAPE, K, 0.1), {"density_mean": 90.0}
    for process, settings, words in (
        (heat, {"prediction_type": "velocity"}, "prediction_type=velocity.*forward=heat.*use preconditioned or x0"),
        (StochasticHeat((1, 16, 16), K), {"prediction_type": "velocity"}, "forward=stochastic_heat"),
        (drawn, {"prediction_type": "velocity"}, "forward=random_velocity"),
        (matrix, {"prediction_type": "velocity"}, "prediction_type=velocity.*forward=random_matrix.*use x0"),
        (matrix, {"time_density": "lognormal"}, "time_density=lognormal.*forward=random_matrix.*use uniform"),
        (matrix, {"time_density": "logit_normal"}, "time_density=logit_normal.*forward=random_matrix.*use uniform"),
        (still, {"time_density": "lognormal"}, "time_density=lognormal.*forward=identity"),
        (Flow(), {"time_density": "lognormal", "density_mean": -90.0}, "density_mean=-90.*forward=test_targets"),
        (MAPS["variance_exploding"](), {"time_density": "lognormal", **far}, "density_mean=90.*forward=variance_exploding"),
        (heat, {"time_density": "logit_normal", "density_mean": -90}, "density_mean=-90.*forward=heat"),
        (
            heat,
            {"prediction_type": "x0", "network_input": "wiener"},
            "network_input=wiener is for .*=preconditioned, not x0",
        ),
        (heat, {"density_mean": 0.5}, "time_density=uniform has no density_mean.*lognormal"),
        (heat, {"time_density": "lognormal", "density_std": 0.0}, "density_std must be a number greater than 0"),
        (heat, {"time_density": "lognorm"}, "did you mean lognormal"),
        (matrix, {"weight": "soft"}, "weight=soft.*forward=random_matrix.*weight=prediction"),
        (heat, {"weight": "velocity"}, "weight=velocity leaves out.*forward=heat"),
        (silent, {"weight": "edm"}, "weight=edm needs noise.*forward=heat"),
        (heat, {"weight": "soft", "prediction_type": "score"}, "weight=soft.*score.*forward=heat.*use prediction_type=x0"),
        (heat, {"clip": True, "prediction_type": "score"}, "clip=true.*score.*forward=heat.*prediction_type=auto"),
        (heat, {"weight": "soff"}, "did you mean soft"),
        (Flow(), {"weight": "whitened", "preconditioning": "centred"}, "weight=whitened needs .*=coefficient, not centred"),
        (
            Flow(),
            {"coupling": "ot", "sampler": ancestral},
            "sampler=ancestral .*Gaussian steps.*coupling=ot; use sampler=heun",
        ),
        (Flow(), {"coupling": "ot", "sampler": momentum}, "sampler=momentum .*Gaussian steps.*coupling=ot"),
        (heat, {"norm": "l3"}, "model.norm"),
        (heat, {"coupling": "optimal"}, "model.coupling"),
    ):
        with pytest.raises(ConfigError, match=words):
            make(process, **{"sampler": None, **settings})


def test_what_a_sampler_refuses_is_refused_before_a_training():
    with pytest.raises(ConfigError, match=r"sampler=cold leaves the noise.*forward=test_targets"):
        make(Flow(), sampler=cold).rehearse()
    with pytest.raises(ConfigError, match=r"sampler\.order"):
        make(Flow(), sampler=functools.partial(heun, order=3)).rehearse()
    make(Heat(SHAPE, K, 0.1), sampler=cold).rehearse()
    churn = functools.partial(heun, churn=10, churn_min=0.025, churn_max=25)  # in steps above the first hundred
    make(VarianceExploding(SHAPE, 1000), sampler=churn).rehearse()


def test_one_image_has_no_choice_of_noise():
    model = make(Flow(), sampler=None, coupling="ot")
    for size, peers, least in ((1, Peers(), 2), (3, Peers(0, 2), 4)):
        with pytest.raises(ConfigError, match=rf"coupling=ot.*data\.batch_size to {least}"):
            model.prepare(SimpleNamespace(batch_size=size), peers)


# presets, from the command line ------------------------------------------------------------------------------------------


PRESETS = {  # their map and sampler, and what they set
    "flow_matching": ("flow", "heun", {"prediction_type": "velocity"}),
    "edm": ("edm", "heun", {"prediction_type": "preconditioned", "time_density": "lognormal"}),
    "ddpm": ("variance_preserving", "ancestral", {"prediction_type": "eps", "reverse_variance": "small"}),
    "soft": ("warm", "momentum", {"prediction_type": "x0", "weight": "soft"}),
    "cold": ("heat", "cold", {"prediction_type": "x0", "norm": "l1"}),
}


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_has_its_own_map_sampler_and_options(name):
    forward, sampler, options = PRESETS[name]
    cfg = compose(f"model={name}", "data=digits")
    model, _ = build(cfg)
    assert model.process.name == forward and model.sampler.func.__name__ == sampler
    assert {key: cfg.model[key] for key in options} == options
    if name == "edm":
        assert model.num_steps == 18 and not torch.equal(model.sampling_times(), model.process.times)
    if name == "flow_matching":
        assert_close(model.sampling_times(), model.process.times, atol=1e-14, rtol=0)
        assert model.sampler.keywords["order"] == 1


@pytest.mark.parametrize("name", PRESETS)
def test_a_map_or_sampler_of_the_command_line_wins(name):
    cfg = compose(f"model={name}", "forward=blurring", "sampler=ode", "data=digits")
    assert cfg.forward._target_.endswith("Blurring") and cfg.sampler._target_.endswith("ode.ode")
    assert dict(PRESETS[name][2]).items() <= dict(cfg.model).items()
