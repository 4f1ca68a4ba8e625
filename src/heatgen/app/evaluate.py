"""Measure a run, or a data set alone; see conf/evaluate.yaml."""

from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf

from heatgen import check
from heatgen.app.build import build_data, build_process, instantiate
from heatgen.app.job import launched, open_devices, task_wrapper
from heatgen.app.load import load_for
from heatgen.check import ConfigError
from heatgen.runtime import directory


@task_wrapper
def evaluate(cfg: DictConfig) -> None:
    """Measure a run, or a data set alone; see conf/evaluate.yaml."""
    if cfg.run is None and cfg.get("data") is None:
        raise ConfigError("run=null measures a data set alone; say which with data=NAME.")
    if cfg.run is not None and (cfg.get("data") or cfg.get("forward")):
        raise ConfigError("A run has its own data and forward; remove data= and forward=, or measure them with run=null.")
    check.integer("batch_size", cfg.batch_size, minimum=1)
    check.integer("seed", cfg.seed, minimum=0)
    mode, choices = HydraConfig.get().runtime.choices["mode"], HydraConfig.get().runtime.choices
    alone = cfg.run is None
    run = Path(cfg.runs_dir) / f"data-{choices.get('data')}" if alone else directory.find_run(cfg.run, cfg.runs_dir)
    if launched("evaluate", cfg, run):
        return
    from heatgen.report.table import report, report_sweep

    metric, devices = instantiate(cfg.metric), open_devices(cfg)
    deltas = list(cfg.delta) if OmegaConf.is_list(cfg.delta) else [cfg.delta]
    if OmegaConf.is_list(cfg.delta) and not (deltas and all(isinstance(delta, (int, float)) for delta in deltas)):
        raise ConfigError(f"delta={deltas} must be a list of numbers, such as [0.01,0.0125].")
    if cfg.picture is not None and Path(cfg.picture).suffix not in (".png", ".jpg"):
        raise ConfigError(f"picture={cfg.picture} must end in .png or .jpg.")
    own, results = parameter(cfg), []
    for cfg.delta in deltas:
        ctx, run_config = make_context(cfg, None if alone else run, devices)
        results.append(metric(ctx))
        sampler = sampler_label(cfg)
        results[-1].facts |= {"sampler": sampler} if sampler else {}
        if devices.first:
            experiment = cfg.experiment_name or run_config.get("experiment_name") or "default"
            swept = own if len(deltas) == 1 else ("delta", cfg.delta)
            report(results[-1], mode, run, cfg.runs_dir, str(experiment), swept, cfg.picture, cfg.variant or sampler)
    if devices.first and len(deltas) > 1:
        report_sweep("delta", deltas, results, mode, run)


def make_context(cfg: DictConfig, run: Path | None, devices: Any) -> tuple[Any, DictConfig]:
    """What is to be measured, and its config: a run, or where that is None a data set and a forward map alone."""
    from heatgen.metric.metric import EvalContext

    if run is not None:
        model, data, run_config = load_for(cfg, run, devices)
        name = run_config.name.rsplit("-", 1)[-1]
        return EvalContext(model, data, name, devices, cfg.n, cfg.batch_size, cfg.seed, model.process), run_config
    data = build_data(cfg.data)
    with devices.fabric.rank_zero_first():
        data.prepare_data()
    process = build_process(cfg.forward) if cfg.get("forward") is not None else None
    name = HydraConfig.get().runtime.choices["data"]
    return EvalContext(None, data, name, devices, cfg.n, cfg.batch_size, cfg.seed, process), cfg


def parameter(cfg: DictConfig) -> tuple[str, Any] | None:
    """The name and value of `param_name`, which stands beside the results in the experiment's table."""
    if cfg.param_name is None:
        return None
    value = OmegaConf.select(cfg, cfg.param_name)
    if value is None:
        raise ConfigError(f"param_name={cfg.param_name} is not a key that has a value; give one, such as delta.")
    return cfg.param_name, value


def sampler_label(cfg: DictConfig) -> str | None:
    """The sampler that was asked for, with its options, as words; None: the run's own."""
    from heatgen.app.draw import sampler_words

    return " ".join(sampler_words(cfg)) or None
