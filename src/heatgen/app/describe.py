"""What stands in a run's folder of how it was made: written once its training starts, after all that can refuse it."""

import logging
from collections.abc import Sequence
from pathlib import Path

import lightning as L

from heatgen.app.chosen import write_choices
from heatgen.data.module import DataModule
from heatgen.runtime import directory

log = logging.getLogger("heatgen")


class Describe(L.Callback):
    """Writes config.yaml, overrides.txt, env.txt, choices.json and data.json when the first step is about to be made.

    Args:
        run_dir: the run.
        config: of the run, as YAML.
        overrides: the arguments that the user typed.
        data: what it is trained on.
        note: what is told of a run that goes on.
    """

    def __init__(self, run_dir: Path, config: str, overrides: Sequence[str], data: DataModule, note: str = ""):
        self.run_dir, self.config, self.overrides, self.data, self.note = run_dir, config, overrides, data, note

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if trainer.is_global_zero:
            self.write()

    def write(self) -> None:
        """Write them; config.yaml last, as it makes the folder a run."""
        if changed := directory.describe_data(self.run_dir, self.data.report()):
            log.warning("Note: %s", changed)
        write_choices(self.run_dir, self.config)
        directory.describe_run(self.run_dir, self.config, self.overrides)
        log.info("run: %s", self.run_dir)
        if self.note:
            log.info("Note: %s", self.note)
