"""logger=wandb: Weights & Biases, offline unless told otherwise."""

from pathlib import Path
from typing import Any

from lightning.pytorch.loggers import WandbLogger

from heatgen import check
from heatgen.check import ConfigError


def wandb_log(folder: str, project: str = "heatgen", offline: bool = True, **options: Any) -> WandbLogger:
    """A WandbLogger that writes under <folder>/wandb. ConfigError where it is online and there is no key."""
    if not check.boolean("logger.wandb.offline", offline):
        import wandb

        if not wandb.api.api_key:
            raise ConfigError("logger.wandb.offline=false needs a key: run `wandb login`, or leave it offline.")
    run_id = "-".join(Path(folder).parts[-2:])  # a resumed run goes on under the same name
    return WandbLogger(save_dir=folder, project=project, offline=offline, id=run_id, name=run_id, **options)
