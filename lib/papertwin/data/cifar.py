"""CIFAR-10 and CIFAR-100 from their archives, or from folders of image files.

A. Krizhevsky: Learning multiple layers of features from tiny images. 2009. They come as Python pickles, which may run
code when loaded: ours admits arrays, bytes and plain containers and nothing else. Classes of CIFAR-100 are its 100 fine
ones.
"""

import io
import pickle
import tarfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from papertwin import files
from papertwin.data import registry
from papertwin.errors import DataError
from papertwin.words import listed

SHAPE = (3, 32, 32)
TEN = "airplane automobile bird cat deer dog frog horse ship truck"
HUNDRED = """
apple aquarium_fish baby bear beaver bed bee beetle bicycle bottle bowl boy bridge bus butterfly camel can castle
caterpillar cattle chair chimpanzee clock cloud cockroach couch crab crocodile cup dinosaur dolphin elephant
flatfish forest fox girl hamster house kangaroo keyboard lamp lawn_mower leopard lion lizard lobster man maple_tree
motorcycle mountain mouse mushroom oak_tree orange orchid otter palm_tree pear pickup_truck pine_tree plain plate
poppy porcupine possum rabbit raccoon ray road rocket rose sea seal shark shrew skunk skyscraper snail snake spider
squirrel streetcar sunflower sweet_pepper table tank telephone television tiger tractor train trout tulip turtle
wardrobe whale willow_tree wolf woman worm
"""
PICTURES = {".jpg", ".jpeg", ".png"}
Read = tuple[np.ndarray, np.ndarray]  # images (n, 3, 32, 32) uint8, labels (n,) int64


@dataclass(frozen=True)
class Set:
    """What the files of one of the two sets are called and hold.

    Attributes:
        title: as people call it.
        archive: the file that its authors give out, its Python version.
        sha256: of the archive.
        batches: the folder inside the archive.
        parts: split → files in that folder.
        key: of the labels in such a file.
        classes: their names; a label is a row.
    """

    title: str
    archive: str
    sha256: str
    batches: str
    parts: dict[str, tuple[str, ...]]
    key: bytes
    classes: tuple[str, ...]


SETS = {
    "cifar10": Set(
        title="CIFAR-10",
        archive="cifar-10-python.tar.gz",
        sha256="6d958be074577803d12ecdefd02955f39262c83c16fe9348329d7fe0b5c001ce",
        batches="cifar-10-batches-py",
        parts={"train": tuple(f"data_batch_{k}" for k in range(1, 6)), "test": ("test_batch",)},
        key=b"labels",
        classes=tuple(TEN.split()),
    ),
    "cifar100": Set(
        title="CIFAR-100",
        archive="cifar-100-python.tar.gz",
        sha256="85cd44d02ba6437773c5bbd22e183051d648de2e7d6b014e1ef29b855ba677a7",
        batches="cifar-100-python",
        parts={"train": ("train",), "test": ("test",)},
        key=b"fine_labels",
        classes=tuple(HUNDRED.split()),
    ),
}


def read_cifar(folder: Path, split: str, name: str = "cifar10") -> Read:
    """Read CIFAR-10 or CIFAR-100 in the form in which a folder holds it.

    Args:
        folder: holds the archive, cifar-10-python.tar.gz or cifar-100-python.tar.gz, or what is unpacked from it (or is
            that folder), or image files train/<class>/*.png (or jpg) and test/<class>/…; the first found is taken.
        split: train or test.
        name: of `SETS`.

    Returns:
        Images (n, 3, 32, 32) uint8 and labels (n,) int64, in the order of the files; image files are dealt out class by
        class in turn.

    Raises:
        DataError: none of these is there, or a file is damaged; the archive must have its known sha256.
        DataError: no such set or split.
    """
    for word, known in ((name, SETS), (split, SETS["cifar10"].parts)):
        if word not in known:
            raise DataError(f"CIFAR has no {word!r}; choose {listed(known, 'or')}.")
    folder, kind = Path(folder), SETS[name]
    if (archive := folder / kind.archive).is_file():
        return _from_archive(archive, split, kind, name)
    for place in (folder / kind.batches, folder):
        if (place / kind.parts[split][0]).is_file():
            parts = [place / part for part in kind.parts[split]]
            return _join([read_batch(_opened(path, kind), str(path), kind) for path in parts])
    if (folder / split).is_dir():
        return _from_pictures(folder / split, kind)
    raise DataError(
        f"{folder} does not hold {kind.title}: expected {kind.archive}, or {kind.batches}/ unpacked from it, or image "
        f"files in {split}/<class>/. Get it from {registry.describe(name).url}."
    )


def read_batch(stream: BinaryIO, name: str, kind: Set = SETS["cifar10"]) -> Read:
    """Read one pickled batch without running any code that it may hold.

    Args:
        stream: the pickle.
        name: how error messages call it.
        kind: of which set.

    Returns:
        images (n, 3, 32, 32) uint8 and labels (n,) int64.

    Raises:
        DataError: damaged, no batch of that set, or it wants to call something else than NumPy's array.
    """
    key = kind.key.decode()
    try:
        batch = _ArraysOnly(stream, encoding="bytes").load()
        data, labels = np.asarray(batch[b"data"]), np.asarray(batch[kind.key], dtype=np.int64)
        pictures = data.reshape(len(labels), *SHAPE)
    except DataError as error:
        raise DataError(f"{name}: {error}") from error
    except Exception as error:  # a damaged pickle may raise almost anything
        raise DataError(
            f"{name} is no batch of {kind.title} ({type(error).__name__}: {error}): expected a pickled dictionary with "
            f"the keys data, n × 3072 bytes, and {key}, n numbers. Get it again."
        ) from error
    if data.dtype != np.uint8 or not np.isin(labels, np.arange(len(kind.classes))).all():
        raise DataError(
            f"{name}: expected bytes and {key} from 0 to {len(kind.classes) - 1}, got {data.dtype} and "
            f"{np.unique(labels)[:12]}."
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


def _opened(path: Path, kind: Set) -> BinaryIO:
    try:
        return io.BytesIO(path.read_bytes())
    except OSError as error:
        raise DataError(f"Cannot read {path}: {error.strerror}. Unpack {kind.archive} again.") from error


def _from_archive(path: Path, split: str, kind: Set, name: str) -> Read:
    if (found := files.sha256(path)) != kind.sha256:
        raise DataError(
            f"{path} is not the official archive: its sha256 is {found}, expected {kind.sha256}. "
            f"Get it again from {registry.describe(name).url}."
        )
    batches = []
    with tarfile.open(path) as archive:
        for part in kind.parts[split]:
            member = f"{kind.batches}/{part}"
            try:
                stream = archive.extractfile(member)
            except KeyError as error:
                raise DataError(f"{path} holds no {member}; get it again.") from error
            batches.append(read_batch(stream, f"{path}, {member}", kind))
    return _join(batches)


def _join(batches: list[Read]) -> Read:
    pictures, labels = (np.concatenate(parts) for parts in zip(*batches))
    return pictures, labels


def _from_pictures(folder: Path, kind: Set) -> Read:
    found = []
    for label, name in enumerate(kind.classes):
        if not (folder / name).is_dir():
            raise DataError(
                f"{folder} has no folder {name!r}: expected one folder of images for each class, "
                f"{', '.join(kind.classes)}."
            )
        paths = sorted(path for path in (folder / name).iterdir() if path.suffix.lower() in PICTURES)
        if not paths:
            raise DataError(
                f"{folder / name} holds no image: expected files that end in {', '.join(sorted(PICTURES))}."
            )
        found += [(place, label, path) for place, path in enumerate(paths)]
    found.sort(key=lambda entry: entry[:2])
    pictures = np.stack([_picture(path) for _, _, path in found])
    return pictures, np.array([label for _, label, _ in found], dtype=np.int64)


def _picture(path: Path) -> np.ndarray:
    """Read an image file as (3, 32, 32) uint8."""
    from PIL import Image

    try:
        with Image.open(path) as image:
            pixels = np.asarray(image.convert("RGB"))
    except (OSError, ValueError, SyntaxError) as error:  # Pillow raises SyntaxError on a broken PNG
        raise DataError(f"{path} cannot be read as an image: {error}. Copy it again.") from error
    if pixels.shape != (*SHAPE[1:], SHAPE[0]):
        raise DataError(f"{path} has {pixels.shape[1]}×{pixels.shape[0]} pixels, expected 32×32.")
    return pixels.transpose(2, 0, 1)
