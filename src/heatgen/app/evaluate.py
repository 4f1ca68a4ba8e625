"""Measure a run, or a data set alone; see conf/evaluate.yaml."""

import dataclasses
from typing import TYPE_CHECKING

from omegaconf import DictConfig

from heatgen.app.build import build_data, build_process, instantiate
from heatgen.app.job import choices, devices_of, launched, task_wrapper
from heatgen.app.load import open_run
from heatgen.app.requests import EvaluateRequest, LoadRequest

if TYPE_CHECKING:
    from heatgen.metric.context import EvalContext
    from heatgen.runtime.devices import Devices


@task_wrapper
def evaluate(cfg: DictConfig) -> None:
    """Measure a run, or a data set alone; see conf/evaluate.yaml."""
    request = EvaluateRequest.of(cfg, choices())
    where = devices_of(cfg)
    if launched("evaluate", where, request.folder):
        return
    from heatgen.app.trainer import quiet_lightning
    from heatgen.report.table import report, report_sweep

    quiet_lightning()
    metric, devices = instantiate(cfg.metric), where.open()
    label, results = request.load and request.load.label, []
    for delta in request.deltas or (None,):
        if request.load is None:
            ctx, experiment = context_of_data(cfg, request, devices), cfg.experiment_name
        else:
            load = request.load if delta is None else dataclasses.replace(request.load, delta=float(delta))
            ctx, experiment = context_of_run(load, request, devices)
        result = metric(ctx)
        result.facts |= {"sampler": label} if label else {}
        results.append(result)
        if devices.first:
            name = str(request.experiment_name or experiment or "default")
            swept = ("delta", delta) if len(request.deltas) > 1 else request.parameter
            variant = request.variant or label
            report(result, request.mode, request.folder, request.runs_dir, name, swept, request.picture, variant)
    if devices.first and len(request.deltas) > 1:
        report_sweep("delta", list(request.deltas), results, request.mode, request.folder)


def context_of_run(load: LoadRequest, request: EvaluateRequest, devices: "Devices") -> tuple["EvalContext", str | None]:
    """A run to be measured, and the experiment that it says it belongs to."""
    from heatgen.metric.context import EvalContext

    model, data, config = open_run(load, devices)
    name = config.name.rsplit("-", 1)[-1]
    ctx = EvalContext(model, data, name, devices, request.n, request.batch_size, request.seed, model.process)
    return ctx, config.get("experiment_name")


def context_of_data(cfg: DictConfig, request: EvaluateRequest, devices: "Devices") -> "EvalContext":
    """A data set to be measured, with a forward map where one is chosen."""
    from heatgen.metric.context import EvalContext

    data = build_data(cfg.data)
    with devices.fabric.rank_zero_first():
        data.prepare_data()
    process = build_process(cfg.forward) if cfg.get("forward") is not None else None
    name = str(request.data_name)
    return EvalContext(None, data, name, devices, request.n, request.batch_size, request.seed, process)
