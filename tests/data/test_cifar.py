"""CIFAR-10 and CIFAR-100 in each of their forms, and what is refused."""

import hashlib
import io
import os
import pickle
import struct
import tarfile
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from papertwin.data import registry
from papertwin.data.cifar import SETS, read_batch, read_cifar
from papertwin.data.images import load_images
from papertwin.errors import DataError

RNG = np.random.default_rng(0)


def batch_of(labels, key=b"labels"):
    data = RNG.integers(0, 256, (len(labels), 3072), dtype=np.uint8)
    other = {b"batch_label": b"a batch", b"coarse_labels": [0] * len(labels), b"filenames": [b"x"] * len(labels)}
    return data, other | {key: list(labels), b"data": data}


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


def make_batches(place, kind):
    place.mkdir(parents=True)
    made = {}
    for number, part in enumerate([*kind.parts["train"], *kind.parts["test"]]):
        labels = [number, len(kind.classes) - 1, number]
        data, batch = batch_of(labels, kind.key)
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


def check(place, made, name):
    kind = SETS[name]
    for split, parts in kind.parts.items():
        images, labels = read_cifar(place, split, name)
        np.testing.assert_array_equal(images, np.concatenate([made[part][0] for part in parts]))
        assert labels.tolist() == [label for part in parts for label in made[part][1]]


@pytest.mark.parametrize("name", SETS)
def test_a_set_is_read_from_its_batches_and_from_the_archive(tmp_path, monkeypatch, name):
    kind, folder = SETS[name], registry.describe(name).folder
    place = tmp_path / folder / kind.batches
    made = make_batches(place, kind)
    check(place, made, name)
    check(place.parent, made, name)
    monkeypatch.setenv("PAPERTWIN_DATA", str(tmp_path))
    loaded = load_images(name, "train")
    assert len(loaded) == 3 * len(kind.parts["train"])
    assert loaded.classes == kind.classes
    (tmp_path / "packed").mkdir()
    path = tmp_path / "packed" / kind.archive
    with tarfile.open(path, "w:gz") as archive:
        archive.add(place, place.name)
    with pytest.raises(DataError, match=f"not the official archive: its sha256 is .*, expected {kind.sha256}"):
        read_cifar(path.parent, "train", name)
    monkeypatch.setitem(SETS, name, replace(kind, sha256=hashlib.sha256(path.read_bytes()).hexdigest()))
    check(path.parent, made, name)
    if name == "cifar10":
        (place / "data_batch_4").unlink()
        with pytest.raises(DataError, match=r"Cannot read .*data_batch_4"):
            read_cifar(place, "train")


@pytest.mark.parametrize("name", SETS)
def test_an_absent_set_says_what_is_expected(tmp_path, monkeypatch, name):
    kind, folder = SETS[name], registry.describe(name).folder
    monkeypatch.setenv("PAPERTWIN_DATA", str(tmp_path))
    with pytest.raises(DataError, match=rf"(?s){name}.*{kind.archive}.*{kind.sha256}.*cs\.toronto\.edu"):
        load_images(name, "train")
    (tmp_path / folder).mkdir()
    (tmp_path / folder / "readme.txt").write_text("hello")
    with pytest.raises(DataError, match=rf"does not hold {kind.title}: expected {kind.archive}"):
        load_images(name, "train")


@pytest.mark.parametrize(
    ("split", "name", "choices"),
    [("train", "cifar", "cifar10 or cifar100"), ("check", "cifar100", "train or test")],
)
def test_an_unknown_set_or_split_is_refused_with_those_that_there_are(tmp_path, split, name, choices):
    with pytest.raises(DataError, match=f"^CIFAR has no '.*'; choose {choices}"):
        read_cifar(tmp_path, split, name)


def test_a_set_is_not_taken_for_the_other():
    ten, hundred = SETS["cifar10"], SETS["cifar100"]
    assert (len(set(ten.classes)), len(set(hundred.classes))) == (10, 100)
    assert [hundred.classes[place] for place in (0, 19, 51, 99)] == ["apple", "cattle", "mushroom", "worm"]
    _, batch = batch_of([99, 0], hundred.key)
    content = pickle.dumps(batch, protocol=2)
    assert read_batch(io.BytesIO(content), "it", hundred)[1].tolist() == [99, 0], "fine labels, not coarse ones"
    with pytest.raises(DataError, match=r"no batch of CIFAR-10 .*and labels"):
        read_batch(io.BytesIO(content), "it")
    _, batch = batch_of([100], hundred.key)
    with pytest.raises(DataError, match="fine_labels from 0 to 99"):
        read_batch(io.BytesIO(pickle.dumps(batch, protocol=2)), "it", hundred)


@pytest.fixture
def pictures(tmp_path):
    """Two image files a class, of known pixels; and the pixels, (class, place, 32, 32, 3)."""
    pixels = RNG.integers(0, 256, (10, 2, 32, 32, 3), dtype=np.uint8)
    for label, name in enumerate(SETS["cifar10"].classes):
        (tmp_path / "test" / name).mkdir(parents=True)
        for place in range(2):
            Image.fromarray(pixels[label, place]).save(tmp_path / "test" / name / f"{place:04d}.png")
        (tmp_path / "test" / name / "notes.txt").write_text("no image")
    return tmp_path, pixels


def test_cifar_from_image_files_deals_the_classes_out_in_turn(pictures):
    folder, pixels = pictures
    images, labels = read_cifar(folder, "test")
    assert labels.tolist() == [*range(10), *range(10)]
    np.testing.assert_array_equal(images.transpose(0, 2, 3, 1), pixels.swapaxes(0, 1).reshape(20, 32, 32, 3))
    grey = Image.fromarray(pixels[0, 0, :, :, 0])
    grey.save(folder / "test/airplane/0000.png")
    np.testing.assert_array_equal(read_cifar(folder, "test")[0][0], np.stack([pixels[0, 0, :, :, 0]] * 3))
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
