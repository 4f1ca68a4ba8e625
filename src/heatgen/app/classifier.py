"""Train the classifier that metric.extractor=classifier uses: python -m heatgen.app.classifier fashion_mnist.

A small convolutional network learns the labels of a data set; its weights go to <data-dir>/extractors/<data set>.pt.
"""

import argparse
import os
from pathlib import Path

from heatgen import check
from heatgen.app.build import build_data
from heatgen.app.compose import compose
from heatgen.app.quoting import quoted
from heatgen.check import ConfigError
from heatgen.data.module import DataModule
from heatgen.metric.classifier import BATCH, train, weights_file
from heatgen.runtime.explain import entry
from heatgen.runtime.files import save_tensors


def make_data(name: str, data_dir: str) -> DataModule:
    """The data set of conf/data/<name>.yaml. ConfigError for a name that is not one."""
    return build_data(compose(f"data={name}", f"data_dir={quoted(data_dir)}").data)


def save(path: Path, state: object) -> None:
    """Write a file, whole or not at all. ConfigError where it cannot be written."""
    try:
        save_tensors(path, state)
    except OSError as error:
        reason = error.strerror or str(error)
        raise ConfigError(f"{path} cannot be written ({reason}); free space there, or give another --data-dir.") from error


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(prog="python -m heatgen.app.classifier", description=str(__doc__).splitlines()[0])
    parser.add_argument("data", help="the data set, such as fashion_mnist")
    parser.add_argument("--epochs", type=int, help="passes over the training images (default 3, more for small sets)")
    parser.add_argument("--seed", type=int, default=0, help="of the weights and the order (default 0)")
    parser.add_argument("--data-dir", default=os.environ.get("HEATGEN_DATA", "data"), help="where data sets are")
    options = parser.parse_args()
    data = make_data(options.data, options.data_dir)
    few = max(3, -(-1000 * BATCH // len(data.images("train"))))  # of small sets, about a thousand steps
    epochs = check.integer("--epochs", few if options.epochs is None else options.epochs, minimum=1)
    path, seed = weights_file(options.data_dir, options.data), check.integer("--seed", options.seed, minimum=0)
    trial = path.with_name(f"{path.name}.trial")
    save(trial, {})  # what cannot be written is known before the training
    trial.unlink()
    state = train(data, epochs, seed)
    save(path, state)
    print(f"test accuracy {state['accuracy']:.4f}; written: {path}")


if __name__ == "__main__":
    entry(main)
