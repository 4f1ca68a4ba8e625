"""logger=wandb: Weights & Biases, offline by default."""

import re
import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers import WandbLogger
from lightning.pytorch.utilities import rank_zero_only

from heatgen import check
from heatgen.check import ConfigError
from heatgen.runtime.directory import SWEEP
from heatgen.runtime.files import write_text

ID = "wandb_id.txt"  # in a run's folder: the id of its W&B run
FORBIDDEN = r"[/\\#?%:]"  # in the names of W&B projects and the ids of its runs
LONGEST = 128  # of both


class WandbLog(WandbLogger):
    """Lightning's logger, for one run of ours: its W&B run ends with the job, so that the next job has its own.

    Args:
        folder: the run folder.
        options: of WandbLogger.
    """

    def __init__(self, folder: str, **options: Any):
        super().__init__(save_dir=folder, **options)
        self.folder = Path(folder)

    @property
    def experiment(self) -> Any:
        if self._experiment is None:
            import wandb

            if wandb.run is not None:  # one that was left open, which WandbLogger would go on with
                wandb.finish()
            write_text(self.folder / ID, f"{self._id}\n")
            self._wandb_init.setdefault("settings", wandb.Settings(quiet=True))
        return super().experiment

    @rank_zero_only
    def log_film(self, name: str, path: Path, step: int) -> None:
        """Log a GIF under a name."""
        self.log_video(name, [str(path)], step=step, format=["gif"])

    @rank_zero_only
    def log_result(self, values: Mapping[str, float], step: int) -> None:
        """Put numbers into the run's summary: what is known of it in the end."""
        self.log_metrics(values, step)
        self.experiment.summary.update(values)

    @rank_zero_only
    def finalize(self, status: str) -> None:
        """End the W&B run; its own process writes the last of it."""
        super().finalize(status)
        if self._experiment is not None:
            self._experiment.finish(exit_code=0 if status == "success" else 1)
            self._experiment = None


def wandb_log(
    folder: str,
    project: str = "heatgen",
    offline: bool = True,
    name: str | None = None,
    entity: str | None = None,
    group: str | None = None,
    tags: list[str] | None = None,
    **options: Any,
) -> WandbLog:
    """A WandbLog that writes under <folder>/wandb; a run that is resumed or measured goes on in the same W&B run.

    Args:
        folder: the run folder.
        project: the W&B project.
        offline: whether it writes to the run folder alone; `wandb sync` sends it later.
        name: of the W&B run; None: the run folder's last two names.
        entity: a W&B user or team; None: the user's own.
        group: of W&B runs; None: in a sweep the name of its folder.
        tags: of the W&B run.
        options: further ones of Lightning's WandbLogger and wandb.init, such as notes.

    Raises:
        ConfigError: a value is no name that W&B takes, it has no such option, or it is online and there is no key.
    """
    if not check.boolean("logger.wandb.offline", offline):
        import wandb

        if not wandb.api.api_key:
            raise ConfigError("logger.wandb.offline=false needs a key: run `wandb login`, or leave it offline.")
    for key, value in {"project": project, "name": name, "entity": entity, "group": group}.items():
        if value is not None and (not isinstance(value, str) or not value or len(value) > LONGEST):
            raise ConfigError(f"logger.wandb.{key} must be a name of at most {LONGEST} letters, not {value!r}.")
    if found := re.search(FORBIDDEN, project):
        raise ConfigError(f"logger.wandb.project={project} has {found[0]!r}, which W&B does not take; use a plain name.")
    if tags is not None and not (isinstance(tags, list) and all(isinstance(tag, str) and 0 < len(tag) < 65 for tag in tags)):
        raise ConfigError(f"logger.wandb.tags must be a list of words of at most 64 letters, not {tags!r}.")
    place = Path(folder).absolute()
    sweep = next((above.name for above in place.parents[:3] if (above / SWEEP).is_file()), None)
    own = {"project": project, "name": name or "-".join(place.parts[-2:])[-LONGEST:], "entity": entity, "tags": tags}
    own |= {"group": group or sweep, "id": run_id(place)}
    return WandbLog(folder, mode="offline" if offline else None, **own, **known(options))


def known(options: dict[str, Any]) -> dict[str, Any]:
    """Options that WandbLogger or wandb.init takes. ConfigError for any other."""
    import inspect

    import wandb

    takes = {*inspect.signature(WandbLogger).parameters, *inspect.signature(wandb.init).parameters}
    takes -= {"kwargs", "self", "save_dir", "dir", "version", "id", "mode", "resume", "experiment", "config"}
    for key in options:
        if key not in takes:
            hint = check.did_you_mean(key, sorted(takes | {"offline"}))
            raise ConfigError(f"logger.wandb has no option {key!r}{hint or '; remove it.'}")
    return options


def run_id(folder: Path) -> str:
    """The id of a run's W&B run: the one that it has, or a new one of its folder's names and a few random digits."""
    if (folder / ID).is_file():
        return (folder / ID).read_text().strip()
    words = re.sub(r"[^\w.-]+", "-", "-".join(folder.parts[-2:]), flags=re.ASCII)
    return f"{words[-100:]}-{secrets.token_hex(4)}"
