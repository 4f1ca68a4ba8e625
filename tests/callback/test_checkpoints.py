"""callback=checkpoints: when last.ckpt and best.ckpt are written, that they are on the disk, and what a signal does."""

import os
import signal
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from heatgen.callback.checkpoints import AtomicIO, Checkpoints
from heatgen.check import ConfigError
from heatgen.runtime import signals


class Trainer:
    """What the callback asks of a trainer; notes at which step each file was saved."""

    def __init__(self, folder):
        self.default_root_dir, self.global_step, self.is_global_zero = str(folder), 0, True
        self.callback_metrics, self.saved, self.callbacks = {}, {}, []
        self.world_size, self.strategy = 1, SimpleNamespace(root_device=torch.device("cpu"))

    def save_checkpoint(self, path):
        assert path.parent == Path(self.default_root_dir) / "checkpoints"
        self.saved.setdefault(path.name, []).append(self.global_step)

    def train(self, callback, steps):
        for _ in range(steps):
            callback.on_train_batch_start(self, None, None, 0)
            self.global_step += 1

    def validate(self, callback, loss):
        self.callback_metrics = {"val/loss": torch.tensor(loss)}
        callback.on_validation_end(self, None)


@pytest.fixture
def trainer(tmp_path):
    return Trainer(tmp_path)


@pytest.fixture
def handlers():
    """The handlers of signals are put back after the test, which begins with a hangup that is not ignored."""
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    with signals.obeyed():
        yield
    signal.signal(signal.SIGHUP, before)


def test_best_is_written_where_the_validation_loss_falls_and_only_there(trainer):
    callback = Checkpoints()
    for trainer.global_step, loss in enumerate((3.0, 2.0, 2.5, 2.0, float("nan"), 1.5, 1.6)):
        trainer.validate(callback, loss)
    assert trainer.saved == {"best.ckpt": [0, 1, 5]} and callback.best == 1.5


def test_a_validation_without_a_loss_writes_nothing(trainer):
    Checkpoints().on_validation_end(trainer, None)
    assert not trainer.saved


def test_a_resumed_training_keeps_the_best_of_before(trainer):
    before, after = Checkpoints(), Checkpoints()
    trainer.validate(before, 1.0)
    after.load_state_dict(before.state_dict())
    trainer.global_step = 7
    trainer.validate(after, 1.5)
    assert trainer.saved == {"best.ckpt": [0]} and after.best == 1.0
    trainer.validate(after, 0.5)
    assert trainer.saved == {"best.ckpt": [0, 7]}
    assert before.state_key == after.state_key


def test_last_alone_holds_the_seconds_which_add_up(trainer, monkeypatch, handlers):
    states, now = {}, [100.0]
    monkeypatch.setattr("time.monotonic", lambda: now[0])
    trainer.save_checkpoint = lambda path: states.update({path.name: callback.state_dict()})
    callback = Checkpoints()
    callback.on_train_start(trainer, None)
    now[0] += 7
    trainer.validate(callback, 1.0)
    callback.on_train_end(trainer, None)
    assert states == {"best.ckpt": {"best": 1.0}, "last.ckpt": {"best": 1.0, "seconds": 7.0}}
    callback = Checkpoints()
    callback.load_state_dict(states["last.ckpt"])
    callback.on_train_start(trainer, None)
    now[0] += 5
    assert callback.seconds == 12.0


@pytest.mark.parametrize(("steps", "expected"), [(9, [4, 8, 9]), (8, [4, 8])])
def test_last_is_written_every_so_many_steps_and_at_the_end(trainer, steps, expected):
    callback = Checkpoints(every=4)
    trainer.train(callback, steps)
    callback.on_train_end(trainer, None)
    assert trainer.saved == {"last.ckpt": expected}


def test_nothing_is_written_between_two_optimizer_steps(trainer):
    callback = Checkpoints(every=1)
    trainer.train(callback, 1)
    for _ in range(3):  # batches whose gradients are accumulated
        callback.on_train_batch_start(trainer, None, None, 0)
    assert trainer.saved == {"last.ckpt": [1]}


@pytest.mark.parametrize("number", signals.ENDING)
def test_a_signal_ends_the_training_after_the_step_with_last_saved_once(trainer, handlers, number):
    callback = Checkpoints(every=100)
    callback.on_train_start(trainer, None)
    trainer.train(callback, 2)
    os.kill(os.getpid(), number)
    with pytest.raises(signals.Stopped) as stop:
        trainer.train(callback, 5)
    assert trainer.global_step == 2 and trainer.saved == {"last.ckpt": [2]} and stop.value.code == 128 + number


def test_a_signal_to_another_process_ends_this_one_too(trainer, handlers):
    callback = Checkpoints(every=100)
    callback.agreement = SimpleNamespace(stops=lambda step: signal.SIGTERM if step == 1 else 0)
    with pytest.raises(signals.Stopped) as stop:
        trainer.train(callback, 5)
    assert trainer.global_step == 1 and trainer.saved == {"last.ckpt": [1]} and stop.value.code == 128 + signal.SIGTERM


def test_what_a_kill_left_half_written_is_removed_at_the_start_by_one_process(trainer, tmp_path, handlers):
    (tmp_path / "checkpoints").mkdir()
    leftover, whole = (tmp_path / "checkpoints" / name for name in ("last.ckpt.tmp123", "last.ckpt"))
    for path in (leftover, whole):
        path.write_bytes(b"x")
    trainer.is_global_zero = False
    Checkpoints().on_train_start(trainer, None)
    assert leftover.exists()
    trainer.is_global_zero = True
    Checkpoints().on_train_start(trainer, None)
    assert whole.exists() and not leftover.exists()


def test_a_checkpoint_is_on_the_disk_before_it_takes_its_name_and_so_is_the_name(tmp_path, monkeypatch):
    target, events, fsync, replace = tmp_path / "new" / "last.ckpt", [], os.fsync, os.replace

    def synced(descriptor):
        events.append(os.path.realpath(f"/proc/self/fd/{descriptor}") if Path("/proc/self/fd").exists() else descriptor)
        fsync(descriptor)

    def replaced(source, place):
        assert torch.load(source, weights_only=True) == {"step": 1}  # whole
        events.append(("rename", str(source)))
        replace(source, place)

    monkeypatch.setattr("os.fsync", synced)
    monkeypatch.setattr("os.replace", replaced)
    AtomicIO().save_checkpoint({"step": 1}, target)
    (kind, beside), at = events[1], [event for event in events if isinstance(event, str)]
    assert len(events) == 3 and kind == "rename"
    if at:  # where the system says which file a descriptor is of
        assert at == [os.path.realpath(target.parent / Path(beside).name), os.path.realpath(target.parent)]
    assert [path.name for path in target.parent.iterdir()] == ["last.ckpt"]


def test_a_write_that_fails_leaves_the_old_checkpoint_and_no_other_file(tmp_path, monkeypatch):
    target = tmp_path / "last.ckpt"
    AtomicIO().save_checkpoint({"step": 1}, target)

    def fails(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", fails)
    with pytest.raises(ConfigError, match=r"last\.ckpt cannot be written \(No space left on device\); free space"):
        AtomicIO().save_checkpoint({"step": 2}, target)
    assert torch.load(target, weights_only=True) == {"step": 1}
    assert [path.name for path in tmp_path.iterdir()] == ["last.ckpt"]


def test_the_steps_between_checkpoints_are_checked():
    with pytest.raises(ConfigError, match=r"callback\.checkpoints\.every"):
        Checkpoints(every=0)
