"""Rebuild data/airborne: one tile of a real airborne LIDAR survey with class codes.

What:     tile.npz with `points` (n, 3) float32, relative to the tile's lower corner; `offset` (3,) float64,
          that corner in the survey's coordinates; `classification` (n,) uint8, ASPRS codes; `unit`, the linear
          unit that the file's coordinate system names.
From:     a test file in the source archive of the Python package laspy 2.7.0.
Licence:  BSD-2-Clause, copyright the laspy authors; the notice is copied to data/airborne/LICENSE.
Run:      python data/prepare/airborne.py [--archive laspy-2.7.0.tar.gz]      (needs laspy to read the file)

The arrays are the same on every machine; the bytes of the npz file also depend on the zlib in use.
"""

import re
import shutil
from pathlib import Path

import numpy as np
from common import DATA, archive_argument, register, sha256, unpacked

REQUIREMENT = "laspy==2.7.0"
SHA256 = "f56feb5445e75d6ff12ee814aab6a35339290e75264ff277c6bf553f3025a3f5"
TILE = "laspy-2.7.0/tests/data/file_with_both_wkt_and_geotiff_vlrs.las"
UNITS = {"Foot_US": "US survey foot"}
ABOUT = {
    "title": "One tile of an airborne LIDAR survey, with class codes",
    "kind": "vendored",
    "licence": "BSD-2-Clause",
    "notice": "airborne/LICENSE",
    "origin": f"PyPI sdist laspy 2.7.0, {TILE.partition('/')[2]}, sha256 of the archive {SHA256}",
    "prepare": "prepare/airborne.py",
    "note": "Real survey. Coordinates in US survey feet, not metres.",
}


def read(path: Path) -> dict[str, np.ndarray]:
    """Read a LAS file into the arrays of the tile.

    Raises:
        SystemExit: laspy is missing, or the file's coordinate system has an unexpected linear unit.
    """
    try:
        import laspy
    except ImportError as error:
        raise SystemExit(f"This script needs laspy to read the tile ({error}): pip install laspy") from error
    las = laspy.read(path)
    wkt = next(vlr.string for vlr in las.header.vlrs if isinstance(vlr, laspy.vlrs.known.WktCoordinateSystemVlr))
    unit = re.findall(r'UNIT\["([^"]+)"', wkt)[-1]
    if unit not in UNITS:
        raise SystemExit(f"{path.name}: the linear unit is {unit!r}, expected one of {sorted(UNITS)}")
    points = np.asarray(las.xyz, dtype=np.float64)
    offset = points.min(axis=0)
    return {
        "points": (points - offset).astype(np.float32),
        "classification": np.asarray(las.classification, dtype=np.uint8),
        "offset": offset,
        "unit": np.array(UNITS[unit]),
    }


def main() -> None:
    """Convert the tile, copy the notice, register the file."""
    folder = DATA / "airborne"
    folder.mkdir(exist_ok=True)
    target = folder / "tile.npz"
    with unpacked(REQUIREMENT, SHA256, archive_argument(__doc__), source=True) as archive:
        print(f"{Path(TILE).name}: sha256 {sha256(archive / TILE)}")
        arrays = read(archive / TILE)
        np.savez_compressed(target, **arrays)
        shutil.copyfile(archive / "laspy-2.7.0/LICENSE.txt", folder / "LICENSE")
    register("airborne", ABOUT, [target])


if __name__ == "__main__":
    main()
