"""Covariance matrices as grey images of their absolute values, thin lines at the borders of filter groups.

After arXiv 1605.06489. White is 0, rows are the first side, channels in their own order.
"""

from collections.abc import Sequence
from typing import Literal

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.cm import ScalarMappable
from matplotlib.collections import LineCollection
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.image import AxesImage

from papertwin.errors import InputError
from papertwin.nets.block_diagonal import group_of

MAP = plt.get_cmap("Greys", 8)  # as many shades as an eye tells apart; pictures stay small
BORDER = {"colors": "#D55E00", "linewidths": 0.5, "alpha": 0.8}
SCALES = ("shared", "own")


def covariance_panel(
    ax: plt.Axes, matrix: np.ndarray, *, title: str, groups: int | None = None, largest: float | None = None
) -> AxesImage:
    """Draw the absolute values of a matrix.

    Args:
        ax: where.
        matrix: (R, C) numbers.
        title: of the panel.
        groups: g; lines are drawn where ⌊i·g/R⌋ of rows and ⌊j·g/C⌋ of columns change. None draws none.
        largest: value drawn black, as everything above; None takes the largest there is.

    Returns:
        The image, for a colour bar.

    Raises:
        InputError: `groups` is no whole number from 1 to R and C, or `largest` is not above 0.
    """
    sizes = np.abs(np.asarray(matrix, dtype=float))
    if largest is not None and not largest > 0:
        raise InputError(f"largest must be a number above 0, got {largest!r}.")
    image = ax.imshow(sizes, cmap=MAP, vmin=0, vmax=largest or sizes.max() or 1.0, aspect=_aspect(sizes))
    ax.set(xticks=[], yticks=[])
    ax.set_title(title, fontsize=9)
    ax.grid(False)
    ax.spines[:].set_visible(True)
    if groups is not None:
        rows, columns = sizes.shape
        level = [[(-0.5, y), (columns - 0.5, y)] for y in _borders(rows, groups)]
        upright = [[(x, -0.5), (x, rows - 0.5)] for x in _borders(columns, groups)]
        ax.add_collection(LineCollection([*level, *upright], **BORDER))
    return image


def covariance_grid(
    rows: Sequence[Sequence[np.ndarray | None]],
    names: Sequence[str],
    titles: Sequence[str],
    *,
    groups: Sequence[Sequence[int | None]] | None = None,
    scale: Literal["shared", "own"] = "shared",
    label: str = "|covariance|",
    size: float = 1.5,
) -> Figure:
    """Draw rows of matrices, with one colour bar that says what black is.

    Args:
        rows: matrices (R, C); None leaves the place empty.
        names: one a row, written at its left.
        titles: one a column.
        groups: of each matrix, None without lines.
        scale: "shared" draws all on one scale up to the largest value of any; "own" each up to its own largest value,
            which is written under it.
        label: what is drawn, for the colour bar.
        size: of a panel, inches.

    Raises:
        InputError: unknown scale, no matrix, or numbers of names, titles and groups that do not fit.
    """
    _check_grid(rows, names, titles, groups, scale)
    largest = max(float(np.abs(each).max()) for row in rows for each in row if each is not None) or 1.0
    shape = len(rows), len(titles)
    room = size * shape[1] + 1.3, (size + (0.3 if scale == "own" else 0.15)) * shape[0] + (0.3 if shape[0] > 1 else 0.6)
    figure, axes = plt.subplots(*shape, figsize=room, squeeze=False)
    for place, ax in np.ndenumerate(axes):
        line, column = place
        matrix, title = rows[line][column], titles[column] if line == 0 else ""
        if matrix is None:
            ax.set(xticks=[], yticks=[], title=title)
            ax.spines[:].set_visible(False)
        else:
            lines = groups[line][column] if groups is not None else None
            covariance_panel(ax, matrix, title=title, groups=lines, largest=largest if scale == "shared" else None)
            if scale == "own":
                ax.set_xlabel(f"black: {np.abs(matrix).max():.2g}", fontsize=8, labelpad=2)
        if column == 0:
            ax.set_ylabel(names[line], fontsize=9 if size >= 1 else 7)
    meaning = f"{label}, one scale" if scale == "shared" else f"{label} / largest of the panel"
    scalar = ScalarMappable(Normalize(0, largest if scale == "shared" else 1), MAP)
    figure.colorbar(scalar, ax=axes, label=meaning, shrink=0.8, pad=0.02)
    return figure


def _borders(channels: int, groups: int) -> np.ndarray:
    """Places between the last channel of a group and the first of the next."""
    return np.flatnonzero(np.diff(group_of(channels, groups))) + 0.5


def _aspect(matrix: np.ndarray) -> float:
    """What makes the panel a square, whatever the numbers of rows and columns."""
    return matrix.shape[1] / matrix.shape[0]


def _check_grid(
    rows: Sequence, names: Sequence[str], titles: Sequence[str], groups: Sequence[Sequence] | None, scale: str
) -> None:
    """Check that every row has a name and every column a title, and that there is something to draw."""
    if scale not in SCALES:
        raise InputError(f"scale must be {' or '.join(map(repr, SCALES))}, got {scale!r}.")
    for what, table in (("rows", rows), ("groups", groups)):
        if table is not None and [len(row) for row in table] != [len(titles)] * len(names):
            raise InputError(
                f"{what} must be {len(names)} × {len(titles)}, one row a name and one column a title, "
                f"got rows of {[len(row) for row in table]}."
            )
    if all(each is None for row in rows for each in row):
        raise InputError("There must be a matrix at least, got none.")
