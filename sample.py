"""Sample from a trained run: python sample.py run=latest n=64. See python sample.py --help."""

from heatgen.app.cli import run

if __name__ == "__main__":
    run("sample")
