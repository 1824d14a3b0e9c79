"""Scans as scenes: the points of one place and the objects annotated in them; ours, KITTI's or a user's own file."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from papertwin.data import registry
from papertwin.errors import DataError
from papertwin.points.annotations import read_boxes
from papertwin.points.cloud import Box, PointCloud
from papertwin.points.kitti import read_kitti
from papertwin.points.readers import read_cloud

STREETS = ("junction", "residential", "avenue", "roadside")
FOLDER_OF_KIND = {"velodyne": "bin", "label_2": "txt", "calib": "txt"}


@dataclass(frozen=True)
class Scene:
    """A scan and its annotated objects.

    Attributes:
        name: short name.
        points: (n, 3) metres, sensor frame.
        boxes: annotated objects of this scene.
        simulated: True where no real sensor measured the points.
    """

    name: str
    points: np.ndarray
    boxes: list[Box] = field(default_factory=list)
    simulated: bool = False

    def within(self, reach: float) -> np.ndarray:
        """Points whose horizontal distance from the sensor is at most `reach` metres, (n,) bool."""
        return np.hypot(self.points[:, 0], self.points[:, 1]) <= reach

    def boxes_within(self, reach: float) -> list[Box]:
        """Objects whose centre is at most `reach` metres away."""
        return [box for box in self.boxes if np.hypot(*box.centre[:2]) <= reach]


def load_scene(name: str) -> Scene:
    """Load a scene by name.

    Args:
        name: one of the vendored streets (junction, residential, avenue, roadside); `kitti/000001`, a frame of the
            user's KITTI folder; or the path of a cloud in any format that `read_cloud` knows, which then has no boxes.

    Raises:
        DataError: none of these, or the data are not there or damaged.
    """
    if name in STREETS:
        return load_street(name)
    if name.startswith("kitti/"):
        cloud, boxes = read_kitti(registry.folder("kitti"), name.removeprefix("kitti/"))
        return Scene(name, cloud.points.astype(np.float64), boxes)
    path = Path(name).expanduser()
    if path.is_file():
        return Scene(path.stem, read_cloud(path).points.astype(np.float64))
    if path.suffix:
        raise DataError(
            f"The file {name} of a scene does not exist. Check the path (a relative one starts where the run does)."
        )
    raise DataError(
        f"No scene {name!r}: expected one of {', '.join(STREETS)}, kitti/ and a six-digit frame, or a file."
    )


def load_street(name: str) -> Scene:
    """Load one of the vendored real street scenes with our annotation.

    Returns of the vehicle that carries the sensor are left out: the box |x| < 2.5 m, |y| < 1.3 m around it.
    """
    cloud = read_cloud(registry.path("street", f"street/{name}.npz"))
    boxes = read_boxes(registry.path("street", "street/boxes.csv"), scene=name)
    points = cloud.points.astype(np.float64)
    own = (np.abs(points[:, 0]) < 2.5) & (np.abs(points[:, 1]) < 1.3)
    return Scene(name, points[~own], boxes)


def load_simulated(frames: Sequence[int] = range(5)) -> list[Scene]:
    """Load the simulated frames, whose boxes are exact."""
    scenes = []
    for frame in frames:
        for kind, suffix in FOLDER_OF_KIND.items():
            path = registry.path("liguard", f"liguard/{kind}/{frame:06d}.{suffix}")
        cloud, boxes = read_kitti(path.parents[1], frame, layout="liguard")
        scenes.append(Scene(f"simulated {frame}", cloud.points.astype(np.float64), boxes, simulated=True))
    return scenes


def load_airborne() -> PointCloud:
    """Load the airborne tile: coordinates in US survey feet, attribute `classification`."""
    return read_cloud(registry.path("airborne", "airborne/tile.npz"))
