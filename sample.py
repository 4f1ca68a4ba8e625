"""Sample from a trained run: python sample.py run=latest n=64. See python sample.py --help."""

import hydra
from omegaconf import DictConfig

from heatgen.app.sample import sample
from heatgen.runtime import explain


@hydra.main(version_base="1.3", config_path="conf", config_name="sample")
def main(cfg: DictConfig) -> None:
    sample(cfg)


if __name__ == "__main__":
    explain.entry(main)
