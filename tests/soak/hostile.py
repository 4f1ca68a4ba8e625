"""Run folders of a stranger: no payload of tests/app/test_trust.py is executed by a command; each gets one sentence."""

import importlib.util
from types import ModuleType

from tests.soak.damage import copied
from tests.soak.frame import Trial, last, main, once, sentence
from tests.soak.inputs import SHORT
from tests.soak.jobs import ROOT
from tests.soak.kills import void

COMMANDS = {
    "sample": ("run={}", "n=2", "trainer.accelerator=cpu"),
    "evaluate": ("run={}", "mode=elbo", "n=2", "trainer.accelerator=cpu"),
    "train": ("resume={}", "trainer.max_steps=4"),
}


def payloads() -> ModuleType:
    """The module that has them."""
    spec = importlib.util.spec_from_file_location("payloads", ROOT / "tests" / "app" / "test_trust.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def hostile(trial: Trial) -> None:
    """Plant one payload, and call every command with its folder."""
    module = payloads()
    name = list(module.PAYLOADS)[int(trial.folder.name) % len(module.PAYLOADS)]
    whole = once(trial, "trained", lambda folder: void(trial.succeed("train", *SHORT, f"hydra.run.dir={folder}")))
    run, trap = copied(whole, trial.folder / "run"), trial.folder / "trap"
    (run / "hub").mkdir()
    (run / "hub" / "hubconf.py").write_text(module.HUB)
    (run / "stranger.py").write_text(module.CODE)
    module.plant(run, trap, *module.PAYLOADS[name])
    env = {"TRAP": str(trap), "TARGET": "stranger.trap", "PYTHONPATH": str(run)}
    for verb, words in COMMANDS.items():
        job = trial.run(verb, *(word.format(run) for word in words), limit=60, env=env)
        wrong = (sentence(job) if job.code == 1 else None) or (f"exit code {job.code}" if job.code not in (0, 1) else None)
        if wrong:
            trial.fault(f"{name}: {wrong}: {verb}: {last(job.output())}")
        if trap.exists():
            trial.fault(f"{name}: executed by {verb}")
            trap.rmdir() if trap.is_dir() else trap.unlink()
        else:
            trial.count("refused" if job.code else "passed over")


if __name__ == "__main__":
    main("hostile", __doc__, hostile, count=30)
