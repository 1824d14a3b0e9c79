"""Which architecture to try next, and which of those tried to keep.

Paper: Y. Ioannou et al., arXiv 1603.01250 (2016), CIFAR: a Bayesian optimiser over the exponents of the groups
maximises accuracy / bytes of the model. The architecture reported as optimal is the one nearest to the origin of
(error, MACs, bytes), each divided by its maximum.

Ours, as the paper's optimiser is not described: a Gaussian process with a Matérn kernel (ν = 5/2, a length scale a
layer) and noise, and the largest expected improvement over the best value seen,

    EI(x) = (μ - best) Φ(z) + σ φ(z),    z = (μ - best) / σ

(J. Močkus, 1978; J. Snoek, H. Larochelle, R. Adams, 2012), over all vectors of a small space, or over random ones and
the neighbours of the best. Select on validation images, never on test images.
"""

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import stats
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import ConstantKernel, Matern, WhiteKernel
from threadpoolctl import threadpool_limits

from papertwin.errors import InputError
from papertwin.nets.conditional.spaces import Exponents, ExponentSpace

CANDIDATES = 2000
STARTS = 5


@dataclass(frozen=True)
class Evaluated:
    """An architecture that was tried.

    Attributes:
        exponents: one a layer.
        value: what is maximised.
    """

    exponents: Exponents
    value: float


def random_search(
    space: ExponentSpace, objective: Callable[[Exponents], float], evaluations: int, seed: int
) -> list[Evaluated]:
    """Evaluate different random architectures.

    Args:
        space: where to look.
        objective: exponents → value.
        evaluations: how many; at most as many as the space has.
        seed: of the draws.

    Raises:
        InputError: the space has not so many, or a value is not finite.
    """
    return [Evaluated(vector, _value(objective, vector)) for vector in space.sample(evaluations, seed)]


def bayesian_search(
    space: ExponentSpace,
    objective: Callable[[Exponents], float],
    evaluations: int,
    seed: int,
    *,
    starts: int = STARTS,
    tried: Sequence[Evaluated] = (),
) -> list[Evaluated]:
    """Maximise a function of the exponents: a few random architectures, then the most promising one each time.

    Args:
        space: where to look.
        objective: exponents → value, for example accuracy / bytes.
        evaluations: how many, the random ones among them; no vector is evaluated twice.
        seed: of everything random.
        starts: random architectures before the Gaussian process takes over, as many as are tried already included.
        tried: earlier trials to go on from.

    Returns:
        The new trials in the order of their evaluation.

    Raises:
        InputError: the space has not so many, or a value is not finite.
    """
    rng = np.random.default_rng(seed)
    if starts < 1:
        raise InputError(f"starts must be at least 1, got {starts!r}: the Gaussian process needs something to fit.")
    trials = list(tried)
    first = space.sample(min(evaluations, max(starts - len(trials), 0)), rng, [t.exponents for t in trials])
    trials += [Evaluated(vector, _value(objective, vector)) for vector in first]
    while len(trials) < len(tried) + evaluations:
        vector = propose(space, trials, rng)
        trials.append(Evaluated(vector, _value(objective, vector)))
    return trials[len(tried) :]


def propose(space: ExponentSpace, trials: Sequence[Evaluated], seed: int | np.random.Generator) -> Exponents:
    """Return the untried architecture with the largest expected improvement over the best trial.

    Args:
        space: where to look.
        trials: at least one.
        seed: of the candidates.

    Raises:
        InputError: there is no trial, one is none of the space, or nothing is left to try.
    """
    if not trials or any(trial.exponents not in space for trial in trials):
        raise InputError(f"trials must hold at least one, each of the space {space.allowed}, got {list(trials)[:3]}.")
    rng = np.random.default_rng(seed)
    seen = {trial.exponents for trial in trials}
    best = max(trials, key=lambda trial: trial.value)
    candidates = space.sample(min(CANDIDATES, space.size - len(seen)), rng, seen)
    candidates += [near for near in space.neighbours(best.exponents) if near not in {*seen, *candidates}]
    if not candidates:
        raise InputError(f"All {space.size} vectors of the space are tried: nothing is left to propose.")
    values = np.array([trial.value for trial in trials])
    spread = values.std() or 1.0
    with threadpool_limits(1):  # such small matrices gain nothing by threads, and sums would depend on their number
        process = _fitted(space.unit([trial.exponents for trial in trials]), (values - values.mean()) / spread)
        mean, deviation = process.predict(space.unit(candidates), return_std=True)
    gain = expected_improvement(mean, deviation, (best.value - values.mean()) / spread)
    return candidates[int(gain.argmax())]


def expected_improvement(mean: np.ndarray, deviation: np.ndarray, best: float) -> np.ndarray:
    """E[max(f - best, 0)] of f ~ N(mean, deviation²), (n,); where the deviation is 0, max(mean - best, 0)."""
    above = np.asarray(mean, dtype=np.float64) - best
    sure = np.asarray(deviation) <= 0
    scale = np.where(sure, 1, deviation)
    z = above / scale
    return np.where(sure, above.clip(0), above * stats.norm.cdf(z) + scale * stats.norm.pdf(z))


def nearest_to_origin(errors: Any, macs: Any, bytes_: Any) -> int:
    """Return the row whose error, MACs and bytes, each over its maximum, lie nearest to the origin; the first of equal.

    Args:
        errors: (n,) of each architecture, at least 0.
        macs: (n,).
        bytes_: (n,) of its model.

    Raises:
        InputError: the three differ in length, are empty, or a number is negative or not finite.
    """
    table = _table([errors, macs, bytes_]).T
    if (table < 0).any():
        raise InputError(f"Errors, MACs and bytes must be at least 0, got {table.min():g}.")
    largest = table.max(axis=0)
    return int(np.square(table / np.where(largest > 0, largest, 1)).sum(axis=1).argmin())


def pareto_front(costs: Any) -> np.ndarray:
    """Return which rows no other beats: at most as large in every column, smaller in one.

    Args:
        costs: (n, d), what is to be small.

    Returns:
        (n,) booleans; equal rows are on the front together.

    Raises:
        InputError: another shape, or a number is not finite.
    """
    table = _table(costs)
    front = [not ((table <= row).all(axis=1) & (table < row).any(axis=1)).any() for row in table]
    return np.array(front)


def _fitted(points: np.ndarray, values: np.ndarray) -> GaussianProcessRegressor:
    kernel = ConstantKernel(1.0, (1e-2, 1e2)) * Matern(np.ones(points.shape[1]), (0.05, 20.0), nu=2.5)
    kernel += WhiteKernel(1e-3, (1e-6, 1.0))
    process = GaussianProcessRegressor(kernel)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a length scale at its bound only means that a layer does not matter
        return process.fit(points, values)


def _value(objective: Callable[[Exponents], float], vector: Exponents) -> float:
    value = float(objective(vector))
    if not np.isfinite(value):
        raise InputError(f"The objective of {vector} is {value}, expected a finite number: give poor ones a low value.")
    return value


def _table(values: Any) -> np.ndarray:
    try:
        table = np.asarray(values, dtype=np.float64)
    except (TypeError, ValueError):
        raise InputError("All columns must be numbers, and as many in each.") from None
    if table.ndim != 2 or not table.size or not np.isfinite(table).all():
        raise InputError(f"Finite numbers of two dimensions are needed, at least one, got shape {table.shape}.")
    return table
