"""What `forward=composed` is made of: functions of time over the coefficients, each with options of its own."""

import dataclasses
from collections.abc import Callable
from typing import TYPE_CHECKING, TypeVar

from torch import Tensor, nn

from heatgen import check
from heatgen.check import ConfigError
from heatgen.forward.levels import uniform
from heatgen.forward.process import TrainingData

if TYPE_CHECKING:
    from heatgen.forward.composed import Composed

T = TypeVar("T")


def option(default: T, checked: Callable[..., T], **bounds: object) -> T:
    """An option of a part: its default, and what of `heatgen.check` it must pass."""
    found: T = dataclasses.field(default=default, metadata={"check": lambda key, value: checked(key, value, **bounds)})
    return found


@dataclasses.dataclass(eq=False)
class Part(nn.Module):
    """A factor of A(t) or L(t): called with t, (B, 1, 1, 1), and the map, it gives what is broadcastable to (B, C, H, W)."""

    if TYPE_CHECKING:  # nn.Module's own is untyped

        def __call__(self, t: Tensor, process: "Composed") -> Tensor: ...

    def __post_init__(self) -> None:
        super().__init__()
        self.key = f"forward.{check.option_name(self)}"  # scale, blur, noise_scale or colour, as its file is called
        for field in dataclasses.fields(self):
            setattr(self, field.name, field.metadata["check"](f"{self.key}.{field.name}", getattr(self, field.name)))

    uses_waves = False  # whether it needs the eigenvalues of the basis

    def attach(self, process: "Composed") -> None:
        """Compute what does not depend on t. ConfigError where the part does not suit the map's basis or shape."""
        if self.uses_waves and process.basis.eigenvalues is None:
            raise ConfigError(
                f"{self.key} needs a basis with waves, which forward={process.name} has not; use forward/basis=cosine."
            )

    def prepare(self, process: "Composed", data: TrainingData) -> None:
        """Measure on training data what it needs to know, into persistent buffers; most parts need nothing."""

    def times(self, num_levels: int) -> Tensor:
        """The times of the levels that go with a noise_scale, (K+1,); t = k / K unless it has a clock of its own."""
        return uniform(num_levels)
