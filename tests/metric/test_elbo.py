"""The evidence lower bound, term by term, against closed forms and brute force."""

import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from gaussian_toys import exact_model, gaussian
from torch.distributions import Independent, Normal, kl_divergence

from heatgen.check import ConfigError
from heatgen.data.images import Pixels
from heatgen.data.module import DataModule, DataSpec
from heatgen.forward.constant_velocity import ConstantVelocity
from heatgen.forward.heat import Heat
from heatgen.forward.random_matrix import RandomMatrix
from heatgen.forward.random_velocity import RandomVelocity
from heatgen.forward.stochastic_heat import StochasticHeat
from heatgen.metric.bound import balanced_levels, clustered_sum, gaussian_kl, gaussian_nll, level_errors, prior_kl, telling
from heatgen.metric.context import EvalContext
from heatgen.metric.elbo import ELBO
from heatgen.model.ihd import IHD
from heatgen.noise import SampleNoise
from heatgen.runtime.devices import Devices

SHAPE, D, K, SIGMA, DELTA = (1, 2, 3), 6, 4, 0.05, 0.07
SPECTRUM = torch.tensor([[0.3, 0.2, 0.15], [0.25, 0.1, 0.05]], dtype=torch.float64) ** 2  # variance of each cosine mode

DELTAS = torch.tensor([[0.06, 0.08, 0.05], [0.11, 0.07, 0.055]], dtype=torch.float64)  # one for each cosine mode
KNOWN = 0.5 * 784 * (0.64 - 1 + 2 * math.log(1.25))  # 33.8245 nats: widths 0.01 and 0.0125, 784 pixels


def filled(value, *shape):
    return torch.full(shape or (1, 1), value, dtype=torch.float64)


def coefficients(value):
    """A number, or a number for each coefficient, over a batch of one."""
    return torch.as_tensor(value, dtype=torch.float64).expand(1, 1, *getattr(value, "shape", (1, 1)))


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def heat(sigma=SIGMA):
    return Heat(SHAPE, num_levels=K, sigma=sigma, sigma_min=0.5, sigma_max=2.0)


def draws(n, seed):
    """Gaussian images with SPECTRUM."""
    return heat().basis.inverse(SPECTRUM.sqrt() * normal(n, *SHAPE, seed=seed))


def model(process, mean, delta=DELTA, prior_std=None):
    """reverse_mean is `mean`; delta: a number, one for each coefficient, or a function of a step's times that gives them."""
    steps = delta if callable(delta) else lambda t, s: coefficients(delta).expand(len(s), -1, -1, -1)
    last = (process.times[-1:], process.times[-2:-1])
    toy = SimpleNamespace(
        process=process, reverse_mean=mean, reverse_std=steps, noise_label=lambda: "toy", has_markov_forward=False
    )
    toy.noise_last_step, toy.reverse_noise = False, lambda eps, t, s: eps * steps(t, s)
    toy.target_mean = lambda u0, u, t, s: process.mean(u0, s)
    toy.target_std = lambda t, s: process.std(torch.maximum(s, process.times[1]))
    toy.initial_std = lambda: steps(*last) if prior_std is None else coefficients(prior_std)
    toy.bound = lambda noise: toy
    return toy


def optimal(process, delta=DELTA, prior_std=None):
    """The model whose reverse mean is the conditional mean of u_{k-1}'s noise-free state, linear for Gaussian images."""

    def mean(u, t, s):
        after, before = process.gain(t), process.gain(s)
        factor = before * after * SPECTRUM / (after**2 * SPECTRUM + process.sigma**2)
        return process.basis.inverse(factor.to(u) * process.basis(u))

    return model(process, mean, delta, prior_std)


def lazy(process):
    """The model that leaves a state as it is."""
    return model(process, lambda u, t, s: u)


def blank(process):
    """The model that always says 0, so that all errors are the images' own; its prior is wide."""
    return model(process, lambda u, t, s: torch.zeros_like(u), prior_std=1.0)


def ctx(model, train, test, n=None, batch_size=1000, seed=0):
    """Continuous data from tensors."""
    sets = {"train": train, "test": test}
    data = SimpleNamespace(
        spec=DataSpec(tuple(train.shape[1:]), bits=None),
        images=sets.get,
        get=lambda split, indices: sets[split][torch.as_tensor(indices)].float(),
    )
    return EvalContext(model, data, "toy", Devices(accelerator="cpu"), n, batch_size, seed)


def byte_subject(model, images, **settings):
    data = DataModule(shape=list(images.shape[1:]))
    data.read = lambda split: Pixels(images)
    return EvalContext(model, data, "bytes", Devices(accelerator="cpu"), None, 100, **{"seed": 0} | settings)


def kls(state, centres, std=DELTA):
    """KL(N(state, SIGMA^2 I) || N(centre, std^2 I)) of every pair of rows, by torch.distributions."""
    q = Independent(Normal(state[:, None], torch.full_like(state[:, None], SIGMA)), 1)
    return kl_divergence(q, Independent(Normal(centres, torch.as_tensor(std, dtype=torch.float64).expand_as(centres)), 1))


# parts ------------------------------------------------------------------------------------------------------------------


def test_kl_of_centred_gaussians_is_the_known_number():
    assert gaussian_kl(torch.zeros(1, 784), filled(0.01**2), filled(0.0125)).item() == pytest.approx(KNOWN, rel=1e-9)


def test_kl_of_equal_widths_is_half_the_squared_distance_in_their_units():
    gap = normal(3, 50).square()
    found = gaussian_kl(gap, filled(DELTA**2), filled(DELTA))
    assert torch.allclose(found, gap.sum(1) / (2 * DELTA**2), rtol=1e-12)


def test_kl_of_any_diagonals_is_the_one_of_torch():
    mean, std, other = normal(5, 7), normal(5, 7, seed=1).abs() + 0.1, normal(1, 7, seed=2).abs() + 0.2
    q, p = Independent(Normal(mean, std), 1), Independent(Normal(torch.zeros(7).double(), other), 1)
    assert torch.allclose(gaussian_kl(mean.square(), std**2, other), kl_divergence(q, p), rtol=1e-12)
    assert gaussian_kl(mean.square().float(), std.float() ** 2, other.float()).dtype == torch.float64


def test_nll_is_the_one_of_torch():
    x, std = normal(5, 7), normal(5, 7, seed=1).abs() + 0.1
    for widths in (std, std[:1], std[:, :1], std[:1, :1]):
        expected = -Normal(torch.zeros(5, 7).double(), widths.expand(5, 7)).log_prob(x).sum(1)
        assert torch.allclose(gaussian_nll(x.square(), widths), expected, rtol=1e-12)


def test_prior_kl_is_the_soft_minimum_over_training_images():
    states, centres = 0.1 * normal(4, D), 0.1 * normal(9, D, seed=1)
    found = prior_kl(states, centres, filled(SIGMA**2), filled(DELTA))
    expected = math.log(9) - torch.logsumexp(-kls(states, centres), 1)
    assert torch.allclose(found, expected, rtol=1e-10)
    assert torch.allclose(prior_kl(states, centres[:1], filled(SIGMA**2, 1, D), filled(DELTA)), kls(states, centres)[:, 0])
    assert torch.allclose(
        prior_kl(states, centres.flip(0), filled(SIGMA**2, 4, D), filled(DELTA, 1, D)), expected, rtol=1e-10
    )


def test_coefficients_that_a_map_has_forgotten_are_left_out_of_the_prior_and_change_nothing():
    process = Heat((3, 16, 16), num_levels=4, sigma=0.01, sigma_min=0.5, sigma_max=10.0)
    images = torch.randint(0, 256, (40, 3, 16, 16), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    images[20:] = 255 * (images[20:] // 128)
    wanted = byte_subject(lazy(process), images)
    wanted.model.initial_std = lambda: coefficients(0.0125)
    found = ELBO()._last(wanted, range(40))
    t = process.times[-1:]
    which = telling(process.gain(t).double().expand(1, 3, 16, 16).flatten(), filled(0.0125, 768))
    assert 0 < which.sum() < 100 and telling(torch.zeros(5), torch.ones(5)).any()
    dequantised = wanted.dequantised("test", range(40), torch.float32).double()
    states, centres = (
        process.basis(process.mean(u, t)).flatten(1) for u in (dequantised, wanted.data.get("train", range(40)).double())
    )
    expected = prior_kl(states, centres, filled(0.01**2), filled(0.0125))
    assert torch.allclose(found, expected, rtol=0, atol=1e-8)


def test_prior_kl_of_kernels_that_are_wider_along_some_coefficients():
    states, centres, std = 0.1 * normal(4, D), 0.1 * normal(30, D, seed=1), DELTAS.reshape(1, D)
    expected = math.log(30) - torch.logsumexp(-kls(states, centres, std), 1)
    assert torch.allclose(prior_kl(states, centres, filled(SIGMA**2), std), expected, rtol=1e-10)


def test_prior_kl_of_an_image_that_is_every_training_image_is_of_the_widths_alone():
    state = normal(1, 784)
    found = prior_kl(state, state.expand(50, -1), filled(0.01**2), filled(0.0125))
    assert found.item() == pytest.approx(KNOWN, rel=1e-9)


def test_prior_kl_bounds_the_true_divergence_and_is_not_far_off():
    state, centres = 0.05 * normal(1, D), 0.12 * normal(20, D, seed=1)
    bound = prior_kl(state, centres, filled(SIGMA**2), filled(DELTA)).item()
    x = state + SIGMA * normal(20000, D, seed=2)
    log_q = Normal(state, SIGMA).log_prob(x).sum(1)
    log_p = torch.logsumexp(Normal(centres, DELTA).log_prob(x[:, None]).sum(2), 1) - math.log(20)
    true, error = (log_q - log_p).mean().item(), (log_q - log_p).std().item() / 20000**0.5
    assert true + 4 * error < bound < true + math.log(20)


def test_levels_are_balanced_and_distinct_within_an_image():
    for n, per_image, num_levels in ((10, 3, 7), (4, 7, 7), (33, 1, 8), (5, 6, 7)):
        design = balanced_levels(n, per_image, num_levels, seed=1)
        counts = torch.bincount(design.flatten(), minlength=num_levels)
        assert design.shape == (n, per_image) and len(counts) == num_levels
        assert counts.max() - counts.min() <= 1
        assert all(len(set(row)) == per_image for row in design.tolist())


def test_every_image_is_as_likely_to_be_measured_at_any_level():
    first = torch.cat([balanced_levels(9, 2, 5, seed=seed)[0] for seed in range(500)])
    counts = torch.bincount(first, minlength=5).double()
    assert ((counts - 200) ** 2 / 200).sum() < 18.5  # chi-square of 4 degrees, p = 0.001


@pytest.mark.parametrize(("n", "per_image", "num_levels"), [(40, 2, 6), (40, 6, 6), (60, 1, 6), (18, 1, 6), (12, 2, 8)])
def test_the_standard_error_of_a_sum_over_levels_is_its_spread_in_brute_force(n, per_image, num_levels):
    sums, errors = [], []
    for seed in range(800):
        rng = np.random.default_rng(seed)
        image, noise = rng.normal(0, 1, (n, 1)), rng.normal(0, 1.5, (n, num_levels))
        values = torch.from_numpy(np.arange(num_levels) + image * (1 + 0.2 * np.arange(num_levels)) + noise)
        design = balanced_levels(n, per_image, num_levels, seed)
        means, parts = clustered_sum(values.gather(1, design), design, num_levels)
        sums.append(means.sum().item())
        errors.append(parts.norm().item())
    spread = np.std(sums)
    assert abs(np.mean(sums) - sum(range(num_levels))) < 4 * spread / 800**0.5
    assert np.sqrt(np.mean(np.square(errors))) == pytest.approx(spread, rel=0.15)


@pytest.mark.parametrize(("n", "per_image", "num_levels"), [(40, 3, 6), (12, 6, 6), (9, 2, 7)])
def test_the_error_of_a_level_is_that_of_the_mean_of_what_was_measured_there(n, per_image, num_levels):
    design, values = balanced_levels(n, per_image, num_levels, seed=3), normal(n, per_image)
    measured = [values[design == level].numpy() for level in range(num_levels)]
    expected = [x.std(ddof=1) / len(x) ** 0.5 for x in measured]
    assert level_errors(values, design, num_levels).tolist() == pytest.approx(expected, rel=1e-12)


# a linear Gaussian toy --------------------------------------------------------------------------------------------------


def closed_form(first_image, delta=DELTA):
    """Expected L_k and their variances over images and noise: L_{k-1} as KL_k, k = 1 .. K, then L_0 and L_K.

    delta: a number, one for each mode, or one for each level 1 .. K and mode; the last one is the prior's too.
    """
    process = heat()
    d = process.gain(process.times).squeeze(1)
    delta = torch.as_tensor(delta, dtype=torch.float64).expand(K, *SHAPE[1:])
    errors = mode_errors() / (2 * delta**2)
    squares, spreads = errors.sum((1, 2)), 2 * errors.square().sum((1, 2))
    widths = (0.5 * (SIGMA**2 / delta**2 - 1) + (delta / SIGMA).log()).sum((1, 2))
    centre, scale = process.basis(first_image)[0, 0], d[-1] ** 2 / (2 * delta[-1] ** 2)
    last = (scale * (SPECTRUM + centre**2)).sum() + widths[-1]
    last_variance = (scale**2 * (2 * SPECTRUM**2 + 4 * SPECTRUM * centre**2)).sum()
    zeroth = squares[0] + (delta[0] * math.sqrt(2 * math.pi)).log().sum()
    return squares + widths, spreads, (zeroth.item(), spreads[0].item()), (last.item(), last_variance.item())


def mode_errors():
    """The mean squared error of the optimal mean, by level 1 .. K and mode."""
    process = heat()
    d = process.gain(process.times).squeeze(1)
    return d[:-1] ** 2 * SPECTRUM * SIGMA**2 / (d[1:] ** 2 * SPECTRUM + SIGMA**2)


def matched():
    """delta^2 = sigma^2 + MSE of each level and mode, (K, H, W)."""
    return (SIGMA**2 + mode_errors()).sqrt()


def by_level(table):
    """A delta for the step from level k, as a model gives it."""
    return lambda t, s: table[heat().level(t).round().long() - 1][:, None]


@pytest.mark.parametrize("levels", [None, 1, 2])
@pytest.mark.parametrize("delta", [DELTA, DELTAS, matched()], ids=["number", "by mode", "by level and mode"])
def test_every_term_of_a_linear_gaussian_model_is_its_closed_form(levels, delta):
    n, train = 3000, draws(1, seed=1)
    toy = optimal(heat(), by_level(delta) if delta is not DELTA and delta.dim() == 3 else delta)
    result = ELBO(levels=levels)(ctx(toy, train, draws(n, seed=2)))
    kl, variances, zeroth, last = closed_form(train, delta)
    for name, (expected, variance) in (("l_first_nats", zeroth), ("l_last_nats", last)):
        error = (variance / n) ** 0.5
        assert abs(result.values[name] - expected) < 4 * error
        assert result.errors[name] == pytest.approx(error, rel=0.15)

    evaluations = n * (levels or K - 1) / (K - 1)
    assert result.series["k"] == [2, 3, 4]
    columns = (result.series[name] for name in ("k", "l_k", "l_k_se"))
    for k, value, error in zip(*columns, strict=True):
        expected = (variances[int(k) - 1].item() / evaluations) ** 0.5
        assert abs(value - kl[int(k) - 1]) < 4 * expected
        assert error == pytest.approx(expected, rel=0.25)
    total, error = result.values["l_middle_nats"], result.errors["l_middle_nats"]
    assert abs(total - kl[1:].sum()) < 4 * error
    assert error == pytest.approx((variances[1:].sum() / evaluations).item() ** 0.5, rel=0.25)
    parts = ("l_last_nats", "l_middle_nats", "l_first_nats")
    assert result.values["nll_bound_nats"] == pytest.approx(sum(result.values[part] for part in parts), rel=1e-12)


def test_matched_deltas_make_every_term_half_the_log_of_one_plus_the_error_over_the_noise():
    kl = closed_form(draws(1, seed=1), matched())[0]
    assert torch.allclose(kl, 0.5 * (mode_errors() / SIGMA**2).log1p().sum((1, 2)), rtol=1e-12)
    assert (kl < closed_form(draws(1, seed=1), DELTA)[0]).all()


@pytest.mark.parametrize("levels", [None, 1])
def test_compat_is_the_originals_sum_which_takes_the_first_step_for_the_last(levels):
    n, train = 3000, draws(1, seed=1)
    measured = ctx(optimal(heat()), train, draws(n, seed=2))
    bound, compat = (ELBO(levels=levels, compat=flag)(measured) for flag in (False, True))
    kl, variances, *_ = closed_form(train)
    gap = compat.values["nll_bound_nats"] - bound.values["nll_bound_nats"]
    error = (2 * variances.sum() * (K - 1) / (n * (levels or K - 1))).sqrt()
    assert abs(gap - (kl[0] - kl[-1])) < 4 * error
    assert abs(kl[0] - kl[-1]) > 10 * error
    assert all(compat.values[name] == bound.values[name] for name in ("l_first_nats", "l_last_nats"))
    assert compat.series["k"] == [1, 2, 3]
    for k, value in zip((1, 2, 3), compat.series["l_k"], strict=True):
        assert abs(value - kl[k - 1]) < 4 * (variances[k - 1] * (K - 1) / (n * (levels or K - 1))).sqrt()
    assert any("not a bound" in note for note in compat.notes) and not any("not a bound" in note for note in bound.notes)


def test_bounds_of_two_deltas_are_of_the_same_noise_and_differ_by_their_closed_form():
    train, test, other = draws(1, seed=1), draws(12, seed=2), 0.09
    first, second = (ELBO(levels=2)(ctx(optimal(heat(), d), train, test)).values for d in (DELTA, other))

    def moved(value, offset):
        """A term at the other delta: its gap, and the offsets that each delta has without one."""
        return (value - offset(DELTA)) * DELTA**2 / other**2 + offset(other)

    def width(d):
        return D * (0.5 * (SIGMA**2 / d**2 - 1) + math.log(d / SIGMA))

    def density(d):
        return D * math.log(d * math.sqrt(2 * math.pi))

    expected = {
        "l_last": moved(first["l_last_nats"], width),
        "l_middle": moved(first["l_middle_nats"], lambda d: (K - 1) * width(d)),
        "l_first": moved(first["l_first_nats"], density),
    }
    for name, value in expected.items():
        assert second[f"{name}_nats"] == pytest.approx(value, rel=1e-9), name
    difference = sum(expected.values()) - first["nll_bound_nats"]
    assert second["nll_bound_nats"] - first["nll_bound_nats"] == pytest.approx(difference, rel=1e-9)


def test_the_bound_is_above_the_entropy_of_gaussian_images():
    """No density has a smaller expected NLL than the data's own, D/2 ln(2 pi e) + 1/2 sum ln s^2."""
    result = ELBO(levels=None)(ctx(optimal(heat()), draws(500, seed=1), draws(1000, seed=2)))
    entropy = 0.5 * (D * math.log(2 * math.pi * math.e) + SPECTRUM.log().sum().item())
    assert entropy + 4 * result.errors["nll_bound_nats"] < result.values["nll_bound_nats"]


def test_the_standard_error_of_the_bound_counts_that_an_images_terms_go_together():
    process, train, test = heat(), draws(1, seed=0), draws(40, seed=1)
    result = ELBO(levels=None)(ctx(blank(process), train, test))
    d = process.gain(process.times).squeeze(1)
    energies = (d * process.basis(test)).square().sum((2, 3)) / (2 * DELTA**2)  # what 0 misses of levels 0 .. K, (40, K + 1)
    last = (d[-1] * process.basis(test - train)).square().sum((1, 2, 3)) / 2
    terms = {"l_first": energies[:, 0], "l_middle": energies[:, 1:K].sum(1), "l_last": last}
    terms["nll_bound"] = energies[:, :K].sum(1) + last
    for name, values in terms.items():
        assert result.errors[f"{name}_nats"] == pytest.approx(values.std().item() / 40**0.5, rel=1e-5), name


def test_batches_and_blocks_and_the_order_of_training_images_change_nothing():
    process, train, test = heat(), draws(2100, seed=1), draws(30, seed=2)
    whole = ELBO(levels=2)(ctx(optimal(process), train, test))
    cut = ELBO(levels=2)(ctx(optimal(process), train.flip(0), test, batch_size=7))
    assert cut.values == pytest.approx(whole.values, rel=1e-6)
    states, centres = (process.mean(u, process.times[-1:].expand(len(u))).flatten(1) for u in (test, train))
    expected = (math.log(2100) - torch.logsumexp(-kls(states, centres), 1)).mean().item()
    assert whole.values["l_last_nats"] == pytest.approx(expected, rel=1e-6)
    assert whole.facts["training images in the prior"] == 2100


def test_the_prior_may_be_wider_than_the_reverse_steps():
    process, train, test = heat(), draws(5, seed=1), draws(4, seed=2)
    wide = optimal(process, prior_std=0.2)
    states, centres = (process.mean(u, process.times[-1:].expand(len(u))).flatten(1) for u in (test, train))
    expected = (math.log(5) - torch.logsumexp(-kls(states, centres, 0.2), 1)).mean().item()
    assert ELBO()(ctx(wide, train, test)).values["l_last_nats"] == pytest.approx(expected, rel=1e-6)


def test_the_prior_of_a_map_that_forgets_everything_costs_its_width_alone():
    process = ConstantVelocity(SHAPE, num_levels=K, sigma=SIGMA)
    result = ELBO()(ctx(lazy(process), draws(7, seed=1), draws(5, seed=2)))
    expected = D * (0.5 * (SIGMA**2 / DELTA**2 - 1) + math.log(DELTA / SIGMA))
    assert result.values["l_last_nats"] == pytest.approx(expected, rel=1e-9)
    assert result.errors["l_last_nats"] < 1e-9


def test_a_single_level_has_no_terms_in_between():
    process = ConstantVelocity(SHAPE, num_levels=1, sigma=SIGMA)
    values = ELBO()(ctx(lazy(process), draws(7, seed=1), draws(5, seed=2))).values
    assert values["l_middle_nats"] == 0
    assert values["nll_bound_nats"] == pytest.approx(values["l_first_nats"] + values["l_last_nats"])


def test_which_images_are_drawn_depends_on_the_seed_and_none_twice():
    test = draws(20, seed=2)
    few = [ELBO()(ctx(lazy(heat()), draws(1, seed=1), test, n=15, seed=seed)).values for seed in (0, 0, 1)]
    assert few[0] == few[1] and few[0]["l_last_nats"] != few[2]["l_last_nats"]
    every, more = (ELBO()(ctx(lazy(heat()), draws(1, seed=1), test, n=n)).values for n in (20, 99))
    assert every == more


def flattened(k, process, images):
    """T_k u of a map that acts on all pixels of its one channel, by its matrix."""
    return images.double().flatten(1) @ process.left[k].T


def test_a_map_without_a_basis_has_the_divergences_of_its_matrices():
    process = RandomMatrix(SHAPE, num_levels=3, sigma=SIGMA, acts_on="channel")
    train, test = draws(30, seed=1).float(), draws(8, seed=2).float()
    result = ELBO(levels=None)(ctx(model(process, lambda u, t, s: torch.zeros_like(u)), train, test))
    middle = [kls(flattened(k - 1, process, test), torch.zeros(1, D).double()).mean().item() for k in (2, 3)]
    assert result.series["l_k"] == pytest.approx(middle, rel=1e-9)
    states, centres = flattened(3, process, test), flattened(3, process, train)
    gaps = (states[:, None] - centres).square().sum(2) / (2 * DELTA**2)
    last = math.log(30) - torch.logsumexp(-gaps, 1) + D * (0.5 * (SIGMA**2 / DELTA**2 - 1) + math.log(DELTA / SIGMA))
    assert result.values["l_last_nats"] == pytest.approx(last.mean().item(), rel=1e-9)
    assert result.errors["l_last_nats"] == pytest.approx(last.std().item() / 8**0.5, rel=1e-9)


# a map that is drawn at random ------------------------------------------------------------------------------------------


def random_velocity(**settings):
    return RandomVelocity(SHAPE, num_levels=K, sigma=SIGMA, slowest=0.4, fastest=1.6, **settings)


def ihd(net, process):
    return IHD(process, net, None, None, parametrisation="direct", delta=DELTA)


def test_the_bound_of_a_random_map_is_given_each_images_own_draw():
    process, train, test = random_velocity(), draws(5, seed=1), draws(24, seed=2)
    measured = ctx(ihd(lambda u, k, told: torch.zeros_like(u), process), train, test, batch_size=7)
    result = ELBO(levels=None)(measured)

    velocity = process.draw(SampleNoise(range(24), 0, "elbo map"))
    gain = (1 - velocity * torch.arange(K + 1) / K).clamp(min=0)  # (24, K + 1)
    forgets = gain[:, K] == 0
    assert 4 < forgets.sum() < 20
    width = D * (0.5 * (SIGMA**2 / DELTA**2 - 1) + math.log(DELTA / SIGMA))
    energy = test.square().sum((1, 2, 3)) / (2 * DELTA**2)
    middle = (gain[:, 1:K] ** 2 * energy[:, None]).mean(0) + width
    assert result.series["l_k"] == pytest.approx(middle.tolist(), rel=1e-5)
    gaps = (test[:, None] - train).square().sum((2, 3, 4)) * gain[:, K:] ** 2 / (2 * DELTA**2)
    last = math.log(5) - torch.logsumexp(-gaps, 1) + width
    assert torch.allclose(last[forgets], torch.tensor(width).double()) and (last[~forgets] > width).all()
    assert result.values["l_last_nats"] == pytest.approx(last.mean().item(), rel=1e-6)
    assert result.errors["l_last_nats"] == pytest.approx(last.std().item() / 24**0.5, rel=1e-5)


def test_the_network_of_a_random_map_is_told_the_draw_of_each_image():
    """All images are equal, so a network that is told T at both ends knows the clean states; it keeps the noise."""
    n, images = 300, torch.full((300, *SHAPE), 0.5)

    def net(u, k, told):
        before, after = (0.5 * column.reshape(-1, 1, 1, 1) for column in told.unbind(1))
        return u - before + after

    values = ELBO(levels=None)(ctx(ihd(net, random_velocity()), images, images)).values
    width = D * (0.5 * (SIGMA**2 / DELTA**2 - 1) + math.log(DELTA / SIGMA))
    kept, error = D * SIGMA**2 / (2 * DELTA**2), (2 * D / n) ** 0.5 * SIGMA**2 / (2 * DELTA**2)
    assert abs(values["l_middle_nats"] - (K - 1) * (width + kept)) < 4 * (K - 1) ** 0.5 * error
    assert abs(values["l_first_nats"] - kept - D * math.log(DELTA * math.sqrt(2 * math.pi))) < 4 * error
    assert values["l_last_nats"] == pytest.approx(width, abs=1e-8)


def test_the_first_step_of_a_random_map_is_as_long_as_each_images_own_draw_makes_it():
    """A model that leaves states as they are misses v u_0 / K and the noise."""
    n, process, images = 400, random_velocity(), torch.full((400, *SHAPE), 0.5)
    found = ELBO(levels=1)(ctx(ihd(lambda u, k, told: u, process), images[:1], images))
    steps = process.draw(SampleNoise(range(n), 0, "elbo map")).flatten() / K * 0.5
    missed = D * (steps.square().mean().item() + SIGMA**2) / (2 * DELTA**2)
    blurred = D * (steps.mean().item() ** 2 + SIGMA**2) / (2 * DELTA**2)  # of the mean velocity
    value = found.values["l_first_nats"] - D * math.log(DELTA * math.sqrt(2 * math.pi))
    error = (D * SIGMA**2 * (2 * SIGMA**2 + 4 * steps.square().mean().item()) / n) ** 0.5 / (2 * DELTA**2)
    assert abs(value - missed) < 4 * error < abs(missed - blurred)


# bytes and bits ---------------------------------------------------------------------------------------------------------


def test_bytes_are_spread_evenly_over_the_unit_interval():
    """Every byte equally often: then u_0 is uniform, of variance 1/12; byte / 255 alone would have 0.0840."""
    images = torch.arange(256, dtype=torch.uint8).reshape(1, 1, 16, 16).expand(20, -1, -1, -1)
    middling = model(ConstantVelocity((1, 16, 16), 2, SIGMA), lambda u, t, s: torch.full_like(u, 0.5), delta=0.5)
    found = ELBO()(byte_subject(middling, images)).values["l_first_nats"]
    variance = (found / 256 - math.log(0.5 * math.sqrt(2 * math.pi))) * 2 * 0.5**2
    assert variance == pytest.approx(1 / 12, abs=5e-5)


def test_bits_are_nats_in_base_two_for_each_pixel_and_eight_more_for_bytes():
    """A uniform density, of 0 nats, is 8 bits a byte."""
    images = torch.randint(0, 256, (9, *SHAPE), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    of_bytes = ELBO()(byte_subject(lazy(heat()), images))
    continuous = ELBO()(ctx(lazy(heat()), draws(9, seed=1), draws(9, seed=2)))
    for result, extra in ((of_bytes, 8), (continuous, 0)):
        for name in ("l_first", "l_middle", "l_last", "nll_bound"):
            bits = result.values[f"{name}_nats"] / (D * math.log(2)) + (extra if name == "nll_bound" else 0)
            assert result.values[name] == pytest.approx(bits, rel=1e-12)
            error = result.errors[f"{name}_nats"] / (D * math.log(2))
            assert result.errors[name] == pytest.approx(error, rel=1e-12)


# refusals ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("broken", "sentence"),
    [
        (None, "needs a run whose model has Gaussian reverse steps"),
        (SimpleNamespace(process=heat()), "needs a run whose model has Gaussian reverse steps"),
        (ihd(None, random_velocity(conditional=False)), r"needs forward\.conditional=true"),
        (lazy(heat(sigma=0)), r"needs forward\.sigma > 0"),
        (
            model(heat(), lambda u, t, s: u, delta=0),
            "needs noise wherever the forward steps have it: delta and prior_std greater than 0",
        ),
        (
            model(heat(), lambda u, t, s: u, prior_std=0),
            "needs noise wherever the forward steps have it: delta and prior_std greater than 0",
        ),
    ],
)
def test_a_model_without_a_bound_is_refused(broken, sentence):
    with pytest.raises(ConfigError, match=sentence):
        ELBO()(ctx(broken, draws(3, seed=1), draws(4, seed=2)))


def test_too_few_evaluations_are_refused():
    wanted = ctx(lazy(Heat(SHAPE, num_levels=12, sigma=SIGMA)), draws(3, seed=1), draws(5, seed=2))
    with pytest.raises(ConfigError, match=r"n x metric\.levels = 10"):
        ELBO(levels=2)(wanted)
    wanted.n = 1
    with pytest.raises(ConfigError, match="n must be"):
        ELBO()(wanted)


def test_one_image_has_no_standard_error_and_is_refused():
    with pytest.raises(ConfigError):
        ELBO()(ctx(lazy(heat()), draws(3, seed=1), draws(1, seed=2)))


# reverse steps of a Markov process ----------------------------------------------------------------------------------------


MARKOV = {  # the mean of heat is seen through the same noise at every level: there is nothing to undo
    "stochastic_heat": (lambda k: StochasticHeat((1, 8, 8), k, end=0.05), "periodic"),
    "heat": (lambda k: Heat((1, 8, 8), k, sigma=0.1, sigma_max=2.0), "neumann"),
}


@pytest.mark.parametrize("name", list(MARKOV))
def test_exact_reverse_steps_make_the_bound_the_likelihood_but_for_the_prior(name):
    """L_1 .. L_0 is E[-log p(u_0)] - E KL(q(u_K | u_0) || p(u_K)), both in closed form, and no K matters."""
    make, boundary = MARKOV[name]
    spec = gaussian((1, 8, 8), boundary, mean=0.5)
    for levels in (2, 6):
        process = make(levels)
        exactly = exact_model(process, spec)
        exactly.bound = lambda noise, model=exactly: model
        u0 = exactly.exactly.prior_sample(SampleNoise(range(300), 0), torch.zeros(300, 1, 8, 8))
        toy = ctx(exactly, u0[:2], u0)
        nats = ELBO(levels=None)(toy).values
        last = process.times[-1:]
        q, v = process.std(last) ** 2, exactly.exactly.variance(last)
        latent = 0.5 * ((q + process.gain(last) ** 2 * spec.spectrum) / v - 1 + (v / q).log()).sum().item()
        surprise = 0.5 * (1 + (2 * math.pi * spec.spectrum).log()).sum().item()
        found, error = nats["l_middle_nats"] + nats["l_first_nats"], math.sqrt(64 / 2 / 300)
        assert found == pytest.approx(surprise - latent, abs=5 * error)


# the best network ---------------------------------------------------------------------------------------------------------


def known_law(process, network, test):
    """Data with SPECTRUM, which they say themselves, and a network."""
    toy = ctx(network, test[:2], test)
    toy.data.spec = DataSpec(SHAPE, bits=None, variances=SPECTRUM[None])
    return toy


def test_the_exact_gap_is_that_of_a_linear_network_in_closed_form():
    """A network that leaves states as they are: (1 - f)^2 (d^2 S + sigma^2) / (2 delta^2) of each mode and level."""
    process, u0 = heat(), draws(3000, seed=2)
    d = process.gain(process.times).squeeze(1)
    seen = d[1:] ** 2 * SPECTRUM + SIGMA**2
    factor = d[1:] * d[:-1] * SPECTRUM / seen
    expected = ((1 - factor) ** 2 * seen / (2 * DELTA**2)).sum((1, 2))
    result = ELBO(levels=None)(known_law(process, lazy(process), u0))
    assert abs(result.values["exact_gap_nats"] - expected.sum()) < 4 * result.errors["exact_gap_nats"]
    assert result.values["exact_gap_nats"] == pytest.approx(expected.sum().item(), rel=0.1)
    assert result.series["exact_gap_k"] == pytest.approx(expected[1:].tolist(), rel=0.1)
    assert ELBO(levels=None)(known_law(process, optimal(process), u0)).values["exact_gap_nats"] < 1e-9
    assert "exact_gap" not in ELBO()(ctx(lazy(process), u0[:2], u0)).values  # no law is known


def test_the_exact_gap_of_a_map_drawn_at_random_is_to_the_network_that_knows_the_draw():
    """The conditional mean by normal equations of each image's own matrix of pixels."""
    process = RandomVelocity(SHAPE, num_levels=K, sigma=SIGMA)
    basis = heat().basis
    pixels = torch.eye(D, dtype=torch.float64).reshape(D, *SHAPE)
    prior = basis(pixels).flatten(1)
    covariance = prior @ torch.diag(SPECTRUM.flatten()) @ prior.mT
    u0, seen = draws(12, seed=2), []

    def network(bound, drawn):
        def mean(u, t, s):
            rows = []
            for i, row in enumerate(drawn):
                own = process.bind(row[None])
                zero, after, before = (
                    own.mean(x, time.expand(len(x))).flatten(1)
                    for x, time in ((0 * pixels, t[i]), (pixels, t[i]), (pixels, s[i]))
                )
                back, forth = (before - zero).mT, (after - zero).mT
                total = forth @ covariance @ forth.mT + SIGMA**2 * torch.eye(D)
                rows.append(back @ covariance @ forth.mT @ torch.linalg.solve(total, u[i].double().flatten()))
            seen.append(len(rows))
            return torch.stack(rows).reshape(-1, *SHAPE)

        return model(bound, mean)

    toy = lazy(process)
    toy.bind = lambda drawn: lazy(process.bind(drawn))

    def bound(noise):
        drawn = process.draw(noise)
        return network(process.bind(drawn), drawn)

    toy.bound = bound
    result = ELBO(levels=None)(known_law(process, toy, u0))
    assert seen and result.values["exact_gap_nats"] == pytest.approx(0, abs=1e-6)
    toy.bound = lambda noise: lazy(process.bind(process.draw(noise)))
    assert ELBO(levels=None)(known_law(process, toy, u0)).values["exact_gap_nats"] > 1
