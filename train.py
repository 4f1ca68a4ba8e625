"""Train a model: python train.py model=ihd forward=heat data=digits. See python train.py --help."""

import hydra
from omegaconf import DictConfig

from heatgen.app.train import train
from heatgen.runtime import explain


@hydra.main(version_base="1.3", config_path="conf", config_name="train")
def main(cfg: DictConfig) -> float | None:
    return train(cfg)


if __name__ == "__main__":
    explain.entry(main)
