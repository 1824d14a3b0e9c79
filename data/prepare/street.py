"""Rebuild data/street: four real street scans of 128-beam Ouster sensors.

What:     one scan each of an OS-1 (junction), OS-0 (residential, roadside) and OS-2 (avenue), as npz with
          `points` (n, 3) float32, metres, sensor frame, row by row of the range image; `reflectivity` (n,)
          uint8; `unit`. Pixels without a return are left out. The sensor's mounting pose is not applied.
From:     test recordings in the source archive of the Python package ouster-sdk 0.16.2.
Licence:  BSD-3-Clause, copyright Ouster, Inc.; the notice is copied to data/street/LICENSE.
Untouched: boxes.csv (our own annotation, made by hand) is only registered here.

The decoder pins old versions of libraries that PaperTwin uses, so it wants an environment of its own:

    python -m venv decoder
    decoder/bin/pip install ouster-sdk==0.16.2
    decoder/bin/python data/prepare/street.py [--archive ouster_sdk-0.16.2.tar.gz]

The arrays are the same on every machine; the bytes of the npz files also depend on the zlib in use.
"""

import shutil
from pathlib import Path

import numpy as np
from common import DATA, archive_argument, register, unpacked

REQUIREMENT = "ouster-sdk==0.16.2"
SHA256 = "491825ccec829a93b2175b5781dc2d347bc0d77e707287da4f0594060a284fbf"
TESTS = "ouster_sdk-0.16.2/sdk/tests"
SCENES = {
    "junction": "osfs/OS-1-128_v2.3.0_1024x10_lb_n3.osf",  # three scans; the first is taken
    "residential": "osfs/single_scan_016.osf",
    "avenue": "pcaps/OS-2-128-U1_v2.3.0_1024x10.pcap",
    "roadside": "pcaps/OS-0-128-U1_v2.3.0_1024x10.pcap",
}
ABOUT = {
    "title": "Four street scans of 128-beam LIDAR sensors, with hand-made boxes",
    "kind": "vendored",
    "licence": "BSD-3-Clause",
    "notice": "street/LICENSE",
    "origin": f"PyPI sdist ouster-sdk 0.16.2, sdk/tests/{{osfs,pcaps}}, sha256 of the archive {SHA256}",
    "prepare": "prepare/street.py",
    "note": "Real scans, metres, sensor frame. No labels ship with them: boxes.csv is this repository's own "
    "annotation, see street/README.md.",
}


def decode(recording: Path) -> dict[str, np.ndarray]:
    """Decode the first scan of a recording into the arrays of a scene.

    Raises:
        SystemExit: the decoder is not installed in this environment.
    """
    try:
        from ouster.sdk import open_source
        from ouster.sdk.core import XYZLut
    except ImportError as error:
        raise SystemExit(
            f"This script needs {REQUIREMENT} to decode the recordings; it is not installed here ({error}).\n"
            "Make a separate environment for it, because it pins old libraries:\n"
            f"    python -m venv decoder\n    decoder/bin/pip install {REQUIREMENT}\n"
            "    decoder/bin/python data/prepare/street.py"
        ) from error
    scan = next(iter(open_source(str(recording))))[0]
    hit = scan.field("RANGE") > 0
    points = XYZLut(scan.sensor_info, use_extrinsics=False)(scan)[hit].astype(np.float32)
    reflectivity = scan.field("REFLECTIVITY")[hit]
    if reflectivity.max() > 255:
        raise SystemExit(f"{recording.name}: reflectivity up to {reflectivity.max()} does not fit 8 bits")
    return {"points": points, "reflectivity": reflectivity.astype(np.uint8), "unit": np.array("m")}


def main() -> None:
    """Decode the scenes, copy the notice, register the files."""
    folder = DATA / "street"
    folder.mkdir(exist_ok=True)
    files = [folder / f"{scene}.npz" for scene in SCENES]
    with unpacked(REQUIREMENT, SHA256, archive_argument(__doc__), source=True) as archive:
        for path, recording in zip(files, SCENES.values()):
            arrays = decode(archive / TESTS / recording)
            np.savez_compressed(path, **arrays)
            print(f"{path.name}: {len(arrays['points']):,} points")
        shutil.copyfile(archive / "ouster_sdk-0.16.2/sdk/LICENSE", folder / "LICENSE")
    boxes = folder / "boxes.csv"
    register("street", ABOUT, files + [boxes] * boxes.exists())


if __name__ == "__main__":
    main()
