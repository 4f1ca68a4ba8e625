"""Optimizers that cannot be: each named by its key, with what to give instead, before anything is written."""

import functools
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import SMALL
from omegaconf import OmegaConf

from heatgen.app.optimizer import refuse_optimizer
from heatgen.check import ConfigError


class Model(torch.nn.Module):
    """Weights of three ranks."""

    trainable = True

    def __init__(self, make_optimizer: Any):
        super().__init__()
        self.conv, self.make_optimizer = torch.nn.Conv2d(1, 2, 3), make_optimizer


BAD = [
    ("Adam", {"lr": "abc"}, r"^optimizer.lr must be a number of at least 0, not 'abc'\.$"),
    ("Adam", {"lr": -1}, r"^optimizer.lr must be .* at least 0, not -1"),
    ("Adam", {"lr": None}, r"^optimizer.lr must be .*, not None"),
    ("Adam", {"betas": [1]}, r"^optimizer.betas must be a list \[a number, a number\], not \[1\]"),
    ("Adam", {"betas": [0.9, 1]}, r"^optimizer.betas=\[0.9, 1\] is refused .*; use optimizer.betas=\[0.9,0.999\]\.$"),
    ("Adam", {"betas": 0.9}, r"^optimizer.betas must be a list"),
    ("Adam", {"weight_decay": "x"}, r"^optimizer.weight_decay must be a number, not 'x'"),
    ("Adam", {"weight_decay": float("inf")}, r"^optimizer.weight_decay must be a number, not inf"),
    ("Adam", {"foreach": 7}, r"^optimizer.foreach must be true or false or null, not 7"),
    ("Adam", {"amsgrad": "yes"}, r"^optimizer.amsgrad must be true or false, not 'yes'"),
    ("Adam", {"fused": True, "foreach": True}, r"^optimizer.fused=True with optimizer.foreach=True is refused .*fused=null"),
    ("Adam", {"differentiable": True}, r"^optimizer.differentiable=True is refused .*differentiable=false"),
    ("SGD", {"momentum": None}, r"^optimizer.momentum must be a number"),
    ("SGD", {"lr": 1, "nesterov": True}, r"^optimizer.nesterov=True is refused"),
    ("Rprop", {"etas": [0.5, 0.5]}, r"^optimizer.etas=\[0.5, 0.5\] is refused .*etas=\[0.5,1.2\]"),
    ("SparseAdam", {}, r"^optimizer._target_=torch.optim.SparseAdam cannot train .*use optimizer=adam"),
    ("Muon", {}, r"^optimizer._target_=torch.optim.Muon cannot train .*use optimizer=adam"),
    ("Optimizer", {}, r"^optimizer._target_=torch.optim.Optimizer cannot train .*use optimizer=adam"),
]


@pytest.mark.parametrize(("name", "options", "sentence"), BAD)
def test_an_option_that_cannot_be_is_named(name: str, options: dict[str, Any], sentence: str) -> None:
    model: Any = Model(functools.partial(getattr(torch.optim, name), **options))
    with pytest.raises(ConfigError, match=sentence):
        refuse_optimizer(OmegaConf.create({"_target_": f"torch.optim.{name}"}), model)


GOOD = {"Adam": {"lr": 0, "amsgrad": True}, "SGD": {"lr": 0.1, "momentum": 0.9, "nesterov": True}}
GOOD |= {"AdamW": {"capturable": True, "foreach": None}, "Adafactor": {"eps": [None, 0.1]}, "LBFGS": {"max_iter": 3}}


@pytest.mark.parametrize("name", GOOD)
def test_one_that_can_be_is_left_alone_and_so_are_the_weights(name: str) -> None:
    model: Any = Model(functools.partial(getattr(torch.optim, name), **GOOD[name]))
    before, state = [p.detach().clone() for p in model.parameters()], torch.get_rng_state()
    refuse_optimizer(OmegaConf.create({"_target_": f"torch.optim.{name}"}), model)
    assert torch.equal(state, torch.get_rng_state())
    assert all(torch.equal(a, b) and b.grad is None for a, b in zip(before, model.parameters(), strict=True))


def test_nothing_is_written(refused: Any, tmp_path: Path) -> None:
    bad = {"optimizer.lr=abc": "optimizer.lr must", "optimizer._target_=torch.nn.Linear": "is no optimizer of PyTorch; use"}
    bad |= {"+optimizer.zzz=3": "remove optimizer.zzz", "~optimizer": "needs an optimizer; use optimizer=adam"}
    for word, sentence in bad.items():
        assert sentence in refused("train", *SMALL, word)
    assert not [path for path in (tmp_path / "runs").rglob("*") if path.is_file()]
