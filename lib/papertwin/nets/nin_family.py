"""Network in Network: for CIFAR with filter groups or low-rank filters, NiN-64, and for ImageNet.

M. Lin, Q. Chen, S. Yan: Network in network. arXiv 1312.4400 (2013). A block is a convolution and 1×1 convolutions; each
class ends in a map of its own, whose mean is the logit.

- Groups root, tree and column: arXiv 1605.06489. Where the grouped convolution is followed by a 1×1, the two are a root
  module.
- NiN-64 and its groups: arXiv 1603.01250. nin-c3, nin-c3-lr: arXiv 1511.06744.

Reconstructed: the kinds of pools (max, then averages) and that they end at the border (sizes agree with the published
counts). Ours: nothing follows the last convolution of a network except where `last_relu` says so.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Literal

from torch import nn

from papertwin.errors import InputError
from papertwin.nets.initial import LINEAR, RELU, seeded
from papertwin.nets.layers import Composite, Named, activated, chain, convolution, dropped
from papertwin.nets.sizes import divided, scaled, share, whole

HALF = Fraction(1, 2)


@dataclass(frozen=True)
class Step:
    """A layer of a Network in Network, or the pool that a block ends with.

    Attributes:
        name: of the layer.
        filters: at width 1; 0 for a pool.
        kernel: side of the filters.
        groups: filter groups.
        low_rank: half the filters k×1 and half 1×k.
        stride: of the convolution.
        padding: None keeps the size.
    """

    name: str
    filters: int
    kernel: int = 1
    groups: int = 1
    low_rank: bool = False
    stride: int = 1
    padding: int | None = None


MAX, AVERAGE = Step("max", 0), Step("average", 0)


def nin_groups(topology: Literal["root", "column", "tree"], groups: int) -> tuple[int, int, int]:
    """Return the filter groups of conv1a, conv2a and conv3a: root-k (1, k, k/2), column-k (1, k, k), tree-k (1, k, 2k).

    Raises:
        InputError: unknown topology, or `groups` is no whole number above 0.
    """
    ends = {"root": max(1, whole("groups", groups) // 2), "column": groups, "tree": 2 * groups}
    if topology not in ends:
        raise InputError(f"topology must be one of {', '.join(ends)}, got {topology!r}.")
    return 1, groups, ends[topology]


def cifar_nin(
    classes: int = 10,
    *,
    groups: Sequence[int] = (1, 1, 1),
    width: float = 1.0,
    in_channels: int = 3,
    norm: bool = False,
    dropout: float = 0.0,
    fan: Literal["out", "in"] = "out",
    last_relu: bool = False,
    seed: int,
) -> nn.Sequential:
    """Build Network in Network for CIFAR-10: three blocks of a convolution and two 1×1 ones.

    Maps have 32, 16 and 8 pixels a side for images of 32, and 30, 15 and 7 for images of 30.

    Args:
        classes: number of classes.
        groups: filter groups of conv1a, conv2a and conv3a; see `nin_groups`.
        width: factor of every number of filters except the classes.
        in_channels: channels of an image.
        norm: batch normalisation before each ReLU.
        dropout: probability, after the pools; 0 leaves the layer out.
        fan: of the first weights, see `convolution`.
        last_relu: whether a ReLU follows the last convolution as well.
        seed: of the weights.

    Returns:
        (B, in_channels, H, W) → (B, classes) logits; 966,986 parameters by default.

    Raises:
        InputError: groups do not divide the filters, or another argument is out of range.
    """
    first, second, third = _groups(groups, 3)
    steps = [
        *(Step("conv1a", 192, 5, first), Step("conv1b", 160), Step("conv1c", 96), MAX),
        *(Step("conv2a", 192, 5, second), Step("conv2b", 192), Step("conv2c", 192), AVERAGE),
        *(Step("conv3a", 192, 3, third), Step("conv3b", 192)),
    ]
    options = {"norm": norm, "dropout": dropout, "fan": fan, "last_relu": last_relu}
    return _build(steps, "conv3c", classes, width=width, in_channels=in_channels, seed=seed, **options)


def nin_c3(
    classes: int = 10,
    *,
    low_rank: bool = False,
    width: float = 1.0,
    in_channels: int = 3,
    norm: bool = False,
    dropout: float = 0.0,
    seed: int,
) -> nn.Sequential:
    """Build nin-c3: Network in Network with 3×3 filters, two such layers in the second block.

    The counted nets are these: of nin-c3, the second layer of block 2 is low-rank (3×1 ‖ 1×3) already; of nin-c3-lr,
    every spatial layer. A ReLU follows each.

    Args:
        classes: number of classes.
        low_rank: nin-c3-lr.
        width: factor of every number of filters except the classes.
        in_channels: channels of an image.
        norm: batch normalisation before each ReLU.
        dropout: probability, after the pools; 0 leaves the layer out.
        seed: of the weights.

    Returns:
        (B, in_channels, H, W) → (B, classes) logits; 773,642 parameters, or 438,410 of low rank.

    Raises:
        InputError: an argument is out of range, or an odd number of filters is to be halved.
    """
    steps = [
        *(Step("conv1a", 192, 3, low_rank=low_rank), Step("conv1b", 160), Step("conv1c", 96), MAX),
        *(Step("conv2a", 192, 3, low_rank=low_rank), Step("conv2b", 192, 3, low_rank=True)),
        *(Step("conv2c", 192), Step("conv2d", 192), AVERAGE),
        *(Step("conv3a", 192, 3, low_rank=low_rank), Step("conv3b", 192)),
    ]
    return _build(steps, "conv3c", classes, width=width, in_channels=in_channels, norm=norm, dropout=dropout, seed=seed)


def nin64(
    classes: int = 10,
    *,
    groups: Sequence[int] = (1,) * 8,
    divisors: Sequence[int] = (1,) * 9,
    width: float = 1.0,
    in_channels: int = 3,
    norm: bool = False,
    dropout: float = 0.0,
    seed: int,
) -> nn.Sequential:
    """Build NiN-64, whose filter groups are searched: ten convolutions, maps of 32, 16, 8 and 4 pixels a side.

    Args:
        classes: number of classes.
        groups: filter groups of conv2 … conv9.
        divisors: what the filters of conv1 … conv9, at the given width, are divided by (the other way to make a
            network cheap); see `papertwin.nets.sizes.divided`.
        width: factor of every number of filters except the classes.
        in_channels: channels of an image.
        norm: batch normalisation before each ReLU.
        dropout: probability, after the pools; 0 leaves the layer out.
        seed: of the weights.

    Returns:
        (B, in_channels, H, W) → (B, classes) logits; 1,264,650 parameters by default.

    Raises:
        InputError: groups do not divide the filters, or another argument is out of range.
    """
    kernels = (5, 5, 1, 1, 5, 1, 1, 3, 1)
    filters = (64, 192, 160, 96, 192, 192, 192, 192, 192)
    parts = (1, *_groups(groups, 8))
    if len(divisors) != 9:
        raise InputError(f"divisors must be 9 whole numbers, of conv1 to conv9, got {divisors!r}.")
    steps = [
        Step(f"conv{place}", divided(scaled(count, width), divisor), kernel, group)
        for place, (count, divisor, kernel, group) in enumerate(zip(filters, divisors, kernels, parts), start=1)
    ]
    steps = [*steps[:4], MAX, *steps[4:7], AVERAGE, *steps[7:], AVERAGE]  # their filters are final: width 1 below
    return _build(steps, "conv10", classes, width=1.0, in_channels=in_channels, norm=norm, dropout=dropout, seed=seed)


def imagenet_nin(
    classes: int = 1000,
    *,
    width: float = 1.0,
    in_channels: int = 3,
    norm: bool = False,
    dropout: float = 0.0,
    seed: int,
) -> nn.Sequential:
    """Build Network in Network for ImageNet: four blocks of a convolution and two 1×1 ones, maps 54, 27, 13 and 6.

    Args:
        classes: number of classes.
        width: factor of every number of filters except the classes.
        in_channels: channels of an image.
        norm: batch normalisation before each ReLU.
        dropout: probability, after the pools; 0 leaves the layer out.
        seed: of the weights.

    Returns:
        (B, in_channels, H, W), 224 pixels a side in the paper and at least 39 → (B, classes) logits; 7,595,176
        parameters by default.

    Raises:
        InputError: an argument is out of range.
    """
    steps = [Step("conv1a", 96, 11, stride=4, padding=0), Step("conv1b", 96), Step("conv1c", 96), MAX]
    for block, (filters, kernel) in enumerate([(256, 5), (384, 3)], start=2):
        layers = (Step(f"conv{block}{letter}", filters, kernel if letter == "a" else 1) for letter in "abc")
        steps += [*layers, MAX]
    steps += [Step("conv4a", 1024, 3), Step("conv4b", 1024)]
    return _build(steps, "conv4c", classes, width=width, in_channels=in_channels, norm=norm, dropout=dropout, seed=seed)


def _groups(groups: Sequence[int], count: int) -> tuple[int, ...]:
    """Check the filter groups of a network."""
    if isinstance(groups, str) or not isinstance(groups, Sequence) or len(groups) != count:
        raise InputError(f"groups must be {count} whole numbers, one for each grouped layer, got {groups!r}.")
    return tuple(whole("groups", each) for each in groups)


def _build(
    steps: Sequence[Step],
    last: str,
    classes: int,
    *,
    width: float,
    in_channels: int,
    norm: bool,
    dropout: float,
    seed: int,
    fan: Literal["out", "in"] = "out",
    last_relu: bool = False,
) -> nn.Sequential:
    """Build the layers one after the other, then the map of each class and its mean."""

    def layers() -> Iterator[Named]:
        whole("classes", classes)
        channels, pools = whole("in_channels", in_channels), 0
        for step in steps:
            if step in (MAX, AVERAGE):
                pools += 1
                kind = nn.MaxPool2d if step is MAX else nn.AvgPool2d
                yield f"pool{pools}", kind(3, 2, ceil_mode=True)
                yield from dropped(f"dropout{pools}", dropout)
                continue
            filters = scaled(step.filters, width)
            yield from activated(step.name, _layer(step, channels, filters, fan), norm=filters if norm else None)
            channels = filters
        if last_relu:
            yield from activated(last, convolution(channels, classes, 1, fan=fan))
        else:
            yield last, convolution(channels, classes, 1, fan="in", gain=LINEAR)
        yield from (("mean", nn.AdaptiveAvgPool2d(1)), ("logits", nn.Flatten()))

    with seeded(seed):
        return chain(layers())


def _layer(step: Step, channels: int, filters: int, fan: Literal["out", "in"]) -> nn.Module:
    """Build a convolution, or of low rank its two halves."""
    if step.low_rank:
        half = share(filters, HALF)
        return Composite(channels, [(half, step.kernel, 1), (half, 1, step.kernel)])
    options = {"stride": step.stride, "padding": step.padding, "groups": step.groups, "gain": RELU, "fan": fan}
    return convolution(channels, filters, step.kernel, **options)
