"""Random numbers that depend on what they are for, never on when or where they are drawn.

A number is a function of (keys, sample, draw, place): the counter-based generator Philox 4x32-10, with the key mix(*keys)
and the counter (block, draw, sample low, sample high). So a run that was killed and resumed, one device and eight, a CPU
and a GPU draw the same integers for the same sample, on the device where they are used, without a copy or a wait.
Normal numbers differ between kinds of devices by the rounding of their logarithm and cosine.

Source: Salmon et al. 2011 (Parallel random numbers: as easy as 1, 2, 3).
"""

import hashlib
import math
from collections.abc import Iterable, Iterator, Sequence
from typing import Protocol, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Word = TypeVar("Word", Tensor, NDArray[np.int64])
FourWords = tuple[Tensor, Tensor, Tensor, Tensor]

MASK = 0xFFFFFFFF
MULTIPLIERS = 0xD2511F53, 0xCD9E8D57
WEYL = 0x9E3779B9, 0xBB67AE85
ROUNDS = 10
CPU_BLOCKS = 8192  # at once on a CPU: what its cache holds


def mix(*keys: int | str) -> int:
    """A 63-bit seed from any keys, such as mix(seed, "order", epoch): a BLAKE2b hash, the same on every machine."""
    digest = hashlib.blake2b(repr(keys).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1


def generator(*keys: int | str) -> torch.Generator:
    """A CPU generator seeded by mix(keys)."""
    return torch.Generator().manual_seed(mix(*keys))


def philox(x0: Word, x1: Word, x2: Word, x3: Word, key: int) -> tuple[Word, Word, Word, Word]:
    """Philox 4x32-10 of the counters (x0, x1, x2, x3): words of 32 bits in int64, which broadcast to one shape.

    A round with the multipliers m and the key k, to which each adds the Weyl constants, is
        x <- (high(m1 x2) ^ x1 ^ k0, low(m1 x2), high(m0 x0) ^ x3 ^ k1, low(m0 x0)),
    with products that wrap in int64. Bits above the 32nd are dropped only where the next product needs it.

    Args:
        x0, x1, x2, x3: the counters, tensors or arrays; x0 and x2 together have the whole shape.
        key: 64 bits, k0 the lower half.

    Returns: four words; bits of the second and the fourth above the 32nd mean nothing.
    """
    for i in range(ROUNDS):
        p, q = x0 * MULTIPLIERS[0], x2 * MULTIPLIERS[1]
        if i < 3:  # what the samples, or the blocks, have in common is computed once
            x0, x2 = (q >> 32) ^ x1, (p >> 32) ^ x3
        else:
            x0, x2 = q >> 32, p >> 32
            x0 ^= x1
            x2 ^= x3
        x0 ^= (key + i * WEYL[0]) & MASK
        x2 ^= ((key >> 32) + i * WEYL[1]) & MASK
        x0 &= MASK
        x2 &= MASK
        x1, x3 = q, p
    return x0, x1, x2, x3


def words(block: Tensor, draw: int, indices: Tensor, key: int) -> FourWords:
    """The four words of each counter (block, draw, index low, index high); bits above the 32nd mean nothing.

    On a CPU NumPy computes them: the same integers, with a third of the overhead of small tensors.
    """
    if block.device.type == "cpu" and not torch.compiler.is_compiling():
        numbers = indices.numpy()
        counter = block.numpy(), np.full(1, draw), numbers & MASK, (numbers >> 32) & MASK
        x0, x1, x2, x3 = (torch.from_numpy(x) for x in philox(*counter, key))
        return x0, x1, x2, x3
    return philox(block, torch.full((1,), draw, device=block.device), indices & MASK, (indices >> 32) & MASK, key)


def box_muller(x0: Tensor, x1: Tensor, x2: Tensor, x3: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Standard normal numbers of pairs of words, (x0, x1) and (x2, x3): the first and the second of each pair, (2, ...).

    sqrt(-2 log((x + 1/2) / 2^32)) times cos and sin of (pi y / 2^31), y signed; none is further than 6.8 from 0.
    """
    r = torch.stack((x0, x2)).to(dtype).mul_(2.0**-32).add_(2.0**-33).log_().mul_(-2).sqrt_()
    angle = torch.stack((x1, x3)).to(torch.int32).to(dtype).mul_(math.pi * 2.0**-31)
    return angle.cos().mul_(r), angle.sin_().mul_(r)


class Noise(Protocol):
    """What a sampler draws its noise from."""

    def normal_like(self, u: Tensor) -> Tensor:
        """Standard normal numbers of u's shape, device and dtype."""
        ...


class SampleNoise:
    """One independent stream of random numbers for each sample of a batch.

    Each call is a draw of its own. Number i of a draw is word i // n of block i mod n, of n blocks.

    Args:
        indices: B numbers that name the samples; a tensor stays where it is.
        keys: what else the streams depend on: a seed, a purpose.
    """

    def __init__(self, indices: Iterable[int] | Tensor, *keys: int | str):
        if not isinstance(indices, Tensor):
            indices = torch.tensor(list(indices), dtype=torch.int64)
        self.indices, self.key, self.draws = indices.long(), mix(*keys), 0

    def __len__(self) -> int:
        return len(self.indices)

    def _on(self, device: torch.device) -> Tensor:
        """The samples' numbers on this device, where they stay."""
        if self.indices.device != device:
            pinned = device.type == "cuda" and self.indices.device.type == "cpu" and torch.cuda.is_available()
            indices = self.indices.pin_memory() if pinned else self.indices
            self.indices = indices.to(device, non_blocking=True)
        return self.indices

    def _next(self) -> int:
        """The number of this draw."""
        self.draws += 1
        return self.draws - 1

    def _draw(self, blocks: int, device: torch.device) -> Iterator[tuple[slice, slice, FourWords]]:
        """The next draw, in parts: which samples, which blocks, and their words."""
        indices, block, draw = self._on(device)[:, None], torch.arange(blocks, device=device)[None], self._next()
        most = CPU_BLOCKS if device.type == "cpu" else len(self) * blocks
        width = max(1, min(blocks, most))
        height = max(1, most // width)
        for i in range(0, len(self), height):
            for j in range(0, blocks, width):
                rows, columns = slice(i, i + height), slice(j, j + width)
                yield rows, columns, words(block[:, columns], draw, indices[rows], self.key)

    def normal(self, *shape: int, dtype: torch.dtype = torch.float32, device: torch.device | None = None) -> Tensor:
        """eps ~ N(0, I), (B, *shape), by the method of Box and Muller; where the samples' numbers are, or on a device."""
        out, numbers = self._room(shape, torch.promote_types(dtype, torch.float32), device)
        for rows, columns, part in self._draw(out.shape[-1], out.device):
            first, second = box_muller(*part, out.dtype)
            place = out[rows, :, columns].unflatten(1, (2, 2)).permute(1, 2, 0, 3)
            place[:, 0] = first
            place[:, 1] = second
        return out.flatten(1)[:, :numbers].reshape(-1, *shape).to(dtype)

    def uniform(self, *shape: int, dtype: torch.dtype = torch.float32, device: torch.device | None = None) -> Tensor:
        """U[0, 1) numbers, (B, *shape): multiples of 2^-24, or of what else the dtype holds exactly, at most 2^-32."""
        bits = min(32, 1 - round(math.log2(torch.finfo(dtype).eps)))
        out, numbers = self._room(shape, dtype, device)
        for rows, columns, part in self._draw(out.shape[-1], out.device):
            for k, word in enumerate(part):
                out[rows, k, columns] = word.bitwise_and_(MASK).bitwise_right_shift_(32 - bits)
        return out.mul_(2.0**-bits).flatten(1)[:, :numbers].reshape(-1, *shape)

    def _room(self, shape: Sequence[int], dtype: torch.dtype, device: torch.device | None) -> tuple[Tensor, int]:
        """Room for a draw, (B, 4, blocks), and how many of its numbers a sample needs."""
        numbers = math.prod(shape)
        place = self.indices.device if device is None else device
        return torch.empty(len(self), 4, -(-numbers // 4), dtype=dtype, device=place), numbers

    def normal_like(self, u: Tensor) -> Tensor:
        """eps ~ N(0, I), (B, ...) like u."""
        return self.normal(*u.shape[1:], dtype=u.dtype, device=u.device)

    def uniform_like(self, u: Tensor) -> Tensor:
        """U[0, 1) numbers, (B, ...) like u."""
        return self.uniform(*u.shape[1:], dtype=u.dtype, device=u.device)

    def integers(self, low: int, high: int) -> Tensor:
        """B whole numbers, each uniform on low .. high, both ends included; (B,) int64, where the samples' numbers are.

        low + (n x >> 64) of n = high - low + 1 <= 2^31 and 64 bits x: no probability is off by more than 2^-64.
        """
        n = high - low + 1
        assert 1 <= n <= 2**31, "a range that is not empty, and fits the arithmetic"
        x0, x1, _, _ = words(torch.zeros_like(self.indices), self._next(), self.indices, self.key)
        return low + ((x0 * n + ((x1 & MASK) * n >> 32)) >> 32)


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
