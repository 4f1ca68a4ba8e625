"""What evaluate measures of a run when its training ends: the key `evaluate` of conf/train.yaml."""

import logging
import shlex
from collections.abc import Sequence
from pathlib import Path

from omegaconf import DictConfig, ListConfig

from heatgen.app.load import advised
from heatgen.app.options import SearchPath, options_of
from heatgen.app.quoting import quoted
from heatgen.check import ConfigError, choice
from heatgen.runtime import directory, launch, ranks, signals

log = logging.getLogger("heatgen")
IN_A_SWEEP = ("mode=forward", "mode=memorisation n=200")  # what is measured of each run of a sweep, unless it says


def check_evaluate(wanted: ListConfig | str | None) -> None:
    """ConfigError unless it is None or a list of evaluate's arguments, each with a mode that exists."""
    if wanted is None:
        return
    if isinstance(wanted, (str, DictConfig)) or not isinstance(wanted, Sequence):
        raise ConfigError(f"evaluate must be a list such as ['mode=forward'], not {wanted!r}.")
    for words in wanted:
        try:
            arguments = [word.partition("=") for word in shlex.split(str(words))]
        except ValueError as error:
            raise ConfigError(f"evaluate holds {words!r}, where a quote is open; close it.") from error
        if bad := [key for key, equals, _ in arguments if not equals]:
            raise ConfigError(f"evaluate holds {bad[0]!r}, which is no argument of evaluate; write key=value.")
        mode = {key: value for key, _, value in arguments}.get("mode", "elbo")
        choice("mode in evaluate", mode, options_of("mode"))


def measure(run_dir: Path, wanted: Sequence[str] | None, runs_dir: str, accelerator: str, in_sweep: bool) -> None:
    """Evaluate a finished run, each time in a process of its own.

    The run is trusted, as this command has just built it. What has been measured since it was trained is not again.
    In one of several processes it is left to the process that waits for them, or under torchrun and SLURM to the user.

    Args:
        run_dir: the run.
        wanted: evaluate's arguments, an entry for each measurement; None: two quick modes in a sweep, else nothing.
        runs_dir: where runs and tables of results are.
        accelerator: of the training, to measure on.
        in_sweep: whether the training is a job of a sweep.

    Raises:
        ConfigError: a measurement failed; those behind it are not done.
    """
    if ranks.is_child():
        if wanted and ranks.rank() == 0 and not ranks.is_own_child():
            again = advised("run", run_dir, "evaluate")
            log.warning("Note: evaluate is not done under torchrun or SLURM; call %s afterwards.", again)
        return
    where = [*SearchPath.current().arguments(), f"run={quoted(str(run_dir))}", f"runs_dir={quoted(runs_dir)}", "trust=true"]
    done = directory.measured(run_dir)
    for words in wanted if wanted is not None else IN_A_SWEEP if in_sweep else ():
        if words in done:
            continue
        signals.stop_if_caught()
        if launch.call("evaluate", [*where, f"trainer.accelerator={accelerator}", *shlex.split(words)]):
            raise ConfigError(f"evaluate={words} failed and says why above; the training is whole, in {run_dir}.")
        with (run_dir / directory.MEASURED).open("a") as file:
            file.write(f"{words}\n")
