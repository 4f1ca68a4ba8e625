"""sampler.churn of sampler=heun: the law of the states stays the map's own, whatever the map."""

import math

import pytest
import torch
from conftest import shipped_map
from gaussian_toys import end_law, exact_model, gaussian, normal
from torch.testing import assert_close

from heatgen.check import ConfigError
from heatgen.forward.kinematics import Kinematics
from heatgen.forward.noise_level import noise_to_signal
from heatgen.forward.random_matrix import RandomMatrix
from heatgen.forward.random_velocity import RandomVelocity
from heatgen.noise import SampleNoise
from heatgen.sampler.heun import heun

SHAPE = (1, 8, 8)
MAPS = ["variance_exploding", "flow", "blurring", "stochastic_heat"]


def model_of(name, num_levels=6, **options):
    boundary = "periodic" if name == "stochastic_heat" else "neumann"
    return exact_model(shipped_map(name, SHAPE, num_levels, **options), gaussian(SHAPE, boundary, mean=0.5))


def fields(n=2, **kind):
    return normal(1).normal_like(torch.zeros(n, *SHAPE, **({"dtype": torch.float64} | kind)))


@pytest.mark.parametrize("name", MAPS)
@pytest.mark.parametrize("options", [{}, {"substeps": 2, "order": 1}])
def test_the_states_of_a_single_point_keep_the_noise_of_the_map_exactly(name, options):
    """For u_0 = 0 the flow is L(s) / L(t), without an error, so that any step that is wrong shows: u_k ~ N(0, L_k^2)."""
    model = model_of(name)
    model.denoise = lambda u, t: torch.zeros_like(u)
    times = model.process.times
    gain, noise = end_law(heun, model, times, 12, churn=3.0, **options)
    start = model.process.std(times[-1:]).expand(1, *SHAPE)[0] ** 2
    assert max(variance.max() for variance in noise.values()) > 1e-4  # churn put something in
    for k in range(1, 6):
        expected = (model.process.std(times[k : k + 1]) ** 2).expand(1, *SHAPE)[0]
        assert_close(gain[k] ** 2 * start + noise[k], expected, atol=1e-9, rtol=1e-6)


def test_its_first_steps_go_up_as_far_as_the_paper_says_in_the_band_and_not_beyond_the_last_level():
    process = shipped_map("edm", SHAPE, 20)
    t = process.times[1:].flip(0)
    sigma = noise_to_signal(process, t)
    low, high = sigma[15].item() * 0.99, sigma[5].item() * 1.01
    for gamma in (0.1, math.sqrt(2) - 1):
        up = process.raised(t, 1 + gamma, low, high)
        assert [time is not None for time in up] == [5 <= i <= 15 for i in range(20)]
        ratio = noise_to_signal(process, torch.stack(up[5:16])) / sigma[5:16]
        assert_close(ratio, torch.full_like(ratio, 1 + gamma), atol=1e-9, rtol=0)
    process = shipped_map("edm", SHAPE, 200)
    up = process.raised(process.times[1:].flip(0), math.sqrt(2), 0.0, math.inf)
    assert up[0] is None and up[1].item() == process.times[-1]


def test_the_noise_is_that_of_the_generator_and_there_is_none_without_churn():
    model, u = model_of("flow"), fields(4)
    times = model.process.times
    plain = heun(model, u, times)
    assert torch.equal(heun(model, u, times, normal(1), churn_noise=1.01, churn_min=0.1, churn_max=2.0), plain)
    whole, other = (heun(model, u, times, SampleNoise(range(4), seed, "test"), churn=3.0) for seed in (0, 1))
    part = heun(model, u[1:3], times, SampleNoise([1, 2], 0, "test"), churn=3.0)
    assert_close(part, whole[1:3], atol=1e-9, rtol=0)
    assert not torch.isclose(whole, other).any() and not torch.isclose(whole, plain).any()
    assert heun(model, fields(dtype=torch.float32), times, churn=3.0).dtype == torch.float32


def test_more_noise_than_the_maps_own_makes_more_of_everything():
    model = model_of("variance_exploding")
    spread = [end_law(heun, model, model.process.times, 6, churn=3.0, churn_noise=n)[1][0].sum() for n in (0.9, 1.0, 1.1)]
    assert spread[0] < spread[1] < spread[2]


@pytest.mark.parametrize(
    ("options", "key"),
    [
        ({"churn": -1.0}, r"sampler\.churn must"),
        ({"churn": math.inf}, r"sampler\.churn must"),
        ({"churn_min": -0.1}, r"sampler\.churn_min must"),
        ({"churn_min": 2.0, "churn_max": 1.0}, r"sampler\.churn_max must be a number of at least 2"),
        ({"churn": 1.0, "churn_min": 1e6}, r"sampler\.churn acts in no step; choose"),
        ({"churn_noise": "much"}, r"sampler\.churn_noise must"),
    ],
)
def test_a_wrong_value_is_refused_by_the_name_of_its_key(options, key):
    model = model_of("flow")
    with pytest.raises(ConfigError, match=f"^{key}"):
        heun(model, fields(), model.process.times, **options)


@pytest.mark.parametrize("process", [Kinematics(SHAPE, 4), RandomMatrix(SHAPE, 3, 0.3), RandomVelocity(SHAPE, 4)])
def test_a_map_without_noisy_steps_is_refused(process):
    process = process.bind(process.draw(SampleNoise(range(2), 0, "test")))
    with pytest.raises(ConfigError, match=rf"^sampler\.churn needs .*forward={process.name} lacks; use 0\.$"):
        process.raised(process.times[1:], 1.1, 0.0, math.inf)
