"""HDF5 files of fields: both layouts there and back, files that do not fit, and many processes."""

import os
import pickle
import re
import subprocess
import sys
from types import SimpleNamespace

import h5py
import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from heatgen.check import ConfigError
from heatgen.data.field_files import FieldFile, write_fields
from heatgen.data.fields import FieldArray, Moments, Normalised, measured
from heatgen.data.stream import Items, as_it_is

COUNT, N = 11, 6
FIELDS = np.random.default_rng(0).normal(3, 2, (COUNT, N, N))
KINDS = [("contiguous", "float64"), ("contiguous", "float32"), ("published", "float64")]


def put(path, layout="contiguous", dtype="float64", **options):
    write_fields(path, iter(FIELDS), COUNT, N, layout, dtype, {"n": 4.0, "seed": 7, "split": "val"}, **options)
    return path


def foreign(path, **datasets):
    with h5py.File(path, "w") as file:
        for name, content in datasets.items():
            file.create_dataset(name.lstrip("_"), data=content)
    return path


@pytest.mark.parametrize(("layout", "dtype"), KINDS)
def test_what_is_written_is_read_again(tmp_path, layout, dtype):
    file = FieldFile(put(tmp_path / "a.h5", layout, dtype), N)
    stored = FIELDS.astype(dtype).astype(np.float64)
    assert len(file) == COUNT and file.raw([7]).dtype == np.float64
    assert np.array_equal(file.raw(range(COUNT)), stored)
    assert np.array_equal(file.raw([9, 2, 2]), stored[[9, 2, 2]])
    assert file.moments() == pytest.approx((stored.mean(), stored.std()), rel=1e-12)
    assert os.listdir(tmp_path) == ["a.h5"]


def test_the_contiguous_layout_is_one_dataset_that_says_what_it_is(tmp_path):
    with h5py.File(put(tmp_path / "a.h5", dtype="float32")) as file:
        assert list(file) == ["fields"] and file["fields"].shape == (COUNT, N, N)
        assert file["fields"].dtype == np.float32 and file["fields"].chunks is None
        assert set(file.attrs) == {"n", "resolution", "seed", "split", "mean", "std"}
        assert (file.attrs["n"], file.attrs["resolution"], file.attrs["seed"], file.attrs["split"]) == (4, N, 7, "val")


def test_the_published_layout_is_one_dataset_a_field_in_the_order_of_its_names(tmp_path):
    with h5py.File(put(tmp_path / "a.h5", "published")) as file:
        assert list(file) == [f"{i:05d}" for i in range(COUNT)]
        assert file["00010"].dtype == np.float64 and np.array_equal(file["00010"], FIELDS[10])


@pytest.mark.parametrize("layout", ["contiguous", "published"])
def test_a_file_of_others_is_measured(tmp_path, layout):
    with h5py.File(put(tmp_path / "a.h5", layout), "a") as file:
        file.attrs.clear()
    assert FieldFile(tmp_path / "a.h5", N).moments() == measured(FieldArray(FIELDS))


def test_moments_are_those_of_all_numbers_also_far_from_zero():
    far = FIELDS + 1e6
    mean, std = measured(FieldArray(far))
    assert mean == pytest.approx(far.mean(), rel=1e-12) and std == pytest.approx(FIELDS.std(), rel=1e-8)
    moments = Moments()
    moments.add(np.array([1.0, 2.0]))
    moments.add(np.array([6.0]))
    assert (moments.mean, moments.std) == pytest.approx((3, (14 / 3) ** 0.5))


def test_the_image_set_is_normalised_and_knows_its_fields(tmp_path):
    images = Normalised(FieldFile(put(tmp_path / "a.h5"), N), 3.0, 2.0)
    pixels = images.pixels([4, 1])
    assert pixels.shape == (2, 1, N, N) and pixels.dtype == torch.float32 and images.labels is None
    assert torch.equal(pixels[:, 0], torch.from_numpy((FIELDS[[4, 1]] - 3) / 2).float())
    same = [
        Normalised(FieldArray(FIELDS), 3.0, 2.0),
        Normalised(FieldFile(put(tmp_path / "b.h5", "published"), N), 3.0, 2.0),
    ]
    assert {images.fingerprint()} == {other.fingerprint() for other in same}
    others = [Normalised(FieldArray(FIELDS), 3.0, 2.5), Normalised(FieldArray(FIELDS[::-1]), 3.0, 2.0)]
    assert len({images.fingerprint(), *(other.fingerprint() for other in others)}) == 3


@pytest.mark.parametrize(
    ("layout", "start"),
    [("contiguous", "fork"), ("published", "fork"), pytest.param("contiguous", "spawn", marks=pytest.mark.slow)],
)
def test_loading_processes_read_the_same_however_they_start(tmp_path, layout, start):
    images = Normalised(FieldFile(put(tmp_path / "a.h5", layout), N), 3.0, 2.0)
    expected = images.pixels(range(COUNT))  # the file is open here when the others start
    batches = [[i] for i in range(COUNT)] * 3
    loader = DataLoader(
        Items(images), batch_sampler=batches, num_workers=2, collate_fn=as_it_is, multiprocessing_context=start
    )
    got = torch.cat([batch["u0"] for batch in loader])
    assert torch.equal(got, torch.cat([expected] * 3))
    assert torch.equal(images.pixels(range(COUNT)), expected)


def test_the_file_is_closed_before_a_fork_and_in_a_pickle(tmp_path):
    file = FieldFile(put(tmp_path / "a.h5"), N)
    handle = file.file
    copy = pickle.loads(pickle.dumps(file))
    assert copy._file is None and handle and np.array_equal(copy.raw([3]), FIELDS[[3]])
    pid = os.fork()
    if pid == 0:
        os._exit(0 if file._file is None and np.array_equal(file.raw([5]), FIELDS[[5]]) else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    assert not handle and np.array_equal(file.raw([5]), FIELDS[[5]])


# mistakes ----------------------------------------------------------------------------------------------------------------


def refused(path, match, resolution=N):
    with pytest.raises(ConfigError, match=match) as caught:
        FieldFile(path, resolution).raw(range(3))
    assert str(path) in str(caught.value) and str(caught.value).endswith(".") and "\n" not in str(caught.value)


def test_a_file_that_is_missing_cut_short_or_not_hdf5_is_refused_by_name(tmp_path):
    refused(tmp_path / "none.h5", r"does not exist or is no file; put it there: .* \(count, N, N\)")
    whole = put(tmp_path / "a.h5").read_bytes()
    for size, match in (
        (len(whole) - 100, "cut short at"),
        (60, "is not a complete HDF5 file"),
        (0, r"is empty \(0 bytes\)"),
    ):
        (tmp_path / "a.h5").write_bytes(whole[:size])
        refused(tmp_path / "a.h5", match)
    (tmp_path / "a.h5").write_text("fields\n1 2 3\n" * 100)
    refused(tmp_path / "a.h5", "is not an HDF5 file: it starts with b'fields")


def test_a_file_that_is_being_written_is_said_to_be(tmp_path):
    """The lock of another process, which this one takes for its own were it the writer too."""
    path = put(tmp_path / "a.h5")
    lines = "import h5py, sys; f = h5py.File(sys.argv[1], 'r+'); print('open', flush=True); sys.stdin.read()"
    command = [sys.executable, "-c", lines, str(path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as writer:
        assert writer.stdout.readline() == b"open\n"
        refused(path, "is open in a program that writes it; close it there.*HDF5_USE_FILE_LOCKING=FALSE")
        writer.stdin.close()


@pytest.mark.parametrize("layout", ["contiguous", "published"])
def test_fields_of_another_resolution_are_refused_with_both_sizes(tmp_path, layout):
    refused(put(tmp_path / "a.h5", layout), "6x6 and data.resolution is 8; use data.resolution=6", resolution=8)


def test_files_of_another_kind_are_refused_with_what_they_hold_and_a_cure_that_keeps_it(tmp_path):
    path, wanted = tmp_path / "a.h5", r"a dataset `fields` of shape \(count, N, N\), float32 or float64"
    refused(foreign(path), f"but nothing; heatgen reads {wanted}")
    refused(foreign(path, images=FIELDS), r"`images` \(11, 6, 6\) float64; .*\.move\('images', 'fields'\)")
    refused(foreign(path, **{"run/u": FIELDS}), r"`run` \(a group\); .*\.move\('run/u', 'fields'\)")
    refused(foreign(path, _00000=FIELDS[0], labels=FIELDS[0]), f"`00000`.*`labels`.*{wanted}")
    refused(foreign(path, fields=FIELDS[0]), r"square fields: `fields` \(6, 6\) float64; store fields\[None\]")
    refused(foreign(path, fields=FIELDS[:0]), "it is empty")
    refused(foreign(path, fields=FIELDS[:, :4]), "height and width must be equal")
    refused(foreign(path, fields=FIELDS[:, None]), r"store fields\[:, 0\] instead")
    refused(foreign(path, fields=FIELDS[..., None]), r"store fields\[\.\.\., 0\] instead")
    refused(foreign(path, fields=FIELDS.astype("i4")), r"is int32; convert it once, with \.astype\('float64'\)")
    refused(foreign(path, fields=FIELDS + 1j), "is complex128; store the real part")
    refused(foreign(path, fields=h5py.Empty("f8")), "null dataspace")
    refused(foreign(path, fields=np.zeros(3, [("a", "f8"), ("b", "i4")])), r"of dtype \[\('a', '<f8'\)")
    refused(foreign(path, _00000=FIELDS), r"`00000` \(11, 6, 6\) float64; numbered datasets are \(N, N\) each")
    for options in ({}, {"chunks": (1, N, N)}):
        with h5py.File(path, "w") as file:
            file.create_dataset("fields", (10**9, N, N), "f8", **options)
        refused(path, "claims 1000000000 fields .* and not all of them were written")
    with h5py.File(path, "w") as file:
        file["fields"] = h5py.SoftLink("/elsewhere")
    refused(path, r"`fields` \(a link to /elsewhere that leads nowhere\)")


def test_a_field_that_is_broken_is_named(tmp_path):
    holed = FIELDS.copy()
    for value, match in (
        (np.nan, "field 1 holds NaN or inf"),
        (-np.inf, "NaN or inf"),
        (1e300, r"numbers up to 1\.0e\+300"),
    ):
        holed[1, 2, 3] = value
        refused(foreign(tmp_path / f"{match[:7]}.h5", fields=holed), match)
    path = foreign(tmp_path / "b.h5", _00000=FIELDS[0], _00001=FIELDS[1, :4], _00002=FIELDS[2])
    refused(path, r"field 1 \(`00001`\) is \(4, 6\) float64 and others are \(6, 6\) floats")
    path = foreign(tmp_path / "c.h5", _00000=FIELDS[0], _00002=FIELDS[1])
    with h5py.File(path, "a") as file:
        file.create_group("00001")
    refused(path, r"cannot be read completely: field 1 \(`00001`\)")
    file = FieldFile(put(tmp_path / "d.h5"), N)
    file.path.write_bytes(file.path.read_bytes()[:3000])
    with pytest.raises(ConfigError, match=r"d\.h5 is not a complete HDF5 file"):
        file.raw([COUNT - 1])


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("mean", np.zeros(3), r"is an array of shape \(3,\), not a number"),
        ("std", np.nan, "is nan, which is not finite"),
        ("std", 0.0, "is 0 where 1.* is measured"),
        ("mean", "", "not a number"),
        ("mean", h5py.Empty("f8"), "of type Empty, not a number"),
        ("resolution", 64, "is 64"),
    ],
)
def test_attributes_that_the_fields_contradict_do_not_count_and_are_said(tmp_path, caplog, key, value, words):
    path = put(tmp_path / "a.h5")
    with h5py.File(path, "a") as file:
        file.attrs[key] = value
    assert FieldFile(path, N).moments() == measured(FieldArray(FIELDS))
    (note,) = caplog.messages
    assert re.search(rf"the attribute {key} of .*a\.h5 .*{words}.*; the fields count", note)


def test_attributes_of_fields_that_were_changed_do_not_count(tmp_path, caplog):
    path = put(tmp_path / "a.h5")
    with h5py.File(path, "a") as file:
        file["fields"][...] *= 10
    assert FieldFile(path, N).moments() == measured(FieldArray(FIELDS * 10)) and len(caplog.messages) == 2
    with h5py.File(path, "a") as file:
        file.attrs.update({"n": "4", "std": file["fields"][()].std(), "mean": np.array([file["fields"][()].mean()])})
    caplog.clear()
    file = FieldFile(path, N)
    assert file.facts["n"] == 4 and file.moments() == pytest.approx((10 * FIELDS.mean(), 10 * FIELDS.std()))
    assert not caplog.messages


def test_a_file_is_replaced_only_where_it_may_be(tmp_path):
    path = tmp_path / "a.h5"
    path.write_text("mine")
    with pytest.raises(ConfigError, match=r"a\.h5 is already there; .* overwrite=true"):
        put(path)
    assert path.read_text() == "mine"
    assert len(FieldFile(put(path, overwrite=True), N)) == COUNT


def test_a_file_that_came_while_another_was_made_is_not_replaced(tmp_path):
    path = tmp_path / "a.h5"

    def slow():
        yield from FIELDS[:-1]
        path.write_text("of another process")
        yield FIELDS[-1]

    with pytest.raises(ConfigError, match=r"a\.h5 is already there"):
        write_fields(path, slow(), COUNT, N)
    assert path.read_text() == "of another process" and os.listdir(tmp_path) == ["a.h5"]


def test_a_writing_that_stops_leaves_nothing_and_keeps_what_was_there(tmp_path):
    path = put(tmp_path / "a.h5")
    before = path.read_bytes()

    def some():
        yield FIELDS[0]
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_fields(path, some(), COUNT, N, overwrite=True)
    with pytest.raises(ValueError, match="shorter"):
        write_fields(path, iter(FIELDS[:2]), COUNT, N, overwrite=True)
    assert path.read_bytes() == before and os.listdir(tmp_path) == ["a.h5"]


def test_layouts_and_dtypes_are_checked(tmp_path):
    for options, match in (
        ({"layout": "chunked"}, "layout must be one of contiguous, published"),
        ({"dtype": "float16"}, "dtype must be one of float64, float32"),
        ({"layout": "published", "dtype": "float32"}, "layout=published holds float64"),
    ):
        with pytest.raises(ConfigError, match=match):
            put(tmp_path / "a.h5", **options)
    assert not os.listdir(tmp_path)


@pytest.mark.parametrize("layout", ["contiguous", "published"])
def test_a_disk_without_room_is_known_before_the_first_field(tmp_path, layout, monkeypatch):
    monkeypatch.setattr("heatgen.data.field_files.shutil.disk_usage", lambda folder: SimpleNamespace(free=10**6))
    fields = (pytest.fail("a field was made") for _ in range(1000))
    with pytest.raises(OSError, match="No space left"):
        write_fields(tmp_path / "train.h5", fields, 1000, 32, layout)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("layout", ["contiguous", "published"])
def test_a_limit_on_the_size_of_files_is_an_error_and_no_crash(tmp_path, layout):
    code = (
        "import resource, signal, numpy, pathlib; from heatgen.data.field_files import write_fields; "
        "resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, 200_000)); "
        f"write_fields(pathlib.Path({str(tmp_path / 'train.h5')!r}), [numpy.zeros((32, 32))] * 100, 100, 32, {layout!r})"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=100)
    assert done.returncode == 1 and "OSError" in done.stderr and not list(tmp_path.iterdir())
