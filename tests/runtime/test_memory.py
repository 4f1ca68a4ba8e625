"""Memory that is not there: one sentence, before anything is made where that can be known."""

from types import SimpleNamespace

import pytest
import torch
from conftest import SMALL

from heatgen import check, compose
from heatgen.app.too_large import too_large
from heatgen.check import ConfigError
from heatgen.data.grf import GRF
from heatgen.data.hot_spots import HotSpotFields
from heatgen.data.swiss_roll import SwissRoll
from heatgen.forward.constant_velocity import ConstantVelocity
from heatgen.runtime import engine
from heatgen.runtime.explain import explain

CLAIMS = {
    "data.train_size": lambda: GRF(shape=[1, 32, 32], train_size=10**12),
    "data.val_size": lambda: HotSpotFields(shape=[1, 16, 16], val_size=10**12),
    "data.test_size": lambda: SwissRoll(shape=[1, 1, 2], test_size=10**12),
    "data.spots": lambda: HotSpotFields(shape=[1, 16, 16], spots=10**6),
    "data.batch_size": lambda: GRF(shape=[1, 32, 32], batch_size=10**12),
    "data.num_workers": lambda: GRF(shape=[1, 32, 32], num_workers=10**5),
    "forward.num_levels": lambda: ConstantVelocity((1, 8, 8), 10**6),
}


@pytest.mark.parametrize("key", CLAIMS)
def test_a_size_that_cannot_be_is_refused_at_once(key):
    with pytest.raises(ConfigError, match=key):
        CLAIMS[key]()


def test_the_sentence_advises_what_fits():
    with pytest.raises(ConfigError, match=r"^n=1000000000000 needs .* GiB .*; use n=(\d+) or fewer\.$") as told:
        check.memory("n", 10**12, 64)
    check.memory("n", int(str(told.value).split("n=")[2].split(" ")[0]), 64)


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        MemoryError("Unable to allocate 1.2 TiB for an array"),
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB. GPU 0 has ..."),
        RuntimeError(
            "[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate 36000 bytes. Error 12"
        ),
    ],
)
def test_memory_errors_say_what_to_lower(error):
    assert "not enough memory" in str(explain(error)) and "lower batch_size" in str(explain(error))
    assert explain(RuntimeError("shapes differ")) is None


@pytest.mark.parametrize(
    ("words", "device", "use"),
    [
        ([], "cuda:0", "data.batch_size=32 with trainer.accumulate_grad_batches=2 (the same steps, in more parts), "
         "net.checkpointing=true, trainer.precision=bf16-mixed or a smaller network or data.shape."),
        (["net.checkpointing=true", "data.batch_size=1"], "cpu", "use a smaller network or data.shape."),
        (["model=ssm", "net=unet", "data.batch_size=5"], "cpu", "use a lower data.batch_size or a smaller network"),
    ],
)  # fmt: skip
def test_a_step_that_does_not_fit_says_what_to_use_in_its_place(words, device, use, monkeypatch):
    monkeypatch.setattr(engine, "has_bf16", lambda device: True)
    strategy = SimpleNamespace(root_device=torch.device(device))
    trainer = SimpleNamespace(strategy=strategy, world_size=1, accumulate_grad_batches=1, precision="32-true")
    cfg = compose(*words)
    error = torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has ...")
    sentence = str(too_large(error, cfg, trainer))
    assert sentence.startswith(f"A step with data.batch_size={cfg.data.batch_size} does not fit into the memory of ")
    assert "no room for 2.00 GiB more" in sentence and use in sentence
    assert too_large(RuntimeError("shapes differ"), cfg, trainer) is None


@pytest.mark.slow
def test_a_training_that_runs_out_of_memory_ends_in_that_sentence(refused, monkeypatch):
    def loss(*_):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB. GPU 0 has ...")

    monkeypatch.setattr("heatgen.model.ihd.IHD.loss", loss)
    assert "A step with data.batch_size=64 does not fit into the memory of this machine" in refused("train", *SMALL)
