"""net=neural_process: a neural process composed of an encoder, an aggregator, a latent variable and a decoder."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from heatgen import check
from heatgen.basis import upcast
from heatgen.check import ConfigError
from heatgen.frames import Context, Representation
from heatgen.net.aggregator.mean import MeanAggregator
from heatgen.net.aggregator.weighted import reach, shares
from heatgen.net.layers import mlp
from heatgen.net.layout import AggregatorFactory, DecoderFactory, Encoder, EncoderFactory, Layout
from heatgen.net.likelihood.gaussian import GaussianLikelihood
from heatgen.net.unet import CONDITIONS, zero

MIN_STD = 0.1  # the least deviation of the latent variable; the largest is 1


class NeuralProcess(nn.Module):
    """p(y_t | context) = the mean over z of N(mean(t, r, z), std(t, r, z)^2), z ~ N(mu, sigma^2) from the context.

    The encoder encodes every frame by itself, the aggregator puts the encodings of the context together as r(t), and the
    decoder makes a frame of r(t), z and t. Which parts fit they say themselves (`heatgen.net.layout`). z comes from the mean
    of the encodings, whatever r comes from, with sigma = 0.1 + 0.9 sigmoid. Nothing is normalised over the batch or the
    context.

    Args:
        shape: of a frame, (C, H, W).
        encoder: what makes the encoder.
        aggregator: what makes the aggregator.
        decoder: what makes the decoder.
        likelihood: the law of a frame, given the decoder's outputs.
        causal: whether a prediction at t rests on frames up to t alone, with z(t) = mu(t) + sigma(t) eps of one eps for
            all t.
        latent: numbers of z; None for no latent.
        deterministic: whether the decoder sees r beside z; without a latent it must.
        width: R, of an encoding.
        hidden: width of the networks of z and of privileged features.
        masked: whether it sees which pixels were observed, as a channel.
        conditional: whether it sees the map's random numbers.
        privileged_dim: privileged features of each frame that z may see in training (LUPI); a residual that starts at 0
            adds their encoding, so that without them nothing changes.

    Raises:
        ConfigError: parts that do not fit, or an option out of range.

    Source: Garnelo et al. 2018 (CNP, NP); Kim et al. 2019 (attention); Gordon et al. 2020 (grids, sensors); Nguyen & Grover
    2022 (transformer); Markou et al. 2022 (low_rank).
    """

    def __init__(
        self,
        shape: Sequence[int],
        encoder: EncoderFactory,
        aggregator: AggregatorFactory,
        decoder: DecoderFactory,
        likelihood: GaussianLikelihood,
        causal: bool = False,
        latent: int | None = 32,
        deterministic: bool = False,
        width: int = 64,
        hidden: int = 128,
        masked: bool = False,
        conditional: bool = False,
        privileged_dim: int = 0,
    ):
        super().__init__()
        self.shape = check.shape("data.shape", shape)
        self.causal = check.boolean("net.causal", causal)
        self.masked = check.boolean("net.masked", masked)
        self.conditional = check.boolean("net.conditional", conditional)
        self.deterministic = check.boolean("net.deterministic", deterministic)
        width, hidden = check.integer("net.width", width, minimum=1), check.integer("net.hidden", hidden, minimum=1)
        size = 0 if latent is None else check.integer("net.latent", latent, minimum=1)
        self.privileged_dim = check.integer("net.privileged_dim", privileged_dim, minimum=0)
        self.has_latent = size > 0
        if not (self.has_latent or self.deterministic):
            raise ConfigError("net.latent=null leaves the decoder nothing to see; use net.deterministic=true.")
        if self.privileged_dim and not self.has_latent:
            raise ConfigError("net.privileged_dim is of a latent alone; set net.latent, or use net.privileged_dim=0.")
        self.likelihood = likelihood
        features = 1 + CONDITIONS * self.conditional
        self.encoder = encoder(shape=(self.shape[0] + int(self.masked), *self.shape[1:]), features=features, width=width)
        self._check_encoder(self.encoder)
        self.aggregate = aggregator(shape=self.shape, width=width, causal=self.causal)
        self.layout = self.aggregate.layouts.get(self.encoder.layout)
        if self.layout is None:
            takes = " or ".join(layout.value for layout in self.aggregate.layouts)
            raise misfit(self.encoder, "encoder", self.encoder.layout, self.aggregate, "aggregator", takes)
        self.pool: MeanAggregator | None = None  # for z, where r is not a mean
        if self.has_latent:
            self.latent = mlp(width, hidden, 2 * size)
            if not isinstance(self.aggregate, MeanAggregator):
                self.pool = MeanAggregator(self.shape, width, self.causal)
        if self.privileged_dim:
            self.privileged_encoder = mlp(self.privileged_dim + 1, hidden, hidden, width)
            self.merge = mlp(2 * width, hidden, width)
            zero(self.merge[-1])
        known = size + (width if self.deterministic else 0)
        extra, outputs = self.aggregate.features, likelihood.outputs
        self.decoder = decoder(shape=self.shape, features=features, extra=extra, width=known, outputs=outputs)
        if self.decoder.layout is not self.layout:
            raise misfit(self.aggregate, "aggregator", self.layout, self.decoder, "decoder", self.decoder.layout.value)

    def _check_encoder(self, encoder: Encoder) -> None:
        name = f"net.encoder={type(encoder).__name__}"
        if encoder.needs_mask and not self.masked:
            raise ConfigError(f"{name} must see which pixels were observed; use net.masked=true.")
        if self.masked and not encoder.reads_mask:
            raise ConfigError(f"{name} reads whole frames; use net.masked=false, or another network, such as net=conv_cnp.")
        if self.has_latent and not encoder.layout.has_mean:
            raise ConfigError(f"{name} gives {encoder.layout.value}, of which no latent is made; use net.latent=null.")
        if encoder.layout is Layout.MAP and not self.deterministic:
            raise ConfigError(f"{name} gives maps, which z alone drops; use net.deterministic=true.")

    def _features(self, times: Tensor, cond: Tensor | None) -> Tensor:
        """The times (B, M) and the map's numbers as rows, (B M, F)."""
        if not self.conditional:
            return times.reshape(-1, 1)
        assert cond is not None, "a conditional network needs cond"
        return torch.cat([times[..., None], cond[:, None].expand(-1, times.shape[1], -1).to(times)], dim=-1).flatten(0, 1)

    def encode(self, context: Context) -> Tensor:
        """The encoding of every frame by itself, (B, N, R, ...)."""
        y, times = context.frames.values, context.frames.times
        if self.masked:
            pixel_mask = torch.ones_like(y[:, :, :1]) if context.pixel_mask is None else context.pixel_mask.to(y)
            y = torch.cat([y * pixel_mask, pixel_mask], dim=2)
        h = self.encoder(y.flatten(0, 1), self._features(times, context.cond).to(y))
        output: Tensor = h.unflatten(0, times.shape)
        return output

    def represent(self, context: Context, target_times: Tensor, privileged: Tensor | None = None) -> Representation:
        """What the context says at target times.

        Args:
            context: of B tasks, N frames each.
            target_times: (B, M), in units of the last level.
            privileged: features of the frames of the context, (B, N, privileged_dim), for z alone; if causal, z(t) sees
                those of frames up to t alone.

        Returns:
            r, and mu and sigma of z where there is a latent.
        """
        frames = context.frames
        h = self.encode(context)
        r, features = self.aggregate(h, frames.mask, frames.times, target_times)
        if not self.has_latent:
            return Representation(r, features=features)
        vector = r if self.pool is None else self.pool(h, frames.mask, frames.times, target_times)[0]
        vector = vector.flatten(3).mean(3) if self.layout is Layout.MAP else vector
        if privileged is not None:
            encoded = self.privileged_encoder(torch.cat([frames.times[..., None], privileged], dim=-1).to(vector))
            encoded = encoded * frames.mask[..., None]
            where = target_times[:, : vector.shape[1]]  # one time serves where the answer is the same at all
            mean = shares(reach(frames.mask, frames.times, where, self.causal), encoded) @ encoded
            vector = vector + self.merge(torch.cat([mean, vector], dim=-1))
        mu, raw = upcast(self.latent(vector)).chunk(2, dim=-1)
        return Representation(r, mu, MIN_STD + (1 - MIN_STD) * raw.sigmoid(), features)

    def decode(
        self, known: Representation, z: Tensor | None, target_times: Tensor, cond: Tensor | None
    ) -> tuple[Tensor, ...]:
        """The parameters of the law of the frames at target times.

        Args:
            known: what the context says, of `represent`.
            z: draws of the latent, (K, B, M or 1, Z), or None.
            target_times: (B, M).
            cond: the map's random numbers, (B, 2), where conditional.

        Returns:
            What the likelihood returns, each (K, B, M, C, H, W, ...).
        """
        (b, m), draws = target_times.shape, 1 if z is None else len(z)
        r = known.r.expand(-1, m, *known.r.shape[2:])[None].expand(draws, *[-1] * (known.r.dim()))
        if z is None:
            rows = r
        elif not self.deterministic:
            rows = z.expand(-1, -1, m, -1)
        else:
            z = z.expand(-1, -1, m, -1)
            z = z[..., None, None].expand(*z.shape, *self.shape[-2:]) if self.layout is Layout.MAP else z
            rows = torch.cat([r, z], dim=3)
        features = self._features(target_times, cond)[None].expand(draws, -1, -1).flatten(0, 1)
        if known.features is not None:
            features = torch.cat([features, known.features.expand(-1, m, -1).flatten(0, 1)], dim=1)
        output = self.decoder(rows.flatten(0, 2), features.to(rows))
        result: tuple[Tensor, ...] = self.likelihood(upcast(output).unflatten(0, (draws, b, m)))
        return result


def misfit(giver: object, part: str, gives: Layout, taker: object, other: str, takes: str) -> ConfigError:
    """The error for two parts of which the second does not take what the first gives."""
    return ConfigError(
        f"net.{part}={type(giver).__name__} gives {gives.value}, and net.{other}={type(taker).__name__} takes {takes}; "
        f"choose another net/{part} or net/{other}."
    )
