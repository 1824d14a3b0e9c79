"""KITTI object frames: the scan, and its labelled boxes in the frame of the LIDAR.

A. Geiger, P. Lenz, R. Urtasun: Are we ready for Autonomous Driving? The KITTI Vision Benchmark Suite. CVPR 2012.
A label holds height, width, length, then the centre of the bottom face in the rectified camera frame (x right, y
down, z forward) and the rotation r_y about the camera's y axis. With x_cam = R0_rect · Tr_velo_to_cam · x_lidar,
inverting gives the centre; the length axis (cos r_y, 0, -sin r_y), turned back likewise, gives the yaw.

The simulated frames of the package liguard have the same files with another meaning (`layout="liguard"`): sizes are
height, length, width; R0_rect, a change of axes, is not applied to the stored centre; yaw = -r_y in the LIDAR frame.
Counting the points inside the boxes confirms both readings.
"""

import math
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np

from papertwin.errors import DataError
from papertwin.points.cloud import Box, PointCloud
from papertwin.points.readers import check_file, read_cloud

Layout = Literal["kitti", "liguard"]


class Frame(NamedTuple):
    """One labelled scan: the cloud, and its boxes in the same frame and unit (metres)."""

    cloud: PointCloud
    boxes: list[Box]


def read_kitti(folder: str | Path, frame: int | str, layout: Layout = "kitti") -> Frame:
    """Read frame `frame` of a folder with velodyne/, label_2/ and calib/.

    Args:
        folder: the folder, for KITTI its `training` folder.
        frame: number or six-digit name.
        layout: `kitti`, or `liguard` for the simulated frames (see the top of this module).

    Returns:
        The scan and its boxes; regions marked DontCare are left out.

    Raises:
        DataError: a missing or malformed file; the message names file and line.
    """
    if layout not in ("kitti", "liguard"):
        raise DataError(f"layout must be 'kitti' or 'liguard', got {layout!r}.")
    folder, name = Path(folder), f"{frame:06d}" if isinstance(frame, int) else str(frame)
    cloud = read_cloud(folder / "velodyne" / f"{name}.bin")
    to_lidar = _lidar_from_camera(folder / "calib" / f"{name}.txt", rectified=layout == "kitti")
    return Frame(cloud, _read_boxes(folder / "label_2" / f"{name}.txt", to_lidar, layout))


def _read_boxes(path: Path, to_lidar: np.ndarray, layout: Layout) -> list[Box]:
    boxes = []
    for number, line in enumerate(_lines(path), 1):
        fields = line.split()
        if not fields or fields[0] == "DontCare":
            continue
        try:
            height, second, third, x, y, z, r_y = (float(field) for field in fields[8:15])
        except ValueError:
            raise DataError(
                f"{path}, line {number}: expected a class and at least 14 numbers, got {line.strip()!r}."
            ) from None
        centre = to_lidar @ (x, y, z, 1.0)
        if layout == "kitti":
            axis = to_lidar[:, :3] @ (math.cos(r_y), 0.0, -math.sin(r_y))
            size, yaw = (third, second, height), math.atan2(axis[1], axis[0])
        else:
            size, yaw = (second, third, height), -r_y
        boxes.append(Box(fields[0], tuple(centre.tolist()), size, yaw))
    return boxes


def _lidar_from_camera(path: Path, rectified: bool) -> np.ndarray:
    """(3, 4) transform from the camera frame of the labels to the LIDAR frame."""
    entries = {}
    for line in _lines(path):
        key, _, numbers = line.partition(":")
        entries[key.strip()] = numbers
    transform = np.eye(4)
    transform[:3] = _matrix(entries, "Tr_velo_to_cam", (3, 4), path)
    if rectified:
        rectify = np.eye(4)
        rectify[:3, :3] = _matrix(entries, "R0_rect", (3, 3), path)
        transform = rectify @ transform
    try:
        return np.linalg.inv(transform)[:3]
    except np.linalg.LinAlgError:
        raise DataError(f"{path}: the calibration matrices cannot be inverted; the file is corrupted.") from None


def _matrix(entries: dict[str, str], key: str, shape: tuple[int, int], path: Path) -> np.ndarray:
    try:
        return np.array(entries[key].split(), dtype=np.float64).reshape(shape)
    except (KeyError, ValueError):
        got = entries.get(key, "nothing").strip()
        raise DataError(f"{path}: expected '{key}:' with {shape[0] * shape[1]} numbers, got {got!r}.") from None


def _lines(path: Path) -> list[str]:
    check_file(path)
    try:
        return path.read_text(encoding="utf-8").splitlines()
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is not a text file ({error}); copy it again.") from error
