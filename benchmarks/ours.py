"""The networks and loops of heatgen that are measured: built from its own configs, stepped without Lightning."""

from collections.abc import Iterable
from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor, nn

from benchmarks.floors import BFLOAT16, FLOAT32, TRAINING_PASSES, Work, count
from heatgen.app.build import build
from heatgen.app.compose import compose
from heatgen.callback.ema import EMA
from heatgen.data.stream import Batch
from heatgen.model.module import Method
from heatgen.noise import SampleNoise, mix
from heatgen.runtime import engine

CLIP = 1.0  # largest norm of a gradient, as conf/trainer has it
DTYPES = {"32-true": FLOAT32, "bf16-mixed": BFLOAT16}
TINY = (  # what makes any U-Net small, for --quick
    "net.model_channels=8",
    "net.norm_groups=4",
    "net.num_res_blocks=1",
    "net.multipliers=[1,2]",
    "net.attention_levels=[1]",
)


def made(device: torch.device, *words: str) -> Method:
    """The model of `train.py WORDS` on a device, with random weights that are not zero anywhere."""
    torch.manual_seed(0)
    model, _ = build(compose(*words))
    fill(model.net.parameters())
    return model.to(device)


@torch.no_grad()
def fill(parameters: Iterable[nn.Parameter]) -> None:
    """Give weights that start at zero small random values: on zeros neither speed nor numbers say anything."""
    for p in parameters:
        if not p.any():
            p.normal_(0, 0.02)


def images(batch: int, shape: Iterable[int], device: torch.device) -> Tensor:
    """A batch of uniform noise, (B, C, H, W)."""
    return torch.rand(batch, *shape, generator=torch.Generator().manual_seed(1)).to(device)


def autocast(device: torch.device, precision: str) -> AbstractContextManager[object]:
    """What a step in this precision runs in."""
    return torch.autocast(device.type, torch.bfloat16) if precision == "bf16-mixed" else nullcontext()


def precisions(device: torch.device) -> dict[str, str]:
    """What is measured on a device: bfloat16 where it has it, as PyTorch imitates it 20 times slower."""
    return {"float32": "32-true"} | ({"bfloat16": "bf16-mixed"} if engine.has_bf16(device) else {})


class Training:
    """One training step a call, as `Method` and Lightning do it: noise, loss, gradient, clipping, optimizer, averages."""

    def __init__(self, model: Method, u0: Tensor, precision: str = "32-true"):
        self.model, self.u0, self.precision = model.train(), u0, precision
        self.parameters = [p for p in model.parameters() if p.requires_grad]
        self.optimizer = model.build_optimizer(self.parameters)
        self.ema, self.step = EMA(0.999), 0
        self.ema.averages = [w.clone() for w in EMA.weights(model)]
        self.index = torch.arange(len(u0), device=u0.device)

    def loss(self) -> Tensor:
        """The mean loss of the batch, with new noise."""
        first = self.step * len(self.u0)
        torch.manual_seed(mix(0, "layers", first))
        batch: Batch = {"u0": self.u0, "index": self.index, "key": self.index + first, "first": first}
        with autocast(self.u0.device, self.precision):
            return self.model.loss(batch, SampleNoise(batch["key"], 0, "train")).mean()

    def __call__(self) -> Tensor:
        loss = self.loss()
        loss.backward()
        nn.utils.clip_grad_norm_(self.parameters, CLIP)
        self.optimizer.step()
        self.optimizer.zero_grad()
        self.ema.update(self.model)
        self.step += 1
        return loss.detach()

    def work(self) -> Work:
        """What a step must do at least."""
        weights = sum(p.numel() for p in self.parameters)
        flops = count(lambda: self.loss().backward())
        self.optimizer.zero_grad()
        return Work(flops, 4.0 * (TRAINING_PASSES * weights + self.u0.numel()), DTYPES[self.precision])


class Sampling:
    """So many steps of the model's own sampler a call, from its last levels on."""

    def __init__(self, model: Method, u: Tensor, levels: int, precision: str = "32-true"):
        self.model, self.u, self.precision, self.levels = model.eval(), u, precision, levels
        self.times = model.process.times[: levels + 1]

    @torch.no_grad()
    def __call__(self) -> Tensor:
        assert self.model.sampler is not None
        with autocast(self.u.device, self.precision):
            rng = SampleNoise(torch.arange(len(self.u), device=self.u.device), 0, "sample")
            return self.model.sampler(self.model, self.u, self.times, rng=rng)

    def work(self) -> Work:
        """What a call must do at least."""
        weights, wide = sum(p.numel() for p in self.model.net.parameters()), 2 if self.precision == "bf16-mixed" else 4
        moved = self.levels * (wide * weights + 4.0 * 3 * self.u.numel())
        return Work(count(self), moved, DTYPES[self.precision])
