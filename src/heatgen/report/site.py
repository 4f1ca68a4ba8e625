"""Pages to look at: heatgen report [FOLDER...], or python -m heatgen.report.

Of a run it writes report.html; of a folder of runs, index.html, and the page of each run. They are files that need no
network and no server; train, sample and evaluate write a run's page at their end.
"""

import argparse
import os
import sys
from pathlib import Path

from heatgen.check import ConfigError
from heatgen.report.gallery import write_gallery
from heatgen.report.run_page import write_report
from heatgen.runtime.directory import CONFIG
from heatgen.runtime.explain import entry
from heatgen.runtime.screen import painted


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(prog="heatgen report", description=(__doc__ or "").split("\n\n")[1])
    default = [Path(os.environ.get("HEATGEN_RUNS", "runs"))]
    parser.add_argument("folders", nargs="*", type=Path, default=default, help="runs, or folders of runs; default: runs")
    for folder in parser.parse_args().folders:
        if not folder.is_dir():
            raise ConfigError(f"{folder} is not a folder; give a run's folder, or a folder of runs.")
        if (folder / CONFIG).is_file():
            print(painted(f"written: {write_report(folder)}", sys.stdout))
            continue
        path, count, wrong = write_gallery(folder)
        print(painted(f"written: {path}, a gallery of {count} run{'s' if count > 1 else ''}", sys.stdout))
        for place, sentence in wrong.items():
            print(f"damaged: {place}: {sentence}")


if __name__ == "__main__":
    entry(main)
