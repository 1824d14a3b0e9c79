"""Image sets: MNIST as published, idx files against a hand-made writer."""

import gzip
import struct

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from papertwin.data import cifar
from papertwin.data.images import ABOUT, Images, load_images, read_idx
from papertwin.errors import DataError, InputError

RNG = np.random.default_rng(0)
FIRST_LABELS = {"train": [5, 0, 4, 1, 9, 2, 1, 3, 1, 4], "test": [7, 2, 1, 0, 4, 1, 4, 9, 5, 9]}
COUNTS = {
    "train": [5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949],
    "test": [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009],
}


def idx(array, kind=8):
    """Bytes of an idx file, written by hand."""
    return struct.pack(f">BBBB{array.ndim}I", 0, 0, kind, array.ndim, *array.shape) + array.tobytes()


def some(count=4, classes=("a", "b", "c")):
    pixels = RNG.integers(0, 256, (count, 1, 2, 3), dtype=np.uint8)
    return Images(pixels, np.arange(count, dtype=np.int64) % len(classes), classes)


@pytest.mark.parametrize("name", ["mnist", "fashion_mnist"])
def test_what_is_known_of_a_set_is_what_its_files_hold(name):
    about = ABOUT[name]
    for split, count in (("train", about.train), ("test", about.test)):
        found = load_images(name, split)
        assert found.images.shape == (count, about.channels, about.side, about.side)
        assert len(found.classes) == about.classes


@pytest.mark.parametrize("name", cifar.SETS)
def test_what_is_known_of_cifar_fits_its_reader(name):
    about, kind = ABOUT[name], cifar.SETS[name]
    assert (about.title, about.classes) == (kind.title, len(kind.classes))
    assert (about.channels, about.side, about.side) == cifar.SHAPE
    assert (about.train, about.test) == (50_000, 10_000)  # no files here: as their authors say


@pytest.mark.parametrize("split", ["train", "test"])
def test_mnist_is_the_published_one(split):
    digits = load_images("mnist", split)
    assert digits.images.shape == (60_000 if split == "train" else 10_000, 1, 28, 28)
    assert len(digits) == len(digits.labels)
    assert digits.labels[:10].tolist() == FIRST_LABELS[split]
    assert np.bincount(digits.labels).tolist() == COUNTS[split]
    assert digits.classes == ("0", "1", "2", "3", "4", "5", "6", "7", "8", "9")
    if split == "train":
        counts, values = np.bincount(digits.images.ravel()), np.arange(256) / 255
        mean = np.average(values, weights=counts)
        spread = np.sqrt(np.average((values - mean) ** 2, weights=counts))
        assert (round(mean, 4), round(spread, 4)) == (0.1307, 0.3081)


@pytest.mark.parametrize(
    ("split", "first"), [("train", [9, 0, 0, 3, 0, 2, 7, 2, 5, 5]), ("test", [9, 2, 1, 1, 6, 1, 4, 6, 5, 7])]
)
def test_fashion_mnist_is_the_published_one(split, first):
    clothes = load_images("fashion_mnist", split)
    assert clothes.labels[:10].tolist() == first
    assert set(np.bincount(clothes.labels)) == {6000 if split == "train" else 1000}
    assert clothes.classes[9] == "ankle boot"
    if split == "train":
        values = clothes.images / 255
        assert (round(values.mean(), 4), round(values.std(), 4)) == (0.2860, 0.3530)


def test_scaled_pixels_are_float32_from_0_to_1_and_lose_nothing():
    every = Images(np.arange(256, dtype=np.uint8).reshape(1, 1, 16, 16), np.zeros(1, np.int64), ("x",))
    values = every.scaled()
    assert values.dtype == np.float32
    assert (values.min(), values.max()) == (0, 1)
    np.testing.assert_array_equal(values, (np.arange(256) / 255).astype(np.float32).reshape(1, 1, 16, 16))
    np.testing.assert_array_equal((values * 255).round().astype(np.uint8), every.images)


@pytest.mark.parametrize("rows", [[2, 0], slice(1, 3), np.array([False, True, True, False]), np.array([], dtype=int)])
def test_rows_are_taken_in_their_order_with_their_labels(rows):
    pictures = some()
    taken = pictures.take(rows)
    np.testing.assert_array_equal(taken.images, pictures.images[rows])
    np.testing.assert_array_equal(taken.labels, pictures.labels[rows])
    np.testing.assert_array_equal(pictures.scaled(rows), pictures.scaled()[rows])
    assert taken.classes == pictures.classes


@pytest.mark.parametrize(
    ("field", "value", "words"),
    [
        ("images", np.zeros((4, 1, 2, 3), np.float32), "images must be uint8.*float32"),
        ("images", np.zeros((4, 2, 3), np.uint8), r"shape \(n, c, h, w\)"),
        ("labels", np.zeros(3, np.int64), "one for each of 4 images"),
        ("labels", np.zeros(4, np.uint8), "int64"),
        ("labels", np.array([0, 1, 2, 3]), "from 0 to 2.*got 0 to 3"),
        ("labels", np.array([0, 1, 2, -1]), "got -1 to 2"),
    ],
)
def test_fields_that_do_not_fit_each_other(field, value, words):
    good = some()
    fields = {"images": good.images, "labels": good.labels, "classes": good.classes} | {field: value}
    with pytest.raises(InputError, match=words):
        Images(**fields)


@pytest.mark.parametrize(("name", "split"), [("mnits", "train"), ("mnist", "validation"), ("cifar10", "all")])
def test_unknown_sets_and_splits(name, split):
    with pytest.raises(DataError, match="expected"):
        load_images(name, split)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("idx")


@given(shape=st.lists(st.integers(0, 5), min_size=1, max_size=4), packed=st.booleans(), seed=st.integers(0, 99))
def test_an_idx_file_comes_back(folder, shape, packed, seed):
    array = np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)
    path = folder / ("file.gz" if packed else "file")
    path.write_bytes(gzip.compress(idx(array)) if packed else idx(array))
    np.testing.assert_array_equal(read_idx(path, len(shape)), array)


@pytest.mark.parametrize("packed", [True, False])
def test_a_truncated_idx_file_is_never_read(tmp_path, packed):
    content = idx(RNG.integers(0, 256, (3, 2, 2), dtype=np.uint8))
    path = tmp_path / ("file.gz" if packed else "file")
    whole = gzip.compress(content) if packed else content
    for length in range(len(whole)):
        path.write_bytes(whole[:length])
        with pytest.raises(DataError, match=r"truncated|damaged|magic number"):
            read_idx(path, 3)
    path.write_bytes(gzip.compress(content + b"\0") if packed else content + b"\0")
    with pytest.raises(DataError, match=r"holds 29 bytes, expected 28 for the shape \(3, 2, 2\)"):
        read_idx(path, 3)


def test_other_files_are_no_idx_files(tmp_path):
    path = tmp_path / "labels"
    path.write_bytes(idx(np.zeros(3, np.uint8)))
    with pytest.raises(DataError, match=r"magic number is 2049, expected 2051.*swapped"):
        read_idx(path, 3)
    path.write_bytes(idx(np.zeros(3, np.uint8), kind=9))
    with pytest.raises(DataError, match="magic number is 2305, expected 2049"):
        read_idx(path, 1)
    with pytest.raises(DataError, match="Cannot read"):
        read_idx(tmp_path / "absent", 1)
    damaged = bytearray(gzip.compress(idx(np.zeros(300, np.uint8)), mtime=0))
    damaged[-6] ^= 1  # in the checksum
    (tmp_path / "x.gz").write_bytes(damaged)
    with pytest.raises(DataError, match=r"Cannot read.*damaged"):
        read_idx(tmp_path / "x.gz", 1)
