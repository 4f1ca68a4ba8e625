"""logger=csv: metrics.csv in the run folder, which a resume goes on with and never doubles."""

import csv
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from lightning.pytorch.loggers.logger import Logger
from lightning.pytorch.utilities import rank_zero_only

from heatgen.check import ConfigError
from heatgen.runtime.files import atomic_path

Row = dict[str, str]


class CSVLog(Logger):
    """One row a logged step, one column a metric; the file is rewritten (beside it, then renamed) for a new column only.

    `step` counts from 0, as Lightning does: row k holds the loss of optimizer step k + 1, and of the validation after it.

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
        if new := [key for key in row if key not in columns]:
            columns = [*columns, *new]
            self._rewrite(columns, self._rows())
        with self.path.open("a", newline="") as file:
            csv.DictWriter(file, columns, restval="").writerow(row)

    @rank_zero_only
    def cut(self, step: int) -> None:
        """Drop what a training that goes on after `step` optimizer steps does again, and a row that was cut short."""
        rows = self._rows()
        kept = [row for row in rows if is_whole(row) and int(row["step"]) < step]
        if kept != rows or (self.path.exists() and not self.path.read_bytes().endswith(b"\n")):
            self._rewrite(self._columns(), kept)

    def _columns(self) -> list[str]:
        with self._open() as file:
            return next(csv.reader(file), [])

    def _rows(self) -> list[Row]:
        with self._open() as file:
            return list(csv.DictReader(file))

    @contextmanager
    def _open(self) -> Iterator[Iterable[str]]:
        """Its lines, none where it is not there. ConfigError where it is no table."""
        if not os.path.lexists(self.path):
            yield ()
            return
        try:
            if not self.path.is_file():
                raise OSError("it is no file")
            with self.path.open(newline="") as file:
                yield file
        except (OSError, UnicodeDecodeError, csv.Error) as error:
            raise ConfigError(f"{self.path} cannot be read ({error}); remove it, and a new one is begun.") from error

    def _rewrite(self, columns: list[str], rows: list[Row]) -> None:
        with atomic_path(self.path) as beside, beside.open("w", newline="") as file:
            writer = csv.DictWriter(file, columns, restval="", extrasaction="ignore")
            writer.writeheader()
            writer.writerows(rows)


def is_whole(row: Row) -> bool:
    """Whether a row has a value, or the place of one, for every column and no more."""
    return None not in row and None not in row.values() and row.get("step", "").isdigit()
