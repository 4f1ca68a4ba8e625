"""A training of one number, broken off and gone on with: the closed form of its steps, what it sees and what it saves."""

import functools
import re
import signal
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch
from omegaconf import OmegaConf
from torch import Tensor, nn

from heatgen.app.restart import check_optimizer, restart
from heatgen.app.trainer import make_trainer, quiet_lightning
from heatgen.callback.checkpoints import Checkpoints
from heatgen.callback.ema import EMA
from heatgen.callback.pictures import Pictures
from heatgen.callback.progress import Progress
from heatgen.callback.record import Record
from heatgen.check import ConfigError
from heatgen.data.images import Pixels
from heatgen.data.module import DataModule
from heatgen.forward.heat import Heat
from heatgen.logger.csv import CSVLog
from heatgen.model.ihd import IHD
from heatgen.runtime import signals
from heatgen.sampler.ancestral import ancestral

quiet_lightning()
SHAPE = (1, 2, 2)
OPTIONS = {
    "accelerator": "cpu",
    "devices": 1,
    "strategy": "auto",
    "precision": "32-true",
    "max_epochs": None,
    "gradient_clip_val": None,
}
OPTIONS |= {"accumulate_grad_batches": 1, "val_check_interval": 3, "log_every_n_steps": 2}


class One(nn.Module):
    """A network of one number."""

    def __init__(self) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.zeros(()))

    def forward(self, u: Tensor, k: Tensor, cond: None) -> Tensor:
        return u * self.w


class Slope(IHD):
    """The loss is w: each step of SGD takes its learning rate off w. A validation's is (w + 0.05)^2, least on the way."""

    def __init__(self, lr: float, warmup_steps: int = 0, **options: Any):
        optimizer = functools.partial(torch.optim.SGD, lr=lr, **options)
        super().__init__(
            Heat(SHAPE, 2, 0.1), One(), ancestral, optimizer, warmup_steps=warmup_steps, parametrisation="direct"
        )
        self.seen: list[int] = []

    def loss(self, batch: Any, rng: Any) -> Tensor:
        if not self.training:
            return ((self.net.w + 0.05) ** 2).expand(len(batch["key"]))
        self.seen += batch["key"].tolist()
        return self.net.w.expand(len(batch["key"]))


class Drawn(Pictures):
    """Notes the steps at which it would draw."""

    def __init__(self, every: int):
        super().__init__(every)
        self.steps: list[int] = []

    def draw(self, trainer: L.Trainer, model: L.LightningModule) -> None:
        if self.last_step != trainer.global_step:
            self.last_step = trainer.global_step
            self.steps.append(trainer.global_step)


class End(L.Callback):
    """A signal that comes in the batch behind a step, or a kill at the start of the next."""

    def __init__(self, step: int, kill: bool = False):
        self.step, self.kill = step, kill

    def on_train_batch_end(self, trainer: L.Trainer, *_: object) -> None:
        if trainer.global_step == self.step:
            if self.kill:
                raise RuntimeError("killed")
            signals._received.append(signal.SIGTERM)


@pytest.fixture(autouse=True)
def no_signals() -> Any:
    """The handlers of signals are put back after the test."""
    with signals.obeyed():
        yield
    signals._received.clear()


def fit(folder: Path, model: Slope, steps: int, *callbacks: L.Callback, batch_size: int = 2, **options: Any) -> L.Trainer:
    """A training in a folder, from its last.ckpt where there is one."""
    data = DataModule(shape=list(SHAPE), batch_size=batch_size)
    data.read = lambda split: Pixels(torch.zeros(10, *SHAPE))  # type: ignore[method-assign]
    last = folder / "checkpoints" / "last.ckpt"
    options = OPTIONS | {"max_steps": steps} | options
    if last.is_file():
        restart(last, OmegaConf.create({"trainer": options}), model, data)
    trainer = make_trainer(options, folder, data, [Record({}), *callbacks], [CSVLog(str(folder))])
    trainer.fit(model, datamodule=data, ckpt_path=last if last.is_file() else None, weights_only=True)
    return trainer


def content(folder: Path, name: str) -> Any:
    """A checkpoint, without the seconds that it took."""
    state = torch.load(folder / "checkpoints" / name, weights_only=True)
    state["callbacks"]["Checkpoints"].pop("seconds", None)
    return state


def equal(a: Any, b: Any) -> bool:
    """Whether nested containers are equal, tensors bit for bit."""
    if isinstance(a, Mapping):
        return a.keys() == b.keys() and all(equal(a[key], b[key]) for key in a)
    if isinstance(a, (list, tuple)):
        return len(a) == len(b) and all(map(equal, a, b))
    return torch.equal(a, b) if isinstance(a, Tensor) else bool(a == b)


def test_a_learning_rate_and_a_warm_up_act_at_the_first_step_as_the_closed_form_says(tmp_path: Path) -> None:
    fit(tmp_path, Slope(lr=0.1, warmup_steps=4), 3, Checkpoints())
    model = Slope(lr=1.0, warmup_steps=5)
    trainer = fit(tmp_path, model, 7, Checkpoints())
    assert model.net.w.item() == pytest.approx(-0.1 * (0 + 1 / 4 + 2 / 4) - 1.0 * (3 / 5 + 4 / 5 + 1 + 1), abs=1e-6)
    group = trainer.optimizers[0].param_groups[0]
    assert group["lr"] == group["initial_lr"] == 1.0 and trainer.lr_scheduler_configs[0].scheduler.get_last_lr() == [1.0]


def test_momentum_and_weight_decay_act(tmp_path: Path) -> None:
    fit(tmp_path, Slope(lr=0.1), 2, Checkpoints())
    model = Slope(lr=0.1, momentum=0.5, weight_decay=1.0)
    fit(tmp_path, model, 4, Checkpoints())
    w, velocity = -0.2, 0.0
    for _ in range(2):
        velocity = 0.5 * velocity + 1 + w
        w -= 0.1 * velocity
    assert model.net.w.item() == pytest.approx(w, abs=1e-6)


def test_what_an_optimizer_has_not_kept_is_refused() -> None:
    model = Slope(lr=0.1)
    adam = torch.optim.Adam([model.net.w])
    model.net.w.grad = torch.ones(())
    adam.step()
    model.make_optimizer = functools.partial(torch.optim.Adam, lr=0.5, betas=(0.5, 0.5))
    check_optimizer(adam.state_dict(), model)
    model.make_optimizer = functools.partial(torch.optim.Adam, amsgrad=True)
    with pytest.raises(ConfigError, match=r"optimizer cannot go on with these options.*max_exp_avg_sq"):
        check_optimizer(adam.state_dict(), model)


def test_no_sample_is_seen_twice_or_passed_over_whatever_the_batches_are(tmp_path: Path) -> None:
    seen: list[int] = []
    for steps, size, accumulate in ((3, 2, 1), (5, 3, 2), (7, 1, 4), (8, 6, 1)):
        model = Slope(lr=0.1)
        fit(tmp_path, model, steps, Checkpoints(), batch_size=size, accumulate_grad_batches=accumulate)
        seen += model.seen
    assert seen == list(range(3 * 2 + 2 * 3 * 2 + 2 * 4 + 6))


def test_a_checkpoint_that_does_not_say_what_was_seen_has_seen_what_its_config_says(tmp_path: Path) -> None:
    fit(tmp_path, Slope(lr=0.1), 3, Checkpoints(), accumulate_grad_batches=2)
    path = tmp_path / "checkpoints" / "last.ckpt"
    state = torch.load(path, weights_only=True)
    assert state.pop("DataModule") == {"seen": 12, "steps": 3}
    torch.save(state, path)
    groups = {group: {"_target_": "x"} for group in ("data", "forward", "net", "model")}
    config = groups | {"data": {"_target_": "x", "batch_size": 2}, "trainer": {"accumulate_grad_batches": 2}}
    (tmp_path / "config.yaml").write_text(OmegaConf.to_yaml(OmegaConf.create(config)))
    model = Slope(lr=0.1)
    fit(tmp_path, model, 4, Checkpoints(), batch_size=5)
    assert model.seen == [12, 13, 14, 15, 16]


def test_epochs_count_the_samples_that_were_seen(tmp_path: Path) -> None:
    fit(tmp_path, Slope(lr=0.1), 3, Checkpoints(), batch_size=4)
    trainer = fit(tmp_path, Slope(lr=0.1), 1, Checkpoints(), batch_size=2, max_epochs=2)
    assert trainer.global_step == 3 + (20 - 12) // 2
    with pytest.raises(ConfigError, match=r"trainer\.max_epochs=1 is less than the 20 samples that were seen"):
        fit(tmp_path, Slope(lr=0.1), 1, Checkpoints(), batch_size=2, max_epochs=1)


def test_an_option_that_is_taken_away_is_named(tmp_path: Path) -> None:
    for key in ("gradient_clip_val", "max_steps", "strategy"):
        options = {name: value for name, value in (OPTIONS | {"max_steps": 3}).items() if name != key}
        with pytest.raises(ConfigError, match=f"trainer.{key} cannot be left out; give trainer.{key}=VALUE"):
            make_trainer(options, tmp_path, DataModule(shape=list(SHAPE)), [], [])


def test_fewer_steps_than_were_done_are_refused(tmp_path: Path) -> None:
    fit(tmp_path, Slope(lr=0.1), 3, Checkpoints())
    with pytest.raises(ConfigError, match=r"trainer.max_steps=2 is less than the 3 steps that the run has done"):
        fit(tmp_path, Slope(lr=0.1), 2, Checkpoints())


@pytest.mark.parametrize("accumulate", [1, 4])
def test_validations_pictures_and_the_bar_count_optimizer_steps(tmp_path: Path, accumulate: int) -> None:
    drawn = Drawn(every=4)
    fit(tmp_path, Slope(lr=0.1), 10, drawn, Checkpoints(), accumulate_grad_batches=accumulate)
    lines = [line.split(",") for line in (tmp_path / "metrics.csv").read_text().splitlines()]
    step, loss = lines[0].index("step"), lines[0].index("val/loss")
    assert [int(line[step]) + 1 for line in lines[1:] if line[loss]] == [3, 6, 9, 10]
    assert drawn.steps == [4, 8, 10]


def test_the_bar_of_a_resumed_training_shows_all_its_steps(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    fit(tmp_path, Slope(lr=0.1), 3, Checkpoints(), Progress(1))
    capsys.readouterr()
    fit(tmp_path, Slope(lr=0.1), 20, Checkpoints(), Progress(1), accumulate_grad_batches=4)
    counts = re.findall(r"(\d+)/(\d+) \[", capsys.readouterr().out)
    assert counts[0] == ("3", "20") and counts[-1] == ("20", "20") and {total for _, total in counts} == {"20"}


DAMAGES: dict[str, Callable[[dict[str, Any]], object]] = {
    "no loops": lambda state: state["loops"].clear(),
    "another count": lambda state: state.update(global_step=7),
    "a schedule that is text": lambda state: state.update(lr_schedulers=["x"]),
    "a best that is text": lambda state: state["callbacks"]["Checkpoints"].update(best="x"),
    "samples that are text": lambda state: state["DataModule"].update(seen="x"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_what_going_on_reads_is_checked_before(tmp_path: Path, damage: str) -> None:
    fit(tmp_path, Slope(lr=0.1), 3, Checkpoints())
    path = tmp_path / "checkpoints" / "last.ckpt"
    state = torch.load(path, weights_only=True)
    DAMAGES[damage](state)
    torch.save(state, path)
    with pytest.raises(ConfigError, match=r"last\.ckpt does not fit the config\.yaml of its run"):
        fit(tmp_path, Slope(lr=0.1), 9, Checkpoints())


@pytest.mark.parametrize("kill", [False, True])
@pytest.mark.parametrize("step", [1, 3, 4, 5, 8, 9])
def test_an_interrupted_training_ends_as_one_that_was_not(tmp_path: Path, step: int, kill: bool) -> None:
    def kept() -> tuple[L.Callback, ...]:
        return EMA(0.5), Checkpoints(every=4)

    whole, broken = tmp_path / "whole", tmp_path / "broken"
    fit(whole, Slope(lr=0.01, warmup_steps=4), 11, *kept())
    with pytest.raises(RuntimeError if kill else signals.Stopped):
        fit(broken, Slope(lr=0.01, warmup_steps=4), 11, End(step, kill), *kept())
    signals._received.clear()
    saved = broken / "checkpoints" / "last.ckpt"
    assert saved.is_file() == (not kill or step > 4)
    fit(broken, Slope(lr=0.01, warmup_steps=4), 11, *kept())
    for name in ("last.ckpt", "best.ckpt"):
        assert equal(content(whole, name), content(broken, name))
    rows = [(run / "metrics.csv").read_text().splitlines() for run in (whole, broken)]
    if kill:
        assert rows[0] == rows[1]
    steps = [line.split(",")[0] for line in rows[1][1:]]
    assert (
        len({line for line in rows[1]}) == len(rows[1]) and steps == sorted(steps, key=int) and set(rows[0]) <= set(rows[1])
    )
