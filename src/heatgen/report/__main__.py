"""python -m heatgen.report: the same as `heatgen report`."""

from heatgen.report.site import main
from heatgen.runtime.explain import entry

if __name__ == "__main__":
    entry(main)
