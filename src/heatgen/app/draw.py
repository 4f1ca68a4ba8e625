"""The four ways of sampling, and the files they leave."""

import json
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from omegaconf import OmegaConf
from torch import Tensor

from heatgen.check import CONF, ConfigError
from heatgen.noise import Noise, SampleNoise, SharedNoise, SphericalNoise, batches
from heatgen.picture import Film, grid, is_points, save_gif, save_mp4
from heatgen.runtime.devices import Devices
from heatgen.runtime.files import atomic_path, write_text

PICTURED = 100  # images in a grid; of points, all
IMAGES, POINTS = 36, 2000  # samples that are drawn where nobody says how many
States = Callable[[Sequence[int]], tuple[Any, Tensor, Noise]]  # samples -> model, initial states, noise


def usual_n(shape: Sequence[int]) -> int:
    """How many samples of fields of shape (C, H, W) make a good picture: 36 images, or 2000 points."""
    return POINTS if is_points(shape) else IMAGES


def random_states(model: Any, data: Any, device: torch.device, seed: int, same_init: bool, share_noise: bool) -> States:
    """Initial states and noise of given samples: random, with `same_init` one state, with `share_noise` one noise."""

    def states(samples: Sequence[int]) -> tuple[Any, Tensor, Noise]:
        seeds = [0] * len(samples) if same_init else list(samples)
        u0 = data.prior_images(seeds, seed).to(device)
        noise = SampleNoise(samples, seed, "sample")
        first = SampleNoise(seeds, seed, "prior") if same_init or share_noise else noise
        drawn = model.bound(first)
        return drawn, drawn.initial_state(u0, first), SharedNoise(seed, "shared") if share_noise else noise

    return states


def interpolated_states(model: Any, data: Any, device: torch.device, seed: int, num_points: int) -> States:
    """States between samples 0 and 1: linear in u_K, spherical in the noise of each step.

    u_K(j) = w_j a + (1 - w_j) b with w from 1 to 0; noise cos(phi_j) eps1 + sin(phi_j) eps2 with phi from 0 to pi/2.
    Both ends are the two samples that random sampling gives with the same seed. Source: Rissanen et al. 2023, section 4.
    ConfigError for a map that is drawn at random: there is no map between two.
    """
    if model.process.is_random:
        raise ConfigError(
            f"interpolate=true needs one map for both ends, and forward={model.process.name} is drawn at random."
        )

    def states(samples: Sequence[int]) -> tuple[Any, Tensor, Noise]:
        ends, noises = [], [SampleNoise([i], seed, "sample") for i in (0, 1)]
        for i, noise in enumerate(noises):
            ends.append(model.initial_state(data.prior_images([i], seed).to(device), noise))
        place = torch.tensor([j / max(num_points - 1, 1) for j in samples]).to(ends[0])
        weight = place.reshape(-1, *[1] * (ends[0].dim() - 1))
        return model, (1 - weight) * ends[0] + weight * ends[1], SphericalNoise(place * math.pi / 2, *noises)

    return states


def folder_name(cfg: Any, delta: str) -> str:
    """What distinguishes one sampling of a run from another."""
    words = ["interpolation"] if cfg.interpolate else []
    words += [f"delta_{delta}", f"seed_{cfg.seed}"]
    words += [f"prior_std_{cfg.prior_std:g}"] if cfg.prior_std is not None else []
    words += [Path(cfg.checkpoint).stem] if cfg.checkpoint != "last" else []
    words += [cfg.weights] if cfg.weights != "ema" else []
    words += sampler_words(cfg)
    words += [word for word in ("same_init", "share_noise") if cfg[word]]
    return "_".join(words)


def sampler_words(cfg: Any) -> list[str]:
    """The sampler that `cfg` asks for in place of the run's own: its name, and key=value where that is not the default."""
    if not cfg.get("sampler"):
        return []
    name = cfg.sampler["_target_"].rsplit(".", 1)[-1]
    usual = OmegaConf.load(CONF / "sampler" / f"{name}.yaml")
    return [name, *(f"{key}={value}" for key, value in cfg.sampler.items() if usual.get(key) != value)]


def draw(model: Any, data: Any, devices: Devices, root: Path, cfg: Any) -> Path:
    """Sample as `cfg` (conf/sample.yaml) says, in all processes; the first one writes into a folder under `root`.

    grid.png the first 100 images or all points, initial.png their states at level K, process.gif and process.mp4 the way
    back (of an interpolation: from one end to the other and back), samples.pt {"samples", "initial": (n, C, H, W) float32,
    "settings"}.
    """
    if cfg.interpolate and (cfg.same_init or cfg.share_noise):
        raise ConfigError("interpolate=true has its own states and noise; remove same_init and share_noise.")
    n = cfg.num_points if cfg.interpolate else cfg.n
    if cfg.interpolate:
        states = interpolated_states(model, data, devices.device, cfg.seed, n)
    else:
        states = random_states(model, data, devices.device, cfg.seed, cfg.same_init, cfg.share_noise)
    film = Film(model.process.num_levels, n)
    initial, samples, runs = [], [], batches(devices.share(range(n)), cfg.batch_size)
    with devices.bar(len(runs) * model.process.num_levels, "sampling") as bar, devices.autocast():

        def see(k: int, u: Tensor) -> None:
            film.record(k, u)
            bar.update()

        for run in runs:
            drawn, first, noise = states(run)
            film.begin()
            film.record(0, first)
            samples.append(drawn.generate(first, noise, see).float())
            initial.append(first)
    empty = torch.empty(0, *model.process.shape)
    initial_all = devices.gather(torch.cat(initial) if initial else empty)
    samples_all = devices.gather(torch.cat(samples) if samples else empty)
    states_all = devices.gather(film.states(empty))[: film.tiles]  # (n, frames, C, H, W)

    folder = root / folder_name(cfg, model.noise_label())
    if devices.first:
        folder.mkdir(parents=True, exist_ok=True)
        columns = n if cfg.interpolate else None
        shown = n if is_points(model.process.shape) else PICTURED
        to_unit = data.spec.to_unit
        grid(to_unit(samples_all[:shown]), columns).save(folder / "grid.png")
        grid(to_unit(initial_all[:shown]), columns).save(folder / "initial.png")
        write_film(folder, to_unit(samples_all), to_unit(states_all), cfg.interpolate)
        keys = (
            "n",
            "seed",
            "delta",
            "delta_mode",
            "prior_std",
            "same_init",
            "share_noise",
            "interpolate",
            "num_points",
            "weights",
        )
        settings = {key: cfg[key] for key in keys} | {"sampler": " ".join(sampler_words(cfg)) or None}
        with atomic_path(folder / "samples.pt") as beside:
            torch.save({"samples": samples_all, "initial": initial_all, "settings": settings}, beside)
        write_text(folder / "settings.json", json.dumps(settings, indent=2) + "\n")
    return folder


def write_film(folder: Path, samples: Tensor, states: Tensor, interpolation: bool) -> None:
    """process.gif and process.mp4: the way back from u_K, or along an interpolation and back; fields in [0, 1]."""
    if interpolation:
        there = [grid(sample[None]) for sample in samples]
        frames = [*there, *[there[-1]] * 10, *there[::-1]]
    else:
        frames = [grid(state) for state in states.unbind(1)]
    save_gif(folder / "process.gif", frames)
    save_mp4(folder / "process.mp4", frames)
