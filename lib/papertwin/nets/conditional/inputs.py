"""What the measures of conditional networks accept: arrays or tensors of finite numbers."""

from typing import Any

import numpy as np
import torch

from papertwin.errors import InputError


def as_array(values: Any, name: str, *, finite: bool = True) -> np.ndarray:
    """Return numbers, NumPy or torch or lists, as an array on the CPU; floats become float64.

    Args:
        values: at least one axis.
        name: of the argument, for the message.
        finite: whether infinite ones are refused; NaN always is.

    Raises:
        InputError: these are no numbers, or NaN or infinite ones are among them.
    """
    try:
        tensor = torch.as_tensor(values).detach().cpu()
    except (TypeError, ValueError, RuntimeError) as error:
        raise InputError(f"{name} must be an array or tensor of numbers: {error}.") from None
    if tensor.ndim < 1 or tensor.is_complex():
        raise InputError(f"{name} must be real numbers with an axis or more, got {tensor.dtype} {tuple(tensor.shape)}.")
    if odd := int((~tensor.isfinite() if finite else tensor.isnan()).sum()):
        raise InputError(f"{name} must be finite, got {odd} values that are NaN or infinite.")
    return (tensor.double() if tensor.is_floating_point() else tensor).numpy()


def as_features(values: Any, name: str = "features") -> np.ndarray:
    """Return features of images as (n, features) float64, further axes flattened.

    Raises:
        InputError: fewer than two axes, no image, or not finite numbers.
    """
    array = as_array(values, name)
    if array.ndim < 2 or not len(array):
        raise InputError(f"{name} must have shape (n, …) with n of at least 1, got {array.shape}.")
    return array.reshape(len(array), -1).astype(np.float64)


def as_labels(values: Any, count: int, classes: int | None = None) -> np.ndarray:
    """Return labels as (count,) int64.

    Args:
        values: one whole number an image.
        count: images.
        classes: labels lie from 0 to classes - 1; None admits any.

    Raises:
        InputError: other numbers, or not one an image.
    """
    array = as_array(values, "labels")
    if array.dtype.kind not in "iu" or array.shape != (count,):
        raise InputError(f"labels must be {count} whole numbers, one an image, got {array.dtype} {array.shape}.")
    if classes is not None and count and not 0 <= array.min() <= array.max() < classes:
        raise InputError(f"labels must lie from 0 to {classes - 1}, got {array.min()} to {array.max()}.")
    return array.astype(np.int64)
