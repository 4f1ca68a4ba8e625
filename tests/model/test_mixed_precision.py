"""Every model trains in bf16-mixed: likelihoods, maps and scores stay whole, and no step is lost."""

import pytest
import torch
from pretend import cases

from heatgen.data.stream import Items
from heatgen.noise import SampleNoise

STEPS = 50
pytestmark = pytest.mark.slow


@pytest.mark.parametrize("name", [name for name in cases.MODELS if not name.startswith("oracle")])
def test_fifty_steps_in_bfloat16_are_finite_and_their_loss_is_that_of_float32(name: str) -> None:
    model, data = cases.make(cases.config(*cases.arguments(name)))
    model.train()
    model.prepare(data)
    optimizer = model.build_optimizer([p for p in model.parameters() if p.requires_grad])
    batch, losses = Items(data.images("train")).__getitems__(range(cases.BATCH)), []

    def loss(mixed: bool) -> torch.Tensor:
        torch.manual_seed(0)
        with torch.autocast("cpu", torch.bfloat16, enabled=mixed):
            return model.loss(batch, SampleNoise(batch["key"], 0, "train")).mean()

    with torch.no_grad():
        assert torch.allclose(loss(True), loss(False), rtol=0.05, atol=0.05), (loss(True), loss(False))
    for step in range(STEPS):
        optimizer.zero_grad()
        with torch.autocast("cpu", torch.bfloat16):
            losses.append(model.training_step({**batch, "first": step}, step))
        losses[-1].backward()
        norm = torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        assert norm.isfinite(), f"the gradient of step {step + 1}"
        optimizer.step()
    assert torch.stack(losses).isfinite().all() and losses[0].dtype == torch.float32
