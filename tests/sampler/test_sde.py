"""sampler=sde with the exact score: its law by mode, propagated exactly, against that of the data."""

import pytest
import torch
from gaussian_toys import end_law, exact_model, gaussian, normal, orders, wave_numbers
from torch.testing import assert_close

from heatgen.check import ConfigError
from heatgen.forward.heat import Heat
from heatgen.sampler.sde import sde

MODEL = exact_model(mean=0.5)
LEVELS = MODEL.process.times
S, V = MODEL.exactly.spectrum, MODEL.exactly.variance(LEVELS[-1:])[0]


def variance(substeps):
    """The variance of u_0 where u_K has that of the forward process."""
    gain, noise = end_law(sde, MODEL, LEVELS, 8 * substeps, substeps=substeps)
    return gain[0] ** 2 * V + noise[0]


def test_the_variance_and_the_mean_converge_with_first_order():
    posterior = S * MODEL.process.gain(LEVELS[-1:])[0] / V
    laws = [end_law(sde, MODEL, LEVELS, 8 * n, substeps=n) for n in (4, 8, 16)]
    spread = [gain[0] ** 2 * V + noise[0] - S for gain, noise in laws]
    shift = [gain[0] - posterior for gain, _ in laws]
    assert (spread[-1] / S).abs().max() < 0.5
    smooth = (wave_numbers(8, 8) <= 4)[None].clone()
    last = orders([error[smooth] for error in spread])[-1]
    assert_close(last, torch.ones_like(last), atol=0.1, rtol=0)
    smooth[0, 0, 0] = False
    last = orders([error[smooth] for error in shift])[-1]
    assert_close(last, torch.ones_like(last), atol=0.1, rtol=0)


def test_the_law_of_each_step_is_the_recursion_of_the_reverse_equation():
    gain, noise = end_law(sde, MODEL, LEVELS, 8)
    m, q = torch.ones(1, 8, 8, dtype=torch.float64), torch.zeros(1, 8, 8, dtype=torch.float64)
    for k in range(8, 0, -1):
        t, s = LEVELS[k : k + 1], LEVELS[k - 1 : k]
        a = (-wave_numbers(8, 8) * 0.025).exp()
        q2 = MODEL.process.step_std(s, t)[0] ** 2
        factor = (2 - a) * (1 - q2 / MODEL.exactly.variance(t)[0])
        m, q = factor * m, factor**2 * q + (q2 if k > 1 else 0)
        assert_close(gain[k - 1], m, atol=1e-12, rtol=1e-9)
        assert_close(noise[k - 1], q, atol=1e-12, rtol=1e-9)


def test_samples_have_the_spectrum_of_the_data():
    n, basis = 800, MODEL.exactly.basis
    u = basis.inverse(V.sqrt() * torch.randn(n, 1, 8, 8, generator=torch.Generator().manual_seed(1), dtype=torch.float64))
    c = basis(sde(MODEL, u, LEVELS, normal(2), substeps=4))
    expected = variance(4)
    z = (c.square().mean(0) / expected - 1) / (2 / n) ** 0.5
    assert z.abs().max() < 4.5 and z.square().mean().item() < 1 + 6 * (2 / 64) ** 0.5
    assert (expected / S - 1).abs()[:, :3, :3].max() < 0.3


def test_under_a_map_that_is_not_diagonal_in_the_basis_of_the_data_it_is_the_recursion_of_matrices():
    process = Heat((1, 6, 6), 3, sigma=0.3, sigma_max=1.0)
    model = exact_model(process, gaussian((1, 6, 6), mean=0.5))
    assert not model.exactly.diagonal
    one = torch.eye(36, dtype=torch.float64)
    pixels = one.reshape(36, 1, 6, 6)
    prior = model.exactly.basis.inverse(model.exactly.spectrum * model.exactly.basis(pixels)).flatten(1)
    u = torch.randn(2, 1, 6, 6, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    white, x = normal(5), u.flatten(1).mT
    for k in (3, 2, 1):
        t, s = process.times[k : k + 1], process.times[k - 1 : k]
        gain = process.mean(pixels, t).flatten(1).mT
        back = one - process.increment(pixels, s, t).flatten(1).mT
        q = process.scale_coefficients(pixels, process.step_std(s, t)).flatten(1).mT
        total = gain @ prior @ gain.mT + 0.09 * one
        x = back @ (x - q @ q @ torch.linalg.solve(total, x))
        if k > 1:
            x = x + q @ white.normal_like(u).flatten(1).mT
    out = sde(model, u, process.times, normal(5))
    assert_close(out, x.mT.reshape(u.shape), atol=1e-9, rtol=0)


def test_its_noise_is_scaled_and_refused_below_0():
    model = exact_model()
    laws = {noise: end_law(sde, model, model.process.times, 64, noise_scale=noise) for noise in (0.0, 1.0, 2.0)}
    assert not laws[0.0][1][0].any() and laws[1.0][1][0].any()
    assert torch.allclose(laws[2.0][1][0], 4 * laws[1.0][1][0])
    assert all(torch.equal(law[0][0], laws[1.0][0][0]) for law in laws.values())
    with pytest.raises(ConfigError, match=r"sampler\.noise_scale must"):
        sde(model, torch.zeros(1, 1, 8, 8), model.process.times, noise_scale=-1.0)
