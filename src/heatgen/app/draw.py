"""The four ways of sampling, and the files they leave."""

import json
import math
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from torch import Tensor

from heatgen import check
from heatgen.app.plain import Options
from heatgen.app.requests import SampleRequest
from heatgen.check import ConfigError
from heatgen.data.memory import numbers
from heatgen.data.module import DataModule
from heatgen.model.module import Method
from heatgen.model.prior import start
from heatgen.noise import Noise, SampleNoise, SharedNoise, SphericalNoise, batches
from heatgen.picture import Film, grid, is_points, save_gif, save_mp4
from heatgen.report.notebook import PICTURED
from heatgen.runtime.devices import Devices
from heatgen.runtime.files import atomic_path, save_picture, save_tensors, write_text

IMAGES, POINTS = 36, 2000  # samples that are drawn where nobody says how many
States = Callable[[Sequence[int]], tuple[Method, Tensor, Noise]]  # sample numbers -> bound model, states at level K, rng


def usual_n(shape: Sequence[int]) -> int:
    """How many samples of fields of shape (C, H, W) make a good picture: 36 images, or 2000 points."""
    return POINTS if is_points(shape) else IMAGES


def random_states(
    model: Method, data: DataModule, device: torch.device, seed: int, same_init: bool, share_noise: bool
) -> States:
    """Initial states and noise of given samples: random, with `same_init` one state, with `share_noise` one noise."""

    def states(indices: Sequence[int]) -> tuple[Method, Tensor, Noise]:
        own = [0] * len(indices) if same_init else indices
        begin = start(model, data, own, seed, device, "prior" if same_init or share_noise else "sample")
        if share_noise:
            return begin.model, begin.state, SharedNoise(seed, "shared")
        return begin.model, begin.state, SampleNoise(indices, seed, "sample") if same_init else begin.rng

    return states


def interpolated_states(model: Method, data: DataModule, device: torch.device, seed: int, num_points: int) -> States:
    """States between samples 0 and 1: linear in u_K, spherical in the noise of each step.

    u_K(j) = w_j a + (1 - w_j) b with w from 1 to 0; noise cos(phi_j) eps1 + sin(phi_j) eps2 with phi from 0 to pi/2.
    Both ends are the two samples that random sampling gives with the same seed.

    Raises:
        ConfigError: the map is drawn at random, so that there is no map between two.

    Source:
        Rissanen et al. 2023, section 4.
    """
    if model.process.is_random:
        raise ConfigError(
            f"interpolate=true needs one map for both ends, and forward={model.process.name} is drawn at random."
        )

    def states(indices: Sequence[int]) -> tuple[Method, Tensor, Noise]:
        ends = [start(model, data, [i], seed, device) for i in (0, 1)]
        place = torch.tensor([j / max(num_points - 1, 1) for j in indices]).to(ends[0].state)
        weight = place.reshape(-1, *[1] * (ends[0].state.dim() - 1))
        state = (1 - weight) * ends[0].state + weight * ends[1].state
        return model, state, SphericalNoise(place * math.pi / 2, ends[0].rng, ends[1].rng)

    return states


def given_states(model: Method, fields: Tensor, draws: Tensor | None, seed: int, device: torch.device) -> States:
    """Degraded fields (B, C, H, W) that are given, with the random numbers of their map; the noise depends on the place."""

    def states(indices: Sequence[int]) -> tuple[Method, Tensor, Noise]:
        rows = list(indices)
        bound = model.bind(None if draws is None else draws[rows].to(device))
        return bound, fields[rows].to(device), SampleNoise(indices, seed, "reconstruct", 0)

    return states


def drawn_map(model: Method, draws: object, n: int) -> Tensor | None:
    """The random numbers of a map that is drawn, a row for each of n fields; None where the model does without."""
    process = model.process
    if draws is None:
        if process.is_random and not process.withholds_cond:
            raise ConfigError(
                f"forward={process.name} is drawn at random, and the model is told how; give draws=, the numbers that u was "
                "degraded with (run.model.process.draw)."
            )
        return None
    if not process.is_random:
        raise ConfigError(f"forward={process.name} is not drawn at random; remove draws=.")
    rows = numbers("draws", draws)
    if rows.shape[:1] != (n,):
        raise ConfigError(f"draws has the shape {list(rows.shape)} and u has {n} fields; give a row for each.")
    return rows


def times_below(model: Method, t: float | None) -> Tensor | None:
    """The times of a model's way back below t, and t, ascending; None: its own. ConfigError where it knows no such way."""
    if t is None:
        return None
    process, times = model.process, model.sampling_times()
    t = check.number("t", t, above=0, maximum=float(times[-1]))
    if not model.uses_sampler:
        raise ConfigError(f"model={check.option_name(model)} answers from level K alone; leave t out.")
    level = float(process.level(times.new_tensor([t])))
    if abs(level - round(level)) < 1e-6:
        end = process.times[round(level)]
    elif model.any_time and process.is_diagonal:
        end = times.new_tensor(t)
    else:
        near = " or ".join(f"t={float(process.times[k]):g}" for k in (int(level), int(level) + 1) if k)
        raise ConfigError(f"t={t:g} is between two levels, which the model does not know; use {near}.")
    return torch.cat([times[times < end], end[None]])


def settings_of(request: SampleRequest, model: Method, n: int) -> Options:
    """What is written beside n samples that a model has drawn."""
    return request.facts() | {"n": n, **vars(model.grid), "nfe": model.calls.nfe}


def folder_name(request: SampleRequest, delta: str) -> str:
    """What distinguishes one sampling of a run from another."""
    load = request.load
    words = ["interpolation"] if request.interpolate else []
    words += [f"delta_{delta}", f"seed_{request.seed}"]
    words += [f"prior_std_{load.prior_std:g}"] if load.prior_std is not None else []
    words += [Path(load.checkpoint).stem] if load.checkpoint != "last" else []
    words += [load.weights] if load.weights != "ema" else []
    words += load.sampler.words() if load.sampler else []
    words += [word for word in ("same_init", "share_noise") if getattr(request, word)]
    return "_".join(words)


def states_of(model: Method, data: DataModule, devices: Devices, request: SampleRequest, n: int) -> States:
    """Where n samples begin, as a request says. ConfigError where the map is drawn and there is none between two."""
    if request.interpolate:
        return interpolated_states(model, data, devices.device, request.seed, n)
    return random_states(model, data, devices.device, request.seed, request.same_init, request.share_noise)


def draw_samples(
    model: Method,
    states: States,
    devices: Devices,
    n: int,
    size: int,
    film: Film | None = None,
    times: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Samples from given states, drawn by all processes together.

    Args:
        model: on the device of this process, ready to sample.
        states: where they begin.
        devices: the processes.
        n: how many samples, or points of an interpolation.
        size: of a batch, on which samples do not depend.
        film: sees the states on the way.
        times: of the way back, of a model with a sampler; None: the model's own, from level K.

    Returns:
        On the first process, the samples and where they began, (n, C, H, W) float32 each, in order; else no rows.

    Raises:
        ConfigError: on every process, where samples hold NaN or inf.
    """
    mine = devices.share(range(n))
    parts = batches(mine, size)
    samples, initial = (torch.empty(len(mine), *model.process.shape) for _ in range(2))  # on the CPU
    steps = model.num_steps if times is None else len(times) - 1
    with devices.bar(len(parts) * steps, "sampling") as bar, devices.autocast():

        def on_step(k: int, u: Tensor) -> None:
            if film is not None:
                film.record(k, u)
            bar.update()

        for indices, place, origin in zip(parts, samples.split(size), initial.split(size), strict=False):
            bound, first, rng = states(indices)
            if film is not None:
                film.begin()
                film.record(0, first)
            if times is None:
                place.copy_(bound.generate(first, rng, on_step))
            else:
                place.copy_(bound.way_back(first, times, rng, on_step))
            origin.copy_(first)
    bad = devices.gather(~samples.flatten(1).isfinite().all(1))
    if bad.any():
        check.finite("samples", torch.where(bad, torch.nan, 0.0), model.divergence())
    return devices.to_first(samples), devices.to_first(initial)


def draw(model: Method, data: DataModule, devices: Devices, root: Path, request: SampleRequest, n: int, size: int) -> Path:
    """Sample n times as a request says, in all processes, `size` samples at a time; the first writes a folder under `root`.

    Returns:
        The folder: grid.png, the first 100 images or all points; initial.png, their states at level K; process.gif and
        process.mp4, the way back (of an interpolation: from one end to the other and back); samples.pt, {"samples",
        "initial": (n, C, H, W) float32, "settings"}.
    """
    check.memory("num_points" if request.interpolate else "n", n, 8 * math.prod(model.process.shape))
    film, states = Film(model.num_steps, n), states_of(model, data, devices, request, n)
    samples, initial = draw_samples(model, states, devices, n, size, film)

    folder = root / folder_name(request, model.noise_label())
    if devices.first:  # before anything else is made of them
        folder.mkdir(parents=True, exist_ok=True)
        settings = settings_of(request, model, n)
        save_tensors(folder / "samples.pt", {"samples": samples, "initial": initial, "settings": settings})
        write_text(folder / "settings.json", json.dumps(settings, indent=2) + "\n")
    way = devices.to_first(film.states(torch.empty(0, *model.process.shape)))[: film.tiles]  # (n, frames, C, H, W)
    if devices.first:
        columns = n if request.interpolate else None
        shown = n if is_points(model.process.shape) else PICTURED
        to_unit = data.spec.to_unit
        save_picture(folder / "grid.png", grid(to_unit(samples[:shown]), columns))
        save_picture(folder / "initial.png", grid(to_unit(initial[:shown]), columns))
        write_film(folder, to_unit(samples), to_unit(way), request.interpolate)
    return folder


def write_film(folder: Path, samples: Tensor, states: Tensor, interpolation: bool) -> None:
    """process.gif and process.mp4: the way back from u_K, or along an interpolation and back; fields in [0, 1]."""
    if interpolation:
        there = [grid(sample[None]) for sample in samples]
        frames = [*there, *[there[-1]] * 10, *there[::-1]]
    else:
        frames = [grid(state) for state in states.unbind(1)]
    with atomic_path(folder / "process.gif") as beside:
        save_gif(beside, frames)
    with atomic_path(folder / "process.mp4") as beside:
        save_mp4(beside, frames)
