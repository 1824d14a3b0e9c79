"""Several views of an image, shifted and mirrored, whose probabilities are averaged.

Paper: Y. Ioannou et al., arXiv 1603.01250 (2016), where the costly route oversamples 10×: the centre and the four
corners of a large image, and their mirror images.

Ours, for small images: a view is the image shifted by up to `shift` pixels, with zeros where nothing comes in, so that
the network sees its usual size. Views are ordered: the image itself, its mirror image, then each corner and its mirror
image, then each edge; ten views are those of the paper. Without mirroring (digits) nine views exist. The mean is of
probabilities.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from scipy import special
from torch import nn
from torch.nn import functional

from papertwin.checks import is_whole
from papertwin.errors import InputError
from papertwin.training.loop import scores

CORNERS = ((-1, -1), (-1, 1), (1, -1), (1, 1))
EDGES = ((-1, 0), (1, 0), (0, -1), (0, 1))
PLACES = ((0, 0), *CORNERS, *EDGES)


def oversampled_views(
    images: torch.Tensor, views: int = 10, *, shift: int = 2, mirror: bool = True
) -> Iterator[torch.Tensor]:
    """Yield views of a batch of images, the images themselves first.

    Args:
        images: (B, C, H, W).
        views: from 1 to 18, or to 9 without mirroring.
        shift: pixels, at least 1 and less than either side.
        mirror: whether each place also gives its mirror image.

    Yields:
        (B, C, H, W) tensors.

    Raises:
        InputError: an argument is out of range.
    """
    most = len(PLACES) * (1 + mirror)
    if images.ndim != 4:
        raise InputError(f"images must have shape (B, C, H, W), got {tuple(images.shape)}.")
    if not is_whole(views, 1, most):
        raise InputError(f"views must be a whole number from 1 to {most} (mirror={mirror}), got {views!r}.")
    if not is_whole(shift, 1, min(images.shape[2:]) - 1):
        raise InputError(f"shift must be a whole number of pixels from 1 to below the side of an image, got {shift!r}.")
    return _views(images, views, shift, mirror)


def oversampled_probabilities(
    model: nn.Module, images: Any, views: int = 10, *, shift: int = 2, mirror: bool = True, batch: int = 1000
) -> np.ndarray:
    """Return the mean of a network's probabilities over several views of each image.

    Args:
        model: images → (B, C) logits; asked as by `papertwin.training.loop.scores`, and left as it was.
        images: (n, c, H, W) floats, NumPy or torch, n ≥ 1.
        views: 1 is the plain network; up to 18.
        shift: pixels.
        mirror: whether views are mirrored, too.
        batch: images at once.

    Returns:
        (n, C) float64.

    Raises:
        InputError: an argument is out of range, or images or model cannot be used.
    """
    shown = oversampled_views(torch.as_tensor(images), views, shift=shift, mirror=mirror)
    return sum(special.softmax(scores(model, view, batch).astype(np.float64), axis=1) for view in shown) / views


def _views(images: torch.Tensor, views: int, shift: int, mirror: bool) -> Iterator[torch.Tensor]:
    height, width = images.shape[2:]
    padded = functional.pad(images, (shift, shift, shift, shift))
    shown = 0
    for down, right in PLACES:
        top, left = shift * (1 + down), shift * (1 + right)
        view = padded[:, :, top : top + height, left : left + width]
        for side in (view, view.flip(3)) if mirror else (view,):
            if shown == views:
                return
            shown += 1
            yield side
