"""Names of points, where the points are: each finds a free place when the figure is drawn.

Whatever layout, limits and size a figure ends up with, names keep apart from each other and from markers.
"""

from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.artist import Artist
from matplotlib.collections import LineCollection, PathCollection
from matplotlib.text import Annotation, Text

from papertwin.errors import InputError

SIZE = 7.5  # points, of letters
# where a label may stand: away from its point by (right, up); of equally free places the first is taken
WAYS = (
    *((1, 0), (1, 1), (1, -1), (-1, 0), (0, 1), (0, -1), (-1, 1), (-1, -1)),
    *((1, 0.5), (1, -0.5), (-1, 0.5), (-1, -0.5), (0.5, 1), (0.5, -1), (-0.5, 1), (-0.5, -1)),
)
STEPS = (4.5, 9.0, 16.0, 25.0, 36.0, 50.0)  # points
ROUNDS = 8  # at most, until no label moves any more
FAR = 12.0  # points: a label farther away has a line to its point
HIT = 10.0  # what it costs to lie on a label or a marker; lines cost less, leaving the axes more
NONE = (None, "None", "none", "", " ")


def place_labels(
    ax: plt.Axes,
    xs: Sequence[float],
    ys: Sequence[float],
    texts: Sequence[str],
    *,
    colours: str | Sequence[str] = "0.15",
    size: float = SIZE,
) -> list[Annotation]:
    """Name points where they are, so that no name lies on another, on a marker or outside of the axes.

    Places are chosen when the figure is drawn, one label after the other in the order given, then again each beside the
    others until none moves. One that ends far away has a line to its point. The same figure gets the same places.

    Args:
        ax: where the points are.
        xs: (n,) places in data coordinates.
        ys: (n,) as well.
        texts: (n,) names; empty ones are left out.
        colours: one, or one a label.
        size: of letters, points.

    Returns:
        The labels.

    Raises:
        InputError: numbers of places, names and colours that do not fit.
    """
    hues = [colours] * len(texts) if isinstance(colours, str) else list(colours)
    if not len(xs) == len(ys) == len(texts) == len(hues):
        sizes = ", ".join(str(len(each)) for each in (xs, ys, texts, hues))
        raise InputError(f"xs, ys, texts and colours must be equally many, got {sizes}.")
    labels = []
    for x, y, text, hue in zip(xs, ys, texts, hues):
        if text:
            line = {"arrowstyle": "-", "lw": 0.4, "color": "0.5", "shrinkA": 0, "shrinkB": 1}
            label = ax.annotate(
                text,
                (x, y),
                (STEPS[0], 0),
                textcoords="offset points",
                arrowprops=line,
                fontsize=size,
                color=hue,
                ha="center",
                va="center",
                zorder=6,
            )
            label.set_in_layout(False)
            labels.append(label)
    figure = ax.get_figure(root=True)
    placers = [artist for artist in figure.artists if isinstance(artist, _Placer)]
    (placers[0] if placers else figure.add_artist(_Placer())).labels.extend(labels)
    return labels


class _Placer(Artist):
    """Draws nothing; before anything else of a figure is drawn it moves the labels to their places."""

    def __init__(self):
        super().__init__()
        self.labels: list[Annotation] = []
        self.set_zorder(-1000)
        self.set_in_layout(False)

    def draw(self, renderer: Any) -> None:
        """Move the labels."""
        labels = [label for label in self.labels if label.axes is not None and label.get_visible()]
        own = {id(label) for label in labels}
        around = [_Surroundings(label, own, renderer) for label in labels]
        boxes = np.full((len(labels), 4), np.nan)  # of those that have a place: NaN covers nothing
        for _ in range(ROUNDS):
            before = boxes.copy()
            for number, here in enumerate(around):
                boxes[number] = here.choose(np.delete(boxes, number, axis=0))
            if np.array_equal(before, boxes):
                break


class _Surroundings:
    """A label, the places where it may stand, and what is in the way of each."""

    def __init__(self, label: Annotation, own: set[int], renderer: Any):
        pixels = renderer.points_to_pixels(1.0)
        self.label, self.pixels = label, pixels
        for axes in (beside := _beside(label.axes)):
            axes.get_xlim(), axes.get_ylim()  # limits that depend on the data are up to date now
        extent = Text.get_window_extent(label, renderer)
        self.size = np.array([extent.width, extent.height]) + 1.5 * pixels
        self.point = label.axes.transData.transform(label.xy)
        self.offsets = pixels * np.array([(step * x, step * y) for step in STEPS for x, y in WAYS])
        self.offsets = self.offsets + np.sign(self.offsets) * self.size / 2
        middle = self.point + self.offsets
        self.boxes = np.hstack([middle - self.size / 2, middle + self.size / 2])
        texts = [text for axes in beside for text in axes.texts if id(text) not in own and text.get_text().strip()]
        words = [Text.get_window_extent(text, renderer).extents for text in texts]
        marks = np.array([box for axes in beside for box in _marks(axes, pixels)]).reshape(-1, 4)
        dots = np.concatenate([np.zeros((0, 2)), *(dots for axes in beside for dots in _dots(axes, pixels))])
        self.cost = HIT * (_covered(self.boxes, words) + 0.7 * _covered(self.boxes, marks))
        others = marks[~((marks[:, :2] <= self.point) & (self.point <= marks[:, 2:])).all(axis=1)]
        self.cost += HIT * 0.1 * (_away(self.boxes, others) < _away(self.boxes, np.tile(self.point, (1, 2))) + pixels)
        self.cost += HIT * (0.04 * np.minimum(_inside(self.boxes, dots), 10))
        self.cost += HIT * (2 * _outside(self.boxes, label.axes.bbox.extents) + 0.0015 * np.arange(len(middle)))

    def choose(self, others: np.ndarray) -> np.ndarray:
        """Move the label to the best place beside the other labels; return its box."""
        best = int(np.argmin(self.cost + HIT * _covered(self.boxes, others)))
        offset = tuple(np.round(self.offsets[best] / self.pixels, 3).tolist())
        if self.label.xyann != offset:
            self.label.xyann = offset
        self.label.arrow_patch.set_visible(STEPS[best // len(WAYS)] > FAR)
        return self.boxes[best]


def _beside(ax: plt.Axes) -> list[plt.Axes]:
    """The axes and those that lie on them, twins."""
    everyone = ax.get_figure(root=True).axes
    return [each for each in everyone if np.allclose(each.bbox.extents, ax.bbox.extents)]


def _marks(axes: plt.Axes, pixels: float) -> Iterator[np.ndarray]:
    """Boxes around markers, in pixels."""
    for line in axes.lines:
        if line.get_visible() and line.get_marker() not in NONE:
            places = line.get_transform().transform(line.get_xydata())
            half = pixels * (line.get_markersize() / 2 + 0.5)
            yield from np.hstack([places - half, places + half])
    for points in axes.collections:
        if points.get_visible() and isinstance(points, PathCollection):
            places = points.get_offset_transform().transform(points.get_offsets())
            yield from np.hstack([places - 3 * pixels, places + 3 * pixels])


def _dots(axes: plt.Axes, pixels: float) -> Iterator[np.ndarray]:
    """Places along lines, three points from each other: (n, 2) in pixels."""
    lines = [each for each in axes.lines if each.get_visible() and each.get_linestyle() not in NONE]
    ends = [each.get_transform().transform(each.get_xydata()) for each in lines]
    for each in axes.collections:
        if each.get_visible() and isinstance(each, LineCollection):
            ends += [each.get_transform().transform(segment) for segment in each.get_segments()]
    for line in ends:
        for start, end in pairwise(line):
            if np.isfinite([start, end]).all():
                count = int(np.hypot(*(end - start)) / (3 * pixels)) + 2
                yield np.linspace(start, end, min(count, 2000))


def _covered(boxes: np.ndarray, others: Any) -> np.ndarray:
    """How much of each box lies under others, in parts of the smaller one, 0.3 at least where they touch."""
    others = np.asarray(others, dtype=float).reshape(1, -1, 4)
    sides = [
        np.minimum(boxes[:, None, k + 2], others[..., k + 2]) - np.maximum(boxes[:, None, k], others[..., k])
        for k in (0, 1)
    ]
    area = np.clip(sides[0], 0, None) * np.clip(sides[1], 0, None)
    sizes = [(each[..., 2] - each[..., 0]) * (each[..., 3] - each[..., 1]) for each in (boxes[:, None], others)]
    share = area / np.maximum(np.minimum(*sizes), 1e-9)
    return np.where(area > 0, 0.3 + share, 0.0).sum(axis=1)


def _away(boxes: np.ndarray, others: np.ndarray) -> np.ndarray:
    """How far each box is from the nearest of the others, in pixels; infinitely far if there is none."""
    gaps = np.maximum(others[:, :2] - boxes[:, None, 2:], boxes[:, None, :2] - others[:, 2:])
    return np.hypot(*np.moveaxis(np.maximum(gaps, 0), 2, 0)).min(axis=1, initial=np.inf)


def _inside(boxes: np.ndarray, dots: np.ndarray) -> np.ndarray:
    """How many of the dots lie in each box."""
    low, high = boxes[:, None, :2], boxes[:, None, 2:]
    return ((dots >= low) & (dots <= high)).all(axis=2).sum(axis=1)


def _outside(boxes: np.ndarray, whole: np.ndarray) -> np.ndarray:
    """Whether, and how far in parts of its size, a box leaves the axes."""
    beyond = np.maximum(whole[:2] - boxes[:, :2], 0) + np.maximum(boxes[:, 2:] - whole[2:], 0)
    share = (beyond / (boxes[:, 2:] - boxes[:, :2])).sum(axis=1)
    return np.where(share > 0, 0.3 + share, 0.0)
