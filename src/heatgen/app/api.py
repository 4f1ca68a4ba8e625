"""heatgen from Python: `heatgen.load` and `heatgen.train`."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import TypedDict, Unpack

from heatgen.app.compose import compose, words_of
from heatgen.app.in_process import train_here
from heatgen.app.load import open_run, own_precision
from heatgen.app.requests import LoadRequest
from heatgen.app.run import Run
from heatgen.check import ConfigError
from heatgen.runtime.launch import DeviceRequest


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


def load(run: str | Path = "latest", device: str = "auto", **options: Unpack[LoadOptions]) -> Run:
    """A trained run that is ready to sample: with averaged weights, calibrated, on its device.

    Args:
        run: its folder, `latest`, or what `heatgen export` wrote of one: the folder, or the file of weights alone.
        device: auto (a CUDA GPU where there is one) | cpu | gpu.
        options: what to replace of it.

    Returns:
        The run; `model, data, config = load(...)` takes it apart.

    Raises:
        ConfigError: the run cannot be read, or does not have what is to be replaced.
    """
    given = {key: value for key, value in options.items() if value is not None}
    wanted = LoadRequest.of(compose(*words_of({"run": str(run), **given}), verb="sample"))
    devices = DeviceRequest(device, precision="auto").open(own_precision(wanted))
    return Run.of(open_run(wanted, devices), wanted, devices)


def train(
    *overrides: str | Mapping[str, object],
    data: object = None,
    device: str = "auto",
    folder: str | Path | None = None,
    config_dir: str | Path | None = None,
    **options: object,
) -> Run:
    """Train a model in this process, as `heatgen train` does, into a run's folder of its own.

    Args:
        overrides: words of the command line, such as "trainer.max_steps=500", or mappings of keys to values.
        data: what to train on: the name of an option (digits); or samples in memory, which the run keeps: a tensor or an
            array of bytes or floats, (N, C, H, W), (N, H, W) or (N, d); a Dataset of images or (image, label); or a mapping
            of train, val and test to any of them. What is not given is held out, a tenth for each split.
        device: auto (a CUDA GPU where there is one) | cpu | gpu.
        folder: of the run; None: a new one in `runs_dir`.
        config_dir: a folder with more options, as --config-dir.
        options: groups and keys with their values: model="ihd", forward="heat", seed=1, trainer={"max_steps": 500}.

    Returns:
        The run, ready to sample; `heatgen train resume=FOLDER` goes on with it.

    Raises:
        ConfigError: an option or the data cannot be used.
        KeyboardInterrupt: Ctrl-C (a notebook's stop) came; what is trained is saved.
    """
    words = words_of({} if device == "auto" else {"trainer.accelerator": device})
    words += [] if folder is None else words_of({"hydra.run.dir": str(folder)})
    if isinstance(data, os.PathLike) or (isinstance(data, str) and not data.isidentifier()):
        raise ConfigError(f'data={data} is no option; for files give data="image_folder" and {{"data.path": "{data}"}}.')
    if isinstance(data, str):
        options, data = {"data": data, **options}, None
    for part in (options, *overrides):
        words += [part] if isinstance(part, str) else words_of(part)
    if wrong := next((word for word in words if word[:1] != "~" and (word[:1] == "-" or "=" not in word)), None):
        raise ConfigError(f"{wrong!r} is no KEY=VALUE; flags are for the command line.")
    run_dir = train_here(words, data, None if config_dir is None else str(config_dir))
    return load(run_dir, device, trust=True)
