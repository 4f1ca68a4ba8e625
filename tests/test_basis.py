"""The bases against SciPy, the FFT and a stencil: orthonormal, diagonal where promised, exact whatever autocast says."""

import numpy as np
import pytest
import scipy.fft
import torch
from torch.testing import assert_close

from heatgen.basis import (
    Cosine,
    Fourier,
    Orthogonal,
    Pixel,
    Separable,
    cosine_matrix,
    haar_rotation,
    neumann_eigenvalues,
    second_difference,
    stencil_eigenvalues,
)

SIZES = [(28, 28), (32, 32), (33, 33), (64, 64), (20, 33)]
BASES = {
    "pixel": lambda height, width: Pixel(),
    "cosine": Cosine,
    "fourier": Fourier,
    "orthogonal": lambda height, width: Orthogonal(rotation(height * width)),
    "separable": lambda height, width: Separable(rotation(height), rotation(width, seed=4)),
}


def rotation(size, seed=3):
    return haar_rotation(torch.randn(size, size, generator=torch.Generator().manual_seed(seed), dtype=torch.float64))


def field(height, width, dtype=torch.float64):
    return torch.randn(2, 3, height, width, generator=torch.Generator().manual_seed(0), dtype=dtype)


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 1e-5)])
def test_cosine_is_the_orthonormal_dct_of_scipy(dtype, tolerance):
    for size in SIZES:
        u = field(*size, dtype)
        expected = torch.from_numpy(scipy.fft.dctn(u.double().numpy(), type=2, norm="ortho", axes=(-2, -1)))
        assert_close(Cosine(*size)(u), expected.to(dtype), atol=tolerance, rtol=0)


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 1e-5)])
def test_cosine_inverse_is_the_idct_of_scipy(dtype, tolerance):
    for size in SIZES:
        c = field(*size, dtype)
        expected = torch.from_numpy(scipy.fft.idctn(c.double().numpy(), type=2, norm="ortho", axes=(-2, -1)))
        assert_close(Cosine(*size).inverse(c), expected.to(dtype), atol=tolerance, rtol=0)


@pytest.mark.parametrize("name", BASES)
def test_a_basis_keeps_energy_and_inner_products_and_inverts(name):
    for size in [(16, 16), (9, 14), (7, 5)]:
        basis, u = BASES[name](*size), field(*size)
        c = basis(u)
        assert_close((c[0] * c[1]).sum((-2, -1)), (u[0] * u[1]).sum((-2, -1)), atol=1e-11, rtol=0)
        assert_close(c.square().sum((-2, -1)), u.square().sum((-2, -1)), atol=1e-11, rtol=0)
        assert_close(basis.inverse(c), u, atol=1e-12, rtol=0)
        assert_close(basis(basis.inverse(u)), u, atol=1e-12, rtol=0)


def test_fourier_is_its_own_inverse_and_not_the_identity():
    for size in [(16, 16), (9, 14), (7, 5)]:
        basis, u = Fourier(*size), field(*size)
        assert_close(basis(basis(u)), u, atol=1e-12, rtol=0)
        assert (basis(u) - u).abs().max() > 0.1


def test_fourier_coefficients_are_sums_over_cosine_plus_sine():
    size = (4, 5)
    grid = torch.cartesian_prod(*[torch.arange(n).double() / n for n in size])
    waves = torch.cartesian_prod(*[torch.arange(n).double() for n in size])
    angles = 2 * torch.pi * waves @ grid.mT
    expected = (angles.cos() + angles.sin()) @ field(*size).flatten(-2)[..., None] / 20**0.5
    assert_close(Fourier(*size)(field(*size)).flatten(-2), expected.squeeze(-1), atol=1e-12, rtol=0)


def test_fourier_carries_the_periodic_heat_semigroup_of_the_fft():
    for size in [(16, 16), (9, 14), (7, 5)]:
        basis, u, t = Fourier(*size), field(*size), 0.7
        y, x = np.meshgrid(np.fft.fftfreq(size[0]), np.fft.fftfreq(size[1]), indexing="ij")
        multiplier = np.exp(-4 * np.pi**2 * (y**2 + x**2) * t)
        expected = torch.from_numpy(np.fft.ifft2(multiplier * np.fft.fft2(u.numpy())).real)
        assert_close(basis.inverse((-basis.eigenvalues * t).exp() * basis(u)), expected, atol=1e-12, rtol=0)


def test_fourier_diagonalises_the_periodic_five_point_stencil():
    for size in [(16, 16), (9, 14), (7, 5)]:
        basis, u = Fourier(*size), field(*size)
        laplacian = sum(u.roll(shift, axis) for shift in (1, -1) for axis in (-1, -2)) - 4 * u
        y, x = torch.meshgrid(*[2 * torch.pi * torch.arange(n, dtype=torch.float64) / n for n in size], indexing="ij")
        assert_close(basis(laplacian), (2 * y.cos() + 2 * x.cos() - 4) * basis(u), atol=1e-12, rtol=0)


def test_the_cosines_are_the_waves_of_the_difference_stencil_with_edges_replicated():
    for size in (1, 2, 7, 16):
        u = torch.eye(size, dtype=torch.float64)
        padded = torch.cat([u[:, :1], u, u[:, -1:]], 1)
        minus_laplacian = -padded.diff(n=2, dim=1)
        spectrum = cosine_matrix(size) @ minus_laplacian @ cosine_matrix(size).mT
        assert_close(spectrum, torch.diag(second_difference(size)), atol=1e-13, rtol=0)
    k, long_waves = stencil_eigenvalues(6, 9), neumann_eigenvalues(600, 900)[:6, :9]
    assert_close(k[2, 3], second_difference(6)[2] + second_difference(9)[3], atol=1e-15, rtol=0)
    assert_close(stencil_eigenvalues(600, 900)[:6, :9], long_waves, atol=0, rtol=1e-3)


@pytest.mark.parametrize("waves", [(0, 1), (3, 2), (-2, 1), (4, -3)])
def test_a_plane_wave_has_the_fourier_eigenvalue_of_its_frequency(waves):
    height, width = 9, 14
    basis = Fourier(height, width)
    i, j = torch.meshgrid(torch.arange(height).double(), torch.arange(width).double(), indexing="ij")
    wave = (2 * torch.pi * (waves[0] * i / height + waves[1] * j / width) + 0.4).cos()[None, None]
    eigenvalue = 4 * torch.pi**2 * ((waves[0] / height) ** 2 + (waves[1] / width) ** 2)
    assert_close(basis.inverse(basis.eigenvalues * basis(wave)), eigenvalue * wave, atol=1e-12, rtol=0)


def test_orthogonal_analyses_with_the_transpose_of_its_matrix():
    matrix, u = rotation(12), field(3, 4)
    expected = torch.einsum("pq,bcp->bcq", matrix, u.flatten(-2)).reshape(u.shape)
    assert_close(Orthogonal(matrix)(u), expected, atol=1e-13, rtol=0)


def test_separable_turns_columns_by_its_first_matrix_and_rows_by_its_second():
    rows, columns, u = rotation(3), rotation(4, seed=4), field(3, 4)
    expected = torch.einsum("hi,wj,bcij->bchw", rows, columns, u)
    assert_close(Separable(rows, columns)(u), expected, atol=1e-13, rtol=0)


@pytest.mark.parametrize("drawn", [False, True])
def test_separable_keeps_its_matrices_in_the_checkpoint_if_they_were_drawn(drawn):
    basis = Separable(rotation(3), rotation(4, seed=4), persistent=drawn)
    assert set(basis.state_dict()) == ({"rows", "columns"} if drawn else set())
    assert set(dict(basis.named_buffers())) == {"rows", "columns"}


@pytest.mark.parametrize(
    "matrix",
    [torch.eye(6)[:, :5], torch.eye(6)[:5], 1.001 * torch.eye(6), torch.ones(6, 6), torch.full((6, 6), torch.nan)],
    ids=["tall", "wide", "scaled", "singular", "nan"],
)
def test_orthogonal_refuses_a_matrix_that_is_not(matrix):
    with pytest.raises(ValueError, match="Q\\^T Q = I"):
        Orthogonal(matrix)


@pytest.mark.parametrize("size", [1, 2, 17, 60])
def test_haar_rotations_are_orthogonal_and_follow_the_seed(size):
    matrix = rotation(size)
    assert_close(matrix.mT @ matrix, torch.eye(size, dtype=torch.float64), atol=1e-13, rtol=0)
    assert torch.equal(matrix, rotation(size))
    assert size == 1 or not torch.allclose(matrix, rotation(size, seed=4))


def test_haar_rotations_have_no_preferred_sign_or_direction():
    generator = torch.Generator().manual_seed(0)
    draws = torch.stack([haar_rotation(torch.randn(3, 3, generator=generator, dtype=torch.float64)) for _ in range(400)])
    assert_close(draws.mean(0), torch.zeros(3, 3).double(), atol=4 / (3 * 400) ** 0.5, rtol=0)
    error = 4 * (4 / 45 / 400) ** 0.5  # the variance of a squared coordinate on the sphere is 2(n-1) / (n^2 (n+2))
    assert_close(draws.square().mean(0), torch.full((3, 3), 1 / 3).double(), atol=error, rtol=0)


@pytest.mark.parametrize("name", BASES)
def test_a_basis_works_in_float32_inside_autocast(name):
    for direction in ["forward", "inverse"]:
        basis, u = BASES[name](9, 14), field(9, 14, torch.float32)
        plain = getattr(basis, direction)(u)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            cast = getattr(basis, direction)(u)
        assert cast.dtype == torch.float32
        assert torch.equal(cast, plain)
