"""Random numbers that depend on what they are for, never on when or where they are drawn.

A number is a function of (keys, sample, draw, place): the counter-based generator Philox 4x32-10, with the key mix(*keys)
and the counter (block, draw, sample low, sample high). So a run that was killed and resumed, one device and eight, a CPU
and a GPU draw the same integers for the same sample, on the device where they are used, without a copy or a wait.
Normal numbers differ between kinds of devices by the rounding of their logarithm and cosine.

What other libraries draw has a seed instead, of the run or from `mix`: the first weights of a network and dropout (torch).
What a data set is (which images are held out, random fields, points, hot squares) keeps torch's generator, so that runs
made before are never measured on what they were trained on.

Source: Salmon et al. 2011 (Parallel random numbers: as easy as 1, 2, 3).
"""

import functools
import hashlib
import math
from collections.abc import Callable, Iterable, Sequence
from types import ModuleType
from typing import Any, Protocol, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Word = TypeVar("Word", Tensor, NDArray[Any])
Words = tuple[Word, Word, Word, Word]
Law = Callable[..., None]  # (words, out, torch or numpy): writes into out, (B, 4, blocks), what it makes of them

MASK = 0xFFFFFFFF
MULTIPLIERS = 0xD2511F53, 0xCD9E8D57
WEYL = 0x9E3779B9, 0xBB67AE85
ROUNDS = 10
NUMPY = {torch.float32: np.float32, torch.float64: np.float64, torch.int64: np.int64}
CPU_BLOCKS = 16384  # at once on a CPU: what its cache holds


def mix(*keys: int | str) -> int:
    """A 63-bit seed from any keys, such as mix(seed, "order", epoch): a BLAKE2b hash, the same on every machine."""
    digest = hashlib.blake2b(repr(keys).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1


def generator(*keys: int | str) -> torch.Generator:
    """A CPU generator seeded by mix(keys), for data sets alone."""
    return torch.Generator().manual_seed(mix(*keys))


def philox(x0: Word, x1: Word, x2: Word, x3: Word, key: int) -> Words[Word]:
    """Philox 4x32-10 of the counters (x0, x1, x2, x3): words of 32 bits in int64, which broadcast to one shape.

    A round with the multipliers m and the key k, to which each adds the Weyl constants, is
        x <- (high(m1 x2) ^ x1 ^ k0, low(m1 x2), high(m0 x0) ^ x3 ^ k1, low(m0 x0)),
    with products that wrap in int64. Bits above the 32nd are dropped only where the next product needs it.

    Args:
        x0, x1, x2, x3: the counters, tensors or arrays; x0 and x2 together have the whole shape.
        key: 64 bits, k0 the lower half.

    Returns: four words; bits of the second and the fourth above the 32nd mean nothing.
    """
    k0, k1 = key & MASK, key >> 32
    for i in range(ROUNDS):
        p, q = x0 * MULTIPLIERS[0], x2 * MULTIPLIERS[1]
        if i < 3:  # what the samples, or the blocks, have in common is computed once
            x0, x2 = (q >> 32) ^ x1, (p >> 32) ^ x3
        else:
            x0, x2 = q >> 32, p >> 32
            x0 ^= x1
            x2 ^= x3
        x0 ^= (k0 + i * WEYL[0]) & MASK
        x2 ^= (k1 + i * WEYL[1]) & MASK
        x0 &= MASK
        x2 &= MASK
        x1, x3 = q, p
    return x0, x1, x2, x3


def as_words(words: Words[Word], out: Word, xp: ModuleType) -> None:
    """The words themselves."""
    for k, word in enumerate(words):
        out[:, k] = word & MASK


def as_uniform(words: Words[Word], out: Word, xp: ModuleType, bits: int) -> None:
    """The highest bits of each word as a number of [0, 1)."""
    for k, word in enumerate(words):
        out[:, k] = (word & MASK) >> (32 - bits)
    out *= 2.0**-bits


def as_normal(words: Words[Word], out: Word, xp: ModuleType) -> None:
    """Pairs of words (x, y) as pairs of standard normal numbers, none further than 6.8 from 0: Box and Muller's

    sqrt(-2 log((x + 1/2) / 2^32)) (cos, sin)(2 pi y / 2^32), the two cosines first.
    """
    radius, angle = xp.empty_like(out[:, :2]), xp.empty_like(out[:, :2])
    for k in (0, 1):
        radius[:, k] = words[2 * k]
        angle[:, k] = words[2 * k + 1] & MASK
    radius *= 2.0**-32
    radius += 2.0**-33
    xp.log(radius, out=radius)
    radius *= -2
    xp.sqrt(radius, out=radius)
    angle *= 2 * math.pi * 2.0**-32
    out[:, :2] = xp.cos(angle)
    out[:, 2:] = xp.sin(angle)
    out[:, :2] *= radius
    out[:, 2:] *= radius


def as_array(indices: Tensor) -> NDArray[Any] | None:
    """The tensor for NumPy; None on a device, in a compiled graph and inside of torch.func, where it has no memory."""
    if indices.device.type != "cpu" or torch.compiler.is_compiling():
        return None
    try:
        return indices.numpy()
    except RuntimeError:
        return None


def fill(law: Law, blocks: int, indices: Tensor, draw: int, key: int, dtype: torch.dtype) -> Tensor:
    """What `law` makes of the words of (block, draw, index low, index high): (B, 4, blocks), where the indices are.

    On a CPU NumPy computes, a piece that its cache holds at a time: the same integers with less overhead.
    """
    names = as_array(indices)
    if names is None:
        device, low, high = indices.device, (indices & MASK)[:, None], ((indices >> 32) & MASK)[:, None]
        result = torch.empty(len(indices), 4, blocks, dtype=dtype, device=device)
        counter = torch.arange(blocks, device=device)[None], torch.full((1, 1), draw, device=device), low, high
        law(philox(*counter, key), result, torch)
        return result
    block, number = np.arange(blocks)[None], np.full((1, 1), draw)
    first, second = names & MASK, (names >> 32) & MASK
    out = np.empty((len(indices), 4, blocks), NUMPY[dtype])
    width = max(1, min(blocks, CPU_BLOCKS))
    height = max(1, CPU_BLOCKS // width)
    for i in range(0, len(out), height):
        for j in range(0, blocks, width):
            rows, columns = slice(i, i + height), slice(j, j + width)
            words = philox(block[:, columns], number, first[rows, None], second[rows, None], key)
            law(words, out[rows, :, columns], np)
    return torch.from_numpy(out)


class Noise(Protocol):
    """What a sampler draws its noise from."""

    def normal_like(self, u: Tensor) -> Tensor:
        """Standard normal numbers of u's shape, device and dtype."""


class SampleNoise:
    """One independent stream of random numbers for each sample of a batch.

    Each call is a draw of its own. Number i of a draw is made of block i mod n, of n blocks.

    Args:
        indices: B numbers that name the samples; a tensor stays where it is.
        keys: what else the streams depend on: a seed, a purpose.
    """

    def __init__(self, indices: Iterable[int] | Tensor, *keys: int | str):
        if not isinstance(indices, Tensor):
            indices = torch.from_numpy(np.array(list(indices), dtype=np.int64))
        self.indices = indices if indices.dtype == torch.int64 else indices.long()
        self.key, self.draws = mix(*keys), 0

    def __len__(self) -> int:
        return len(self.indices)

    def _on(self, device: torch.device) -> Tensor:
        """The samples' numbers on this device, where they stay."""
        if self.indices.device != device:
            pinned = device.type == "cuda" and self.indices.device.type == "cpu" and torch.cuda.is_available()
            indices = self.indices.pin_memory() if pinned else self.indices
            self.indices = indices.to(device, non_blocking=True)
        return self.indices

    def _fill(self, count: int, dtype: torch.dtype, device: torch.device | None, law: Law) -> Tensor:
        """The next draw, (B, count): `law` of words."""
        indices = self.indices if device is None else self._on(device)
        numbers = fill(law, -(-count // 4), indices, self.draws, self.key, dtype)
        self.draws += 1
        return numbers.flatten(1)[:, :count]

    def normal(self, *shape: int, dtype: torch.dtype = torch.float32, device: torch.device | None = None) -> Tensor:
        """eps ~ N(0, I), (B, *shape), where the samples' numbers are, or on a device."""
        exact = torch.promote_types(dtype, torch.float32)
        return self._fill(math.prod(shape), exact, device, as_normal).reshape(-1, *shape).to(dtype)

    def uniform(self, *shape: int, dtype: torch.dtype = torch.float32, device: torch.device | None = None) -> Tensor:
        """U[0, 1) numbers, (B, *shape): multiples of 2^-24, or of what else the dtype holds exactly, at most 2^-32."""
        bits = min(32, 1 - round(math.log2(torch.finfo(dtype).eps)))
        exact = torch.promote_types(dtype, torch.float32)
        law = functools.partial(as_uniform, bits=bits)
        return self._fill(math.prod(shape), exact, device, law).reshape(-1, *shape).to(dtype)

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
        x, y = self._fill(4, torch.int64, None, as_words)[:, :2].unbind(1)
        return low + ((x * n + (y * n >> 32)) >> 32)

    def permutation(self, n: int) -> Tensor:
        """The numbers 0 .. n - 1 in an order of each sample's own, (B, n) int64, where the samples' numbers are."""
        words = self._fill(2 * n, torch.int64, None, as_words)
        return ((words[:, :n] << 31) ^ words[:, n:]).argsort(dim=1, stable=True)  # 63 random bits: no two are equal


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
