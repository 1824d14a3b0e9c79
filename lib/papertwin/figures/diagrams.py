"""Diagrams of conditional networks: layers as columns of dots, projections as matrices, routers, trees of classes.

What can be computed is drawn from it: blocks of a matrix from a real grouped layer, branches of a tree from clusters of
classes, costs from counts. After the diagrams of arXiv 1603.01250.
"""

from collections.abc import Sequence
from itertools import pairwise
from typing import Any, Literal

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch, Rectangle

LINE, GREY, ROUTER = "0.25", "0.75", "#E69F00"


def canvas(ax: plt.Axes, title: str, width: float = 10.0, height: float = 6.0) -> None:
    """Make an axis a drawing board of so many units."""
    ax.set(xlim=(0, width), ylim=(0, height), xticks=[], yticks=[], title=title, aspect="equal")
    for spine in ax.spines.values():
        spine.set_visible(False)


def column(ax: plt.Axes, x: float, y: float, count: int, label: str = "", colour: str = LINE) -> list[tuple]:
    """Draw a layer as a column of dots centred at (x, y); return their places."""
    places = [(x, y + 0.55 * (k - (count - 1) / 2)) for k in range(count)]
    ax.plot(*np.array(places).T, "o", color=colour, ms=5, zorder=3)
    if label:
        ax.annotate(label, (x, min(p[1] for p in places) - 0.35), ha="center", va="top", fontsize=8)
    return places


def joined(ax: plt.Axes, first: Sequence[tuple], second: Sequence[tuple], colour: str = GREY) -> None:
    """Join every dot of one column to every dot of another."""
    for a in first:
        for b in second:
            ax.plot([a[0], b[0]], [a[1], b[1]], color=colour, lw=0.5, zorder=1)


def box(ax: plt.Axes, x: float, y: float, text: str, colour: str = "w", width: float = 1.5) -> None:
    """Draw a named box centred at (x, y)."""
    shape = FancyBboxPatch((x - width / 2, y - 0.4), width, 0.8, boxstyle="round,pad=0.05", fc=colour, ec=LINE, lw=0.9)
    ax.add_patch(shape)
    ax.annotate(text, (x, y), ha="center", va="center", fontsize=8, zorder=4)


def arrow(ax: plt.Axes, start: tuple[float, float], end: tuple[float, float], text: str = "", **options: Any) -> None:
    """Draw an arrow, with a word beside its middle."""
    style = {"color": LINE, "lw": 0.9, **options}
    ax.add_patch(FancyArrowPatch(start, end, arrowstyle="-|>", mutation_scale=9, shrinkA=0, shrinkB=0, **style))
    if text:
        middle = (start[0] + end[0]) / 2, (start[1] + end[1]) / 2
        ax.annotate(text, middle, xytext=(0, 4), textcoords="offset points", ha="center", fontsize=8)


def notation(ax: plt.Axes) -> None:
    """Draw a network, a stump and a tree in one notation: columns of values, projections, one way for an example."""
    canvas(ax, "network, stump, tree", 12, 6)
    layers = [
        column(ax, x, 3.2, count, label) for x, count, label in ((0.6, 4, "$v_0$"), (1.8, 4, "$v_1$"), (3, 3, "$v_2$"))
    ]
    for first, second in pairwise(layers):
        joined(ax, first, second)
    ax.annotate("network", (1.8, 5.3), ha="center", fontsize=8)
    _branches(ax, 5.2, 3.2, 1, "stump")
    _branches(ax, 8.2, 3.2, 2, "tree")


def _branches(ax: plt.Axes, x: float, y: float, depth: int, name: str) -> None:
    """Draw routers that send an example up or down, `depth` times; the way of one example is bold."""
    spread = {1: 1.2, 2: 1.5}[depth]
    taken, levels = 0, [[(x, y)]]
    for level in range(1, depth + 1):
        step = spread / 2 ** (level - 1)
        levels.append([(a + 1.5, b + sign * step) for a, b in levels[-1] for sign in (1, -1)])
        for number, (end, start) in enumerate(zip(levels[-1], np.repeat(levels[-2], 2, axis=0))):
            bold = number == 2 * taken
            ax.plot([start[0], end[0]], [start[1], end[1]], color=LINE if bold else GREY, lw=2 if bold else 1, zorder=1)
        taken = 2 * taken
    for level, places in enumerate(levels):
        last = level == depth
        ax.plot(
            *np.array(places).T, "s" if last else "o", color=LINE if last else ROUTER, ms=5 if last else 8, zorder=3
        )
    ax.annotate(name, (x + 0.75 * depth, 5.3), ha="center", fontsize=8)


def routing(ax: plt.Axes, kind: Literal["explicit", "implicit"]) -> None:
    """Draw explicit routing, a router and routes, or implicit routing, a block-diagonal matrix of a grouped layer."""
    canvas(ax, f"{kind} routing")
    if kind == "implicit":
        _implicit(ax)
        return
    box(ax, 1.2, 3, "$v_0$", width=0.9)
    box(ax, 3.6, 5, "router $r$", ROUTER, 1.9)
    arrow(ax, (1.75, 3.2), (2.6, 4.7))
    for number, y in enumerate((3.4, 2.1, 0.8), start=1):
        box(ax, 5, y, f"$P^{number}$")
        arrow(ax, (1.75, 3), (4.15, y))
        arrow(
            ax,
            (5.85, y),
            (7.85, 2.9),
            f"$r_{number}$",
            color=LINE if number == 1 else GREY,
            lw=2 if number == 1 else 0.9,
        )
    arrow(ax, (4.65, 5), (8.2, 3.35), linestyle=":")
    box(ax, 8.5, 2.8, r"$\sum_j r_j v_1^j$", width=1.7)


def _implicit(ax: plt.Axes, groups: int = 3) -> None:
    """Two columns joined within groups only, and the matrix of such a layer."""
    for group in range(groups):
        y = 4.6 - 1.6 * group
        joined(ax, column(ax, 1.2, y, 2), column(ax, 3.6, y, 2))
    ax.annotate("$v_0$", (1.2, 0.45), ha="center", fontsize=8)
    ax.annotate("$v_1$", (3.6, 0.45), ha="center", fontsize=8)
    matrix = group_matrix(2 * groups, groups)
    ax.imshow(matrix, cmap="Greys", vmin=0, vmax=1.6, extent=(5.4, 9.6, 0.9, 5.1), zorder=2)
    ax.add_patch(Rectangle((5.4, 0.9), 4.2, 4.2, fill=False, ec=LINE, lw=0.8, zorder=3))
    ax.annotate("weights: one block a group", (7.5, 0.45), ha="center", fontsize=8)
    ax.set(xlim=(0, 10), ylim=(0, 6))


def group_matrix(channels: int, groups: int) -> np.ndarray:
    """Which outputs of a grouped 1×1 convolution see which inputs, (channels, channels) of 0 and 1, by asking it."""
    import torch

    layer = torch.nn.Conv2d(channels, channels, 1, groups=groups, bias=False)
    torch.nn.init.ones_(layer.weight)
    with torch.no_grad():
        return layer(torch.eye(channels)[:, :, None, None])[:, :, 0, 0].T.numpy()


def routed_convolution(ax: plt.Axes, routes: int, macs: int) -> None:
    """Draw a convolution whose filters see all maps (one route) or their own share of them, with its cost."""
    canvas(ax, "convolution, one route" if routes == 1 else f"convolution, {routes} routes")
    tall = 4.4 / routes
    for number in range(routes):
        y, colour = 0.9 + number * tall, f"C{number}"
        for x in (1.0, 6.8):
            for depth in range(3):
                place = x + 0.22 * depth, y + 0.12 * depth
                ax.add_patch(Rectangle(place, 1.3, tall - 0.5, fc="w", ec=colour, lw=1))
        box(ax, 4.7, y + tall / 2 - 0.1, "filters", width=1.5)
        arrow(ax, (2.9, y + tall / 2 - 0.1), (3.85, y + tall / 2 - 0.1))
        arrow(ax, (5.55, y + tall / 2 - 0.1), (6.7, y + tall / 2 - 0.1))
    ax.annotate(f"{macs / 1e6:.2f} million multiply-accumulates", (5, 0.25), ha="center", fontsize=8)


def toy_router(ax: plt.Axes) -> None:
    """Draw a small network with a router after its first layer: one of three routes is evaluated."""
    canvas(ax, "a routed network, one of three routes taken")
    first, second = column(ax, 0.7, 3, 4, "input"), column(ax, 2.2, 3, 4)
    joined(ax, first, second)
    box(ax, 2.2, 5.2, "router", ROUTER, 1.4)
    arrow(ax, (2.2, 4.15), (2.2, 4.75))
    last = column(ax, 9.2, 3, 3, "classes")
    for number, y in enumerate((4.9, 3, 1.1)):
        taken = number == 1
        colour = LINE if taken else GREY
        arrow(
            ax,
            (2.95, 5.2 if number == 0 else 5.0 - 0.1 * number),
            (4.1, y),
            color=ROUTER,
            linestyle="-" if taken else ":",
        )
        inner, outer = column(ax, 4.6, y, 3, colour=colour), column(ax, 6.6, y, 3, colour=colour)
        joined(ax, inner, outer, LINE if taken else "0.88")
        if taken:
            joined(ax, second, inner)
            joined(ax, outer, last)


def class_tree(ax: plt.Axes, clusters: np.ndarray, classes: Sequence[str], features: int, shown: int = 6) -> None:
    """Draw a last layer as a tree: a router, and a branch for each cluster of classes, as thick as the cluster is big.

    Args:
        ax: where.
        clusters: (C,) cluster of each class, 0 to R − 1.
        classes: names of the classes.
        features: inputs of the layer.
        shown: names written for each cluster.
    """
    sizes = np.bincount(clusters)
    canvas(ax, f"{features} features → {len(clusters)} classes in {len(sizes)} routes", 14, 1.3 * len(sizes) + 0.4)
    middle = 0.65 * len(sizes) + 0.2
    box(ax, 1.3, middle, "router", ROUTER, 1.8)
    for number, size in enumerate(sizes):
        y = 1.3 * (len(sizes) - number) - 0.45
        ax.plot([2.3, 4.2], [middle, y], color=GREY, lw=24 * size / sizes.sum(), solid_capstyle="butt", zorder=1)
        box(ax, 5.1, y, f"{size} classes", width=1.9)
        names = [classes[k] for k in np.flatnonzero(clusters == number)]
        more = f", … ({len(names) - shown} more)" if len(names) > shown else ""
        ax.annotate(", ".join(names[:shown]) + more, (6.3, y), va="center", fontsize=7.5)


def blocks(axes: Sequence[plt.Axes], correlation: np.ndarray, order: Any) -> None:
    """Draw |Λ12| as it is, ordered into blocks, with what lies off them removed, and the routes that remain.

    Args:
        axes: four.
        correlation: (features, classes).
        order: rows, columns and sizes of the blocks, a `papertwin.nets.conditional.BlockOrder`.
    """
    strength = np.abs(correlation)
    ordered = strength[np.ix_(order.rows, order.columns)]
    ends = np.cumsum(order.sizes, axis=0)
    inside = np.zeros_like(ordered, dtype=bool)
    for (row, col), (high, wide) in zip(ends - order.sizes, order.sizes):
        inside[row : row + high, col : col + wide] = True
    titles = ("as trained", "ordered", "off-blocks removed")
    for ax, title, values in zip(axes, titles, (strength, ordered, np.where(inside, ordered, 0.0))):
        ax.imshow(values, cmap="Greys", vmin=0, vmax=strength.max(), aspect="auto")
        ax.set(title=title, xlabel="classes", xticks=[], yticks=[])
    axes[0].set_ylabel("features")
    for ax in axes[1:3]:
        for (row, col), (high, wide) in zip(ends - order.sizes, order.sizes):
            ax.add_patch(Rectangle((col - 0.5, row - 0.5), wide, high, fill=False, ec="C1", lw=1))
    _routed(axes[3], order.sizes)


def _routed(ax: plt.Axes, sizes: np.ndarray) -> None:
    """The routed network: for each block its features and its classes, as high as there are."""
    canvas(ax, "routes", 6, 10)
    ax.set_aspect("auto")
    shares = 8.6 * sizes / sizes.sum(axis=0)
    tops = 9.6 - np.vstack([np.zeros(2), np.cumsum(shares + 0.4, axis=0)[:-1]])
    for number, ((left, right), (a, b), (features, classes)) in enumerate(zip(tops, shares, sizes)):
        colour = f"C{number}"
        for x, top, high, count in ((1.0, left, a, features), (4.6, right, b, classes)):
            ax.add_patch(Rectangle((x - 0.35, top - high), 0.7, max(high, 0.05), fc=colour, ec="none", alpha=0.8))
            ax.annotate(str(count), (x, top - high / 2), ha="center", va="center", fontsize=7)
        ax.fill([1.35, 4.25, 4.25, 1.35], [left, right, right - b, left - a], color=colour, alpha=0.25, lw=0)
    ax.annotate("features", (1.0, 9.9), ha="center", fontsize=7.5)
    ax.annotate("classes", (4.6, 9.9), ha="center", fontsize=7.5)
    ax.set_ylim(-0.6, 10.4)
