"""Runs as pages find them, without a training: every file that a page reads."""

import json
from pathlib import Path

import numpy as np
import yaml
from PIL import Image

from heatgen.picture import save_gif

FILM = 6  # levels of the toys' maps


def make_run(folder: Path, name: str = "run", seed: int = 0, fid: float = 12.5, **options: str) -> Path:
    """A finished run of 8 steps; options: of its groups model, forward and data."""
    run = folder / name
    for place in ("evaluation", "samples", "checkpoints"):
        (run / place).mkdir(parents=True)
    chosen = {"model": "ihd", "forward": "heat", "data": "digits", **options}
    config = {
        "seed": seed,
        "name": "-".join(chosen.values()),
        "data_name": chosen["data"],
        "model": {"_target_": f"heatgen.model.{chosen['model']}.Model", "delta": 0.01 * (1 + seed)},
        "forward": {"_target_": f"heatgen.forward.{chosen['forward']}.Map", "num_levels": FILM},
        "sampler": {"steps": None},
        "callback": {"pictures": {"n": 4, "seed": 0}},
    }
    (run / "config.yaml").write_text(yaml.safe_dump(config))
    (run / "overrides.txt").write_text(f"seed={seed} trainer.max_steps=8\ntrainer.max_steps=9\n")
    (run / "env.txt").write_text(f"started 2026-01-0{1 + seed}T12:00:00\ngit abc\nheatgen 0.2.0\n")
    choices = {"options": chosen, "differs": {"trainer.max_steps": ["1200", "8"]}}
    (run / "choices.json").write_text(json.dumps(choices))
    losses = [f"{i},{1 / (1 + i + seed)},{0.5 if i % 4 == 3 else ''}" for i in range(8)]
    (run / "metrics.csv").write_text("\n".join(["step,train/loss,val/loss", *losses]) + "\n")
    measure(run, "train", {"val_loss": 0.5 + seed, "steps": 8})
    path = measure(run, "fid", {"fid": fid}, standard_errors={"fid": 0.25}, labels={"fid": "FID"}, notes=["few images."])
    Image.new("RGB", (300, 120), "white").save(path.with_suffix(".png"))
    draw(run, seed)
    return run


def measure(run: Path, mode: str, values: dict[str, float | None], **more: object) -> Path:
    """A result, as `metric.result` writes it."""
    path = run / "evaluation" / f"{mode}_2026-01-01_12-00-00.json"
    path.write_text(json.dumps({"mode": mode, "values": values, "headline": list(values)[:1], **more}))
    return path


def draw(run: Path, seed: int) -> None:
    """Grids of samples, and the way back to them: a bright column that goes from the left to the right."""
    rng = np.random.default_rng(seed)
    for step in (4, 8):
        picture(rng.random((16, 16))).save(run / "samples" / f"step_{step:06d}.png")
    columns = np.eye(FILM + 1, 16)
    save_gif(run / "samples" / "process.gif", [picture(column.repeat(16).reshape(16, 16).T) for column in columns])


def picture(field: np.ndarray, side: int = 96) -> Image.Image:
    """A field in [0, 1] as a picture, each pixel a square."""
    return Image.fromarray((255 * field).astype(np.uint8)).resize((side, side), Image.Resampling.NEAREST).convert("RGB")
