"""Proofs of infeasibility: against the largest margin by linear programming, and recomputed from the explicit rows."""

from functools import cache

import numpy as np
import pytest
import torch
from scipy.optimize import linprog
from torch import nn

from papertwin.nets import mlp
from papertwin.robustness.certificate import CHECK, prove_infeasible
from papertwin.robustness.inputs import frozen
from papertwin.robustness.region import LinearRegion


def convolutional() -> nn.Sequential:
    """A small LeNet with ReLU, pools that overlap and a norm."""
    return nn.Sequential(
        nn.Conv2d(1, 3, 3),
        nn.BatchNorm2d(3),
        nn.ReLU(),
        nn.MaxPool2d(3, 1),
        nn.Flatten(),
        nn.Linear(12, 6),
        nn.ReLU(),
        nn.Linear(6, 4),
    )


NETS = {"perceptron": (lambda: mlp((7, 8, 6, 4), seed=0), (7,)), "convolutional": (convolutional, (1, 6, 6))}
CASES = [(kind, seed) for kind in NETS for seed in range(6)]


def region_of(kind: str, seed: int, device="cpu") -> LinearRegion:
    """The region of a random point of a network with random weights, biases and statistics."""
    model, rng = NETS[kind][0](), np.random.default_rng(seed)
    for name, value in model.state_dict().items():
        if value.is_floating_point():
            draws = torch.from_numpy(rng.normal(size=value.shape))
            value.copy_(draws.abs() + 0.2 if name.endswith("running_var") else draws)
    model64 = frozen(model, device)
    return LinearRegion(model64, torch.from_numpy(rng.random(NETS[kind][1])).to(next(model64.parameters()).device))


def unit_box(region: LinearRegion) -> tuple[torch.Tensor, torch.Tensor]:
    """The box [0, 1] in the shape of the seed."""
    return torch.zeros_like(region.seed), torch.ones_like(region.seed)


def label_rows(region: LinearRegion, target: int) -> tuple[np.ndarray, np.ndarray]:
    """D and d: the target's logit minus each other."""
    matrix, shift = region.logit_rows()
    others = np.arange(len(matrix)) != target
    return (matrix[target] - matrix)[others], (shift[target] - shift)[others]


@cache
def largest_margin(kind: str, seed: int, target: int) -> float:
    """Of the target in the region and the unit box, by scipy: max m with A x + c ≥ 0 and D x + d ≥ m."""
    region = region_of(kind, seed)
    matrix, constant = region.constraint_rows(np.arange(region.rows))
    contrast, shift = label_rows(region, target)
    rows = np.block([[matrix, np.zeros((len(matrix), 1))], [contrast, -np.ones((len(contrast), 1))]])
    size = region.seed.numel()
    found = linprog(
        np.append(np.zeros(size), -1.0),
        A_ub=-rows,
        b_ub=np.concatenate([constant, shift]),
        bounds=[(0, 1)] * size + [(None, None)],
    )
    assert found.status == 0
    return -found.fun
