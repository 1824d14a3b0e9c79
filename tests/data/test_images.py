"""Image sets: MNIST as published, idx files against a hand-made writer, CIFAR-10 in each of its forms."""

import gzip
import hashlib
import io
import os
import pickle
import struct
import tarfile

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from papertwin.data import images as module
from papertwin.data.images import CIFAR_CLASSES, Images, load_images, read_batch, read_cifar, read_idx
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


def batch_of(labels):
    data = RNG.integers(0, 256, (len(labels), 3072), dtype=np.uint8)
    return data, {
        b"batch_label": b"a batch",
        b"labels": list(labels),
        b"data": data,
        b"filenames": [b"x"] * len(labels),
    }


def python2_pickle(data, labels):
    """The opcodes that Python 2 and an old NumPy write, as in the official archive; labels below 256."""
    text = bytes(data)
    return b"".join(
        [
            b"\x80\x02}(U\x06labels](" + b"".join(b"K" + bytes([label]) for label in labels) + b"e",
            b"U\x04datacnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85U\x01b\x87R",
            b"(K\x01K" + bytes([len(labels)]) + b"M\x00\x0c\x86cnumpy\ndtype\nU\x02u1K\x00K\x01\x87R",
            b"(K\x03U\x01|NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb\x89T" + struct.pack("<I", len(text)) + text,
            b"tbu.",
        ]
    )


def make_batches(place):
    place.mkdir(parents=True)
    made = {}
    for number, part in enumerate([*(f"data_batch_{k}" for k in range(1, 6)), "test_batch"]):
        labels = [number, 9, number]
        data, batch = batch_of(labels)
        (place / part).write_bytes(pickle.dumps(batch, protocol=2))
        made[part] = (data.reshape(3, 3, 32, 32), labels)
    return made


@pytest.mark.parametrize("python", [2, 3])
def test_a_batch_is_rows_of_red_then_green_then_blue(python):
    data, batch = batch_of([3, 1])
    content = python2_pickle(data, [3, 1]) if python == 2 else pickle.dumps(batch, protocol=2)
    pictures, labels = read_batch(io.BytesIO(content), "it")
    assert pictures.shape == (2, 3, 32, 32)
    np.testing.assert_array_equal(pictures[1, 2].ravel(), data[1, 2048:])
    assert labels.dtype == np.int64
    assert labels.tolist() == [3, 1]


class Evil:
    def __init__(self, function, *arguments):
        self.call = (function, arguments)

    def __reduce__(self):
        return self.call


@pytest.mark.parametrize("protocol", range(6))
def test_a_batch_that_wants_to_run_code_is_refused(tmp_path, protocol):
    for evil in (Evil(os.mkdir, str(tmp_path / "ran")), Evil(eval, "1"), Evil(getattr, "text", "join")):
        with pytest.raises(DataError, match=r"it: the pickle asks for .*only NumPy arrays are admitted"):
            read_batch(io.BytesIO(pickle.dumps({b"labels": [0], b"data": evil}, protocol)), "it")
    assert not (tmp_path / "ran").exists()


def test_other_codecs_are_refused():
    content = pickle.dumps({b"data": b"\xe9"}, protocol=2).replace(b"latin1", b"rot_13")
    with pytest.raises(DataError, match="rot_13"):
        read_batch(io.BytesIO(content), "it")


@pytest.mark.parametrize(
    "change",
    [
        {b"labels": [0]},
        {b"labels": [0, 10]},
        {b"labels": ["a", "b"]},
        {b"data": np.zeros((2, 3071), np.uint8)},
        {b"data": np.zeros((2, 3072))},
    ],
)
def test_batches_with_other_content(change):
    _, batch = batch_of([0, 1])
    with pytest.raises(DataError, match="expected"):
        read_batch(io.BytesIO(pickle.dumps(batch | change, protocol=2)), "it")
    for content in (b"", b"text", pickle.dumps([], protocol=2), pickle.dumps(batch, protocol=2)[:-9]):
        with pytest.raises(DataError, match="it is no batch of CIFAR-10"):
            read_batch(io.BytesIO(content), "it")


def check_cifar(place, made):
    train, test = read_cifar(place, "train"), read_cifar(place, "test")
    np.testing.assert_array_equal(train.images, np.concatenate([made[f"data_batch_{k}"][0] for k in range(1, 6)]))
    assert train.labels.tolist() == [0, 9, 0, 1, 9, 1, 2, 9, 2, 3, 9, 3, 4, 9, 4]
    np.testing.assert_array_equal(test.images, made["test_batch"][0])
    assert test.labels.tolist() == made["test_batch"][1]
    assert test.classes == CIFAR_CLASSES


def test_cifar_from_its_batches_and_from_the_archive(tmp_path, monkeypatch):
    place = tmp_path / "cifar-10/cifar-10-batches-py"
    made = make_batches(place)
    check_cifar(place, made)
    check_cifar(place.parent, made)
    monkeypatch.setenv("PAPERTWIN_DATA", str(tmp_path))
    assert len(load_images("cifar10", "train")) == 15
    (tmp_path / "packed").mkdir()
    path = tmp_path / "packed/cifar-10-python.tar.gz"
    with tarfile.open(path, "w:gz") as archive:
        archive.add(place, place.name)
    with pytest.raises(DataError, match="not the official archive: its sha256 is"):
        read_cifar(path.parent, "train")
    monkeypatch.setattr(module, "CIFAR_SHA256", hashlib.sha256(path.read_bytes()).hexdigest())
    check_cifar(path.parent, made)
    (place / "data_batch_4").unlink()
    with pytest.raises(DataError, match=r"Cannot read .*data_batch_4"):
        read_cifar(place, "train")


def test_absent_cifar_says_what_is_expected(tmp_path, monkeypatch):
    monkeypatch.setenv("PAPERTWIN_DATA", str(tmp_path))
    with pytest.raises(DataError, match=r"(?s)cifar10.*cifar-10-python.tar.gz.*cs\.toronto\.edu"):
        load_images("cifar10", "train")
    (tmp_path / "cifar-10").mkdir()
    (tmp_path / "cifar-10/readme.txt").write_text("hello")
    with pytest.raises(DataError, match=r"does not hold CIFAR-10: expected cifar-10-python.tar.gz"):
        load_images("cifar10", "train")


@pytest.fixture
def pictures(tmp_path):
    """Two image files a class, of known pixels; and the pixels, (class, place, 32, 32, 3)."""
    pixels = RNG.integers(0, 256, (10, 2, 32, 32, 3), dtype=np.uint8)
    for label, name in enumerate(CIFAR_CLASSES):
        (tmp_path / "test" / name).mkdir(parents=True)
        for place in range(2):
            Image.fromarray(pixels[label, place]).save(tmp_path / "test" / name / f"{place:04d}.png")
        (tmp_path / "test" / name / "notes.txt").write_text("no image")
    return tmp_path, pixels


def test_cifar_from_image_files_deals_the_classes_out_in_turn(pictures):
    folder, pixels = pictures
    found = read_cifar(folder, "test")
    assert found.labels.tolist() == [*range(10), *range(10)]
    np.testing.assert_array_equal(found.images.transpose(0, 2, 3, 1), pixels.swapaxes(0, 1).reshape(20, 32, 32, 3))
    grey = Image.fromarray(pixels[0, 0, :, :, 0])
    grey.save(folder / "test/airplane/0000.png")
    np.testing.assert_array_equal(read_cifar(folder, "test").images[0], np.stack([pixels[0, 0, :, :, 0]] * 3))
    with pytest.raises(DataError, match="does not hold CIFAR-10"):
        read_cifar(folder, "train")


def test_damaged_folders_of_image_files(pictures):
    folder, pixels = pictures
    first = folder / "test/bird/0000.png"
    content = first.read_bytes()
    for broken in (b"", b"text", content[:-100], content[:40] + b"\xff" * 40 + content[80:]):
        first.write_bytes(broken)
        with pytest.raises(DataError, match=r"bird.0000\.png cannot be read as an image"):
            read_cifar(folder, "test")
    Image.fromarray(pixels[0, 0, :28]).save(first)
    with pytest.raises(DataError, match="has 32×28 pixels, expected 32×32"):
        read_cifar(folder, "test")
    for path in first.parent.glob("*.png"):
        path.unlink()
    with pytest.raises(DataError, match=r"bird holds no image"):
        read_cifar(folder, "test")
    (first.parent / "notes.txt").unlink()
    first.parent.rmdir()
    with pytest.raises(DataError, match=r"has no folder 'bird'.*airplane, automobile"):
        read_cifar(folder, "test")
