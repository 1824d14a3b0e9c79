"""Rebuild data/fashion_mnist: Fashion-MNIST, all 70,000 images, as the four gzipped idx files of the original.

What:     {train,t10k}-images-idx3-ubyte.gz and {train,t10k}-labels-idx1-ubyte.gz, byte for byte those of the package.
From:     the Debian package dataset-fashion-mnist (read as an archive, never installed).
Licence:  MIT (Debian calls it Expat); data/fashion_mnist/LICENSE, written by hand, keeps the notice.
Run:      python data/prepare/fashion_mnist.py [--archive FILE.deb]      (needs apt-get for the download)
"""

import io
import shutil
import subprocess
import tarfile
import tempfile
from pathlib import Path

from common import DATA, archive_argument, register, sha256

PACKAGE = "dataset-fashion-mnist=0.0~git20200523.55506a9-1"
SHA256 = "39e172fe32dd318ebb3e512220c3beea2fa47d7e20bab348fb4e0922d6beefc0"
FOLDER = "./usr/share/datasets/fashion-mnist"
NAMES = ("train-images-idx3-ubyte", "train-labels-idx1-ubyte", "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte")
ABOUT = {
    "title": "Fashion-MNIST: 70,000 pictures of clothes in ten classes",
    "kind": "vendored",
    "licence": "MIT",
    "notice": "fashion_mnist/LICENSE",
    "origin": f"Debian package {PACKAGE}, {FOLDER[1:]}, sha256 of the archive {SHA256}",
    "prepare": "prepare/fashion_mnist.py",
    "note": "60,000 training and 10,000 test images, 28×28, one byte a pixel, 0 background; 6,000 and 1,000 a class.",
}


def download(folder: Path) -> Path:
    """Fetch the package with apt-get.

    Raises:
        SystemExit: apt-get is not there or failed.
    """
    advice = "on Debian run `apt-get update` first; elsewhere download the .deb by hand and pass it with --archive."
    try:
        done = subprocess.run(["apt-get", "download", PACKAGE], cwd=folder, check=False)
    except FileNotFoundError as error:
        raise SystemExit(f"apt-get is needed to download {PACKAGE}: {advice}") from error
    if done.returncode:
        raise SystemExit(f"apt-get could not download {PACKAGE}: {advice}")
    return next(folder.glob("*.deb"))


def content(archive: Path) -> tarfile.TarFile:
    """Open the files of a Debian package: an ar archive (60-byte headers, size at 48) with one data.tar in it.

    Raises:
        SystemExit: another package, or none.
    """
    if (found := sha256(archive)) != SHA256:
        raise SystemExit(f"{archive} is not {PACKAGE}: its sha256 is {found}, expected {SHA256}.")
    data, at = archive.read_bytes(), len(b"!<arch>\n")
    while at < len(data):
        name, size = data[at : at + 16].decode().strip(), int(data[at + 48 : at + 58])
        if name.startswith("data.tar"):
            return tarfile.open(fileobj=io.BytesIO(data[at + 60 : at + 60 + size]))
        at += 60 + size + size % 2
    raise SystemExit(f"{archive} holds no data.tar.")


def main() -> None:
    """Fetch, copy and register the four files."""
    folder = DATA / "fashion_mnist"
    folder.mkdir(exist_ok=True)
    files = [folder / f"{name}.gz" for name in NAMES]
    with (
        tempfile.TemporaryDirectory(prefix="papertwin-prepare-") as temporary,
        content(archive_argument(__doc__) or download(Path(temporary))) as package,
    ):
        for target in files:
            with target.open("wb") as stream:
                shutil.copyfileobj(package.extractfile(f"{FOLDER}/{target.name}"), stream)
    register("fashion_mnist", ABOUT, files)


if __name__ == "__main__":
    main()
