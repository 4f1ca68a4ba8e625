"""Processes that train together stop behind the same step, whenever a signal comes and whichever of them hears of it."""

import random

import pytest
import torch
from torch.distributed import HashStore

from heatgen.runtime import agreement, ranks, signals


@pytest.mark.parametrize("ahead", [0, agreement.AHEAD])
def test_all_stop_behind_one_step_that_none_has_passed(monkeypatch, ahead: int) -> None:
    caught = 0
    monkeypatch.setattr(signals, "caught", lambda: caught)
    monkeypatch.setattr(agreement.Agreement, "_keep_pace", lambda self: ahead)
    for seed in range(200):
        draw, store = random.Random(seed), HashStore()
        monkeypatch.setattr(ranks, "store", lambda store=store: store)
        world = draw.choice([2, 3])
        each = [agreement.Agreement(torch.device("cpu"), world) for _ in range(world)]
        for one in each:
            one.key = "stop"  # as of processes of their own
        steps, stopped, signal, hit = [0] * world, [0] * world, draw.randrange(1, 10), draw.sample(range(world), 1)
        hit += draw.choices(range(world), k=draw.randrange(2))
        while not all(stopped):
            may = [i for i in range(world) if not stopped[i] and steps[i] <= min(steps) + ahead]
            i = draw.choice(may)  # it makes its next step: all others have begun the one `ahead` before it
            steps[i] += 1
            caught = int(i in hit and steps[i] >= signal)
            stopped[i] = steps[i] if each[i].stops(steps[i]) else 0
        assert len(set(stopped)) == 1 and signal <= stopped[0] <= signal + 1 + ahead + ahead


def test_one_process_stops_at_once(monkeypatch) -> None:
    alone = agreement.Agreement(torch.device("cpu"), 1)
    assert not alone.stops(1)
    monkeypatch.setattr(signals, "caught", lambda: 15)
    assert alone.stops(2)
