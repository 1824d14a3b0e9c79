"""Baseline: the adversarial example by box-constrained L-BFGS.

Source: C. Szegedy et al., Intriguing properties of neural networks, arXiv 1312.6199 (2013), section 4.1: minimise
c |r| + loss(x + r, l) with x + r in the box, and search c by line search. Here, as in later uses of the method,

    minimise over x' in the box:  c ‖x' − x‖₂² + CE(f(x'), l)

with scipy's L-BFGS-B. The largest c whose minimiser still has another label is found by bisection on log c.

Deviations: the result is scored in the ∞-norm, so the minimiser with the smallest max |x' − x| among all adversarial
ones met is kept; any label other than f(x) counts. Each minimisation starts at the seed: starting at the previous
minimiser takes fewer steps, but what it finds then depends on the path; on one perceptron it was 3 % farther (median).

scipy's L-BFGS-B calls OpenBLAS for tiny systems. Where all cores are busy, with one search in each process for
instance, its threads wait for each other and a search takes several times as long: set OPENBLAS_NUM_THREADS=1 there.
"""

import math
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from scipy import optimize
from torch import nn
from torch.nn import functional

from papertwin.errors import InputError
from papertwin.robustness.inputs import (
    Box,
    Target,
    as_batch,
    check_count,
    check_seed,
    frozen,
    logits_of,
    predict_labels,
    targets_of,
)
from papertwin.robustness.outcome import Adversarial
from papertwin.training.loop import single_thread

TOLERANCE = 1e-5  # relative decrease of the objective at which a minimisation stops


def lbfgs_adversarial(
    model: nn.Module,
    x: Any,
    *,
    target: Target = "runner-up",
    box: Box = (0.0, 1.0),
    c_range: tuple[float, float] = (1e-3, 1e4),
    steps: int = 12,
    iterations: int = 50,
    device: Any = "cpu",
) -> Adversarial:
    """Search the nearest adversarial example with L-BFGS-B and a bisection on log c.

    Args:
        model: images → (B, classes) logits; left as it is.
        x: one image without a batch axis, inside the box.
        target: "runner-up", "all" (each other label, the nearest witness wins) or a label.
        box: smallest and largest value of a pixel; either may be infinite.
        c_range: weights c of the squared distance between which is searched, above 0.
        steps: bisections; each minimises once.
        iterations: of one minimisation, at most.
        device: where the network is evaluated, in float64.

    Returns:
        The adversarial minimiser with the smallest max |x' − x|; status "not found" if no minimiser is adversarial.

    Raises:
        InputError: an argument cannot be used.
    """
    started = time.perf_counter()
    ends = _check_range(c_range)
    steps, iterations = check_count("steps", steps), check_count("iterations", iterations)
    seed = check_seed(x, box)
    model64 = frozen(model, device)
    with single_thread():
        logits = logits_of(model64, seed)
        label, nearest = int(logits.argmax()), (math.inf, None, None, None)
        for goal in targets_of(logits, target):
            minimise = _minimiser(model64, seed, goal, box, iterations)
            for witness, reached in _adversarial_minimisers(model64, minimise, label, ends, steps):
                epsilon = float(np.abs(witness - seed).max())
                if epsilon < nearest[0]:
                    nearest = epsilon, witness, goal, reached
    epsilon, witness, goal, reached = nearest
    status = "not found" if witness is None else "found"
    return Adversarial(epsilon, witness, label, goal, reached, time.perf_counter() - started, status)


def objective(model64: nn.Module, seed: np.ndarray, target: int) -> Callable[..., tuple[float, np.ndarray]]:
    """Build (x' as a vector, c) → c ‖x' − x‖₂² + CE(f(x'), target) and its gradient, both float64.

    Args:
        model64: network from `frozen`.
        seed: x, float64, without a batch axis.
        target: label aimed at.
    """
    centre, goal = seed.ravel(), as_batch(model64, [target]).long()

    def value_and_gradient(point: np.ndarray, c: float) -> tuple[float, np.ndarray]:
        image = as_batch(model64, point.reshape(1, *seed.shape)).requires_grad_()
        loss = functional.cross_entropy(model64(image), goal)
        (slope,) = torch.autograd.grad(loss, image)
        change = point - centre
        return c * float(change @ change) + loss.item(), 2 * c * change + slope.cpu().numpy().ravel()

    return value_and_gradient


def _minimiser(
    model64: nn.Module, seed: np.ndarray, target: int, box: Box, iterations: int
) -> Callable[[float], np.ndarray]:
    """Build c → the minimiser that L-BFGS-B reaches from the seed, in the seed's shape."""
    function = objective(model64, seed, target)
    bounds = optimize.Bounds(np.full(seed.size, box[0], float), np.full(seed.size, box[1], float))
    options = {"maxiter": iterations, "ftol": TOLERANCE}

    def minimise(c: float) -> np.ndarray:
        found = optimize.minimize(
            function, seed.ravel(), (c,), method="L-BFGS-B", jac=True, bounds=bounds, options=options
        )
        return found.x.clip(*box).reshape(seed.shape)

    return minimise


def _adversarial_minimisers(
    model64: nn.Module, minimise: Callable[[float], np.ndarray], label: int, ends: tuple[float, float], steps: int
) -> Iterator[tuple[np.ndarray, int]]:
    """Bisect log c for the largest c with an adversarial minimiser; yield each adversarial one with its label."""
    low, high = math.log(ends[0]), math.log(ends[1])
    for _ in range(steps):
        middle = (low + high) / 2
        point = minimise(math.exp(middle))
        reached = int(predict_labels(model64, point[None])[0])
        if reached == label:
            high = middle
        else:
            low = middle
            yield point, reached


def _check_range(c_range: tuple[float, float]) -> tuple[float, float]:
    try:
        low, high = (float(end) for end in c_range)
    except (TypeError, ValueError):
        raise InputError(f"c_range must be two numbers, for example (1e-3, 1e4), got {c_range!r}.") from None
    if not 0 < low < high < math.inf:
        raise InputError(f"c_range must be two finite numbers above 0, the smaller first, got {c_range!r}.")
    return low, high
