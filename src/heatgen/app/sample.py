"""Sample from a run; see conf/sample.yaml."""

import logging

from omegaconf import DictConfig

from heatgen.app import pages
from heatgen.app.job import devices_of, in_sweep, launched, refuse_unread, task_wrapper
from heatgen.app.load import coming, compile_run, open_run, own_precision
from heatgen.app.requests import SampleRequest

log = logging.getLogger("heatgen")


@task_wrapper
def sample(cfg: DictConfig) -> None:
    """Sample from a run; see conf/sample.yaml."""
    refuse_unread(cfg)
    request = SampleRequest.of(cfg)
    folder, where = request.load.folder, devices_of(cfg)
    if launched("sample", where, folder):
        return
    from heatgen.app import batch
    from heatgen.app.draw import draw, usual_n
    from heatgen.app.trainer import quiet_lightning

    quiet_lightning()
    devices = where.open(own_precision(request.load))
    model, data, _ = open_run(request.load, devices)
    n = request.num_points if request.interpolate else request.n or usual_n(model.process.shape)
    size = batch.settle(request.batch_size, model, data, devices, n, request.seed, None)
    compile_run(model, request.load, devices, n, size)
    with batch.explained(size, devices):
        written = draw(model, data, devices, folder / "samples", request, n, size)
    if devices.first:
        log.info("NFE: %s calls of the network, or of exact answers, a sample", model.calls.nfe)
        kept = {"grid.png": "the samples", "process.gif": "the way back; process.mp4: as a film", "samples.pt": "tensors"}
        pages.tell([(written / name, what) for name, what in kept.items()], request.load.run_dir)
        if not in_sweep():
            log.info(coming(request.load.run_dir, "evaluate"))
