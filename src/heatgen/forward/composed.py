"""forward=composed: a map made of a scale, a blur, a noise scale, a colour and a basis. Most published ones are presets."""

import math
from collections.abc import Callable

import torch
from torch import Tensor

from heatgen import check
from heatgen.basis import Basis
from heatgen.check import ConfigError
from heatgen.forward.part import Part
from heatgen.forward.process import ForwardProcess, TrainingData

NEAR = 1e-6  # of the first level: the time that stands for t = 0, where a square root has no slope


class Composed(ForwardProcess):
    """u_t = scale(t) blur_i(t) u_0 + noise_scale(t) colour_i(t) eps, for each coefficient i of a basis.

    Clock: t = k / K, unless noise_scale has one of its own. Each part is a function of t and of the map (`forward.part`).

    Args:
        shape: (C, H, W).
        noise_scale: of all coefficients alike, or of each.
        basis: (height, width) -> the basis.
        num_levels: K, at least 1.
        scale, blur: of u_0, of all coefficients alike and of each; None: 1.
        colour: of the noise of each coefficient; None: white.
        name: what messages call the map: that of its config.
    Raises:
        ConfigError: a value is out of range, or a part does not suit the basis.
    """

    def __init__(
        self,
        shape: tuple[int, ...],
        noise_scale: Part,
        basis: Callable[[int, int], Basis],
        num_levels: int = 100,
        scale: Part | None = None,
        blur: Part | None = None,
        colour: Part | None = None,
        name: str = "composed",
    ):
        self._name = check.name("forward.name", name)
        for key, part in {"scale": scale, "blur": blur, "noise_scale": noise_scale, "colour": colour}.items():
            if not isinstance(part, Part) and (part is not None or key == "noise_scale"):
                raise ConfigError(
                    f"forward.{key} is a part with options of its own, not {part!r}; choose forward/{key}=NAME."
                )
        height, width = check.shape("data.shape", shape)[-2:]
        times = noise_scale.times(check.integer("forward.num_levels", num_levels, minimum=1))
        super().__init__(shape, times, basis(height, width))
        self.scale, self.blur, self.noise_scale, self.colour = scale, blur, noise_scale, colour
        self.parts = [part for part in (scale, blur, noise_scale, colour) if part is not None]
        for part in self.parts:
            part.attach(self)

    @property
    def name(self) -> str:
        """The config name of the map, which a preset sets."""
        return self._name

    @property
    def eigenvalues(self) -> Tensor:
        """Minus the Laplacian of each coefficient, (H, W), for parts with `uses_waves`."""
        assert self.basis.eigenvalues is not None, "attach refuses such a basis"
        return self.basis.eigenvalues

    def prepare(self, data: TrainingData) -> None:
        """Let the parts measure what they need on training data."""
        for part in self.parts:
            part.prepare(self, data)

    def gain(self, t: Tensor) -> Tensor:
        """scale(t) blur_i(t), (B, 1, 1, 1) or (B, 1, H, W)."""
        return self._product(t, self.scale, self.blur)

    def std(self, t: Tensor) -> Tensor:
        """noise_scale(t) colour_i(t), (B, 1, 1, 1), (B, 1, H, W) or (B, C, H, W)."""
        return self._product(t, self.noise_scale, self.colour)

    def _product(self, t: Tensor, *parts: Part | None) -> Tensor:
        time = self.column(t)
        return math.prod((part(time, self) for part in parts if part is not None), start=torch.ones_like(time))

    def rate(self, t: Tensor) -> Tensor:
        """The diagonal of A' A^-1; at t = 0 its limit from above."""
        return super().rate(self._above_0(t)).to(t)

    def diffusion(self, t: Tensor) -> Tensor:
        """The diagonal of g(t); at t = 0 its limit from above."""
        return super().diffusion(self._above_0(t)).to(t)

    def _above_0(self, t: Tensor) -> Tensor:
        return t.double().clamp(min=NEAR * self.times[1])
