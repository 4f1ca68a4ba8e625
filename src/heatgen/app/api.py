"""heatgen from Python: `heatgen.load`, `heatgen.sample` and `heatgen.compose`."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, TypedDict, Unpack

from heatgen.app.compose import compose
from heatgen.app.load import Run, open_run, own_precision, precision_of
from heatgen.app.quoting import quoted
from heatgen.app.requests import LoadRequest, SampleRequest
from heatgen.check import ConfigError
from heatgen.runtime.launch import DeviceRequest

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["LoadOptions", "Run", "SampleOptions", "compose", "load", "sample"]


class LoadOptions(TypedDict, total=False):
    """What of a run may be replaced; the keys of conf/sample.yaml."""

    checkpoint: str  # last | best | step_N | a file
    weights: str  # ema | raw
    delta: float  # noise of each reverse step
    delta_mode: str  # constant | per_step | spectral
    prior_std: float  # noise on the initial states
    sampler: str  # another way back than the run's own
    trust: bool  # whether its config may name any code, as that of a package of your own
    data: Mapping[str, str | int]  # where the files of its data are now, such as {"path": "/new/place"}


class SampleOptions(LoadOptions, total=False):
    """How samples may be drawn; the keys of conf/sample.yaml."""

    batch_size: int | str  # samples at a time; auto: as many as fit
    same_init: bool  # all samples start from one initial state
    share_noise: bool  # all samples share the noise of each step


def load(run: str | Path = "latest", device: str = "auto", **options: Unpack[LoadOptions]) -> Run:
    """A trained run that is ready to sample: with averaged weights, calibrated, on its device.

    Args:
        run: its folder, or `latest`.
        device: auto (a CUDA GPU where there is one) | cpu | gpu.
        options: what to replace of it.

    Returns:
        Its model, its data and its config; `model, data, config = load(...)` takes them apart.

    Raises:
        ConfigError: the run cannot be read, or does not have what is to be replaced.
    """
    wanted = request(run, options).load
    return open_run(wanted, DeviceRequest(device, precision="auto").open(own_precision(wanted)))


def sample(
    run: Run | str | Path = "latest",
    n: int | None = None,
    seed: int = 0,
    device: str = "auto",
    **options: Unpack[SampleOptions],
) -> "Tensor":
    """Samples of u_0, the same as those of `heatgen sample`.

    Args:
        run: what `load` gave, or the folder of a run, or `latest`.
        n: how many; None: 36 images, or 2000 points.
        seed: of the initial states and of all noise.
        device: where to sample; of a run that is loaded, its own.
        options: how to sample, and what to replace of the run where it is not loaded yet.

    Returns:
        The samples, (n, C, H, W) float32 on the CPU, in the range of the data.

    Raises:
        ConfigError: an option does not exist or does not fit the run.
    """
    from heatgen.app import batch
    from heatgen.app.draw import draw_samples, usual_n

    if isinstance(run, Run):
        own = SampleOptions.__annotations__.keys() - LoadOptions.__annotations__.keys()
        if late := sorted(options.keys() - own):
            raise ConfigError(f"{late[0]} cannot be given for a run that is loaded; give it to heatgen.load.")
        wanted = SampleRequest(
            LoadRequest(Path()),
            n,
            seed,
            options.get("batch_size", 128),
            options.get("same_init", False),
            options.get("share_noise", False),
        )
        where = DeviceRequest("cpu" if run.model.device.type == "cpu" else "gpu", precision="auto")
        devices = where.open(precision_of(run.config))
    else:
        wanted = request(run, {"n": n, "seed": seed, **options})
        devices = DeviceRequest(device, precision="auto").open(own_precision(wanted.load))
        run = open_run(wanted.load, devices)
    count = wanted.n or usual_n(run.model.process.shape)
    size = batch.settle(wanted.batch_size, run.model, run.data, devices, count, seed, None)
    with batch.explained(size, devices):
        samples, _ = draw_samples(run.model, run.data, devices, wanted, count, size)
    return samples


def request(run: str | Path, options: Mapping[str, object]) -> SampleRequest:
    """What `heatgen sample run=RUN KEY=VALUE...` asks for."""
    flat: dict[str, object] = {"run": str(run)}
    for key, value in options.items():
        flat |= {f"{key}.{name}": one for name, one in value.items()} if isinstance(value, Mapping) else {key: value}
    words = [
        f"{key}={quoted(value) if isinstance(value, str) else json.dumps(value)}"
        for key, value in flat.items()
        if value is not None
    ]
    return SampleRequest.of(compose(*words, verb="sample"))
