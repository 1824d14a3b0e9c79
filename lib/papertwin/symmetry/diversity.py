"""How differently networks answer, and how well their mean does.

Sources: S. Fort, H. Hu, B. Lakshminarayanan: Deep ensembles: a loss landscape perspective. arXiv 1912.02757:
disagreement; M. Adnan et al.: Sparse training from random initialization. ICML 2025, arXiv 2505.05143, table 1: means
over the pairs of networks of disagreement and of the divergences of Kullback and Leibler and of Jensen and Shannon
between their softmax, and the accuracy of the ensemble.

In double precision and natural logarithms, from logarithms of probabilities, so that none is lost near 0. Ours, as the
paper does not say: of the asymmetric divergence of Kullback and Leibler both directions of a pair count.

    >>> one, other = [[2.0, 0.0], [0.0, 1.0]], [[2.0, 0.0], [1.0, 0.0]]
    >>> disagreement([one, other])
    0.5
    >>> round(kullback_leibler([one, other]), 4), round(jensen_shannon([one, other]), 4)
    (0.2311, 0.0555)
    >>> ensemble_accuracy([one, other], [0, 0])
    1.0
"""

import math
from collections.abc import Callable, Sequence
from itertools import combinations
from typing import Any

import numpy as np
import torch

from papertwin.errors import InputError

Pairwise = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]  # (n, C) of both → (n,)


def disagreement(logits: Sequence[Any]) -> float:
    """Mean share of images to which two networks give different labels, over all pairs; in [0, 1].

    Args:
        logits: (n, C) of each network, two at least, of the same images; the first of equal ones counts.

    Raises:
        InputError: fewer networks, shapes differ, or a logit is not finite.
    """
    labels = _checked(logits).numpy().argmax(2)
    return float(np.mean([(one != other).mean() for one, other in combinations(labels, 2)]))


def kullback_leibler(logits: Sequence[Any]) -> float:
    """Mean over images and ordered pairs of Σ_c p_c ln(p_c / q_c); in nats, at least 0, without bound.

    The mean of both directions of a pair, then over pairs, is the same.

    Arguments and errors as in `disagreement`.
    """
    return _mean_over_pairs(logits, lambda one, other: (_divergence(one, other) + _divergence(other, one)) / 2)


def jensen_shannon(logits: Sequence[Any]) -> float:
    """Mean over images and pairs of ½ KL(p, m) + ½ KL(q, m), with m = ½ (p + q); in nats, from 0 to ln 2.

    The divergence, not its root. Arguments and errors as in `disagreement`.
    """

    def divergence(one: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
        middle = torch.logaddexp(one, other) - math.log(2)
        return (_divergence(one, middle) + _divergence(other, middle)) / 2

    return _mean_over_pairs(logits, divergence)


def ensemble_accuracy(logits: Sequence[Any], labels: Any) -> float:
    """Share of images that the mean of the networks' softmax gets right; in [0, 1].

    Args:
        logits: (n, C) of each network, one at least; the first of equal probabilities counts.
        labels: (n,) whole numbers, from 0 to C − 1.

    Raises:
        InputError: no networks, shapes differ, a logit is not finite, or labels are not those of n images.
    """
    found = _checked(logits, least=1)
    wanted = _checked_labels(labels, *found.shape[1:])
    return float((found.softmax(2).mean(0).numpy().argmax(1) == wanted.numpy()).mean())


def _mean_over_pairs(logits: Sequence[Any], divergence: Pairwise) -> float:
    """Mean of a symmetric function of two networks' logarithms of probabilities, over images and pairs."""
    found = _checked(logits).log_softmax(2)
    return float(torch.stack([divergence(one, other).mean() for one, other in combinations(found, 2)]).mean())


def _divergence(one: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
    """KL(p, q) of each image from ln p and ln q, (n, C) → (n,); rounding does not make it negative."""
    return (one.exp() * (one - other)).sum(1).clamp(min=0)


def _checked_labels(labels: Any, count: int, classes: int) -> torch.Tensor:
    """Labels of `count` images: (n,) int64 on the CPU."""
    needed = f"labels must be {count} whole numbers from 0 to {classes - 1}"
    try:
        given = torch.as_tensor(labels.copy() if isinstance(labels, np.ndarray) else labels).cpu()
    except (TypeError, ValueError, RuntimeError, OverflowError) as error:
        raise InputError(f"{needed}, got {type(labels).__name__}: {error}. Number the classes from 0.") from error
    got = f"{given.dtype} of {tuple(given.shape)}"
    if given.is_floating_point() or given.is_complex() or given.dtype == torch.bool:
        raise InputError(f"{needed}, got {got}. Number the classes from 0, as by argmax(1).")
    wanted = given.to(torch.int64)
    least, most = (int(wanted.min()), int(wanted.max())) if wanted.numel() else ("none", "none")
    if wanted.shape != (count,) or not 0 <= least <= most < classes:
        raise InputError(f"{needed}, got {got} from {least} to {most}. Take those of the images of `logits`.")
    return wanted


def _as_tensor(logits: Any) -> torch.Tensor:
    """Logits of a network as float64 on the CPU.

    Raises:
        InputError: they are no real numbers, or rows differ in length.
    """
    try:
        given = logits.detach() if isinstance(logits, torch.Tensor) else np.array(logits, order="C")
        if isinstance(given, np.ndarray) and given.dtype.kind in "iufO":
            return torch.from_numpy(given.astype(np.float64))
        if isinstance(given, np.ndarray) or given.is_complex() or given.dtype == torch.bool:
            raise TypeError(f"{given.dtype} of {tuple(given.shape)}")
        return given.to("cpu", torch.float64)
    except (TypeError, ValueError, RuntimeError) as error:
        raise InputError(
            f"Logits of a network must be real numbers, (n, C) in rows of one length, got {type(logits).__name__}: "
            f"{error}. Give what its last layer answers."
        ) from error


def _checked(logits: Sequence[Any], least: int = 2) -> torch.Tensor:
    """Logits of all networks: (networks, n, C) float64 on the CPU."""
    try:
        each_network = list(logits)
    except TypeError as error:
        raise InputError(f"logits must be a sequence, (n, C) of each network, got {logits!r}.") from error
    tensors = [_as_tensor(each) for each in each_network]
    shapes = [tuple(each.shape) for each in tensors]
    if len(shapes) < least or len(set(shapes)) > 1 or len(shapes[0]) != 2 or 0 in shapes[0]:
        words = ", ".join(map(str, shapes)) or "none"
        raise InputError(f"logits must be of {least} networks at least, each (n, C) of the same images, got {words}.")
    if not all(each.isfinite().all() for each in tensors):
        raise InputError("Logits must be finite numbers, got infinity or NaN. Did a training diverge?")
    return torch.stack(tensors)
