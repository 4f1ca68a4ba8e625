"""Two things run in turn in one process, and what is told of them: a ratio with its quartiles, and the machine's floor."""

import gc
import math
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from typing import TypeVar

import torch

from benchmarks.floors import Floors, Work

Function = Callable[[], object]
Size = TypeVar("Size")
MOST = 1000  # rounds
GPU_SECONDS = 1.5  # of one comparison, at most
QUANTUM = 0.01  # seconds of one measurement at least: quicker functions are called several times


@dataclass(frozen=True)
class Row:
    """One figure: how many times as fast `ours` is as `other`; with unit MiB, how many times as much `other` takes."""

    benchmark: str
    name: str
    ours: str
    other: str
    value: float  # of ours: the median of all rounds, in `unit`
    other_value: float
    ratio: float  # other / ours: the median of the ratios of all rounds
    low: float  # their quartiles
    high: float
    rounds: int
    unit: str = "ms"
    floor: float | None = None  # what ours would take at the peak of this machine, in `unit`
    bound: str | None = None  # which peak that is: operations | bytes | launches
    facts: Mapping[str, float | str] = field(default_factory=dict)


@dataclass(frozen=True)
class Growth:
    """How a time, or a size, grows: proportional to x^exponent, by least squares in logarithms."""

    benchmark: str
    name: str
    variable: str
    points: tuple[tuple[float, float], ...]  # (x, value in `unit`)
    unit: str = "ms"

    @property
    def fit(self) -> tuple[float, float]:
        """The exponent and its standard error; NaN for fewer than two, and three, points."""
        return exponent(self.points)


@dataclass(frozen=True)
class Note:
    """What was left out, and why."""

    benchmark: str
    name: str
    text: str


Entry = Row | Growth | Note


@dataclass(frozen=True)
class Bench:
    """How a benchmark is to measure.

    Args:
        device: where.
        floors: of that device.
        quick: tiny sizes and few rounds: to see that it works, not to learn from.
        full: what takes long too.
        seconds: of one comparison, about.
        clock: seconds; CPU time of this process where others disturb it.
        step: called whenever something has been measured, for the progress bar.
    """

    device: torch.device
    floors: Floors
    quick: bool = False
    full: bool = False
    seconds: float = 6.0
    clock: Callable[[], float] = time.perf_counter
    step: Callable[[], None] = lambda: None

    @property
    def on_gpu(self) -> bool:
        """Whether the device is a GPU."""
        return self.device.type == "cuda"

    def sizes(self, usual: Sequence[Size], tiny: Sequence[Size]) -> Sequence[Size]:
        """The sizes to measure at."""
        return tiny if self.quick else usual

    def times(self, functions: Mapping[str, Function], seconds: float | None = None) -> dict[str, list[float]]:
        """Seconds a call of each function in each round; see `interleave`."""
        longest = 0.1 if self.quick else min(seconds or self.seconds, GPU_SECONDS if self.on_gpu else 1e9)
        found = interleave(functions, self.device, longest, 2 if self.quick else 5, self.clock)
        self.step()
        return found

    def compare(
        self,
        benchmark: str,
        name: str,
        functions: Mapping[str, Function],
        reference: str,
        works: Mapping[str, Work] | None = None,
        seconds: float | None = None,
        facts: Mapping[str, float | str] | None = None,
    ) -> list[Row]:
        """A row for each function but the reference, all of them run in turn.

        Args:
            benchmark, name: of the rows.
            functions: by name.
            reference: the name of the one that the others are compared with.
            works: what each must do at least, by name, for the floor.
            seconds: of all of it, about; None: the usual.
            facts: that a reader should know.
        """
        times = self.times(functions, seconds)
        return [
            row_of(
                *(benchmark, name, ours, reference, times[ours], times[reference]),
                self.floors.of(works[ours]) if works and ours in works else None,
                facts or {},
            )
            for ours in functions
            if ours != reference
        ]


def row_of(
    benchmark: str,
    name: str,
    ours: str,
    other: str,
    times: Sequence[float],
    other_times: Sequence[float],
    floor: tuple[float, str] | None = None,
    facts: Mapping[str, float | str] | None = None,
) -> Row:
    """The row of seconds a call of two functions, round by round; floor: seconds and which."""
    low, ratio, high = quartiles([b / a for a, b in zip(times, other_times, strict=True)])
    values = (1e3 * statistics.median(times), 1e3 * statistics.median(other_times))
    least, bound = (None, None) if floor is None else (1e3 * floor[0], floor[1])
    return Row(benchmark, name, ours, other, *values, ratio, low, high, len(times), "ms", least, bound, facts or {})


def quartiles(values: Sequence[float]) -> tuple[float, float, float]:
    """The lower quartile, the median and the upper quartile."""
    if len(values) == 1:
        return values[0], values[0], values[0]
    low, middle, high = statistics.quantiles(values, n=4, method="inclusive")
    return low, middle, high


def exponent(points: Sequence[tuple[float, float]]) -> tuple[float, float]:
    """The slope of ln y over ln x by least squares, and its standard error; NaN for fewer than 2, and 3, points."""
    if len(points) < 2:
        return math.nan, math.nan
    x, y = ([math.log(point[i]) for point in points] for i in (0, 1))
    mean_x, mean_y = statistics.fmean(x), statistics.fmean(y)
    spread = sum((a - mean_x) ** 2 for a in x)
    slope = sum((a - mean_x) * (b - mean_y) for a, b in zip(x, y, strict=True)) / spread
    rest = sum((b - mean_y - slope * (a - mean_x)) ** 2 for a, b in zip(x, y, strict=True))
    return slope, math.sqrt(rest / (len(points) - 2) / spread) if len(points) > 2 else math.nan


def interleave(
    functions: Mapping[str, Function],
    device: torch.device,
    seconds: float,
    least: int = 5,
    clock: Callable[[], float] = time.perf_counter,
) -> dict[str, list[float]]:
    """Seconds a call of each function, in rounds a, b, ..., then ..., b, a: what disturbs one of them disturbs all alike.

    Args:
        functions: by name; each is called once before, or twice where that was quick.
        device: on a GPU, events on its stream are what is timed, from an idle device to an idle device.
        seconds: of all of it, about.
        least: rounds, at least.
        clock: seconds, on a CPU.
    """
    calls = {}
    for name, function in functions.items():
        timed(function, 1, device, clock)
        calls[name] = max(1, math.ceil(QUANTUM / max(timed(function, 1, device, clock), 1e-7)))
    times: dict[str, list[float]] = {name: [] for name in functions}
    end, order = time.perf_counter() + seconds, list(functions)
    with collected():
        for done in range(MOST):
            if done >= least and time.perf_counter() > end:
                break
            for name in order:
                times[name].append(timed(functions[name], calls[name], device, clock) / calls[name])
            order.reverse()
    return times


def timed(function: Function, calls: int, device: torch.device, clock: Callable[[], float] = time.perf_counter) -> float:
    """Seconds that so many calls take together."""
    if device.type == "cuda":
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        torch.cuda.synchronize(device)
        begin.record()
        for _ in range(calls):
            function()
        end.record()
        torch.cuda.synchronize(device)
        return float(begin.elapsed_time(end)) / 1e3
    start = clock()
    for _ in range(calls):
        function()
    return max(clock() - start, 1e-9)


@contextmanager
def collected() -> Iterator[None]:
    """No garbage collection within."""
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


def as_json(entry: Entry) -> dict[str, object]:
    """An entry as plain data; `of_json` reads it again."""
    content = {"kind": type(entry).__name__.lower()} | asdict(entry)
    if isinstance(entry, Growth):
        slope, error = entry.fit
        content |= {"exponent": round(slope, 3), "error": None if math.isnan(error) else round(error, 3)}
    return content


def of_json(content: Mapping[str, object]) -> Entry:
    """The entry of plain data."""
    kinds: dict[str, type[Entry]] = {"row": Row, "growth": Growth, "note": Note}
    kind = kinds[str(content["kind"])]
    entry = kind(**{key: value for key, value in content.items() if key in kind.__dataclass_fields__})  # type: ignore[arg-type]
    if isinstance(entry, Growth):
        return Growth(entry.benchmark, entry.name, entry.variable, tuple((x, y) for x, y in entry.points), entry.unit)
    return entry
