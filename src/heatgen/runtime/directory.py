"""The run directory: where it is, what is in it, and how it is found again."""

import csv
import fcntl
import json
import math
import platform
import re
import shlex
import subprocess
import zipfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from heatgen.check import ConfigError, first_nonfinite_weight, tensors_in
from heatgen.runtime import exported, ranks
from heatgen.runtime.command import call
from heatgen.runtime.files import read_small, write_new, write_text

DEEPEST = 50  # nested containers of a config.yaml
CONFIG, OVERRIDES = "config.yaml", "overrides.txt"  # in a run's folder: what it is, and the arguments it was started with
CHOICES = "choices.json"  # in a run's folder: the option of each group, and what differs from their defaults
SWEEP, COMMAND = "sweep.json", "command.txt"  # in a sweep's folder: how it goes on, and what was called
DATA = exported.DATA
MEASURED = "measured.txt"  # in a run's folder: what of its `evaluate` has been done since it was trained
STOPPED = "stopped.txt"  # in a run's folder, where its training stopped as it was not finite: the sentence it ended with
PACKAGES = ("heatgen", "torch", "lightning", "hydra-core", "omegaconf", "numpy", "torchvision")
RESULT_COLUMNS = (
    *("time", "experiment", "run", "mode", "param_name", "param_value"),
    *("metric", "value", "standard_error", "unit", "label", "facts", "command"),
)


def find_run(run: str, runs_dir: str, trained: bool = False, of_ranks: bool = True) -> Path:
    """The directory of a run, or of an exported model, or the file of one.

    Args:
        run: itself, or "latest" for the one whose config.yaml is the newest under runs_dir.
        runs_dir: where runs are.
        trained: whether `latest` passes over runs that have no checkpoint yet.
        of_ranks: whether all processes ask for it, who hear what rank 0 finds.

    Raises:
        ConfigError: there is none, or it holds neither config.yaml nor model.safetensors.
    """
    if run == "latest":
        return Path(ranks.told(lambda: str(latest(runs_dir, trained))) if of_ranks else latest(runs_dir, trained))
    folder = Path(run)
    if exported.file_of(folder):
        return folder.resolve()
    if not folder.is_dir():
        raise ConfigError(f"The run directory {run} does not exist; give a directory under {runs_dir}, or `latest`.")
    if not (folder / CONFIG).is_file():
        raise ConfigError(f"The run directory {run} has no config.yaml; give the directory of a training.")
    return folder.resolve()


def latest(runs_dir: str, trained: bool) -> Path:
    """The run whose config.yaml is the newest, of those that have a checkpoint where only they are of use.

    Runs with debug= are none that a user means.
    """
    found = [path for path in Path(runs_dir).rglob(CONFIG) if path.relative_to(runs_dir).parts[0] != "debug"]
    configs = {path: path.stat().st_mtime for path in found}
    for path in sorted(configs, key=lambda path: configs[path], reverse=True):
        if not trained or any((path.parent / "checkpoints").glob("*.ckpt")):
            return path.parent.resolve()
    if configs:
        raise ConfigError(f"No run under runs_dir = {runs_dir} has a checkpoint yet; wait for one, or train further.")
    raise ConfigError(f"There is no run under runs_dir = {runs_dir}; start one with {call('train')}.")


def environment() -> str:
    """The git commit, the versions of Python and the packages, the machine; one a line."""
    lines = [f"started {datetime.now().isoformat(timespec='seconds')}"]
    source = Path(__file__).resolve().parent
    git = subprocess.run(["git", "describe", "--always", "--dirty"], cwd=source, capture_output=True, text=True)
    lines.append(f"git {git.stdout.strip() or 'unknown'}")
    lines.append(f"python {platform.python_version()} on {platform.platform()}")
    for package in PACKAGES:
        try:
            lines.append(f"{package} {version(package)}")
        except PackageNotFoundError:
            lines.append(f"{package} not installed")
    return "\n".join(lines) + "\n"


def describe_run(folder: Path, config: str, overrides: Sequence[str]) -> None:
    """Write env.txt, overrides.txt and config.yaml; a resume adds to the first two, and is to be measured again."""
    for name in (STOPPED, MEASURED):
        (folder / name).unlink(missing_ok=True)
    for name, text in (("env.txt", environment()), (OVERRIDES, shlex.join(overrides) + "\n")):
        with (folder / name).open("a") as file:
            file.write(text)
    write_text(folder / CONFIG, config)


def trained(folder: Path) -> dict[str, float]:
    """The values of a run's newest train result; none where its training has not ended yet."""
    for path in sorted((folder / "evaluation").glob("train_*.json"), key=lambda path: path.stat().st_mtime_ns, reverse=True):
        try:
            values = json.loads(path.read_text())["values"]
            return {key: float(value) for key, value in values.items() if value is not None}
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            continue
    return {}


def measured(folder: Path) -> list[str]:
    """What has been measured of a run since it was trained: evaluate's arguments, an entry for each measurement."""
    path = folder / MEASURED
    return path.read_text().splitlines() if path.is_file() else []


def describe_data(folder: Path, facts: Mapping[str, object]) -> str | None:
    """Write data.json, what the data of a run were; a sentence where it goes on with other images than before."""
    path, changed = folder / "data.json", None
    if path.is_file():
        try:
            before = json.loads(path.read_text())["images"]
        except (OSError, ValueError, KeyError, TypeError):
            before = facts.get("images")
        if before != facts.get("images"):
            changed = f"the images of each split are {facts.get('images')} now and were {before} when this run began."
    write_text(path, as_json(facts))
    return changed


def write_result(folder: Path, mode: str, content: Mapping[str, object]) -> Path:
    """Write a result to evaluation/<mode>_<time>.json in `folder`, never over an older one."""
    path = folder / "evaluation" / f"{mode}_{datetime.now():%Y-%m-%d_%H-%M-%S}.json"
    return write_new(path, as_json(content))


def as_json(content: object) -> str:
    """Plain containers as the text of a file, with null for every number that is not finite, which JSON does not know."""
    finite = mapped(content, lambda value: None if isinstance(value, float) and not math.isfinite(value) else value)
    return json.dumps(finite, indent=2) + "\n"


def mapped(content: object, change: Callable[[object], object]) -> Any:
    """Plain containers with change(value) in place of every value that is none of them."""
    if isinstance(content, Mapping):
        return {key: mapped(value, change) for key, value in content.items()}
    return [mapped(value, change) for value in content] if isinstance(content, (list, tuple)) else change(content)


def append_results(runs_dir: str, experiment: str, rows: Sequence[Mapping[str, object]]) -> Path:
    """Add rows to the experiment's table, runs_dir/results/<experiment>.csv; one row a number, one writer at a time.

    A table that was begun with other columns keeps them.
    """
    path, other = Path(runs_dir) / "results" / f"{experiment}.csv", "give another experiment_name"
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.exists() and not path.is_file():
        raise ConfigError(f"{path} is no file, so that no results are added to it; remove it, or {other}.")
    with path.open("a+", newline="") as file:
        fcntl.flock(file, fcntl.LOCK_EX)  # until it is closed
        file.seek(0)
        try:
            first = file.readline(2**16)
            columns = next(csv.reader([first])) if first else None
        except (csv.Error, ValueError) as error:
            raise ConfigError(f"{path} is no table of results ({error}); move it, or {other}.") from error
        if columns and not {"metric", "value"} <= set(columns):
            raise ConfigError(f"{path} is no table of results, as its first line shows; move it, or {other}.")
        file.seek(0, 2)
        writer = csv.DictWriter(file, columns or RESULT_COLUMNS, restval="", extrasaction="ignore")
        if columns is None:
            writer.writeheader()
        writer.writerows(rows)
    return path


@dataclass(frozen=True)
class RunInfo:
    """What a page of results says of a run, as its config.yaml has it."""

    seed: str
    parametrisation: str | None  # what the model predicts, where it chose one
    shape: tuple[int, ...]  # of the data, (C, H, W); () where the config does not say
    pictured: int  # how many samples each grid in samples/ shows
    data_name: str  # "" where the config does not say


def config_text(path: Path) -> str:
    """The text of a run's config.yaml, or of the config in an exported model.

    ConfigError unless it is a small file of YAML that says what it says once.
    """
    import yaml

    try:
        text = exported.config_text(path) if path.suffix == exported.SUFFIX else read_small(path)
        depth = 0
        for event in yaml.parse(text, Loader=yaml.SafeLoader):
            depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
            if isinstance(event, yaml.AliasEvent) or depth > DEEPEST:
                what = "repeats parts of itself (YAML aliases)" if depth <= DEEPEST else "is nested without end"
                raise ConfigError(f"{path} {what}, as no run's is; give another run.")
    except (OSError, ValueError, RecursionError, yaml.YAMLError) as error:
        if isinstance(error, ConfigError):
            raise
        reason = getattr(error, "strerror", None) or type(error).__name__
        raise ConfigError(f"{path} cannot be read ({reason}); give another run.") from error
    return text


def plain_config(run_dir: Path) -> dict[str, Any]:
    """The config.yaml of a run as plain data, as it stands there. ConfigError if it cannot be read."""
    import yaml

    path = run_dir / CONFIG
    text = config_text(path)
    try:
        config = yaml.safe_load(text)
    except (yaml.YAMLError, TypeError, ValueError, RecursionError) as error:
        raise ConfigError(f"{path} cannot be read ({type(error).__name__}); give another run.") from error
    if not isinstance(config, dict):
        raise ConfigError(f"{path} cannot be read (it has no keys); give another run.")
    return config


def read_info(run_dir: Path) -> RunInfo:
    """What a page says of a run. ConfigError if its config.yaml cannot be read."""
    config = plain_config(run_dir)
    try:
        model, data, callbacks = (config.get(group) or {} for group in ("model", "data", "callback"))
        pictured = int((callbacks.get("pictures") or {}).get("n", 36))
        shape, name = tuple(data.get("shape") or ()), str(config.get("data_name") or "")
        return RunInfo(str(config.get("seed", "")), model.get("parametrisation"), shape, pictured, name)
    except (AttributeError, TypeError, ValueError) as error:
        raise ConfigError(f"{run_dir / CONFIG} cannot be read ({type(error).__name__}); give another run.") from error


def snapshots(run: Path) -> list[str]:
    """The names of a run's numbered checkpoints, step_1000 and so on, in the order of their steps."""
    found = [path.stem for path in (run / "checkpoints").glob("step_*.ckpt") if path.stem[5:].isdecimal()]
    return sorted(found, key=lambda name: int(name[5:]))


def find_checkpoint(run: Path, checkpoint: str) -> Path:
    """The file of a run's checkpoint `last`, `best` or `step_N`, or `checkpoint` itself where it is a file.

    An exported model has one, which is `last`.

    ConfigError where it is missing, and for `last` of a training that stopped as it was not finite.
    """
    if file := exported.file_of(run):
        if checkpoint == "last":
            return file
        raise ConfigError(f"{file} is an exported model, which has one set of weights; remove checkpoint={checkpoint}.")
    named = checkpoint in ("last", "best") or re.fullmatch(r"step_\d+", checkpoint)
    path = run / "checkpoints" / f"{checkpoint}.ckpt" if named else Path(checkpoint)
    if path.is_file() and checkpoint == "last" and (run / STOPPED).is_file():
        raise ConfigError(
            f"The training of {run} stopped as it was not finite ({STOPPED} there says where), so its last.ckpt is "
            f"no trained model; train again, or look at it all the same with checkpoint={path}."
        )
    if path.is_file():
        return path
    saved = [name for name in ("last", "best") if (run / "checkpoints" / f"{name}.ckpt").is_file()]
    saved += snapshots(run)
    if saved:
        fix = f"give checkpoint={' or checkpoint='.join(saved)}"
    else:
        fix = "the run has not saved any yet, so there is nothing to use; train again, or choose another run"
    raise ConfigError(f"The checkpoint {path} is missing; {fix}.")


def read_checkpoint(path: Path) -> dict[str, Any]:
    """The content of a checkpoint, tensors and plain numbers only.

    ConfigError if it is cut short, foreign, of tensors larger than the file, or not finite.
    """
    if path.suffix == exported.SUFFIX:
        return exported.read(path)
    import torch

    try:
        with zipfile.ZipFile(path) as archive:  # what torch.save writes; nothing in it is packed
            claimed = sum(entry.file_size for entry in archive.infolist())
        output: object = torch.load(path, map_location="cpu", weights_only=True) if claimed <= path.stat().st_size else None
    except Exception as error:  # a stranger's bytes can make PyTorch raise anything
        raise ConfigError(f"{path} is cut short or not a checkpoint; use another one, or make it again.") from error
    if not isinstance(output, dict):
        raise ConfigError(f"{path} does not hold what a training saves; use another checkpoint.")
    for name, tensor in tensors_in(output):
        stored = tensor.untyped_storage().nbytes() if tensor.layout == torch.strided and not tensor.is_meta else 0
        if not tensor.numel() * tensor.element_size() <= stored <= path.stat().st_size:
            raise ConfigError(f"{path} does not hold the numbers that it claims (of {name}); use another checkpoint.")
    if bad := first_nonfinite_weight(output):
        raise ConfigError(f"{path} holds NaN or inf (first in {bad}); use another checkpoint, or train again.")
    return output
