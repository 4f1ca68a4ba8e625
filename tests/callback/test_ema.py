"""callback=ema: the averages in exact numbers, whose they are at which time, and that they survive a checkpoint."""

import io
from types import SimpleNamespace

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from heatgen.callback.ema import EMA
from heatgen.check import ConfigError


def toy(value=1.0):
    """A linear layer with all weights `value`, and a whole number that is no weight."""
    model = nn.Linear(2, 1).double()
    model.count = nn.Parameter(torch.tensor([7]), requires_grad=False)
    fill(model, value)
    return model


def fill(model, value):
    for parameter in (model.weight, model.bias):
        nn.init.constant_(parameter, value)


def started(model, decay=0.999):
    ema = EMA(decay)
    ema.on_fit_start(None, model)
    return ema


def value(tensors):
    numbers = torch.cat([tensor.flatten() for tensor in tensors])
    assert torch.equal(numbers, numbers[:1].expand_as(numbers))
    return numbers[0].item()


@pytest.mark.parametrize(("decay", "expected"), [(0.999, 2 / 11), (2 / 11, 2 / 11), (0.1, 0.1), (0.0, 0.0)])
def test_the_first_update_keeps_two_elevenths_at_most(decay, expected):
    model = toy(1.0)
    ema = started(model, decay)
    fill(model, 0.0)
    ema.update(model)
    assert value(ema.averages) == pytest.approx(expected, abs=1e-15)


@pytest.mark.parametrize("decay", [0.999, 0.5, 0.2])
def test_the_decay_rises_from_a_ninth_towards_its_limit(decay):
    model, expected = toy(3.0), 3.0
    ema = started(model, decay)
    for n in range(1, 40):
        fill(model, float(n % 5))
        ema.update(model)
        d = min(decay, (1 + n) / (10 + n))
        expected = d * expected + (1 - d) * (n % 5)
        assert value(ema.averages) == pytest.approx(expected, abs=1e-13)
    assert ema.updates == 39


def test_an_update_leaves_the_model_alone():
    model = toy(1.0)
    ema = started(model)
    fill(model, 2.0)
    ema.update(model)
    assert value([model.weight, model.bias]) == 2.0


def test_only_floating_point_parameters_are_averaged():
    model = toy(1.0)
    ema = started(model)
    assert [tuple(average.shape) for average in ema.averages] == [(1, 2), (1,)]
    model.count.data += 1
    with ema.applied(model):
        assert model.count.item() == 8
    assert model.count.item() == 8


def test_averages_count_optimizer_steps_not_batches():
    model = toy(1.0)
    ema = started(model)
    fill(model, 0.0)
    for step in (0, 0, 1, 1, 1, 2):
        ema.on_train_batch_end(SimpleNamespace(global_step=step, callbacks=[]), model)
    assert ema.updates == 2
    assert value(ema.averages) == pytest.approx(2 / 11 * 3 / 12, abs=1e-15)


def test_averages_that_begin_later_than_the_training_count_their_own_steps():
    model = toy(1.0)
    ema = started(model)
    fill(model, 0.0)
    ema.on_train_start(SimpleNamespace(global_step=5), model)
    for step in (5, 5, 6, 6, 7):
        ema.on_train_batch_end(SimpleNamespace(global_step=step, callbacks=[]), model)
    assert ema.updates == 2 and value(ema.averages) == pytest.approx(2 / 11 * 3 / 12, abs=1e-15)


def test_the_averages_are_lent_and_the_weights_come_back():
    model = toy(1.0)
    ema = started(model)
    fill(model, 5.0)
    with ema.applied(model):
        assert value([model.weight, model.bias]) == 1.0
    assert value([model.weight, model.bias]) == 5.0
    assert value(ema.averages) == 1.0


def test_the_weights_come_back_after_an_error():
    model = toy(1.0)
    ema = started(model)
    fill(model, 5.0)
    with pytest.raises(RuntimeError, match="inside"), ema.applied(model):
        raise RuntimeError("inside")
    assert value([model.weight, model.bias]) == 5.0


@pytest.mark.parametrize("end", ["on_validation_end", "on_exception"])
def test_validation_uses_the_averages_and_gives_the_weights_back_however_it_ends(end):
    model = toy(1.0)
    ema = started(model)
    fill(model, 5.0)
    ema.on_validation_start(None, model)
    assert value([model.weight, model.bias]) == 1.0
    for _ in range(2):
        getattr(ema, end)(None, model, *[RuntimeError()] * (end == "on_exception"))
        assert value([model.weight, model.bias]) == 5.0


def test_averages_change_the_output_of_the_model_as_their_weights_would():
    model, x = toy(1.0), torch.tensor([[1.0, 2.0]], dtype=torch.float64)
    ema = started(model)
    fill(model, 0.0)
    ema.update(model)
    with ema.applied(model):
        assert_close(model(x), torch.tensor([[2 / 11 * 4]], dtype=torch.float64), atol=1e-14, rtol=0)


def test_averages_go_through_a_checkpoint_and_go_on_from_there():
    model = toy(1.0)
    ema = started(model)
    fill(model, 0.0)
    ema.update(model)
    file = io.BytesIO()
    torch.save(ema.state_dict(), file)
    file.seek(0)
    other = EMA()
    other.load_state_dict(torch.load(file, weights_only=True))
    other.on_fit_start(None, model)
    for average in (ema, other):
        average.update(model)
    assert other.updates == ema.updates == 2
    assert value(other.averages) == value(ema.averages) == pytest.approx(2 / 11 * 3 / 12, abs=1e-15)


def test_a_saved_state_does_not_move_with_later_updates():
    model = toy(1.0)
    ema = started(model)
    state = ema.state_dict()
    other = EMA()
    other.load_state_dict(state)
    other.on_fit_start(None, model)
    fill(model, 0.0)
    other.update(model)
    assert value(ema.averages) == value(state["averages"]) == 1.0


def test_a_wrong_decay_is_refused_by_the_name_of_its_key():
    for decay in (1.5, -0.1, "slow", None, True):
        with pytest.raises(ConfigError, match=r"callback\.ema\.decay must"):
            EMA(decay)
