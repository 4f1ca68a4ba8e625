"""Random legal trainings whose learning rate explodes, and what becomes of them.

`PYTHONPATH=src python tests/exploding_runs.py 100` counts.
"""

import contextlib
import io
import json
import os
import random
import sys
import tempfile
from collections import Counter
from pathlib import Path

import torch
from conftest import call

from heatgen import check

GRF = ["data=grf", "data.resolution=8", "data.train_size=16", "data.val_size=8", "data.test_size=8", "data.batch_size=8"]
SPOTS = ["data=hot_spots", "data.train_size=16", "data.val_size=8", "data.test_size=8", "data.batch_size=8"]
UNET = [
    "net.model_channels=8",
    "net.norm_groups=4",
    "net.multipliers=[1,2]",
    "net.num_res_blocks=1",
    "net.attention_levels=[]",
]
FNO = ["net.width=8", "net.modes=3"]
FIELDS = ("reconstruction", "score", "flow_likelihood", "elbo")
IMAGES = ("elbo", "memorisation", "fid", "suite")
TASKS = ("likelihood", "calibration", "physics")
KINDS = [  # model, data and network; maps; modes
    (["model=ihd", "data=digits", "data.batch_size=8", *UNET], ("heat", "constant_velocity", "kinematics"), IMAGES),
    (["model=diffusion", "data=digits", "data.batch_size=8", *UNET], ("heat", "blurring", "constant_velocity"), IMAGES),
    (["model=diffusion", *GRF, "net=fno", *FNO], ("stochastic_heat", "heat", "variance_exploding"), FIELDS),
    (["model=smdp", *GRF, "net=fno", *FNO], ("stochastic_heat",), FIELDS),
    (["model=ssm", *GRF, "net=fno", *FNO], ("stochastic_heat",), FIELDS),
    (["model=autoregressive", *GRF, "net=fno", *FNO], ("stochastic_heat",), FIELDS[:1]),
    (["model=supervised", *GRF, "net=fno", *FNO], ("heat", "stochastic_heat"), FIELDS[:1]),
    (["model=diffusion", "data=two_points", "net=mlp"], ("heat_kernel",), ("score", "flow_likelihood")),
    (["model=diffusion", "data=ring", "net=mlp"], ("heat_kernel",), ("score", "flow_likelihood")),
    *([["model=np", f"net={net}", *SPOTS], (None,), TASKS] for net in ("cnp", "conv_np", "tnp")),
]


def drawn(number: int) -> tuple[list[str], list[str]]:
    """The arguments of training `number`, and those of a measurement of it."""
    draw = random.Random(number)
    fixed, maps, modes = KINDS[number % len(KINDS)]
    forward, mode = draw.choice(maps), draw.choice(modes)
    rate = 10 ** draw.uniform(10, 30)
    training = [*fixed, *([] if forward is None else [f"forward={forward}", "forward.num_levels=5"])]
    training += [f"optimizer={draw.choice(['adam', 'adamw', 'sgd'])}", f"optimizer.lr={rate:.3g}", "model.warmup_steps=0"]
    training += [f"trainer.precision={draw.choice(['32-true', 'bf16-mixed'])}", f"seed={number}"]
    training += [f"trainer.gradient_clip_val={draw.choice(['null', '1'])}", "trainer.accelerator=cpu", "evaluate=[]"]
    training += [
        f"trainer.accumulate_grad_batches={draw.choice([1, 1, 2])}",
        "trainer.max_steps=40",
        "callback.pictures.n=2",
    ]
    training += [
        f"trainer.val_check_interval={draw.choice([1, 5, 20])}",
        f"callback.checkpoints.every={draw.choice([1, 4, 500])}",
    ]
    extra = ["metric.extractor=classifier"] if mode in ("fid", "suite") else []
    return training, [f"mode={mode}", "n=4", *extra, "trainer.accelerator=cpu"]


def said(script: str, *arguments: str) -> tuple[int, list[str], str]:
    """The exit code of a command, the sentences that it ends with, and all that it printed."""
    printed = io.StringIO()
    with contextlib.redirect_stderr(printed), contextlib.redirect_stdout(printed):
        try:
            code = call(script, *arguments)
        except Exception as error:  # a traceback is what is looked for
            return 2, [], f"{printed.getvalue()}\n{type(error).__name__}: {error}"
    lines = printed.getvalue().splitlines()
    return code, [line for line in lines if line.startswith("Error: ")], printed.getvalue()


def numbers_of(run: Path) -> list[float]:
    """Every value of the results of metrics in a run's folder."""
    found = [json.loads(path.read_text()) for path in run.glob("evaluation/*.json") if not path.name.startswith("train")]
    return [value for content in found for value in content["values"].values()]


def outcome(number: int, folder: Path) -> tuple[str, list[str]]:
    """What became of training `number`, in a word, and what is wrong with it."""
    run, (training, measurement) = folder / str(number), drawn(number)
    code, errors, printed = said("train", *training, f"hydra.run.dir={run}")
    if (code, len(errors)) not in ((1, 1), (0, 0)) or (errors and "not finite" not in errors[0]):
        return "broken", [f"train: {code} {errors} {printed[-2000:]}"]
    wrong, saved = [], list(run.glob("checkpoints/*"))
    for path in saved:
        if check.first_nonfinite(torch.load(path, weights_only=True)):
            wrong.append(f"{path.name} holds NaN")
    word = "finite to the end" if code == 0 else "stopped, no checkpoint" if not saved else "stopped, a finite checkpoint"
    if code == 1:
        wrong += measured(run, measurement, bool(saved))
    return word, wrong


def measured(run: Path, measurement: list[str], saved: bool) -> list[str]:
    """What is wrong with a measurement of a run that has stopped; then of one whose weights somebody made NaN."""
    wrong = []
    code, errors, printed = said("evaluate", f"run={run}", *measurement)
    if (code, len(errors)) != (1, 1) or numbers_of(run):
        wrong.append(f"evaluate: {code} {errors} {printed[-2000:]}")
    if not saved:
        return wrong
    path = next(run.glob("checkpoints/*"))
    content = torch.load(path, weights_only=True)
    for tensor in content["state_dict"].values():
        tensor.mul_(torch.nan) if tensor.is_floating_point() else tensor
    torch.save(content, last := run / "checkpoints" / "last.ckpt")
    for script, rest in (("evaluate", measurement), ("sample", ["n=2", "trainer.accelerator=cpu"])):
        code, errors, printed = said(script, f"run={run}", f"checkpoint={last}", *rest)
        if (code, len(errors)) != (1, 1) or "holds NaN or inf" not in errors[0] or numbers_of(run):
            wrong.append(f"{script} with NaN: {code} {errors} {printed[-2000:]}")
    return wrong


def main(count: int) -> None:
    """Count what becomes of trainings 0 .. count-1."""
    counts: Counter[str] = Counter()
    with tempfile.TemporaryDirectory() as folder:
        os.environ["HEATGEN_RUNS"] = folder
        for number in range(count):
            word, wrong = outcome(number, Path(folder))
            counts[word] += 1
            counts["wrong"] += bool(wrong)
            print(number, word, " ".join(drawn(number)[0]) if wrong else "", *wrong, flush=True)
    print(dict(counts))


if __name__ == "__main__":
    main(int(sys.argv[1]))
