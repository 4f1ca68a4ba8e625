"""TorchScript files: networks that were written elsewhere, and what they must give."""

import atexit
import hashlib
import os
import sys
import threading
import warnings
from pathlib import Path

import torch
from torch import Tensor

from heatgen.basis import exact
from heatgen.check import ConfigError

PATIENCE = 30.0  # seconds for the features of one image


def load_script(path: Path, device: torch.device) -> torch.jit.ScriptModule:
    """The network of a TorchScript file, in float32. ConfigError if it is not one."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            output: torch.jit.ScriptModule = torch.jit.load(str(path), map_location=device).eval().float()
            return output
        except (RuntimeError, ValueError, OSError) as error:
            raise ConfigError(f"{path} is not a whole TorchScript file; put the right one there.") from error


def content_hash(path: Path) -> str:
    """A short hash of a file."""
    return hashlib.blake2b(path.read_bytes(), digest_size=6).hexdigest()


@torch.no_grad()
def features_of(network: torch.nn.Module, x: Tensor, path: Path) -> Tensor:
    """What a network of a file gives for x (B, ...): features (B, F) float32, F >= 1, on the CPU.

    Computed in float32 whatever the precision of sampling.

    Raises:
        ConfigError: the network fails on x, or gives something else.
    """
    try:
        with exact(x.device):
            output = network(x)
    except torch.OutOfMemoryError as error:
        raise ConfigError(f"{path} needs more memory than the device has; lower batch_size.") from error
    except Exception as error:  # of code that is not ours
        reason = next((line.strip() for line in reversed(str(error).splitlines()) if line.strip()), type(error).__name__)
        raise ConfigError(
            f"{path} fails on {list(x.shape)} float32 ({reason.rstrip('.')}); give a network that takes images alone."
        ) from error
    if not isinstance(output, Tensor):
        raise ConfigError(f"{path} gives a {type(output).__name__}; give a network that returns one tensor (B, F).")
    whole = output.dim() > 0 and len(output) == len(x) and output.numel() > 0 and not output.is_complex()
    if not whole:
        count = "1 image" if len(x) == 1 else f"{len(x)} images"
        raise ConfigError(
            f"{path} gives {output.dtype} of shape {list(output.shape)} for {count}; give a network that returns "
            "real features (B, F), one row an image."
        )
    return output.reshape(len(x), -1).float().cpu()


def proven(network: torch.nn.Module, x: Tensor, path: Path, seconds: float = PATIENCE) -> None:
    """ConfigError where a network of a file fails on x (1, ...), or is still at work after some seconds."""
    failed: list[Exception] = []

    def trial() -> None:
        try:
            features_of(network, x, path)
        except Exception as error:
            failed.append(error)

    thread = threading.Thread(target=trial, daemon=True)  # nothing else can end what does not end
    thread.start()
    thread.join(seconds)
    if failed:
        raise failed[0]
    if thread.is_alive():
        atexit.register(leave, thread)
        raise ConfigError(f"{path} is still at work on one image after {seconds:g} seconds; give a network that ends.")


def leave(thread: threading.Thread) -> None:
    """End this process beside a thread that does not: C++ would abort it."""
    if thread.is_alive():
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(1)


class Script:
    """Any TorchScript network, u (B, C, H, W) float32 in [0, 1] at the data's own size -> features (B, F)."""

    logits = None

    def __init__(self, path: Path, device: torch.device):
        if not path.is_file():
            raise ConfigError(f"metric.extractor must be inception, classifier or a TorchScript file, not {path}.")
        self.network, self.path, self.device = load_script(path, device), path, device
        self.proven = False  # on one image
        self.name = f"TorchScript {path.name}, BLAKE2b {content_hash(path)}"

    def __call__(self, images: Tensor) -> Tensor:
        x = images.to(self.device).float() / 255
        if not self.proven:
            proven(self.network, x[:1], self.path)
            self.proven = True
        return features_of(self.network, x, self.path)

    def probabilities(self, features: Tensor) -> None:
        return None
