"""Whole trainings of inverse heat dissipation side by side: heatgen and the loop of the original (`benchmarks.original`).

python -m benchmarks.side_by_side [--steps N] [--seeds N] [--n N] [--out DIR] [--publish]

For each seed two processes of one thread, one for each code, train the same network on as many images at the same time, so
that a busy machine takes the same from both. Then each draws samples by its own sampler from blurred training images, and
FID is measured with the same features (python -m heatgen.app.classifier fashion_mnist). What is done in --out is not done
again, and a training that was cut off goes on.
"""

import argparse
import json
import math
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor
from tqdm import trange

import heatgen
from benchmarks.child import ROOT
from benchmarks.original import Attention, Blur, Residual, Sampling, Training, UNet
from heatgen.app.build import build_data
from heatgen.app.compose import compose
from heatgen.check import ConfigError
from heatgen.metric.classifier import Classifier, weights_file
from heatgen.metric.fid import frechet_distance
from heatgen.metric.reduction import Moments
from heatgen.net.unet import zero
from heatgen.picture import grid, to_bytes
from heatgen.report.page import markdown_table
from heatgen.runtime.explain import entry
from heatgen.runtime.files import atomic_path, write_text

SIDES = ("heatgen", "the original's loop")
DATA, SHAPE = "fashion_mnist", (1, 28, 28)
LEVELS, LARGEST, SIGMA, DELTA = 50, 20.0, 0.01, 0.0125
WIDTH, MULTIPLIERS, BLOCKS, ATTENTION, DROPOUT, GROUPS = 16, (1, 2, 2), 1, (2,), 0.1, 8
BATCH, RATE, WARMUP, EMA = 32, 1e-3, 200, 0.999
REFERENCE = 5000  # training images that FID compares with
EVERY = 250  # steps that a kill costs
PICTURED = 24
NUMBERS = ("fid", "seconds", "sampling_seconds")
HEADINGS = ("FID (classifier features)", "training [s]", "sampling [s]")  # of NUMBERS
Rows = list[dict[str, object]]


def our_words(folder: Path, steps: int, seed: int) -> list[str]:
    """What the training is in heatgen."""
    return [
        *("model=ihd", "forward=heat", f"data={DATA}", f"seed={seed}", f"hydra.run.dir={folder}", "resume=auto"),
        *(f"forward.num_levels={LEVELS}", f"forward.sigma_max={LARGEST}", f"forward.sigma={SIGMA}", f"model.delta={DELTA}"),
        *(f"net.model_channels={WIDTH}", f"net.multipliers={list(MULTIPLIERS)}", f"net.num_res_blocks={BLOCKS}"),
        *(f"net.attention_levels={list(ATTENTION)}", f"net.dropout={DROPOUT}", f"net.norm_groups={GROUPS}"),
        *(f"data.batch_size={BATCH}", f"optimizer.lr={RATE}", f"model.warmup_steps={WARMUP}", f"callback.ema.decay={EMA}"),
        *(f"trainer.max_steps={steps}", f"trainer.val_check_interval={steps}", "trainer.limit_val_batches=1"),
        *("trainer.accelerator=cpu", "callback.pictures.every=0", f"callback.checkpoints.every={EVERY}"),
    ]


def our_training(folder: Path, steps: int, seed: int) -> float:
    """Train with train.py; the seconds in the loop."""
    command = [sys.executable, str(ROOT / "train.py"), *our_words(folder, steps, seed)]
    if subprocess.run(command, cwd=ROOT).returncode:
        raise ConfigError(f"The training in {folder} did not end well; what it said stands above.")
    result = json.loads(sorted((folder / "evaluation").glob("train_*.json"))[-1].read_text())
    return float(result["values"]["seconds"])


def our_samples(folder: Path, n: int) -> tuple[Tensor, float]:
    """n samples of the run, and the seconds that drawing takes."""
    run = heatgen.load(folder, "cpu", trust=True)
    start = time.perf_counter()
    samples = run.sample(n=n, batch_size=250).tensor
    return samples, time.perf_counter() - start


def their_net() -> UNet:
    """The original's network, what it starts at zero set to zero."""
    net = UNet(SHAPE[0], WIDTH, MULTIPLIERS, BLOCKS, ATTENTION, DROPOUT, GROUPS)
    for module in net.modules():
        if isinstance(module, Residual):
            zero(module.leave[-1])
        elif isinstance(module, Attention):
            zero(module.out)
    zero(net.out[-1])
    return net


def their_images() -> Tensor:
    """The training images, (N, 1, 28, 28) bytes: those that heatgen trains on."""
    data = build_data(compose(f"data={DATA}").data)
    data.prepare_data()
    train = data.images("train")
    images: Tensor = train.pixels(range(len(train)))
    return images


def their_training(folder: Path, steps: int, seed: int) -> float:
    """Train with the original's loop, passes over the images in new orders; the seconds in the loop."""
    images, kept = their_images(), folder / "training.pt"
    torch.manual_seed(seed)
    net = their_net()
    training = Training(net, Blur(SHAPE[-1], LEVELS, LARGEST), images[:BATCH].float() / 255, SIGMA, RATE, WARMUP, EMA)
    seconds = 0.0
    if kept.is_file():
        state = torch.load(kept, weights_only=True)
        net.load_state_dict(state["net"])
        training.optimizer.load_state_dict(state["optimizer"])
        training.averages.shadows, training.averages.updates = state["averages"], state["step"]
        training.step, seconds = state["step"], state["seconds"]
        torch.set_rng_state(state["random"])
    a_pass, turn = len(images) // BATCH, -1
    start = time.perf_counter()
    for step in trange(training.step, steps, initial=training.step, total=steps, desc=SIDES[1]):
        if step // a_pass != turn:
            turn = step // a_pass
            order = torch.randperm(len(images), generator=torch.Generator().manual_seed(1000 * seed + turn))
        place = step % a_pass
        training.u0 = images[order[place * BATCH :][:BATCH]].float() / 255
        training()
        if training.step % EVERY == 0 or training.step == steps:
            state = {"net": net.state_dict(), "optimizer": training.optimizer.state_dict(), "step": training.step}
            state |= {"averages": training.averages.shadows, "random": torch.get_rng_state()}
            state |= {"seconds": seconds + time.perf_counter() - start}
            with atomic_path(kept) as path:
                torch.save(state, path)
    return seconds + time.perf_counter() - start


def their_samples(folder: Path, n: int, seed: int) -> tuple[Tensor, float]:
    """n samples by the original's sampler with the averaged weights, and the seconds that drawing takes."""
    images, net = their_images(), their_net()
    averages = torch.load(folder / "training.pt", weights_only=True)["averages"]
    with torch.no_grad():
        for p, average in zip(net.parameters(), averages, strict=True):
            p.copy_(average)
    torch.manual_seed(seed)
    blur, chosen = Blur(SHAPE[-1], LEVELS, LARGEST), images[torch.randperm(len(images))[:n]].float() / 255
    u = blur(chosen, torch.full((n,), LEVELS)).float()
    u += DELTA * torch.randn_like(u)
    start = time.perf_counter()
    samples = torch.cat([Sampling(net, batch, LEVELS, DELTA)() for batch in u.split(250)])
    return samples, time.perf_counter() - start


def fid(samples: Tensor) -> float:
    """The Frechet distance of features of the classifier, from the first training images."""
    data_dir = Path(os.environ.get("HEATGEN_DATA", "data"))
    extractor = Classifier.load(weights_file(str(data_dir), DATA), DATA, SHAPE, torch.device("cpu"))
    images = their_images()
    two = [Moments.of(map(extractor, each.split(500))) for each in (to_bytes(samples), images[:REFERENCE])]
    distance: float = frechet_distance(*two[0].gaussian, *two[1].gaussian)
    return distance


def work(side: str, folder: Path, steps: int, seed: int, n: int) -> None:
    """Train, draw and measure one side; what comes out is in result.json."""
    torch.set_num_threads(1)
    ours = side == SIDES[0]
    folder.mkdir(parents=True, exist_ok=True)
    seconds = (our_training if ours else their_training)(folder, steps, seed)
    samples, drawing = our_samples(folder, n) if ours else their_samples(folder, n, seed)
    grid(samples[:PICTURED], PICTURED // 2).save(folder / "samples.png")
    result = {"fid": fid(samples), "seconds": seconds, "sampling_seconds": drawing, "steps": steps, "n": n}
    write_text(folder / "result.json", json.dumps(result, indent=1))


def measured(options: argparse.Namespace, out: Path) -> Rows:
    """The results of all seeds and sides, measured where they are not there."""
    rows: Rows = []
    for seed in range(options.seeds):
        folders = {side: out / f"seed_{seed}" / name for side, name in zip(SIDES, ("heatgen", "original"), strict=True)}
        missing = {side: folder for side, folder in folders.items() if not (folder / "result.json").is_file()}
        words = [f"--steps={options.steps}", f"--n={options.n}", f"--seed={seed}"]
        one_thread = os.environ | {"OMP_NUM_THREADS": "1"}
        children = [
            subprocess.Popen(
                [sys.executable, "-m", "benchmarks.side_by_side", *words, f"--side={side}", f"--out={folder}"],
                env=one_thread,
            )
            for side, folder in missing.items()
        ]
        if any([child.wait() for child in children]):
            raise ConfigError("A side did not end well; what it said stands above. The same command goes on with both.")
        for side, folder in folders.items():
            result = json.loads((folder / "result.json").read_text())
            if (result["steps"], result["n"]) != (options.steps, options.n):
                was = f"--steps {result['steps']} --n {result['n']}"
                raise ConfigError(f"{folder} was measured with {was}; give these, or another --out.")
            rows.append({"code": side, "seed": seed} | result)
    return rows


def summary(rows: Rows) -> list[dict[str, object]]:
    """Means over seeds and their standard errors, a row for each side."""
    found = []
    for side in SIDES:
        own = [row for row in rows if row["code"] == side]
        row: dict[str, object] = {"code": side, "seeds": len(own)}
        for key in NUMBERS:
            values = [float(str(each[key])) for each in own]
            row[key] = statistics.mean(values)
            if len(values) > 1:
                row[f"{key}_se"] = statistics.stdev(values) / math.sqrt(len(values))
        found.append(row)
    return found


def page(rows: Rows, facts: Mapping[str, object], command: str, name: str) -> str:
    """The page: a row for each side, and how it was measured."""

    def cell(row: Mapping[str, object], key: str) -> str:
        digits = 1 if key == "fid" else 0
        error = row.get(f"{key}_se")
        return f"{row[key]:.{digits}f}" + ("" if error is None else f" ± {error:.{digits}f}")

    lines = [[str(row["code"]), str(row["seeds"]), *(cell(row, key) for key in NUMBERS)] for row in summary(rows)]
    told = "; ".join(f"{key}: {value}" for key, value in facts.items())
    return "\n".join(
        [
            f"# {name}",
            "",
            f"Made by `{command}`; the same rows as data: [{name}.json]({name}.json).",
            "",
            *markdown_table(["code", "seeds", *HEADINGS], lines),
            "",
            "*Lower is better. ± are standard errors over seeds. Both codes ran at the same time, with one thread each.*",
            "",
            f"![samples of both]({name}.png)",
            "",
            f"*Samples of seed 0: above {SIDES[0]}, below {SIDES[1]}.*",
            "",
            f"How it was measured: {told}.",
            "",
        ]
    )


def publish(rows: Rows, facts: Mapping[str, object], command: str, out: Path, target: Path) -> None:
    """Write the page, its rows and its picture to a folder."""
    target.mkdir(parents=True, exist_ok=True)
    content = {"command": command, "facts": dict(facts), "rows": rows, "summary": summary(rows)}
    write_text(target / "side_by_side.json", json.dumps(content, indent=1) + "\n")
    write_text(target / "side_by_side.md", page(rows, facts, command, "side_by_side"))
    pictures = [Image.open(out / "seed_0" / side / "samples.png") for side in ("heatgen", "original")]
    width, height = pictures[0].size
    sheet = Image.new("RGB", (width, 2 * height + 8), "white")
    for i, picture in enumerate(pictures):
        sheet.paste(picture, (0, i * (height + 8)))
    sheet.save(target / "side_by_side.png")


def options_of(arguments: Sequence[str]) -> argparse.Namespace:
    """What was asked for."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.side_by_side", description="Whole trainings side by side.")
    parser.add_argument("--steps", type=int, default=4000, help=f"of {BATCH} images each; default: 4000")
    parser.add_argument("--seeds", type=int, default=3, help="how many; default: 3")
    parser.add_argument("--n", type=int, default=2000, help="samples of each; default: 2000")
    runs = os.environ.get("HEATGEN_RUNS", "runs")
    parser.add_argument("--out", default=f"{runs}/side_by_side", help="where trainings and results go")
    parser.add_argument("--publish", action="store_true", help="write the page to docs/results too")
    parser.add_argument("--side", choices=SIDES, help=argparse.SUPPRESS)  # of a child
    parser.add_argument("--seed", type=int, default=0, help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    for key, least in (("steps", 1), ("seeds", 1), ("n", 2)):
        if getattr(options, key) < least:
            raise ConfigError(f"--{key} must be at least {least}, not {getattr(options, key)}.")
    return options


def main() -> None:
    """Measure, or be one of the children that do."""
    options = options_of(sys.argv[1:])
    out = Path(options.out).absolute()
    if options.side:
        work(options.side, out, options.steps, options.seed, options.n)
        return
    rows = measured(options, out)
    facts = {"data": DATA, "steps": options.steps, "batch": BATCH, "images seen": options.steps * BATCH, "levels": LEVELS}
    facts |= {"samples": options.n, "training images that FID compares with": REFERENCE}
    facts |= {"levels that are trained": f"heatgen 1 to {LEVELS}, the original 1 to {LEVELS - 1}"}
    command = f"python -m benchmarks.side_by_side --steps {options.steps} --seeds {options.seeds} --n {options.n}"
    for target in [out, *([ROOT / "docs" / "results"] if options.publish else [])]:
        publish(rows, facts, command + (" --publish" if options.publish else ""), out, target)
    print((out / "side_by_side.md").read_text())


if __name__ == "__main__":
    entry(main)
