"""When several processes that train together stop: at one step, though a signal may reach one of them alone."""

from collections import deque
from functools import cached_property
from itertools import count
from typing import TYPE_CHECKING

import torch

from heatgen.check import ConfigError
from heatgen.runtime import ranks, signals

if TYPE_CHECKING:
    from torch.cuda import Event

AHEAD = 2  # steps that a process may hand over to its GPU before it waits for the first of them
trainings = count()  # of this process, in the same order in all of them


class Agreement:
    """Asked by every process behind every optimizer step whether to stop there; the answer is the same in all of them.

    No step has a collective for it. A process that has a signal puts it, and a step that nobody has passed, into the store
    where all have met, and each looks there, a round trip of some 0.1 ms. Behind step s that is s + 1 on a CPU: nobody ends
    step s + 1 without the gradients of this process. A GPU may be `AHEAD` steps behind its process, so there it is
    s + 1 + AHEAD, and each process waits for the end of step s - AHEAD, while the steps since then keep the GPU busy.

    Args:
        device: of this process.
        world: how many processes train together.
    """

    def __init__(self, device: torch.device, world: int):
        self.device, self.world = device, world
        self.told = False  # whether this process has said that it has a signal
        self.handed: deque[Event] = deque()  # the ends of the latest steps

    @cached_property
    def key(self) -> str:
        """Where the step stands in the store."""
        return f"{ranks.place()}/stop/{next(trainings)}"

    def stops(self, step: int) -> int:
        """The signal for which all processes stop behind this step; 0: they go on.

        ConfigError where the store has gone, and with it rank 0.
        """
        if self.world == 1:
            return signals.caught()
        ahead = self._keep_pace()
        try:
            store = ranks.store()
            if signals.caught() and not self.told:
                self.told = True
                store.compare_set(self.key, "", f"{step + 1 + ahead} {signals.caught()}")  # the first that says it is right
            last, number = map(int, store.get(self.key).split()) if store.check([self.key]) else (step + 1, 0)
            return number if step >= last else 0
        except RuntimeError as error:
            raise ConfigError("The first process of this training has ended, and with it the others.") from error

    def _keep_pace(self) -> int:
        """Wait until this process is no more than AHEAD steps before its GPU; how many it may be."""
        if self.device.type != "cuda":
            return 0
        end = torch.cuda.Event()
        end.record()
        self.handed.append(end)
        if len(self.handed) > AHEAD:
            self.handed.popleft().synchronize()
        return AHEAD
