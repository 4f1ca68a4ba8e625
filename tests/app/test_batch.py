"""batch_size=auto with a GPU of numbers, and the sentence for a batch that does not fit."""

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from conftest import call
from torch import Tensor

from heatgen.app import batch
from heatgen.runtime import engine
from heatgen.runtime.partial import Partial

GIB, MIB = 2**30, 2**20
GPU = torch.device("cuda:0")
LACKING = "CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has ..."


def step(fixed: int, each: int, most: int = 10**9) -> Callable[[int], int]:
    """The memory of a step of a network."""

    def used(size: int) -> int:
        if size > most:
            raise torch.OutOfMemoryError(LACKING)
        return fixed + size * each

    return used


@pytest.mark.parametrize(
    ("used", "free", "share", "expected"),
    [
        (step(64 * MIB, 10 * MIB), 80 * GIB, 50_000, 2048),  # half of it would hold 4,089
        (step(64 * MIB, 10 * MIB), 80 * GIB, 100, 100),  # all at once
        (step(0, 1), 80 * GIB, 10**6, batch.MOST),
        (step(0, 0), 80 * GIB, 10**6, batch.MOST),
        (step(0, GIB), GIB, 50, 1),
        (step(0, GIB, most=8), 24 * GIB, 50, 4),
        (step(0, GIB, most=2), 24 * GIB, 50, 1),
    ],
)
def test_the_largest_batch_is_a_line_through_two_small_ones(
    used: Callable[[int], int], free: int, share: int, expected: int
) -> None:
    assert batch.fitting(used, lambda: free, share) == expected


def devices(kind: str, precision: str = "32-true") -> SimpleNamespace:
    """One process on a device."""
    return SimpleNamespace(device=torch.device(kind), first=True, world=1, gather=lambda x: x, precision=precision)


def test_work_that_goes_on_keeps_its_batch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = iter([64 * GIB, 8 * GIB, 8 * GIB])
    monkeypatch.setattr(batch, "used", lambda *words: step(0, 100 * MIB)(words[-1]))
    monkeypatch.setattr(batch, "free", lambda device: next(sizes))

    def settled(partial: Partial | None) -> int:
        model, data = object(), object()
        return batch.settle("auto", model, data, devices("cuda:0"), 50_000, 0, partial)  # type: ignore[arg-type]

    first, again = Partial(tmp_path / "partial", "fid", "weights"), Partial(tmp_path / "partial", "fid", "weights")
    assert settled(first) == settled(again) == 256  # though little memory is free the second time
    again.remove()
    assert not (tmp_path / "partial").exists() and settled(first) == 32
    assert batch.settle("auto", object(), object(), devices("cpu"), 5, 0, None) == batch.FIXED  # type: ignore[arg-type]
    assert batch.settle(7, None, object(), devices("cuda:0"), None, 0, None) == 7  # type: ignore[arg-type]


def test_a_batch_that_does_not_fit_names_its_key_and_what_fits_does(
    refused: Callable[..., str], own_run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from heatgen.net.unet import UNet

    whole = UNet.forward

    def forward(self: UNet, x: Tensor, t: Tensor, cond: Tensor | None = None) -> Tensor:
        if len(x) > 2:
            raise torch.OutOfMemoryError(LACKING)
        return whole(self, x, t, cond)

    monkeypatch.setattr(UNet, "forward", forward)
    expected = "Error: batch_size=4 does not fit into the memory of this machine, which has no room for 2.00 GiB more; "
    assert refused("sample", f"run={own_run}", "n=4", "batch_size=4") == expected + "use batch_size=2 or a smaller n."
    assert refused("evaluate", f"run={own_run}", "mode=elbo", "n=4", "batch_size=4").startswith(expected)
    assert call("sample", f"run={own_run}", "n=4", "batch_size=2") == 0
    assert "batch_size must be" in refused("sample", f"run={own_run}", "batch_size=most")


@pytest.mark.parametrize(
    ("size", "kind", "precision", "use"),
    [
        (128, "cuda:0", "32-true", "use batch_size=64 or trainer.precision=16-mixed."),
        (128, "cuda:0", "16-mixed", "use batch_size=64."),
        (1, "cuda:0", "16-mixed", "use trainer.accelerator=cpu."),
        (1, "cpu", "32-true", "use a smaller n."),
    ],
)
def test_the_sentence_advises_what_can_still_be_changed(
    size: int, kind: str, precision: str, use: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine, "has_bf16", lambda device: False)
    sentence = str(batch.too_large(torch.OutOfMemoryError(LACKING), size, devices(kind, precision)))  # type: ignore[arg-type]
    assert sentence.endswith(use) and f"batch_size={size} does not fit" in sentence
    assert batch.too_large(RuntimeError("shapes differ"), size, devices(kind)) is None  # type: ignore[arg-type]
