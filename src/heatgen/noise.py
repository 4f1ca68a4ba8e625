"""Random numbers that depend on what they are for, never on when or where they are drawn.

Every sample has a generator of its own, seeded by (keys..., sample). So a run that was killed and resumed, a run on
one device and a run on eight draw the same numbers for the same sample.
"""

import hashlib
from collections.abc import Iterable, Sequence
from typing import Protocol

import torch
from torch import Tensor


def mix(*keys: int | str) -> int:
    """A 63-bit seed from any keys, such as mix(seed, "order", epoch): a BLAKE2b hash, the same on every machine."""
    digest = hashlib.blake2b(repr(keys).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1


def generator(*keys: int | str) -> torch.Generator:
    """A CPU generator seeded by mix(keys)."""
    return torch.Generator().manual_seed(mix(*keys))


class Noise(Protocol):
    """What a sampler draws its noise from."""

    def normal_like(self, u: Tensor) -> Tensor:
        """Standard normal numbers of u's shape, device and dtype."""
        ...


class SampleNoise:
    """One independent stream of random numbers for each sample of a batch.

    Numbers are drawn on the CPU in float32 and moved, so they are the same on every device.

    Args:
        indices: B numbers that name the samples.
        keys: what else the streams depend on: a seed, a purpose.
    """

    def __init__(self, indices: Iterable[int] | Tensor, *keys: int | str):
        names = indices.tolist() if isinstance(indices, Tensor) else indices
        self.generators = [generator(*keys, int(name)) for name in names]

    def normal_like(self, u: Tensor) -> Tensor:
        """eps ~ N(0, I), (B, ...) like u."""
        return torch.stack([torch.randn(u.shape[1:], generator=g) for g in self.generators]).to(u)

    def uniform_like(self, u: Tensor) -> Tensor:
        """U[0, 1) numbers, (B, ...) like u."""
        return torch.stack([torch.rand(u.shape[1:], generator=g) for g in self.generators]).to(u)

    def integers(self, low: int, high: int) -> Tensor:
        """B whole numbers, each uniform on low .. high, both ends included; (B,) int64 on the CPU."""
        return torch.cat([torch.randint(low, high + 1, (1,), generator=g) for g in self.generators])


class SharedNoise:
    """The same noise for every sample of the batch, fresh at each draw (`share_noise`).

    Args:
        keys: what the stream depends on: a seed, a purpose.
    """

    def __init__(self, *keys: int | str):
        self.source = SampleNoise([0], *keys)

    def normal_like(self, u: Tensor) -> Tensor:
        """eps ~ N(0, I) of shape (1, ...), repeated over the batch."""
        return self.source.normal_like(u[:1]).expand_as(u)


class SphericalNoise:
    """Noise between two streams: cos(phi_j) eps1 + sin(phi_j) eps2, of unit variance at every angle phi_j.

    Args:
        angles: (B,), in radians.
        first, second: streams of one sample each.
    Source: Rissanen et al. 2023, interpolation of samples.
    """

    def __init__(self, angles: Tensor, first: SampleNoise, second: SampleNoise):
        self.angles, self.first, self.second = angles, first, second

    def normal_like(self, u: Tensor) -> Tensor:
        """The blend of one draw of each stream, (B, ...)."""
        angles = self.angles.to(u).reshape(-1, *[1] * (u.dim() - 1))
        return angles.cos() * self.first.normal_like(u[:1]) + angles.sin() * self.second.normal_like(u[:1])


def batches(indices: Sequence[int], size: int) -> list[Sequence[int]]:
    """`indices` cut into parts of at most `size`, in order."""
    return [indices[i : i + size] for i in range(0, len(indices), size)]
