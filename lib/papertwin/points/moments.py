"""Normals at several radii of one cloud: builds the trees, hands the work to threads or to the accelerator."""

from typing import Any, Literal, NamedTuple

import numpy as np

from papertwin.points import kernels
from papertwin.points.tree import MomentTree, build_tree, in_threads
from papertwin.training.device import thread_count


class Found(NamedTuple):
    """Normals of n points: (n, 3) float64 vectors, (n,) int64 counts, (n,) float64 gaps, -1 where degenerate."""

    vectors: np.ndarray
    counts: np.ndarray
    gaps: np.ndarray


def normals_at(
    points: np.ndarray,
    radii: list[float],
    surfaces: list[np.ndarray | None],
    eye: tuple[np.ndarray, bool],
    device: Any = None,
    backend: Literal["auto", "numba", "torch"] = "auto",
) -> list[Found]:
    """Normals at `points` for each radius; one tree serves all radii whose surface is the cloud itself.

    Args:
        points: (n, 3) checked coordinates.
        radii: radii, each > 0.
        surfaces: for each radius the (m, 3) points that are searched, None for `points`.
        eye: viewpoint, and whether it is a direction.
        device: torch device.
        backend: who sums. `auto`: torch where the device is CUDA, otherwise the compiled kernels, on the CPU.
    """
    if backend == "auto":
        backend = "torch" if device is not None and device.type == "cuda" else "numba"
    own = build_tree(points)
    found = []
    for radius, surface in zip(radii, surfaces, strict=True):
        searched = own if surface is None else build_tree(surface)
        if backend == "numba":
            found.append(_search(own, searched, radius, eye))
        else:
            found.append(_multiply(points, points if surface is None else surface, searched, radius, eye, device))
    return found


def _search(queries: MomentTree, searched: MomentTree, radius: float, eye: tuple[np.ndarray, bool]) -> Found:
    """Sum and fit in blocks of neighbouring groups; each thread takes the next block when free."""
    count = len(queries.order)
    found = Found(np.empty((count, 3)), np.empty(count, np.int64), np.empty(count))
    nodes = queries.groups()
    size = min(256, max(16, len(nodes) // (32 * thread_count())))
    places = queries.x, queries.y, queries.z

    def block(start: int) -> None:
        part = nodes[start : start + size]
        kernels.normals_of_groups(
            searched.source, places, queries.order, queries.leaf[part], queries.box[part], *eye, radius * radius, *found
        )

    in_threads(block, range(0, len(nodes), size))
    return found


def _multiply(
    points: np.ndarray,
    surface: np.ndarray,
    searched: MomentTree,
    radius: float,
    eye: tuple[np.ndarray, bool],
    device: Any,
) -> Found:
    """Sum on the device by matrix products; the fit of 3 x 3 matrices stays on the CPU."""
    import torch

    from papertwin.points import moments_torch

    sums, scale = moments_torch.moments(points, surface, radius, device or torch.device("cpu"))
    count = len(points)
    found = Found(np.empty((count, 3)), np.empty(count, np.int64), np.empty(count))
    places = points.astype(np.float64)

    def block(start: int) -> None:
        rows = slice(start, start + 65536)
        parts = (array[rows] for array in found)
        kernels.normals_of_moments(
            searched.source, places[rows], sums[rows], scale[rows], *eye, radius * radius, *parts
        )

    in_threads(block, range(0, count, 65536))
    return found
