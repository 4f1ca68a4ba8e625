"""net=mlp: a fully connected network for small data such as points, with five ways to see the time."""

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from heatgen import check
from heatgen.check import ConfigError
from heatgen.net.unet import CONDITIONS

TIMES = ("none", "raw", "additive", "concat", "film")
SMALLEST = 1e-3  # what is added to the raw time before its logarithm


class Embedding(nn.Module):
    """[sin 2 pi tau W, cos 2 pi tau W] of the raw time tau, and ln(tau + 1e-3) behind it where logarithm; W ~ N(0, scale^2).

    W: size / 2 frequencies, drawn once from torch's own generator and not trained, kept in the checkpoint. `features` is how
    many numbers come out.
    Source: Tancik et al. 2020; Song et al. 2021.
    """

    frequencies: Tensor

    def __init__(self, size: int, scale: float, logarithm: bool):
        super().__init__()
        self.logarithm, self.features = logarithm, size + int(logarithm)
        self.register_buffer("frequencies", scale * torch.randn(size // 2))

    def forward(self, tau: Tensor) -> Tensor:
        """tau: (B, 1). Returns (B, features)."""
        angles = 2 * math.pi * tau * self.frequencies.to(tau)
        waves = [angles.sin(), angles.cos()]
        return torch.cat([*waves, (tau + SMALLEST).log()] if self.logarithm else waves, dim=1)


class MLP(nn.Module):
    """net(x, t) -> like x: `depth` hidden layers on the values of a sample and the raw time tau = t / num_levels.

    h_0 = x, and cond behind it where conditional; h_l = SiLU(A_l h_{l-1}) for l = 1 .. depth; then the linear layer
    B h_depth. A and B have biases; e = [sin 2 pi tau W, cos 2 pi tau W], W ~ N(0, scale^2) in cycles per unit of tau and not
    trained; what changes with `time`:
    none: nothing; raw: h_0 has tau behind it, concat: e behind it; additive: h_1 = SiLU(A_1 h_0 + SiLU(D e)).
    film: (1 + gamma_0) h_0 in place of h_0, h_l = SiLU((1 + gamma_l) A_l h_{l-1} + beta_l) and the output B h_depth + S h_0,
    where S is a weight for each number of x, and gamma and beta are a network of one hidden layer of
    [e, ln(tau + 1e-3)]; the logarithm makes an f(t) that is steep near 0 easy. Only film can be f(t) x for all x: with the
    others the slope in x far from 0 is the same at all t, whatever the depth, and f(t) x is learned where the data lies, by
    a small additive net with depth 1 slowly.

    Args:
        width: of the hidden layers.
        depth: how many.
        time: how it sees the time: none, raw, additive, concat or film.
        embedding: the size of e, even.
        scale: of the frequencies, in cycles over all levels. For the others see `heatgen.net`.

    Source: Song et al. 2021 (additive), Tancik et al. 2020 (e), Perez et al. 2018 (film).
    """

    def __init__(
        self,
        shape: Sequence[int],
        width: int = 64,
        depth: int = 3,
        time: str = "film",
        embedding: int = 64,
        scale: float = 1.0,
        num_levels: int = 100,
        conditional: bool = False,
        inputs: int = 1,
    ):
        super().__init__()
        self.shape = check.shape("data.shape", shape)
        width = check.integer("net.width", width, minimum=1)
        depth = check.layers("net.depth", depth)
        self.time = check.choice("net.time", time, TIMES)
        size = check.integer("net.embedding", embedding, minimum=2)
        if size % 2:
            raise ConfigError(f"net.embedding must be even, for a sine and a cosine of each frequency, not {size}.")
        scale = check.number("net.scale", scale, above=0)
        self.num_levels = check.integer("net.num_levels", num_levels, minimum=1)
        self.conditional = check.boolean("net.conditional", conditional)
        outputs = math.prod(self.shape)
        inputs = check.integer("net.inputs", inputs, minimum=1)
        features = inputs * outputs + CONDITIONS * int(self.conditional)
        if self.time in ("additive", "concat", "film"):
            self.embed = Embedding(size, scale, logarithm=self.time == "film")
        extra = {"raw": 1, "concat": size}.get(self.time, 0)
        self.hidden = nn.ModuleList([nn.Linear(n, width) for n in [features + extra] + (depth - 1) * [width]])
        self.out_layer = nn.Linear(width, outputs)
        if self.time == "additive":
            self.add = nn.Linear(size, width)
        if self.time == "film":
            self.sizes = [features] + depth * [2 * width]  # gamma_0, then gamma and beta of each hidden layer
            self.film = nn.Sequential(nn.Linear(self.embed.features, width), nn.SiLU(), nn.Linear(width, sum(self.sizes)))
            self.skip = nn.Parameter(torch.empty(inputs, outputs).uniform_(-1, 1) / inputs**0.5)

    def forward(self, x: Tensor, t: Tensor, cond: Tensor | None = None) -> Tensor:
        h = x.flatten(1)
        if self.conditional:
            assert cond is not None, "a conditional network needs cond"
            h = torch.cat([h, cond.to(h)], dim=1)
        time = t.to(torch.promote_types(t.dtype, torch.float32))[:, None] / self.num_levels
        time = (self.embed(time) if self.time in ("additive", "concat", "film") else time).to(h)
        if self.time == "film":
            return self._modulated(h, time).reshape(-1, *self.shape)
        h = torch.cat([h, time], dim=1) if self.time in ("raw", "concat") else h
        h = self.hidden[0](h)
        h = h + F.silu(self.add(time)) if self.time == "additive" else h
        for layer in self.hidden[1:]:
            h = layer(F.silu(h))
        output: Tensor = self.out_layer(F.silu(h)).reshape(-1, *self.shape)
        return output

    def _modulated(self, h: Tensor, time: Tensor) -> Tensor:
        gamma, *others = self.film(time).split(self.sizes, dim=1)
        h = modulated = (1 + gamma) * h
        for layer, both in zip(self.hidden, others, strict=True):
            gamma, beta = both.chunk(2, dim=1)
            h = F.silu((1 + gamma) * layer(h) + beta)
        kept = modulated[:, : self.skip.numel()].unflatten(1, self.skip.shape)
        output: Tensor = self.out_layer(h) + (self.skip * kept).sum(1)
        return output
