"""forward=composed: a map made of a scale, a blur, a noise scale, a colour and a basis. Most published ones are presets."""

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn

from heatgen import check
from heatgen.basis import Basis
from heatgen.check import ConfigError
from heatgen.forward.levels import uniform
from heatgen.forward.process import ForwardProcess, TrainingData

Part = Callable[[Tensor, "Composed"], Tensor]  # (t, (B, 1, 1, 1), the map) -> broadcastable to (B, C, H, W)
NEAR = 1e-6  # of the first level: the time that stands for t = 0, where a square root has no slope
LEAST = 1e-6  # of the noise of a coefficient beside the largest: beyond, float32 and the variances of steps lose it


class Measured(nn.Module):
    """A part that is measured on training data: it keeps what it found in persistent buffers."""

    def attach(self, process: "Composed") -> None:
        """Make the buffers."""

    def prepare(self, process: "Composed", data: TrainingData) -> None:
        """Measure."""


class Composed(ForwardProcess):
    """u_t = scale(t) blur_i(t) u_0 + noise_scale(t) colour_i(t) eps, for each coefficient i of a basis.

    Args:
        noise_scale: of all coefficients alike, or of each; 0 at t = 0; needed.
        basis: (height, width) -> the basis; needed.
        scale, blur: of u_0, of all coefficients alike and of each; 1 at t = 0; None: 1.
        colour: of the noise of each coefficient; None: white.
        levels: K -> the times of the levels, (K+1,); None: t = k / K.
        name: what messages call the map: that of its config. For the others see `heatgen.forward`.
    Raises:
        ConfigError: a value is out of range, or a part does not suit the basis.
    """

    def __init__(
        self,
        shape: tuple[int, ...],
        noise_scale: Part | None = None,
        basis: Callable[[int, int], Basis] | None = None,
        num_levels: int = 100,
        scale: Part | None = None,
        blur: Part | None = None,
        colour: Part | None = None,
        levels: Callable[[int], Tensor] | None = None,
        name: str = "composed",
    ):
        self._name = check.name("forward.name", name)
        needed, others = {"noise_scale": noise_scale, "basis": basis}, {"scale": scale, "blur": blur, "colour": colour}
        for key, part in (needed | others | {"levels": levels}).items():
            if part is None and key in needed:
                raise ConfigError(f"forward={name} needs forward.{key}; choose it with forward/{key}=NAME.")
            if part is not None and not callable(part):
                raise ConfigError(f"forward.{key} has options and no name; choose forward/{key}=NAME too, or remove them.")
        assert noise_scale is not None and basis is not None, "refused above"
        height, width = check.shape("data.shape", shape)[-2:]
        times = (levels or uniform)(check.integer("forward.num_levels", num_levels, minimum=1))
        super().__init__(shape, times, basis(height, width))
        self.scale, self.blur, self.noise_scale, self.colour = scale, blur, noise_scale, colour
        self.measured = [part for part in (scale, blur, noise_scale, colour) if isinstance(part, Measured)]
        for part in self.measured:
            part.attach(self)
        self.product(times[-1:], scale, blur)  # refuses options out of range
        std = self.product(times[-1:], noise_scale, colour)
        if not std.min() >= LEAST * std.max():  # also for NaN
            raise ConfigError(
                f"forward={name} leaves some coefficient less than {LEAST:g} of the noise of another at level K; use a "
                "forward/colour nearer to white, or a forward/noise_scale that does not follow the gain of each."
            )

    @property
    def name(self) -> str:
        """The config name of the map, which a preset sets."""
        return self._name

    def waves(self, key: str) -> Tensor:
        """Minus the Laplacian of each coefficient, (H, W). ConfigError, by the key of what needs it, where there is none."""
        if self.basis.eigenvalues is None:
            raise ConfigError(
                f"{key} needs a basis with waves, which forward={self.name} has not; use forward/basis=cosine."
            )
        return self.basis.eigenvalues

    def prepare(self, data: TrainingData) -> None:
        """Measure the parts that are on training data."""
        for part in self.measured:
            part.prepare(self, data)

    def product(self, t: Tensor, *parts: Part | None) -> Tensor:
        """The product of some of the parts at times t, (B,)."""
        time = self.column(t)
        return math.prod((part(time, self) for part in parts if part is not None), start=torch.ones_like(time))

    def gain(self, t: Tensor) -> Tensor:
        """scale(t) blur_i(t), (B, 1, 1, 1) or (B, 1, H, W)."""
        return self.product(t, self.scale, self.blur)

    def std(self, t: Tensor) -> Tensor:
        """noise_scale(t) colour_i(t), (B, 1, 1, 1), (B, 1, H, W) or (B, C, H, W)."""
        return self.product(t, self.noise_scale, self.colour)

    def rate(self, t: Tensor) -> Tensor:
        """The diagonal of A' A^-1; at t = 0 its limit from above."""
        return super().rate(t.double().clamp(min=NEAR * self.times[1])).to(t)

    def diffusion(self, t: Tensor) -> Tensor:
        """The diagonal of g(t); at t = 0 its limit from above."""
        return super().diffusion(t.double().clamp(min=NEAR * self.times[1])).to(t)
