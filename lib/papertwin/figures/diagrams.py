"""Diagrams of conditional networks, after those of arXiv 1603.01250.

What can be computed is drawn from it: lines and blocks from the weights of a real grouped layer, branches of a tree and
blocks of a correlation from real clusters, costs from counts. Orange is a router, bold the way of one example, grey
what that example does not visit.
"""

from collections.abc import Sequence
from itertools import pairwise
from typing import Any, Literal

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.patches import Polygon, Rectangle

from papertwin.figures.board import (
    FAINT,
    GREY,
    HIGH,
    LINE,
    WIDE,
    arrow,
    band,
    box,
    canvas,
    column,
    cuboid,
    fitting,
    full,
    joined,
    word,
)

ROUTER = "#E69F00"
BOLD = 2.2  # points


# ---- notation, routing -----------------------------------------------------------------------------------------------


def notation(ax: plt.Axes) -> None:
    """Draw a network, a stump and a tree in one notation: values, projections, and routers that choose one way."""
    canvas(ax, "a network, a stump, a tree")
    layers = [column(ax, 0.5 + 1.5 * k, 5.0, count, f"$v_{k}$") for k, count in enumerate((4, 4, 3))]
    for number, (first, second) in enumerate(pairwise(layers), start=1):
        joined(ax, full(first, second))
        word(ax, (first[0][0] + second[0][0]) / 2, 6.75, f"$P^{number}$")
    word(ax, 2.0, 8.1, "network")
    word(ax, 2.0, 1.9, "every value\nsees all")
    _branches(ax, 5.2, 1, "stump", "one router,\ntwo routes")
    _branches(ax, 8.4, 2, "tree", "a router\nat each fork")
    word(ax, 6.0, 0.4, "orange: router    square: answer    bold: the way of one example", fontsize=7)


def _branches(ax: plt.Axes, x: float, depth: int, name: str, said: str) -> None:
    """Draw routers that send an example up or down, `depth` times; the example goes up, then down."""
    ways, way = {(): (x, 5.0)}, tuple((-1) ** k for k in range(depth))
    for level in range(depth):
        for path in [path for path in ways if len(path) == level]:
            across, up = ways[path]
            ways |= {(*path, turn): (across + 1.6, up + turn * 1.5 / 2**level) for turn in (1, -1)}
    taken = {way[:level] for level in range(depth + 1)}
    for path, place in ways.items():
        answer, on = len(path) == depth, path in taken
        if path:
            joined(ax, [(ways[path[:-1]], place)], LINE if on else GREY, BOLD if on else 0.9)
        colour = (LINE if on else GREY) if answer else ROUTER
        ax.plot(*place, "s" if answer else "o", color=colour, ms=6 if answer else 8, zorder=3)
    word(ax, x + 0.8 * depth, 8.1, name)
    word(ax, x + 0.8 * depth, 1.9, said)


def routing(ax: plt.Axes, kind: Literal["explicit", "implicit"], layer: Any = None) -> None:
    """Draw explicit routing, a router that weighs routes, or implicit routing, the blocks of a grouped layer.

    Args:
        ax: where.
        kind: explicit or implicit.
        layer: for implicit routing a `torch.nn.Conv2d` in groups, whose weights are drawn; None makes one of 3 groups.
    """
    canvas(ax, f"{kind} routing")
    if kind == "implicit":
        _implicit(ax, seen_weights(layer))
    else:
        _explicit(ax)


def _explicit(ax: plt.Axes) -> None:
    """A router gives a share to each of three routes; the outputs are weighed and added."""
    box(ax, 1.0, 4.2, "$v_0$", 1.2)
    box(ax, 4.2, 7.9, "router", 2.0, fc=ROUTER)
    ax.plot([1.0, 1.0, 3.2], [4.75, 7.9, 7.9], color=LINE, lw=0.9, zorder=1)
    ax.plot([5.2, 7.4, 7.4], [7.9, 7.9, 2.15], color=ROUTER, lw=1.2, zorder=1)
    for number, y in enumerate((6.3, 4.2, 2.1), start=1):
        style = {"color": LINE, "lw": BOLD} if number == 1 else {"color": GREY}
        arrow(ax, (1.6, 4.2 + 0.15 * (2 - number)), (3.35, y), **style)
        box(ax, 4.2, y, f"$P^{number}$", 1.7, ec=style["color"])
        arrow(ax, (5.05, y), (7.1, y), **style)
        word(ax, 6.1, y + 0.5, f"$v_1^{number}$")
        ax.plot(7.4, y, "o", ms=11, mfc="w", mec=ROUTER, zorder=3)
        word(ax, 7.4, y, "×")
        word(ax, 8.05, y + (0.6 if number < 3 else -0.6), f"$r_{number}$", color="#B07500")
        arrow(ax, (7.7, y), (9.5, 4.2 + 0.2 * (2 - number)), **style)
    ax.plot(9.85, 4.2, "o", ms=13, mfc="w", mec=LINE, zorder=3)
    word(ax, 9.85, 4.2, "+")
    arrow(ax, (10.2, 4.2), (11.1, 4.2))
    word(ax, 11.5, 4.2, "$v_2$")
    word(ax, 6.0, 0.4, "$v_2 = r_1 v_1^1 + r_2 v_1^2 + r_3 v_1^3$;   a test keeps the largest $r_j$ only", fontsize=7)


def _implicit(ax: plt.Axes, weights: np.ndarray) -> None:
    """Inputs and outputs of a layer, joined where a weight joins them, and the same weights as a matrix."""
    outputs, inputs = weights.shape
    tall = 5.4
    first = column(ax, 0.8, 4.6, inputs, "$v_0$", step=tall / inputs)[::-1]  # from above, as in the matrix
    second = column(ax, 3.6, 4.6, outputs, "$v_1$", step=tall / outputs)[::-1]
    joined(ax, [(first[i], second[o]) for o, i in np.argwhere(weights)], LINE)
    shade = np.where(weights, 0.35 + 0.65 * weights / weights.max(), 0.0)
    place = 6.2, 4.6 - tall / 2
    ax.imshow(shade, cmap="Greys", vmin=0, vmax=1.25, extent=(6.2, 6.2 + tall, place[1], place[1] + tall), zorder=2)
    ax.add_patch(Rectangle(place, tall, tall, fill=False, ec=LINE, lw=0.8, zorder=3))
    word(ax, 6.2 + tall / 2, place[1] + tall + 0.45, "from $v_0$")
    word(ax, 5.75, 4.6, "to $v_1$", rotation=90)
    word(ax, 6.0, 0.4, "filter groups: a block of weights each, nothing between them", fontsize=7)
    ax.set(xlim=(0, WIDE), ylim=(0, HIGH))


def seen_weights(layer: Any = None) -> np.ndarray:
    """How strongly each output of a convolution depends on each input, Σ |w| over the kernel, by asking the layer.

    Args:
        layer: a `torch.nn.Conv2d`; None makes one with 6 channels in 3 groups.

    Returns:
        (outputs, inputs), 0 where nothing joins them.
    """
    import torch

    if layer is None:
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(0)
            layer = torch.nn.Conv2d(6, 6, 1, groups=3)
    strength = layer.weight.detach().abs().sum(dim=(2, 3), keepdim=True)
    each = torch.eye(layer.in_channels)[:, :, None, None]
    return torch.nn.functional.conv2d(each, strength, groups=layer.groups)[:, :, 0, 0].T.numpy()


def routed_convolution(ax: plt.Axes, routes: int, macs: int) -> None:
    """Draw a convolution whose filters see all channels (one route) or their own share of them, with its cost.

    Args:
        ax: where.
        routes: R; each has 1/R of the channels and of the filters.
        macs: multiply-accumulates of an image.
    """
    canvas(ax, "convolution, one route" if routes == 1 else f"convolution, {routes} routes")
    part, step = "" if routes == 1 else f"/{routes}", 7.4 / routes
    deep, high = 2.2 / routes, min(3.4, step - 1.6)
    for number in range(routes):
        middle, colour = 1.2 + (routes - 0.5 - number) * step, f"C{number}"
        for x, name in ((0.6, "c"), (8.4, "d")):
            cuboid(ax, x + (2.2 - deep) / 2, middle - high / 2, deep, high, high, colour)
            word(ax, x + 1.1 + 0.14 * high, middle - high / 2 - 0.4, f"${name}{part}$ maps")
        for shift in (0.3, 0.0):
            cuboid(ax, 5.8 - deep / 2 + shift, middle - 0.4 + shift, deep, 0.6, 0.6, colour)
        word(ax, 6.0, middle - 0.8, f"$d{part}$ filters")
        arrow(ax, (3.9, middle), (5.6 - deep / 2, middle))
        arrow(ax, (6.5 + deep / 2, middle), (8.2 + (2.2 - deep) / 2, middle))
    word(ax, 6.0, 0.4, f"{macs:,} multiply-accumulates", fontsize=9)


def toy_router(ax: plt.Axes, routes: int = 3, taken: int = 1) -> None:
    """Draw a small network with a router after its first layer, which evaluates one of its routes."""
    canvas(ax, f"a routed network, one of {routes} routes taken")
    first, second = column(ax, 0.5, 4.6, 4, "input"), column(ax, 2.4, 4.6, 4)
    last = column(ax, 11.2, 4.6, 3, "classes")
    joined(ax, full(first, second))
    box(ax, 3.6, 7.9, "router", 2.0, fc=ROUTER)
    ax.plot([2.4, 2.4, 2.6], [5.9, 7.9, 7.9], color=LINE, lw=0.9, zorder=1)
    arrow(ax, (4.3, 7.3), (4.3, 5.05), color=ROUTER, lw=1.2)
    joined(ax, [(place, (4.3, 4.6)) for place in second])
    for number, y in enumerate(np.linspace(7.3, 1.9, routes)):
        on = number == taken
        inner, outer = (column(ax, x, y, 3, colour=LINE if on else GREY) for x in (6.4, 8.8))
        joined(ax, full(inner, outer), LINE if on else FAINT)
        arrow(ax, (4.65, 4.6 + 0.12 * np.sign(y - 4.6)), (6.0, y), color=LINE if on else GREY, lw=BOLD if on else 0.9)
        joined(ax, full(outer, last), LINE if on else FAINT)
    ax.plot(4.3, 4.6, "D", color=ROUTER, ms=9, zorder=3)
    word(ax, 6.0, 0.4, "grey: not evaluated for this example", fontsize=7)


# ---- what was found --------------------------------------------------------------------------------------------------


def class_tree(ax: plt.Axes, clusters: np.ndarray, classes: Sequence[str], features: int, room: int = 66) -> None:
    """Draw a last layer as a tree: a router, and a branch for each cluster of classes, as thick as the cluster is big.

    Args:
        ax: where.
        clusters: (C,) cluster of each class, 0 to R − 1.
        classes: names of the classes.
        features: inputs of the layer.
        room: letters of names written for each cluster.
    """
    sizes = np.bincount(clusters)
    shares = 2.6 * sizes / sizes.sum()  # thickness of the branches
    tops = 5.5 - np.cumsum([0, *np.maximum(shares, 0.95) + 0.25])
    canvas(ax, f"{features} features → {len(clusters)} classes in {len(sizes)} routes", 14, 5.6, aspect="auto")
    middle = (tops[0] + tops[-1] + 0.25) / 2
    leaving = middle + shares.sum() / 2 - np.cumsum([0, *shares])
    box(ax, 1.1, middle, f"router\n{features} → {len(sizes)}", 1.9, shares.sum() + 0.1, fc=ROUTER)
    for number, (size, share) in enumerate(zip(sizes, shares)):
        y = tops[number] - max(share, 0.95) / 2
        band(ax, (2.08, leaving[number]), (4.6, y + share / 2), share, f"C{number}")
        word(ax, 4.8, y + 0.2, f"{size} classes", ha="left", fontweight="bold")
        word(ax, 4.8, y - 0.2, f"{features} → {size}", ha="left", color="0.4")
        names = [classes[k] for k in np.flatnonzero(clusters == number)]
        word(ax, 6.4, y, fitting(names, room), ha="left", fontsize=7.5)
    ax.set_ylim(tops[-1], 5.6)


def blocks(axes: Sequence[plt.Axes], correlation: np.ndarray, order: Any) -> None:
    """Draw |Λ12| as it is, ordered into blocks, with what lies off them removed, and the routes that remain.

    Args:
        axes: four.
        correlation: (features, classes).
        order: rows, columns and sizes of the blocks, a `papertwin.nets.conditional.BlockOrder`.
    """
    strength = np.abs(correlation)
    ordered = strength[np.ix_(order.rows, order.columns)]
    corners = np.cumsum(order.sizes, axis=0) - order.sizes
    inside = np.zeros_like(ordered, dtype=bool)
    for (row, col), (high, wide) in zip(corners, order.sizes):
        inside[row : row + high, col : col + wide] = True
    titles = (r"$|\Lambda_{12}|$ as trained", "ordered into blocks", "off-blocks removed")
    for ax, title, values in zip(axes, titles, (strength, ordered, np.where(inside, ordered, 0.0))):
        ax.imshow(values, cmap="Greys", vmin=0, vmax=strength.max(), aspect="auto")
        ax.set(title=title, xlabel=f"{strength.shape[1]} classes", xticks=[], yticks=[])
    axes[0].set_ylabel(f"{strength.shape[0]} features")
    for ax in axes[1:3]:
        for number, ((row, col), (high, wide)) in enumerate(zip(corners, order.sizes)):
            place = col - 0.5, row - 0.5
            ax.add_patch(Rectangle(place, wide, high, fill=False, ec=f"C{number}", lw=1.6, clip_on=False))
    _routed(axes[3], order.sizes)


def _routed(ax: plt.Axes, sizes: np.ndarray) -> None:
    """The routed network: for each block its features and its classes, bars as high as there are many."""
    canvas(ax, "the routes that remain", 6, 10, aspect="auto")
    gap = 0.25
    shares = (9.4 - gap * (len(sizes) - 1)) * sizes / sizes.sum(axis=0)
    tops = 9.4 - np.cumsum(np.vstack([np.zeros(2), shares[:-1] + gap]), axis=0)
    for number, (top, share, counts) in enumerate(zip(tops, shares, sizes)):
        colour = f"C{number}"
        for x, edge, high, many in zip((1.0, 5.0), top, share, counts):
            ax.add_patch(Rectangle((x - 0.45, edge - high), 0.9, high, fc=colour, ec="none", alpha=0.8))
            word(ax, x, edge - high / 2, str(many), fontsize=7)
        left, right = zip(top, top - share)
        ax.add_patch(
            Polygon([(1.45, left[0]), (4.55, right[0]), (4.55, right[1]), (1.45, left[1])], fc=colour, alpha=0.25)
        )
    word(ax, 1.0, 9.75, "features", fontsize=7.5)
    word(ax, 5.0, 9.75, "classes", fontsize=7.5)
