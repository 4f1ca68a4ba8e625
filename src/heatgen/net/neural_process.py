"""net=neural_process: encoder, aggregator, latent variable and decoder of every neural process; combinations are options."""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from heatgen import check
from heatgen.check import ConfigError
from heatgen.frames import Context, Representation
from heatgen.net import aggregator, frame_encoder
from heatgen.net.aggregator import Aggregator, reach, shares
from heatgen.net.frame_decoder import FlatDecoder, GridDecoder, PatchDecoder
from heatgen.net.frame_encoder import MAPS, ConvEncoder, FlatEncoder, Frame, GridEncoder, PatchEncoder, SetConvEncoder, mlp
from heatgen.net.heat_flow import HeatAggregator, HeatDecoder
from heatgen.net.likelihood import Likelihood
from heatgen.net.token_aggregator import TokenAggregator
from heatgen.net.unet import CONDITIONS

PATHS = ("latent", "deterministic", "both")
LEAST = 0.1  # the least deviation of the latent variable; the largest is 1


class NeuralProcess(nn.Module):
    """p(y_t | context) = the mean over z of N(mean(t, r, z), std(t, r, z)^2), z ~ N(mu, sigma^2) from the context.

    encoder, with the decoder that goes with it: flat | conv | grid, which keeps maps | set_conv, a grid for scattered
    sensors, with masked | patch, tokens of patch x patch pixels, with aggregator=transformer | heat, with aggregator=heat;
    aggregator: mean | attention | transformer, of `layers` layers, with encoder=patch | heat, hypothetical heat flows and
    `layers` of corrections, with encoder=heat; causal: what is said of t rests on frames up to t alone, with
    z(t) = mu(t) + sigma(t) eps of one eps for all t; path: latent (r only through z), deterministic (no z), or both. width:
    R; latent: Z; hidden: of the networks on vectors; channels: of convolutions; heads: of attention; masked: whether it is
    told which pixels are seen; conditional: whether it is told the map's random numbers; likelihood, min_std and rank: see
    `likelihood`. z comes from the mean over the context, whatever r comes from. privileged: how many such numbers of each
    frame may be told to z (LUPI): their encoding is merged by a residual that starts at 0, so without them nothing changes.
    sigma = 0.1 + 0.9 sigmoid. Nothing is normalised over the batch or the context. ConfigError for parts that do not fit.
    Source: Garnelo et al. 2018 (CNP, NP); Kim et al. 2019 (attention); Gordon et al. 2020 (grids, sensors); Nguyen & Grover
    2022 (transformer); Markou et al. 2022 (low_rank).
    """

    def __init__(
        self,
        shape: Sequence[int],
        encoder: str = "flat",
        aggregator: str = "mean",
        causal: bool = False,
        path: str = "latent",
        width: int = 64,
        latent: int = 32,
        hidden: int = 128,
        channels: int = 16,
        heads: int = 4,
        masked: bool = False,
        conditional: bool = False,
        likelihood: str = "heteroscedastic",
        min_std: float = 0.01,
        rank: int = 8,
        privileged: int = 0,
        patch: int = 4,
        layers: int = 4,
    ):
        super().__init__()
        self.shape = check.shape("data.shape", shape)
        self.causal = check.boolean("net.causal", causal)
        self.masked = check.boolean("net.masked", masked)
        self.conditional = check.boolean("net.conditional", conditional)
        self._check(encoder, aggregator, path, self.masked)
        self.path, self.grid = path, encoder in MAPS
        sizes = dict(width=width, latent=latent, hidden=hidden, channels=channels, heads=heads, patch=patch, layers=layers)
        width, latent, hidden, channels, heads, patch, layers = (
            check.integer(f"net.{key}", value, minimum=1) for key, value in sizes.items()
        )
        if width % heads:
            raise ConfigError(f"net.width = {width} must be a multiple of net.heads = {heads}.")
        encode, decode = self._coders(encoder, hidden, channels, patch)
        self.likelihood = Likelihood(likelihood, min_std, rank)
        numbers = 1 + CONDITIONS * self.conditional
        facts = 1 + hidden if aggregator == "heat" else 0
        seen_shape = (self.shape[0] + int(self.masked), *self.shape[1:])
        self.encoder = encode(seen_shape, numbers, width)
        if aggregator == "transformer":
            self.aggregate: nn.Module = TokenAggregator(width, self.causal, heads, hidden, layers)
        elif aggregator == "heat":
            self.aggregate = HeatAggregator(self.shape, width, self.causal, channels, hidden, layers)
        else:
            self.aggregate = Aggregator(aggregator, width, self.causal, heads)
        self.pool: Aggregator | None = None  # for z, where r is not a mean
        if path != "deterministic":
            self.latent = mlp(width, hidden, 2 * latent)
            self.pool = Aggregator("mean", width, self.causal) if aggregator != "mean" else None
        self.privileged = check.integer("net.privileged", privileged, minimum=0)
        if self.privileged:
            if path == "deterministic":
                raise ConfigError(
                    "net.privileged are told to a latent alone; use net.path=latent or both, or net.privileged=0."
                )
            self.hint = mlp(self.privileged + 1, hidden, hidden, width)
            self.merge = mlp(2 * width, hidden, width)
            for parameter in self.merge[-1].parameters():
                nn.init.zeros_(parameter)
        known = {"latent": latent, "deterministic": width, "both": width + latent}[path]
        self.decoder = decode(self.shape, numbers + facts, known, outputs=self.likelihood.outputs)

    @staticmethod
    def _coders(encoder: str, hidden: int, channels: int, patch: int) -> tuple[Callable[..., Any], Callable[..., Any]]:
        """What makes the encoder and the decoder that goes with it."""
        part = functools.partial
        flat, grid = part(FlatDecoder, hidden=hidden), part(GridDecoder, channels=channels)
        pairs: dict[str, tuple[Callable[..., Any], Callable[..., Any]]] = {
            "flat": (part(FlatEncoder, hidden=hidden), flat),
            "conv": (part(ConvEncoder, channels=channels), flat),
            "grid": (part(GridEncoder, channels=channels), grid),
            "set_conv": (part(SetConvEncoder, channels=channels), grid),
            "heat": (lambda *_: Frame(), part(HeatDecoder, hidden=hidden)),
            "patch": (part(PatchEncoder, hidden=hidden, patch=patch), part(PatchDecoder, hidden=hidden, patch=patch)),
        }
        return pairs[encoder]

    @staticmethod
    def _check(encoder: str, aggregator_kind: str, path: str, masked: bool) -> None:
        check.choice("net.encoder", encoder, frame_encoder.KINDS)
        check.choice("net.aggregator", aggregator_kind, aggregator.KINDS)
        check.choice("net.path", path, PATHS)
        if encoder in MAPS and path == "latent":
            raise ConfigError(
                f"net.encoder={encoder} needs its maps, which net.path=latent drops; use net.path=both or deterministic."
            )
        if encoder == "set_conv" and not masked:
            raise ConfigError("net.encoder=set_conv must be told which pixels are seen; use net.masked=true.")
        for own, other, example in (("patch", "transformer", "tnp"), ("heat", "heat", "heat_cnp")):
            if (encoder == own) != (aggregator_kind == other):
                raise ConfigError(
                    f"net.encoder={own} and net.aggregator={other} need each other, and net.encoder={encoder} has "
                    f"net.aggregator={aggregator_kind}; use net={example}."
                )
            if encoder == own and path != "deterministic":
                raise ConfigError(
                    f"net.encoder={own} has no latent, which net.path={path} needs; use net.path=deterministic."
                )
        if encoder == "heat" and masked:
            raise ConfigError("net.encoder=heat reads whole frames; use net=conv_cnp where net.masked=true.")

    def _numbers(self, times: Tensor, cond: Tensor | None) -> Tensor:
        """The times (B, M) and the map's numbers as rows, (B M, F)."""
        if not self.conditional:
            return times.reshape(-1, 1)
        assert cond is not None, "a conditional network needs told"
        return torch.cat([times[..., None], cond[:, None].expand(-1, times.shape[1], -1).to(times)], dim=-1).flatten(0, 1)

    def encode(self, context: Context) -> Tensor:
        """The encoding of every frame by itself, (B, N, R, ...)."""
        y, times = context.frames.values, context.frames.times
        if self.masked:
            pixel_mask = torch.ones_like(y[:, :, :1]) if context.pixel_mask is None else context.pixel_mask.to(y)
            y = torch.cat([y * pixel_mask, pixel_mask], dim=2)
        h = self.encoder(y.flatten(0, 1), self._numbers(times, context.cond).to(y))
        return h.unflatten(0, times.shape)

    def represent(self, context: Context, target_times: Tensor, privileged: Tensor | None = None) -> Representation:
        """What the context says at the times asked, (B, M); privileged: (B, N, P) facts of its frames, for z alone.

        If causal, z(t) is told the facts of frames up to t alone.
        """
        frames = context.frames
        h = self.encode(context)
        r = self.aggregate(h, frames.mask, frames.times, target_times)
        if isinstance(r, tuple):
            return Representation(r[0], facts=r[1])
        if self.path == "deterministic":
            return Representation(r)
        vector = r if self.pool is None else self.pool(h, frames.mask, frames.times, target_times)
        vector = vector.flatten(3).mean(3) if self.grid else vector
        if privileged is not None:
            own = self.hint(torch.cat([frames.times[..., None], privileged], dim=-1).to(vector)) * frames.mask[..., None]
            where = target_times[:, : vector.shape[1]]  # one time serves where the answer is the same at all
            mean = shares(reach(frames.mask, frames.times, where, self.causal), own) @ own
            vector = vector + self.merge(torch.cat([mean, vector], dim=-1))
        mu, raw = self.latent(vector).chunk(2, dim=-1)
        return Representation(r, mu, LEAST + (1 - LEAST) * raw.sigmoid())

    def decode(
        self, known: Representation, z: Tensor | None, target_times: Tensor, cond: Tensor | None
    ) -> tuple[Tensor, ...]:
        """What `likelihood` says at the times asked, each (K, B, M, C, H, W, ...); z: (K, B, M or 1, Z) or None."""
        (b, m), draws = target_times.shape, 1 if z is None else len(z)
        r = known.r.expand(-1, m, *known.r.shape[2:])[None].expand(draws, *[-1] * (known.r.dim()))
        if z is None:
            rows = r
        elif self.path == "latent":
            rows = z.expand(-1, -1, m, -1)
        else:
            z = z.expand(-1, -1, m, -1)
            z = z[..., None, None].expand(*z.shape, *self.shape[-2:]) if self.grid else z
            rows = torch.cat([r, z], dim=3)
        numbers = self._numbers(target_times, cond)[None].expand(draws, -1, -1).flatten(0, 1)
        if known.facts is not None:
            numbers = torch.cat([numbers, known.facts.expand(-1, m, -1).flatten(0, 1)], dim=1)
        output = self.decoder(rows.flatten(0, 2), numbers.to(rows))
        return self.likelihood(output.unflatten(0, (draws, b, m)))
