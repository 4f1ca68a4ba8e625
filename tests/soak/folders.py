"""What is in a run's folder: whether each file is whole, and whether two runs are the same but for the time they took."""

import csv
import json
from collections.abc import Iterator
from pathlib import Path

PASSING = ("seconds", "time", "created", "started", "command", "run", "folder", "path", "per_second")  # of no account
# What may differ: paths, dates, commands.
OWN = (".lock", ".log", ".txt", "data.json", "sweep.json", "config.yaml", "profile", ".html")
PICTURES = (".png", ".jpg", ".gif")


def files(folder: Path) -> list[Path]:
    """The files of a folder that have their final name."""
    return sorted(path for path in folder.rglob("*") if path.is_file() and ".tmp" not in path.name)


def temporary(folder: Path) -> list[Path]:
    """The files of a folder that do not."""
    return sorted(path for path in folder.rglob("*.tmp*") if path.is_file())


def halves(folder: Path) -> list[str]:
    """The files that have their final name and cannot be read to their end."""
    found = []
    for path in files(folder):
        try:
            read(path)
        except Exception as error:
            found.append(f"{path} is not whole: {type(error).__name__} {error}")
    return found


def read(path: Path) -> object:
    """The content of a file, read to its end."""
    import h5py
    import torch
    import yaml
    from PIL import Image, ImageSequence

    if path.suffix in (".ckpt", ".pt", ".pth"):
        return torch.load(path, map_location="cpu", weights_only=True)
    if path.suffix == ".json":
        return json.loads(path.read_text())
    if path.suffix in (".yaml", ".yml"):
        return yaml.safe_load(path.read_text())
    if path.suffix == ".csv":
        return table(path)
    if path.suffix in PICTURES:
        with Image.open(path) as image:
            return [frame.convert("RGB").tobytes() for frame in ImageSequence.Iterator(image)]
    if path.suffix == ".mp4":
        content = path.read_bytes()
        if b"moov" not in content:
            raise ValueError("it has no end")
        return content
    if path.suffix == ".html":
        if not (text := path.read_text()).rstrip().endswith("</html>"):
            raise ValueError("it has no end")
        return text
    if path.suffix in (".h5", ".hdf5"):
        with h5py.File(path) as file:
            return {name: file[name][...].tobytes() for name in file if isinstance(file[name], h5py.Dataset)}
    return path.read_bytes()


def table(path: Path) -> list[dict[str, str]]:
    """The rows of a CSV file. ValueError for one that has more or fewer cells than its header."""
    with path.open(newline="") as file:
        header, *rows = list(csv.reader(file)) or [[]]
    if wrong := [row for row in rows if len(row) != len(header)]:
        raise ValueError(f"a row of {len(wrong[0])} cells below a header of {len(header)}")
    return [dict(zip(header, row, strict=True)) for row in rows]


def differences(one: Path, two: Path) -> list[str]:
    """What two runs that should be the same differ in, but for the time they took."""
    found = list(compare(metrics(one), metrics(two), "metrics.csv"))
    names = [
        {str(path.relative_to(folder)) for path in files(folder) if not passing_file(path, folder)} for folder in (one, two)
    ]
    found += [
        f"{name} is in {'the first' if name in names[0] else 'the second'} alone" for name in sorted(names[0] ^ names[1])
    ]
    for name in sorted(names[0] & names[1]):
        found += compare(read(one / name), read(two / name), name)
    for kind in sorted(
        {path.name.split("_20")[0] for folder in (one, two) for path in (folder / "evaluation").glob("*.json")}
    ):
        found += compare(results(one, kind), results(two, kind), f"evaluation/{kind}")
    return found


def passing_file(path: Path, folder: Path) -> bool:
    """Whether a file is one that two equal runs may have differently, or that is compared by itself."""
    first = path.relative_to(folder).parts[0]
    return (
        path.name.endswith(OWN) or path.name in (".lock", "metrics.csv") or first in ("evaluation", "wandb", "tensorboard")
    )


def metrics(folder: Path) -> list[dict[str, str]]:
    """The rows of metrics.csv, each once: a step that was lost and trained again may stand there twice."""
    rows = table(folder / "metrics.csv") if (folder / "metrics.csv").is_file() else []
    once = {tuple(sorted((key, value) for key, value in row.items() if value and not passing(key))) for row in rows}
    return sorted((dict(row) for row in once), key=lambda row: (int(row.get("step", 0)), sorted(row)))


def results(folder: Path, kind: str) -> list[object]:
    """The different values of a kind of results."""
    contents = [json.loads(path.read_text()) for path in sorted((folder / "evaluation").glob(f"{kind}_20*.json"))]
    return sorted({json.dumps(stripped(content), sort_keys=True) for content in contents})


def stripped(content: object) -> object:
    """Plain containers without what passes."""
    if isinstance(content, dict):
        return {key: stripped(value) for key, value in content.items() if not passing(str(key))}
    if isinstance(content, list):
        return [stripped(item) for item in content if not (isinstance(item, dict) and passing(str(item.get("name", ""))))]
    return content


def passing(key: str) -> bool:
    """Whether a key says how long something took, or where it was."""
    return any(word in PASSING for word in (key, key.rpartition("/")[2])) or key.endswith(("_seconds", "seconds_se"))


def compare(one: object, two: object, place: str) -> Iterator[str]:
    """Where two contents differ, to the bit."""
    import torch

    if isinstance(one, torch.Tensor) and isinstance(two, torch.Tensor):
        if one.dtype != two.dtype or one.shape != two.shape or not torch.equal(one, two):
            yield f"{place} differs"
    elif isinstance(one, dict) and isinstance(two, dict):
        for key in sorted({*one, *two}, key=str):
            if passing(str(key)):
                continue
            if key in one and key in two:
                yield from compare(one[key], two[key], f"{place}:{key}")
            else:
                yield f"{place}:{key} is in {'the first' if key in one else 'the second'} alone"
    elif isinstance(one, (list, tuple)) and isinstance(two, (list, tuple)):
        if len(one) != len(two):
            yield f"{place} has {len(one)} entries and {len(two)}"
        for number, (left, right) in enumerate(zip(one, two, strict=False)):
            yield from compare(left, right, f"{place}:{number}")
    elif one != two and not (one != one and two != two):
        shown = (one, two) if len(repr((one, two))) < 200 else ("one", "another")
        yield f"{place} is {shown[0]!r} and {shown[1]!r}"
