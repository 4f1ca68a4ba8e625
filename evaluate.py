"""Measure a trained run: python evaluate.py run=latest mode=fid. See python evaluate.py --help."""

from heatgen.app.cli import run

if __name__ == "__main__":
    run("evaluate")
