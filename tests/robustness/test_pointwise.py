"""Pointwise robustness: lazy against full, closed forms, grids, every solver, and witnesses run through the network."""

import math

import numpy as np
import pytest
import torch
from torch import nn

from papertwin.data.images import load_images
from papertwin.errors import ParameterError
from papertwin.nets import lenet, mlp, stored
from papertwin.robustness import pointwise as module
from papertwin.robustness.inputs import frozen, logits_of, runner_up
from papertwin.robustness.pointwise import pointwise_robustness
from papertwin.robustness.program import SOLVERS, Solution
from papertwin.robustness.region import LinearRegion

FREE = (-np.inf, np.inf)


def convolutional() -> nn.Sequential:
    """Convolutions with and without ReLU, pools that overlap, a norm, dropout."""
    return nn.Sequential(
        nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU()),
        nn.MaxPool2d(3, 2, padding=1),
        nn.Dropout2d(0.5),
        nn.Conv2d(4, 6, 2),
        nn.MaxPool2d(2, ceil_mode=True),
        nn.Flatten(),
        nn.Dropout(0.5),
        nn.Linear(24, 5),
    )


NETS = {
    "perceptron": (lambda: mlp((30, 24, 16, 5), seed=0), (30,)),
    "convolutional": (convolutional, (1, 9, 9)),
    "averaged": (
        lambda: nn.Sequential(nn.Conv2d(1, 3, 2), nn.ReLU(), nn.AvgPool2d(2), nn.Flatten(), nn.Linear(27, 4)),
        (1, 7, 7),
    ),
}
CASES = [(kind, seed) for kind in NETS for seed in range(8)]


def network(kind: str, seed: int) -> nn.Sequential:
    """A network with weights, biases and statistics from a seed, in training mode."""
    model, rng = NETS[kind][0](), np.random.default_rng(seed)
    for name, value in model.state_dict().items():
        if value.is_floating_point():
            size = math.sqrt(value[0].numel()) if value.ndim > 1 else 3.0
            draws = torch.from_numpy(rng.normal(size=value.shape)) / size
            value.copy_(draws.abs() + 0.2 if name.endswith("running_var") else draws)
    return model.train()


def image(kind: str, seed: int) -> np.ndarray:
    """A random image of the unit box."""
    return np.random.default_rng(seed + 1000).random(NETS[kind][1])


def same(first, second, tolerance: float = 1e-6) -> bool:
    """Whether two outcomes agree in status and distance."""
    return first.status == second.status and (
        first.epsilon == second.epsilon or abs(first.epsilon - second.epsilon) < tolerance
    )
