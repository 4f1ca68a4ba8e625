"""heatgen import FILE [KEY=VALUE ...]: a run of ours from a checkpoint of the papers' own code, which samples and evaluates.

FILE is a checkpoint of inverse heat dissipation (--kind ihd: checkpoints/checkpoint_N.pth) or the released weights of score
matching with physics (--kind smdp: a .p file). No code in it is run. KEY=VALUE are settings of heatgen train that the file
does not say, such as data=afhq data.path=FOLDER, forward.num_levels=200 or forward.sigma_max=24. Where its network is that
of published settings, such as experiment=ihd_cifar10, it needs none.
"""

import argparse
import json
import logging
import pickle
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

from omegaconf import DictConfig, OmegaConf

from heatgen.app.compose import compose
from heatgen.app.folders import by_key
from heatgen.app.load import advised
from heatgen.check import ConfigError, choice, first_difference
from heatgen.runtime import claim, directory
from heatgen.runtime.command import NAME
from heatgen.runtime.explain import entry
from heatgen.runtime.files import absolute

if TYPE_CHECKING:
    from torch import Tensor

    from heatgen.model.module import Method

log = logging.getLogger("heatgen")
KINDS = ("auto", "ihd", "smdp")
OLD = b"\x80\x02\x8a\n"  # how a checkpoint of PyTorch before 1.6 begins


@dataclass(frozen=True)
class Foreign:
    """A checkpoint of another code base, understood.

    Args:
        words: the arguments of heatgen train that make its model.
        weights: of that model, by their names in it.
        averages: what its owners sample with, likewise.
        steps: how long it was trained, as far as it says.
        adapt: what changes the weights for the model that was built, such as their units.
    """

    words: Sequence[str]
    weights: "Mapping[str, Tensor]"
    averages: "Mapping[str, Tensor]"
    steps: int | None
    adapt: "Callable[[Mapping[str, Tensor], Method], Mapping[str, Tensor]]" = lambda weights, _: weights


def main() -> None:
    """`heatgen import FILE`."""
    parser = argparse.ArgumentParser(f"{NAME} import", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter  # the description as it is
    parser.add_argument("file", type=Path, help="the checkpoint")
    parser.add_argument("settings", nargs="*", metavar="KEY=VALUE", help="settings of heatgen train that it does not say")
    parser.add_argument("--kind", choices=KINDS, default="auto", help="whose it is; auto (default) looks")
    parser.add_argument("--data", metavar="NAME", help="the data set that it was trained on, as data=NAME")
    parser.add_argument("--out", metavar="FOLDER", help="the run to make; default runs_dir/NAME/TIME")
    options = parser.parse_intermixed_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    settings = [*([f"data={options.data}"] if options.data else []), *options.settings]
    if wrong := next((word for word in settings if "=" not in word), None):
        raise ConfigError(f"{wrong} is no setting; give KEY=VALUE, such as data=mnist.")
    run_dir = bring(options.file, options.kind, settings, None if options.out is None else absolute(options.out))
    log.info("imported: %s; next: %s", run_dir, advised("run", run_dir, "sample"))


def bring(path: Path, kind: str, settings: Sequence[str], out: Path | None) -> Path:
    """Write a run from a foreign checkpoint.

    Args:
        path: the checkpoint.
        kind: auto | ihd | smdp.
        settings: arguments of heatgen train, which replace those that were found.
        out: the folder of the run; None: a new one under runs_dir.

    Returns:
        The folder.

    Raises:
        ConfigError: the file is none of these, is damaged, or does not fit the settings.
    """
    foreign = read(path, kind, settings)
    words = list(by_key([*foreign.words, *settings]).values())
    cfg = compose(*words)
    state, averages = fitted(foreign, cfg, path)
    if out is None:
        folder = claim.claim(Path(cfg.runs_dir) / cfg.name / f"{datetime.now():%Y-%m-%d_%H-%M-%S}")
    elif not claim.make(out):
        raise ConfigError(f"{out} is there already; give a new folder as --out.")
    else:
        folder = out
    write(folder, cfg, words, state, averages, foreign, path)
    return folder


def read(path: Path, kind: str, settings: Sequence[str]) -> Foreign:
    """What a file holds. ConfigError where it is none that is known."""
    from heatgen.app import foreign_ihd, foreign_smdp

    if not path.is_file():
        raise ConfigError(f"{path} is no file; give the checkpoint to import.")
    if choice("--kind", kind, KINDS) == "auto":
        with path.open("rb") as file:
            start = file.read(len(OLD))
        if start == OLD:
            raise ConfigError(f"{path} is of PyTorch before 1.6; torch.load it, if you trust it, and torch.save it again.")
        kind = {b"P": "ihd", pickle.PROTO: "smdp"}.get(start[:1], "")  # how a zip and a pickle begin
    if not kind:
        raise ConfigError(f"{path} is neither a checkpoint of PyTorch nor a pickle; is it whole?")
    return foreign_ihd.read(path, settings) if kind == "ihd" else foreign_smdp.read(path)


def fitted(foreign: Foreign, cfg: DictConfig, path: Path) -> "tuple[dict[str, Tensor], list[Tensor]]":
    """The state of the model that a config describes, and the averages of its weights. ConfigError where they do not fit."""
    from heatgen.app.build import build

    model, _ = build(cfg)
    state, names = model.state_dict(), [name for name, _ in model.named_parameters()]
    weights, averages = (foreign.adapt(found, model) for found in (foreign.weights, foreign.averages))
    pairs = ((name, found.get(name), state[name]) for found in (weights, averages) for name in names)
    differing = first_difference(pairs) or next((f"{name} is there alone" for name in weights if name not in names), None)
    if differing:
        own = "give the data and the settings that it was trained with, as KEY=VALUE"
        raise ConfigError(f"{path} does not fit data={cfg.data_name} and its settings ({differing}); {own}.")
    return state | dict(weights), [averages[name].clone() for name in names]


def write(
    folder: Path,
    cfg: DictConfig,
    words: Sequence[str],
    state: "dict[str, Tensor]",
    averages: "list[Tensor]",
    foreign: Foreign,
    path: Path,
) -> None:
    """Write a run as a training leaves it: the result last, as it says that the run is finished."""
    from heatgen.callback.checkpoints import AtomicIO
    from heatgen.metric.result import Result, Value

    steps = int(cfg.trainer.max_steps) if foreign.steps is None else foreign.steps
    content = {"state_dict": state, "callbacks": {"EMA": {"updates": steps, "averages": averages}}, "global_step": steps}
    AtomicIO().save_checkpoint(content, folder / "checkpoints" / "last.ckpt")
    directory.describe_run(folder, OmegaConf.to_yaml(cfg, resolve=True), words)
    facts: dict[str, object] = {"imported from": path.name}
    facts |= {"steps": "those of its experiment, as the file does not say"} if foreign.steps is None else {}
    parameters = Value("parameters", sum(tensor.numel() for tensor in averages))
    result = Result([Value("steps", steps), parameters], facts, headline=("parameters",))
    directory.write_result(folder, "train", json.loads(json.dumps({"mode": "train"} | result.content())))


if __name__ == "__main__":
    entry(main)
