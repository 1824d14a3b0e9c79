"""Labelled image sets: MNIST and Fashion-MNIST from idx files; CIFAR-10 and CIFAR-100 by `papertwin.data.cifar`.

An idx file is a magic number (two zero bytes, a type code, 8 for unsigned bytes, and the number of dimensions), one
big-endian 32-bit length a dimension, then the values.

    >>> train = load_images("mnist", "train")
    >>> train.images.shape, train.scaled([0]).max().item()
    ((60000, 1, 28, 28), 1.0)
"""

import gzip
import math
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from papertwin.data import cifar, registry
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
Rows = Sequence[int] | np.ndarray | slice


@dataclass(frozen=True)
class About:
    """What is known of an image set before it is read.

    Attributes:
        title: as people call it.
        channels: of an image.
        side: pixels of an image, which is square.
        classes: how many.
        train: images to train on.
        test: images for test.
    """

    title: str
    channels: int
    side: int
    classes: int
    train: int
    test: int


ABOUT = {
    "fashion_mnist": About("Fashion-MNIST", 1, 28, len(IDX_SETS["fashion_mnist"]), 60_000, 10_000),
    "mnist": About("MNIST", 1, 28, len(IDX_SETS["mnist"]), 60_000, 10_000),
    **{
        name: About(kind.title, *cifar.SHAPE[:2], len(kind.classes), 50_000, 10_000)
        for name, kind in cifar.SETS.items()
    },
}


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
        name: mnist, fashion_mnist, or cifar10 or cifar100, which the user brings (see the README on optional data).
        split: train or test.

    Returns:
        The images in the order of the files. CIFAR from a folder of image files is dealt out class by class in turn, so
        that the first rows hold every class.

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
    if name in cifar.SETS:
        return Images(*cifar.read_cifar(registry.folder(name), split, name), cifar.SETS[name].classes)
    raise DataError(f"No image set {name!r}: expected one of {', '.join((*IDX_SETS, *cifar.SETS))}.")


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
