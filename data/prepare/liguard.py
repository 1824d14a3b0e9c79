"""Rebuild data/liguard: five simulated LIDAR frames with exact boxes, in the KITTI folder layout.

What:     velodyne/NNNNNN.bin (x, y, z, intensity as float32), label_2/NNNNNN.txt, calib/NNNNNN.txt; the files
          are byte for byte those of the package, only the folders are renamed to KITTI's names.
From:     the example in the wheel of the Python package liguard 2.1.5.post3 (unzipped, never installed).
Licence:  MIT, copyright Muhammad Shahbaz; the notice is copied to data/liguard/LICENSE.
Run:      python data/prepare/liguard.py [--archive liguard-2.1.5.post3-py3-none-any.whl]
"""

import shutil

from common import DATA, archive_argument, register, unpacked

REQUIREMENT = "liguard==2.1.5.post3"
SHA256 = "7662fc4edd33e184e61e6acc8f9aeecc30b69e4c0ff25a610eb5335231f5e7e8"
EXAMPLE = "liguard/examples/simple_pipeline/dataset"
NOTICE = "liguard-2.1.5.post3.dist-info/licenses/LICENSE.txt"
FRAMES = 5
FOLDERS = {"pointclouds": ("velodyne", "bin"), "labels": ("label_2", "txt"), "calibs": ("calib", "txt")}
ABOUT = {
    "title": "Five simulated LIDAR frames with exact boxes",
    "kind": "vendored",
    "licence": "MIT",
    "notice": "liguard/LICENSE",
    "origin": f"PyPI wheel liguard 2.1.5.post3, {EXAMPLE}, sha256 of the archive {SHA256}",
    "prepare": "prepare/liguard.py",
    "note": "SIMULATED. KITTI folder layout, but the label sizes are in the order height, length, width "
    "(KITTI: height, width, length); see liguard/README.md.",
}


def main() -> None:
    """Copy the frames and the notice, register the files."""
    folder = DATA / "liguard"
    files = []
    with unpacked(REQUIREMENT, SHA256, archive_argument(__doc__), source=False) as wheel:
        for origin, (name, suffix) in FOLDERS.items():
            (folder / name).mkdir(parents=True, exist_ok=True)
            for frame in range(FRAMES):
                target = folder / name / f"{frame:06d}.{suffix}"
                shutil.copyfile(wheel / EXAMPLE / origin / target.name, target)
                files.append(target)
        shutil.copyfile(wheel / NOTICE, folder / "LICENSE")
    register("liguard", ABOUT, files)


if __name__ == "__main__":
    main()
