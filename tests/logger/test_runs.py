"""W&B, TensorBoard and MLflow: one log a run, with its config, closed at its end, gone on with by a resume."""

import struct
import time

import pytest
from conftest import SMALL, call
from PIL import Image

from heatgen.check import ConfigError
from heatgen.logger.tensorboard import tensorboard_log
from heatgen.logger.wandb import run_id, wandb_log

TINY = [*SMALL, "callback=[none,pictures]", "trainer.max_steps=4", "callback.pictures.every=4", "evaluate=[]"]
TINY = [word for word in TINY if not word.startswith("trainer.max_steps=12")]


def leveldb_records(content):
    """The records of a LevelDB log behind a header of 7 bytes: blocks of 32 KiB of checksum, length, type and data."""
    place, whole = 7, b""
    while place + 7 <= len(content):
        if 2**15 - place % 2**15 < 7:
            place += 2**15 - place % 2**15
            continue
        length, kind = struct.unpack("<HB", content[place + 4 : place + 7])
        whole += content[place + 7 : place + 7 + length]
        place += 7 + length
        if kind in (1, 4):  # whole, or the last piece
            yield whole
            whole = b""


def history(run_dir, last):
    """The configs and the numbers of the W&B runs in a run's folder, from their files, once the number `last` is there.

    W&B's own process writes them, and writes the end a moment after a run is closed.
    """
    deadline = time.monotonic() + 60
    while True:
        configs, rows, ids = read_history(run_dir)
        if any(last in row for row in rows):
            return configs, rows, ids
        assert time.monotonic() < deadline, rows
        time.sleep(0.2)


def read_history(run_dir):
    """What the files hold now."""
    from wandb.proto import wandb_internal_pb2 as records

    configs, numbers, ids = {}, [], set()
    for path in sorted(run_dir.glob("wandb/offline-run-*/*.wandb")):
        for data in leveldb_records(path.read_bytes()):
            record = records.Record()
            record.ParseFromString(data)
            if record.HasField("run"):
                ids.add((record.run.run_id, record.run.run_group, tuple(record.run.tags)))
            for item in [*record.run.config.update, *record.config.update]:
                configs[item.key or ".".join(item.nested_key)] = item.value_json
            numbers += [{item.key or ".".join(item.nested_key): item.value_json for item in record.history.item}]
    return configs, [row for row in numbers if row], ids


@pytest.mark.slow
def test_every_job_of_a_sweep_has_its_own_run_of_wandb_with_its_config(tmp_path):
    from wandb.sdk.data_types._private import MEDIA_TMP

    MEDIA_TMP.cleanup()  # as a fork that ends, or a cleaner of /tmp, does it
    sweep = tmp_path / "sweep"
    assert call("train", "-m", *TINY, "logger=wandb", "seed=0,1", f"hydra.sweep.dir={sweep}") == 0
    found = [history(run, "val/loss") for run in sorted(sweep.glob("*-ihd-heat-digits"))]
    assert [configs["seed"] for configs, _, _ in found] == ["0", "1"]
    assert all('"num_levels": 5' in configs["forward"].replace(":5", ": 5") for configs, _, _ in found)
    (first,), (second,) = [ids for _, _, ids in found]
    assert first[0] != second[0] and first[1:] == second[1:] == ("sweep", ("ihd", "heat", "digits"))
    for _, rows, _ in found:
        keys = [key.split(".")[0] for row in rows for key in row]
        assert keys.count("train/grad_norm") == 1 and {"samples", "process", "train/lr", "val/loss"} <= set(keys)
    run = next(sweep.glob("0-*"))
    assert call("evaluate", f"run={run}", "mode=forward", "n=8", f"runs_dir={tmp_path}", "trainer.accelerator=cpu") == 0
    _, _, ids = history(run, "forward/information_last")
    assert len(ids) == 1


def test_names_that_wandb_does_not_take_are_refused_or_cleaned(tmp_path):
    assert not set("/\\#?%: ") & set(run_id(tmp_path / "a:b" / "c #1"))
    assert run_id(tmp_path / "a") != run_id(tmp_path / "a")  # two runs of one name
    (tmp_path / "wandb_id.txt").write_text("known\n")
    assert run_id(tmp_path) == "known"
    for options, part in [({"project": "x/y"}, "project=x/y has '/'"), ({"tags": "a"}, "tags must be a list")]:
        with pytest.raises(ConfigError, match=f"logger.wandb.{part}"):
            wandb_log(str(tmp_path), **options)
    with pytest.raises(ConfigError, match="has no option 'entitty'; did you mean entity"):
        wandb_log(str(tmp_path), entitty="me")


def test_tensorboard_has_the_hyper_parameters_the_film_and_no_step_twice(tmp_path):
    reader = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    Image.new("RGB", (4, 4)).save(tmp_path / "film.gif", save_all=True, append_images=[Image.new("RGB", (4, 4), "red")])
    for begin, last in ((0, 6), (3, 5)):
        log = tensorboard_log(str(tmp_path))
        log.cut(begin)
        log.save()  # as Lightning does before a training begins
        log.log_hyperparams({"model": {"delta": None, "lr": 0.5}, "seed": 3})
        for step in range(begin, last):
            log.log_metrics({"train/loss": float(begin)}, step)
        log.log_film("process", tmp_path / "film.gif", last)
        log.finalize("success")
    events = reader.EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    assert [(event.step, event.value) for event in events.Scalars("train/loss")] == [
        *[(k, 0.0) for k in range(3)],
        (3, 3.0),
        (4, 3.0),
    ]
    assert events.Images("process")[0].encoded_image_string[:4] == b"GIF8"
    assert "_hparams_/session_start_info" in events.SummaryMetadata.__self__.summary_metadata
    assert "lr: 0.5" in (tmp_path / "tensorboard" / "hparams.yaml").read_text()


@pytest.mark.slow
def test_mlflow_has_options_numbers_and_pictures(tmp_path):
    pytest.importorskip("mlflow")
    run = tmp_path / "runs" / "a" / "b"
    assert call("train", *TINY, "logger=mlflow", f"hydra.run.dir={run}") == 0
    (params,) = run.glob("mlruns/*/*/params")
    assert (params / "forward.num_levels").read_text() == "5"
    assert (params.parent / "metrics" / "train" / "grad_norm").is_file()
    assert {path.name for path in (params.parent / "artifacts").rglob("*.*")} == {"process.gif", "step_000004.png"}
