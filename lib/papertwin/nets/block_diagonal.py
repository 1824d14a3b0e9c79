"""How block-diagonal a matrix is, as a number: the part of its squared entries that lies inside the blocks.

Paper: Y. Ioannou et al.: Deep Roots. CVPR 2017, arXiv 1605.06489, shows covariances between the input and the output
of a layer in filter groups, and that they are block-diagonal. The number is ours.

Channel i of C belongs to group ⌊i·g/C⌋, as in a convolution in g groups. Of a matrix without structure the blocks hold
as much as their area; `contrast` is 0 there, and 1 where nothing lies outside the blocks.
"""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from papertwin.errors import InputError
from papertwin.nets.sizes import whole


@dataclass(frozen=True)
class BlockDiagonal:
    """How block-diagonal a matrix is.

    Attributes:
        share: part of the squared entries inside the diagonal blocks, in [0, 1].
        chance: the same for equal entries: the area of the blocks, 1/g where they are equal.
        random: (draws,) shares of the matrix with its columns permuted, sorted.
    """

    share: float
    chance: float
    random: np.ndarray

    @property
    def contrast(self) -> float:
        """(share − chance) / (1 − chance): 0 without structure, 1 for a block-diagonal matrix, NaN for one group."""
        return (self.share - self.chance) / (1 - self.chance) if self.chance < 1 else math.nan

    @property
    def p_value(self) -> float:
        """Share of orders of the columns, the given one among them, that are as block-diagonal."""
        return p_value(self.share, self.random)

    def quantiles(self, low: float = 0.025, high: float = 0.975) -> tuple[float, float]:
        """Quantiles of the shares with permuted columns, NaN without draws.

        Raises:
            InputError: `low` and `high` are not 0 ≤ low ≤ high ≤ 1.
        """
        if not 0 <= low <= high <= 1:
            raise InputError(f"Quantiles must be 0 ≤ low ≤ high ≤ 1, got {low!r} and {high!r}.")
        if not len(self.random):
            return math.nan, math.nan
        return float(np.quantile(self.random, low)), float(np.quantile(self.random, high))


def block_diagonal(matrix: Any, groups: int, *, draws: int = 1000, seed: int = 0) -> BlockDiagonal:
    """Measure how block-diagonal a matrix is, rows and columns in the order of their channels.

    Args:
        matrix: (R, C) finite numbers, such as a whitened covariance; R and C may differ.
        groups: g, from 1 to the smaller of R and C; of the layer whose input and output the channels are.
        draws: permutations of the columns, at least 0.
        seed: of the permutations.

    Raises:
        InputError: the matrix cannot be used or is 0 everywhere, or a number is out of range.

    >>> found = block_diagonal([[1, 1, 0, 0], [0, 0, 2, -1]], 2)
    >>> found.share, found.chance, found.contrast
    (1.0, 0.5, 1.0)
    """
    squares = finite_matrix(matrix, "matrix", "(rows, columns)") ** 2
    if not squares.any():
        raise InputError("matrix is 0 everywhere, got nothing whose structure could be measured.")
    rows, columns = (group_of(channels, groups) for channels in squares.shape)
    per_group = np.stack([squares[rows == group].sum(axis=0) for group in range(groups)])  # (g, C)
    rng, places = np.random.default_rng(whole("seed", seed, 0)), np.arange(len(columns))
    orders = (rng.permutation(columns) for _ in range(whole("draws", draws, 0)))
    random = np.array([per_group[order, places].sum() for order in orders]) / squares.sum()
    chance = float(np.mean(rows[:, None] == columns))
    return BlockDiagonal(share_inside(squares, rows, columns), chance, np.sort(random))


def group_of(channels: int, groups: int) -> np.ndarray:
    """Return the group of each channel, ⌊i·g/C⌋: (channels,) int64.

    Args:
        channels: C.
        groups: g, from 1 to C.

    Raises:
        InputError: a number is out of range.
    """
    if whole("groups", groups) > whole("channels", channels):
        raise InputError(f"groups must be at most {channels}, the channels, got {groups}.")
    return np.arange(channels, dtype=np.int64) * groups // channels


def share_inside(squares: np.ndarray, rows: np.ndarray, columns: np.ndarray) -> float:
    """Return the part of non-negative entries that lies where row and column are of one group.

    Args:
        squares: (R, C), not all 0.
        rows: (R,) group of each row.
        columns: (C,) group of each column.
    """
    return float(squares[rows[:, None] == columns].sum() / squares.sum())


def p_value(share: float, random: np.ndarray) -> float:
    """Return (1 + #{random ≥ share}) / (1 + draws), equal up to rounding counted as equal."""
    return (1 + int((random >= share - 1e-12).sum())) / (1 + len(random))


def finite_matrix(values: Any, name: str, shape: str) -> np.ndarray:
    """Return a matrix as float64.

    Args:
        values: numbers, NumPy or torch on the CPU.
        name: of the argument, for the message.
        shape: what it should have, for the message.

    Raises:
        InputError: not two axes, empty, or NaN or infinite numbers.
    """
    array = np.asarray(values, dtype=np.float64)
    if array.ndim != 2 or not array.size or not np.isfinite(array).all():
        raise InputError(f"{name} must be finite numbers of shape {shape}, got shape {array.shape}.")
    return array
