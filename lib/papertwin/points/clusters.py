"""Euclidean clusters: connected components of the points linked by distance ≤ d.

The clustering step of the Difference of Normals pipeline (PCL's EuclideanClusterExtraction), exact and in linear
memory. The grid's cells have a diagonal just below d, so all points of one cell belong together, and only cells at
most two apart can be linked; union-find joins them. No list of pairs is ever made.
"""

import operator
from typing import Any

import numpy as np

from papertwin.compiled import jit
from papertwin.errors import InputError
from papertwin.points.arrays import positive, take_points
from papertwin.points.voxels import cell_codes

SIDE = (1.0 - 1e-6) / np.sqrt(3.0)  # of the distance: a little less, so that rounding cannot split or join wrongly


def euclidean_clusters(
    points: Any, distance: float, min_size: int = 1, max_size: int | None = None, *, device: Any = None
) -> Any:
    """Label the clusters, largest first.

    Args:
        points: (n, 3) array or tensor, finite.
        distance: points at most this far apart are linked, > 0.
        min_size: smaller clusters get label -1.
        max_size: larger clusters get label -1; None: no limit.
        device: checked like everywhere; the clusters are always found on the CPU.

    Returns:
        (n,) int64 labels of the same kind as `points`: 0 is the largest cluster, equal sizes are ordered by their
        first point, -1 belongs to none.

    Raises:
        InputError: bad points, a distance that is not above 0, or sizes that are not whole numbers with
            1 ≤ min_size ≤ max_size.
    """
    array, kind = take_points(points, device=device)
    distance = positive(distance, "distance")
    least = _whole(min_size, "min_size")
    most = max(least, len(array)) if max_size is None else _whole(max_size, "max_size")
    if not 1 <= least <= most:
        raise InputError(
            f"Expected 1 <= min_size <= max_size, got min_size={min_size!r}, max_size={max_size!r}. "
            "Swap or raise them; max_size=None sets no limit."
        )
    return kind.back(_rank(_components(array.astype(np.float64), distance), least, most))


def _whole(value: Any, name: str) -> int:
    try:
        return operator.index(value)
    except TypeError:
        raise InputError(
            f"{name} must be a whole number of points (an int), got {value!r}. Pass int({name}) if it is one."
        ) from None


def _components(points: np.ndarray, distance: float) -> np.ndarray:
    """(n,) number of the component of each point."""
    low = points.min(axis=0)
    codes, shape = cell_codes(points, low, distance * SIDE)
    order = np.argsort(codes, kind="stable")
    codes = codes[order]
    starts = np.flatnonzero(np.concatenate(([True], codes[1:] != codes[:-1])))
    cells = codes[starts]
    starts = np.append(starts, len(codes))
    parent = _join(points[order], cells, starts, shape[1], shape[2], distance * distance)
    components = np.empty(len(points), np.int64)
    components[order] = np.repeat(parent, np.diff(starts))
    return components


def _rank(components: np.ndarray, min_size: int, max_size: int) -> np.ndarray:
    """Labels by decreasing size, then by first point; -1 outside the sizes wanted."""
    _, first, inverse, sizes = np.unique(components, return_index=True, return_inverse=True, return_counts=True)
    rank = np.lexsort((first, -sizes))
    rank = rank[(sizes[rank] >= min_size) & (sizes[rank] <= max_size)]
    labels = np.full(len(sizes), -1, np.int64)
    labels[rank] = np.arange(len(rank))
    return labels[inverse]


@jit
def _find(parent, i):
    while parent[i] != i:
        parent[i] = parent[parent[i]]
        i = parent[i]
    return i


@jit
def _linked(points, boxes, a, b, starts, d2):
    """True when a point of cell a and one of cell b are within the distance."""
    for i in range(starts[a], starts[a + 1]):
        gap = 0.0
        for k in range(3):
            g = max(boxes[b, k] - points[i, k], points[i, k] - boxes[b, k + 3], 0.0)
            gap += g * g
        if gap > d2 * (1.0 + 1e-12):
            continue
        for j in range(starts[b], starts[b + 1]):
            x, y, z = points[i, 0] - points[j, 0], points[i, 1] - points[j, 1], points[i, 2] - points[j, 2]
            if x * x + y * y + z * z <= d2:
                return True
    return False


@jit
def _tight_boxes(points, starts):
    boxes = np.empty((len(starts) - 1, 6))
    for c in range(len(starts) - 1):
        for k in range(3):
            boxes[c, k] = boxes[c, k + 3] = points[starts[c], k]
        for i in range(starts[c] + 1, starts[c + 1]):
            for k in range(3):
                boxes[c, k] = min(boxes[c, k], points[i, k])
                boxes[c, k + 3] = max(boxes[c, k + 3], points[i, k])
    return boxes


@jit
def _join(points, cells, starts, rows, layers, d2):
    """Union-find over occupied cells; returns the root of each.

    The 25 rows of neighbours (the z offsets of one row are consecutive codes) are walked by one pointer each: the
    cells are sorted, so every pointer only moves forward.
    """
    boxes = _tight_boxes(points, starts)
    parent = np.arange(len(cells))
    for dx in range(3):
        for dy in range(-2, 3):
            if dx == 0 and dy < 0:
                continue
            offset = (np.int64(dx) * rows + dy) * layers
            pointer = 0
            for a in range(len(cells)):
                z = cells[a] % layers
                y = cells[a] // layers % rows
                if not 0 <= y + dy < rows:
                    continue
                first = cells[a] + offset + (max(-2, -z) if dx or dy else 1)
                last = cells[a] + offset + min(2, layers - 1 - z)
                while pointer < len(cells) and cells[pointer] < first:
                    pointer += 1
                b = pointer
                while b < len(cells) and cells[b] <= last:
                    one, other = _find(parent, a), _find(parent, b)
                    if one != other and _linked(points, boxes, a, b, starts, d2):
                        parent[max(one, other)] = min(one, other)
                    b += 1
    for a in range(len(cells)):
        parent[a] = _find(parent, a)
    return parent
