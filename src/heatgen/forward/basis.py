"""forward/basis: bases of `forward=composed` beside pixels, cosines and Fourier waves (`heatgen.basis`)."""

import math

import torch
from torch import Tensor

from heatgen import check
from heatgen.basis import Basis, Separable, cosine_matrix, haar_rotation, neumann_eigenvalues, upcast
from heatgen.check import ConfigError
from heatgen.noise import SampleNoise


class BlockCosine(Separable):
    """The orthonormal DCT-II of each block of size x size pixels.

    Args:
        size: which divides both sides; 1: pixels.
    Source: Teng et al. 2024 (Relay Diffusion).
    """

    def __init__(self, height: int, width: int, size: int = 4):
        size = check.integer("forward.basis.size", size, minimum=1)
        if height % size or width % size:
            raise ConfigError(f"forward.basis.size={size} must divide both sides of fields of {height} x {width} pixels.")
        rows, columns = (torch.block_diag(*[cosine_matrix(size)] * (side // size)) for side in (height, width))
        waves = neumann_eigenvalues(size, size).repeat(height // size, width // size)
        super().__init__(rows, columns, eigenvalues=waves)


class Haar(Basis):
    """The orthonormal Haar wavelets: sums and differences of pairs along both axes, and again of the sums at each level.

    Those of level l = 1, 2, ... count as waves of pi / 2^l along their axis, the lower end of their octave.

    Args:
        levels: how often; 2^levels divides both sides.
    Source: Mallat 1989.
    """

    def __init__(self, height: int, width: int, levels: int = 2):
        levels = check.integer("forward.basis.levels", levels, minimum=1, maximum=30)
        if height % 2**levels or width % 2**levels:
            sides = f"sides that are multiples of {2**levels}, not {height} x {width} pixels"
            raise ConfigError(f"forward.basis.levels={levels} needs {sides}.")
        self.sizes = [(height >> level, width >> level) for level in range(levels)]
        waves = torch.zeros(height, width, dtype=torch.float64)
        for level, (h, w) in enumerate(self.sizes, 1):
            waves[h // 2 : h, :w] += (math.pi / 2**level) ** 2
            waves[:h, w // 2 : w] += (math.pi / 2**level) ** 2
        super().__init__(waves)

    def forward(self, u: Tensor) -> Tensor:
        c = upcast(u).clone()
        for h, w in self.sizes:
            for axis in (-2, -1):
                a, b = c[..., :h, :w].unflatten(axis, (-1, 2)).unbind(axis)
                c[..., :h, :w] = torch.cat([a + b, a - b], axis) / math.sqrt(2)
        return c

    def inverse(self, c: Tensor) -> Tensor:
        u = upcast(c).clone()
        for h, w in reversed(self.sizes):
            for axis in (-2, -1):
                a, b = u[..., :h, :w].chunk(2, axis)
                u[..., :h, :w] = torch.stack([a + b, a - b], axis).flatten(axis - 1, axis) / math.sqrt(2)
        return u


class Random(Separable):
    """A uniformly random rotation of each axis, which knows nothing of space; it is in the checkpoint.

    Args:
        seed: of the rotations.
    """

    def __init__(self, height: int, width: int, seed: int = 0):
        rng = SampleNoise([0], check.integer("forward.basis.seed", seed, minimum=0), "random basis")
        rows, columns = (haar_rotation(rng.normal(n, n, dtype=torch.float64)[0]) for n in (height, width))
        super().__init__(rows, columns, persistent=True)
