"""Networks that think in heat: fields under hypothetical heat flows, filtered in the waves of a box with insulating walls.

The waves are cosines, w_k(i) = c_k cos(pi k (i + 1/2) / n), and a field that flows as heat keeps each of them but for a
factor exp(-D lambda_k t), in units of the longer side of the box: lambda_k = n_max^2 (2 - 2 cos(pi k / n)) on each axis by
the five-point Laplacian, n_max^2 (pi k / n)^2 by the one of space.
"""

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from heatgen.basis import cosine_waves, second_difference
from heatgen.net.layers import mlp

HYPOTHESES = 24  # diffusivities that are tried, evenly in log between two at first; then they are learned
LAPLACIANS = ("five_point", "spectral")
KNOTS = 16  # of a filter, evenly in the fourth root of lambda
KERNELS = 8  # heat kernels that a prediction is put together from


class Waves(nn.Module):
    """Fields (..., H, W) in the waves of the box, and back; lambda of each wave.

    Args:
        shape: (C, H, W).
        laplacian: five_point | spectral, see above.
    """

    across: Tensor
    along: Tensor
    rows: Tensor
    columns: Tensor
    knots: Tensor

    def __init__(self, shape: Sequence[int], laplacian: str = "five_point"):
        super().__init__()
        longest = max(shape[-2:])
        for (waves, values), size in zip((("across", "rows"), ("along", "columns")), shape[-2:], strict=True):
            first = torch.arange(size)[:, None] == 0
            cosines = cosine_waves(size, torch.float32) * ((2 - first.float()) / size).sqrt()
            self.register_buffer(waves, cosines, persistent=False)
            frequencies = math.pi * torch.arange(size, dtype=torch.float32) / size
            squares = second_difference(size, torch.float32) if laplacian == "five_point" else frequencies.square()
            self.register_buffer(values, longest**2 * squares, persistent=False)
        place = (self.rows[:, None] + self.columns).flatten() ** 0.25
        place = place / place.max().clamp(min=1) * (KNOTS - 1)
        hats = (1 - (place - torch.arange(KNOTS)[:, None]).abs()).clamp(min=0)
        self.register_buffer("knots", hats, persistent=False)  # (KNOTS, H W), linear between knots; sums to 1

    def forward(self, u: Tensor) -> Tensor:
        """Coefficients (..., H W) of fields (..., H, W)."""
        return (self.across @ u @ self.along.mT).flatten(-2)

    def back(self, coefficients: Tensor) -> Tensor:
        """Fields (..., H, W) of coefficients (..., H W)."""
        square = coefficients.unflatten(-1, (len(self.rows), len(self.columns)))
        output: Tensor = self.across.mT @ square @ self.along
        return output

    def flow(self, time: Tensor) -> Tensor:
        """exp(-lambda time) of every wave, (..., H W), for times D t of any shape (...)."""
        row, column = (torch.exp(-time[..., None] * values) for values in (self.rows, self.columns))
        return (row[..., :, None] * column[..., None, :]).flatten(-2)


class Hypotheses(nn.Module):
    """The exact posterior of a Gaussian field, given frames, under each of HYPOTHESES heat flows, and how well each fits.

    Under hypothesis r every wave is N(0, s^2 / kappa_r) and frames are exp(-D_r lambda t) of it, seen through noise of
    deviation s. With g_c = exp(-D_r lambda t_c): P = kappa + sum_c g_c^2, mean = sum_c g_c y_c / P, and the log-evidence is
    sum (sum_c g_c y_c)^2 / (2 s^2 P) - ln(P / kappa) / 2 but for what all share. D, kappa and s are learned.

    Args:
        waves: of the box.
        diffusivities: (least, largest) of the D at first, in side^2 by the time of all levels.
        noise: s at first.
    """

    def __init__(self, waves: Waves, diffusivities: tuple[float, float], noise: float):
        super().__init__()
        self.waves = waves
        low, high = map(math.log, diffusivities)
        self.log_rate = nn.Parameter(torch.linspace(low, high, HYPOTHESES))
        self.log_kappa = nn.Parameter(torch.linspace(-6, 3, KNOTS).repeat(HYPOTHESES, 1))
        self.log_noise = nn.Parameter(torch.tensor(math.log(noise)))

    def forward(self, y: Tensor, times: Tensor, allowed: Tensor) -> tuple[Tensor, ...]:
        """mean, sum_c g_c y_c, (B, M, R, C, S) each; sum_c g_c^2, (B, M, R, S); log-evidence and ln(P / kappa), (B, M, R).

        y: (B, N, C, S) coefficients; times: (B, N); allowed: (B, M, N) bool.
        """
        gain = self.waves.flow(times[..., None] * self.log_rate.exp())  # (B, N, R, S)
        counted = allowed.to(y)
        (b, n, r, s), c = gain.shape, y.shape[2]
        evidence = (counted @ (gain[:, :, :, None] * y[:, :, None]).reshape(b, n, r * c * s)).reshape(b, -1, r, c, s)
        precision_sum = (counted @ gain.square().reshape(b, n, r * s)).reshape(b, -1, r, s)
        kappa = (self.log_kappa @ self.waves.knots).exp()
        precision = kappa + precision_sum
        mean = evidence / precision[:, :, :, None]
        known = (precision / kappa).log().sum(-1)
        fit = (evidence * mean).sum((-1, -2)) / (2 * torch.exp(2 * self.log_noise)) - 0.5 * c * known
        return mean, evidence, precision_sum, fit, known


class HeatBlock(nn.Module):
    """A residual block that sees the whole box: a 3 x 3 convolution and a filter of lambda, modulated by what is known.

    After it the best guess of u_0 is put right by the frames: each wave becomes the mean of what the network predicts, with
    a learned weight, and of what the frames say.
    """

    def __init__(self, waves: Waves, fields: int, channels: int, width: int):
        super().__init__()
        self.waves = waves
        self.filter = mlp(width, width, width, channels * KNOTS)
        self.near = nn.Conv2d(channels, channels, 3, padding=1, padding_mode="replicate")
        self.film = nn.Linear(width, 2 * channels)
        self.out_conv = nn.Conv2d(channels, channels, 1)
        self.learn = mlp(2 * channels + width, width, width)
        self.guess, self.look = nn.Conv2d(channels, fields, 1), nn.Conv2d(2 * fields, channels, 1)
        self.log_kappa = nn.Parameter(torch.linspace(-6, 3, KNOTS))
        for layer in (self.learn[-1], self.guess):
            for parameter in layer.parameters():
                nn.init.zeros_(parameter)

    def forward(
        self, h: Tensor, v: Tensor, x: Tensor, evidence: Tensor, precision_sum: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """A step.

        Args:
            h: features, (B, channels, H, W).
            v: features of the whole, (B, V).
            x: the best guess of u_0, (B, C, H, W).
            evidence: sum_c g_c y_c, (B, C, S).
            precision_sum: sum_c g_c^2, (B, 1, S); see `Hypotheses`.

        Returns:
            h, v and x, improved.
        """
        symbol = self.filter(v).unflatten(-1, (-1, KNOTS)) @ self.waves.knots
        gamma, beta = self.film(v)[..., None, None].chunk(2, dim=1)
        inner = F.silu((1 + gamma) * (self.near(h) + self.waves.back(symbol * self.waves(h))) + beta)
        h = h + self.out_conv(inner)
        v = v + self.learn(torch.cat([inner.mean((2, 3)), inner.square().mean((2, 3)), v], dim=1))
        guess = x + self.guess(h)
        kappa = (self.log_kappa @ self.waves.knots).exp()
        x = self.waves.back((evidence + kappa * self.waves(guess)) / (precision_sum + kappa))
        return h + self.look(torch.cat([x, guess], dim=1)), v, x
