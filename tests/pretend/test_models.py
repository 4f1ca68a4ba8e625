"""Every model over its own map: no step waits for a GPU, and all of them train in bf16-mixed."""

import pytest
import torch
from pretend import cases
from pretend.gpu import Gpu

from heatgen.check import ConfigError
from heatgen.data.stream import Items
from heatgen.noise import SampleNoise

pytestmark = pytest.mark.slow
EVERY_SAMPLER = ("diffusion scalar", "diffusion score", "smdp", "oracle", "oracle points")  # models that all are tried with
STEPS = 50


@pytest.mark.parametrize("name", cases.MODELS)
def test_no_step_of_any_model_waits(name: str) -> None:
    model, data = cases.make(cases.config(*cases.arguments(name)))
    with Gpu() as gpu:
        if model.trainable:
            assert not cases.unexpected(cases.train(gpu, model, data))
        for sampler in cases.samplers(model) if name in EVERY_SAMPLER else [None]:
            try:
                other = model if sampler is None else cases.with_sampler(model, sampler)
                assert not cases.unexpected(cases.sample(gpu, other, data)), sampler
            except ConfigError as refused:  # the map has no such steps, or the model draws no samples
                assert sampler or name == "lupi_np_oracle", refused
        assert not gpu.mismatches


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
