"""Networks of the robustness papers: a multilayer perceptron, LeNet for MNIST, Network in Network for CIFAR-10.

- LeNet as in the MNIST example of Caffe (after Y. LeCun et al.: Gradient-based learning applied to document
  recognition. 1998): no padding, and no ReLU after the convolutions.
- Network in Network: M. Lin, Q. Chen, S. Yan, arXiv 1312.4400 (2013), with the widths of its CIFAR-10 model.

All are `torch.nn.Sequential` of torch's own layers, take images in [0, 1] of shape (B, C, H, W), the perceptron any
shape (B, …) with `sizes[0]` values an image, and give logits (B, classes).

Deviations: weights start at torch's defaults, those of Network in Network at Kaiming's normal distribution with zero
biases (with torch's defaults the signal shrinks to nothing over its nine layers); the papers' own draws differ.
"""

from collections.abc import Callable, Iterable, Sequence
from itertools import pairwise
from typing import Literal

import numpy as np
import torch
from torch import nn

from papertwin.errors import InputError

Pool = Literal["max", "average"]
POOLS: dict[str, type[nn.Module]] = {"max": nn.MaxPool2d, "average": nn.AvgPool2d}


def mlp(sizes: Sequence[int] = (784, 100, 50, 10), *, seed: int) -> nn.Sequential:
    """Build a perceptron with ReLU between its linear layers.

    Args:
        sizes: values of an image, widths of the hidden layers, classes; at least two whole numbers above 0.
        seed: of the weights.

    Returns:
        (B, …) → (B, sizes[-1]) logits.

    Raises:
        InputError: `sizes` is too short or holds something else.
    """
    if len(sizes) < 2 or any(isinstance(n, bool) or not isinstance(n, int) or n < 1 for n in sizes):
        raise InputError(f"sizes must be at least two whole numbers above 0, inputs first, got {sizes!r}.")

    def layers() -> Iterable[nn.Module]:
        yield nn.Flatten()
        for place, (fan_in, fan_out) in enumerate(pairwise(sizes)):
            if place:
                yield nn.ReLU()
            yield nn.Linear(fan_in, fan_out)

    return _seeded(layers, seed)


def lenet(pool: Pool = "max", *, seed: int) -> nn.Sequential:
    """Build Caffe's LeNet: two convolutions, each with pooling and no ReLU, then 500 ReLU units.

    Args:
        pool: max, or average, in windows of 2×2.
        seed: of the weights.

    Returns:
        (B, 1, 28, 28) → (B, 10) logits; 431,080 parameters.

    Raises:
        InputError: unknown pooling.
    """
    if pool not in POOLS:
        raise InputError(f"pool must be one of {', '.join(POOLS)}, got {pool!r}.")

    def layers() -> Iterable[nn.Module]:
        yield from (nn.Conv2d(1, 20, 5), POOLS[pool](2))
        yield from (nn.Conv2d(20, 50, 5), POOLS[pool](2))
        yield from (nn.Flatten(), nn.Linear(50 * 4 * 4, 500), nn.ReLU(), nn.Linear(500, 10))

    return _seeded(layers, seed)


def nin(classes: int = 10, *, seed: int) -> nn.Sequential:
    """Build Network in Network for CIFAR-10: three blocks of a convolution and two 1×1 ones, with ReLU in between.

    Pooling windows are 3×3 with stride 2 and end at the border (`ceil_mode`), so maps have 32, 16 and 8 pixels a
    side. Each class has its own map, whose mean is the logit. No ReLU there (ours): with one, all logits can become
    zero early in training and stay so.

    Args:
        classes: number of classes.
        seed: of the weights.

    Returns:
        (B, 3, 32, 32) → (B, classes) logits; 966,986 parameters for ten classes.

    Raises:
        InputError: `classes` is no whole number above 0.
    """
    if isinstance(classes, bool) or not isinstance(classes, int) or classes < 1:
        raise InputError(f"classes must be a whole number above 0, got {classes!r}.")

    def layers() -> Iterable[nn.Module]:
        yield from _block(3, (192, 160, 96), 5)
        yield from (nn.MaxPool2d(3, 2, ceil_mode=True), nn.Dropout(0.5))
        yield from _block(96, (192, 192, 192), 5)
        yield from (nn.AvgPool2d(3, 2, ceil_mode=True), nn.Dropout(0.5))
        yield from list(_block(192, (192, 192, classes), 3))[:-1]
        yield from (nn.AvgPool2d(8), nn.Flatten())

    return _seeded(layers, seed)


def _block(channels: int, widths: Sequence[int], kernel: int) -> Iterable[nn.Module]:
    """Yield a convolution and 1×1 convolutions that keep the size of the maps, with ReLU after each."""
    for width in widths:
        convolution = nn.Conv2d(channels, width, kernel, padding=kernel // 2)
        nn.init.kaiming_normal_(convolution.weight, nonlinearity="relu")
        nn.init.zeros_(convolution.bias)
        yield from (convolution, nn.ReLU())
        channels, kernel = width, 1


def _seeded(layers: Callable[[], Iterable[nn.Module]], seed: int) -> nn.Sequential:
    """Build a network whose weights depend on the seed alone; torch's own generator is left as it was."""
    if isinstance(seed, bool) or not isinstance(seed, int | np.integer) or not 0 <= seed < 2**32:
        raise InputError(f"seed must be a whole number from 0 to 4294967295, got {seed!r}.")
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(int(seed))
        return nn.Sequential(*layers())
