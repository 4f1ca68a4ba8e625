"""forward/basis: bases of `forward=composed` beside pixels, cosines and Fourier waves (`heatgen.basis`)."""

import math

import torch
from torch import Tensor

from heatgen import check
from heatgen.basis import Basis, Orthogonal, Separable, cosine_matrix, haar_rotation, neumann_eigenvalues, upcast
from heatgen.check import ConfigError
from heatgen.forward.matrix import check_memory
from heatgen.noise import SampleNoise

ACTS_ON = ("rows_and_columns", "channel")  # of random rotations


def block_cosine(height: int, width: int, size: int = 4) -> Basis:
    """The orthonormal DCT-II of each block of size x size pixels, which divides both sides; size 1: pixels.

    Source: Teng et al. 2024 (Relay Diffusion).
    """
    size = check.integer("forward.basis.size", size, minimum=1)
    if height % size or width % size:
        raise ConfigError(f"forward.basis.size={size} must divide both sides of fields of {height} x {width} pixels.")
    rows, columns = (torch.block_diag(*[cosine_matrix(size)] * (side // size)) for side in (height, width))
    waves = neumann_eigenvalues(size, size).repeat(height // size, width // size)
    return Separable(rows, columns, eigenvalues=waves)


def random(height: int, width: int, acts_on: str = "rows_and_columns", seed: int = 0, key: str = "forward.basis") -> Basis:
    """A uniformly random rotation, which knows nothing of space and is in the checkpoint.

    acts_on: rows_and_columns, a rotation of each axis; channel, one of all H W pixels. key: what messages call it.
    """
    seed = check.integer(f"{key}.seed", seed, minimum=0)

    def rotation(size: int, axis: str) -> Tensor:
        rng = SampleNoise([0], seed, "random_basis_heat", axis)
        return haar_rotation(rng.normal(size, size, dtype=torch.float64)[0])

    if check.choice(f"{key}.acts_on", acts_on, ACTS_ON) == "rows_and_columns":
        return Separable(rotation(height, "rows"), rotation(width, "columns"), persistent=True)
    check_memory(f"{key}.acts_on=channel", 1, [height * width], f"use {key}.acts_on=rows_and_columns")
    return Orthogonal(rotation(height * width, "channel"))


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
