"""Voxels: the cells of a grid that are occupied, and the centroids of their points."""

from typing import Any

import numpy as np

from papertwin.errors import InputError
from papertwin.points.arrays import positive, take_points


def voxel_centroids(points: Any, leaf: float) -> Any:
    """Replace the points of each occupied voxel by their centroid.

    Args:
        points: (n, 3) array or tensor, finite.
        leaf: side of a voxel, > 0, in the unit of the points. The grid starts at the lower corner of the cloud.

    Returns:
        (m, 3) centroids, m ≤ n, of the same kind as `points`; ordered by x, then y, then z of the voxels.

    Raises:
        InputError: bad points, a side that is not above 0, or one so small that 2⁶² voxels do not span the cloud.
    """
    array, kind = take_points(points)
    return kind.back(centroids(array, positive(leaf, "leaf")))


def centroids(points: np.ndarray, leaf: float) -> np.ndarray:
    """`voxel_centroids` of a checked array; float64."""
    low = points.min(axis=0).astype(np.float64)
    codes = cell_codes(points, low, leaf)[0]
    order = np.argsort(codes, kind="stable")
    codes = codes[order]
    starts = np.flatnonzero(np.concatenate(([True], codes[1:] != codes[:-1])))
    sizes = np.diff(np.append(starts, len(codes)))
    sums = np.add.reduceat(points[order] - low, starts, axis=0)
    return sums / sizes[:, None] + low


def cell_codes(points: np.ndarray, low: np.ndarray, side: float) -> tuple[np.ndarray, tuple[int, int, int]]:
    """Number the grid cells of side `side` from the corner `low`, x slowest.

    Args:
        points: (n, 3).
        low: (3,) lower corner, float64.
        side: > 0.

    Returns:
        (n,) int64 codes, and the number of cells along each axis.

    Raises:
        InputError: the grid has more than 2⁶² cells.
    """
    spans = (points.max(axis=0) - low) / side
    shape = [int(span) + 1 for span in np.minimum(spans, 2.0**62)]
    if shape[0] * shape[1] * shape[2] >= 2**62:
        raise InputError(
            f"Cells of side {side:g} are too small for a cloud that spans {(spans * side).tolist()}: the grid would "
            "have more than 2^62 cells. Use a larger radius, distance or leaf, or remove far outliers."
        )
    codes = np.zeros(len(points), np.int64)
    for axis in range(3):
        cell = ((points[:, axis] - low[axis]) / side).astype(np.int64)
        codes *= shape[axis]
        codes += np.minimum(cell, shape[axis] - 1)
    return codes, tuple(shape)
