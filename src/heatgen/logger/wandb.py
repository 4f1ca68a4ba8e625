"""logger=wandb: Weights & Biases, offline by default."""

from pathlib import Path
from typing import Any

from lightning.pytorch.loggers import WandbLogger

from heatgen import check
from heatgen.check import ConfigError


def wandb_log(folder: str, project: str = "heatgen", offline: bool = True, **options: Any) -> WandbLogger:
    """A WandbLogger that writes under <folder>/wandb.

    Args:
        folder: the run folder; its last two names are the name of the W&B run, so that a resumed run goes on there.
        project: the W&B project.
        offline: whether it writes to the run folder alone; `wandb sync` sends it later.
        options: of Lightning's WandbLogger, such as entity, tags or group.

    Raises:
        ConfigError: it is online and there is no key.
    """
    if not check.boolean("logger.wandb.offline", offline):
        import wandb

        if not wandb.api.api_key:
            raise ConfigError("logger.wandb.offline=false needs a key: run `wandb login`, or leave it offline.")
    run_id = "-".join(Path(folder).parts[-2:])
    return WandbLogger(save_dir=folder, project=project, offline=offline, id=run_id, name=run_id, **options)
