"""Sample from a run; see conf/sample.yaml."""

import logging

from omegaconf import DictConfig

from heatgen import check
from heatgen.app.job import launched, open_devices, task_wrapper
from heatgen.app.load import load_for
from heatgen.runtime import directory

log = logging.getLogger("heatgen")


@task_wrapper
def sample(cfg: DictConfig) -> None:
    """Sample from a run; see conf/sample.yaml."""
    run = directory.find_run(cfg.run, cfg.runs_dir)
    for key in ("num_points", "batch_size", *(["n"] if cfg.n is not None else [])):
        check.integer(key, cfg[key], minimum=1)
    for key in ("same_init", "share_noise", "interpolate"):
        check.boolean(key, cfg[key])
    check.integer("seed", cfg.seed, minimum=0)
    if launched("sample", cfg, run):
        return
    from heatgen.app import draw

    devices = open_devices(cfg)
    model, data, _ = load_for(cfg, run, devices)
    cfg.n = draw.usual_n(model.process.shape) if cfg.n is None else cfg.n
    folder = draw.draw(model, data, devices, run / "samples", cfg)
    if devices.first:
        log.info("samples: %s", folder)
