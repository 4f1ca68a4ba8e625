"""Train a model: python train.py model=ihd forward=heat data=digits. See python train.py --help."""

from heatgen.app.cli import run

if __name__ == "__main__":
    run("train")
