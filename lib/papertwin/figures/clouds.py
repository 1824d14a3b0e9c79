"""Draw point clouds: from above, from the side, and as a view that a reader can turn."""

from collections.abc import Iterable, Sequence
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import PathCollection

from papertwin.figures.style import GREY

# Neighbouring clusters must differ, so the colours of a qualitative map are dealt out in a fixed shuffled order.
# The map's two greys (14, 15) are left out: grey is for points that belong to no cluster.
_CLUSTER_COLOURS = plt.get_cmap("tab20")(np.random.default_rng(0).permutation(np.r_[0:14, 16:20]))
_NO_CLUSTER = np.array([0.8, 0.8, 0.8, 1.0])


def top_view(axes: Axes, points: np.ndarray, values: Any = GREY, *, unit: str = "m", **options: Any) -> PathCollection:
    """Draw a cloud from above, axes equal, highest points last.

    Args:
        axes: where to draw.
        points: (n, ≥ 2); with a third column the draw order follows height.
        values: one colour, or (n,) numbers, or (n, 4) colours.
        unit: unit of the coordinates, for the axis labels.
        options: passed to scatter (vmin, vmax, cmap, s, …).
    """
    order = np.argsort(points[:, 2], kind="stable") if points.shape[1] > 2 else slice(None)
    if not isinstance(values, str):
        values = np.asarray(values)[order]
    style = {"s": 0.6, "linewidths": 0, "rasterized": True, **options}
    drawn = axes.scatter(points[order, 0], points[order, 1], c=values, **style)
    axes.set_aspect("equal")
    axes.set_xlabel(f"x ({unit})")
    axes.set_ylabel(f"y ({unit})")
    return drawn


def top_map(axes: Axes, points: np.ndarray, values: np.ndarray, cell: float, *, unit: str = "m", **options: Any) -> Any:
    """Draw the mean of a value over the vertical column of points in each ground cell, as an image from above.

    Cells without points stay white; cells whose points have no value (NaN) are grey.

    Args:
        axes: where to draw.
        points: (n, ≥ 2).
        values: (n,) numbers; NaN where a point has no value.
        cell: side of a cell, in the unit of the points.
        unit: unit of the coordinates, for the axis labels.
        options: passed to imshow (vmin, vmax, cmap, …).
    """
    x, y = points[:, 0], points[:, 1]
    edges = [np.arange(along.min(), along.max() + 2 * cell, cell) for along in (x, y)]
    known = np.isfinite(values)
    anything, *_ = np.histogram2d(x, y, edges)
    count, *_ = np.histogram2d(x[known], y[known], edges)
    total, *_ = np.histogram2d(x[known], y[known], edges, weights=values[known])
    mean = np.divide(total, count, out=np.full_like(total, np.nan), where=count > 0)
    placed = {"origin": "lower", "extent": (edges[0][0], edges[0][-1], edges[1][0], edges[1][-1])}
    blank = np.where((anything > 0) & (count == 0), 0.75, np.nan)
    axes.imshow(blank.T, cmap="gray", vmin=0, vmax=1, **placed)
    drawn = axes.imshow(mean.T, **placed, **options)
    axes.set_xlabel(f"x ({unit})")
    axes.set_ylabel(f"y ({unit})")
    return drawn


def oblique_view(
    axes: Axes, points: np.ndarray, values: Any = GREY, azimuth: float = -60, elevation: float = 35
) -> None:
    """Draw a cloud in parallel projection from a raised viewpoint, the nearest points last, without axes.

    Args:
        axes: where to draw.
        points: (n, 3).
        values: one colour, (n,) numbers or (n, 4) colours.
        azimuth: direction of the eye in degrees, counter-clockwise from +x.
        elevation: of the eye above the horizon, in degrees.
    """
    a, e = np.radians([azimuth, elevation])
    right = np.array([-np.sin(a), np.cos(a), 0])
    towards = np.array([np.cos(a) * np.cos(e), np.sin(a) * np.cos(e), np.sin(e)])
    order = np.argsort(points @ towards, kind="stable")
    flat = np.column_stack([points @ right, points @ np.cross(towards, right)])[order]
    colours = values if isinstance(values, str) else np.asarray(values)[order]
    axes.scatter(*flat.T, c=colours, s=1.0, linewidths=0, rasterized=True)
    axes.set_aspect("equal")
    axes.set_axis_off()


def cluster_colours(labels: np.ndarray) -> np.ndarray:
    """Give each label ≥ 0 a colour that differs from its neighbours in number, and −1 light grey, (n, 4)."""
    labels = np.asarray(labels)
    return np.where(labels[:, None] >= 0, _CLUSTER_COLOURS[labels % len(_CLUSTER_COLOURS)], _NO_CLUSTER)


def draw_boxes(axes: Axes, boxes: Iterable[Any], colour: str = "black", names: Sequence[str] | None = None) -> None:
    """Outline oriented boxes as seen from above, each with its name beside it.

    Args:
        axes: a top view.
        boxes: objects with `centre`, `size` (length, width, height), `yaw` and `label`.
        colour: of outline and text.
        names: text per box; the box's label if None, no text where empty.
    """
    boxes = list(boxes)
    for box, name in zip(boxes, names if names is not None else [box.label for box in boxes], strict=True):
        corners = np.array([[1, 1], [1, -1], [-1, -1], [-1, 1], [1, 1]]) * np.array(box.size[:2]) / 2
        cosine, sine = np.cos(box.yaw), np.sin(box.yaw)
        outline = corners @ np.array([[cosine, sine], [-sine, cosine]]) + np.array(box.centre[:2])
        axes.plot(*outline.T, color=colour, linewidth=0.9)
        top = (box.centre[0], outline[:, 1].max())
        axes.annotate(name, top, xytext=(0, 2), textcoords="offset points", fontsize=7, color=colour, ha="center")


def turnable(points: np.ndarray, values: np.ndarray, title: str, *, most: int = 6_000, **marker: Any) -> Any:
    """Make an interactive 3-D view (plotly) of at most `most` points, chosen evenly.

    Args:
        points: (n, 3).
        values: (n,) numbers that colour the points, or (n, 4) colours.
        title: above the view.
        most: how many points; keeps a notebook small.
        marker: further marker settings (colorscale, cmin, cmax, size).
    """
    import plotly.graph_objects as go

    every = slice(None, None, -(-len(points) // most))
    x, y, z = np.asarray(points[every], dtype=np.float32).T
    values = np.asarray(values)[every]
    if values.ndim == 2:
        palette, values = np.unique(np.round(values[:, :3] * 255).astype(int), axis=0, return_inverse=True)
        stops = np.linspace(0, 1, max(len(palette), 2))
        names = [f"rgb({r},{g},{b})" for r, g, b in np.resize(palette, (len(stops), 3))]
        marker = {"colorscale": list(zip(stops, names)), "cmin": 0, "cmax": len(stops) - 1, **marker}
    marker = {"size": 1.4, "color": values.astype(np.float32), **marker}
    scatter = go.Scatter3d(x=x, y=y, z=z, mode="markers", marker=marker)
    hidden = {"visible": False}
    layout = {"aspectmode": "data", "xaxis": hidden, "yaxis": hidden, "zaxis": hidden}
    return go.Figure(scatter, {"title": {"text": title}, "scene": layout, "height": 460, "margin": {"t": 40, "b": 0}})
