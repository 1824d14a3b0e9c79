"""Annotated boxes as a table: one row per object, written by hand and read by everyone."""

from pathlib import Path

import numpy as np
import pandas as pd

from papertwin.errors import DataError
from papertwin.points.cloud import Box
from papertwin.points.readers import check_file

COLUMNS = ["scene", "label", "x", "y", "z", "length", "width", "height", "yaw"]


def read_boxes(path: str | Path, scene: str | None = None) -> list[Box]:
    """Read annotated boxes from a CSV file with the columns scene, label, x, y, z, length, width, height, yaw.

    Args:
        path: the file; (x, y, z) is the centre of the bottom face, yaw in radians counter-clockwise from +x.
        scene: only the boxes of this scene; of every scene if None.

    Raises:
        DataError: no such file, other columns, a value that is not a number, a size not above 0, or no such scene.
    """
    path = Path(path)
    check_file(path)
    table = pd.read_csv(path, comment="#")
    if list(table.columns) != COLUMNS:
        raise DataError(f"{path} has the columns {list(table.columns)}, expected {COLUMNS}.")
    numbers = table[COLUMNS[2:]].apply(pd.to_numeric, errors="coerce")
    wrong = ~np.isfinite(numbers).all(axis=1) | (numbers[["length", "width", "height"]] <= 0).any(axis=1)
    if wrong.any():
        row = int(wrong.idxmax())
        got = list(table.loc[row])
        raise DataError(f"{path}, line {row + 2}: expected finite numbers and sizes above 0, got {got}.")
    table[COLUMNS[2:]] = numbers.astype(float)
    if scene is not None:
        if scene not in set(table.scene):
            raise DataError(f"{path} has no scene {scene!r}; it has {sorted(set(table.scene))}.")
        table = table[table.scene == scene]
    return [
        Box(str(row.label), (row.x, row.y, row.z), (row.length, row.width, row.height), row.yaw)
        for row in table.itertuples()
    ]
