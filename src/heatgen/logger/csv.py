"""logger=csv: metrics.csv in the run folder, which a resume adds to and never erases."""

import csv
from pathlib import Path

from lightning.pytorch.loggers.logger import Logger
from lightning.pytorch.utilities import rank_zero_only

from heatgen.runtime.files import atomic_path


class CSVLog(Logger):
    """One row a logged step, one column a metric; the file is rewritten (beside it, then renamed) for a new column only.

    A step that was logged, lost to a kill and trained again stands there twice, with the same numbers.

    Args:
        folder: the run folder.
    """

    def __init__(self, folder: str):
        super().__init__()
        self.path = Path(folder) / "metrics.csv"

    @property
    def name(self) -> str:
        return "csv"

    @property
    def version(self) -> str:
        return ""

    @rank_zero_only
    def log_hyperparams(self, *_: object, **__: object) -> None:
        """Nothing: config.yaml in the run folder holds them."""

    @rank_zero_only
    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        """Append a row."""
        row = {"step": step, **{key: value for key, value in metrics.items() if key != "epoch"}}
        columns = self._columns()
        new = [key for key in row if key not in columns]
        if new:
            columns = [*columns, *new]
            self._rewrite(columns)
        with self.path.open("a", newline="") as file:
            csv.DictWriter(file, columns, restval="").writerow(row)

    def _columns(self) -> list[str]:
        if not self.path.exists():
            return []
        with self.path.open(newline="") as file:
            return next(csv.reader(file), [])

    def _rewrite(self, columns: list[str]) -> None:
        rows: list[dict[str, str]] = []
        if self.path.exists():
            with self.path.open(newline="") as file:
                rows = list(csv.DictReader(file))
        with atomic_path(self.path) as beside, beside.open("w", newline="") as file:
            writer = csv.DictWriter(file, columns, restval="")
            writer.writeheader()
            writer.writerows(rows)
