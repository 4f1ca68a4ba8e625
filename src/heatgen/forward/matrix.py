"""Forward maps that are a matrix at each level, in general with no basis in common."""

import os
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from heatgen import check
from heatgen.basis import exact, upcast
from heatgen.check import ConfigError
from heatgen.forward.levels import uniform
from heatgen.forward.process import ObservedProcess, shared

ACTS_ON = ("rows", "rows_and_columns", "channel")
GATHERED = 2**24  # numbers of matrices, at most, that are gathered at a time
Build = Callable[[int, int, str], Tensor]  # (K, size, axis) -> (K + 1, size, size) float64


def memory() -> int:
    """The bytes of memory of this machine."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def check_memory(key: str, count: int, sizes: Sequence[int], instead: str) -> None:
    """ConfigError where `count` float64 matrices of each size n x n would take more than half of the memory."""
    needed = count * sum(size**2 for size in sizes) * 8
    if needed > memory() / 2:
        matrices = "a matrix" if count == 1 else f"{count} matrices"
        raise ConfigError(
            f"{key} needs {matrices} of {' and '.join(f'{size} x {size}' for size in sizes)}, {needed / 2**30:.3g} GiB, and "
            f"this machine has {memory() / 2**30:.3g} GiB; {instead}."
        )


def svdvals(matrix: Tensor) -> Tensor:
    """Singular values, descending; 0 where they are lost in rounding."""
    values = torch.linalg.svdvals(matrix)
    return torch.where(values > values[0] * len(matrix) * torch.finfo(values.dtype).eps, values, torch.zeros_like(values))


class MatrixProcess(ObservedProcess):
    """u_k = T_k u_0 + sigma eps with any matrices T_0 = I, T_1, ..., T_K, known at the levels t = k / K alone.

    The matrices are in the checkpoint. There is no gain, so what needs a basis is refused by name.

    Args:
        acts_on: rows, T_k u on each column of pixels (H x H); rows_and_columns, T_k u S_k^T with a second matrix (W x W);
            channel, on all H * W pixels of a channel, flattened row by row.
        build: build(K, size, axis) -> the (K+1, size, size) float64 matrices of an axis, "rows" or "columns". For the
            others see `heatgen.forward`.
    Raises:
        ConfigError: for matrices that do not fit into half of the memory.
    """

    is_diagonal = False
    left: Tensor
    right: Tensor | None

    def __init__(self, shape: tuple[int, ...], num_levels: int, sigma: float, acts_on: str, build: Build):
        num_levels = check.integer("forward.num_levels", num_levels, minimum=1)
        super().__init__(shape, uniform(num_levels), sigma)
        self.acts_on = check.choice("forward.acts_on", acts_on, ACTS_ON)
        height, width = self.shape[-2:]
        sizes = {"rows": [height], "rows_and_columns": [height, width], "channel": [height * width]}[acts_on]
        instead = "use fewer levels" if acts_on == "rows" else "use forward.acts_on=rows, or forward=random_basis_heat"
        check_memory(f"forward.acts_on={acts_on}", num_levels + 1, sizes, instead)
        self.register_buffer("left", build(num_levels, sizes[0], "rows"))
        self.register_buffer("right", build(num_levels, width, "columns") if acts_on == "rows_and_columns" else None)

    def level_index(self, t: Tensor) -> Tensor:
        """The level of each time, (B,) int64; ConfigError between levels, where the map is not defined."""
        level = self.level(t)
        whole = level.round()
        sentence = f"forward={self.name} is only defined at its {self.num_levels} levels, not between them."
        check.refuse((level - whole).abs() > 1e-3, lambda: sentence)  # a float32 clock is that coarse
        return whole.long()

    def mean(self, u0: Tensor, t: Tensor) -> Tensor:
        """T_k u_0."""
        u0, levels = upcast(u0), self.level_index(shared(t))
        part = max(1, GATHERED // self.left[0].numel())  # samples at a time, so that their matrices fit
        with exact(u0.device):
            if len(levels) == 1 or len(u0) <= part:
                return self._transform(u0, levels)
            pairs = zip(u0.split(part), levels.split(part), strict=True)
            return torch.cat([self._transform(u, k) for u, k in pairs])

    def _transform(self, u: Tensor, k: Tensor) -> Tensor:
        """T_k u, each sample at a level of its own, k: (B,), or all at one, (1,)."""
        left = self.left[k].to(u)
        if self.acts_on == "channel":
            return (u.flatten(-2) @ left.mT).reshape(u.shape)
        u = left[:, None] @ u
        return u if self.right is None else u @ self.right[k].to(u)[:, None].mT

    def gain(self, t: Tensor) -> Tensor:
        """ConfigError: there is no basis in which every level is diagonal."""
        raise ConfigError(f"forward={self.name} is not diagonal in any basis; choose a map that is, such as heat.")

    def coupling(self, s: Tensor, t: Tensor) -> Tensor:
        """0: the noises of the levels are independent, (B, 1, 1, 1)."""
        return torch.zeros_like(self.column(t))

    def singular_values(self, t: Tensor) -> Tensor:
        """All singular values of T_k for one time, descending, (C * H * W,) float64."""
        k, (channels, _, width) = int(self.level_index(t)), self.shape
        values = svdvals(self.left[k])
        if self.acts_on == "rows":
            values = values.repeat(width)
        elif self.right is not None:
            values = torch.outer(values, svdvals(self.right[k])).flatten()
        return values.repeat(channels).sort(descending=True).values

    def frobenius(self, t: Tensor, s: Tensor | None = None) -> float:
        """The Frobenius norm of T_k, or of the difference of two."""
        chosen = [int(self.level_index(time)) for time in (t, s) if time is not None]
        left = self.left[chosen].flatten(1)
        gram = left @ left.mT
        if self.right is not None:
            right = self.right[chosen].flatten(1)
            gram = gram * (right @ right.mT)
        signs = torch.tensor([1.0, -1.0][: len(chosen)]).to(gram)
        copies = self.shape[0] * (self.shape[-1] if self.acts_on == "rows" else 1)
        return float((copies * (signs @ gram @ signs)).clamp(min=0).sqrt())
