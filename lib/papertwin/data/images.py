"""Labelled image sets: MNIST and Fashion-MNIST from idx files, CIFAR-10 from its archive or a folder of image files.

An idx file is a magic number (two zero bytes, a type code, 8 for unsigned bytes, and the number of dimensions), one
big-endian 32-bit length a dimension, then the values. CIFAR-10 (A. Krizhevsky: Learning multiple layers of features
from tiny images. 2009) comes as Python pickles, which may run code when loaded: ours admits arrays, bytes and plain
containers and nothing else.

    >>> train = load_images("mnist", "train")
    >>> train.images.shape, train.scaled([0]).max().item()
    ((60000, 1, 28, 28), 1.0)
"""

import gzip
import io
import math
import pickle
import tarfile
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from papertwin import files
from papertwin.data import registry
from papertwin.errors import DataError, InputError

# name → names of the classes; a set in the idx format needs a row here and its files in the registry
IDX_SETS = {
    "mnist": tuple("0123456789"),
    "fashion_mnist": (
        "T-shirt/top", "trouser", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "ankle boot",
    ),
}  # fmt: skip
IDX_STEMS = {"train": "train", "test": "t10k"}
SPLITS = ("train", "test")
UNSIGNED_BYTE = 8
CIFAR = "cifar10"
CIFAR_CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
CIFAR_ARCHIVE = "cifar-10-python.tar.gz"
CIFAR_SHA256 = "6d958be074577803d12ecdefd02955f39262c83c16fe9348329d7fe0b5c001ce"
CIFAR_BATCHES = "cifar-10-batches-py"
CIFAR_PARTS = {"train": tuple(f"data_batch_{k}" for k in range(1, 6)), "test": ("test_batch",)}
CIFAR_SHAPE = (3, 32, 32)
PICTURES = {".jpg", ".jpeg", ".png"}

Rows = Sequence[int] | np.ndarray | slice


@dataclass(frozen=True)
class Images:
    """Images and what they show.

    Attributes:
        images: (n, c, h, w) uint8, 0 to 255.
        labels: (n,) int64, rows of `classes`.
        classes: names of the classes.
    """

    images: np.ndarray
    labels: np.ndarray
    classes: tuple[str, ...]

    def __post_init__(self) -> None:
        """Check shapes and types.

        Raises:
            InputError: they do not fit each other; the message names the field.
        """
        if self.images.dtype != np.uint8 or self.images.ndim != 4:
            raise InputError(
                f"images must be uint8 of shape (n, c, h, w), got {self.images.dtype} of shape {self.images.shape}."
            )
        if self.labels.dtype != np.int64 or self.labels.shape != self.images.shape[:1]:
            raise InputError(
                f"labels must be int64, one for each of {len(self.images)} images, "
                f"got {self.labels.dtype} of shape {self.labels.shape}."
            )
        if len(self.labels) and not 0 <= self.labels.min() <= self.labels.max() < len(self.classes):
            raise InputError(
                f"labels must lie from 0 to {len(self.classes) - 1}, the rows of `classes`; "
                f"got {self.labels.min()} to {self.labels.max()}."
            )

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self.images)

    def scaled(self, rows: Rows | None = None) -> np.ndarray:
        """Return images as networks take them: (n, c, h, w) float32 in [0, 1]; all, or those of some rows."""
        chosen = self.images if rows is None else self.images[rows]
        return chosen.astype(np.float32) / np.float32(255)

    def take(self, rows: Rows) -> "Images":
        """Return the images of some rows, in that order, with their labels."""
        return Images(self.images[rows], self.labels[rows], self.classes)


def load_images(name: str, split: str) -> Images:
    """Load one split of an image set.

    Args:
        name: mnist, fashion_mnist, or cifar10, which the user brings (see the repository's README on optional data).
        split: train or test.

    Returns:
        The images in the order of the files. CIFAR-10 from a folder of image files is dealt out class by class in
        turn, so that the first rows hold every class.

    Raises:
        DataError: unknown set or split, absent optional set, or a damaged file.
    """
    if split not in SPLITS:
        raise DataError(f"No split {split!r}: expected {' or '.join(SPLITS)}.")
    if name in IDX_SETS:
        stem = IDX_STEMS[split]
        pictures = read_idx(registry.path(name, f"{name}/{stem}-images-idx3-ubyte.gz"), dimensions=3)
        labels = read_idx(registry.path(name, f"{name}/{stem}-labels-idx1-ubyte.gz"), dimensions=1)
        return Images(pictures[:, None], labels.astype(np.int64), IDX_SETS[name])
    if name == CIFAR:
        return read_cifar(registry.folder(CIFAR), split)
    raise DataError(f"No image set {name!r}: expected one of {', '.join((*IDX_SETS, CIFAR))}.")


def read_idx(path: Path, dimensions: int) -> np.ndarray:
    """Read an idx file of unsigned bytes.

    Args:
        path: the file; gzip if its name ends in .gz.
        dimensions: expected number of dimensions, 3 for images, 1 for labels.

    Returns:
        uint8 array of that many dimensions.

    Raises:
        DataError: missing, damaged, of another type or number of dimensions, truncated, or too long.
    """
    path = Path(path)
    try:
        content = path.read_bytes()
        content = gzip.decompress(content) if path.suffix == ".gz" else content
    except (EOFError, zlib.error, OSError) as error:
        raise DataError(f"Cannot read {path}: {error}. It is missing or damaged; get it again.") from error
    expected = (UNSIGNED_BYTE << 8) + dimensions
    if (magic := int.from_bytes(content[:4], "big")) != expected:
        raise DataError(
            f"{path} is not an idx file of unsigned bytes in {dimensions} dimensions: its magic number is {magic}, "
            f"expected {expected} (2051 for images, 2049 for labels). Were the two files swapped?"
        )
    start = 4 + 4 * dimensions
    shape = [int.from_bytes(content[at : at + 4], "big") for at in range(4, start, 4)]
    if len(content) != (due := start + math.prod(shape)):
        raise DataError(
            f"{path} holds {len(content):,} bytes, expected {due:,} for the shape {tuple(shape)} in its header: "
            "it was truncated or damaged; get it again."
        )
    return np.frombuffer(content, np.uint8, offset=start).reshape(shape)


def read_cifar(folder: Path, split: str) -> Images:
    """Read CIFAR-10 in the form in which a folder holds it.

    Args:
        folder: holds cifar-10-python.tar.gz, or cifar-10-batches-py/ unpacked from it (or is that folder), or image
            files train/<class>/*.png (or jpg) and test/<class>/…; the first found is taken.
        split: train or test.

    Raises:
        DataError: none of these is there, or a file is damaged; the archive must have its known sha256.
    """
    folder = Path(folder)
    if (archive := folder / CIFAR_ARCHIVE).is_file():
        return _cifar_from_archive(archive, split)
    for place in (folder / CIFAR_BATCHES, folder):
        if (place / CIFAR_PARTS[split][0]).is_file():
            return _join([read_batch(_opened(place / part), str(place / part)) for part in CIFAR_PARTS[split]])
    if (folder / split).is_dir():
        return _cifar_from_pictures(folder / split)
    raise DataError(
        f"{folder} does not hold CIFAR-10: expected {CIFAR_ARCHIVE}, or {CIFAR_BATCHES}/ unpacked from it, or image "
        f"files in {split}/<class>/. Get it from {registry.describe(CIFAR).url}."
    )


def read_batch(stream: BinaryIO, name: str) -> tuple[np.ndarray, np.ndarray]:
    """Read one pickled batch of CIFAR-10 without running any code that it may hold.

    Args:
        stream: the pickle.
        name: how error messages call it.

    Returns:
        images (n, 3, 32, 32) uint8 and labels (n,) int64.

    Raises:
        DataError: damaged, no CIFAR-10 batch, or it wants to call something else than NumPy's array.
    """
    try:
        batch = _ArraysOnly(stream, encoding="bytes").load()
        data, labels = np.asarray(batch[b"data"]), np.asarray(batch[b"labels"], dtype=np.int64)
        pictures = data.reshape(len(labels), *CIFAR_SHAPE)
    except DataError as error:
        raise DataError(f"{name}: {error}") from error
    except Exception as error:  # a damaged pickle may raise almost anything
        raise DataError(
            f"{name} is no batch of CIFAR-10 ({type(error).__name__}: {error}): expected a pickled dictionary with "
            "the keys data, n × 3072 bytes, and labels, n numbers. Get it again."
        ) from error
    if data.dtype != np.uint8 or not np.isin(labels, np.arange(len(CIFAR_CLASSES))).all():
        raise DataError(
            f"{name}: expected bytes and labels from 0 to 9, got {data.dtype} and {np.unique(labels)[:12]}."
        )
    return pictures, labels


class _ArraysOnly(pickle.Unpickler):
    """An unpickler that knows NumPy's array and data type, and no other class or function."""

    def find_class(self, module: str, name: str) -> Any:
        """Return the class or function that a pickle asks for, if it is one of the few that arrays need."""
        if (module, name) == ("_codecs", "encode"):
            return _latin1  # how Python 3 writes bytes in the old protocols
        if module in ("numpy.core.multiarray", "numpy._core.multiarray") and name == "_reconstruct":
            return np._core.multiarray._reconstruct
        if module == "numpy" and name in ("ndarray", "dtype"):
            return getattr(np, name)
        raise DataError(
            f"the pickle asks for {module}.{name}, and only NumPy arrays are admitted. Do not open it by other "
            "means: it may run code. Get the file from its official address."
        )


def _latin1(text: str, encoding: str) -> bytes:
    if encoding != "latin1":
        raise DataError(f"the pickle holds bytes in the encoding {encoding!r}, expected latin1.")
    return text.encode(encoding)


def _opened(path: Path) -> BinaryIO:
    try:
        return io.BytesIO(path.read_bytes())
    except OSError as error:
        raise DataError(f"Cannot read {path}: {error.strerror}. Unpack {CIFAR_ARCHIVE} again.") from error


def _cifar_from_archive(path: Path, split: str) -> Images:
    if (found := files.sha256(path)) != CIFAR_SHA256:
        raise DataError(
            f"{path} is not the official archive: its sha256 is {found}, expected {CIFAR_SHA256}. "
            f"Get it again from {registry.describe(CIFAR).url}."
        )
    batches = []
    with tarfile.open(path) as archive:
        for part in CIFAR_PARTS[split]:
            member = f"{CIFAR_BATCHES}/{part}"
            try:
                stream = archive.extractfile(member)
            except KeyError as error:
                raise DataError(f"{path} holds no {member}; get it again.") from error
            batches.append(read_batch(stream, f"{path}, {member}"))
    return _join(batches)


def _join(batches: list[tuple[np.ndarray, np.ndarray]]) -> Images:
    pictures, labels = (np.concatenate(parts) for parts in zip(*batches))
    return Images(pictures, labels, CIFAR_CLASSES)


def _cifar_from_pictures(folder: Path) -> Images:
    found = []
    for label, name in enumerate(CIFAR_CLASSES):
        if not (folder / name).is_dir():
            raise DataError(
                f"{folder} has no folder {name!r}: expected one folder of images for each class, "
                f"{', '.join(CIFAR_CLASSES)}."
            )
        paths = sorted(path for path in (folder / name).iterdir() if path.suffix.lower() in PICTURES)
        if not paths:
            raise DataError(
                f"{folder / name} holds no image: expected files that end in {', '.join(sorted(PICTURES))}."
            )
        found += [(place, label, path) for place, path in enumerate(paths)]
    found.sort(key=lambda entry: entry[:2])
    pictures = np.stack([_picture(path) for _, _, path in found])
    return Images(pictures, np.array([label for _, label, _ in found], dtype=np.int64), CIFAR_CLASSES)


def _picture(path: Path) -> np.ndarray:
    """Read an image file as (3, 32, 32) uint8."""
    from PIL import Image

    try:
        with Image.open(path) as image:
            pixels = np.asarray(image.convert("RGB"))
    except (OSError, ValueError, SyntaxError) as error:  # Pillow raises SyntaxError on a broken PNG
        raise DataError(f"{path} cannot be read as an image: {error}. Copy it again.") from error
    if pixels.shape != (*CIFAR_SHAPE[1:], CIFAR_SHAPE[0]):
        raise DataError(f"{path} has {pixels.shape[1]}×{pixels.shape[0]} pixels, expected 32×32.")
    return pixels.transpose(2, 0, 1)
