"""Diagrams of lottery tickets and weight symmetry, after those of arXiv 2505.05143, drawn from what was computed.

A landscape with trainings in it, the steps of the method, masks of a layer, a plane through three networks.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib.pyplot as plt
import numpy as np

from papertwin.figures.board import arrow, box, canvas, word

HUES = {"dense A": "C0", "dense B": "C3", "LTH": "C0", "naive": "C1", "permuted": "C2"}
LEVELS = 12
ALLOWED = "#E69F00"


def landscape_panel(ax: plt.Axes, toy: Any, names: Sequence[str], title: str) -> None:
    """Draw the loss of a network of two weights, and trainings in it.

    Args:
        ax: where.
        toy: `grid` (n,) of both weights, `losses` (w₂, w₁), `paths` name → (steps, 2), `last` name → loss at the end.
        names: of the paths to draw. One along an axis, where the other weight is masked, has that axis highlighted.
        title: of the panel.
    """
    depth = np.sqrt(toy.losses)  # steps of equal height near the minima
    ax.contourf(toy.grid, toy.grid, depth, levels=np.linspace(0, depth.max(), LEVELS + 1), cmap="Greys", alpha=0.6)
    ax.plot(toy.grid[[0, -1]], toy.grid[[0, -1]], ":", color="0.5", lw=0.8)
    for name in names:
        path, colour = toy.paths[name], HUES[name]
        for axis in (0, 1):
            if not path[:, 1 - axis].any():
                (ax.axhline, ax.axvline)[axis](0, color=ALLOWED, lw=5, alpha=0.35, zorder=1)
        ax.plot(*path.T, "-", color=colour, lw=1.6)
        ax.plot(*path[0], "o", color=colour, mfc="w", ms=6)
        ax.plot(*path[-1], "o", color=colour, ms=6)
        ax.annotate(
            f"{name}: loss {abs(round(toy.last[name], 2)):g}",
            path[-1],
            (0, 9 if path[-1, 1] >= path[0, 1] else -9),
            textcoords="offset points",
            fontsize=8,
            va="bottom" if path[-1, 1] >= path[0, 1] else "top",
            ha="right" if path[-1, 0] > np.mean(toy.grid) else "left",
            color=colour,
            bbox={"fc": "w", "ec": "none", "alpha": 0.8, "pad": 1},
        )
    ax.set(title=title, xlabel="w₁", ylabel="w₂", aspect="equal", xlim=toy.grid[[0, -1]], ylim=toy.grid[[0, -1]])
    ax.grid(False)


def pipeline(ax: plt.Axes) -> None:
    """Draw the steps: two dense trainings, pruning of one, matching, the mask renumbered, sparse trainings."""
    canvas(ax, "", 20, 6.2, aspect="auto")
    for y, name, hue in ((4.9, "A", "C0"), (1.3, "B", "C3")):
        box(ax, 1.4, y, f"${name}_0$\nfirst weights", 2.4, 1.5, ec=hue)
        box(ax, 5.2, y, f"${name}_k$\nafter k passes", 2.6, 1.5, ec=hue)
        box(ax, 9.2, y, f"${name}_T$\ndense, trained", 2.6, 1.5, ec=hue)
        arrow(ax, (2.6, y), (3.9, y))
        arrow(ax, (6.5, y), (7.9, y))
    box(ax, 13.4, 4.9, "mask $m$\nprune, fine-tune,\nin rounds", 3.0, 1.9)
    box(ax, 9.2, 3.1, "match neurons: $\\pi$", 3.4, 1.0, ec=ALLOWED)
    box(ax, 13.4, 2.5, "$\\pi(m)$\nrenumbered", 3.0, 1.4, ec=ALLOWED)
    for start, end in (((10.5, 4.9), (11.9, 4.9)), ((9.2, 4.15), (9.2, 3.6)), ((9.2, 2.05), (9.2, 2.6))):
        arrow(ax, start, end)
    arrow(ax, (13.4, 3.95), (13.4, 3.2))
    arrow(ax, (10.9, 3.1), (11.9, 2.75))
    ends = ((5.4, "LTH:  $A_k$ with $m$", "C0"), (3.7, "naive:  $B_k$ with $m$", "C1"))
    for y, text, hue in (*ends, (1.9, "permuted:  $B_k$ with $\\pi(m)$", "C2")):
        word(ax, 17.9, y, text, color=hue, fontsize=9.5)
    arrow(ax, (14.9, 5.1), (16.2, 5.4))
    arrow(ax, (14.9, 4.4), (16.1, 3.85))
    arrow(ax, (14.9, 2.4), (15.8, 2.1))


def matrix_rows(axes: Sequence[plt.Axes], pictures: Mapping[str, np.ndarray]) -> None:
    """Draw matrices of one layer under each other.

    Args:
        axes: one a matrix.
        pictures: name, written at the left → (outputs, inputs), 0 white, the largest black.
    """
    for ax, (name, matrix) in zip(axes, pictures.items()):
        ax.imshow(matrix, cmap="Greys", vmin=0, vmax=np.max(matrix) or 1.0, aspect="auto", interpolation="none")
        ax.set(xticks=[], yticks=[])
        ax.grid(False)
        ax.spines[:].set_visible(True)
        ax.set_ylabel(name, rotation=0, ha="right", va="center", fontsize=8.5)


def plane_panel(ax: plt.Axes, plane: Any, names: Sequence[str], title: str, levels: Sequence[float]) -> Any:
    """Draw errors on a plane through three networks.

    Args:
        ax: where.
        plane: `xs`, `ys`, `errors` (y, x) in per cent, `corners` of the networks.
        names: of the networks.
        title: of the panel.
        levels: of the contours, ascending; what is above the last has its colour.

    Returns:
        The contours, for a colour bar.
    """
    drawn = ax.contourf(plane.xs, plane.ys, plane.errors, levels=list(levels), cmap="viridis_r", extend="both")
    for (x, y), name in zip(plane.corners, names):
        ax.plot(x, y, "o", color="w", mec="k", ms=6)
        above = 8 if y <= np.mean(plane.ys) else -14
        ax.annotate(
            name,
            (x, y),
            (0, above),
            textcoords="offset points",
            ha="center",
            fontsize=9,
            bbox={"fc": "w", "ec": "none", "alpha": 0.8, "pad": 1},
        )
    ax.set(title=title, xlabel="distance", ylabel="distance", aspect="equal")
    ax.grid(False)
    return drawn


def band_line(ax: plt.Axes, table: Any, colour: str, style: str, label: str) -> None:
    """Draw a line of means, and the range of the seeds shaded behind it.

    Args:
        ax: where.
        table: index x, with columns mean, min and max.
        colour: of both.
        style: of the line, "-" or "--".
        label: of the line.
    """
    ax.fill_between(table.index, table["min"], table["max"], color=colour, alpha=0.12, lw=0)
    ax.plot(table.index, table["mean"], style, color=colour, lw=1.5, label=label)
