"""Learned filters as small pictures: mosaics of a first layer, and the crosses that low-rank filters are joined to.

After arXiv 1605.06489 (filters of a first layer) and 1511.06744 (3×1, 1×3 and combined filters). Grey is 0: weights are
drawn from −m to m, m being the largest absolute weight of the panel, so that pictures of a panel can be compared.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.collections import LineCollection
from matplotlib.image import AxesImage

from papertwin.errors import InputError
from papertwin.nets.sizes import whole

if TYPE_CHECKING:
    from papertwin.nets import Composite

BORDER = {"colors": "#D55E00", "linewidths": 1.4}
GAP = "#DCE6F2"  # between pictures: neither black nor white


def filter_mosaic(
    ax: plt.Axes,
    weights: Any,
    *,
    columns: int | None = None,
    groups: int = 1,
    title: str = "",
    largest: float | None = None,
) -> AxesImage:
    """Draw filters as a grid of pictures, row by row, one scale for all.

    Args:
        ax: where.
        weights: (d, c, h, w), numpy or torch on any device; c = 1 is drawn in greys, c = 3 in colours.
        columns: pictures in a row; None takes as many as make the mosaic about square.
        groups: filter groups of the layer, a divisor of d; lines part the filters of one from those of the next.
        title: of the drawing.
        largest: m, above 0; None takes the largest absolute weight. Larger weights are drawn as ±m.

    Returns:
        The image: (rows, columns) of weights with gaps masked, or (rows, columns, 3) of colours, 0.5 for a weight of 0.

    Raises:
        InputError: other shapes, weights that are not finite, or an argument out of range.
    """
    filters = _checked(weights)
    count, channels, high, wide = filters.shape
    columns = _columns(count, high, wide) if columns is None else whole("columns", columns)
    parts = whole("groups", groups)
    if count % parts:
        raise InputError(f"groups must divide the {count} filters, got {groups!r}.")
    if largest is not None and not largest > 0:
        raise InputError(f"largest must be a number above 0, got {largest!r}.")
    scale = float(largest or np.abs(filters).max() or 1.0)
    values = _tiled(filters, columns)
    if channels == 1:
        image = ax.imshow(np.ma.masked_invalid(values[..., 0]), cmap="gray", vmin=-scale, vmax=scale)
    else:
        image = ax.imshow(np.where(np.isnan(values), 1.0, np.clip(0.5 + 0.5 * values / scale, 0, 1)))
    ends = (
        f"black −{scale:.2g}, white {scale:.2g}" if channels == 1 else f"each colour from −{scale:.2g} to {scale:.2g}"
    )
    ax.set(xticks=[], yticks=[], title=title)
    ax.set_xlabel(f"{count} filters {high}×{wide}\n{ends}", fontsize=8, labelpad=2)
    ax.set_anchor("N")
    ax.set_facecolor(GAP)
    ax.grid(False)
    ax.spines[:].set_visible(False)
    if parts > 1:
        ax.add_collection(LineCollection(_borders(count, columns, parts, high, wide), **BORDER), autolim=False)
    return image


def cross_filters(axes: Sequence[plt.Axes], composite: "Composite", *, columns: int | None = None) -> None:
    """Draw the filters of each set of a composite layer, and those of the one convolution that it is.

    Joined 3×1 and 1×3 filters are 3×3 ones with zero corners, crosses; without a join they stay bars.

    Args:
        axes: one a set, and one for the equivalent convolution.
        composite: a layer on images of 1 or 3 channels.
        columns: pictures in a row of the last panel; None makes it about square.

    Raises:
        InputError: another number of axes, or of channels.
    """
    from papertwin.nets.equivalent import joined_kernels

    kernels = joined_kernels(composite)
    if len(axes) != len(composite.sets) + 1:
        raise InputError(f"axes must be {len(composite.sets) + 1}, one a set and one for all, got {len(axes)}.")
    for ax, (name, layer) in zip(axes, composite.sets.items()):
        filter_mosaic(ax, layer.weight, title=f"{name.replace('x', '×')} set")
    joined = "not joined" if composite.join is None else "joined by the 1×1 layer"
    filter_mosaic(axes[-1], kernels, columns=columns, title=joined)


def _checked(weights: Any) -> np.ndarray:
    """Return weights as an array of 32-bit numbers, if they can be drawn."""
    values = weights.detach().cpu() if hasattr(weights, "detach") else weights
    filters = np.asarray(values, dtype=np.float32)
    if filters.ndim != 4 or filters.shape[1] not in (1, 3) or 0 in filters.shape:
        raise InputError(
            f"weights must be (filters, 1 or 3 channels, height, width), got {filters.shape}. "
            "Take one channel of others: weights[:, :1]."
        )
    if not np.isfinite(filters).all():
        raise InputError("weights must be finite, got NaN or infinity.")
    return filters


def _columns(count: int, high: int, wide: int) -> int:
    """Pictures in a row that make a mosaic about square."""
    return min(count, max(1, round(np.sqrt(count * (high + 1) / (wide + 1)))))


def _tiled(filters: np.ndarray, columns: int) -> np.ndarray:
    """Filters row by row, gaps of a pixel between them: (rows, columns, c), NaN where there is no filter."""
    count, channels, high, wide = filters.shape
    rows = -(-count // columns)
    mosaic = np.full((rows * (high + 1), columns * (wide + 1), channels), np.nan, dtype=np.float32)
    for number, each in enumerate(filters):
        row, column = (number // columns) * (high + 1), (number % columns) * (wide + 1)
        mosaic[row : row + high, column : column + wide] = each.transpose(1, 2, 0)
    return mosaic[:-1, :-1]


def _borders(count: int, columns: int, groups: int, high: int, wide: int) -> list[list[tuple[float, float]]]:
    """Lines in the gaps between pictures of different groups."""
    group = np.full(-(-count // columns) * columns, -1)
    group[:count] = np.arange(count) * groups // count
    grid = group.reshape(-1, columns)
    lines = []
    for row, column in np.ndindex(grid.shape):
        left, top = column * (wide + 1) - 1, row * (high + 1) - 1  # middles of the gaps before the picture
        right, low = left + wide + 1, top + high + 1
        if column and -1 < grid[row, column] != grid[row, column - 1]:
            lines.append([(left, top), (left, low)])
        if row and -1 < grid[row, column] != grid[row - 1, column]:
            lines.append([(left, top), (right, top)])
    return lines
