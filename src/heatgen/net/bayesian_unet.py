"""net=bayesian_unet: a small periodic U-Net whose dropped channels are draws of an approximate posterior of its weights."""

from collections.abc import Callable, Sequence
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from heatgen import check
from heatgen.check import ConfigError
from heatgen.net.encoder_decoder import LAST_KERNEL, SLOPE, Constants, check_pixels, periodic
from heatgen.net.unet import zero
from heatgen.noise import Noise

ACTIVATIONS: dict[str, Callable[[], nn.Module]] = {"leaky_relu": lambda: nn.LeakyReLU(SLOPE), "none": nn.Identity}


class SpatialDropout(nn.Module):
    """Drops whole channels with probability `rate` and divides the others by 1 - rate, in training or where `source` is set.

    source: what the masks are drawn from, an object with normal_like (see heatgen.noise), so that each sample may have a
    stream of its own; None for torch's own generator. A channel is dropped where its normal number is below the quantile.
    Source: Tompson et al. 2015; Gal and Ghahramani 2016.
    """

    def __init__(self, rate: float):
        super().__init__()
        self.rate = rate
        self.quantile = torch.special.ndtri(torch.tensor(rate, dtype=torch.float64)).item()
        self.source: Noise | None = None

    def forward(self, x: Tensor) -> Tensor:
        """x: (B, C, H, W). Returns the same shape."""
        if self.rate == 0 or not (self.training or self.source is not None):
            return x
        corner = x[:, :, :1, :1].detach()
        eps = torch.randn_like(corner) if self.source is None else self.source.normal_like(corner)
        output: Tensor = x * ((eps >= self.quantile).to(x) / (1 - self.rate))
        return output


class BayesianUNet(nn.Module):
    """net(x, t) -> like x: a U-Net with spatial dropout behind every convolution, all of them periodic.

    A level is two times convolution 3 x 3, activation, dropout; between levels max-pooling by 2, and nearest-neighbour
    upsampling beside the concatenated skip; the last convolution is 5 x 5. The output starts at 0.

    Args:
        shape: (C, H, W), any H and W from 2.
        channels: the width of each resolution.
        dropout: the share of channels that are dropped, less than 1.
        activation: leaky_relu, or none as in the published code.
        time: whether it sees t / num_levels, as a constant channel, as `cond` is too. For the others see `heatgen.net`.

    Raises:
        ConfigError: an option is out of range, or there are more resolutions than H and W can be halved.

    Source: the Bayesian neural network of Holzschuh et al. 2023, with activations.
    """

    def __init__(
        self,
        shape: Sequence[int],
        channels: Sequence[int] = (16, 32, 48, 64),
        dropout: float = 0.1,
        activation: str = "leaky_relu",
        time: bool = True,
        num_levels: int = 100,
        conditional: bool = False,
        inputs: int = 1,
    ):
        super().__init__()
        shape = check.shape("data.shape", shape)
        widths = check.shape("net.channels", channels)
        rate = check.number("net.dropout", dropout, minimum=0, maximum=1)
        if rate == 1:
            raise ConfigError("net.dropout must be less than 1: at 1 nothing of the network is left.")
        function = ACTIVATIONS[check.choice("net.activation", activation, tuple(ACTIVATIONS))]
        check_pixels(shape, LAST_KERNEL)
        fitting = min(shape[1:]).bit_length()  # 1 + how often both sides can be halved
        if len(widths) > fitting:
            pixels = f"{shape[1]} x {shape[2]} pixels"
            raise ConfigError(f"net.channels may have {fitting} levels for {pixels}, not {len(widths)}.")

        def level(inputs: int, width: int) -> nn.Sequential:
            layers = [(periodic(n, width, 3), function(), SpatialDropout(rate)) for n in (inputs, width)]
            return nn.Sequential(*layers[0], *layers[1])

        self.constants = Constants(time, num_levels, conditional)
        entries = [check.integer("net.inputs", inputs, minimum=1) * shape[0] + self.constants.channels, *widths[:-1]]
        self.down = nn.ModuleList([level(inputs, width) for inputs, width in zip(entries, widths, strict=True)])
        self.up = nn.ModuleList([level(below + width, width) for width, below in pairwise(widths)])
        self.out_conv = zero(periodic(widths[0], shape[0], LAST_KERNEL))

    def forward(self, x: Tensor, t: Tensor, cond: Tensor | None = None) -> Tensor:
        h = self.constants(x, t, cond)
        skips: list[Tensor] = []
        for i, level in enumerate(self.down):
            h = level(h if i == 0 else F.max_pool2d(h, 2))
            skips.append(h)
        for level, skip in reversed(list(zip(self.up, skips, strict=False))):
            h = level(torch.cat([F.interpolate(h, size=skip.shape[-2:], mode="nearest"), skip], dim=1))
        output: Tensor = self.out_conv(h)
        return output
