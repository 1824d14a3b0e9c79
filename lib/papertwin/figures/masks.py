"""Sparse layers as pictures: masks, what an update drops and grows, condensed arrays."""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import torch
from matplotlib.colors import ListedColormap
from matplotlib.patches import Patch

from papertwin.errors import InputError

ACTIVE, EMPTY, ABLATED = "#0072B2", "#FFFFFF", "#E8E8E8"
KEPT, DROPPED, GROWN = "#0072B2", "#E8A27C", "#009E73"


def mask_panel(ax: plt.Axes, mask: torch.Tensor, title: str) -> None:
    """Draw a mask: a row a neuron, its fan-in beside it, neurons without weights in grey.

    Args:
        ax: where.
        mask: (out, in) bool.
        title: of the panel.

    Raises:
        InputError: the mask has not two dimensions.
    """
    rows = _two(mask)
    state = np.where(rows, 2, np.where(rows.any(1, keepdims=True), 0, 1))
    _cells(ax, state, [EMPTY, ABLATED, ACTIVE], title)
    for row, count in enumerate(rows.sum(1)):
        ax.text(rows.shape[1] - 0.1, row, str(count), va="center", fontsize=7, color="0.3")
    ax.set(ylabel="neurons", xlabel="inputs")


def condensed_panel(ax: plt.Axes, mask: torch.Tensor, title: str) -> None:
    """Draw the condensed array of a mask: only active neurons, in each place the number of the input.

    Args:
        ax: where.
        mask: (out, in) bool with one fan-in.
        title: of the panel.

    Raises:
        InputError: neurons differ in their fan-in, or the mask has not two dimensions.
    """
    rows = _two(mask)
    counts = rows.sum(1)
    if len(set(counts[counts > 0].tolist())) != 1:
        raise InputError(f"mask must have one fan-in for all its active neurons, got {sorted(set(counts.tolist()))}.")
    index = np.stack([np.flatnonzero(row) for row in rows if row.any()])
    _cells(ax, np.zeros_like(index), [ACTIVE, ACTIVE], title)
    for (row, column), value in np.ndenumerate(index):
        ax.text(column, row, str(value), ha="center", va="center", fontsize=7, color="white")
    ax.set(ylabel="active neurons", xlabel="weights of a neuron")


def update_panel(ax: plt.Axes, before: torch.Tensor, after: torch.Tensor, salient: torch.Tensor, title: str) -> None:
    """Draw what an update keeps, drops and grows; a dot marks weights that matter, their number stands beside a row.

    Args:
        ax: where.
        before: (out, in) bool, mask before the update.
        after: (out, in) bool, mask after it.
        salient: (out, in) bool, weights that matter.
        title: of the panel.

    Raises:
        InputError: the masks differ in shape.
    """
    old, new, dots = _two(before), _two(after), _two(salient)
    if not old.shape == new.shape == dots.shape:
        raise InputError(f"The masks must have one shape, got {old.shape}, {new.shape} and {dots.shape}.")
    gone = old.any(1, keepdims=True) & ~new.any(1, keepdims=True)
    state = np.where(old & new, 2, np.where(old, 3, np.where(new, 4, np.where(gone, 1, 0))))
    _cells(ax, state, [EMPTY, ABLATED, KEPT, DROPPED, GROWN], title)
    ax.plot(*np.argwhere(dots)[:, ::-1].T, "o", ms=2.2, color="black")
    for row, count in enumerate(dots.sum(1)):
        ax.text(old.shape[1] - 0.1, row, str(count), va="center", fontsize=7, color="0.3")
    kinds = {"kept": KEPT, "dropped": DROPPED, "grown": GROWN, "ablated neuron": ABLATED}
    handles = [Patch(color=colour, label=name) for name, colour in kinds.items()]
    ax.legend(handles=handles, loc="upper left", bbox_to_anchor=(1.06, 1), fontsize=8)
    ax.set(ylabel="neurons", xlabel="inputs")


def number_grid(ax: plt.Axes, table: pd.DataFrame, title: str) -> None:
    """Draw a table of whole numbers as a grid, darker where they are larger; "–" where there is none.

    Args:
        ax: where.
        table: its index along the horizontal axis, its columns along the vertical one.
        title: of the panel.

    Raises:
        InputError: the table is empty.
    """
    if table.empty:
        raise InputError("The table must have rows and columns, got none.")
    values = table.to_numpy(dtype=float).T
    ax.imshow(np.log1p(np.nan_to_num(values)), cmap="Blues", aspect="auto", vmax=1.6 * np.log1p(np.nanmax(values)) or 1)
    for (row, column), value in np.ndenumerate(values):
        ax.text(column, row, "–" if np.isnan(value) else f"{value:.0f}", ha="center", va="center", fontsize=8)
    ax.set_xticks(range(len(table)), [str(each) for each in table.index], rotation=40, fontsize=8)
    ax.set_yticks(range(table.shape[1]), [f"{each:g}" for each in table.columns], fontsize=8)
    ax.grid(False)
    ax.set_title(title, fontsize=9)


def _two(mask: torch.Tensor) -> np.ndarray:
    """Mask as an array (out, in)."""
    if mask.ndim != 2:
        raise InputError(f"mask must have shape (out, in), got {tuple(mask.shape)}.")
    return mask.cpu().numpy().astype(bool)


def _cells(ax: plt.Axes, state: np.ndarray, colours: list[str], title: str) -> None:
    """Draw a grid of cells, a colour for each state."""
    ax.imshow(state, cmap=ListedColormap(colours), vmin=0, vmax=len(colours) - 1, aspect="equal")
    ax.set(xticks=[], yticks=[])  # a line between cells is not drawn where an ordinary tick stands
    ax.set_xticks(np.arange(-0.5, state.shape[1]), minor=True)
    ax.set_yticks(np.arange(-0.5, state.shape[0]), minor=True)
    ax.grid(False)
    ax.grid(which="minor", color="0.85", lw=0.5)
    ax.tick_params(which="both", length=0, labelbottom=False, labelleft=False)
    ax.set_title(title, fontsize=9)
