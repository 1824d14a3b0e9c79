"""Robustness of a network over a set of points, from the distance ρ̂ of each point's nearest known adversarial example.

Source: Bastani et al., NIPS 2016 (arXiv 1605.07262): adversarial frequency φ(f, ε) = P(ρ ≤ ε), lower is better, and
adversarial severity μ(f, ε) = E[ρ | ρ ≤ ε], higher is better, on held-out points. Here ρ̂ stands for ρ, which it
bounds from above, so a measured φ is too low rather than too high.

Rules: ρ̂ = inf (nothing was found) counts in the denominator of φ and is left out of μ, whatever the threshold. NaN is
refused: a point that was not measured, because its search ran out of time, has to be left out and counted by the
caller; so have points that the network misclassifies.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from papertwin.errors import InputError
from papertwin.training.intervals import mean_interval, wilson


@dataclass(frozen=True)
class Wins:
    """Two searches compared point by point.

    Attributes:
        first: points where the first one found a nearer example, or the only one.
        second: the same of the second one.
        equal: both found one, and the distances differ by no more than the tolerance.
        neither: none of the two found one.
    """

    first: int
    second: int
    equal: int
    neither: int


def adversarial_frequency(epsilons: Sequence[float] | np.ndarray, threshold: float) -> float:
    """Return φ, the share of points with ρ̂ ≤ threshold, in [0, 1].

    Args:
        epsilons: (n,) distances ρ̂, at least 0, inf where nothing was found, n ≥ 1.
        threshold: ε in the same unit, at least 0.

    Raises:
        InputError: NaN or a negative number, no point, or a threshold that is not finite.

    >>> adversarial_frequency([0.02, 0.05, 0.3, float("inf")], 0.1)
    0.5
    """
    distances = _checked(epsilons)
    return float(_within(distances, threshold).mean())


def adversarial_severity(epsilons: Sequence[float] | np.ndarray, threshold: float) -> float:
    """Return μ, the mean ρ̂ of the points with ρ̂ ≤ threshold; NaN where there is none.

    Args:
        epsilons: (n,) distances ρ̂, at least 0, inf where nothing was found, n ≥ 1.
        threshold: ε in the same unit, at least 0.

    Raises:
        InputError: NaN or a negative number, no point, or a threshold that is not finite.

    >>> round(adversarial_severity([0.02, 0.05, 0.3, float("inf")], 0.1), 3)
    0.035
    """
    distances = _checked(epsilons)
    near = distances[_within(distances, threshold)]
    return float(near.mean().clip(near.min(), near.max())) if len(near) else math.nan


def frequency_interval(epsilons: Sequence[float] | np.ndarray, threshold: float) -> tuple[float, float]:
    """Return the 95 % Wilson interval of φ; arguments and errors as in `adversarial_frequency`."""
    within = _within(_checked(epsilons), threshold)
    return wilson(int(within.sum()), len(within))


def severity_interval(
    epsilons: Sequence[float] | np.ndarray, threshold: float, seed: int = 0
) -> tuple[float, float] | None:
    """Return the 95 % percentile-bootstrap interval of μ over the points with ρ̂ ≤ threshold.

    Args:
        epsilons: (n,) distances ρ̂, at least 0, inf where nothing was found, n ≥ 1.
        threshold: ε in the same unit, at least 0.
        seed: of the draws.

    Returns:
        (low, high), or None where fewer than two points are that near.

    Raises:
        InputError: NaN or a negative number, no point, or a threshold that is not finite.
    """
    distances = _checked(epsilons)
    near = distances[_within(distances, threshold)]
    return mean_interval(near, seed) if len(near) > 1 else None


def frequency_curve(epsilons: Sequence[float] | np.ndarray, grid: Sequence[float] | np.ndarray) -> np.ndarray:
    """Return for each ε of a grid the number of points with ρ̂ ≤ ε.

    Args:
        epsilons: (n,) distances ρ̂, at least 0, inf where nothing was found, n ≥ 1.
        grid: (m,) finite numbers of at least 0, in any order.

    Returns:
        (m,) int64.

    Raises:
        InputError: NaN or a negative number, no point, or a grid that is not finite.
    """
    distances = np.sort(_checked(epsilons))
    places = _numbers("grid", grid)
    if not ((places >= 0) & np.isfinite(places)).all():
        raise InputError("grid must hold finite numbers of at least 0.")
    return np.searchsorted(distances, places, side="right")


def wins(first: Sequence[float] | np.ndarray, second: Sequence[float] | np.ndarray, tolerance: float = 1e-6) -> Wins:
    """Count at how many points each of two searches found the nearer adversarial example.

    Args:
        first: (n,) distances ρ̂ by one search, inf where it found nothing.
        second: (n,) distances of the same points by another.
        tolerance: largest difference that counts as equal, at least 0.

    Raises:
        InputError: NaN or a negative number, no point, or different numbers of points.
    """
    a, b = _checked(first), _checked(second)
    if len(a) != len(b):
        raise InputError(f"Both searches must have measured the same points, got {len(a)} and {len(b)}.")
    if not 0 <= tolerance < math.inf:
        raise InputError(f"tolerance must be a finite number of at least 0, got {tolerance!r}.")
    neither = np.isinf(a) & np.isinf(b)
    nearer, farther = a < b - tolerance, b < a - tolerance
    counts = nearer.sum(), farther.sum(), (~(neither | nearer | farther)).sum(), neither.sum()
    return Wins(*(int(count) for count in counts))


def _numbers(name: str, values: Sequence[float] | np.ndarray) -> np.ndarray:
    try:
        array = np.asarray(values, dtype=np.float64)
    except (TypeError, ValueError):
        raise InputError(f"{name} must be a list of numbers, got {values!r}.") from None
    if array.ndim != 1:
        raise InputError(f"{name} must be a list of numbers, got shape {array.shape}.")
    return array


def _checked(epsilons: Sequence[float] | np.ndarray) -> np.ndarray:
    """Distances as (n,) float64, once each is at least 0 or inf."""
    distances = _numbers("epsilons", epsilons)
    if not len(distances):
        raise InputError("There are no points, so there is nothing to measure.")
    if unknown := int(np.isnan(distances).sum()):
        raise InputError(
            f"{unknown} of {len(distances)} distances are NaN: a point whose search ran out of time was not measured. "
            "Leave such points out and report how many they are; inf stands for a search that found nothing."
        )
    if (distances < 0).any():
        raise InputError(f"A distance must be at least 0, got {distances.min():g}.")
    return distances


def _within(distances: np.ndarray, threshold: float) -> np.ndarray:
    if not 0 <= threshold < math.inf:
        raise InputError(f"threshold must be a finite number of at least 0, got {threshold!r}.")
    return distances <= threshold
