"""Intervals for what is measured on a sample: shares, means, and means of objects that come in groups.

All are 95 % intervals. Percentile bootstrap after Efron (1979); score interval after Wilson (1927), both from scipy.
"""

from collections.abc import Callable

import numpy as np
from scipy import stats

RESAMPLES = 5000


def wilson(successes: int, trials: int) -> tuple[float, float]:
    """Wilson score interval of a share.

    >>> low, high = wilson(8, 10)
    >>> round(low, 3), round(high, 3)
    (0.49, 0.943)
    """
    interval = stats.binomtest(successes, trials).proportion_ci(method="wilson")
    return float(interval.low), float(interval.high)


def bootstrap(statistic: Callable[[np.ndarray], float], count: int, seed: int) -> tuple[float, float]:
    """Percentile bootstrap of a statistic over `count` objects.

    Args:
        statistic: takes (count,) row numbers, drawn with replacement, and returns the statistic of those rows.
        count: number of objects.
        seed: of the draws.

    Returns:
        (low, high), widened to hold the statistic of the sample itself: for a maximum over few objects the
        percentiles need not.
    """
    rng = np.random.default_rng(seed)
    draws = [statistic(rng.integers(count, size=count)) for _ in range(RESAMPLES)]
    value = float(statistic(np.arange(count)))
    low, high = np.quantile(draws, [0.025, 0.975])
    return min(float(low), value), max(float(high), value)


def mean_interval(values: np.ndarray, seed: int) -> tuple[float, float]:
    """Percentile bootstrap of the mean of independent values, (n,)."""
    return bootstrap(lambda rows: float(values[rows].mean()), len(values), seed)


def grouped_mean_interval(values: np.ndarray, groups: np.ndarray, seed: int) -> tuple[float, float]:
    """Percentile bootstrap of a mean whose values come in groups: groups are drawn, then values within each.

    Args:
        values: (n,) numbers.
        groups: (n,) names of the groups, for example the scene of each object.
        seed: of the draws.
    """
    members = [values[groups == name] for name in np.unique(groups)]
    rng = np.random.default_rng(seed)
    draws = []
    for _ in range(RESAMPLES):
        chosen = [members[k] for k in rng.integers(len(members), size=len(members))]
        draws.append(np.concatenate([group[rng.integers(len(group), size=len(group))] for group in chosen]).mean())
    low, high = np.quantile(draws, [0.025, 0.975])
    return float(low), float(high)
