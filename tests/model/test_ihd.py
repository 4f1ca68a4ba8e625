"""model=ihd: the identities of its loss, its parametrisations, its reverse step and what it refuses."""

import functools
import math
from types import SimpleNamespace

import pytest
import torch
from scipy import stats
from torch.testing import assert_close

from heatgen.check import ConfigError
from heatgen.forward.constant_velocity import ConstantVelocity
from heatgen.forward.heat import Heat
from heatgen.forward.random_product import RandomProduct
from heatgen.forward.random_velocity import RandomVelocity
from heatgen.forward.variance_exploding import VarianceExploding
from heatgen.model.grid import Grid
from heatgen.model.ihd import IHD
from heatgen.model.parametrisation import untrained_errors
from heatgen.model.schedule import warmup_factor
from heatgen.net.unet import UNet
from heatgen.noise import SampleNoise
from heatgen.sampler.ancestral import ancestral
from heatgen.sampler.cold import cold

SHAPE = (2, 6, 5)
K = 6
SIGMA = 0.1
HIDDEN = RandomVelocity(SHAPE, K, conditional=False)
CONTINUOUS = {"levels": "continuous"}
FADE = ConstantVelocity(SHAPE, num_levels=1)


def heat(num_levels=K):
    return Heat(SHAPE, num_levels, SIGMA)


def curved(x, k, cond=None):
    return torch.tanh(x + 0.1 * k.reshape(-1, 1, 1, 1))


def make(net=curved, process=None, **settings):
    return IHD(process or heat(), net, ancestral, functools.partial(torch.optim.Adam, lr=2e-4), **settings)


def zero_net():
    return UNet(SHAPE, model_channels=4, multipliers=(1, 2), num_res_blocks=1, attention_levels=(), norm_groups=2)


def images(batch, seed=0):
    return torch.rand(batch, *SHAPE, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def fixed(k, eps):
    """Noise that draws the levels k and then eps."""
    return SimpleNamespace(integers=lambda low, high: k, normal_like=lambda u: eps)


def between(k):
    times = heat().times
    return times[k], times[k - 1]


def test_the_loss_of_a_perfect_mean_is_0(monkeypatch):
    model, u0 = make(), images(40)
    monkeypatch.setattr(model, "_mean", lambda u, t, s: model.process.mean(u0, s))
    assert torch.equal(model.loss({"u0": u0}, SampleNoise(range(40), 0)), torch.zeros(40, dtype=torch.float64))


@pytest.mark.parametrize("parametrisation", ["residual", "x0", "direct"])
def test_the_loss_of_a_perfect_net_is_0(parametrisation):
    u0, process = images(40), heat()

    def net(u, k, cond):
        target = process.mean(u0, process.times[k.round().long() - 1])
        return {"residual": target - u, "x0": u0, "direct": target}[parametrisation]

    losses = make(net, parametrisation=parametrisation).loss({"u0": u0}, SampleNoise(range(40), 0))
    assert_close(losses, torch.zeros(40, dtype=torch.float64), atol=1e-25, rtol=0)


def test_the_loss_of_a_new_net_is_the_step_less_the_noise():
    model, u0 = make(zero_net(), parametrisation="residual"), images(K).float()
    k, eps = torch.arange(1, K + 1), torch.randn(K, *SHAPE, generator=torch.Generator().manual_seed(1))
    t, s = between(k)
    difference = model.process.mean(u0, s) - model.process.mean(u0, t) - SIGMA * eps
    assert_close(model.loss({"u0": u0}, fixed(k, eps)), difference.square().sum((1, 2, 3)), atol=0, rtol=1e-5)


@pytest.mark.parametrize("k", [1, 3, K])
def test_the_loss_of_a_new_net_has_its_closed_expectation(k):
    n, model, u0 = 4000, make(lambda u, k, cond: torch.zeros_like(u), parametrisation="residual"), images(1)
    eps = torch.randn(n, *SHAPE, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    losses = model.loss({"u0": u0.expand(n, *SHAPE)}, fixed(torch.full((n,), k), eps))
    t, s = between(torch.tensor([k]))
    change = (model.process.mean(u0, s) - model.process.mean(u0, t)).square().sum()
    expected = math.prod(SHAPE) * SIGMA**2 + change
    assert abs(losses.mean() - expected) < 4 * losses.std() / math.sqrt(n)


@pytest.mark.parametrize(("parametrisation", "weight"), [("direct", 0.0), ("residual", 1.0)])
def test_the_net_predicts_the_mean_or_its_difference_from_the_state(parametrisation, weight):
    model, u = make(parametrisation=parametrisation), images(3)
    t, s = between(torch.tensor([1, 4, K]))
    assert_close(model.reverse_mean(u, t, s), weight * u + curved(u, torch.tensor([1, 4, K])), atol=1e-7, rtol=0)


@pytest.mark.parametrize("skip", [1, 3])
def test_the_x0_net_predicts_the_image_and_may_skip_levels(skip):
    model, u, k = make(parametrisation="x0"), images(2), torch.tensor([4, K])
    t, s = model.process.times[k], model.process.times[k - skip]
    assert_close(model.reverse_mean(u, t, s), model.process.mean(curved(u, k), s), atol=1e-7, rtol=0)


# what second moments tell ------------------------------------------------------------------------------------------------


def stationary(mean=0.3, seed=4):
    """The mean and the variance of each coefficient of heat's basis, and a function that draws n images of that law."""
    process, rng = heat(), torch.Generator().manual_seed(seed)
    centre = process.basis(torch.full((1, *SHAPE), mean, dtype=torch.float64))[0]
    spectrum = 0.1 * torch.rand(SHAPE, generator=rng, dtype=torch.float64) + 0.01

    def draw(n):
        noise = torch.randn(n, *SHAPE, generator=rng, dtype=torch.float64)
        return process.basis.inverse(centre + spectrum.sqrt() * noise)

    return centre, spectrum, draw


def preconditioned(net, mean, spectrum, **settings):
    model = make(net, parametrisation="preconditioned", **settings)
    model.mean.copy_(mean)
    model.spectrum.copy_(spectrum)
    return model


def test_a_preconditioned_net_that_gives_nothing_takes_the_best_linear_step_with_a_loss_of_1_a_pixel():
    mean, spectrum, draw = stationary()
    model = preconditioned(lambda u, k, cond: torch.zeros_like(u), mean, spectrum)
    process, n = model.process, 4000
    k = torch.arange(n) % K + 1
    (t, s), u0 = between(k), draw(n)
    eps = torch.randn(n, *SHAPE, generator=torch.Generator().manual_seed(5), dtype=torch.float64)
    u = process.perturb(u0, t, eps)
    after, before = process.gain(t), process.gain(s)
    step = before * after * spectrum / (after**2 * spectrum + SIGMA**2)
    expected = process.basis.inverse(before * mean + step * (process.basis(u) - after * mean))
    assert_close(model.reverse_mean(u, t, s), expected, atol=1e-12, rtol=0)
    losses = model.loss({"u0": u0}, fixed(k, eps))
    assert losses.mean() == pytest.approx(math.prod(SHAPE), abs=4 * losses.std().item() / math.sqrt(n))


@pytest.mark.parametrize("sees", ["whitened", "wiener", "state"])
@pytest.mark.parametrize("target", ["clean", "noisy"])
def test_the_loss_of_a_preconditioned_net_is_0_where_it_steps_to_the_target(target, sees):
    mean, spectrum, draw = stationary()
    k, u0, eps = torch.arange(1, K + 1), draw(K), images(K) - 0.5
    t, s = between(k)
    process = heat()
    u, variance = process.perturb(u0, t, eps), process.gain(t) ** 2 * spectrum + SIGMA**2
    centred = process.basis(u) - process.gain(t) * mean

    weight = {
        "whitened": variance.rsqrt(),
        "wiener": process.gain(t) * spectrum / variance,
        "state": torch.ones_like(variance),
    }
    size = (weight[sees] ** 2 * variance).mean((1, 2, 3), keepdim=True).sqrt()  # that of states, on average over data

    def net(x, level, cond):
        assert_close(process.basis(x), weight[sees] * centred / size, atol=1e-10, rtol=0)
        rest = process.basis(u0) - mean - process.gain(t) * spectrum / variance * centred
        return process.basis.inverse(rest / (SIGMA * (spectrum / variance).sqrt()))

    model = preconditioned(net, mean, spectrum, target=target, network_input=sees)
    assert_close(model.loss({"u0": u0}, fixed(k, eps)), torch.zeros(K, dtype=torch.float64), atol=1e-15, rtol=0)
    aim = process.mean(u0, s) if target == "clean" else process.perturb(u0, s, eps)
    assert_close(model.reverse_mean(u, t, s), aim, atol=1e-10, rtol=0)


def test_a_preconditioned_net_is_told_the_moments_of_training_images_and_needs_a_diagonal_map():
    _, _, draw = stationary()
    model, u0 = make(parametrisation="preconditioned"), draw(500)
    model.prepare(SimpleNamespace(images=lambda split: u0, get=lambda split, indices: u0[list(indices)]))
    c = model.process.basis(u0)
    assert_close(model.mean, c.mean(0), atol=1e-12, rtol=0)
    assert_close(model.known.spectrum, c.var(0, correction=0), atol=1e-12, rtol=0)
    centred = make(parametrisation="preconditioned", preconditioning="centred")
    centred.prepare(SimpleNamespace(images=lambda split: u0, get=lambda split, indices: u0[list(indices)]))
    assert_close(centred.process.basis.inverse(centred.known.mean[None]), u0.mean().expand(1, *SHAPE), atol=1e-12, rtol=0)
    assert_close(centred.known.spectrum, u0.var(correction=0).expand(SHAPE), atol=1e-12, rtol=0)
    scalar = make(parametrisation="preconditioned", preconditioning="scalar")
    scalar.prepare(SimpleNamespace(images=lambda split: u0, get=lambda split, indices: u0[list(indices)]))
    assert not scalar.known.mean.any()
    assert_close(scalar.known.spectrum, u0.square().mean().expand(SHAPE), atol=1e-12, rtol=0)
    for key, value in (("preconditioning", "centred"), ("network_input", "state")):
        with pytest.raises(ConfigError, match=f"model.{key}={value} is for model.parametrisation=preconditioned, not x0"):
            make(parametrisation="x0", **{key: value})
    for process, fix in ((RandomProduct(SHAPE, K), "diagonal map.*use x0"), (HIDDEN, "hides; use residual")):
        with pytest.raises(ConfigError, match=fix):
            make(process=process, parametrisation="preconditioned")


@pytest.mark.parametrize("steps", [(2, 2), (1, 2), (-1, 1)])
@pytest.mark.parametrize("parametrisation", ["residual", "direct"])
def test_other_parametrisations_refuse_to_skip_levels(parametrisation, steps):
    model, k = make(parametrisation=parametrisation), torch.tensor([3, 4])
    with pytest.raises(ConfigError, match=f"model.parametrisation={parametrisation}.*parametrisation=x0"):
        model.reverse_mean(images(2), model.process.times[k], model.process.times[k - torch.tensor(steps)])


@pytest.mark.parametrize(("train_top_level", "last"), [(True, K), (False, K - 1)])
def test_training_covers_every_level_evenly(monkeypatch, train_top_level, last):
    n, model, seen = 3000, make(train_top_level=train_top_level), []
    monkeypatch.setattr(model, "_mean", lambda u, t, s: seen.append((t, s)) or u)
    model.loss({"u0": images(1).expand(n, *SHAPE)}, SampleNoise(range(n), 0))
    t, s = seen[0]
    levels = model.process.level(t)
    assert_close(model.process.level(s), levels - 1, atol=1e-12, rtol=0)
    counts = torch.bincount(levels.round().long(), minlength=K + 1)
    expected = torch.tensor([0.0] + [n / last] * last + [0.0] * (K - last))
    assert (counts - expected).abs().max() <= 4 * math.sqrt(n / last)
    assert torch.equal(counts > 0, expected > 0)


def test_the_loss_of_a_sample_does_not_depend_on_its_batch():
    model, u0 = make(), images(5)
    together = model.loss({"u0": u0}, SampleNoise(range(5), 3))
    alone = torch.cat([model.loss({"u0": u0[[j]]}, SampleNoise([j], 3)) for j in range(5)])
    assert_close(together, alone, atol=1e-12, rtol=0)


@pytest.mark.parametrize(("delta", "expected"), [(None, 1.25 * SIGMA), (0, 0.0), (0.3, 0.3)])
def test_the_noise_of_a_step_is_five_quarters_of_the_forward_noise_unless_given(delta, expected):
    t, s = between(torch.tensor([2]))
    assert make(delta=delta).reverse_std(t, s) == pytest.approx(expected, abs=1e-15)


@pytest.mark.parametrize(("prior_std", "expected"), [(None, 1.25 * SIGMA), (0, 0.0), (0.4, 0.4)])
def test_an_initial_state_is_the_mean_of_the_last_level_plus_noise(prior_std, expected):
    model, u0, eps = make(prior_std=prior_std), images(3), images(3, seed=1)
    state = model.initial_state(u0, fixed(None, eps))
    assert_close(state, model.process.mean(u0, model.process.times[[K] * 3]) + expected * eps, atol=1e-14, rtol=0)


def test_draws_of_u_0_given_a_state_belong_to_the_sample_and_differ_by_their_noise():
    model, u_last = make(), images(3)
    first, other = (model.generate(u_last, SampleNoise(range(3), seed)) for seed in (5, 6))
    assert first.shape == (3, *SHAPE) and not torch.isclose(first, other).any()
    assert_close(first[:2], model.generate(u_last[:2], SampleNoise(range(2), 5)), atol=1e-12, rtol=0)


def test_without_noise_in_the_steps_there_is_one_estimate():
    first, other = (make(delta=0).generate(images(2), SampleNoise(range(2), seed)) for seed in (5, 6))
    assert torch.equal(first, other)


def test_the_learning_rate_warms_up_linearly():
    for step, factor in {0: 0, 1: 0.0002, 2500: 0.5, 5000: 1, 9999: 1}.items():
        assert warmup_factor(step, 5000) == pytest.approx(factor, abs=1e-15)
    assert warmup_factor(0, 0) == warmup_factor(3, 0) == 1


def test_the_scheduler_multiplies_the_learning_rate_by_the_warm_up():
    configured = make(zero_net(), warmup_steps=4).configure_optimizers()
    optimizer, schedule, rates = configured["optimizer"], configured["lr_scheduler"]["scheduler"], []
    for _ in range(6):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    assert rates == pytest.approx([0, 0.5e-4, 1e-4, 1.5e-4, 2e-4, 2e-4], abs=1e-12)
    assert configured["lr_scheduler"]["interval"] == "step"


def test_a_wrong_value_is_refused_by_key_and_fix():
    for words, settings in (
        ("model.parametrisation.*did you mean residual", {"parametrisation": "residul"}),
        ("model.parametrisation", {"parametrisation": None}),
        ("model.train_top_level", {"train_top_level": "no"}),
        ("model.delta", {"delta": -0.1}),
        ("model.delta", {"delta": "auto"}),
        ("model.prior_std", {"prior_std": -1}),
        ("model.warmup_steps", {"warmup_steps": 0.5}),
        ("seed", {"seed": "abc"}),
        ("model.train_top_level=false.*forward.num_levels", {"train_top_level": False, "process": FADE}),
    ):
        with pytest.raises(ConfigError, match=words):
            make(**settings)


# noisy targets: pure deblurring ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("parametrisation", ["residual", "x0", "direct"])
@pytest.mark.parametrize("forward", [heat(), VarianceExploding(SHAPE, K)])
def test_a_noisy_target_has_the_noise_of_the_input_but_in_the_last_step(parametrisation, forward):
    k, u0, eps = torch.arange(1, K + 1), images(K), images(K, seed=1) - 0.5
    t, s = forward.times[k], forward.times[k - 1]
    u, target = forward.perturb(u0, t, eps), forward.perturb(u0, s, eps)
    assert torch.equal(target[0], forward.mean(u0, s)[0])  # L(0) = 0: this step denoises

    def net(x, k, cond):
        assert torch.equal(x, u)
        return {"residual": target - u, "x0": u0, "direct": target}[parametrisation]

    losses = make(net, forward, parametrisation=parametrisation, target="noisy").loss({"u0": u0}, fixed(k, eps))
    assert_close(losses, torch.zeros(K, dtype=torch.float64), atol=1e-20, rtol=0)


@pytest.mark.parametrize("parametrisation", ["residual", "ratio", "x0"])
def test_the_errors_of_an_untrained_net_with_noisy_targets_are_those_of_white_images(parametrisation):
    silent, total = (lambda u, k, cond: torch.zeros_like(u)), 0.0
    for forward in (Heat(SHAPE, K, 0.3), VarianceExploding(SHAPE, K), ConstantVelocity(SHAPE, K, 0.3)):
        if parametrisation not in (expected := untrained_errors(forward, noisy=True)):
            continue
        model, n = make(silent, forward, parametrisation=parametrisation, target="noisy"), 4000
        k, rng = torch.arange(n) % K + 1, torch.Generator().manual_seed(3)
        u0, eps = (torch.randn(n, *SHAPE, generator=rng, dtype=torch.float64) for _ in range(2))
        losses = model.loss({"u0": 0.25 * u0}, fixed(k, eps))
        assert abs(losses.mean() - expected[parametrisation]) < 4 * losses.std() / n**0.5
        total += expected[parametrisation]
    assert total > 0 and make(process=heat(), target="noisy").parametrisation == "residual"


def test_sampling_with_noisy_targets_adds_no_noise_and_is_cold_diffusion_but_for_its_last_step():
    model, u, states = make(parametrisation="x0", target="noisy"), images(2), []
    end = model.generate(u, SampleNoise(range(2), 0), lambda k, u: states.append(u))
    assert torch.equal(end, model.generate(u, SampleNoise(range(2), 1)))
    model.denoise, others = (lambda u, t: curved(u, model.process.level(t))), []
    cold(model, u, model.process.times, on_step=lambda k, u: others.append(u))
    assert_close(torch.stack(states[:-1]), torch.stack(others[:-1]), atol=1e-12, rtol=0)
    assert_close(end, curved(states[-2], torch.ones(2)), atol=1e-7, rtol=0)
    assert model.noise_label() == "0" and model.initial_std() == SIGMA
    assert make(target="noisy", delta=0.3).reverse_std(*between(torch.tensor([2]))) == 0.3


# continuous levels -------------------------------------------------------------------------------------------------------


def test_continuous_levels_are_uniform_with_targets_one_level_below(monkeypatch):
    n, model, seen = 4000, make(levels="continuous", train_top_level=False), []
    assert model.chosen == {"parametrisation": "x0"} and model.any_time and not make(parametrisation="x0").any_time
    monkeypatch.setattr(model, "_mean", lambda u, t, s: seen.append((t, s)) or u)
    model.loss({"u0": images(1).expand(n, *SHAPE)}, SampleNoise(range(n), 0))
    above, below = (model.process.level(t) for t in seen[0])
    assert stats.kstest(above.numpy(), stats.uniform(0, K - 1).cdf).pvalue > 1e-3 and above.min() > 0
    assert_close(below, (above - 1).clamp(min=0), atol=1e-9, rtol=0)


def test_any_number_of_steps_of_a_perfect_net_with_continuous_levels_ends_in_the_image():
    u0, seen = images(2), []
    model = make(lambda u, k, cond: seen.append(k) or u0, levels="continuous")
    for steps in (1, 4, 17):
        model.grid, _ = Grid(steps), seen.clear()
        assert_close(model.generate(images(2, seed=1), SampleNoise(range(2), 0)), u0, atol=1e-12, rtol=0)
        expected = K * torch.arange(steps, 0, -1, dtype=torch.float64) / steps  # levels of the trained map, for any steps
        assert_close(torch.stack(seen)[:, 0].double(), expected, atol=1e-5, rtol=0)


def test_discrete_levels_are_skipped_and_never_divided():
    u0, seen = images(2), []
    model = make(lambda u, k, cond: seen.append(k[0].item()) or u0, parametrisation="x0")
    model.grid = Grid(4)
    model.generate(images(2, seed=1), SampleNoise(range(2), 0))
    assert seen == [6, 5, 3, 2]
    wrong = {Grid(K + 1): "sampler.steps=7 must be at most K = 6", Grid(4, "uniform"): "sampler.spacing=uniform needs"}
    for model.grid, words in wrong.items():
        with pytest.raises(ConfigError, match=words):
            model.sampling_times()


@pytest.mark.parametrize("skip", [1, 3])
def test_the_noise_of_a_longer_step_is_that_of_the_level_where_it_ends(skip):
    model = make(parametrisation="x0", process=VarianceExploding(SHAPE, K))
    t, s = model.process.times[[5]], model.process.times[[5 - skip]]
    assert_close(model.reverse_std(t, s), 1.25 * model.process.std(s), atol=0, rtol=1e-12)


def test_what_the_new_options_forbid_is_refused_by_key_and_fix():
    for words, settings in (
        ("model.target must be one of clean, noisy", {"target": "noise"}),
        ("model.levels must be one of discrete, continuous", {"levels": 3}),
        ("model.levels=.*x0.*not model.parametrisation=direct.*use discrete", CONTINUOUS | {"parametrisation": "direct"}),
        ("model.levels=.*diagonal.*not forward=random_product", CONTINUOUS | {"process": RandomProduct(SHAPE, K)}),
        ("model.levels=.*not forward=random_velocity", CONTINUOUS | {"process": HIDDEN}),
        ("model.target=noisy.*model.delta_mode=spectral.*use constant", {"target": "noisy", "delta_mode": "spectral"}),
    ):
        with pytest.raises(ConfigError, match=words):
            make(**settings)
