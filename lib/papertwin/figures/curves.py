"""Lines over several seeds: the mean, the range of the seeds behind it, and names in the lines' own colours."""

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd

from papertwin.errors import InputError

COLUMNS = ("mean", "min", "max")
ROOM = 0.055  # of the height of the axes, between two names


def seed_curves(
    ax: plt.Axes,
    curves: Mapping[str, pd.DataFrame],
    *,
    places: Sequence[float] | None = None,
    levels: Sequence[str] = (),
    colours: Mapping[str, str] | None = None,
    names: bool = True,
    beside: bool = True,
) -> None:
    """Draw a line for each table, and a bar at each point from the worst to the best seed.

    Args:
        ax: where; what is drawn besides, the scale and the limits of the vertical axis come before, as names are
            placed by them.
        curves: name → table whose index is the horizontal coordinate, with columns mean, min and max.
        places: values of the index in the order in which they stand at equal distances, a line has a gap at those
            that its table lacks; None takes their own size.
        levels: names of tables of which the first row is drawn as a level line, whatever its index.
        colours: name → colour; None takes those of the style, in order.
        names: whether the names are written at the right ends of the lines.
        beside: whether points of one place stand beside each other, so that bars do not hide each other.

    Raises:
        InputError: nothing to draw, a column is missing, or a place is unknown.
    """
    if not curves or any(not set(COLUMNS) <= set(each) or each.empty for each in curves.values()):
        raise InputError(f"curves must have tables with rows and the columns {', '.join(COLUMNS)}, at least one table.")
    at = {value: number for number, value in enumerate(places)} if places is not None else None
    points = [value for name, each in curves.items() if name not in levels for value in each.index]
    if at is not None and not set(points) <= set(at):
        raise InputError(f"places lacks {sorted(set(points) - set(at))}, at which there are points; got {list(at)}.")
    step = 0.005 * beside * float(np.ptp([value if at is None else at[value] for value in points])) if points else 0.0
    ends = {}
    for number, (name, table) in enumerate(curves.items()):
        colour = (colours or {}).get(name, f"C{number % 7}")
        mean = float(table["mean"].iloc[0])
        if name in levels:
            ax.axhline(mean, color=colour, ls="--", lw=0.9, label=name)
        else:
            if places is not None:  # with a gap where there is no row
                table = table.reindex(places).set_axis(range(len(places)))
            shift = step * (number - len(curves) / 2)
            x = table.index.to_numpy(dtype=float) + shift
            ax.plot(x, table["mean"], "o-", ms=3.5, color=colour, label=name)
            there = table.dropna(subset=list(COLUMNS))
            ax.vlines(there.index + shift, there["min"], there["max"], color=colour, lw=0.8, alpha=0.6)
            mean = float(there["mean"].iloc[-1])
        ends[name] = (mean, colour)
    if at is not None:
        ax.set_xticks(range(len(at)), [f"{value:g}" for value in at])
    if names:
        _name(ax, ends)


def _name(ax: plt.Axes, ends: Mapping[str, tuple[float, str]]) -> None:
    """Write names at the right of the axes, as near to the ends of their lines as they have room."""
    order = sorted(ends, key=lambda name: ends[name][0])
    to_axes = ax.transScale + ax.transLimits
    heights = np.array([to_axes.transform((ax.get_xlim()[1], ends[name][0]))[1] for name in order])
    for _ in range(50):  # push neighbours apart until all have room
        gaps = np.diff(heights)
        for place in np.flatnonzero(gaps < ROOM):
            push = (ROOM - gaps[place]) / 2
            heights[place] -= push
            heights[place + 1] += push
    for name, height in zip(order, heights):
        ax.annotate(
            name,
            (1, height),
            (5, 0),
            xycoords="axes fraction",
            textcoords="offset points",
            va="center",
            fontsize=8.5,
            color=ends[name][1],
            annotation_clip=False,
        )
