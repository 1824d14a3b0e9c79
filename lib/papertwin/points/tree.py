"""The tree over a cloud that the neighbourhood sums walk, and its building in threads."""

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

from papertwin.errors import InputError
from papertwin.points import kernels
from papertwin.training.device import thread_count


@dataclass(frozen=True)
class MomentTree:
    """Points in tree order and, per node in pre-order, its leaves, its tight box and its ten moments.

    Linear memory: about 28 bytes a point and 192 bytes a node, with one node for every 8 points.

    Attributes:
        x, y, z: (LEAF * leaves,) float64 coordinates in tree order, filled up with PAD.
        order: (n,) int32, row of the caller's cloud at each place of the tree order.
        leaf: (nodes, 2) int32, first leaf and number of leaves.
        box: (nodes, 6) float64, lower and upper corner.
        moments: (nodes, 10) float64, about the centre of the box.
    """

    x: np.ndarray
    y: np.ndarray
    z: np.ndarray
    order: np.ndarray
    leaf: np.ndarray
    box: np.ndarray
    moments: np.ndarray

    @property
    def source(self) -> tuple[np.ndarray, ...]:
        """What the kernels read of a tree that is searched."""
        return self.x, self.y, self.z, self.leaf, self.box, self.moments

    def groups(self) -> np.ndarray:
        """Node numbers of the largest subtrees of at most GROUP leaves: together they cover every point once."""
        return kernels.groups(self.leaf)


def build_tree(points: np.ndarray) -> MomentTree:
    """Build the tree of a checked cloud of shape (n, 3), with every thread.

    Raises:
        InputError: more than 2³¹ - 1 points.
    """
    count = len(points)
    if count >= 2**31 - kernels.LEAF:
        raise InputError(f"At most 2147483631 points fit one tree, got {count}; cut the cloud into tiles.")
    leaves = -(-count // kernels.LEAF)
    nodes = 2 * leaves - 1
    x, y, z = (np.full(leaves * kernels.LEAF, kernels.PAD) for _ in range(3))
    x[:count], y[:count], z[:count] = points[:, 0], points[:, 1], points[:, 2]
    order = np.arange(count, dtype=np.int32)
    leaf, box, moments = np.empty((nodes, 2), np.int32), np.empty((nodes, 6)), np.empty((nodes, 10))
    tops, level = [], [(0, 0, leaves)]
    while level and len(level) < 4 * thread_count() and level[0][2] > 256:
        lefts = in_threads(lambda part: kernels.split(x, y, z, order, part[1], part[2], count), level)
        below = []
        for (node, first, size), left in zip(level, lefts, strict=True):
            leaf[node] = first, size
            tops.append(node)
            below += [(node + 1, first, left), (node + 2 * left, first + left, size - left)]
        level = below

    def finish(part: tuple[int, int, int]) -> None:
        node, first, size = part
        kernels.build(x, y, z, order, leaf, node, first, size, count)
        kernels.summarise(x, y, z, leaf, box, moments, node, node + 2 * size - 1, count)

    in_threads(finish, level)
    for node in reversed(tops):
        kernels.summarise(x, y, z, leaf, box, moments, node, node + 1, count)
    return MomentTree(x, y, z, order, leaf, box, moments)


def in_threads(work: Callable, parts: Iterable) -> list:
    """Do the parts in `thread_count()` threads, each taking the next one when free; results in the parts' order."""
    parts = list(parts)
    if min(thread_count(), len(parts)) <= 1:
        return [work(part) for part in parts]
    with ThreadPoolExecutor(thread_count(), "papertwin-points") as pool:
        return list(pool.map(work, parts))
