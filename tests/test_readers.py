"""Own data without ceremony: frames, CSV files, image folders, torch datasets, memory maps."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from torch.utils.data import Dataset as TorchDataset
from torch.utils.data import IterableDataset, Subset, TensorDataset

from workbench.datasets.splits import Split, cut, dataset
from workbench.errors import RequestError, SourceError, TamperedError
from workbench.preprocessing import Preprocessing, as_tensor

HOUSES = pd.DataFrame(
    {"area": [50, 80, 120], "garden": [True, False, True], "price": [1.5, 2.5, 4.0]}
)
NOISE = np.random.default_rng(0)


@pytest.fixture(autouse=True)
def _own_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORKBENCH_DATA", str(tmp_path / "data"))
    monkeypatch.chdir(tmp_path)


def image(path: str, shape: tuple[int, ...] = (4, 6, 3), **options: Any) -> Any:
    """Write an image of noise and return its pixels."""
    pixels = NOISE.integers(0, 256, shape, dtype=np.uint8)
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path, **options)
    return pixels


def pets() -> list[Any]:
    """Write a folder of two classes and return its images in order."""
    return [image(f"pets/{name}.png") for name in ("cat/1", "cat/2", "dog/1")]


# --- tables


def test_a_frame_is_its_target_and_the_numbers_beside_it() -> None:
    made = dataset("houses", train=HOUSES, target="price")
    assert (made.features, made.task) == (("area", "garden"), "regression")
    assert made.train.inputs.tolist() == [[50, 1], [80, 0], [120, 1]]
    assert made.train.inputs.dtype == torch.float32
    pair = dataset("pair", train=(HOUSES[["area", "garden"]], HOUSES["price"]))
    assert made.fingerprint == pair.fingerprint


@pytest.mark.parametrize(
    ("targets", "classes"),
    [(["no", "yes", "no"], ("no", "yes")), ([3, 1, 3], ("1", "3")),
     ([True, False, True], ("False", "True")), (pd.Categorical(["b", "a", "b"]), ("a", "b")),
     (pd.Categorical([10, 9, 10]), ("9", "10")), (pd.Categorical([1.5, 2.5, 1.5]), ("1.5", "2.5")),
     (pd.array([1, 0, 1], dtype="Int64"), ("0", "1")),
     (pd.array([True, False, True], dtype="boolean"), ("False", "True"))],
)  # fmt: skip
def test_words_integers_and_categories_of_a_frame_classify(
    targets: Any, classes: tuple[str, ...]
) -> None:
    made = dataset("houses", train=HOUSES.assign(price=targets), target="price")
    assert made.classes == classes
    assert [made.classes[i] for i in made.train.targets] == [str(value) for value in targets]


@pytest.mark.parametrize("name", ["houses.csv", "houses.csv.gz"])
def test_a_csv_file_is_its_frame(name: str) -> None:
    HOUSES.to_csv(name, index=False)
    made = dataset("houses", train=name, target="price")
    assert made.fingerprint == dataset("h", train=HOUSES, target="price").fingerprint
    assert made.card.description == f"houses, read from {name}"


def test_one_call_mixes_what_parts_are_given_as() -> None:
    HOUSES.to_csv("a.csv", index=False)
    other = HOUSES[["price", "garden", "area"]].assign(note="not asked for")
    pair = (torch.zeros(1, 2), [1.0])
    made = dataset("h", train=Path("a.csv"), test=other, validation=pair, target="price")
    assert made.test is not None
    assert made.validation is not None
    assert torch.equal(made.test.inputs, made.train.inputs)  # read by name, in whatever order
    assert made.validation.inputs.tolist() == [[0, 0]]
    held = dataset("h", train="a.csv", validation=1, target="price").validation
    assert held is not None
    assert len(held) == 1


def test_frames_of_a_pair_are_read_by_name_too() -> None:
    x = HOUSES[["area", "garden"]]
    made = dataset("h", train=(x, HOUSES["price"]), test=(x[["garden", "area"]], HOUSES["price"]))
    assert made.test is not None
    assert torch.equal(made.test.inputs, made.train.inputs)
    unnamed = dataset("h", train=(x, HOUSES["price"]), test=(pd.DataFrame([[7, 1]]), [1.0])).test
    assert unnamed is not None
    assert unnamed.inputs.tolist() == [[7, 1]]


GAPS = HOUSES.assign(area=[1.0, np.nan, 3.0], price=[np.nan, np.nan, 1.0])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"train": HOUSES}, "the DataFrame of train has the columns area, garden, price: pass tar"),
        ({"train": HOUSES, "target": "prise"}, "column of the DataFrame of train 'prise': did you"),
        ({"train": HOUSES.iloc[:0], "target": "price"}, "train has 0 rows and 2 columns beside pr"),
        ({"train": HOUSES[["price"]], "target": "price"}, "3 rows and 0 columns beside price: it"),
        (
            {"train": GAPS, "target": "price"},
            r"misses values in 2 of 3 rows: row 0 \(price\), row 1 \(area, price\)\. Drop those",
        ),
        ({"train": HOUSES.assign(town="Ulm"), "target": "price"}, "the columns town are not numb"),
        (
            {"train": HOUSES.assign(day=pd.Timestamp("2026-01-01")), "target": "day"},
            r"column day of the DataFrame of train is of datetime64.*, expected words, integers",
        ),
        (
            {"train": HOUSES, "test": HOUSES.drop(columns="area"), "target": "price"},
            "test lacks the columns area of train: pass frames of the same columns",
        ),
        (
            {"train": pd.concat([HOUSES, HOUSES["area"]], axis=1), "target": "price"},
            "the DataFrame of train has two columns area: give each its own name",
        ),
        ({"train": ([[1.0]], [1.0]), "target": "y"}, "target is 'y', but no part is a DataFrame"),
        ({"train": ([[1.0]], [1.0]), "image_size": 8}, "image_size is 8, but no part is a folder"),
        ({"train": None}, "train is a NoneType, expected train=.*, a torch Dataset$"),
    ],
)
def test_a_table_that_cannot_be_is_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(RequestError, match=message):
        dataset("houses", **options)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("none.csv", None, r"train: there is no none\.csv \(seen from /"),
        ("empty.csv", "", r"empty\.csv is empty, expected a line of column names and rows"),
        (
            "ragged.csv",
            "a,y\n1,2\n1,2,3\n",
            r"ragged\.csv cannot be read as CSV: .* in line 3, saw",
        ),
        ("bad.csv.gz", "a,y\n1,2\n", r"bad\.csv\.gz cannot be read as CSV: Not a gzipped file"),
        ("head.csv", "a,y\n", r"head\.csv has 0 rows and 1 columns beside y: it takes at least"),
        ("index.csv", ",a,y\n0,1,2\n", r"index\.csv has a column without a name, maybe an index"),
        (
            "long.csv",
            "a,y\n1,2,3\n4,5,6\n",
            r"long\.csv has a column without a name, maybe an inde",
        ),
        ("other.csv", "a,z\n1,2\n", r"unknown column of other\.csv 'y'.* There are: a, z\."),
        ("gap.csv", "a,y\n1,2\n,3\n", r"gap\.csv misses values in 1 of 2 rows: row 1 \(a\)\. Dr"),
        ("x.parquet", "", r"x\.parquet is neither a folder of images nor a \.csv or \.csv\.gz: "),
    ],
)
def test_a_csv_file_that_cannot_be_read_is_refused(
    name: str, content: str | None, message: str
) -> None:
    if content is not None:
        Path(name).write_text(content)
    with pytest.raises(RequestError, match=message):
        dataset("mine", train=name, target="y")


# --- image folders


def test_a_folder_is_its_images_in_the_order_of_names() -> None:
    expected = np.stack(pets())
    Path("pets/.hidden").mkdir()
    Path("pets/cat/.thumbnail.png").touch()
    Path("pets/README.txt").touch()
    made = dataset("pets", train="pets")
    assert np.array_equal(made.train.inputs.numpy(), expected)
    assert (made.classes, made.train.targets.tolist()) == (("cat", "dog"), [0, 0, 1])
    assert Preprocessing.fitted(made.train.inputs).kind == "image"
    assert made.card.description == "pets, read from the folder pets"


def test_a_folder_is_grey_when_every_image_is() -> None:
    pixels = [image("grey/a/1.png", (4, 6)), image("grey/b/1.png", (4, 6))]
    assert np.array_equal(dataset("g", train="grey").train.inputs.numpy(), np.stack(pixels))
    colour = image("grey/b/2.bmp")
    inputs = dataset("g", train="grey").train.inputs.numpy()
    assert inputs.shape == (3, 4, 6, 3)
    assert np.array_equal(inputs[0], pixels[0][..., None].repeat(3, -1))
    assert np.array_equal(inputs[2], colour)


def test_images_are_turned_as_their_tag_says() -> None:
    told = Image.Exif()
    told[0x0112] = 6  # as a camera on its side: to be turned clockwise
    pixels = image("turned/a/1.png", (4, 6, 3), exif=told)
    upright = image("turned/a/2.png", (6, 4, 3))
    inputs = dataset("t", train="turned").train.inputs.numpy()
    assert np.array_equal(inputs, np.stack([np.rot90(pixels, -1), upright]))


@pytest.mark.parametrize("size", [8, (8, 8), (4, 10)])
def test_images_are_cropped_in_the_middle_and_resized(size: Any) -> None:
    image("mixed/a/1.png", (8, 8, 3))
    wide = image("mixed/a/2.png", (16, 40, 3))
    inputs = dataset("m", train="mixed", image_size=size).train.inputs.numpy()
    if size == (4, 10):
        boxes = wide.reshape(4, 4, 10, 4, 3).mean((1, 3))
        assert inputs.shape == (2, 4, 10, 3)
        assert abs(inputs[1] - boxes).mean() < 20  # a triangle is no box; one pixel of four: 58
    else:
        middle = (12, 0, 28, 16)
        square = Image.fromarray(wide).resize((8, 8), Image.Resampling.BILINEAR, middle)
        assert np.array_equal(inputs[1], np.asarray(square))


def test_parts_share_the_classes_of_train() -> None:
    pets()
    dog = image("few/dog/9.png")
    made = dataset("pets", train="pets", test="few", validation=(dog[None], ["dog"]))
    assert made.test is not None
    assert made.validation is not None
    assert made.test.targets.tolist() == made.validation.targets.tolist() == [1]
    assert dataset("p", train="pets", classes=["dog", "cat"]).train.targets.tolist() == [1, 1, 0]
    assert dataset("p", train="pets", classes=["Katze", "Hund"]).train.targets.tolist() == [0, 0, 1]
    image("few/emu/1.png")
    with pytest.raises(RequestError, match=r"targets of test have no class: \['emu'\]; known"):
        dataset("pets", train="pets", test="few")


def test_large_folders_are_decoded_once(monkeypatch: pytest.MonkeyPatch) -> None:
    expected = np.stack(pets())
    plain = dataset("pets", train="pets")
    monkeypatch.setattr("workbench.datasets.folders.IN_MEMORY", 100)
    made = dataset("pets", train="pets")
    assert np.array_equal(made.train.inputs.numpy(), expected)
    assert made.fingerprint == plain.fingerprint
    assert (made.train.mapped, plain.train.mapped) == (True, False)
    (kept,) = Path("data/folders").glob("*/images.npy")
    before = kept.stat().st_mtime_ns
    assert dataset("pets", train="pets").fingerprint == made.fingerprint
    assert kept.stat().st_mtime_ns == before
    other = image("pets/cat/1.png")
    again = dataset("pets", train="pets").train.inputs
    assert np.array_equal(again[0].numpy(), other)
    assert len(list(Path("data/folders").glob("*/images.npy"))) == 2


def test_what_a_killed_decoding_left_is_removed(monkeypatch: pytest.MonkeyPatch) -> None:
    pets()
    monkeypatch.setattr("workbench.datasets.folders.IN_MEMORY", 100)
    dataset("pets", train="pets")
    (kept,) = Path("data/folders").glob("*/")
    kept.rename(kept.with_name(f".{kept.name}.half"))
    dataset("pets", train="pets")
    assert list(Path("data/folders").glob("*/")) == [kept]


def test_kept_images_that_are_damaged_or_cannot_be_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    pets()
    monkeypatch.setattr("workbench.datasets.folders.IN_MEMORY", 100)
    Path("data").touch()
    with pytest.raises(SourceError, match=r"decoded images of pets cannot be kept in .*Make room"):
        dataset("pets", train="pets")
    Path("data").unlink()
    dataset("pets", train="pets")
    (kept,) = Path("data/folders").glob("*/images.npy")
    os.truncate(kept, 150)
    with pytest.raises(TamperedError, match=r"images\.npy is damaged .* decoded anew"):
        dataset("pets", train="pets")


def flat() -> None:
    image("pics/1.png")


def empty() -> None:
    Path("pics").mkdir()


def deep() -> None:
    image("pics/train/cat/1.png")


def no_images() -> None:
    Path("pics/cat").mkdir(parents=True)


def differing() -> None:
    image("pics/cat/1.png", (4, 6, 3))
    image("pics/dog/1.png", (6, 4, 3))


def no_image() -> None:
    image("pics/cat/1.png")
    Path("pics/cat/notes.txt").write_text("hello")


def cut_short() -> None:
    image("pics/cat/1.png", (64, 64, 3))
    os.truncate("pics/cat/1.png", 2_000)


def sixteen_bits() -> None:
    empty()
    Path("pics/cat").mkdir()
    Image.fromarray(np.full((4, 4), 40_000, np.uint16)).save("pics/cat/1.png")


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (flat, r"pics has images of no class, 1\.png: put each image into a sub-folder named as"),
        (empty, "pics has no sub-folders: put each image into a sub-folder named as its class"),
        (deep, "pics/train/cat is a folder, expected images: pass the folder whose sub-folders"),
        (no_images, "pics/cat has no images: put some in, or remove the folder"),
        (
            differing,
            r"cat/1\.png is 4×6 and dog/1\.png is 6×4 \(height × width\)\. Pass image_size",
        ),
        (no_image, r"1 of 2 files cannot be read as images: pics/cat/notes\.txt \(cannot identify"),
        (cut_short, r"1 of 1 files cannot be read as images: pics/cat/1\.png \(.*\)\. Mend them"),
        (sixteen_bits, r"pics/cat/1\.png \(its pixels are of Pillow's mode I;16, expected 8 bits"),
    ],
)
def test_a_folder_that_cannot_be_read_is_refused(make: Any, message: str) -> None:
    make()
    with pytest.raises(RequestError, match=message):
        dataset("mine", train="pics")


@pytest.mark.parametrize("size", [0, (8,), "8", (8, 0.5), -1])
def test_a_size_is_two_numbers_or_one(size: Any) -> None:
    pets()
    with pytest.raises(RequestError, match=r"image_size is .*, expected \(height, width\) or one"):
        dataset("pets", train="pets", image_size=size)


# --- torch datasets


class Items(TorchDataset[Any]):
    """What is given, item by item."""

    def __init__(self, items: list[Any], classes: list[str] | None = None) -> None:
        self.items = items
        if classes is not None:
            self.classes = classes

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, row: int) -> Any:
        return self.items[row]


class Stream(IterableDataset[Any]):
    """Rows without an end."""

    def __iter__(self) -> Iterator[Any]:
        yield from iter(lambda: ([0.0], 0), None)


def test_a_torch_dataset_is_its_items_stacked() -> None:
    x, y = torch.rand(5, 3, 4, 6), torch.tensor([0, 1, 0, 1, 1])
    made = dataset("mine", train=TensorDataset(x, y), test=Subset(TensorDataset(x, y), [4, 0]))
    assert made.fingerprint == dataset("m", train=(x, y), test=(x[[4, 0]], y[[4, 0]])).fingerprint
    assert Preprocessing.fitted(made.train.inputs).kind == "tensor"
    assert made.card.description == "mine, read from the torch dataset TensorDataset"
    values = dataset("mine", train=TensorDataset(x, torch.rand(5, 2)))
    assert (values.task, values.train.targets.shape) == ("regression", (5, 2))


@pytest.mark.parametrize("target", [1, np.int64(1), torch.tensor(1)])
def test_names_of_a_torch_dataset_are_the_classes(target: Any) -> None:
    items = Items([([0.0], target), ([1.0], target)], ["zebra", "ant", "bee"])
    made = dataset("mine", train=Subset(items, [0]), test=items)
    assert made.classes == ("zebra", "ant", "bee")
    assert made.train.targets.tolist() == [1]
    other = Items([([0.0], 0)], ["bee", "zebra"])
    assert dataset("mine", train=items, test=other).test.targets.tolist() == [2]  # type: ignore[union-attr]


def test_pixels_of_a_torch_dataset_stay_pixels() -> None:
    pixels = NOISE.integers(0, 256, (4, 6, 3), dtype=np.uint8)
    pictures = [Image.fromarray(pixels), pixels, torch.from_numpy(pixels).permute(2, 0, 1)]
    for picture in pictures:
        inputs = dataset("mine", train=Items([(picture, 0), (picture, 1)])).train.inputs
        assert inputs.dtype == torch.uint8
        assert np.array_equal(inputs[1].numpy(), pixels)
    grey = dataset("mine", train=Items([(Image.fromarray(pixels[..., 0]), 0)])).train.inputs
    assert grey.shape == (1, 4, 6)


def test_numbers_of_a_torch_dataset_are_a_table() -> None:
    made = dataset("mine", train=Items([(0, 0.5), (2.5, 1.5)]))
    assert made.train.inputs.tolist() == [[0.0], [2.5]]
    assert (made.task, made.train.targets.tolist()) == ("regression", [0.5, 1.5])


DEEP = Image.fromarray(np.zeros((2, 2), np.uint16))


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (Stream(), "train is the torch dataset Stream without a length.*: pass a DataLoader of it"),
        (Items([]), "train is the torch dataset Items of 0 items, expected at least one"),
        (Items([[1, 2, 3]]), r"item 0 of train is a list, expected \(input, target\)"),
        (
            Items([([0.0], 0), ([0.0, 1.0], 0)]),
            r"inputs of train differ: that of item 0 has the shape \(1,\) .* item 1 \(2,\)",
        ),
        (Items([([0.0], 0), ([0.0], 0.5)]), "targets of train differ: .* type int64.* and float64"),
        (
            Items([([0.0], 0), ([0.0], 2)], ["a", "b"]),
            r"targets of train run from 0 to 2, expected 0 to 1 for the 2 names of Items\.classes",
        ),
        (Items([("word", 0)]), "inputs are not an array of numbers"),
        (Items([(DEEP, 0)]), "item 0 of train cannot be taken: its pixels are of Pillow's mode I;"),
    ],
)
def test_a_torch_dataset_that_cannot_be_is_refused(given: Any, message: str) -> None:
    with pytest.raises(RequestError, match=message):
        dataset("mine", train=given)


# --- memory maps


@pytest.mark.parametrize("mode", ["r", "c", "r+"])
def test_a_memory_map_stays_one(mode: Any) -> None:
    table = NOISE.random((9_000, 3), dtype=np.float32)
    np.save("x.npy", table)
    mapped = np.load("x.npy", mmap_mode=mode)
    y = np.arange(9_000.0)
    made = dataset("m", train=(mapped, y), test=(np.asarray(mapped[7_000:]), y[7_000:]))
    assert made.test is not None
    assert (made.train.mapped, made.test.mapped) == (True, True)
    assert np.array_equal(made.train.inputs.numpy(), table)
    assert np.array_equal(made.test.inputs.numpy(), table[7_000:])
    assert (
        made.fingerprint
        == dataset("m", train=(table, y), test=(table[7_000:], y[7_000:])).fingerprint
    )


def test_what_is_written_into_a_read_only_map_stays_in_memory() -> None:
    np.save("x.npy", np.zeros((4, 2), np.float32))
    tensor = as_tensor(np.load("x.npy", mmap_mode="r"))
    tensor += 1
    assert tensor.sum() == 8
    assert np.load("x.npy").sum() == 0


def test_a_map_is_copied_only_where_it_is_small(monkeypatch: pytest.MonkeyPatch) -> None:
    np.save("wide.npy", np.arange(6.0).reshape(3, 2))
    np.save("columns.npy", np.asfortranarray(np.ones((3, 2), np.float32)))
    wide, columns = (np.load(f"{name}.npy", mmap_mode="r") for name in ("wide", "columns"))
    assert as_tensor(wide).tolist() == [[0, 1], [2, 3], [4, 5]]
    assert as_tensor(columns).is_contiguous()
    monkeypatch.setattr("workbench.preprocessing.IN_MEMORY", 10)
    for given, kind in ((wide, "float64"), (columns, "float32")):
        with pytest.raises(RequestError, match=f"map of {kind} that would have to be copied into"):
            as_tensor(given)


def test_a_map_whose_file_is_gone_is_refused() -> None:
    np.save("x.npy", np.zeros((4, 2), np.float32))
    mapped = np.load("x.npy", mmap_mode="r")
    Path("x.npy").unlink()
    with pytest.raises(RequestError, match=r"file cannot be mapped again .*: load it anew, by"):
        as_tensor(mapped)


def test_a_map_is_cut_into_a_file(monkeypatch: pytest.MonkeyPatch) -> None:
    x, y = torch.rand(40, 3, 2), torch.arange(40) % 2
    plain = cut(Split(x, y, ("a", "b")), 10)
    monkeypatch.setattr("workbench.datasets.splits.IN_MEMORY", 500)
    monkeypatch.setattr("workbench.datasets.splits._CHUNK", 100)
    kept, held = cut(Split(x, y, ("a", "b"), mapped=True), 10)
    assert held is not None
    assert plain[1] is not None
    assert (kept.mapped, held.mapped) == (True, False)  # ten rows are few
    assert torch.equal(kept.inputs, plain[0].inputs)
    assert torch.equal(held.inputs, plain[1].inputs)
    assert list(Path("data").iterdir()) == []
    Path("data").rmdir()
    Path("data").touch()
    with pytest.raises(SourceError, match=r"30 rows of a memory map cannot be kept in .*Make room"):
        cut(Split(x, y, ("a", "b"), mapped=True), 10)


PEAK = """
import sys, threading, time
import numpy as np
import workbench as wb
from workbench.datasets import splits
from workbench.preprocessing import Preprocessing

def anonymous():
    return next(int(line.split()[1]) for line in open("/proc/self/status") if "RssAnon" in line)

def watch():
    while True:
        peak[0] = max(peak[0], anonymous())
        time.sleep(0.002)

def use(x, validation):
    data = wb.dataset("d", train=(x, np.arange(len(x)) % 3), validation=validation)
    Preprocessing.fitted(data.train.inputs, data.classes).batch(data.train.inputs)

files = [np.load(path, mmap_mode="r") for path in sys.argv[1:]]
for x in files:
    use(x[:99], 9)  # what libraries take for themselves
before = anonymous()
peak = [before]
threading.Thread(target=watch, daemon=True).start()
splits.IN_MEMORY = 64 * 2**20  # so that what is left of these small ones goes into a file too
for x in files:
    use(x, 500)
print(peak[0] - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="RssAnon is Linux's word")
def test_what_is_larger_than_memory_is_never_in_it() -> None:
    images, table = ("x.npy", (9_000, 64, 64, 3), np.uint8), ("t.npy", (11_000, 2_500), np.float32)
    for path, shape, dtype in (images, table):
        np.lib.format.open_memmap(path, "w+", dtype, shape).flush()  # zeros, sparse on the disk
    done = subprocess.run(
        [sys.executable, "-c", PEAK, "x.npy", "t.npy"], capture_output=True, text=True, check=True
    )
    assert int(done.stdout) / 1024 < 50  # MiB, of files of 105 each
