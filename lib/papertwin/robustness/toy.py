"""A network on the plane, small enough to see: its data, its linear regions, and the nearest point by brute force."""

import numpy as np
import torch
from torch import nn

from papertwin.robustness.inputs import frozen, logits_of
from papertwin.robustness.region import LinearRegion
from papertwin.training.loop import fit


def plane_data(count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Points of two classes in the unit square, apart along a wave.

    Args:
        count: number of points.
        seed: of the draws.

    Returns:
        (count, 2) float32 in [0, 1], and (count,) int64 labels: 1 above y = 0.5 + 0.25 sin(2πx), 0 below; points less
        than 0.06 above or below the wave are drawn again.
    """
    rng = np.random.default_rng(seed)
    points = np.zeros((0, 2))
    while len(points) < count:
        drawn = rng.random((2 * count, 2))
        points = np.concatenate([points, drawn[np.abs(_height(drawn)) > 0.06]])
    points = points[:count].astype(np.float32)
    return points, (_height(points) > 0).astype(np.int64)


def _height(points: np.ndarray) -> np.ndarray:
    return points[:, 1] - 0.5 - 0.25 * np.sin(2 * np.pi * points[:, 0])


def plane_network(points: np.ndarray, labels: np.ndarray, hidden: int = 12, seed: int = 0) -> nn.Sequential:
    """Train a network with one hidden layer of ReLUs on points of the plane, long enough to fit nearly all of them."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = nn.Sequential(nn.Linear(2, hidden), nn.ReLU(), nn.Linear(hidden, 2))
    fit(model, points, labels, epochs=600, rate=0.3, batch=32, seed=seed)
    return model.eval()


def grid(steps: int) -> np.ndarray:
    """(steps², 2) points of the unit square, row by row from the bottom."""
    axis = np.linspace(0.0, 1.0, steps)
    return np.stack(np.meshgrid(axis, axis), -1).reshape(-1, 2)


def loss_surface(model: nn.Module, points: np.ndarray) -> np.ndarray:
    """Cross-entropy of label 1, −log p₁, at (n, 2) points: log 2 on the decision line."""
    return np.logaddexp(0.0, -logit_lead(model, points))


def logit_lead(model: nn.Module, points: np.ndarray) -> np.ndarray:
    """Difference of the two logits, label 1 minus label 0, at (n, 2) points: 0 on the decision line."""
    with torch.no_grad():
        logits = frozen(model)(torch.from_numpy(points).double()).numpy()
    return logits[:, 1] - logits[:, 0]


def inside_region(model: nn.Sequential, seed: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Which of (n, 2) points lie in the linear region of a seed."""
    region = LinearRegion(frozen(model), torch.from_numpy(seed).double())
    return (region.slack(torch.from_numpy(points).double())[0] >= 0).all(1).numpy()


def nearest_on_grid(model: nn.Sequential, seed: np.ndarray, steps: int, *, within: bool) -> float:
    """Distance max |x' − x| from a seed to the nearest grid point with another label; inf where there is none.

    Args:
        model: network of the plane.
        seed: (2,) point.
        steps: grid points a side.
        within: only in the seed's linear region (ρ̂), or anywhere (ρ).
    """
    points = grid(steps)
    label = logits_of(frozen(model), seed.astype(np.float64)).argmax()
    other = (logit_lead(model, points) > 0) != bool(label)
    if within:
        other &= inside_region(model, seed, points)
    return float(np.abs(points[other] - seed).max(1).min()) if other.any() else np.inf
