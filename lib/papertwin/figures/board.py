"""A drawing board for diagrams: dots, lines, boxes, arrows, maps seen aslant, branches of a given thickness."""

from collections.abc import Iterable, Sequence
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.collections import LineCollection
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch, Polygon

LINE, GREY, FAINT = "0.2", "0.72", "0.88"
SMALL = 8.0  # points
WIDE, HIGH = 12.0, 9.0  # units of a board

Point = tuple[float, float]


def canvas(ax: plt.Axes, title: str, width: float = WIDE, height: float = HIGH, aspect: str = "equal") -> None:
    """Make an axis a drawing board of so many units."""
    ax.set(xlim=(0, width), ylim=(0, height), xticks=[], yticks=[], title=title, aspect=aspect)
    ax.spines[:].set_visible(False)


def word(ax: plt.Axes, x: float, y: float, text: str, **options: Any) -> None:
    """Write a few words centred at (x, y)."""
    ax.annotate(text, (x, y), **{"ha": "center", "va": "center", "fontsize": SMALL, "zorder": 5, **options})


def column(
    ax: plt.Axes, x: float, y: float, count: int, label: str = "", colour: str = LINE, step: float = 0.7
) -> list[Point]:
    """Draw a layer as a column of dots centred at (x, y), named below; return their places, the lowest first."""
    places = [(x, y + step * (k - (count - 1) / 2)) for k in range(count)]
    ax.plot(*np.array(places).T, "o", color=colour, ms=5, zorder=3)
    if label:
        word(ax, x, places[0][1] - 0.75, label)
    return places


def joined(ax: plt.Axes, pairs: Iterable[tuple[Point, Point]], colour: str = GREY, wide: float = 0.6) -> None:
    """Draw a line for each pair of places."""
    ax.add_collection(LineCollection([np.array(pair) for pair in pairs], colors=colour, linewidths=wide, zorder=1))


def full(first: Sequence[Point], second: Sequence[Point]) -> list[tuple[Point, Point]]:
    """Pairs of a full projection: every value of one layer with every value of the next."""
    return [(a, b) for a in first for b in second]


def box(ax: plt.Axes, x: float, y: float, text: str, width: float = 1.8, height: float = 1.1, **options: Any) -> None:
    """Draw a named box centred at (x, y)."""
    style = {"fc": "w", "ec": LINE, "lw": 0.9, **options}
    corner = x - width / 2 + 0.1, y - height / 2 + 0.1
    ax.add_patch(FancyBboxPatch(corner, width - 0.2, height - 0.2, boxstyle="round,pad=0.1", zorder=3, **style))
    word(ax, x, y, text)


def arrow(ax: plt.Axes, start: Point, end: Point, **options: Any) -> None:
    """Draw an arrow."""
    style = {"color": LINE, "lw": 0.9, **options}
    ax.add_patch(FancyArrowPatch(start, end, arrowstyle="-|>", mutation_scale=9, shrinkA=0, shrinkB=0, **style))


def cuboid(ax: plt.Axes, x: float, y: float, deep: float, high: float, wide: float, colour: str) -> None:
    """Draw maps `high` by `wide` and `deep` channels: channels to the right, the width of a map away from the eye."""
    away = np.array([0.28 * wide, 0.2 * wide])
    corner = np.array([(x, y), (x + deep, y), (x + deep, y + high), (x, y + high)])
    style = {"fc": "w", "ec": colour, "lw": 0.9, "joinstyle": "round", "zorder": 2}
    for face in (corner, [corner[3], corner[2], corner[2] + away, corner[3] + away]):
        ax.add_patch(Polygon(face, **style))
    ax.add_patch(Polygon([corner[1], corner[1] + away, corner[2] + away, corner[2]], **style))


def band(ax: plt.Axes, start: Point, end: Point, thick: float, colour: str) -> None:
    """Draw a branch from the top of its start to the top of its end, everywhere equally thick."""
    part = np.linspace(0, 1, 40)
    x = start[0] + part * (end[0] - start[0])
    y = start[1] + part**2 * (3 - 2 * part) * (end[1] - start[1])
    outline = np.vstack([np.column_stack([x, y]), np.column_stack([x, y - thick])[::-1]])
    ax.add_patch(Polygon(outline, fc=colour, ec="none", alpha=0.55, zorder=1))


def fitting(names: Sequence[str], room: int) -> str:
    """The first names that fit into so many letters, at least one, and how many more there are."""
    ends = np.cumsum([len(name) + 2 for name in names])
    shown = max(1, int((ends <= room).sum()))
    more = len(names) - shown
    return ", ".join(names[:shown]) + (f" and {more} more" if more else "")
