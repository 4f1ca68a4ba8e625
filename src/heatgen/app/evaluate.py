"""Measure a run, or a data set alone; see conf/evaluate.yaml."""

import hashlib
import logging
import shlex
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf

from heatgen import __version__
from heatgen.app import pages
from heatgen.app.build import build_data, build_process, instantiate, locate, options_of_target
from heatgen.app.job import choices, devices_of, in_sweep, launched, refuse_unread, task_wrapper
from heatgen.app.load import compile_run, data_name, moved, open_run, own_precision, read_config
from heatgen.app.plain import plain
from heatgen.app.recorded import log_result, step_of
from heatgen.app.requests import FILES, EvaluateRequest, LoadRequest
from heatgen.check import ConfigError
from heatgen.runtime import directory
from heatgen.runtime.command import call, command_line
from heatgen.runtime.screen import listed

if TYPE_CHECKING:
    from heatgen.metric.context import EvalContext
    from heatgen.metric.result import Result
    from heatgen.runtime.devices import Devices

log = logging.getLogger("heatgen")
BESIDE = {  # keys that `words_of` knows otherwise, and what no sample depends on
    *("run", "delta", "checkpoint", "sampler", "trainer", "n"),
    *("runs_dir", "experiment_name", "variant", "param_name", "picture"),
}


@task_wrapper
def evaluate(cfg: DictConfig) -> None:
    """Measure a run, or a data set alone; see conf/evaluate.yaml."""
    refuse_unread(cfg)
    request = EvaluateRequest.of(cfg, choices())
    if request.load and any(word.startswith("data_dir=") for word in HydraConfig.get().overrides.task):
        raise ConfigError("data_dir= is for run=null; where the files of a run's data are is data.data_dir=.")
    where = devices_of(cfg)
    if launched("evaluate", where, request.folder):
        return
    from heatgen.app.trainer import quiet_lightning
    from heatgen.metric.result import Value
    from heatgen.report.table import report_sweep
    from heatgen.runtime.partial import Partial

    quiet_lightning()
    metric = metric_of(cfg, request.mode, request.load)
    devices = where.open(own_precision(request.load)) if request.load else where.open()
    label, results, begun = None if request.load is None else request.load.label, [], []
    written: list[tuple[Path, str]] = []
    for value, load in request.loads:
        ctx, experiment = context_of(cfg, request, load, devices)
        begun.append(Partial(request.folder / "evaluation" / "partial", *words_of(cfg, ctx, load)))
        ctx.partial = begun[-1]
        if devices.first:
            ctx.partial.tidy()
        result = measured(metric, request.mode, ctx, load, request.batch_size)
        results.append(result)
        if devices.first:
            name = str(request.experiment_name or experiment or "default")
            swept = request.parameter if request.swept is None else (request.swept, value)
            variant = request.variant or label
            keeping = request.mode, request.folder, request.runs_dir, name, load, swept, request.picture, variant
            written += keep(result, *keeping)
        if request.swept == "sampler.steps" and "nfe" in result.values:
            result.headline = (*(result.values if len(result.values) < 10 else result.headlines), "seconds")
            calls = ctx.trained(request.mode).calls
            result.add(Value("seconds", calls.seconds / max(calls.samples, 1), unit="s", label="time a sample"))
    if devices.first and request.swept is not None and len(results) > 1:
        values = [value for value, _ in request.loads if value is not None]
        up = -1 if request.swept == "sampler.steps" else 1  # the largest was the first
        written += report_sweep(request.swept, values[::up], results[::up], request.mode, request.folder)
    for partial in begun if devices.first else ():
        partial.remove()
    if devices.first:
        pages.tell(written, request.load.run_dir if request.load else None)
    if devices.first and not in_sweep() and command_line().startswith(call("evaluate")):  # not at the end of a training
        page = f"python -m heatgen.report.publish {shlex.quote(name)}"
        log.info(listed("next", [(page, "all that was measured of this experiment, as a page")]))


def metric_of(cfg: DictConfig, mode: str, load: LoadRequest | None) -> "Callable[[EvalContext], Result]":
    """The metric of a config. ConfigError where it is none, or has no use for the sampler that a request names."""
    if not isinstance(cfg.metric, DictConfig):
        raise ConfigError(
            f"metric={cfg.metric} is no metric; choose one with mode=NAME, and set its options by metric.KEY=."
        )
    metric: Callable[[EvalContext], Result] = instantiate(cfg.metric)
    if load and load.sampler and not getattr(metric, "draws_samples", True):
        raise ConfigError(f"mode={mode} draws no samples, so sampler= and its options do nothing; remove them.")
    return metric


def measured(
    metric: "Callable[[EvalContext], Result]", mode: str, ctx: "EvalContext", load: LoadRequest | None, batch_size: int | str
) -> "Result":
    """What a metric finds, with what a reader must know of it.

    Args:
        metric: the mode's.
        mode: its name.
        ctx: what is measured; its batch size is settled here.
        load: which run that is, and what of it was replaced; None: data alone.
        batch_size: a number, or auto.
    """
    from heatgen.app import batch
    from heatgen.metric.context import marked
    from heatgen.oracle.law import facts_of

    ctx.batch_size = batch.settle(batch_size, ctx.model, ctx.data, ctx.devices, ctx.n, ctx.seed, ctx.partial)
    if load is not None:
        compile_run(ctx.trained(mode), load, ctx.devices, ctx.n, ctx.batch_size)
    with batch.explained(ctx.batch_size, ctx.devices):
        result = marked(ctx.with_nfe(metric(ctx)), mode)
    result.facts |= ({"sampler": load.label} if load and load.label else {}) | (moved(load) if load else {})
    result.facts |= facts_of(ctx.data)
    return result


def keep(
    result: "Result",
    mode: str,
    folder: Path,
    runs_dir: str,
    experiment: str,
    load: LoadRequest | None,
    swept: tuple[str, object] | None = None,
    picture: str | None = None,
    variant: str | None = None,
) -> list[tuple[Path, str]]:
    """Write and print a result (`heatgen.report.table.report`), and tell the loggers of its run; what is written."""
    from heatgen.report.table import report

    written = report(result, mode, folder, runs_dir, experiment, swept, picture, variant)
    if load is not None:
        words = [mode, *([variant] if variant else []), *(["=".join(map(str, swept))] if swept else [])]
        tell_loggers(load, " ".join(words), result.values)
    return written


def words_of(cfg: DictConfig, ctx: "EvalContext", load: LoadRequest | None) -> tuple[str, str, str]:
    """What is asked for but for n, of what, and the first without the metric.

    Who agrees in the first two may go on where another was killed, and who agrees in the last two has the same samples.
    """
    import torch

    own = {key: value for key, value in plain(cfg).items() if key not in BESIDE}
    state = {} if ctx.model is None else ctx.model.state_dict()
    weights = hashlib.blake2b(digest_size=16)
    for name, tensor in state.items():
        weights.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        weights.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy())
    where = (ctx.devices.precision, ctx.devices.device.type, ctx.devices.world)
    versions = (__version__, torch.__version__)
    run = load and OmegaConf.to_yaml(read_config(load.run_dir, load.trust))
    of = repr((run, weights.hexdigest(), ctx.data.fingerprints(), versions))
    return repr((own, load, where)), of, repr(({**own, "metric": None}, load, where))


def tell_loggers(load: LoadRequest, name: str, values: Mapping[str, float]) -> None:
    """Add what was measured to the logs of the run's training."""
    config = read_config(load.run_dir, load.trust)
    loggers = config.get("logger")
    if isinstance(loggers, DictConfig) and any(key != "csv" for key in loggers):
        step = step_of(directory.find_checkpoint(load.run_dir, load.checkpoint))
        log_result(load.run_dir, config, name, values, step, load.trust)


def context_of(
    cfg: DictConfig, request: EvaluateRequest, load: LoadRequest | None, devices: "Devices"
) -> tuple["EvalContext", str | None]:
    """A run to be measured, or data alone, with a map where one is chosen; and the experiment that it belongs to.

    The batch size is settled later.
    """
    from heatgen.metric.context import EvalContext

    how = (devices, request.n, 1, request.seed)
    if load is not None:
        model, data, config = open_run(load, devices, measured=True)
        return EvalContext(model, data, data_name(config), *how, model.process), config.get("experiment_name")
    takes = options_of_target(locate(cfg.data._target_)) or list(cfg.data)
    own = {key: value for key, value in plain(cfg.data).items() if key in takes or key not in FILES or value is not None}
    data = build_data(OmegaConf.create(own))
    with devices.fabric.rank_zero_first():
        data.prepare_data()
    process = build_process(cfg.forward) if cfg.get("forward") is not None else None
    if process is not None:
        process.prepare(data)
    return EvalContext(None, data, str(request.data_name), *how, process), cfg.experiment_name
