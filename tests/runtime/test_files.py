"""A file is whole or not there, and on the disk before its name is."""

import os
import resource
import subprocess
from pathlib import Path

import pytest
import torch

from heatgen.runtime.explain import explain
from heatgen.runtime.files import atomic_path, host, save_tensors, temporary, write_new, write_text


def test_a_file_is_replaced_at_once_and_nothing_is_left_beside_it(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "file.txt"
    write_text(path, "one")
    with atomic_path(path) as beside:
        beside.write_text("two")
        assert path.read_text() == "one"
    assert path.read_text() == "two" and list(path.parent.iterdir()) == [path]


def test_an_error_leaves_the_old_file_and_no_rest(tmp_path: Path) -> None:
    path = tmp_path / "file.txt"
    write_text(path, "one")
    with pytest.raises(RuntimeError), atomic_path(path) as beside:
        beside.write_text("tw")
        raise RuntimeError
    assert path.read_text() == "one" and list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("numbers", [10, 5000])
def test_tensors_without_room_are_an_error_of_the_system_that_names_the_file(tmp_path: Path, numbers: int) -> None:
    path, limits = tmp_path / "weights.pt", resource.getrlimit(resource.RLIMIT_FSIZE)
    save_tensors(path, {"step": 1})
    resource.setrlimit(resource.RLIMIT_FSIZE, (1500, limits[1]))
    try:
        with pytest.raises(OSError, match=r"File too large: .*weights\.pt"):
            save_tensors(path, {"step": 2, "weights": torch.zeros(numbers), "bias": torch.zeros(numbers)})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert torch.load(path, weights_only=True) == {"step": 1} and list(tmp_path.iterdir()) == [path]


def test_the_content_is_on_the_disk_before_the_name_and_the_name_before_the_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done, sync, replace = [], os.fsync, os.replace

    def fsync(descriptor: int) -> None:
        done.append(os.readlink(f"/proc/self/fd/{descriptor}"))
        sync(descriptor)

    monkeypatch.setattr(os, "fsync", fsync)
    monkeypatch.setattr(os, "replace", lambda a, b: (done.append("replace"), replace(a, b)))
    write_text(tmp_path / "file.txt", "one")
    assert done == [str(temporary(tmp_path / "file.txt")), "replace", str(tmp_path)]


def test_what_a_killed_process_left_of_a_file_is_removed_by_its_next_writer(tmp_path: Path) -> None:
    path = tmp_path / "file.txt"
    mine = temporary(path).name.removesuffix(str(os.getpid()))
    dead, alive, elsewhere = f"{mine}999999999", f"{mine}{os.getppid()}", "file.txt.tmp-another.host-999999999"
    for name in (dead, alive, elsewhere, "other.txt"):
        (tmp_path / name).touch()
    write_text(path, "whole")
    assert {left.name for left in tmp_path.iterdir()} == {"file.txt", alive, elsewhere, "other.txt"}


def test_what_a_killed_process_left_of_a_file_of_another_name_goes_too(tmp_path):
    dead = subprocess.Popen(["true"])
    dead.wait()
    left, alive = (tmp_path / f"train_1.json.tmp-{host()}-{number}" for number in (dead.pid, os.getppid()))
    for path in (left, alive):
        path.touch()
    assert write_new(tmp_path / "train_2.json", "{}").name == "train_2.json"
    assert not left.exists() and alive.exists()


def test_a_folder_that_cannot_be_made_where_a_file_is_has_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(FileExistsError) as error:
        (tmp_path / "file").mkdir(exist_ok=True)
    assert f"{tmp_path / 'file'} cannot be made a folder as it is a file" in (explain(error.value) or "")
    too_large = ImportError("libtorch_cpu.so: failed to map segment from shared object")
    assert "do not fit into the memory" in (explain(too_large) or "")
