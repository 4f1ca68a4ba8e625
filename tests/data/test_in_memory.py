"""data=memory and data=huggingface: what is taken from Python and saved data sets, and one sentence for anything else."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import SMALL, call
from PIL import Image
from torch.utils.data import Dataset, IterableDataset

from heatgen.app.compose import compose
from heatgen.check import ConfigError
from heatgen.data import memory
from heatgen.data.packed import PackedData


def bytes_of(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)


def whole(data: object) -> torch.Tensor:
    """All samples in memory, in the order of the splits."""
    return torch.cat([images.array for images in memory.taken(data).values()])


class Items(Dataset):
    def __init__(self, *items: object):
        self.items = items

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, index: int) -> object:
        return self.items[index]


@pytest.mark.parametrize(
    ("data", "shape", "dtype"),
    [
        (bytes_of(10, 3, 5, 7), (3, 5, 7), torch.uint8),
        (torch.from_numpy(bytes_of(10, 5, 7)), (1, 5, 7), torch.uint8),
        (bytes_of(10, 5, 7).astype(">i4"), (1, 5, 7), torch.uint8),
        (bytes_of(10, 5, 7).astype(np.uint16), (1, 5, 7), torch.uint8),
        (torch.randn(10, 2).double(), (1, 1, 2), torch.float32),
        (np.float16(np.ones((10, 1, 4, 4))), (1, 4, 4), torch.float32),
        (np.ones((10, 4, 4), ">f8")[:, ::-1], (1, 4, 4), torch.float32),
        ([torch.zeros(4, 4), torch.ones(4, 4), torch.ones(4, 4)], (1, 4, 4), torch.float32),
    ],
)
def test_bytes_stay_bytes_and_floats_stay_floats(data: object, shape: tuple[int, ...], dtype: torch.dtype) -> None:
    splits = memory.taken(data)
    assert [len(images) for images in splits.values()] == ([8, 1, 1] if len(data) == 10 else [1, 1, 1])  # type: ignore[arg-type]
    assert all(images.array.shape[1:] == shape and images.array.dtype == dtype for images in splits.values())
    if isinstance(data, np.ndarray):
        assert np.sort(whole(data).flatten().numpy()).tolist() == np.sort(data.flatten()).tolist()


def test_the_pictures_and_classes_of_a_dataset_are_taken() -> None:
    arrays = bytes_of(6, 5, 7, 3)
    items = Items(*[{"label": i, "image": Image.fromarray(array)} for i, array in enumerate(arrays)])
    for split in memory.taken(items).values():
        assert split.labels is not None
        assert torch.equal(split.array, torch.from_numpy(arrays.transpose(0, 3, 1, 2).copy())[split.labels])
    grey = memory.taken({"train": Items(*[(Image.fromarray(array[..., 0]), "cat") for array in arrays])})
    assert grey["train"].array.shape == (4, 1, 5, 7) and grey["train"].labels is None


def test_splits_of_ones_own_are_taken_as_they_are() -> None:
    x = torch.rand(12, 1, 4, 4)
    splits = memory.taken({"train": x[:8], "validation": x[8:9], "test": x[9:]})
    assert list(splits) == ["train", "val", "test"] and torch.equal(splits["test"].array, x[9:])
    assert torch.equal(whole({"train": x[:8], "validation": x[8:9], "test": x[9:]}), x)


def nan() -> torch.Tensor:
    x = torch.zeros(5, 1, 4, 4)
    x[3, 0, 1, 1] = torch.nan
    return x


class Endless(IterableDataset):
    def __iter__(self):  # type: ignore[no-untyped-def]
        return iter([torch.zeros(4, 4)])


@pytest.mark.parametrize(
    ("data", "sentence"),
    [
        (
            nan(),
            r"1 of 5 samples of data hold NaN or inf \(the first is number 3\); repair those samples, or leave them out",
        ),
        (np.full((5, 1, 4, 4), 1e300), "samples of data hold NaN or inf"),
        (torch.full((5, 4, 4), 256), "data holds whole numbers from 256 to 256; give bytes, 0 to 255, or floats"),
        (torch.tensor([[[-1, 255]]] * 5), "data holds whole numbers from -1 to 255"),
        (torch.tensor([[[0, 1]]] * 5), "data holds the whole numbers 0 and 1"),
        (torch.zeros(5, 4, 4, dtype=torch.bool), "data holds bool, which are no real numbers"),
        (np.zeros((5, 4, 4), complex), "data holds complex128, which are no real numbers"),
        (torch.zeros(5), r"data has the shape \[5\]; give \(N, C, H, W\)"),
        (torch.zeros(5, 1, 4, 4, 4), r"data has the shape \[5, 1, 4, 4, 4\]"),
        (torch.zeros(5, 1, 0, 4), r"data has the shape \[5, 1, 0, 4\]"),
        (torch.zeros(0, 1, 4, 4), "data is empty; give samples"),
        (torch.zeros(5, 8, 8, 3), r"its channels last; give \(N, C, H, W\), by transpose"),
        (torch.zeros(5, 8, 8, 4), r"its channels last; give \(N, C, H, W\), by transpose"),
        (bytes_of(28, 28), r"data has the shape \[28, 28\]; give images as \(N, C, H, W\) or \(N, H, W\), and points as"),
        (bytes_of(5, 8, 8).astype(float), r"data holds bytes as floats, 0 to 255; give bytes \(uint8\), or divide by 255"),
        (torch.zeros(1, 1, 4, 4), "data holds 1 sample, and test and val need one each; give more"),
        (torch.zeros(2, 1, 4, 4), "data holds 2 samples, and test and val need one each"),
        ({"training": torch.zeros(1, 4, 4), "val": torch.zeros(1, 4, 4)}, "data holds 1 sample, and test need one each"),
        ({"test": torch.zeros(3, 4, 4)}, "data has no split train; give one"),
        ({"x": torch.zeros(3, 4, 4)}, "data has the keys x; name its splits train, val and test"),
        ({"train": torch.zeros(3, 4, 4), "val": torch.zeros(3, 5, 4)}, "give all splits one shape and one type"),
        ({"train": torch.zeros(3, 4, 4), "val": torch.zeros(0, 4, 4)}, r"data\['val'\] is empty"),
        (Endless(), "data is of type Endless; give a tensor, an array, or a Dataset with a length"),
        (object(), "data is of type object; give a tensor"),
        ((torch.zeros(3, 1, 4, 4), torch.zeros(3)), "data is a tuple; give its images alone, or TensorDataset"),
        (Items(), "data is empty; give samples"),
        (Items(torch.zeros(4, 4), torch.zeros(4, 5)), r"data\[0\] is \[4, 4\] float32 and data\[1\] is \[4, 5\] float32"),
        (Items("picture.png"), r"data\[0\] is of type str; each must be an image"),
        (Items(Image.new("P", (4, 4))), r"data\[0\] is a picture of mode P; make it one of convert"),
    ],
)
def test_wrong_data_are_named_with_what_to_do(data: object, sentence: str) -> None:
    with pytest.raises(ConfigError, match=sentence):
        memory.taken(data)


@pytest.mark.parametrize(
    ("low", "high", "wide"), [(0.0, 0.5, (0, 1)), (-0.5, 0.5, (-1, 1)), (-3.0, 2.0, None), (5.5, 5.5, (5, 6))]
)
def test_a_file_of_floats_has_their_bits_and_range(low: float, high: float, wide: tuple | None, tmp_path: Path) -> None:
    x = torch.linspace(low, high, 2 * 15 * 300).reshape(300, 2, 3, 5)
    splits = memory.taken(x)
    checksum = memory.write(tmp_path / "data.h5", splits, {"data": "memory"})
    data = PackedData(path=str(tmp_path / "data.h5"), shape=[2, 3, 5], verify="whole")
    assert data.packed.checksum == checksum and data.spec.bits is None
    train = splits["train"].array
    assert data.spec.value_range == (wide or (float(train.min()), float(train.max())))
    for split, images in splits.items():
        assert torch.equal(data.images(split).pixels(range(len(images))), images.array)
    content = bytearray((tmp_path / "data.h5").read_bytes())
    content[content.find(train[0].numpy().tobytes())] ^= 1
    (tmp_path / "data.h5").write_bytes(content)
    with pytest.raises(ConfigError, match=r"of its train images 0 to .* the checksum differs"):
        PackedData(path=str(tmp_path / "data.h5"), shape=[2, 3, 5]).get("train", [0])


@pytest.mark.parametrize(
    ("shape", "widths"),
    [((1, 8, 8), [1, 2, 2]), ((1, 28, 28), [1, 2, 2]), ((3, 50, 50), [1, 2]), ((1, 1, 2), [1]), ((1, 7, 8), [1])],
)
def test_the_network_fits_the_shape(shape: tuple[int, ...], widths: list[int]) -> None:
    assert list(compose("data=memory", f"data.shape={list(shape)}").net.multipliers) == widths


# Hugging Face ------------------------------------------------------------------------------------------------------------


@pytest.fixture
def saved(tmp_path: Path) -> tuple[Path, np.ndarray]:
    """A saved data set of 20 pictures with classes, and its pixels."""
    datasets = pytest.importorskip("datasets")  # of the extra `huggingface`
    arrays = bytes_of(20, 9, 9)
    columns = {"digit": [Image.fromarray(array) for array in arrays], "label": list(range(20))}
    features = datasets.Features({"label": datasets.ClassLabel(20), "digit": datasets.Image()})
    rows = datasets.Dataset.from_dict(columns, features=features)
    parts = {"train": rows.select(range(14)), "validation": rows.select(range(14, 17)), "test": rows.select(range(17, 20))}
    datasets.DatasetDict(parts).save_to_disk(tmp_path / "saved")
    return tmp_path / "saved", arrays


def test_a_saved_data_set_is_read_by_its_splits(saved: tuple[Path, np.ndarray]) -> None:
    from heatgen.data.huggingface import HuggingFace

    folder, arrays = saved
    data = HuggingFace(path=str(folder), shape=[1, 9, 9])
    found = [data.images(split).pixels(range(len(data.images(split)))) for split in ("train", "val", "test")]
    assert [len(part) for part in found] == [14, 3, 3] and torch.equal(torch.cat(found)[:, 0], torch.from_numpy(arrays))
    small = HuggingFace(path=str(folder), shape=[3, 4, 4], column="digit").images("train").pixels([0])
    assert small.shape == (1, 3, 4, 4)
    for settings, sentence in {"label": "data.column=label is no column of images", "digits": "did you mean digit"}.items():
        with pytest.raises(ConfigError, match=sentence):
            HuggingFace(path=str(folder), shape=[1, 9, 9], column=settings).images("train")


def test_an_open_data_set_is_taken_with_its_classes(saved: tuple[Path, np.ndarray]) -> None:
    import datasets

    found = memory.taken(datasets.load_from_disk(str(saved[0])))
    assert torch.equal(whole(datasets.load_from_disk(str(saved[0])))[:, 0], torch.from_numpy(saved[1]))
    assert found["test"].labels is not None and found["test"].labels.tolist() == [17, 18, 19]


@pytest.mark.slow
def test_a_training_on_a_saved_data_set_goes_on(saved: tuple[Path, np.ndarray], refused: Callable[..., str]) -> None:
    words = [word for word in SMALL if not word.startswith(("data.", "trainer.max_steps"))]
    words += [
        "net.model_channels=8",
        "net.norm_groups=4",
        "net.multipliers=[1]",
        "net.num_res_blocks=1",
        "net.attention_levels=[]",
    ]
    words += [
        "data=huggingface",
        "data.shape=[1,8,8]",
        f"data.path={saved[0]}",
        "data.batch_size=4",
        "callback.pictures.every=0",
    ]
    assert call("train", *words, "trainer.max_steps=2") == 0
    assert call("train", "resume=latest", "trainer.max_steps=3") == 0
    assert call("sample", "run=latest", "n=2") == 0
    assert "is no data set of Hugging Face's" in refused("train", "data=huggingface", f"data.path={saved[0].parent}")


def test_without_the_library_there_is_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    from heatgen.data.huggingface import HuggingFace

    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(
        ConfigError, match=r"data=huggingface needs the package datasets: pip install 'heatgen\[huggingface\]'"
    ):
        HuggingFace(path=str(tmp_path), shape=[1, 8, 8]).images("train")
