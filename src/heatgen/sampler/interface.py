"""What samplers need of a model, as protocols, and the check that a sampler and a model fit.

A sampler says what it needs by the annotation of its first parameter; a new sampler may bring a protocol of its own.
"""

import functools
import importlib
import inspect
import pkgutil
import typing
from collections.abc import Callable
from types import FunctionType
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from torch import Tensor

from heatgen import sampler as samplers
from heatgen.check import ConfigError, option_name
from heatgen.noise import Noise

OnStep = Callable[[int, Tensor], None]  # on_step(k, u_k), called with every state on the way


class Process(Protocol):
    """The forward process u_t = A(t) u_0 + b(t) + L(t) eps, as far as samplers use it."""

    @property
    def name(self) -> str:
        """What a config calls the map."""

    def column(self, t: Tensor) -> Tensor:
        """t of shape (B,) as (B, 1, 1, 1)."""

    def level(self, t: Tensor) -> Tensor:
        """The level 0 .. K at time t, linear between levels, (B,) float64."""

    def mean(self, u0: Tensor, t: Tensor) -> Tensor:
        """A(t) u_0 + b(t), (B, C, H, W)."""

    def std(self, t: Tensor) -> Tensor:
        """The diagonal of L(t) over the coefficients, broadcastable to (B, C, H, W)."""

    def scale_coefficients(self, eps: Tensor, std: Tensor) -> Tensor:
        """eps with each coefficient multiplied by `std`."""

    def raised(self, t: Tensor, factor: float, least: float, most: float) -> list[Tensor | None]:
        """Times of `factor` times the noise over signal of times t, (N,); None where that is not in least .. most."""

    def increment(self, u: Tensor, s: Tensor, t: Tensor) -> Tensor:
        """The mean change of u_s = u until t, (B, C, H, W)."""

    def step_std(self, s: Tensor, t: Tensor) -> Tensor:
        """The noise of the map's own step from s to t over the coefficients."""

    def diffusion(self, t: Tensor) -> Tensor:
        """The diagonal of g(t) over the coefficients, of the map as an SDE du = f dt + g dW."""


class HasProcess(Protocol):
    """A model of u_0 under a forward process."""

    if TYPE_CHECKING:  # a submodule of an nn.Module, which isinstance need not look for: every model has it

        @property
        def process(self) -> Process: ...


@runtime_checkable
class ReverseModel(HasProcess, Protocol):
    """Gaussian reverse steps: u_s = reverse_mean(u_t) + reverse_noise(eps)."""

    noise_last_step: bool  # whether the step to t = 0 has noise too

    def reverse_mean(self, u: Tensor, t: Tensor, s: Tensor) -> Tensor:
        """The mean of u_s given u_t = u, (B, C, H, W), for times t > s, (B,)."""

    def reverse_noise(self, eps: Tensor, t: Tensor, s: Tensor) -> Tensor:
        """The noise of that step, from white noise eps, (B, C, H, W)."""


@runtime_checkable
class ScoreModel(HasProcess, Protocol):
    """The score, and the two steps back that are made of it."""

    def score(self, u: Tensor, t: Tensor) -> Tensor:
        """The gradient of log p_t(u), (B, C, H, W), for times t > 0, (B,)."""

    def physics_step(self, u: Tensor, t: Tensor, s: Tensor, factor: float) -> Tensor:
        """The map's own step reversed, from t to s, with `factor` times the score."""

    def euler_step(self, u: Tensor, t: Tensor, s: Tensor, factor: float) -> Tensor:
        """The explicit Euler step of the reverse equation, from t to s, with `factor` times the score."""


@runtime_checkable
class Denoiser(HasProcess, Protocol):
    """An estimate of u_0, and the noise that goes with it."""

    def denoise(self, u: Tensor, t: Tensor) -> Tensor:
        """E[u_0 | u_t = u], (B, C, H, W)."""

    def noise_estimate(self, u: Tensor, t: Tensor, u0: Tensor) -> Tensor:
        """eps = L(t)^-1 (u - A(t) u_0 - b(t)), (B, C, H, W)."""


@runtime_checkable
class GaussianDenoiser(Denoiser, Protocol):
    """A denoiser for steps that add Gaussian noise."""

    @property
    def gaussian_noise(self) -> bool:
        """Whether the noise of its map is Gaussian, and independent of u_0."""


@runtime_checkable
class ExactModel(HasProcess, Protocol):
    """Exact draws of u_0 given u_t."""

    def exact(self, u: Tensor, t: Tensor, answer: str, rng: Noise | None) -> Tensor:
        """A draw of u_0 given u_t = u (answer "sample"), its "mean", or the end of the probability "flow"."""


class Sampler(Protocol):
    """sampler(model, u_K, times, rng, on_step) -> u_0: a pure function of any ascending times, its own options bound."""

    def __call__(
        self,
        model: Any,  # each sampler names the protocol it needs
        u: Tensor,
        times: Tensor,
        rng: Noise | None = None,
        on_step: OnStep | None = None,
    ) -> Tensor:
        """Samples of u_0 from u = u_K.

        Args:
            model: what the sampler's own annotation says.
            u: states at the last of the times, (B, C, H, W).
            times: (K + 1,) ascending, on the map's clock.
            rng: where noise comes from; None: torch's own generator.
            on_step: called with (k, u_k) for k = K-1 .. 0.
        """


def function_of(sampler: Callable[..., object]) -> Callable[..., object]:
    """The function that a sampler is, without its bound options; of a callable object, its __call__."""
    function = sampler.func if isinstance(sampler, functools.partial) else sampler
    return function if isinstance(function, FunctionType) else type(function).__call__


def protocol_of(sampler: Callable[..., object]) -> type | None:
    """The protocol that the first parameter of a sampler is annotated with; None where it is none."""
    function = function_of(sampler)
    first = next(name for name in inspect.signature(function).parameters if name != "self")
    try:
        protocol = typing.get_type_hints(function).get(first)
    except NameError:  # an annotation that its author imports for type checkers alone
        return None
    return protocol if getattr(protocol, "_is_protocol", False) else None


def members_of(protocol: type) -> list[str]:
    """The names of what a protocol asks for, its own first, methods before attributes."""
    names = [name for base in protocol.__mro__ for name in (*vars(base), *inspect.get_annotations(base))]
    return [name for name in dict.fromkeys(names) if not name.startswith("_")]


def suitable(model: object) -> list[str]:
    """The names of heatgen's samplers that take a model, in alphabetical order."""
    names = []
    for name in sorted(module.name for module in pkgutil.iter_modules(samplers.__path__)):
        function = getattr(importlib.import_module(f"{samplers.__name__}.{name}"), name, None)
        protocol = protocol_of(function) if callable(function) else None
        if protocol is not None and isinstance(model, protocol):
            names.append(name)
    return names


def check_pair(sampler: Callable[..., object], model: object) -> None:
    """Check that a model has what a sampler needs of it.

    Args:
        sampler: a sampler, or one with its options bound by functools.partial.
        model: the model it is to draw from.

    Raises:
        ConfigError: it lacks something; the message names the samplers that suit the model.
    """
    protocol = protocol_of(sampler)
    if protocol is None or isinstance(model, protocol):
        return
    missing = next(name for name in members_of(protocol) if getattr(model, name, None) is None)
    model_name = option_name(model)
    suited = " or ".join(suitable(model))
    raise ConfigError(
        f"sampler={function_of(sampler).__name__} needs {missing}, which model={model_name} lacks"
        + (f"; use sampler={suited}." if suited else "; use another model.")
    )
