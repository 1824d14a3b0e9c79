"""How the weights of a condensed layer lie in memory for each kernel, and which kernel computes what.

The places (which weight goes where) are found once; when only values change, one gather refreshes them.

`Slots`, for `lookup`: 16 neurons a group. A slot serves two blocks of 16 inputs and takes from each neuron one weight
in either of them. Greedy: the block with most weights left, and the one that goes with it best, by the sum over the
neurons of 20·[c > 0] + c², c the larger number of weights left in the two blocks; a neuron takes from where it has
more. Of the lanes 91% are filled at a fan-in of 614 of 3072 inputs, 77% at 307, 59% at 154, 28% at 31, drawn at random
(slots for single blocks of 32 inputs in their order: 50% at 307).

`Tiles`, for `lanes`: any sparse matrix by tiles of 256 columns; within one, rows by the number of their weights.
"""

from dataclasses import dataclass
from functools import cache
from typing import Literal

import numpy as np

from papertwin.compiled import jit
from papertwin.errors import InputError
from papertwin.sparse.condensed_kernels import LANES, TILE, UNROLL

Kernel = Literal["lookup", "gather", "lanes", "dense"]
KERNELS: tuple[Kernel, ...] = ("lookup", "gather", "lanes", "dense")
FEW = 8  # rows of the batch, up to which lookups are faster than lanes
FEW_GATHERED = 1  # the same for the plain loop, where there are no lookups
CROWDED = 0.75  # share of the weights that are left, from which on a dense product is faster
WIDEST = 2**16  # inputs, at most, whose places fit the 16 bits of a slot


@cache
def has_lookups() -> bool:
    """Whether the processor that numba compiles for has AVX-512F, which `lookup` needs."""
    from numba.core.registry import cpu_target

    *_, features = cpu_target.target_context.codegen().magic_tuple()
    return "+avx512f" in features.split(",")


def pick_kernel(batch: int, inputs: int, fan_in: int, lookups: bool) -> Kernel:
    """Name the kernel that is the fastest, float32 on a CPU; measured with 768 neurons and 3072 inputs.

    Args:
        batch: rows of the input.
        inputs: in_features.
        fan_in: k, weights of a neuron.
        lookups: whether the processor has AVX-512F.

    >>> [pick_kernel(batch, 3072, 307, True) for batch in (1, 8, 9, 256)]
    ['lookup', 'lookup', 'lanes', 'lanes']
    """
    if fan_in >= CROWDED * inputs:
        return "dense"
    if inputs < LANES:
        return "gather"
    if lookups and inputs <= WIDEST:
        return "lookup" if batch <= FEW else "lanes"
    return "gather" if batch <= FEW_GATHERED else "lanes"


def check_name(kernel: Kernel) -> None:
    """Raise InputError where there is no such kernel."""
    if kernel not in KERNELS:
        raise InputError(f"kernel must be one of {', '.join(KERNELS)}, or None for the fastest, got {kernel!r}.")


def check_kernel(kernel: Kernel, inputs: int) -> None:
    """Raise InputError where a kernel is unknown, or cannot compute a layer of so many inputs on this processor."""
    check_name(kernel)
    if kernel == "lookup" and not has_lookups():
        raise InputError("The kernel 'lookup' needs a processor with AVX-512F. Use None for the fastest one here.")
    if (kernel in ("lookup", "lanes") and inputs < LANES) or (kernel == "lookup" and inputs > WIDEST):
        raise InputError(
            f"The kernel {kernel!r} needs {LANES} inputs or more, 'lookup' at most {WIDEST}; got {inputs}. "
            "Use None for the fastest one that can."
        )


def parts(batch: int, threads: int) -> list[tuple[int, int]]:
    """First row and width (in vectors of 16) of the parts in which `lanes` computes a batch, one a thread at least."""
    width = next((w for w in (4, 2) if batch > LANES * w * max(threads - 1, 0.5)), 1)
    return [(first, width) for first in range(0, batch, LANES * width)]


# ---- slots -----------------------------------------------------------------------------------------------------------


@dataclass
class Slots:
    """Groups of 16 neurons: lanes (slots, 16) uint8, pairs (slots, 2) uint16, starts (groups + 1,).

    `source` (slots, 16) is the place of each weight in (active, k), -1 where there is none.
    """

    pairs: np.ndarray
    lanes: np.ndarray
    source: np.ndarray
    starts: np.ndarray


@dataclass
class Tiles:
    """A sparse matrix by tiles of columns: columns (weights,) uint8, starts (tiles, rows + 1), order (tiles, rows).

    `source` (weights,) is the place of each weight in the list that the matrix was made of.
    """

    columns: np.ndarray
    starts: np.ndarray
    order: np.ndarray
    source: np.ndarray


def slots_of(index: np.ndarray, inputs: int) -> Slots:
    """Fill the slots of a condensed layer.

    Args:
        index: (active, k) inputs of each neuron, in any order.
        inputs: from 16 to 65536.
    """
    ranks = np.argsort(index, axis=1, kind="stable")
    ordered = np.take_along_axis(index, ranks, 1).astype(np.int64)
    neurons, fan_in = index.shape
    most = LANES * fan_in + UNROLL  # a weight a slot
    work = np.empty((most, 2), np.uint16), np.empty((most, LANES), np.uint8), np.empty((most, LANES), np.int32)
    found, starts = [], [0]
    for first in range(0, neurons, LANES):
        group = slice(first, first + LANES)
        count = _fill_group(ordered[group], ranks[group], inputs, *work)
        pairs, lanes, source = (array[:count].copy() for array in work)
        source[source >= 0] += first * fan_in
        found.append((pairs, lanes, source))
        starts.append(starts[-1] + count)
    return Slots(*(aligned(np.concatenate(arrays)) for arrays in zip(*found)), np.array(starts))


@jit
def _fill_group(ordered, ranks, inputs, pairs, lanes, source):
    """Slots of up to 16 neurons, see `Slots`; returns how many, a multiple of UNROLL."""
    neurons, fan_in = ordered.shape
    blocks = (inputs + LANES - 1) // LANES
    left, first = np.zeros((blocks, LANES), np.int64), np.zeros((blocks, LANES), np.int64)
    for r in range(neurons):
        for j in range(fan_in - 1, -1, -1):
            block = ordered[r, j] // LANES
            first[block, r] = j
            left[block, r] += 1
    total = left.sum(1)
    slot = 0
    while slot % UNROLL or total.max() > 0:
        pairs[slot], lanes[slot], source[slot] = 0, 0, -1
        if total.max() > 0:
            one, other = _best_pair(left, total)
            _fill_slot(
                one, other, (ordered, ranks, inputs), (left, first, total), pairs[slot], lanes[slot], source[slot]
            )
        slot += 1
    return slot


@jit
def _best_pair(left, total):
    """The block with most weights left, and the block that serves most neurons together with it."""
    one = total.argmax()
    best, other = -1, one
    for block in range(len(total)):
        score = 0
        for r in range(LANES):
            most = max(left[one, r], left[block, r])
            score += most * most + (20 if most > 0 else 0)
        if score > best and block != one:
            best, other = score, block
    return one, other


@jit
def _fill_slot(one, other, matrix, work, pair, lane, source):
    """Take a weight of every neuron that has one in the two blocks."""
    ordered, ranks, inputs = matrix
    left, first, total = work
    begins = min(LANES * one, inputs - LANES), min(LANES * other, inputs - LANES)  # the last block overlaps
    pair[0], pair[1] = begins[0], begins[1]
    for r in range(len(ordered)):
        if left[one, r] + left[other, r] == 0:
            continue
        second = left[other, r] > left[one, r] or (left[other, r] == left[one, r] and total[other] > total[one])
        block = other if second else one
        j = first[block, r]
        lane[r] = ordered[r, j] - begins[1] + LANES if second else ordered[r, j] - begins[0]
        source[r] = r * ordered.shape[1] + ranks[r, j]
        first[block, r] += 1
        left[block, r] -= 1
        total[block] -= 1


# ---- tiles -----------------------------------------------------------------------------------------------------------


def tiles_of(rows: np.ndarray, columns: np.ndarray, shape: tuple[int, int]) -> Tiles:
    """Lay out a sparse matrix by tiles.

    Args:
        rows, columns: (weights,) place of each weight.
        shape: rows and columns of the matrix.
    """
    height, width = shape
    count = max(1, -(-width // TILE))
    tile = columns // TILE
    counts = np.bincount(tile * height + rows, minlength=count * height).reshape(count, height)
    order = np.argsort(counts, axis=1, kind="stable")
    ends = np.cumsum(np.take_along_axis(counts, order, 1).ravel()).reshape(count, height)
    starts = np.zeros((count, height + 1), np.int64)
    starts[:, 1:], starts[1:, 0] = ends, ends[:-1, -1]
    ranks = np.empty_like(order)
    np.put_along_axis(ranks, order, np.arange(height)[None], 1)
    source = np.argsort(tile * height + ranks[tile, rows], kind="stable")
    return Tiles((columns[source] % TILE).astype(np.uint8), starts, order, source.astype(np.int32))


# ---- values ----------------------------------------------------------------------------------------------------------


def values_of(weight: np.ndarray, source: np.ndarray, out: np.ndarray | None = None) -> np.ndarray:
    """Weights in the order of a layout, 0 where there is none; written to `out` where one is given."""
    if out is None:
        out = aligned(np.empty(source.shape, np.float32))
    _take(weight.reshape(-1), source.reshape(-1), out.reshape(-1))
    return out


@jit
def _take(weight, source, out):
    for place in range(len(source)):
        out[place] = weight[source[place]] if source[place] >= 0 else np.float32(0.0)


@jit
def give_back(values, source, out):
    """The reverse for a layout with a place for every weight: `out` (weights,) in the order before it."""
    for place in range(len(source)):
        out[source[place]] = values[place]


def aligned(array: np.ndarray) -> np.ndarray:
    """A copy that begins at a cache line: loads of 64 bytes touch one line each."""
    raw = np.empty(array.nbytes + 64, np.uint8)
    start = -raw.ctypes.data % 64
    copy = raw[start : start + array.nbytes].view(array.dtype).reshape(array.shape)
    copy[...] = array
    return copy
