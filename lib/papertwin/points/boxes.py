"""Which points lie inside an upright annotated box.

Convention of the first author's KITTI cropping tool: q = Rot(-yaw) (p - t), t the centre of the box's BOTTOM face;
inside means |q_x| ≤ length/2, |q_y| ≤ width/2, 0 ≤ q_z ≤ height.
"""

import math
from typing import Any

import numpy as np

from papertwin.errors import InputError
from papertwin.points.arrays import take_points


def points_in_box(points: Any, centre: Any, size: Any, yaw: float, *, device: Any = None) -> Any:
    """Mark the points inside a box, its faces included.

    Args:
        points: (n, 3) array or tensor, finite.
        centre: (x, y, z) of the centre of the bottom face.
        size: (length, width, height), each > 0, in the unit of the points.
        yaw: angle in radians of the length axis, counter-clockwise about +z from +x.
        device: checked like everywhere; the test always runs on the CPU.

    Returns:
        (n,) bool, of the same kind as `points`.

    Raises:
        InputError: bad points, or a box that is not finite numbers with positive sizes.

    Example:
        >>> import numpy as np
        >>> points_in_box(np.array([[0.0, 0.0, 0.0], [0.0, 0.0, -0.1]]), (0, 0, 0), (4, 2, 1.5), 0.0).tolist()
        [True, False]
    """
    array, kind = take_points(points, device=device)
    t, (length, width, height) = _three(centre, "centre"), _three(size, "size")
    if min(length, width, height) <= 0.0:
        raise InputError(f"size must be three lengths above 0 (length, width, height), got {size!r}.")
    angle = _angle(yaw)
    offset = array.astype(np.float64) - t
    cos, sin = math.cos(angle), math.sin(angle)
    along = cos * offset[:, 0] + sin * offset[:, 1]
    across = cos * offset[:, 1] - sin * offset[:, 0]
    up = offset[:, 2]
    inside = (np.abs(along) <= 0.5 * length) & (np.abs(across) <= 0.5 * width) & (up >= 0.0) & (up <= height)
    return kind.back(inside)


def _angle(yaw: Any) -> float:
    try:
        angle = float(yaw)
    except (TypeError, ValueError):
        angle = math.nan
    if not math.isfinite(angle):
        raise InputError(f"yaw must be one finite angle in radians, got {yaw!r}. Use 0.0 for a box along the x axis.")
    return angle


def _three(value: Any, name: str) -> np.ndarray:
    try:
        numbers = np.asarray(value, dtype=np.float64)
    except (TypeError, ValueError):
        numbers = np.empty(0)
    if numbers.shape != (3,) or not np.isfinite(numbers).all():
        raise InputError(f"{name} must be three finite numbers, got {value!r}.")
    return numbers


def points_between(points: np.ndarray, **limits: tuple[float, float]) -> np.ndarray:
    """Mark the points between limits (both included) on the axes x, y, z.

    Args:
        points: (n, 3).
        limits: (low, high) by axis name; an axis that is not named is not limited.

    Returns:
        (n,) bool.

    Raises:
        InputError: an axis with another name.

    Example:
        >>> import numpy as np
        >>> points_between(np.array([[0.0, 0, 0], [1, 0, 0]]), x=(0.5, 2), y=(-1, 1)).tolist()
        [False, True]
    """
    if unknown := sorted(set(limits) - set("xyz")):
        raise InputError(f"axes are called x, y and z, got {', '.join(unknown)}.")
    inside = np.ones(len(points), dtype=bool)
    for name, (low, high) in limits.items():
        along = points[:, "xyz".index(name)]
        inside &= (low <= along) & (along <= high)
    return inside
