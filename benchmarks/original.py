"""The training and sampling of inverse heat dissipation as the original code has them, written anew from their description.

The arithmetic is the paper's (Rissanen et al. 2023, Algorithms 1 and 2, appendix B) in the manner of the original: cosine
transforms by FFT, widths in float64, group norms in float32, attention as two products of matrices whose activations are
computed again on the way back, one tensor at a time in Adam and in the averages. It is what `heatgen` is compared with.
"""

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint


def dct(x: Tensor) -> Tensor:
    """The orthonormal DCT-II along the last axis, by an FFT of the reordered signal (Makhoul 1980)."""
    n = x.shape[-1]
    waves = torch.fft.fft(torch.cat([x[..., ::2], x[..., 1::2].flip(-1)], dim=-1))
    angle = torch.arange(n, dtype=x.dtype, device=x.device) * (math.pi / (2 * n))
    c: Tensor = (waves.real * angle.cos() + waves.imag * angle.sin()) * math.sqrt(2 / n)
    c[..., 0] /= math.sqrt(2)
    return c


def idct(c: Tensor) -> Tensor:
    """Its inverse."""
    n = c.shape[-1]
    scaled = c * math.sqrt(n / 2)
    scaled[..., 0] *= math.sqrt(2)
    angle = torch.arange(n, dtype=c.dtype, device=c.device) * (math.pi / (2 * n))
    mirrored = torch.cat([torch.zeros_like(scaled[..., :1]), -scaled[..., 1:].flip(-1)], dim=-1)
    waves = torch.complex(scaled * angle.cos() - mirrored * angle.sin(), scaled * angle.sin() + mirrored * angle.cos())
    v = torch.fft.ifft(waves).real
    x = torch.empty_like(v)
    x[..., ::2], x[..., 1::2] = v[..., : (n + 1) // 2], v[..., (n + 1) // 2 :].flip(-1)
    return x


def dct_2d(x: Tensor) -> Tensor:
    """The two-dimensional DCT-II, axis by axis."""
    return dct(dct(x).mT).mT


def idct_2d(c: Tensor) -> Tensor:
    """Its inverse."""
    return idct(idct(c).mT).mT


class Blur(nn.Module):
    """exp(-lambda t) on the cosine coefficients of square images, t = width^2 / 2 of integer levels, in float64."""

    widths: Tensor
    eigenvalues: Tensor

    def __init__(self, size: int, num_levels: int, largest: float, smallest: float = 0.5):
        super().__init__()
        widths = torch.linspace(math.log(smallest), math.log(largest), num_levels, dtype=torch.float64).exp()
        self.register_buffer("widths", torch.cat([torch.zeros(1, dtype=torch.float64), widths]))
        frequencies = math.pi * torch.arange(size) / size
        self.register_buffer("eigenvalues", frequencies[:, None] ** 2 + frequencies[None, :] ** 2)

    def forward(self, x: Tensor, levels: Tensor) -> Tensor:
        t = (self.widths[levels] ** 2 / 2)[:, None, None, None]
        return idct_2d(dct_2d(x) * torch.exp(-self.eigenvalues * t))


class Norm(nn.GroupNorm):
    """A group norm in float32, whatever comes in."""

    def forward(self, x: Tensor) -> Tensor:
        output: Tensor = super().forward(x.float()).type(x.dtype)
        return output


class Residual(nn.Module):
    """Two convolutions, the level's embedding between them, and a skip."""

    def __init__(self, channels: int, out_channels: int, embedding: int, dropout: float, groups: int):
        super().__init__()
        self.enter = nn.Sequential(Norm(groups, channels), nn.SiLU(), nn.Conv2d(channels, out_channels, 3, padding=1))
        self.level = nn.Sequential(nn.SiLU(), nn.Linear(embedding, out_channels))
        self.leave = nn.Sequential(
            Norm(groups, out_channels), nn.SiLU(), nn.Dropout(dropout), nn.Conv2d(out_channels, out_channels, 3, padding=1)
        )
        self.skip = nn.Identity() if channels == out_channels else nn.Conv2d(channels, out_channels, 1)

    def forward(self, x: Tensor, embedding: Tensor) -> Tensor:
        h = self.enter(x)
        level = self.level(embedding).type(h.dtype)
        while level.dim() < h.dim():
            level = level[..., None]
        output: Tensor = self.skip(x) + self.leave(h + level)
        return output


class Attention(nn.Module):
    """One head over all pixels; what lies between is computed again on the way back."""

    def __init__(self, channels: int, groups: int):
        super().__init__()
        self.norm = Norm(groups, channels)
        self.qkv = nn.Conv1d(channels, 3 * channels, 1)
        self.out = nn.Conv1d(channels, channels, 1)

    def _attend(self, x: Tensor) -> Tensor:
        flat = x.reshape(*x.shape[:2], -1)
        q, k, v = self.qkv(self.norm(flat)).chunk(3, dim=1)
        scale = q.shape[1] ** -0.25
        weight = torch.einsum("bct,bcs->bts", q * scale, k * scale)
        weight = torch.softmax(weight.float(), dim=-1).type(weight.dtype)
        output: Tensor = flat + self.out(torch.einsum("bts,bcs->bct", weight, v))
        return output.reshape(x.shape)

    def forward(self, x: Tensor) -> Tensor:
        if torch.is_grad_enabled():
            output: Tensor = checkpoint(self._attend, x, use_reentrant=False)
            return output
        return self._attend(x)


class Upsample(nn.Module):
    """Every pixel four times, then a convolution."""

    def __init__(self, channels: int):
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        output: Tensor = self.conv(F.interpolate(x, scale_factor=2, mode="nearest"))
        return output


class Block(nn.Sequential):
    """Layers of which the residual ones see the embedding."""

    def forward(self, x: Tensor, embedding: Tensor) -> Tensor:  # type: ignore[override]
        for layer in self:
            x = layer(x, embedding) if isinstance(layer, Residual) else layer(x)
        return x


class UNet(nn.Module):
    """f(u, k): the U-Net of improved diffusion models, the level by a sinusoid of the integer k."""

    def __init__(
        self,
        channels: int,
        width: int,
        multipliers: Sequence[int],
        blocks: int,
        attention_levels: Sequence[int],
        dropout: float,
        groups: int = 32,
    ):
        super().__init__()
        self.width, embedding = width, 4 * width
        self.embed = nn.Sequential(nn.Linear(width, embedding), nn.SiLU(), nn.Linear(embedding, embedding))

        def made(inputs: int, level: int) -> list[nn.Module]:
            out = width * multipliers[level]
            attention = [Attention(out, groups)] if level in attention_levels else []
            return [Residual(inputs, out, embedding, dropout, groups), *attention]

        now, skips = width, [width]
        self.down = nn.ModuleList([Block(nn.Conv2d(channels, width, 3, padding=1))])
        for level in range(len(multipliers)):
            for _ in range(blocks):
                self.down.append(Block(*made(now, level)))
                now = width * multipliers[level]
                skips.append(now)
            if level < len(multipliers) - 1:
                self.down.append(Block(nn.Conv2d(now, now, 3, stride=2, padding=1)))
                skips.append(now)
        residuals = [Residual(now, now, embedding, dropout, groups) for _ in range(2)]
        self.middle = Block(residuals[0], Attention(now, groups), residuals[1])
        self.up = nn.ModuleList()
        for level in reversed(range(len(multipliers))):
            for i in range(blocks + 1):
                layers = made(now + skips.pop(), level)
                now = width * multipliers[level]
                self.up.append(Block(*layers, *([Upsample(now)] if level > 0 and i == blocks else [])))
        self.out = nn.Sequential(Norm(groups, now), nn.SiLU(), nn.Conv2d(now, channels, 3, padding=1))

    def forward(self, x: Tensor, levels: Tensor) -> Tensor:
        half = self.width // 2
        frequencies = torch.exp(-math.log(10000) / half * torch.arange(half, dtype=torch.float32, device=x.device))
        angles = levels[:, None].float() * frequencies[None]
        embedding = self.embed(torch.cat([angles.cos(), angles.sin()], dim=-1))
        skips, h = [], x
        for block in self.down:
            h = block(h, embedding)
            skips.append(h)
        h = self.middle(h, embedding)
        for block in self.up:
            h = block(torch.cat([h, skips.pop()], dim=1), embedding)
        output: Tensor = self.out(h)
        return output


class Averages:
    """The averaged weights, one tensor at a time."""

    def __init__(self, parameters: Sequence[nn.Parameter], rate: float):
        self.rate, self.updates = rate, 0
        self.shadows = [p.clone().detach() for p in parameters]

    @torch.no_grad()
    def update(self, parameters: Sequence[nn.Parameter]) -> None:
        self.updates += 1
        decay = min(self.rate, (1 + self.updates) / (10 + self.updates))
        for shadow, p in zip(self.shadows, parameters, strict=True):
            shadow.sub_((1 - decay) * (shadow - p))


class Training:
    """One step of the original's loop a call: levels 1 .. K-1, the sum over pixels, clipped, Adam with a warm-up, averages.

    Args:
        net, blur: on one device.
        u0: the batch, (B, C, H, W).
        sigma: of the forward noise.
        rate, warmup, ema: of the published settings.
    """

    def __init__(
        self,
        net: UNet,
        blur: Blur,
        u0: Tensor,
        sigma: float = 0.01,
        rate: float = 2e-4,
        warmup: int = 5000,
        ema: float = 0.999,
    ):
        self.net, self.blur, self.u0, self.sigma, self.rate, self.warmup = net.train(), blur, u0, sigma, rate, warmup
        self.parameters = list(net.parameters())
        self.optimizer = torch.optim.Adam(self.parameters, lr=rate, betas=(0.9, 0.999), eps=1e-8)
        self.averages, self.step = Averages(self.parameters, ema), 0

    def loss(self) -> Tensor:
        levels = torch.randint(1, len(self.blur.widths) - 1, (len(self.u0),), device=self.u0.device)
        blurred = self.blur(self.u0, levels).float()
        less = self.blur(self.u0, levels - 1).float()
        perturbed = blurred + self.sigma * torch.randn_like(blurred)
        gap = less - (perturbed + self.net(perturbed, levels))
        loss: Tensor = (gap**2).reshape(len(gap), -1).sum(dim=-1).mean()
        return loss

    def __call__(self) -> float:
        self.optimizer.zero_grad()
        loss = self.loss()
        loss.backward()
        for group in self.optimizer.param_groups:
            group["lr"] = self.rate * min(self.step / self.warmup, 1.0)
        torch.nn.utils.clip_grad_norm_(self.parameters, max_norm=1.0)
        self.optimizer.step()
        self.step += 1
        self.averages.update(self.parameters)
        return loss.item()


class Sampling:
    """So many steps of the original's sampler a call: u <- u + f(u, k) + delta eps."""

    def __init__(self, net: UNet, u: Tensor, levels: int, delta: float = 0.0125):
        self.net, self.u, self.levels, self.delta = net.eval(), u, levels, delta

    @torch.no_grad()
    def __call__(self) -> Tensor:
        u = self.u
        mean = u
        for k in range(self.levels, 0, -1):
            levels = torch.ones(len(u), dtype=torch.long, device=u.device) * k
            mean = u + self.net(u, levels)
            u = mean + self.delta * torch.randn_like(u)
        return mean
