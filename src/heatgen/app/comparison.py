"""Hydra's callbacks around a training or a sweep: where it writes, and at a sweep's end the comparison of its runs."""

import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from hydra.core.utils import JobReturn, JobStatus
from hydra.experimental.callback import Callback
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import InterpolationResolutionError

from heatgen import check
from heatgen.app import folders, mistakes, sweep
from heatgen.app.job import begin_sweep
from heatgen.check import ConfigError
from heatgen.runtime import claim, ranks

log = logging.getLogger("heatgen")


class Failed(JobReturn):
    """A job that failed, of which the sweep hears without a line of Hydra's about its arguments."""

    @property  # type: ignore[misc]  # which is set before it is one of these
    def return_value(self) -> object:
        raise self._return_value


class Comparison(Callback):
    """Decides the folder of a run or a sweep, compares the runs of a sweep, and refuses a `publish` that cannot be."""

    def on_run_start(self, config: DictConfig, **kwargs: object) -> None:
        """Decide the folder of a run."""
        with explained():
            folders.decide_run(config)

    def on_multirun_start(self, config: DictConfig, **kwargs: object) -> None:
        """Refuse a `publish` that is not a name, before anything is trained."""
        with explained():
            if config.get("publish") is not None and is_search(config):
                stop(f"publish={config.publish} is for a sweep, and a search has a page of its own, study.md; remove it.")
            if config.get("publish") is not None:
                check.name("publish", str(config.publish))
            folders.decide_sweep(config)
            if ranks.rank() == 0:
                sweep.begin(Path(config.hydra.sweep.dir), 0 if is_search(config) else sweep.count(config))
            begin_sweep(config.hydra)

    def on_job_end(self, config: DictConfig, job_return: JobReturn, **kwargs: object) -> None:
        """Leave the one sentence about a job that failed to heatgen."""
        if job_return.status == JobStatus.FAILED:
            job_return.__class__ = Failed

    def on_multirun_end(self, config: DictConfig, **kwargs: object) -> None:
        """Compare the runs; one that cannot be compared is a note, as the runs are done."""
        if ranks.rank() != 0 or is_search(config):
            return
        from heatgen.report.compare import compare

        folder = Path(config.hydra.sweep.dir)
        try:
            publish = config.get("publish")
            compare([folder], None if publish is None else str(publish), by_sweep=True)
        except ConfigError as error:
            log.warning("Note: the runs cannot be compared: %s", error)


class Folder(Callback):
    """Decides the folder of a sweep of samplings or measurements; of one that fails nothing is left."""

    def on_multirun_start(self, config: DictConfig, **kwargs: object) -> None:
        """Claim it."""
        with explained():
            folders.decide_sweep(config, alone=False)

    def on_multirun_end(self, config: DictConfig, **kwargs: object) -> None:
        """Keep it: all jobs are done."""
        claim.made.clear()


def is_search(config: DictConfig) -> bool:
    """Whether a sweep is a search for hyper-parameters."""
    return str(OmegaConf.select(config, "hydra.sweeper._target_")).endswith(".Search")


@contextmanager
def explained() -> Iterator[None]:
    """What fails ends the command with its sentence, of which Hydra would only warn."""
    try:
        yield
    except InterpolationResolutionError:  # of an interpolation, which Hydra explains when the job starts
        pass
    except Exception as error:
        stop(mistakes.sentence(error) or f"the folder cannot be decided ({error!r}).")


def stop(message: str) -> None:
    """End with a user's mistake; Hydra would go on after any other exception of a callback."""
    print(f"Error: {message}", file=sys.stderr)
    sys.exit(1)
