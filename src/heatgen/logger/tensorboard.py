"""logger=tensorboard: TensorBoard event files in the run folder."""

from lightning.pytorch.loggers import TensorBoardLogger

from heatgen.check import ConfigError


def tensorboard_log(folder: str) -> TensorBoardLogger:
    """A TensorBoardLogger that writes to <folder>/tensorboard. ConfigError where tensorboard is not installed."""
    try:
        return TensorBoardLogger(save_dir=folder, name="tensorboard", version="")
    except ModuleNotFoundError as error:
        raise ConfigError("logger=tensorboard needs the package tensorboard: pip install tensorboard.") from error
