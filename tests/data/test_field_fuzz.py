"""Damaged HDF5 files of fields, each read in a process of its own: every one is read, or refused in one sentence.

HEATGEN_FUZZ=5000 pytest -s tests/data/test_field_fuzz.py tries that many files in place of a few, and prints the counts.
"""

import logging
import os
import random
import signal
import time
from collections import Counter
from pathlib import Path

import h5py
import numpy as np
import pytest

from heatgen.check import ConfigError
from heatgen.data.grf import GRF
from heatgen.data.grf_fields import draw_field
from heatgen.oracle.law import law_of

N, COUNT, LIMIT = 8, 24, 60  # pixels a side, fields of a file, seconds that a file may take
SPLITS = ("train", "val", "test")
FILES = int(os.environ.get("HEATGEN_FUZZ", "40"))
CODES = {0: "read", 1: "refused", 2: "TRACEBACK", 3: "NOT ONE SENTENCE"}


def whole(path: Path, kind: str) -> None:
    """A file of one of four kinds, undamaged."""
    fields = np.stack([draw_field(4, N, 0, "train", i) for i in range(COUNT)])
    with h5py.File(path, "w", libver="latest" if kind == "latest" else None) as file:
        if kind == "published":
            for i, field in enumerate(fields):
                file[f"{i:05d}"] = field
        elif kind == "chunked":
            file.create_dataset("fields", data=fields, chunks=(4, N, N), compression="gzip", fletcher32=True)
        else:
            file["fields"] = fields.astype("f4" if kind == "float32" else "f8")
        file.attrs.update({"n": 4.0, "resolution": N, "mean": fields.mean(), "std": fields.std()})


def damage(path: Path, rng: random.Random) -> str:
    """Damage a file; what was done to it."""
    data = bytearray(path.read_bytes())
    way = rng.choice(("cut", "bits", "head", "eight", "zeros", "splice", "content"))
    if way == "content":
        return "content, " + foreign(path, rng)
    end = min(len(data), 4096) if way in ("head", "eight") else len(data)
    if way == "cut":
        del data[rng.randrange(len(data)) :]
    elif way in ("bits", "head"):
        for _ in range(rng.choice((1, 2, 8, 64))):
            data[rng.randrange(end)] ^= 1 << rng.randrange(8)
    elif way == "eight":
        at = rng.randrange(0, end - 8, 8)
        data[at : at + 8] = rng.choice((b"\xff" * 8, bytes(8), b"\x7f" + b"\xff" * 7, rng.randbytes(8)))
    else:
        at, size = rng.randrange(len(data)), rng.randrange(1, 2000)
        data[at : at + size] = bytes(size) if way == "zeros" else rng.randbytes(rng.randrange(2000))
    path.write_bytes(data)
    return way


def foreign(path: Path, rng: random.Random) -> str:
    """Another type, shape, value or attribute, or other things in the file; which."""
    shapes = [(), (0,), (3,), (N, N), (COUNT, 1, N, N), (COUNT, N, N, 1), (COUNT, N, N + 1), (0, N, N), (COUNT, 3, N, N)]
    types = ["i4", "u1", "?", "c16", "S5", "f2", "f4", ">f8", "longdouble", [("a", "f8"), ("b", "i4")], h5py.string_dtype()]
    names = ["fields", "field", "00000", "u/v", "data"]
    values = [np.nan, np.inf, -np.inf, 1e300, 1e-320, 0.0]
    odd = [
        "4",
        b"4",
        "four",
        "",
        np.zeros(3),
        np.nan,
        np.inf,
        h5py.Empty("f8"),
        -1,
        1 + 2j,
        np.array(["a"], "O"),
        1e300,
        True,
    ]
    what = rng.choice(("shape", "type", "value", "attribute", "link", "claim", "null"))
    with h5py.File(path, "a" if what in ("attribute", "value") else "w") as file:
        if what == "attribute":
            for key in rng.sample(["n", "mean", "std", "resolution"], 2):
                file.attrs[key] = rng.choice(odd)
        elif what == "value":
            chosen = rng.choice(list(file))
            field = file[chosen][0] if chosen == "fields" else file[chosen][()]
            field.flat[rng.randrange(N * N)] = rng.choice(values)
            file[chosen][(0,) if chosen == "fields" else ()] = field
        elif what == "link":
            links = [h5py.SoftLink("/none"), h5py.ExternalLink("none.h5", "/fields"), h5py.SoftLink("/fields"), None]
            link = rng.choice(links)
            file[rng.choice(["fields", "00000"])] = link if link is not None else file.create_group("apart")
        elif what == "claim":
            options = rng.choice(({}, {"chunks": (1, N, N)}, {"chunks": (1, N, N), "compression": "gzip"}))
            file.create_dataset("fields", (10 ** rng.randrange(5, 14), N, N), rng.choice(("f8", "f4")), **options)
        elif what == "null":
            file[rng.choice(["fields", "00000"])] = h5py.Empty(rng.choice(("f8", "i4")))
        else:
            shape = rng.choice(shapes) if what == "shape" else (COUNT, N, N)
            dtype = rng.choice(types) if what == "type" else "f8"
            file.create_dataset(rng.choice(names[:1] if what == "type" else names), shape, dtype)
    return what


def read(folder: Path) -> int:
    """What reading does: the code of it."""
    try:
        data = GRF(shape=[1, N, N], resolution=N, path=str(folder))
        data.prepare_data()
        for split in SPLITS:
            data.get(split, range(len(data.images(split))))
        law_of(data)
    except ConfigError as error:
        return 1 if str(error).endswith(".") and "\n" not in str(error) else 3
    return 0


def outcome(folder: Path) -> str:
    """What became of reading the folder's files, in a process of its own."""
    pid = os.fork()
    if not pid:
        code = 2
        try:
            code = read(folder)
        except BaseException:  # the finding that is looked for
            import traceback

            traceback.print_exc()
        finally:
            os._exit(code)
    end = time.monotonic() + LIMIT
    while time.monotonic() < end:
        done, status = os.waitpid(pid, os.WNOHANG)
        if done:
            code = os.waitstatus_to_exitcode(status)
            return CODES.get(code, f"CRASH {code}")
        time.sleep(0.002)
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    return "NO END"


@pytest.mark.slow
def test_every_damaged_file_is_read_or_refused_in_one_sentence(tmp_path):
    logging.disable()
    found, bad = Counter(), []
    try:
        for i in range(FILES):
            rng, place = random.Random(f"fields {i}"), tmp_path / str(i)
            place.mkdir()
            kind = rng.choice(("float64", "float32", "published", "chunked", "latest"))
            for split in SPLITS:
                whole(place / f"{split}.h5", kind)
            way = damage(place / f"{rng.choice(SPLITS[:2])}.h5", rng)
            ended = outcome(place)
            found[ended] += 1
            bad += [] if ended in ("read", "refused") else [f"file {i} ({kind}, {way}): {ended}"]
    finally:
        logging.disable(logging.NOTSET)
    print(f"{FILES} damaged files: " + ", ".join(f"{number} {name}" for name, number in sorted(found.items())))
    assert not bad and found["read"] and found["refused"]
