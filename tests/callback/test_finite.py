"""A training that is not finite stops in one sentence, or leaves the step out, and nothing of it is saved."""

from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch
from conftest import call
from exploding_runs import outcome
from torch import Tensor, nn

from heatgen import check
from heatgen.app.trainer import make_trainer, quiet_lightning
from heatgen.callback.checkpoints import AtomicIO, Checkpoints
from heatgen.callback.ema import EMA
from heatgen.callback.finite import PATIENCE, Finite
from heatgen.check import ConfigError
from heatgen.model.module import Method

quiet_lightning()
BATCHES = 20
OPTIONS = {
    "accelerator": "cpu",
    "devices": 1,
    "strategy": "auto",
    "max_steps": BATCHES,
    "max_epochs": None,
    "gradient_clip_val": 1.0,
    "accumulate_grad_batches": 1,
    "val_check_interval": 5,
    "log_every_n_steps": 5,
}
QUICK = [  # a training that takes a second
    *("model=supervised", "net=fno", "data=grf", "data.resolution=8", "data.train_size=16", "data.val_size=8"),
    *("data.test_size=8", "data.batch_size=8", "net.width=8", "net.modes=3", "forward.num_levels=5", "evaluate=[]"),
    *(
        "callback.pictures.every=0",
        "trainer.accelerator=cpu",
        "callback.checkpoints.every=4",
        "trainer.val_check_interval=4",
    ),
]


class Line(Method):
    """(w x - x)^2 of batches x = 1, or of what is put in their place; the network is one number w."""

    def __init__(self, batches: dict[int, float], lr: float = 0.1, validation: float = 1.0):
        L.LightningModule.__init__(self)
        self.w = nn.Parameter(torch.zeros(()))
        self.data = torch.ones(BATCHES)
        for step, value in batches.items():
            self.data[step - 1] = value
        self.lr, self.validation, self.seen = lr, validation, []

    def on_fit_start(self) -> None:
        """There are no data to prepare for."""

    def configure_optimizers(self) -> Any:
        return torch.optim.Adam([self.w], self.lr)

    def training_step(self, batch: Tensor, batch_idx: int) -> Tensor:
        self.seen.append(self.w.item())
        loss = (self.w * batch - batch).square().mean()
        self.step_loss = loss.detach()
        return loss

    def validation_step(self, batch: Tensor, batch_idx: int) -> None:
        self.val_losses += torch.stack([(self.w.detach() - 1) ** 2 * self.validation, torch.ones(())])

    def train_dataloader(self) -> Any:
        return torch.utils.data.DataLoader(self.data)

    def val_dataloader(self) -> Any:
        return torch.utils.data.DataLoader(torch.ones(1))


def fit(model: Line, folder: Path, *callbacks: L.Callback, **options: Any) -> L.Trainer:
    trainer = make_trainer(OPTIONS | options, folder, None, callbacks, [])  # type: ignore[arg-type]
    trainer.fit(model)
    return trainer


def saved(folder: Path) -> dict[str, int]:
    """Name -> step of the checkpoints of a run, all of which are finite."""
    found = {path.name: torch.load(path, weights_only=True) for path in folder.rglob("*.ckpt")}
    assert all(check.first_nonfinite(content) is None for content in found.values())
    return {name: content["global_step"] for name, content in found.items()}


@pytest.mark.parametrize(("value", "what"), [(torch.nan, "loss"), (1e22, "loss"), (1.73e19, "gradient")])
def test_the_step_that_is_not_finite_stops_before_it_is_made(value: float, what: str, tmp_path: Path) -> None:
    model = Line({11: value}, lr=0.01)
    with pytest.raises(
        ConfigError, match=f"^The {what} of step 11 is not finite.*optimizer.lr lower than.*best.ckpt .step 10"
    ):
        fit(model, tmp_path, Checkpoints(4), EMA(0.9))
    assert model.w.item() == pytest.approx(0.1, abs=1e-3) and saved(tmp_path) == {"last.ckpt": 8, "best.ckpt": 10}


def test_without_a_clip_the_sentence_names_it_and_at_the_first_step_not_the_learning_rate(tmp_path: Path) -> None:
    with pytest.raises(
        ConfigError, match=r"lower than 0.1 or with trainer.gradient_clip_val=1; no checkpoint had been saved"
    ):
        fit(Line({3: torch.inf}), tmp_path, gradient_clip_val=None)
    with pytest.raises(
        ConfigError, match=r"step 1 is not finite.*no step had been made, so look at the values of the data"
    ) as error:
        fit(Line({1: torch.inf}), tmp_path)
    assert "optimizer.lr" not in str(error.value)


def test_weights_and_validations_that_are_not_finite_are_not_saved(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="The weights after step 4 are not finite"):
        fit(Line({}), tmp_path / "a", Checkpoints(4), Overflow(4))
    with pytest.raises(ConfigError, match="The validation loss after step 5 is not finite"):
        fit(Line({}, validation=torch.inf), tmp_path / "b", Checkpoints(2))
    assert saved(tmp_path / "a") == {} and saved(tmp_path / "b") == {"last.ckpt": 4}


class Overflow(L.Callback):
    """Makes the weights infinite in a step."""

    def __init__(self, step: int):
        self.step = step

    def on_train_batch_start(self, trainer: L.Trainer, *_: object) -> None:
        if trainer.global_step == self.step - 1:
            trainer.optimizers[0].param_groups[0]["lr"] = torch.inf


@pytest.mark.parametrize("accumulate", [1, 2])
def test_skip_leaves_out_weights_averages_and_optimizer_and_the_step_counts(accumulate: int, tmp_path: Path) -> None:
    model, ema = Line({7: torch.nan, 8: torch.nan, 13: torch.inf}), EMA(0.5)
    trainer = fit(
        *(model, tmp_path, ema, Checkpoints(4)),
        **{"on_nonfinite": "skip", "accumulate_grad_batches": accumulate, "max_steps": BATCHES // accumulate},
        gradient_clip_val=None,
    )
    left_out = {7, 8, 13} if accumulate == 1 else {4, 7}
    w, average, updates = torch.zeros((), requires_grad=True), 0.0, 0
    optimizer = torch.optim.Adam([w], 0.1)
    for step in range(1, BATCHES // accumulate + 1):
        updates += 1
        if step in left_out:
            continue
        optimizer.zero_grad()
        (w - 1).square().backward()
        optimizer.step()
        decay = min(0.5, (1 + updates) / (10 + updates))
        average = decay * average + (1 - decay) * w.item()
    finite = trainer.callbacks[0]
    assert (
        isinstance(finite, Finite) and finite.skipped == len(left_out) and finite.state_dict() == {"skipped": len(left_out)}
    )
    assert trainer.global_step == BATCHES // accumulate and ema.updates == updates
    assert model.w.item() == pytest.approx(w.item(), abs=1e-6) and ema.averages[0].item() == pytest.approx(average, abs=1e-6)
    assert saved(tmp_path)["last.ckpt"] == trainer.global_step


def test_skip_stops_after_so_many_in_a_row_and_at_weights_that_are_not_finite(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr("heatgen.callback.finite.PATIENCE", 4)
    with pytest.raises(ConfigError, match="The loss of step 9, the last of 4 in a row, is not finite"):
        fit(Line(dict.fromkeys(range(6, 20), torch.nan)), tmp_path, on_nonfinite="skip")
    with pytest.raises(ConfigError, match="The weights after step 4 are not finite"):
        fit(Line({}), tmp_path, Overflow(4), on_nonfinite="skip")
    assert PATIENCE == 100


def test_a_gradient_scaler_may_leave_out_steps_by_itself(tmp_path: Path) -> None:
    from lightning.pytorch.plugins import MixedPrecision

    model, finite = Line({}), Finite()
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**127, backoff_factor=2.0**-5)  # its first gradients overflow
    precision = MixedPrecision("16-mixed", "cpu", scaler)
    precision.autocast_context_manager = lambda: torch.autocast("cpu", enabled=False)  # type: ignore[method-assign]
    trainer = L.Trainer(
        *("cpu",),
        **{"plugins": [precision], "max_steps": 12, "callbacks": [finite], "logger": False, "enable_checkpointing": False},
        **{"enable_progress_bar": False, "enable_model_summary": False, "limit_val_batches": 0},
    )
    trainer.fit(model)
    assert trainer.global_step == 12 and model.seen[1] == model.seen[0] and model.w.item() > 0.3 and not finite.skipped


def test_a_checkpoint_with_nan_is_not_written(tmp_path: Path) -> None:
    AtomicIO().save_checkpoint({"state_dict": {"w": torch.ones(2)}}, tmp_path / "last.ckpt")
    with pytest.raises(ConfigError, match=r"last.ckpt is not written, as state_dict.w holds NaN or inf"):
        AtomicIO().save_checkpoint({"state_dict": {"w": torch.tensor([1, torch.inf])}}, tmp_path / "last.ckpt")
    assert torch.equal(torch.load(tmp_path / "last.ckpt", weights_only=True)["state_dict"]["w"], torch.ones(2))


def test_an_exploding_run_leaves_no_checkpoint_that_is_not_finite_and_samples_say_so(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    options = ["optimizer.lr=1e30", "trainer.gradient_clip_val=null", "trainer.max_steps=40", f"hydra.run.dir={run}"]
    assert call("train", *QUICK, "model.warmup_steps=0", *options) == 1
    errors = [line for line in capfd.readouterr().err.splitlines() if line.startswith("Error: ")]
    assert len(errors) == 1 and "lower than 1e+30 or with trainer.gradient_clip_val=1" in errors[0] and not saved(run)
    for script in ("sample", "evaluate"):
        assert call(script, f"run={run}", "n=2") == 1
        assert "has not saved any yet" in capfd.readouterr().err


@pytest.mark.slow
@pytest.mark.parametrize("number", [0, 3, 6, 7, 11])
def test_random_runs_that_explode_stop_in_one_sentence_and_give_no_number(number: int, tmp_path: Path) -> None:
    word, wrong = outcome(number, tmp_path)
    assert word.startswith("stopped") and not wrong
