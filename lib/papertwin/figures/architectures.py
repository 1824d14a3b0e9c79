"""Diagrams of whole networks: one with both kinds of routing, the two-route ensemble, the groups of each layer.

After arXiv 1603.01250. Layers and their groups are read from real modules.
"""

from collections.abc import Mapping
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.patches import Rectangle

from papertwin.figures.board import GREY, LINE, arrow, box, canvas, column, full, joined, word
from papertwin.figures.diagrams import BOLD, ROUTER


def generic(ax: plt.Axes) -> None:
    """Draw a network that has it all: a full layer, a router with two routes, a layer in two groups, a join."""
    canvas(ax, "generic network: both kinds of routing")
    first, second = column(ax, 0.5, 4.6, 4, "full"), column(ax, 2.2, 4.6, 4)
    joined(ax, full(first, second))
    box(ax, 2.2, 7.9, "router", 1.9, fc=ROUTER)
    arrow(ax, (2.2, 5.9), (2.2, 7.3), lw=0.9)
    ends = []
    for y, on in ((6.4, True), (2.8, False)):
        colour = LINE if on else GREY
        arrow(ax, (3.2, 7.6), (4.3, y), color=ROUTER, lw=BOLD if on else 0.9)
        inner, outer = (column(ax, x, y, 3, colour=colour) for x in (4.7, 6.3))
        joined(ax, full(inner, outer), colour)
        ends += outer
    word(ax, 5.5, 1.2, "explicit", fontsize=8)
    upper, lower = column(ax, 8.3, 6.4, 3), column(ax, 8.3, 2.8, 3)
    joined(ax, full(ends[:3], upper) + full(ends[3:], lower))
    word(ax, 7.7, 1.2, "implicit", fontsize=8)
    last = column(ax, 11.0, 4.6, 3, "join")
    joined(ax, full([*upper, *lower], last))


def ensemble(ax: plt.Axes, views: int) -> None:
    """Draw the two-route ensemble: one view, a router on its features, and all views for some images."""
    canvas(ax, "two-route ensemble")
    box(ax, 1.2, 4.6, "image", 1.7)
    box(ax, 4.4, 6.8, "network,\n1 view", 2.3, 1.6)
    box(ax, 7.6, 6.8, "router", 1.9, fc=ROUTER)
    box(ax, 10.7, 6.8, "answer 1", 2.0)
    box(ax, 7.6, 2.4, f"network,\n{views} views", 2.3, 1.6)
    box(ax, 10.7, 2.4, "answer 2", 2.0)
    arrow(ax, (1.9, 5.2), (3.2, 6.6))
    for start, end in (((5.6, 6.8), (6.6, 6.8)), ((8.6, 6.8), (9.6, 6.8)), ((8.8, 2.4), (9.6, 2.4))):
        arrow(ax, start, end)
    arrow(ax, (7.6, 6.2), (7.6, 3.3), color=ROUTER, lw=BOLD)
    arrow(ax, (2.1, 4.2), (6.4, 2.6), color=GREY)
    word(ax, 8.1, 4.8, "share $f$", ha="left")
    word(ax, 6.0, 0.5, f"cost: 1 + {views - 1} f + router")


def layers(ax: plt.Axes, modules: Mapping[str, Any], title: str) -> None:
    """Draw layers from the input (bottom) to the output: as wide as their outputs, cut into their groups.

    Args:
        ax: where.
        modules: name → a convolution or a linear layer.
        title: of the drawing.
    """
    outputs = {name: getattr(layer, "out_channels", None) or layer.out_features for name, layer in modules.items()}
    canvas(ax, title, 13, len(modules) + 0.5, aspect="auto")
    widest = np.log2(max(outputs.values()))
    for row, (name, layer) in enumerate(modules.items()):
        groups, reach = getattr(layer, "groups", 1), 6.5 * np.log2(outputs[name]) / widest
        left = 5.6 - reach / 2
        for group in range(groups):
            place = left + group * reach / groups, row + 0.35
            ax.add_patch(
                Rectangle(place, 0.92 * reach / groups, 0.6, fc=f"C{int(np.log2(groups))}", ec="none", alpha=0.8)
            )
        word(ax, 0.1, row + 0.65, name, ha="left")
        word(ax, 9.2, row + 0.65, f"{outputs[name]}" + (f" in {groups} groups" if groups > 1 else ""), ha="left")
