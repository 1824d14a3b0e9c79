"""Numpy arrays and torch tensors at the door of the point functions: check, convert, give back the same kind."""

import sys
from dataclasses import dataclass
from typing import Any

import numpy as np

from papertwin.errors import InputError

SMALLEST, LARGEST = 1e-50, 1e50  # lengths whose fourth powers float64 can hold


@dataclass(frozen=True)
class Kind:
    """What the caller handed in, so that results can be given back likewise.

    Attributes:
        tensor: the input was a torch tensor.
        device: torch device of the computation, None for a numpy array without a device.
        home: torch device the results go back to, None for numpy.
        single: coordinates were float32, so are the vectors that come back.
    """

    tensor: bool
    device: Any
    home: Any
    single: bool

    def back(self, array: np.ndarray) -> Any:
        """The array as the kind that came in: float64 becomes float32 where the caller's coordinates were."""
        if self.single and array.dtype == np.float64:
            array = array.astype(np.float32)
        if not self.tensor:
            return array
        import torch

        return torch.from_numpy(np.ascontiguousarray(array)).to(self.home)


def is_tensor(value: Any) -> bool:
    """True for a torch tensor, without importing torch."""
    return "torch" in sys.modules and isinstance(value, sys.modules["torch"].Tensor)


def take_points(points: Any, name: str = "points", device: Any = None) -> tuple[np.ndarray, Kind]:
    """Check a cloud and return it as a numpy array, with the kind it came as.

    Args:
        points: (n, 3) numpy array, torch tensor or nested sequence of finite coordinates, n ≥ 1.
        name: how error messages call it.
        device: where to compute: None (the tensor's own device, the CPU for numpy), auto, cpu, cuda or mps.

    Returns:
        The (n, 3) coordinates, float32 or float64, C-contiguous, and the kind.

    Raises:
        InputError: not numeric, not of shape (n, 3), empty, NaN, infinite or beyond 1e50.
    """
    tensor = is_tensor(points)
    chosen = _device(points, tensor, device)
    array = points.detach().cpu().numpy() if tensor and points.dtype != _bfloat16() else _as_array(points, name)
    if array.dtype.kind not in "fiu":
        raise InputError(f"{name} must hold real numbers, got dtype {array.dtype}; convert it to float64 first.")
    if array.ndim != 2 or array.shape[1] != 3:
        raise InputError(
            f"{name} must have shape (n, 3), one row x, y, z a point; got shape {array.shape}. "
            "Drop further columns (points[:, :3]) or transpose."
        )
    if len(array) == 0:
        raise InputError(f"{name} is empty: expected at least one point, got shape (0, 3).")
    single = array.dtype == np.float32
    array = np.ascontiguousarray(array, dtype=np.float32 if single else np.float64)
    _check_finite(array, name)
    return array, Kind(tensor, chosen, points.device if tensor else None, single)


def positive(value: Any, name: str) -> float:
    """A number above 0, in a range whose fourth powers are finite.

    Raises:
        InputError: it is not.
    """
    try:
        number = float(value)
    except (TypeError, ValueError):
        raise InputError(f"{name} must be one number, got {value!r}.") from None
    if not (SMALLEST <= number <= LARGEST):
        raise InputError(f"{name} must be a finite number above 0 (from {SMALLEST} to {LARGEST}), got {value!r}.")
    return number


def _bfloat16() -> Any:
    return sys.modules["torch"].bfloat16


def _device(points: Any, tensor: bool, device: Any) -> Any:
    if device is None:
        return points.device if tensor else None
    from papertwin.training.device import pick_device

    return pick_device(device)


def _as_array(points: Any, name: str) -> np.ndarray:
    if is_tensor(points):
        return points.detach().cpu().double().numpy()
    try:
        return np.asarray(points)
    except ValueError as error:
        raise InputError(f"{name} cannot be read as an (n, 3) array: {error}") from error


def _check_finite(array: np.ndarray, name: str) -> None:
    limit = min(LARGEST, float(np.finfo(array.dtype).max))
    if np.abs(array).max() <= limit:  # False for NaN as well
        return
    bad = ~(np.abs(array) <= limit).all(axis=1)
    first = int(np.argmax(bad))
    raise InputError(
        f"{name}: {int(bad.sum())} of {len(array)} rows hold NaN, infinite or absurdly large coordinates, the first is "
        f"row {first} with {array[first].tolist()}. Remove them first: points[np.isfinite(points).all(axis=1)]."
    )
