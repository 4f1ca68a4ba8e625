"""Orthonormal bases in which a forward process is diagonal.

A basis turns fields (B, C, H, W) into real coefficients of the same shape and back, and loses nothing on the way:
inverse(forward(u)) = u and |forward(u)| = |u|. H and W are separate everywhere. Computed in float32, or float64 where
the input is, with autocast off.
"""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn


def upcast(u: Tensor) -> Tensor:
    """u in float32, or as it is if it is float64."""
    return u if u.dtype == torch.float64 else u.float()


@contextmanager
def exact(device: torch.device) -> Iterator[None]:
    """float32 and float64 as they are written, whatever `trainer.precision` says: no autocast, and no TensorFloat-32.

    With TensorFloat-32 a blur is off by 1e-3, a tenth of the noise of a level.
    """
    with torch.autocast(device.type, enabled=False):
        if device.type != "cuda":
            yield
            return
        backends: list[object] = [torch.backends.cuda.matmul, getattr(torch.backends.cudnn, "conv", torch.backends.cudnn)]
        new = backends[1] is not torch.backends.cudnn  # PyTorch from 2.9 on
        key, off = ("fp32_precision", "ieee") if new else ("allow_tf32", False)
        before = [getattr(backend, key) for backend in backends]
        try:
            for backend in backends:
                setattr(backend, key, off)
            yield
        finally:
            for backend, value in zip(backends, before, strict=True):
                setattr(backend, key, value)


class Basis(nn.Module):
    """An orthonormal change of basis; `forward` analyses a field, `inverse` synthesises it again.

    Args:
        eigenvalues: minus the Laplacian of each coefficient, (H, W) float64 in 1/pixel^2; None: the basis has no waves.
    """

    eigenvalues: Tensor | None

    if TYPE_CHECKING:  # nn.Module's own is untyped

        def __call__(self, u: Tensor) -> Tensor: ...

    def __init__(self, eigenvalues: Tensor | None = None):
        super().__init__()
        self.register_buffer("eigenvalues", eigenvalues, persistent=False)

    def forward(self, u: Tensor) -> Tensor:
        """Coefficients of the field u, (B, C, H, W) -> (B, C, H, W)."""
        raise NotImplementedError

    def inverse(self, c: Tensor) -> Tensor:
        """The field with coefficients c, (B, C, H, W) -> (B, C, H, W)."""
        raise NotImplementedError


class Pixel(Basis):
    """The field itself: c = u, of any size."""

    def __init__(self, height: int | None = None, width: int | None = None):
        super().__init__()

    def forward(self, u: Tensor) -> Tensor:
        return u

    def inverse(self, c: Tensor) -> Tensor:
        return c


def cosine_waves(size: int, dtype: torch.dtype = torch.float64) -> Tensor:
    """The waves of N pixels between insulating walls, not normalised: cos(pi n (i + 1/2) / N) in row n; (N, N)."""
    n = torch.arange(size, dtype=dtype)
    return torch.cos(math.pi * n[:, None] * (n + 0.5) / size)


def cosine_matrix(size: int) -> Tensor:
    """The orthonormal DCT-II matrix, (N, N) float64: row n holds sqrt((2 - [n=0])/N) cos(pi n (i + 1/2) / N)."""
    matrix = cosine_waves(size) * math.sqrt(2 / size)
    matrix[0] /= math.sqrt(2)
    return matrix


def neumann_eigenvalues(height: int, width: int) -> Tensor:
    """Minus the Laplacian with insulating walls, by cosine mode: pi^2 (n^2/H^2 + m^2/W^2) in 1/pixel^2, (H, W) float64."""
    n = torch.arange(height, dtype=torch.float64)[:, None] / height
    m = torch.arange(width, dtype=torch.float64)[None, :] / width
    return math.pi**2 * (n**2 + m**2)


def second_difference(size: int, dtype: torch.dtype = torch.float64) -> Tensor:
    """Minus the second difference of N pixels with edges replicated, by cosine mode: 2 - 2 cos(pi n / N); (N,)."""
    return 2 - 2 * torch.cos(math.pi * torch.arange(size, dtype=dtype) / size)


def stencil_eigenvalues(height: int, width: int) -> Tensor:
    """Minus the five-point Laplacian with edges replicated, by cosine mode, in 1/pixel^2; (H, W) float64.

    (2 - 2 cos(pi n / H)) + (2 - 2 cos(pi m / W)), which tends to `neumann_eigenvalues` for long waves.
    """
    return second_difference(height)[:, None] + second_difference(width)[None, :]


class Separable(Basis):
    """One orthonormal basis for columns of pixels and one for rows, c = R u S^T: two matrix products.

    Args:
        rows: R, (H, H), orthogonal.
        columns: S, (W, W), orthogonal.
        persistent: whether they must be kept in the checkpoint.
        eigenvalues: see `Basis`.
    """

    rows: Tensor
    columns: Tensor

    def __init__(self, rows: Tensor, columns: Tensor, persistent: bool = False, eigenvalues: Tensor | None = None):
        super().__init__(eigenvalues)
        self.register_buffer("rows", rows.double(), persistent=persistent)
        self.register_buffer("columns", columns.double(), persistent=persistent)

    def forward(self, u: Tensor) -> Tensor:
        u = upcast(u)
        with exact(u.device):
            return self.rows.to(u) @ u @ self.columns.to(u).mT

    def inverse(self, c: Tensor) -> Tensor:
        c = upcast(c)
        with exact(c.device):
            return self.rows.to(c).mT @ c @ self.columns.to(c)


class Cosine(Separable):
    """The two-dimensional orthonormal DCT-II, c = D_H u D_W^T, which diagonalises Neumann (insulating) walls.

    Two matrix products: as exact as an FFT and faster at the sizes of images.
    Source: Rissanen et al. 2023, eq. 2 and Algorithm 3.
    """

    def __init__(self, height: int, width: int):
        waves = neumann_eigenvalues(height, width)
        super().__init__(cosine_matrix(height), cosine_matrix(width), eigenvalues=waves)


class Fourier(Basis):
    """The real Fourier (Hartley) basis, c = Re F u - Im F u with the unitary FFT F, which diagonalises periodic walls.

    It holds the same waves as the FFT in real, orthonormal form, so every symmetric periodic operator is diagonal in
    it, no mode is counted twice, and it is its own inverse.
    Units: `eigenvalues` are those of minus the Laplacian, 4 pi^2 (f_y^2 + f_x^2) with f in cycles/pixel.
    Source: Bracewell, The Hartley Transform (1986).
    """

    def __init__(self, height: int, width: int):
        y = torch.fft.fftfreq(height, dtype=torch.float64)[:, None]
        x = torch.fft.fftfreq(width, dtype=torch.float64)[None, :]
        super().__init__(4 * math.pi**2 * (y**2 + x**2))

    def forward(self, u: Tensor) -> Tensor:
        u = upcast(u)
        with exact(u.device):
            waves = torch.fft.fft2(u, norm="ortho")
        hartley: Tensor = waves.real - waves.imag
        return hartley

    def inverse(self, c: Tensor) -> Tensor:
        return self.forward(c)


class Orthogonal(Basis):
    """Any rotation Q of each channel's H*W pixels, c = Q^T u (flattened row by row); the matrix is in the checkpoint.

    Args:
        matrix: Q, (H*W, H*W).
    Raises:
        ValueError: unless Q^T Q = I to 1e-6.
    """

    matrix: Tensor

    def __init__(self, matrix: Tensor):
        super().__init__()
        matrix = matrix.double()
        identity = torch.eye(len(matrix), dtype=torch.float64)
        if matrix.shape != identity.shape or not (matrix.mT @ matrix - identity).abs().max() <= 1e-6:  # also for NaN
            raise ValueError("The matrix of an orthogonal basis must be square with Q^T Q = I.")
        self.register_buffer("matrix", matrix)

    def forward(self, u: Tensor) -> Tensor:
        return self._apply_rows(u, self.matrix.mT)

    def inverse(self, c: Tensor) -> Tensor:
        return self._apply_rows(c, self.matrix)

    def _apply_rows(self, u: Tensor, matrix: Tensor) -> Tensor:
        u = upcast(u)
        with exact(u.device):
            return (u.flatten(-2) @ matrix.to(u).mT).reshape(u.shape)


def haar_rotation(gaussian: Tensor) -> Tensor:
    """An orthogonal matrix drawn uniformly (Haar): QR of a square matrix of N(0, 1) numbers, signs of R fixed."""
    q, r = torch.linalg.qr(gaussian)
    rotation: Tensor = q * r.diagonal().sign()
    return rotation
