"""The tree over a cloud that the neighbourhood sums walk, and its building in threads.

A kd-tree split at the median of the longest side (Friedman, Bentley, Finkel 1977), stored in pre-order: a node's
first child follows it, and skipping a node of m leaves means jumping 2m - 1 places. All leaves but the last hold
exactly `kernels.LEAF` points.
"""

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

from papertwin.compiled import jit, simd
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
        x, y, z = (array.reshape(-1, kernels.LEAF) for array in (self.x, self.y, self.z))
        return x, y, z, self.leaf, self.box, self.moments

    def groups(self) -> np.ndarray:
        """Node numbers of the largest subtrees of at most GROUP leaves: together they cover every point once."""
        return _groups(self.leaf, kernels.GROUP)


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
        lefts = in_threads(lambda part: _split(x, y, z, order, part[1], part[2], kernels.LEAF, count), level)
        below = []
        for (node, first, size), left in zip(level, lefts, strict=True):
            leaf[node] = first, size
            tops.append(node)
            below += [(node + 1, first, left), (node + 2 * left, first + left, size - left)]
        level = below

    def finish(part: tuple[int, int, int]) -> None:
        node, first, size = part
        _build(x, y, z, order, leaf, node, first, size, kernels.LEAF, count)
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


@jit
def _partition(x, y, z, order, key, low, high, middle):
    """Reorder [low, high) so that the entries before `middle` have the smallest keys (quickselect, in place)."""
    high -= 1
    while low < high:
        a, b, c = key[low], key[(low + high) >> 1], key[high]
        pivot = max(min(a, b), min(max(a, b), c))
        i, j = low, high
        while i <= j:
            while key[i] < pivot:
                i += 1
            while key[j] > pivot:
                j -= 1
            if i <= j:
                x[i], x[j] = x[j], x[i]
                y[i], y[j] = y[j], y[i]
                z[i], z[j] = z[j], z[i]
                order[i], order[j] = order[j], order[i]
                i += 1
                j -= 1
        if middle <= j:
            high = j
        elif middle >= i:
            low = i
        else:
            return


@simd
def _extent(key, start, end):
    """Smallest and largest key of [start, end)."""
    low, high = key[start], key[start]
    for i in range(start, end):
        low = min(low, key[i])
        high = max(high, key[i])
    return low, high


@jit
def _split(x, y, z, order, first, leaves, size, count):
    """Split a range of leaves at the middle of its longest side; returns the number of leaves on the left."""
    left = (leaves + 1) >> 1
    start, end = first * size, min(count, (first + leaves) * size)
    (x0, x1), (y0, y1), (z0, z1) = _extent(x, start, end), _extent(y, start, end), _extent(z, start, end)
    key = x
    if y1 - y0 > x1 - x0 and y1 - y0 >= z1 - z0:
        key = y
    elif z1 - z0 > x1 - x0:
        key = z
    _partition(x, y, z, order, key, start, end, start + left * size)
    return left


@jit
def _build(x, y, z, order, leaf, root, first, leaves, size, count):
    """Build the subtree whose root is node `root`, over `leaves` leaves from leaf `first` on."""
    stack = np.empty((64, 3), np.int64)
    stack[0, 0], stack[0, 1], stack[0, 2] = root, first, leaves
    depth = 1
    while depth > 0:
        depth -= 1
        node, first, leaves = stack[depth, 0], stack[depth, 1], stack[depth, 2]
        leaf[node, 0], leaf[node, 1] = first, leaves
        if leaves > 1:
            left = _split(x, y, z, order, first, leaves, size, count)
            stack[depth, 0], stack[depth, 1], stack[depth, 2] = node + 2 * left, first + left, leaves - left
            stack[depth + 1, 0], stack[depth + 1, 1], stack[depth + 1, 2] = node + 1, first, left
            depth += 2


@jit
def _groups(leaf, most):
    """Numbers of the largest subtrees of at most `most` leaves, in tree order."""
    found = np.empty(len(leaf), np.int64)
    count, node = 0, 0
    while node < len(leaf):
        if leaf[node, 1] <= most:
            found[count] = node
            count += 1
            node += 2 * leaf[node, 1] - 1
        else:
            node += 1
    return found[:count].copy()
