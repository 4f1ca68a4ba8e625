"""heatgen export RUN: the averaged weights of a run as one file that heatgen reads alone, with a model card.

FOLDER gets model.safetensors (weights, what the map and the method have measured, and the config in its metadata), README.md
(the model card) and samples.png (the newest grid of samples of the run). `heatgen.load(FOLDER)`, `heatgen.load(FILE)`,
`run=FOLDER` and `init_from=FOLDER` read it.

Samples start from degraded training images, and some models measure their errors on validation images. Without --states an
exported model takes both from its data, which it finds as a run does: digits and made fields are always there, MNIST and the
like are downloaded, a folder of images is named by data={"path": ...}. With --states N the file holds N such states and the
errors, and sampling needs no data; measurements always do.
"""

import argparse
import logging
import os
import re
from pathlib import Path

import torch
import yaml
from omegaconf import OmegaConf
from torch import Tensor

from heatgen import __version__, check
from heatgen.app.load import Loaded, open_run, own_precision, precision_of, restore
from heatgen.app.quoting import typed
from heatgen.app.requests import LoadRequest
from heatgen.check import ConfigError
from heatgen.noise import batches
from heatgen.report.card import PICTURE, card
from heatgen.runtime import directory, exported
from heatgen.runtime.command import NAME
from heatgen.runtime.explain import entry
from heatgen.runtime.files import absolute, save_picture, write_text
from heatgen.runtime.launch import DeviceRequest

log = logging.getLogger("heatgen")
KEYS = ("seed", "name", "experiment_name", "data_name", "data", "forward", "net", "model", "sampler")  # that a model is of
CARD = "README.md"
MEMORY = (
    f"Its samples start from degraded training images, which were given in Python: put {directory.DATA} of the run beside "
    f'{exported.FILE} and load the folder, or use `heatgen.load(..., data={{"path": "{directory.DATA}"}})`.'
)
NEEDS = {  # by whether states are in the file
    True: "It draws samples without its data, from degraded training images in the file; measuring it needs the data.",
    False: "Its samples start from degraded training images, so it reads its data, which it downloads where it can; "
    'where the files are elsewhere, `heatgen.load(..., data={"path": "FOLDER"})` names their folder.',
}


def main() -> None:
    """`heatgen export RUN`."""
    parser = argparse.ArgumentParser(f"{NAME} export", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter  # the description as it is
    parser.add_argument("run", nargs="?", default="latest", help="the run, or latest (default)")
    parser.add_argument("--out", metavar="FOLDER", help="where to; default RUN/export")
    parser.add_argument("--checkpoint", default="last", help="last (default) | best | step_N | a file")
    parser.add_argument("--states", type=int, metavar="N", help="bundle N states of training images to start samples from")
    parser.add_argument("--push", metavar="NAME", help="also upload it to huggingface.co/NAME, made private where it is new")
    parser.add_argument("--trust", action="store_true", help="the run's config may name any code")
    parser.add_argument("--runs-dir", default=os.environ.get("HEATGEN_RUNS", "runs"), help="where latest looks")
    options = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    if options.push is not None:
        check.name("--push", options.push, parts=True)
        exported.package("huggingface_hub")
    folder = export(
        LoadRequest(
            directory.find_run(options.run, options.runs_dir, trained=True), options.checkpoint, trust=options.trust
        ),
        None if options.out is None else absolute(options.out),
        options.states,
        options.push,
    )
    if options.push is not None:
        log.info("pushed: %s", push(folder, options.push))
    log.info("next: %s sample %s", NAME, typed("run", str(folder)))


def export(request: LoadRequest, out: Path | None, states: int | None = None, pushed: str | None = None) -> Path:
    """Write a run to a folder that heatgen reads alone.

    Args:
        request: the run, its checkpoint, and whether its config may name any code.
        out: the folder; None: export/ in the run.
        states: how many states of training images to bundle, at most; None: none.
        pushed: the name on the hub that the card says to get it by; None: none.

    Returns:
        The folder.

    Raises:
        ConfigError: the run cannot be read or has no weights, the folder holds something else, or states do not fit.
    """
    run_dir = request.run_dir
    exported.package("safetensors")
    if exported.file_of(run_dir):
        raise ConfigError(f"{run_dir} is an exported model already; copy it, or export the run that it is of.")
    folder = out or run_dir / "export"
    refuse_taken(folder)
    count = None if states is None else check.integer("--states", states, minimum=1)
    if count is None:
        run = restore(request)
    else:  # calibrated as it is for sampling
        run = open_run(request, DeviceRequest(precision="auto").open(own_precision(request)))
    if not run.model.trainable:
        raise ConfigError(f"The model of {run_dir.name} is made of exact answers, without weights to export; share the run.")
    beside = {} if count is None else bundled(run, count)
    config = config_of(run)
    text = yaml.safe_dump(config, sort_keys=False)
    exported.write(folder / exported.FILE, run.model.state_dict(), beside, text, __version__)
    picture = copy_picture(run_dir, folder)
    needs = MEMORY if exported.in_memory(config["data"]) and not beside else NEEDS[bool(beside)]
    page = card(run_dir, config, needs, picture, pushed, __version__)
    write_text(folder / CARD, page)
    if needs is MEMORY:
        log.info("Note: its samples need %s of the run, which is not exported; or export --states N.", directory.DATA)
    log.info("exported: %s (%s of %s)", folder / exported.FILE, request.checkpoint, run_dir)
    return folder


def refuse_taken(folder: Path) -> None:
    """ConfigError for a folder that holds anything but an older export."""
    if folder.exists() and not folder.is_dir():
        raise ConfigError(f"{folder} is a file; give a folder as --out FOLDER.")
    if folder.is_dir() and any(folder.iterdir()) and not (folder / exported.FILE).is_file():
        raise ConfigError(f"{folder} holds something else than an exported model; give another --out FOLDER.")


def config_of(run: Loaded) -> dict[str, object]:
    """The part of a run's config that the model is of, without the folders of this machine."""
    whole = OmegaConf.to_container(run.config, resolve=True)
    assert isinstance(whole, dict)
    config: dict[str, object] = {key: whole[key] for key in KEYS if key in whole}
    data = {key: value for key, value in whole["data"].items() if key != "recommended"}
    data |= {"data_dir": "data"} if "data_dir" in data else {}
    data |= {"path": Path(str(data["path"])).name} if data.get("path") is not None else {}
    return config | {"data": data, "trainer": {"precision": precision_of(run.config)}}


def bundled(run: Loaded, count: int) -> dict[str, Tensor]:
    """States A(t_K) u_0 + b(t_K) of at most so many training images, in their order, and the errors that were measured.

    All of them where there are no more, so that samples are those of the run. ConfigError where the map differs by sample.
    """
    process, data = run.model.process, run.data
    if process.has_random_gain:
        raise ConfigError(
            f"forward={process.name} is drawn for each sample, so it has no states to bundle; remove --states."
        )
    total = len(data.images("train"))
    numbers = range(total) if count >= total else sorted(data.prior_order(range(count), seed=0))
    states = []
    for indices in batches(numbers, data.batch_size):
        u0 = data.get("train", indices).to(process.times.device)
        states.append(process.mean(u0, process.times[-1:].expand(len(u0))).float())
    errors = {} if run.model.errors is None else {"errors": run.model.errors}
    return {"states": torch.cat(states), **errors}


def copy_picture(run_dir: Path, folder: Path) -> bool:
    """Write the newest grid of a run's samples anew as a picture of the export; whether there is one."""
    from PIL import Image

    found = [*(run_dir / "samples").glob("*/grid.png"), *(run_dir / "samples").glob("step_*.png")]
    try:
        with Image.open(max(found, key=lambda path: path.stat().st_mtime_ns)) as image:
            save_picture(folder / PICTURE, image)
        return True
    except (OSError, ValueError, Image.DecompressionBombError):
        (folder / PICTURE).unlink(missing_ok=True)  # of an older export
        log.info("Note: the run has no picture of samples; %s sample makes one, and another export takes it.", NAME)
        return False


def push(folder: Path, name: str) -> str:
    """Upload the three files of an export to the hub; the address. ConfigError where it cannot be done."""
    hub = exported.package("huggingface_hub")
    try:
        api = hub.HfApi()
        repo = api.create_repo(name, private=True, exist_ok=True)
        api.upload_folder(
            repo_id=repo.repo_id,
            folder_path=str(folder),
            allow_patterns=[exported.FILE, CARD, PICTURE],
            commit_message=f"heatgen {__version__}",
        )
        return str(repo)
    except Exception as error:  # of the network, of a token, of the name
        reason = re.sub(r"\s+", " ", str(error)).strip()[:200] or type(error).__name__
        fix = "log in with hf auth login, or give another name"
        raise ConfigError(f"{folder} is written and cannot be pushed to {name} ({reason}); {fix}.") from error


if __name__ == "__main__":
    entry(main)
