"""Intervals for what is measured on a sample: shares, means, and means of objects that come in groups.

All are 95 % intervals. Percentile bootstrap after Efron (1979); score intervals after Wilson (1927), of one share, and
after Newcombe (Statistics in Medicine 17:2635, 1998, method 10), of the difference of two shares of the same objects.
"""

import math
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


def paired_difference(first: np.ndarray, second: np.ndarray) -> tuple[float, float]:
    """Newcombe's score interval of the share of `first` minus the share of `second`, both of the same objects.

    Unlike a bootstrap it keeps a width where no object differs.

    Args:
        first, second: (n,) booleans, n ≥ 1.

    >>> low, high = paired_difference(np.array([True] * 9 + [False]), np.array([True] * 9 + [False]))
    >>> low < 0 < high
    True
    """
    n, (p, q) = len(first), (float(np.mean(side)) for side in (first, second))
    (p_low, p_high), (q_low, q_high) = (wilson(int(np.sum(side)), n) for side in (first, second))
    both, neither = int(np.sum(first & second)), int(np.sum(~first & ~second))
    only_first, only_second = int(np.sum(first & ~second)), int(np.sum(~first & second))
    lead = both * neither - only_first * only_second
    lead = max(lead - n / 2, 0.0) if lead > 0 else lead  # continuity correction
    spread = math.sqrt(p * (1 - p) * q * (1 - q)) * n**2
    phi = lead / spread if spread else 0.0

    def reach(a: float, b: float) -> float:
        return math.sqrt(a * a - 2 * phi * a * b + b * b)

    return p - q - reach(p - p_low, q_high - q), p - q + reach(p_high - p, q - q_low)


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


def t_interval(values: np.ndarray) -> tuple[float, float]:
    """Student's interval of the mean of independent values, (n,), n ≥ 2: for a few seeds.

    >>> low, high = t_interval(np.array([1.0, 2.0, 3.0]))
    >>> round(low, 3), round(high, 3)
    (-0.484, 4.484)
    """
    spread = np.std(values, ddof=1) / math.sqrt(len(values))
    reach = float(stats.t.ppf(0.975, len(values) - 1) * spread)
    return float(np.mean(values)) - reach, float(np.mean(values)) + reach


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
