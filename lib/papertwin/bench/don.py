"""Normals within a radius: ours against Open3D on real street scans, then ours alone on 1 and 10 million points.

Both sides compute the same: the axis of least variance of all points within the radius of each point, tree building
included, on the same processors, one after the other. Open3D: `PointCloud.estimate_normals` with
`KDTreeSearchParamRadius` (https://www.open3d.org). A point is well-conditioned when its two smaller eigenvalues
differ by at least 1 % of the largest; `agree %` is the share of those within 0.01°, `mean n` the mean number of
neighbours. Clouds of millions of points are the scans laid side by side, 1 km apart at most and never
overlapping; each runs in a process of its own, whose peak memory is reported.
"""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from statistics import median
from typing import Any

import numpy as np

from papertwin import machine
from papertwin.bench import BenchResult, Progress
from papertwin.data import registry
from papertwin.errors import DataError, RunError
from papertwin.points import normals, read_cloud
from papertwin.training.device import thread_count

SCENES = ("junction", "residential", "avenue", "roadside")
RADII = (0.4, 4.0)
MILLIONS = (1, 10)
REPEATS = 5
PATIENCE = 3.0  # seconds of the peer's first run beyond which it is not repeated
TILE = 500.0  # metres from one scan to the next: the scans are at most 450 m wide
WELL, ANGLE = 0.01, 0.01  # eigenvalue gap of a well-conditioned point; degrees within which normals agree
GOAL = 20.0


def run(progress: Progress) -> BenchResult:
    """Measure everything; at most six minutes on two cores.

    Raises:
        DataError: a scan is missing or corrupted.
        RunError: Open3D cannot be loaded.
        RunError: a process with a large cloud failed.
    """
    scans = {name: _scan(name) for name in SCENES}
    steps = len(SCENES) * len(RADII) + len(MILLIONS) * len(RADII)
    rows = []
    progress("compiling", 0.0)
    normals(scans[SCENES[0]][:1000], 1.0)
    for scene, points in scans.items():
        for radius in RADII:
            progress(f"{scene}, radius {radius:g} m: ours and Open3D", len(rows) / steps)
            rows.append(_compare(scene, points, radius))
    for million in MILLIONS:
        for radius in RADII:
            progress(f"{million} million points, radius {radius:g} m: ours", len(rows) / steps)
            rows.append(_alone(million, radius))
    progress("done", 1.0)
    ratios = [row["ratio"] for row in rows if row["r (m)"] == max(RADII) and row.get("ratio")]
    figure = f"smallest ratio Open3D / ours over {len(SCENES)} real scans at radius {max(RADII):g} m"
    headline = {"figure": figure, "ratio": round(min(ratios), 1), "goal": GOAL}
    return BenchResult("don", machine.describe(), thread_count(), rows, headline)


def _scan(name: str) -> np.ndarray:
    return read_cloud(registry.path("street", f"street/{name}.npz")).points.astype(np.float64)


def _compare(scene: str, points: np.ndarray, radius: float) -> dict[str, Any]:
    """Time both sides in turn and compare their normals."""
    from papertwin.points.open3d_loader import open3d

    module = open3d()
    cloud = module.geometry.PointCloud(module.utility.Vector3dVector(points))
    search = module.geometry.KDTreeSearchParamRadius(radius)
    ours, theirs = [], []
    while len(ours) < REPEATS and (not theirs or theirs[0] < PATIENCE):
        seconds, found = _timed(lambda: normals(points, radius))
        ours.append(seconds)
        theirs.append(_timed(lambda: cloud.estimate_normals(search))[0])
    while len(ours) < REPEATS:
        ours.append(_timed(lambda: normals(points, radius))[0])
    well = found.gap >= WELL
    sine = np.linalg.norm(np.cross(found.vectors[well], np.asarray(cloud.normals)[well]), axis=1)
    agree = np.degrees(np.arcsin(np.minimum(sine, 1.0))) <= ANGLE
    return {
        "cloud": scene,
        "r (m)": radius,
        "mean n": round(float(found.counts.mean())),
        "ours s": round(median(ours), 4),
        "Open3D s": round(median(theirs), 3),
        "ratio": round(median(theirs) / median(ours), 2),
        "agree %": round(100.0 * float(agree.mean()), 4),
        "M points/s": round(len(points) / median(ours) / 1e6, 3),
        "details": {"points": len(points), "well-conditioned %": round(100.0 * float(well.mean()), 3)},
    }


def _timed(work: Callable[[], Any]) -> tuple[float, Any]:
    start = time.perf_counter()
    result = work()
    return time.perf_counter() - start, result


def _alone(million: int, radius: float) -> dict[str, Any]:
    """Measure a large cloud in a process of its own."""
    command = [sys.executable, "-m", "papertwin.bench.don", str(million * 1_000_000), str(radius)]
    environment = os.environ | {"NUMBA_NUM_THREADS": str(thread_count())}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    if done.returncode != 0:
        raise RunError(
            f"The process with {million} million points at radius {radius:g} m ended with code {done.returncode} "
            f"(negative: killed, often for lack of memory). Its last words:\n{done.stderr[-1000:]}"
        )
    return json.loads(done.stdout.splitlines()[-1])


def side_by_side(count: int) -> np.ndarray:
    """(count, 3) float64: the scans repeated on a square grid of tiles, cut after `count` points."""
    scans = [_scan(name) for name in SCENES]
    if not all(len(scan) for scan in scans):
        raise DataError("A street scan is empty; restore data/street with `git checkout data/street`.")
    tiles, total = [], 0
    while total < count:
        tiles.append(scans[len(tiles) % len(scans)])
        total += len(tiles[-1])
    columns = int(np.ceil(np.sqrt(len(tiles))))
    cloud, filled = np.empty((count, 3)), 0
    for number, tile in enumerate(tiles):
        part = cloud[filled : filled + len(tile)]
        corner = np.array([TILE * (number % columns), TILE * (number // columns), 0.0])
        part[:] = tile[: len(part)] + corner
        filled += len(part)
    return cloud


def _main(count: int, radius: float) -> None:
    """Body of the process of its own: print one row as JSON."""
    points = side_by_side(count)
    normals(points[:1000], radius)
    seconds, found = _timed(lambda: normals(points, radius))
    row = {
        "cloud": f"{count // 1_000_000} M points",
        "r (m)": radius,
        "mean n": round(float(found.counts.mean())),
        "ours s": round(seconds, 3),
        "M points/s": round(count / seconds / 1e6, 3),
        "peak GiB": round(machine.peak_memory() / 2**30, 2),
    }
    print(json.dumps(row))


if __name__ == "__main__":
    _main(int(sys.argv[1]), float(sys.argv[2]))
