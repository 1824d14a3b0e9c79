"""The linear region: against Jacobians of the network itself, and inside exactly where every unit does the same."""

import math

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch import nn
from torch.autograd.functional import jacobian

from papertwin.nets import lenet, mlp
from papertwin.robustness import region as module
from papertwin.robustness.inputs import frozen
from papertwin.robustness.region import LinearRegion


def deep(seed):
    """Two blocks of everything."""
    return nn.Sequential(
        nn.Sequential(nn.Conv2d(2, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU()),
        nn.MaxPool2d(3, 2, padding=1, ceil_mode=True),
        nn.Dropout2d(0.5),
        nn.Sequential(nn.Conv2d(4, 3, 3, padding="same", padding_mode="reflect", groups=1), nn.ReLU()),
        nn.AvgPool2d(2, 1),
        nn.Flatten(),
        nn.Linear(27, 4),
    )


def shared(seed):
    """One ReLU in three places."""
    bend = nn.ReLU()
    return nn.Sequential(nn.Linear(6, 7), bend, nn.Linear(7, 7), bend, nn.Linear(7, 3), bend)


NETS = {
    "perceptron": (lambda seed: mlp((6, 9, 8, 4), seed=seed), (1, 2, 3)),
    "deep": (deep, (2, 7, 7)),
    "pool without relu": (
        lambda seed: nn.Sequential(nn.Conv2d(1, 2, 2), nn.MaxPool2d(3, 2), nn.Flatten(), nn.Linear(8, 3)),
        (1, 6, 6),
    ),
    "pool first": (lambda seed: nn.Sequential(nn.MaxPool2d(2), nn.Flatten(), nn.Linear(4, 3), nn.ReLU()), (1, 4, 4)),
    "shared relu": (shared, (6,)),
    "linear": (lambda seed: nn.Linear(6, 3), (6,)),
}


def network(kind: str, seed: int, device="cpu") -> nn.Module:
    """A float64 network whose weights, biases and statistics are random."""
    model = NETS[kind][0](seed)
    rng = np.random.default_rng(seed)
    for name, value in model.state_dict().items():
        if value.is_floating_point():
            draws = torch.from_numpy(rng.normal(size=value.shape))
            value.copy_(draws.abs() + 0.2 if name.endswith("running_var") else draws)
    return frozen(model, device)


def inputs(kind: str, seed: int, count: int = 1, device="cpu") -> torch.Tensor:
    """(count, …) points of the unit box."""
    points = torch.from_numpy(np.random.default_rng(seed + 1000).random((count, *NETS[kind][1])))
    return points.to("cpu" if str(device) == "mps" else device)


def flat(model: nn.Module) -> list[nn.Module]:
    """The layers of a network, one by one."""
    return [layer for child in model for layer in flat(child)] if isinstance(model, nn.Sequential) else [model]


def bends(model: nn.Module, seed: torch.Tensor):
    """Pre-activation of every unit and every pair of pixels of a pooling window, as functions of x, with its sign at
    the seed: a list of (function, sign, loser, winner); loser and winner are None for units."""
    layers, found = flat(model), []
    for place, layer in enumerate(layers):
        below = nn.Sequential(*layers[:place])
        z = below(seed[None])
        if isinstance(layer, nn.ReLU):
            found.append((below, torch.where(z > 0, 1.0, -1.0).flatten().double()))
        if isinstance(layer, nn.MaxPool2d):
            found.append((lambda x, below=below, layer=layer: entries(layer, below(x)), None))
    return found


def entries(pool: nn.MaxPool2d, z: torch.Tensor) -> torch.Tensor:
    """(1, windows, entries): what a pooling layer chooses from, −inf beyond the border."""
    height, width = (n + 2 * pool.padding + pool.stride for n in z.shape[2:])
    wide = nn.functional.pad(z, (pool.padding, width, pool.padding, height), value=-math.inf)
    size = pool(z).shape[2:]
    windows = wide.unfold(2, pool.kernel_size, pool.stride).unfold(3, pool.kernel_size, pool.stride)
    return windows[:, :, : size[0], : size[1]].flatten(4).flatten(1, 3)


def rows_of_the_network(model: nn.Module, seed: torch.Tensor) -> list[tuple[np.ndarray, np.ndarray]]:
    """A and c of each bending layer by derivatives of the network itself at the seed, in any order."""
    found = []
    for function, sign in bends(model, seed):
        if sign is not None:
            value, matrix = function(seed[None]).flatten(), jacobian(function, seed[None]).flatten(0, -5)
        value, matrix = slacks_at(function, sign, seed)
        found.append((matrix.numpy(), (value - matrix @ seed.flatten()).numpy()))
    return found


def slacks_at(function, sign, seed):
    """Slacks of one bending layer at the seed and their derivatives."""
    value = function(seed[None])[0]
    slope = jacobian(function, seed[None], vectorize=True)
    slope = slope.reshape(*value.shape, seed.numel())
    if sign is not None:
        return value.flatten() * sign, slope.reshape(-1, seed.numel()) * sign[:, None]
    winner = value.argmax(1)
    pairs = [(w, j, k) for w, j in enumerate(winner) for k in range(value.shape[1]) if k != j and value[w, k] > -1e300]
    values = torch.stack([value[w, j] - value[w, k] for w, j, k in pairs])
    return values, torch.stack([slope[w, j] - slope[w, k] for w, j, k in pairs])
