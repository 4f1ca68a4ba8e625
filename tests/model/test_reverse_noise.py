"""delta of the reverse steps: constant, or measured; on Gaussian images, whose best network is linear, all is closed."""

import math
from types import SimpleNamespace

import pytest
import torch
from conftest import shipped_map
from torch.testing import assert_close

from heatgen.check import ConfigError
from heatgen.forward.heat import Heat
from heatgen.forward.random_velocity import RandomVelocity
from heatgen.forward.variance_exploding import VarianceExploding
from heatgen.model.ihd import IHD
from heatgen.noise import SampleNoise
from heatgen.sampler.ancestral import ancestral

SHAPE = (1, 3, 4)
SIZE = math.prod(SHAPE)
K = 5
SIGMA = 0.1
SPREAD = torch.linspace(0.1, 2, SIZE).double().reshape(SHAPE)  # of each coefficient of an image
GAUSSIAN = ("heat", "constant_velocity", "random_basis_heat", "blurring", "variance_exploding")  # maps to be exact for


def silent(u, k, cond):
    return torch.zeros_like(u)


def make(process, net=silent, **settings):
    return IHD(process, net, ancestral, None, **{"parametrisation": "direct", **settings})


def coefficients(process, k):
    """A(t_k) and L(t_k) over the coefficients."""
    t = process.times[k : k + 1]
    return process.gain(t).double().expand(1, *SHAPE)[0], process.std(t).double().expand(1, *SHAPE)[0]


def shrinkage(process, k):
    """The best mean is this times the state, by coefficient; and its mean square error."""
    (after, noise), (before, _) = coefficients(process, k), coefficients(process, k - 1)
    total = after**2 * SPREAD**2 + noise**2
    return before * after * SPREAD**2 / total, before**2 * SPREAD**2 * noise**2 / total


def best(process):
    """The network that says E[A(t_{k-1}) u_0 | u_k] for these images."""
    factors = torch.stack([torch.zeros_like(SPREAD), *[shrinkage(process, k)[0] for k in range(1, K + 1)]])

    def net(u, k, cond):
        return process.basis.inverse(factors[k.round().long()].to(u) * process.basis(u))

    return net


def gaussian_data(process, n):
    """n validation images, drawn afresh each time; `read` lists those that were looked at."""
    u0 = process.basis.inverse(
        SPREAD * torch.randn(n, *SHAPE, generator=torch.Generator().manual_seed(7), dtype=torch.float64)
    )
    read = []

    def get(split, samples):
        read.extend((split, i) for i in samples)
        return u0[list(samples)]

    return SimpleNamespace(batch_size=128, images=lambda split: range({"val": n}[split]), get=get, read=read)


def named(forward, num_levels=K):
    return shipped_map(
        forward, SHAPE, num_levels, **({} if forward in ("blurring", "variance_exploding") else {"sigma": SIGMA})
    )


def single(process, k):
    return process.times[[k]], process.times[[k - 1]]


# constant ----------------------------------------------------------------------------------------------------------------


def test_by_default_it_is_five_quarters_of_the_noise_that_the_step_leads_to():
    process = VarianceExploding(SHAPE, K, sigma_min=0.01, sigma_max=0.16)  # 0.01, 0.02, 0.04, 0.08, 0.16
    model = make(process)
    deltas = model.reverse_std(process.times[1:], process.times[:-1]).flatten()
    assert deltas.tolist() == pytest.approx([0.0125, 0.0125, 0.025, 0.05, 0.1], rel=1e-12)  # level 0 has none of its own
    assert model.initial_std().item() == pytest.approx(0.2, rel=1e-12)
    assert model.noise_label() == "1.25x"


@pytest.mark.parametrize(("delta", "word"), [(None, "0.125"), (0, "0"), (0.013, "0.013")])
def test_a_constant_is_known_by_its_value(delta, word):
    assert make(Heat(SHAPE, K, SIGMA), delta=delta).noise_label() == word


def test_a_given_delta_is_that_of_all_steps_and_of_the_start_unless_that_has_its_own():
    process = VarianceExploding(SHAPE, K)
    model = make(process, delta=0.3)
    assert model.reverse_std(process.times[1:], process.times[:-1]).flatten().tolist() == [0.3] * K
    assert model.initial_std().item() == 0.3
    assert make(process, delta=0.3, prior_std=0.7).initial_std().item() == 0.7


# measured ----------------------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("forward", GAUSSIAN)
def test_the_measured_errors_are_those_of_the_best_network(forward):
    n, process = 3000, named(forward)
    spectral = make(process, best(process), delta_mode="spectral", calibration_images=n)
    per_step = make(process, best(process), delta_mode="per_step", calibration_images=n)
    spectral.calibrate(gaussian_data(process, n))
    per_step.calibrate(gaussian_data(process, n))
    for k in range(1, K + 1):
        expected = shrinkage(process, k)[1]
        assert ((spectral.errors[k] - expected).abs() <= 5 * math.sqrt(2 / n) * expected + 1e-12).all()
        error = math.sqrt(2 / n) * expected.norm() / SIZE
        assert abs(per_step.errors[k] - expected.mean()) <= 5 * error + 1e-12


@pytest.mark.parametrize("forward", GAUSSIAN)
def test_the_noise_of_a_step_adds_the_measured_error_to_the_noise_it_leads_to(forward):
    process = named(forward)
    total = torch.linspace(0.5, 2, K + 1).double()
    spectral, per_step = make(process, delta_mode="spectral"), make(process, delta_mode="per_step")
    spectral.errors = total.reshape(-1, 1, 1, 1) * SPREAD
    per_step.errors = spectral.errors.mean((1, 2, 3), keepdim=True)
    for k in range(1, K + 1):
        noise = coefficients(process, max(k - 1, 1))[1] ** 2
        t, s = single(process, k)
        variance = spectral.reverse_std(t, s).expand(1, *SHAPE)[0] ** 2
        assert_close(variance, noise + total[k] * SPREAD, atol=0, rtol=1e-12)
        variance = per_step.reverse_std(t, s).expand(1, *SHAPE)[0] ** 2
        assert_close(variance, noise + total[k] * SPREAD.sum() / SIZE, atol=0, rtol=1e-12)


@pytest.mark.parametrize("forward", GAUSSIAN)
def test_spectral_noise_reproduces_the_variance_of_every_level(forward):
    process = named(forward)
    model = make(process, delta_mode="spectral")
    model.errors = torch.stack([torch.zeros_like(SPREAD), *[shrinkage(process, k)[1] for k in range(1, K + 1)]])
    last, noise = coefficients(process, K)
    variance = last**2 * SPREAD**2 + noise**2
    assert_close(model.initial_std().double().expand(1, *SHAPE)[0], noise, atol=0, rtol=1e-7)  # the prior's own
    for k in range(K, 1, -1):
        t, s = single(process, k)
        variance = shrinkage(process, k)[0] ** 2 * variance + model.reverse_std(t, s).expand(1, *SHAPE)[0] ** 2
        gain, noise = coefficients(process, k - 1)
        assert_close(variance, gain**2 * SPREAD**2 + noise**2, atol=0, rtol=1e-10)
    factor, error = shrinkage(process, 1)
    assert_close(factor**2 * variance, SPREAD**2 - error, atol=1e-12, rtol=1e-10)  # the last step adds no noise


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["constant", "per_step", "spectral"])
def test_samples_have_the_variance_of_their_recursion(mode):
    n, process, states = 6000, named("heat"), {}
    model = make(process, best(process), delta_mode=mode, calibration_images=500)
    model.calibrate(gaussian_data(process, 500))
    noise = SampleNoise(range(n), 3)
    u_last = model.initial_state(gaussian_data(process, n).get("val", range(n)), noise)
    model.generate(u_last, noise, lambda k, u: states.update({k: u}))
    variance = (process.gain(process.times[-1:])[0] * SPREAD) ** 2 + model.initial_std().double()[0] ** 2
    for k in range(K, 0, -1):
        step = model.reverse_std(*single(process, k)).expand(1, *SHAPE)[0] ** 2 if k > 1 else 0
        variance = shrinkage(process, k)[0] ** 2 * variance + step
        measured = process.basis(states[k - 1]).var(0)
        assert ((measured - variance).abs() < 5 * math.sqrt(2 / n) * variance).all()


def test_a_random_map_is_measured_over_its_draws():
    n, spread = 4000, 0.5
    process = RandomVelocity(SHAPE, K, SIGMA, slowest=0.2, fastest=1.2)

    def net(u, k, cond):
        after, before = (column.reshape(-1, 1, 1, 1) for column in cond.unbind(1))
        return before * after * spread**2 / (after**2 * spread**2 + SIGMA**2) * u

    images = spread * torch.randn(n, *SHAPE, generator=torch.Generator().manual_seed(7), dtype=torch.float64)
    data = SimpleNamespace(batch_size=128, images=lambda split: images, get=lambda split, samples: images[list(samples)])
    model = make(process, net, delta_mode="per_step", calibration_images=n)
    model.calibrate(data)
    v = torch.linspace(0.2, 1.2, 10001).double()
    for k in range(1, K + 1):
        after, before = (1 - v * k / K).clamp(min=0), (1 - v * (k - 1) / K).clamp(min=0)
        expected = (before**2 * spread**2 * SIGMA**2 / (after**2 * spread**2 + SIGMA**2)).mean().item()
        assert model.errors[k].item() == pytest.approx(expected, rel=0.1)
    assert process.velocity.tolist() == [[0.7]]


def test_measuring_takes_the_first_validation_images_and_leaves_the_rest():
    process = Heat(SHAPE, K, SIGMA)
    for wanted, n in ((4, 4), (300, 30)):
        data = gaussian_data(process, 30)
        make(process, best(process), delta_mode="per_step", calibration_images=wanted).calibrate(data)
        assert data.read == [("val", i) for i in range(n)]


def test_a_measurement_is_the_same_each_time():
    process = Heat(SHAPE, K, SIGMA)
    errors = []
    for seed in (0, 0, 1):
        model = make(process, best(process), delta_mode="spectral", seed=seed)
        for _ in range(2):
            model.calibrate(gaussian_data(process, 20))
        errors.append(model.errors)
    assert torch.equal(errors[0], errors[1]) and not torch.equal(errors[0], errors[2])


def test_a_constant_needs_no_measurement():
    model = make(Heat(SHAPE, K, SIGMA))
    model.calibrate(None)
    assert model.errors is None


@pytest.mark.parametrize("mode", ["per_step", "spectral"])
def test_measured_noise_is_known_by_its_mode_and_starts_from_the_noise_of_the_last_level(mode):
    model = make(VarianceExploding(SHAPE, K, sigma_max=3.0), delta_mode=mode)
    assert model.noise_label() == mode
    assert model.initial_std().item() == pytest.approx(3.0, rel=1e-12)
    assert make(Heat(SHAPE, K, SIGMA), delta_mode=mode, prior_std=0.4).initial_std().item() == 0.4


@pytest.mark.parametrize("mode", ["per_step", "spectral"])
def test_the_measured_error_of_u0_is_told_for_steps_of_any_length(mode):
    n, process = 2000, Heat(SHAPE, K, SIGMA)

    def shrinkage_of_u0(t):
        return process.gain(t).double() * SPREAD**2 / (process.gain(t).double() ** 2 * SPREAD**2 + SIGMA**2)

    def net(u, k, cond=None):
        return process.basis.inverse(shrinkage_of_u0(process.time_of(k)) * process.basis(u))

    model = make(process, net, parametrisation="x0", levels="continuous", delta_mode=mode, calibration_images=n)
    with pytest.raises(AssertionError, match="call calibrate"):
        model.reverse_std(*single(process, 2))
    model.calibrate(gaussian_data(process, n))
    for level, end in ((4.0, 2.0), (3.0, 0.5), (5.5, 5.0)):
        t, s = (process.time_of(torch.tensor([each], dtype=torch.float64)) for each in (level, end))
        model.check_steps(t, s)
        after, before = process.gain(t).double(), process.gain(s).double()
        error = before**2 * SPREAD**2 * SIGMA**2 / (after**2 * SPREAD**2 + SIGMA**2)
        error = error if mode == "spectral" else error.mean((1, 2, 3), keepdim=True)
        found = model.reverse_std(t, s) ** 2 - SIGMA**2
        assert found.shape == error.shape
        assert ((found - error).abs() <= (5 * math.sqrt(2 / n) + (0.1 if level % 1 else 0)) * error + 1e-12).all()
    assert make(process, parametrisation="x0").reverse_std(process.times[[4]], process.times[[2]]).item() == 1.25 * SIGMA


def test_a_wrong_value_is_refused_by_key_and_fix():
    for words, settings in (
        ("model.delta_mode=per_step.*remove delta", {"delta_mode": "per_step", "delta": 0.1}),
        ("model.delta_mode=spectral.*remove delta", {"delta_mode": "spectral", "delta": 0.1}),
        ("model.delta_mode.*did you mean per_step", {"delta_mode": "perstep"}),
        ("model.calibration_images", {"calibration_images": 0}),
    ):
        with pytest.raises(ConfigError, match=words):
            make(Heat(SHAPE, K, SIGMA), **settings)
