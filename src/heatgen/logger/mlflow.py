"""logger=mlflow: an MLflow run, in the run folder or on a server."""

import logging
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers import MLFlowLogger
from lightning.pytorch.utilities import rank_zero_only

from heatgen.check import ConfigError
from heatgen.logger.flatten import flatten
from heatgen.runtime.files import write_text

ID = "mlflow_id.txt"  # in a run's folder: the id of its MLflow run


class MLflowLog(MLFlowLogger):
    """Lightning's logger, for one run of ours, with samples and GIFs as artifacts.

    Args:
        folder: the run folder.
        options: of MLFlowLogger.
    """

    def __init__(self, folder: str, **options: Any):
        self.file = Path(folder) / ID
        known = self.file.read_text().strip() if self.file.is_file() else None
        super().__init__(run_id=known, **options)

    @property
    def experiment(self) -> Any:
        from mlflow.exceptions import MlflowException

        new = not self._initialized
        try:
            client = super().experiment
        except MlflowException as error:
            fix = f"; remove {self.file} to start another one" if self._run_id else ""
            raise ConfigError(
                f"logger.mlflow.tracking_uri={self._tracking_uri} gives no MLflow run{fix}: {str(error).rstrip('.')}."
            ) from error
        if new and client is not None:
            write_text(self.file, f"{self._run_id}\n")
            client.set_terminated(self._run_id, "RUNNING")  # again, where it had ended
        return client

    @rank_zero_only
    def log_hyperparams(self, params: Any) -> None:
        """Log options, but for those that the MLflow run has, as it takes no other value for them."""
        taken = self.experiment.get_run(self.run_id).data.params
        super().log_hyperparams({key: value for key, value in flatten(params).items() if key not in taken})

    @rank_zero_only
    def log_image(self, key: str, images: list[str], step: int | None = None) -> None:
        """Log images, files by their paths, as artifacts of their names."""
        for image in images:
            self.experiment.log_artifact(self.run_id, image, key)

    @rank_zero_only
    def log_film(self, name: str, path: Path, step: int) -> None:
        """Log a GIF as an artifact, which replaces the one before."""
        self.experiment.log_artifact(self.run_id, str(path))

    @rank_zero_only
    def log_result(self, values: Mapping[str, float], step: int) -> None:
        """Log numbers that were measured of the finished run."""
        self.log_metrics(values, step)


def mlflow_log(folder: str, experiment_name: str = "heatgen", tracking_uri: str | None = None) -> MLflowLog:
    """An MLflowLog; a run that is resumed or measured goes on in the same MLflow run.

    Args:
        folder: the run folder; its last two names are the name of the MLflow run.
        experiment_name: of MLflow.
        tracking_uri: where MLflow keeps it, such as http://HOST:5000; None: files in <folder>/mlruns.

    Raises:
        ConfigError: mlflow is not installed.
    """
    place = Path(folder).absolute()
    logging.getLogger("lightning.pytorch.loggers.mlflow").setLevel(logging.ERROR)  # it warns of every new experiment
    os.environ.setdefault("MLFLOW_ALLOW_FILE_STORE", "true")  # or MLflow 3 wants a database, which is no part of a run
    try:
        return MLflowLog(
            folder,
            experiment_name=experiment_name,
            run_name="-".join(place.parts[-2:]),
            tracking_uri=tracking_uri or (place / "mlruns").as_uri(),
        )
    except ModuleNotFoundError as error:
        raise ConfigError("logger=mlflow needs the package mlflow-skinny: pip install mlflow-skinny.") from error
