"""Voxels: the cells of a grid that are occupied, and the centroids of their points."""

import math
from typing import Any

import numpy as np

from papertwin.errors import InputError
from papertwin.points.arrays import positive, take_points

FINEST = 2.0**30  # cells along an axis: beyond it rounding would move points to other cells


def voxel_centroids(points: Any, leaf: float, *, device: Any = None) -> Any:
    """Replace the points of each occupied voxel by their centroid.

    Args:
        points: (n, 3) array or tensor, finite.
        leaf: side of a voxel, > 0, in the unit of the points. The grid starts at the lower corner of the cloud.
        device: checked like everywhere; the sums always run on the CPU.

    Returns:
        (m, 3) centroids, m ≤ n, of the same kind as `points`; ordered by x, then y, then z of the voxels.

    Raises:
        InputError: bad points, a side that is not above 0, or one so small that the voxels cannot be numbered.
    """
    array, kind = take_points(points, device=device)
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

    Where the whole grid has too many cells for int64, empty planes of cells are left out, but at least two stay
    between occupied ones: cells that were at most two apart keep their offset, others stay three or more apart.

    Args:
        points: (n, 3).
        low: (3,) lower corner, float64.
        side: > 0.

    Returns:
        (n,) int64 codes, and the number of cells along each axis.

    Raises:
        InputError: the cloud spans more than 2³⁰ cells along an axis, or too many cells even without empty planes.
    """
    spans = (points.max(axis=0) - low) / side
    if spans.max() >= FINEST:
        raise InputError(_too_small(spans, side))
    cells = [np.floor((points[:, axis] - low[axis]) / side).astype(np.int64) for axis in range(3)]
    shape = tuple(int(cell.max()) + 1 for cell in cells)
    if math.prod(shape) >= 2**62:
        cells = [_without_empty_planes(cell) for cell in cells]
        shape = tuple(int(cell.max()) + 1 for cell in cells)
        if math.prod(shape) >= 2**62:
            raise InputError(_too_small(spans, side))
    return (cells[0] * shape[1] + cells[1]) * shape[2] + cells[2], shape


def _without_empty_planes(cell: np.ndarray) -> np.ndarray:
    occupied, inverse = np.unique(cell, return_inverse=True)
    return np.concatenate(([0], np.cumsum(np.minimum(np.diff(occupied), 3))))[inverse]


def _too_small(spans: np.ndarray, side: float) -> str:
    size = " x ".join(f"{span * side:g}" for span in spans)
    return (
        f"Cells of side {side:g} are too small for a cloud of size {size}: there would be too many to number. "
        "Use a larger distance or leaf (or a smaller decimation), or remove far outliers."
    )
