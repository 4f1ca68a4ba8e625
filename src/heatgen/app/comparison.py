"""Hydra's callback at the end of a sweep: its runs are compared, in its folder and under `publish` in docs/results."""

import logging
import sys
from pathlib import Path

from hydra.experimental.callback import Callback
from omegaconf import DictConfig

from heatgen import check
from heatgen.check import ConfigError
from heatgen.runtime import launch
from heatgen.runtime.command import command_line
from heatgen.runtime.files import write_text

log = logging.getLogger("heatgen")


class Comparison(Callback):
    """Compares the runs of a sweep, and refuses a `publish` that cannot be."""

    def on_run_start(self, config: DictConfig, **kwargs: object) -> None:
        """Refuse `publish` where there is no sweep; the processes of a sweep's job have it from their sweep."""
        if config.get("publish") is not None and not launch.is_child():
            stop(f"publish={config.publish} is for a sweep, which has runs to compare; add -m, or use publish=null.")

    def on_multirun_start(self, config: DictConfig, **kwargs: object) -> None:
        """Refuse a `publish` that is not a name, before anything is trained."""
        try:
            if config.get("publish") is not None:
                check.name("publish", str(config.publish))
        except ConfigError as error:
            stop(str(error))

    def on_multirun_end(self, config: DictConfig, **kwargs: object) -> None:
        """Compare the runs; one that cannot be compared is a note, as the runs are done."""
        from heatgen.report.compare import COMMAND, compare

        folder = Path(config.hydra.sweep.dir)
        write_text(folder / COMMAND, command_line() + "\n")
        try:
            publish = config.get("publish")
            compare([folder], None if publish is None else str(publish), by_sweep=True)
        except ConfigError as error:
            log.warning("Note: the runs cannot be compared: %s", error)


def stop(message: str) -> None:
    """End with a user's mistake; Hydra would go on after any other exception of a callback."""
    print(f"Error: {message}", file=sys.stderr)
    sys.exit(1)
