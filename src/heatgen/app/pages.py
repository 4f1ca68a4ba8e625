"""The page of a run, refreshed by every command that adds to it."""

import logging
from collections.abc import Sequence
from pathlib import Path

from heatgen.report.run_page import NAME, write_report
from heatgen.runtime import exported
from heatgen.runtime.explain import explain
from heatgen.runtime.files import shown
from heatgen.runtime.screen import listed

log = logging.getLogger("heatgen")


def tell(rows: Sequence[tuple[Path, str]], run_dir: Path | None) -> None:
    """Say which files are written and what they are, as `told`."""
    if text := told(rows, run_dir):
        log.info(text)


def told(rows: Sequence[tuple[Path, str]], run_dir: Path | None) -> str:
    """Lines of which files are written; the page of the run, if it is one, is refreshed and stands last."""
    page = [] if run_dir is None else [(path, "all of the run, for a browser") for path in refresh(run_dir)]
    return listed("written", [(shown(path), what) for path, what in [*dict.fromkeys(rows), *page]])


def refresh(run_dir: Path) -> list[Path]:
    """Write report.html of a run. What fails is one line, as everything else is written: a page can be made again."""
    if exported.file_of(run_dir):  # which is no run
        return []
    try:
        return [write_report(run_dir)]
    except Exception as error:
        log.warning("Note: %s is not written: %s", run_dir / NAME, explain(error) or repr(error))
        return []
