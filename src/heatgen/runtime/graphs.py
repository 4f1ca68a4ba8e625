"""CUDA graphs of a network: its kernels are captured once, and launched together where the host would launch each."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from heatgen.check import ConfigError
from heatgen.runtime import engine

MOST = 2  # shapes that are captured: that of a batch, and of the last one; others are called as they are
WARM = 3  # calls before one is captured, in which libraries choose their kernels

Forward = Callable[..., Tensor]
Input = Tensor | None


def capture_calls(net: nn.Module, device: torch.device, obstacle: str = "") -> None:
    """From here on calls of a network are captured, in place: its names and weights are the same, which may change in place.

    Args:
        net: on the device.
        device: where it is called.
        obstacle: why its calls cannot be captured, if so.

    Raises:
        ConfigError: they cannot.
    """
    if any(hasattr(layer, "source") for layer in net.modules()):
        obstacle = obstacle or "the layers of this network draw masks in each call"
    obstacle = obstacle or ("" if device.type == "cuda" else "it needs a CUDA GPU")
    if obstacle:
        raise cannot(obstacle)
    net.forward = Graphed(net)


def cannot(reason: str) -> ConfigError:
    """The sentence for a network whose calls cannot be captured."""
    return ConfigError(f"cuda_graphs=true cannot act, as {reason}; use cuda_graphs=false.")


class Graphed:
    """The forward of a network whose calls are captured by shape, dtype and autocast.

    Calls that a derivative may be taken of, those in training mode and those on a CPU are made as they are.
    """

    def __init__(self, net: nn.Module):
        self.net = net
        self.eager: Forward = net.forward
        self.known: dict[tuple[object, ...], Callable[[Sequence[Input]], Tensor]] = {}

    def __call__(self, *inputs: Input) -> Tensor:
        derivative = torch.is_grad_enabled() or engine.in_forward_mode()
        if derivative or self.net.training or not all(x is None or x.is_cuda for x in inputs):
            return self.eager(*inputs)
        kinds = [x if x is None else (x.shape, x.dtype, x.device) for x in inputs]
        key = (*kinds, torch.is_autocast_enabled("cuda"), torch.get_autocast_dtype("cuda"))
        if key not in self.known:
            if len(self.known) == MOST:
                return self.eager(*inputs)
            self.known[key] = capture(self.eager, inputs)
        return self.known[key](inputs)


def capture(forward: Forward, inputs: Sequence[Input]) -> Callable[[Sequence[Input]], Tensor]:
    """forward(*inputs) as a graph: what copies inputs of the same shapes to its own, replays it, and copies its output.

    Casts of weights under autocast are a part of it: those that autocast keeps are gone when the graph is replayed.

    Source: torch.cuda.make_graphed_callables.
    """
    own = [x if x is None else x.clone() for x in inputs]
    device = next(x.device for x in own if x is not None)
    enabled, dtype = torch.is_autocast_enabled("cuda"), torch.get_autocast_dtype("cuda")
    graph, side = torch.cuda.CUDAGraph(), torch.cuda.Stream(device)
    with torch.cuda.device(device), torch.autocast("cuda", dtype, enabled, cache_enabled=False):
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            for _ in range(WARM):
                forward(*own)
        torch.cuda.current_stream().wait_stream(side)
        try:
            with torch.cuda.graph(graph, capture_error_mode="thread_local"):
                output = forward(*own)
        except torch.OutOfMemoryError:
            raise
        except RuntimeError as error:
            reason = str(error).strip().split("\n")[0].rstrip(".")
            raise cannot(f"this network cannot be captured ({reason})") from error

    def replay(inputs: Sequence[Input]) -> Tensor:
        for mine, given in zip(own, inputs, strict=True):
            if mine is not None and given is not None:
                mine.copy_(given)
        graph.replay()
        return output.clone()

    return replay
