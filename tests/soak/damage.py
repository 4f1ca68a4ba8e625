"""Ways to damage a file: cut short, emptied, overwritten, of another kind, of other content of its own kind."""

import json
import os
import random
import shutil
from collections.abc import Callable
from pathlib import Path

Damage = Callable[[random.Random, Path], None]


def cut(rng: random.Random, path: Path) -> None:
    """Cut short at a random byte."""
    content = path.read_bytes()
    path.write_bytes(content[: rng.randrange(len(content) + 1)])


def empty(rng: random.Random, path: Path) -> None:
    """Nothing in it."""
    path.write_bytes(b"")


def zeros(rng: random.Random, path: Path) -> None:
    """As long, and all zeros."""
    path.write_bytes(bytes(path.stat().st_size))


def noise(rng: random.Random, path: Path) -> None:
    """As long, and random."""
    path.write_bytes(rng.randbytes(path.stat().st_size))


def flipped(rng: random.Random, path: Path) -> None:
    """A few random bytes are others."""
    content = bytearray(path.read_bytes())
    for _ in range(rng.choice([1, 3, 30])):
        content[rng.randrange(len(content))] = rng.randrange(256)
    path.write_bytes(content)


def text(rng: random.Random, path: Path) -> None:
    """A few words, of which some are numbers or other files' beginnings."""
    words = [
        "hello",
        "3",
        "null",
        "[]",
        "{}",
        "a: b",
        "- 1\n- 2",
        "%PDF-1.4",
        "PK\x03\x04",
        "\x89HDF\r\n\x1a\n",
        "<html>",
        '"',
        "\t:",
        "&a [*a]",
    ]
    path.write_text(rng.choice(words))


def latin(rng: random.Random, path: Path) -> None:
    """Bytes that are no UTF-8, in front."""
    path.write_bytes(b"\xff\xfe\x00\xe9\n" + path.read_bytes())


def sparse(rng: random.Random, path: Path) -> None:
    """A terabyte of nothing behind it."""
    os.truncate(path, 2**40)


def a_folder(rng: random.Random, path: Path) -> None:
    """A folder of its name."""
    path.unlink()
    path.mkdir()


def dangling(rng: random.Random, path: Path) -> None:
    """A link to nothing, or to itself."""
    path.unlink()
    path.symlink_to(rng.choice(["nowhere", path.name]))


def a_pipe(rng: random.Random, path: Path) -> None:
    """A pipe that nobody writes to."""
    path.unlink()
    os.mkfifo(path)


def a_device(rng: random.Random, path: Path) -> None:
    """A link to a device that never ends, or is empty."""
    path.unlink()
    path.symlink_to(rng.choice(["/dev/zero", "/dev/null", "/dev/urandom"]))


def missing(rng: random.Random, path: Path) -> None:
    """Gone."""
    path.unlink()


def inside(rng: random.Random, path: Path) -> None:
    """A legal file of its kind with one entry taken away, or replaced by something else."""
    import torch
    import yaml

    if path.name == "network.pt":  # TorchScript
        flipped(rng, path)
    elif path.suffix in (".ckpt", ".pt"):
        content = torch.load(path, map_location="cpu", weights_only=True)
        torch.save(mutated(rng, content), path)
    elif path.suffix == ".json":
        path.write_text(json.dumps(mutated(rng, json.loads(path.read_text()))))
    elif path.suffix == ".yaml":
        path.write_text(yaml.safe_dump(mutated(rng, yaml.safe_load(path.read_text()))))
    elif path.suffix == ".h5":
        fields(rng, path)
    else:
        rows = path.read_text(errors="replace").splitlines() or [""]
        rows[rng.randrange(len(rows))] = rng.choice(["", ",,,,,,,,", '"', "a,b", "\0", "=,=", "é" * 2000])
        path.write_text("\n".join(rows))


def mutated(rng: random.Random, content: object) -> object:
    """Containers with one entry, at a random depth, taken away or replaced."""
    import torch

    strange = [None, -1, 0, float("nan"), "text", [], {}, [1, "a"], {"a": 1}, True, 10**12, torch.ones(2, 3), torch.zeros(0)]
    if isinstance(content, dict) and content:
        key = rng.choice(sorted(content, key=str))
        how = rng.random()
        if how < 0.2:
            return {name: value for name, value in content.items() if name != key}
        inner = mutated(rng, content[key]) if how < 0.9 else strange[rng.randrange(11)]
        return {**content, key: inner}
    if isinstance(content, list) and content and rng.random() < 0.7:
        place = rng.randrange(len(content))
        return [mutated(rng, item) if number == place else item for number, item in enumerate(content)]
    if isinstance(content, torch.Tensor):
        return rng.choice(
            [content.flatten()[:1], content * float("nan"), content.double(), torch.zeros(7), content.bool(), 3]
        )
    return strange[rng.randrange(11)]


def fields(rng: random.Random, path: Path) -> None:
    """An HDF5 file of fields whose attributes or data are something else."""
    import h5py
    import numpy as np

    with h5py.File(path, "r+") as file:
        name = rng.choice(["mean", "std", "n", "resolution", "fields"])
        if name == "fields" and "fields" in file:
            shape = file["fields"].shape
            del file["fields"]
            made = rng.choice(
                [np.zeros((0, 8, 8)), np.zeros(3), np.full(shape, np.nan), np.array([b"text"]), np.zeros(shape, complex)]
            )
            file.create_dataset("fields", data=made)
        elif name == "fields":
            file.clear()
        else:
            file.attrs[name] = rng.choice(["text", np.zeros(3), np.nan, 1e300, -1, h5py.Empty("f"), np.inf])


def huge_fields(rng: random.Random, path: Path) -> None:
    """An HDF5 file that claims a thousand million fields and holds none."""
    import h5py

    with h5py.File(path, "w") as file:
        file.create_dataset("fields", (10**9, 8, 8), "float64", chunks=(1, 8, 8))
        file.attrs.update({"n": 4, "resolution": 8, "mean": 0.0, "std": 1.0})


ANY: tuple[Damage, ...] = (cut, cut, empty, zeros, noise, flipped, flipped, text, text, latin, sparse)
ANY += (a_folder, dangling, a_pipe, a_device, missing, inside, inside, inside, inside)


def damage(rng: random.Random, path: Path) -> str:
    """Damage a file in a random way; what was done."""
    how = rng.choice((*ANY, huge_fields) if path.suffix == ".h5" else ANY)
    how(rng, path)
    return f"{path.name} {how.__name__}"


def copied(source: Path, target: Path) -> Path:
    """A copy of a folder."""
    return Path(shutil.copytree(source, target))
