"""What a point cloud and an annotated box are."""

from dataclasses import dataclass, field

import numpy as np


@dataclass(frozen=True)
class PointCloud:
    """Points and what the sensor measured at each of them.

    Attributes:
        points: (n, 3) float array of coordinates, in `unit`.
        attributes: name → (n,) array, for example `reflectivity` or `classification`.
        unit: unit of the coordinates, `m` unless the file says otherwise.
        name: what to call the cloud in tables and titles.
    """

    points: np.ndarray
    attributes: dict[str, np.ndarray] = field(default_factory=dict)
    unit: str = "m"
    name: str = ""

    def __len__(self) -> int:
        """Number of points."""
        return len(self.points)


@dataclass(frozen=True)
class Box:
    """An upright annotated box.

    Attributes:
        label: class name.
        centre: (x, y, z) of the centre of the BOTTOM face.
        size: (length, width, height).
        yaw: angle in radians of the length axis, counter-clockwise about +z from +x.
    """

    label: str
    centre: tuple[float, float, float]
    size: tuple[float, float, float]
    yaw: float
