"""Diagrams of lottery tickets and weight symmetry, after those of arXiv 2505.05143, drawn from what was computed.

A landscape with trainings in it, the steps of the method, masks of a layer, a plane through three networks.
"""

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.colors import BoundaryNorm
from matplotlib.patches import Rectangle

from papertwin.figures.board import arrow, box, canvas, word
from papertwin.figures.style import GREY, published

HUES = {"dense A": "C0", "dense B": "C3", "LTH": "C0", "naive": "C1", "permuted": "C2"}
SHAPES = {"LTH": "^", "permuted": "o", "naive": "s"}  # of published points
LEVELS = 12
ERRORS = (*range(12, 20), *range(20, 30, 2), *range(30, 61, 5))  # levels of errors, per cent: close where they are few
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
        below = path[-1, 1] < path[0, 1]
        ax.annotate(
            f"{name}: loss {abs(round(toy.last[name], 2)):g}",
            path[-1],
            (0, -11 if below else 11),
            textcoords="offset points",
            fontsize=8,
            va="top" if below else "bottom",
            ha="center",
            color=colour,
            bbox={"fc": "w", "ec": "none", "alpha": 0.9, "pad": 1},
        )
    ax.set(title=title, xlabel="w₁", ylabel="w₂", aspect="equal", xlim=toy.grid[[0, -1]], ylim=toy.grid[[0, -1]])
    ax.grid(False)


def pipeline(ax: plt.Axes) -> None:
    """Draw the steps: two dense trainings, pruning of one, matching, the mask renumbered, sparse trainings."""
    canvas(ax, "", 20, 6.2, aspect="auto")
    for y, name, hue in ((5.2, "A", "C0"), (0.85, "B", "C3")):
        box(ax, 1.4, y, f"${name}_0$\nfirst weights", 2.4, 1.5, ec=hue)
        box(ax, 5.2, y, f"${name}_k$\nafter k passes", 2.6, 1.5, ec=hue)
        box(ax, 9.2, y, f"${name}_T$\ndense, trained", 2.6, 1.5, ec=hue)
        arrow(ax, (2.6, y), (3.9, y))
        arrow(ax, (6.5, y), (7.9, y))
    box(ax, 13.4, 5.2, "mask $m$\nprune, fine-tune,\nin rounds", 3.0, 1.9)
    box(ax, 9.2, 2.9, "match neurons: $\\pi$", 3.4, 1.0, ec=ALLOWED)
    box(ax, 13.4, 2.9, "$\\pi(m)$\nrenumbered", 3.0, 1.4, ec=ALLOWED)
    arrow(ax, (10.5, 5.2), (11.9, 5.2))
    arrow(ax, (10.9, 2.9), (11.9, 2.9))
    for x, start, end in ((9.2, 4.45, 3.4), (9.2, 1.6, 2.4), (13.4, 4.25, 3.6)):
        arrow(ax, (x, start), (x, end))
    ends = ((5.7, "LTH:  $A_k$ with $m$", "C0"), (4.7, "naive:  $B_k$ with $m$", "C1"))
    for y, text, hue in (*ends, (2.9, "permuted:  $B_k$ with $\\pi(m)$", "C2")):
        arrow(ax, (14.9, y), (16.0, y), color=hue)
        word(ax, 16.2, y, text, color=hue, fontsize=9.5, ha="left")


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


def plane_panels(
    axes: Sequence[plt.Axes],
    planes: Mapping[str, Any],
    names: Sequence[Sequence[str]],
    levels: Sequence[float] = ERRORS,
) -> None:
    """Draw errors on planes through three networks each, beside each other, with one colour bar.

    Args:
        axes: one a plane, all with the same limits; what any plane lacks is cut off.
        planes: title → `xs`, `ys`, `errors` (y, x) in per cent, `corners` of the networks.
        names: of the networks of each plane.
        levels: of the contours, ascending; what is above the last has its colour.
    """
    ends = [[(each[0], each[-1]) for each in (plane.xs, plane.ys)] for plane in planes.values()]
    (left, low), (right, high) = np.max(ends, axis=0)[:, 0], np.min(ends, axis=0)[:, 1]
    norm = BoundaryNorm(levels, 256, extend="both")
    for ax, (title, plane), each in zip(axes, planes.items(), names):
        options = {"levels": list(levels), "norm": norm, "cmap": "viridis_r", "extend": "both"}
        drawn = ax.contourf(plane.xs, plane.ys, plane.errors, **options)
        for (x, y), name in zip(plane.corners, each):
            ax.plot(x, y, "o", color="w", mec="k", ms=6)
            place = (0, 8 if y <= np.mean(plane.ys) else -14)
            style = {"ha": "center", "fontsize": 9, "bbox": {"fc": "w", "ec": "none", "alpha": 0.8, "pad": 1}}
            ax.annotate(name, (x, y), place, textcoords="offset points", **style)
        ax.set(title=title, xlabel=f"Euclidean distance, all weights, from {each[0]} towards {each[1]}", aspect="equal")
        ax.set(ylabel=f"distance from the line {each[0]} – {each[1]}", xlim=(left, right), ylim=(low, high))
        ax.grid(False)
    axes[0].figure.colorbar(drawn, ax=list(axes), label="test error, %", shrink=0.8)


def published_box(ax: plt.Axes, values: Mapping[str, float], title: str) -> None:
    """Draw published accuracies in a box in a corner of a panel, at the panel's scale but not at its height.

    So gaps can be compared by eye, and a panel has no need to reach from our accuracies to those of another network.

    Args:
        ax: where; its limits are set and ours is drawn, the box goes to where there is more room, above or below.
        values: method → accuracy.
        title: of the box.
    """
    low, high = ax.get_ylim()
    unit = high - low
    order = sorted(values, key=values.get)
    middle = (values[order[0]] + values[order[-1]]) / 2
    half = max((values[order[-1]] - values[order[0]]) / 2 + 0.035 * unit, 0.035 * unit * len(order))
    above = high - ax.dataLim.y1 > ax.dataLim.y0 - low
    base = high - 2 * half - 0.08 * unit if above else low + 0.02 * unit
    shift = middle - half - base
    own = ax.twinx()
    own.set(ylim=(low + shift, high + shift), ylabel="published test accuracy, %")
    own.set_axis_off()
    left, right = ax.get_xlim()
    across = lambda part: left + part * (right - left)  # noqa: E731
    style = {"fc": "w", "ec": "0.8", "lw": 0.7, "alpha": 0.9, "zorder": 0}
    own.add_patch(Rectangle((across(0.03), base + shift), 0.46 * (right - left), 2 * half + 0.06 * unit, **style))
    places = spread([values[name] for name in order], 0.055 * unit)
    for name, place in zip(order, places):
        published(own, across(0.08), values[name], marker=SHAPES[name], ms=5, label=name)
        own.annotate(f"{name} {values[name]:g}", (across(0.13), place), va="center", fontsize=7.5, color=GREY)
    own.annotate(title, (across(0.05), middle + half), va="bottom", fontsize=7.5, color=GREY, style="italic")
    own.set(xlim=(left, right))


def spread(heights: Sequence[float], room: float) -> np.ndarray:
    """Move ascending heights apart until each has so much room, their middle where it was.

    >>> spread([0.0, 1.0, 5.0], 2.0).tolist()
    [-0.5, 1.5, 5.5]
    """
    places = [*heights[:1]]
    for before, after in pairwise(heights):
        places.append(places[-1] + max(room, after - before))
    return np.array(places) + (np.mean([heights[0], heights[-1]]) - np.mean([places[0], places[-1]]))


def between(axes: Sequence[plt.Axes], curves: Mapping[str, Any]) -> None:
    """Draw loss and accuracy on lines from one network to another, named above both.

    Args:
        axes: of the loss and of the accuracy.
        curves: name → `colour`, a number; `renumbered`, whether solid or dashed; `loss` and `accuracy`, tables with
            index α and columns mean, min and max.
    """
    for ax, column, label in zip(axes, ("loss", "accuracy"), ("test loss, nats", "test accuracy, %")):
        for name, curve in curves.items():
            style = "-" if curve.renumbered else "--"
            band_line(ax, getattr(curve, column), f"C{curve.colour}", style, name)
        ax.set(xlabel="α, from A to B", ylabel=label)
    handles = axes[0].get_legend_handles_labels()
    axes[0].figure.legend(*handles, loc="outside upper center", ncols=len(curves) // 2 or 1, fontsize=8)


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
