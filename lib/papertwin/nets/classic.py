"""Networks of plain layers: a multilayer perceptron, LeNet for MNIST, Network in Network for CIFAR-10, AlexNet.

- LeNet as in the MNIST example of Caffe (after Y. LeCun et al.: Gradient-based learning applied to document
  recognition. 1998): no padding, and no ReLU after the convolutions.
- Network in Network: M. Lin, Q. Chen, S. Yan, arXiv 1312.4400 (2013), with the widths of its CIFAR-10 model; other
  forms of it are in `papertwin.nets.nin_family`.
- AlexNet: A. Krizhevsky, I. Sutskever, G. Hinton: ImageNet classification with deep convolutional neural networks.
  NIPS 2012, in one column, with filter groups as in arXiv 1605.06489.

All are `torch.nn.Sequential` of torch's own layers, take images in [0, 1] of shape (B, C, H, W), the perceptron any
shape (B, …) with `sizes[0]` values an image, and give logits (B, classes).

Deviations: weights of the perceptron and LeNet start at torch's defaults, those of Network in Network at Kaiming's
normal distribution with zero biases (with torch's defaults the signal shrinks to nothing over its nine layers); the
papers' own draws differ. AlexNet has no local response normalisation.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import pairwise
from typing import Literal

from torch import nn

from papertwin.errors import InputError
from papertwin.nets.initial import seeded
from papertwin.nets.layers import Named, activated, chain, classifier, convolution
from papertwin.nets.nin_family import cifar_nin
from papertwin.nets.sizes import convolved, pooled, scaled, whole

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

    return _drawn(layers, seed)


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

    return _drawn(layers, seed)


def nin(classes: int = 10, *, seed: int) -> nn.Sequential:
    """Build Network in Network for CIFAR-10: three blocks of a convolution and two 1×1 ones, with ReLU in between.

    This is `cifar_nin` with dropout, weights drawn by their fan-in, and layers that have numbers instead of names.
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
    *layers, _mean, _flat = cifar_nin(classes, dropout=0.5, fan="in", seed=seed)
    return nn.Sequential(*layers, nn.AvgPool2d(8), nn.Flatten())


def alexnet(
    classes: int = 1000,
    *,
    groups: int = 1,
    width: float = 1.0,
    in_channels: int = 3,
    side: int = 227,
    dropout: float = 0.0,
    seed: int,
) -> nn.Sequential:
    """Build AlexNet in one column, with filter groups in its second, fourth and fifth convolution.

    Args:
        classes: number of classes.
        groups: filter groups of conv2, conv4 and conv5; the first AlexNet had 2.
        width: factor of every number of filters and units except the classes.
        in_channels: channels of an image.
        side: pixels of an image, at least 39; the maps have 55, 27, 13 and 6 for 227.
        dropout: probability, after fc6 and fc7; the paper's 0.5.
        seed: of the weights.

    Returns:
        (B, in_channels, side, side) → (B, classes) logits; 62,378,344 parameters by default.

    Raises:
        InputError: groups do not divide the filters, images are too small, or another argument is out of range.
    """
    steps = [("conv1", 96, 11, 1), ("conv2", 256, 5, groups), ("conv3", 384, 3, 1)]
    steps += [("conv4", 384, 3, groups), ("conv5", 256, 3, groups)]

    def layers() -> Iterator[Named]:
        channels, left = in_channels, convolved(whole("side", side), 11, 4)
        for name, filters, kernel, parts in steps:
            options = {"stride": 4, "padding": 0} if name == "conv1" else {"groups": parts}
            yield from activated(name, convolution(channels, scaled(filters, width), kernel, **options))
            channels = scaled(filters, width)
            if name in ("conv1", "conv2", "conv5"):
                yield f"pool{name[-1]}", nn.MaxPool2d(3, 2, ceil_mode=True)
                left = pooled(left)
        yield "flat", nn.Flatten()
        yield from classifier(channels * left**2, scaled(4096, width), classes, dropout)

    with seeded(seed):
        return chain(layers())


def _drawn(layers: Callable[[], Iterable[nn.Module]], seed: int) -> nn.Sequential:
    """Build a network whose weights depend on the seed alone; torch's own generator is left as it was."""
    with seeded(seed):
        return nn.Sequential(*layers())
