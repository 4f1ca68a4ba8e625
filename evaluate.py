"""Measure a trained run: python evaluate.py run=latest mode=fid. See python evaluate.py --help."""

import hydra
from omegaconf import DictConfig

from heatgen import explain, run


@hydra.main(version_base="1.3", config_path="conf", config_name="evaluate")
def main(cfg: DictConfig) -> None:
    run.evaluate(cfg)


if __name__ == "__main__":
    explain.entry(main)
