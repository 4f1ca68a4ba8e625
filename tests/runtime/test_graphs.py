"""CUDA graphs as far as a CPU sees them: what is captured, called as it is, refused. tests/cuda has the rest."""

import copy
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from heatgen.check import ConfigError
from heatgen.net.bayesian_unet import BayesianUNet
from heatgen.runtime import engine, graphs

CPU, GPU = torch.device("cpu"), torch.device("cuda")


class Toy(nn.Module):
    """x w + t, of inputs that say they are on a GPU."""

    def __init__(self) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.tensor(2.0))

    def forward(self, x: Tensor, t: Tensor, cond: Tensor | None = None) -> Tensor:
        output: Tensor = x * self.w + t[:, None]
        return output


class OnGpu(Tensor):
    """A tensor of a CPU that says it is on a GPU."""

    is_cuda = True  # type: ignore[assignment]


def given(size: int) -> tuple[Tensor, Tensor, None]:
    """Inputs of a batch."""
    return torch.rand(size, 3).as_subclass(OnGpu), torch.rand(size).as_subclass(OnGpu), None


def test_calls_are_captured_by_shape_and_others_are_made_as_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    captured: list[int] = []

    def capture(
        forward: Callable[..., Tensor], inputs: Sequence[Tensor | None]
    ) -> Callable[[Sequence[Tensor | None]], Tensor]:
        assert inputs[0] is not None
        captured.append(len(inputs[0]))
        return lambda given: forward(*given) + 100  # which tells it from a plain call

    monkeypatch.setattr(graphs, "capture", capture)
    net, x = Toy().eval(), given(4)
    names = list(net.state_dict())
    plain = copy.deepcopy(net)
    graphs.capture_calls(net, GPU)
    with torch.no_grad():
        for size in (4, 4, 2, 4, 7):  # the third shape is one too many
            inputs = given(size)
            assert torch.equal(net(*inputs), plain(*inputs) + (100 if size != 7 else 0))
        net.w.fill_(5.0)
        assert torch.equal(net(*x), x[0] * 5 + x[1][:, None] + 100)
        with engine.forward_mode(CPU):
            assert net(*x).max() < 100
        assert (
            net.train()(*x).max() < 100 and net.eval()(*(a if a is None else a.as_subclass(Tensor) for a in x)).max() < 100
        )
    assert net(*x).max() < 100  # a gradient may be taken
    assert captured == [4, 2] and list(net.state_dict()) == names


def test_what_cannot_be_captured_is_refused_in_one_sentence(refused: Callable[..., str], small_run: Path) -> None:
    expected = "cuda_graphs=true cannot act, as it needs a CUDA GPU; use cuda_graphs=false."
    assert refused("sample", f"run={small_run}", "cuda_graphs=true") == f"Error: {expected}"
    assert "exclude each other" in refused("sample", f"run={small_run}", "cuda_graphs=true", "compile=true")
    assert "cuda_graphs" in refused("sample", f"run={small_run}", "cuda_graphs=maybe")
    for net, obstacle, reason in (
        (BayesianUNet((1, 8, 8), (4, 4)), "", "draw masks"),
        (Toy(), "it has no network", "no network"),
    ):
        with pytest.raises(ConfigError, match=rf"^cuda_graphs=true cannot act, as .*{reason}.*; use cuda_graphs=false\.$"):
            graphs.capture_calls(net, GPU, obstacle)
