"""Measure a trained run: python evaluate.py run=latest mode=fid. See python evaluate.py --help."""

import hydra
from omegaconf import DictConfig

from heatgen.app.evaluate import evaluate
from heatgen.runtime import explain


@hydra.main(version_base="1.3", config_path="conf", config_name="evaluate")
def main(cfg: DictConfig) -> None:
    evaluate(cfg)


if __name__ == "__main__":
    explain.entry(main)
