"""The correlation Λ12 between what a layer takes in and the classes, over any number of batches.

Paper: Y. Ioannou et al., arXiv 1603.01250 (2016). There Λ12 relates the activations of two successive layers over all
training images, and its rows and columns are reordered until it is block-diagonal.

Our reading: Λ12 is Pearson's correlation of each input activation of the last layer with each class, which is either
the class's output or its 0/1 target. What never varies correlates with nothing (0, where the formula has 0/0). Batches
are merged by `papertwin.nets.comoments.Comoments`, in float64 on the CPU.
"""

import math
from typing import Any

import numpy as np
import torch

from papertwin.checks import is_whole
from papertwin.errors import InputError
from papertwin.nets.comoments import Comoments
from papertwin.nets.conditional.inputs import as_array, as_labels


class ActivationCorrelation:
    """Λ12 of data that arrive in batches.

    Args:
        features: activations of an image.
        classes: C.

    Raises:
        InputError: a number is out of range.

    >>> stream = ActivationCorrelation(features=1, classes=2)
    >>> stream.update([[0.0], [1.0]], [0, 1])
    >>> stream.update([[0.0], [1.0]], [0, 1])
    >>> stream.value.round(6).tolist()
    [[-1.0, 1.0]]
    """

    def __init__(self, features: int, classes: int) -> None:
        for name, value in (("features", features), ("classes", classes)):
            if not is_whole(value, 1):
                raise InputError(f"{name} must be a whole number above 0, got {value!r}.")
        self.features, self.classes = features, classes
        self._moments = Comoments(features + classes, split=features)

    @property
    def seen(self) -> int:
        """Images so far."""
        return self._moments.samples

    def update(self, features: Any, classes: Any) -> None:
        """Take in a batch.

        Args:
            features: (n, features) activations, or more axes, which are flattened; NumPy or torch.
            classes: (n,) whole numbers, the true labels, or (n, C) numbers, the outputs of the network.

        Raises:
            InputError: shapes do not fit, or a value is NaN, infinite or no label.
        """
        x, y = as_array(features, "features"), as_array(classes, "classes")
        x = x.reshape(len(x), math.prod(x.shape[1:]))
        y = np.eye(self.classes)[as_labels(y, len(x), self.classes)] if y.ndim == 1 else y
        if x.shape[1] != self.features or y.shape != (len(x), self.classes):
            raise InputError(
                f"A batch must have {self.features} features and one label or {self.classes} outputs an image, "
                f"got {x.shape} features and {y.shape} outputs."
            )
        self._moments.update(torch.from_numpy(np.concatenate([x, y], axis=1).astype(np.float64)))

    @property
    def value(self) -> np.ndarray:
        """Λ12 of everything seen so far, (features, C) float64 in [-1, 1].

        Raises:
            InputError: fewer than two images were seen.
        """
        if self.seen < 2:
            raise InputError(f"A correlation needs at least two images, got {self.seen}.")
        return self._moments.correlation


def activation_correlation(features: Any, classes: Any, *, count: int | None = None, batch: int = 10_000) -> np.ndarray:
    """Return Λ12 of a set of images.

    Args:
        features: (n, features) activations that the last layer takes in, or more axes, n ≥ 2; NumPy or torch.
        classes: (n,) true labels, or (n, C) outputs of the network.
        count: C, where labels are given; None takes the largest label plus 1.
        batch: images at once.

    Returns:
        (features, C) float64 in [-1, 1].

    Raises:
        InputError: shapes do not fit, or a value is NaN, infinite or no label.
    """
    seen, targets = torch.as_tensor(features), torch.as_tensor(classes)
    if len(seen) != len(targets) or len(targets) < 2:
        raise InputError(f"There must be a class for each of two images or more, got {len(targets)} for {len(seen)}.")
    if targets.ndim > 1:
        count = targets.shape[1]
    elif count is None:
        count = int(targets.max()) + 1
    stream = ActivationCorrelation(seen[:1].numel(), count)
    for start in range(0, len(targets), batch):
        stream.update(seen[start : start + batch], targets[start : start + batch])
    return stream.value
