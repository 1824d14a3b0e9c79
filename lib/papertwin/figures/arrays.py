"""Read back from a drawn figure the numbers that it shows, so that figure and data file cannot disagree."""

import math
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import Collection, LineCollection, PathCollection, QuadMesh
from matplotlib.figure import Figure
from matplotlib.patches import FancyArrowPatch, Patch
from matplotlib.quiver import Quiver
from matplotlib.text import Annotation, Text

SAMPLE = 2048
DIGITS = 9


def figure_arrays(figure: Figure) -> list[dict[str, Any]]:
    """List what each axes of a figure shows.

    Returns:
        One dict per axes: title, xlabel, ylabel, series. A series has a `kind` (line, points, segments, arrows,
        area, image, mesh, patch, text), a label where the artist has one, and its arrays as `pack` stores them. An
        image has its extent (left, right, bottom, top); a text its words and the point that it stands at or points
        to, in the coordinates that it was given; points have their colours where each has its own. Lines and points
        of 3-D axes have a `z`.
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
    """Store an array: its shape and values to nine digits; a long one as an even sample with the sum of the finite.

    Args:
        values: any numeric array; masked entries count as NaN.

    Returns:
        Standard JSON, which knows no NaN and no infinity: NaN is stored as null, the infinities as the texts "inf"
        and "-inf".
    """
    array = np.asarray(np.ma.filled(np.ma.asarray(values, dtype=float), np.nan))
    flat = array.ravel()
    stride = max(1, -(-flat.size // SAMPLE))
    packed = {
        "shape": list(array.shape),
        "values": [_number(value) for value in flat[::stride].tolist()],
    }
    if stride > 1:
        packed |= {"every": stride, "sum": _number(float(flat[np.isfinite(flat)].sum()))}
    return packed


def _number(value: float) -> float | str | None:
    if math.isnan(value):
        return None
    return float(f"{value:.{DIGITS}g}") if math.isfinite(value) else str(value)


def _series(axes: Axes):
    label = lambda artist: "" if str(artist.get_label()).startswith("_") else str(artist.get_label())  # noqa: E731
    for line in axes.lines:
        place = line.get_data_3d() if hasattr(line, "get_data_3d") else line.get_data(orig=False)
        yield {"kind": "line", "label": label(line), **_coordinates(*place)}
    for collection in axes.collections:
        yield {"label": label(collection), **_collection(collection)}
    for image in axes.images:
        extent = pack(image.get_extent())
        yield {"kind": "image", "label": label(image), "data": pack(image.get_array()), "extent": extent}
    for patch in axes.patches:
        yield {"kind": "patch", "label": label(patch), "vertices": pack(_vertices(patch))}
    for text in axes.texts:
        if text.get_text().strip():
            yield {"kind": "text", "text": text.get_text(), "at": pack(_anchor(text))}


def _coordinates(*arrays: Any) -> dict[str, Any]:
    return {name: pack(values) for name, values in zip("xyz", arrays)}


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
    offsets = collection.get_offsets()
    if isinstance(collection, PathCollection) or not np.array_equal(offsets, [[0, 0]]):  # (0, 0): it has no offsets
        if hasattr(collection, "_offsets3d"):  # its colours depend on the depth of each point
            return {"kind": "points", **_coordinates(*collection._offsets3d), **colour}
        if shown is None and len(own := collection.get_facecolors()) == len(offsets) > 1:
            colour = {"colour": pack(own)}
        return {"kind": "points", **_coordinates(*offsets.T), **colour}
    outlines = [path.vertices for path in collection.get_paths() if len(path.vertices)]
    return {"kind": "area", "vertices": pack(np.concatenate(outlines) if outlines else []), **colour}


def _vertices(patch: Patch) -> np.ndarray:
    if isinstance(patch, FancyArrowPatch):
        start, end = patch._posA_posB
        return np.array([start, end], dtype=float)
    return patch.get_patch_transform().transform(patch.get_path().vertices)


def _anchor(text: Text) -> list[float]:
    x, y = text.xy if isinstance(text, Annotation) else text.get_position()
    return [float(text.convert_xunits(x)), float(text.convert_yunits(y))]
