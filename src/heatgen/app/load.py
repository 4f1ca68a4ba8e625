"""A run as it was after training: its model, its data and its config."""

import io
import os
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from omegaconf import DictConfig, OmegaConf

from heatgen import check
from heatgen.app.build import build
from heatgen.app.options import options_of
from heatgen.app.quoting import escaped, typed
from heatgen.app.requests import LoadRequest
from heatgen.app.sampler_request import GRID
from heatgen.app.trust import ROOMS, check_config
from heatgen.check import ConfigError
from heatgen.runtime import directory, exported
from heatgen.runtime.command import call
from heatgen.runtime.files import shown
from heatgen.runtime.launch import PRECISIONS
from heatgen.runtime.screen import listed

if TYPE_CHECKING:
    from torch import Tensor

    from heatgen.data.module import DataModule
    from heatgen.model.module import Method
    from heatgen.runtime.devices import Devices

GROUPS = (*ROOMS, "optimizer", "trainer")
NEEDED = ("data", "forward", "net", "model")  # groups without which a run cannot be
NAMES = ("name", "experiment_name", "data_name", "publish")


class Loaded(NamedTuple):
    """A trained run as it is read: its model, the data it was trained on, and its config."""

    model: "Method"
    data: "DataModule"
    config: DictConfig


def read_config(run_dir: Path, trust: bool = False, named: Collection[str] = ()) -> DictConfig:
    """The config of a run, or of an exported model, whose data are looked for in the data folder of this machine.

    Without trust nothing in it is worked out: a text with ${ is that text, or refused.

    Args:
        run_dir: the run.
        trust: whether it may name any code.
        named: code that it may name all the same.

    Raises:
        ConfigError: it cannot be read, or names code that is no option of heatgen.
    """
    file = exported.file_of(run_dir)
    path = file or run_dir / "config.yaml"
    text = directory.config_text(path)
    try:
        cfg = OmegaConf.load(io.StringIO(text))
    except Exception as error:
        raise ConfigError(f"{path} cannot be read ({type(error).__name__}); give another run.") from error
    if not isinstance(cfg, DictConfig) or not isinstance(cfg._content, dict) or "model" not in cfg:
        raise ConfigError(f"{path} is not the config of a run; give another run.")
    content = OmegaConf.to_container(cfg, resolve=False)
    assert isinstance(content, dict)
    for group in GROUPS:
        node = content.get(group) or {}
        if not isinstance(node, dict) or (group in NEEDED and "_target_" not in node):
            raise ConfigError(f"{path} is not the config of a run, by its key {group}; give another run.")
    if "suggest" in (content.get("data") or {}):
        raise ConfigError(
            f"{run_dir} was made by heatgen 0.1, whose options had other names; use that version, or train again."
        )
    for key in NAMES:
        if content.get(key) is not None:
            check.name(f"{key} in {path}", str(content[key]), parts=key != "publish")
    if renew(content["net"]):
        cfg.net = content["net"]
    if file and "data_dir" in content["data"]:
        cfg.data.data_dir = content["data"]["data_dir"] = os.environ.get("HEATGEN_DATA", "data")
    if Path(str(content["data"].get("path"))).name == directory.DATA and (run_dir / directory.DATA).is_file():
        cfg.data.path = content["data"]["path"] = str((run_dir / directory.DATA).absolute())  # wherever the run is now
    if trust:
        return cfg
    check_config(content, path, named)
    kept: DictConfig = OmegaConf.create(directory.mapped(content, lambda x: escaped(x) if isinstance(x, str) else x))
    return kept


def renew(net: dict[str, object]) -> bool:
    """Give the network of a run of before the options that it has now; whether there was such a one.

    channels_last=true was the default, and changed speed alone.
    """
    old = str(net.get("_target_")).startswith("heatgen.") and "channels_last" in net
    if old:
        net["memory_format"] = "auto" if net.pop("channels_last") else "contiguous"
    return old


def advised(key: str, run_dir: Path, verb: str | None = None) -> str:
    """KEY=RUN as it is typed, with trust=true where the config names code of the user's own, or measurements to go on with.

    Args:
        key: run | resume.
        run_dir: the run.
        verb: whose command to write before it; None: none.
    """
    words = [typed(key, str(run_dir))]
    try:
        trust = bool(read_config(run_dir).get("evaluate")) and key == "resume"
    except ConfigError:
        trust = (run_dir / directory.CONFIG).is_file()
    words += ["trust=true"] if trust else []
    return " ".join([*([call(verb)] if verb else []), *words])


def coming(run_dir: Path, *verbs: str) -> str:
    """What a user may do next with a run, a line each."""
    what = {"sample": "more samples", "evaluate": "how good they are: mode=NAME, which --help mode tells"}
    return listed("next", [(advised("run", Path(shown(run_dir)), verb), what[verb]) for verb in verbs])


def changed(cfg: DictConfig, request: LoadRequest) -> DictConfig:
    """The config of a run with what a request replaces. ConfigError for what its model does not have."""
    wanted = {key: getattr(request, key) for key in ("delta", "delta_mode", "prior_std")}
    wanted = {key: value for key, value in wanted.items() if value is not None}
    for key in wanted:
        if key not in cfg.model:
            raise ConfigError(f"{key} is not a setting of {cfg.model._target_}; remove it.")
    if "delta" in cfg.model and ("delta" in wanted) != ("delta_mode" in wanted):  # one replaces the other
        wanted |= {"delta_mode": "constant"} if "delta" in wanted else {"delta": None}
    for key, value in wanted.items():
        OmegaConf.update(cfg, f"model.{key}", value, force_add=True)
    if request.sampler is not None:
        node, new = request.sampler.node, "_target_" in request.sampler.node
        node = {"rho": GRID["rho"]} | node if "spacing" in node else node  # a new spacing does not inherit the run's rho
        OmegaConf.update(cfg, "sampler", node, force_add=True, merge=not new)
    for key, value in request.data.items():
        if key not in cfg.data:
            raise ConfigError(f"data.{key} is not a setting of {cfg.data._target_}, the run's data; remove it.")
        cfg.data[key] = value
    return cfg


def own_precision(request: LoadRequest) -> str:
    """The precision that a run was trained in."""
    return precision_of(read_config(request.run_dir, request.trust))


def precision_of(cfg: DictConfig) -> str:
    """That of the config of a run; of one that says nothing, or nothing that is one, 32-true."""
    precision = (cfg.get("trainer") or {}).get("precision")
    return precision if precision in PRECISIONS and precision != "auto" else "32-true"


def moved(request: LoadRequest) -> dict[str, object]:
    """What a request says of a run's data that is not what its config.yaml says, for the facts of a result."""
    own = read_config(request.run_dir, request.trust).data
    return {f"data.{key}": value for key, value in request.data.items() if value != own.get(key)}


def data_name(cfg: DictConfig) -> str:
    """What the config of a run calls its data, which their statistics and classifiers are kept under.

    A run of before there was the key says it at the end of its name, unless that was given; then the class's file does.
    """
    if cfg.get("data_name") is not None:
        return str(cfg.data_name)
    last = str(cfg.get("name")).rsplit("-", 1)[-1]
    return last if last in options_of("data") else str(cfg.data._target_).split(".")[-2]


def restore(request: LoadRequest) -> Loaded:
    """A run as after training, with what the request replaces.

    Raises:
        ConfigError: the run cannot be read, its checkpoint is missing, cut short or of another model, or the request
            replaces what the model does not use.
    """
    from heatgen.app.checkpoint import fit

    run_dir = request.run_dir
    cfg = changed(read_config(run_dir, request.trust), request)
    path = directory.find_checkpoint(run_dir, request.checkpoint)
    state = directory.read_checkpoint(path)
    try:
        model, data = build(cfg)
    except (ArithmeticError, AttributeError, LookupError, MemoryError, RuntimeError, TypeError) as error:
        reason = str(error).strip().split("\n")[0].rstrip(".") or type(error).__name__
        raise ConfigError(f"{run_dir / 'config.yaml'} describes no model that can be built ({reason}).") from error
    refuse_sampler(model, request)
    sampling = state.get("sampling")  # of an exported model alone
    if sampling is not None and request.weights == "raw":
        raise ConfigError(f"{path} is an exported model, which has averaged weights alone; remove weights=raw.")
    fit(model, state, path, "raw" if sampling is not None else request.weights)
    if sampling:
        furnish(model, data, sampling, path)
    return Loaded(model.eval(), data, cfg)


def refuse_sampler(model: "Method", request: LoadRequest) -> None:
    """ConfigError for a sampler, or its times, where the model draws without one."""
    if not model.uses_sampler and request.sampler is not None:
        raise ConfigError(f"The model of {request.run_dir.name} has its own way back, without a sampler; remove sampler=.")


def furnish(model: "Method", data: "DataModule", sampling: "Mapping[str, Tensor]", path: Path) -> None:
    """Give a model and its data what an export took of the data: states to start from, and measured errors.

    ConfigError where they are of another shape.
    """
    shape, levels = model.process.shape, model.process.num_levels + 1
    states, errors = sampling.get("states"), sampling.get("errors")
    if states is None or not states.is_floating_point() or tuple(states.shape[1:]) != shape or not states.numel():
        raise ConfigError(f"{path} has no states of shape {list(shape)} to start from; export the run again.")
    sizes = None if errors is None else tuple(errors.shape)
    if sizes is not None and (len(sizes) != 4 or any(n not in (1, m) for n, m in zip(sizes, (levels, *shape), strict=True))):
        raise ConfigError(f"{path} has errors of shape {list(sizes)}, which is not the model's; export the run again.")
    data.states, model.errors = states, errors


def compile_run(model: "Method", request: LoadRequest, devices: "Devices", n: int | None, batch_size: int) -> None:
    """Compile the network of a run that is about to draw n samples, or capture its calls.

    ConfigError where that is asked for and cannot be.
    """
    from heatgen.runtime import engine, graphs

    if request.cuda_graphs:
        graphs.capture_calls(model.net, devices.device, model.not_compiled)
        return
    batches = -(-(n or 0) // (batch_size * devices.world))
    calls = batches * model.num_steps
    engine.compile_net(model.net, request.compile, devices.device, calls, model.not_compiled, frozen=True)


def open_run(request: LoadRequest, devices: "Devices", measured: bool = False) -> Loaded:
    """A run that is ready to sample: on its device, its data there, and calibrated on them.

    An exported model that has states to start from needs no data, unless it is to be `measured` beside them.
    """
    run = restore(request)
    run.data.states = None if measured else run.data.states
    run.model.to(devices.device)
    if run.data.states is None or request.delta_mode is not None:
        with devices.fabric.rank_zero_first():
            run.data.prepare_data()
        with devices.autocast():
            run.model.calibrate(run.data, devices)
    elif run.model.errors is not None:
        run.model.errors = run.model.errors.to(devices.device)
    if bad := check.first_nonfinite(run.model.state_dict()):
        raise ConfigError(
            f"The weights of {request.run_dir.name} give no finite answers on held-out data, where {bad} is measured; use "
            "another checkpoint, or train again with a lower optimizer.lr."
        )
    return run
