"""How work is computed on the device at hand: every `auto` of precision and layout is decided here, and here alone.

What the choices rest on was measured with the shipped U-Nets, in turn in one process: docs/performance.md.
"""

import importlib.util
import inspect
import logging
import os
import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from heatgen import check
from heatgen.basis import exact
from heatgen.check import ConfigError
from heatgen.runtime import explain, ranks

log = logging.getLogger("heatgen")
LAYOUTS = ("auto", "contiguous", "channels_last")
BACKEND = "inductor"
CALLS = 10_000  # of a network, from which compile=auto compiles
_forward_mode = [False]  # whether a derivative is being taken forward
WIDE = 32  # channels from which 16-bit convolutions were faster than those of 32 bits


def memory_format(name: str) -> torch.memory_format:
    """How activations and weights of 2-d convolutions lie in memory. ConfigError for a name that is none of LAYOUTS.

    auto is contiguous on every device: with channels_last a training step had 0.70 to 0.98 of the speed in float32 on CPUs
    with AVX-512, and 0.79 to 1.13 (sampling 0.79 to 0.95) in bfloat16 on an H200, as GroupNorm and attention copy.
    """
    last = check.choice("net.memory_format", name, LAYOUTS) == "channels_last"
    return torch.channels_last if last else torch.contiguous_format


@contextmanager
def forward_mode(device: torch.device) -> Iterator[None]:
    """Where derivatives are taken forward (torch.func.jvp): `exact`, not compiled, and of layers that have one.

    PyTorch has none of its fast attention, nor of GroupNorm of channels_last (see `plain`), and breaks a compiled graph.
    """
    compiled = "torch._dynamo" in sys.modules and hasattr(torch.compiler, "set_stance")
    eager = torch.compiler.set_stance("force_eager") if compiled else nullcontext()
    before, _forward_mode[0] = _forward_mode[0], True
    try:
        with exact(device), sdpa_kernel(SDPBackend.MATH), eager:
            yield
    finally:
        _forward_mode[0] = before


def in_forward_mode() -> bool:
    """Whether a derivative is being taken forward."""
    return _forward_mode[0]


def plain(x: Tensor) -> Tensor:
    """x, contiguous where a derivative is being taken forward."""
    return x.contiguous() if in_forward_mode() else x


def kind_of(accelerator: str) -> torch.device:
    """The device that an accelerator of Lightning's stands for."""
    return torch.device("cpu" if accelerator == "cpu" else "cuda")


def has_bf16(device: torch.device) -> bool:
    """Whether a device has instructions for bfloat16; PyTorch imitates them on others, slowly."""
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    return any(getattr(torch.cpu, name, bool)() for name in ("_is_avx512_bf16_supported", "_is_amx_tile_supported"))


def is_wide(net: nn.Module) -> bool:
    """Whether most weights of a network are in convolutions from and to at least WIDE channels."""
    kinds = (nn.Conv1d, nn.Conv2d)
    convolutions = [part for part in net.modules() if isinstance(part, kinds)]
    wide = sum(part.weight.numel() for part in convolutions if min(part.in_channels, part.out_channels) >= WIDE)
    return 2 * wide > sum(weight.numel() for weight in net.parameters())


def precision_for(net: nn.Module, device: torch.device) -> str:
    """What trainer.precision=auto chooses to train a network in.

    16 bits for a network that `is_wide`, others would lose digits and win nothing: bf16-mixed where the device has bfloat16;
    else 16-mixed on a GPU and 32-true on a CPU.
    """
    return narrow(device) if is_wide(net) else "32-true"


def narrow(device: torch.device) -> str:
    """The precision of 16 bits that a device has; 32-true where it has none."""
    if has_bf16(device):
        return "bf16-mixed"
    return "16-mixed" if device.type == "cuda" else "32-true"


def inherited_precision(own: str, device: torch.device) -> str:
    """The precision for the networks of a run that was trained in `own`: that, or 32-true where the device lacks it.

    A run of 64-true is restored in float32.
    """
    if own == "64-true":
        return "32-true"
    if has_bf16(device) if own == "bf16-mixed" else device.type == "cuda" or own != "16-mixed":
        return own
    if ranks.rank() == 0:
        log.info("The run was trained in %s, which this %s lacks; its network is computed in 32-true.", own, device.type)
    return "32-true"


def check_precision(name: str, device: torch.device) -> None:
    """ConfigError for 16 bits that the device does not have; a note for bfloat16 on a CPU that imitates it slowly."""
    if name == "16-mixed" and device.type == "cpu":
        raise ConfigError("trainer.precision=16-mixed is for a GPU alone; use trainer.precision=auto, or 32-true.")
    if name != "bf16-mixed" or has_bf16(device):
        return
    if device.type == "cuda":
        gpu = torch.cuda.get_device_name(device)
        raise ConfigError(f"trainer.precision=bf16-mixed is not for {gpu}, which has no bfloat16; use 16-mixed or auto.")
    if ranks.rank() == 0:
        log.warning("Note: this CPU has no bfloat16 and imitates it slowly; trainer.precision=auto or 32-true is faster.")


def build_optimizer(factory: Callable[..., torch.optim.Optimizer], parameters: list[nn.Parameter]) -> torch.optim.Optimizer:
    """What a factory makes of weights; fused (one pass over each, or over all on a GPU), where it can be and is not told.

    Its gradients come unscaled and clipped, as those of any other: fused optimizers offer to do that themselves.
    """
    known = inspect.signature(getattr(factory, "func", factory)).parameters
    asked = any(getattr(factory, "keywords", {}).get(key) is not None for key in ("fused", "foreach", "differentiable"))
    real = all(weight.is_floating_point() for weight in parameters)
    if "fused" not in known or asked or not real:
        return factory(parameters)
    optimizer = factory(parameters, fused=True)
    optimizer._step_supports_amp_scaling = False  # type: ignore[attr-defined]
    return optimizer


def settle(optimizer: torch.optim.Optimizer) -> None:
    """Place what an optimizer has read from a checkpoint as its kernels want it: averages laid out as weights, counts."""
    for group in optimizer.param_groups:
        for weight in group["params"]:
            state = optimizer.state.get(weight, {})
            for key, value in state.items():
                if not isinstance(value, Tensor):
                    continue
                if value.shape == weight.shape and value.stride() != weight.stride():
                    state[key] = torch.empty_like(weight, dtype=value.dtype).copy_(value)
                if key == "step":
                    state[key] = value.to(weight.device if group.get("fused") or group.get("capturable") else "cpu")


def compile_net(
    net: nn.Module, wanted: object, device: torch.device, calls: int, obstacle: str = "", frozen: bool = False
) -> bool:
    """Compile a network in place, so that a checkpoint has the same names; whether it was.

    Args:
        net: on whatever device.
        wanted: true, false or auto: on a GPU where it is called so often that a minute or two of compiling is little.
        device: where it is called.
        calls: how often, about.
        obstacle: why this network cannot be compiled, if so.
        frozen: whether its weights stay as they are: on a CPU they are then packed once, as its convolutions want them.

    Raises:
        ConfigError: it is wanted and cannot be.
    """
    if wanted is False or (wanted == "auto" and (device.type != "cuda" or calls < CALLS or obstacle)):
        return False
    obstacle = obstacle or lacking(device)
    if obstacle and wanted is True:
        raise ConfigError(f"compile=true cannot act, as {obstacle}; use compile=false.")
    if obstacle:
        if ranks.rank() == 0:
            log.info("compile=auto chose false, as %s", obstacle)
        return False
    net.compile(backend=BACKEND, options={"freezing": True} if frozen and device.type == "cpu" else None)
    return True


def lacking(device: torch.device) -> str:
    """What the compiler of PyTorch lacks here for a device, as the end of a sentence; "": nothing."""
    if device.type == "cuda" and importlib.util.find_spec("triton") is None:
        return "it needs Triton, which is not installed"
    compiler = os.environ.get("CXX", "g++")
    return failing(device) if shutil.which(compiler) else f"it needs a C++ compiler, and {compiler} is not found"


def failing(device: torch.device) -> str:
    """Why the compiler of PyTorch fails here, which a function of one line shows, as the end of a sentence; "": it works."""
    try:
        torch.compile(lambda x: x.sin() + 1, backend=BACKEND)(torch.ones(2, device=device))
    except Exception as error:  # a compiler fails in any way
        return f"the compiler of PyTorch fails here ({explain.briefly(error)})"
    return ""
