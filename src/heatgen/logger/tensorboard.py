"""logger=tensorboard: TensorBoard event files in the run folder."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers import TensorBoardLogger
from lightning.pytorch.utilities import rank_zero_only
from PIL import Image

from heatgen.check import ConfigError
from heatgen.logger.flatten import flatten

SHOWN = ("val/loss", "train/loss")  # beside the hyper-parameters, in TensorBoard's table of them


class TensorBoardLog(TensorBoardLogger):
    """Lightning's logger, with the hyper-parameters in TensorBoard's own table, GIFs, and no step twice after a resume.

    Args:
        folder: the run folder; event files go to <folder>/tensorboard.
    """

    def __init__(self, folder: str):
        super().__init__(save_dir=folder, name="tensorboard", version="", default_hp_metric=False)

    @rank_zero_only
    def cut(self, step: int) -> None:
        """Have TensorBoard leave out what older event files say of steps that are done again."""
        if step and self._experiment is None:
            self._kwargs["purge_step"] = step

    @rank_zero_only
    def log_hyperparams(self, params: Any, metrics: Any = None, step: int | None = None) -> None:
        """Write the hyper-parameters to hparams.yaml, and for the table; no number is invented for it."""
        from torch.utils.tensorboard.summary import hparams

        super().log_hyperparams(params)
        flat = self._sanitize_params(flatten(params))
        writer = self.experiment._get_file_writer()
        for summary in hparams(flat, dict.fromkeys(SHOWN, 0.0)):  # of which it takes the names
            writer.add_summary(summary)
        empty = Path(self.log_dir) / self.NAME_HPARAMS_FILE  # which Lightning has written, and does not write again
        empty.unlink(missing_ok=True)
        self.save()

    @rank_zero_only
    def log_film(self, name: str, path: Path, step: int) -> None:
        """Log a GIF under a name; TensorBoard shows it among the images, moving."""
        from tensorboard.compat.proto.summary_pb2 import Summary

        with Image.open(path) as film:
            width, height = film.size
        image = Summary.Image(height=height, width=width, colorspace=3, encoded_image_string=path.read_bytes())
        self.experiment._get_file_writer().add_summary(Summary(value=[Summary.Value(tag=name, image=image)]), step)

    @rank_zero_only
    def log_result(self, values: Mapping[str, float], step: int) -> None:
        """Log numbers that were measured of the finished run."""
        self.log_metrics(dict(values), step)


def tensorboard_log(folder: str) -> TensorBoardLog:
    """A TensorBoardLog. ConfigError where tensorboard is not installed."""
    try:
        return TensorBoardLog(folder)
    except ModuleNotFoundError as error:
        raise ConfigError("logger=tensorboard needs the package tensorboard: pip install tensorboard.") from error
