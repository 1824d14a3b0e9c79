"""Read back from a drawn figure the numbers that it shows, so that figure and data file cannot disagree."""

from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import Collection, LineCollection, QuadMesh
from matplotlib.figure import Figure
from matplotlib.patches import FancyArrowPatch, Patch
from matplotlib.quiver import Quiver

SAMPLE = 2048
DIGITS = 9


def figure_arrays(figure: Figure) -> list[dict[str, Any]]:
    """List what each axes of a figure shows.

    Returns:
        One dict per axes: title, xlabel, ylabel, series. A series has a `kind` (line, points, segments, arrows,
        image, mesh, patch), a label where the artist has one, and its arrays as `pack` stores them.
    """
    return [
        {
            "title": axes.get_title(loc="left") or axes.get_title(),
            "xlabel": axes.get_xlabel(),
            "ylabel": axes.get_ylabel(),
            "series": list(_series(axes)),
        }
        for axes in figure.axes
    ]


def pack(values: Any) -> dict[str, Any]:
    """Store an array: its shape and values to nine digits; a long one as an even sample with its sum.

    Args:
        values: any numeric array; masked entries become NaN.
    """
    array = np.asarray(np.ma.filled(np.ma.asarray(values, dtype=float), np.nan))
    flat = array.ravel()
    stride = max(1, -(-flat.size // SAMPLE))
    packed = {
        "shape": list(array.shape),
        "values": [None if np.isnan(v) else float(f"{v:.{DIGITS}g}") for v in flat[::stride]],
    }
    if stride > 1:
        packed |= {"every": stride, "sum": float(f"{np.nansum(flat):.{DIGITS}g}")}
    return packed


def _series(axes: Axes):
    label = lambda artist: "" if str(artist.get_label()).startswith("_") else str(artist.get_label())  # noqa: E731
    for line in axes.lines:
        x, y = line.get_data(orig=False)
        yield {"kind": "line", "label": label(line), "x": pack(x), "y": pack(y)}
    for collection in axes.collections:
        yield {"label": label(collection), **_collection(collection)}
    for image in axes.images:
        yield {"kind": "image", "label": label(image), "data": pack(image.get_array())}
    for patch in axes.patches:
        yield {"kind": "patch", "label": label(patch), "vertices": pack(_vertices(patch))}


def _collection(collection: Collection) -> dict[str, Any]:
    shown = collection.get_array()
    colour = {} if shown is None else {"value": pack(shown)}
    if isinstance(collection, Quiver):
        base = {"x": collection.X, "y": collection.Y, "u": collection.U, "v": collection.V}
        return {"kind": "arrows", **{name: pack(v) for name, v in base.items()}, **colour}
    if isinstance(collection, QuadMesh):
        return {"kind": "mesh", "corners": pack(collection.get_coordinates()), **colour}
    if isinstance(collection, LineCollection):
        ends = [segment for segment in collection.get_segments() if len(segment)]
        return {"kind": "segments", "points": pack(np.concatenate(ends) if ends else []), **colour}
    if len(offsets := collection.get_offsets()) and not np.array_equal(offsets, [[0, 0]]):
        return {"kind": "points", "x": pack(offsets[:, 0]), "y": pack(offsets[:, 1]), **colour}
    outlines = [path.vertices for path in collection.get_paths() if len(path.vertices)]
    return {"kind": "area", "vertices": pack(np.concatenate(outlines) if outlines else []), **colour}


def _vertices(patch: Patch) -> np.ndarray:
    if isinstance(patch, FancyArrowPatch):
        start, end = patch._posA_posB
        return np.array([start, end], dtype=float)
    return patch.get_patch_transform().transform(patch.get_path().vertices)
