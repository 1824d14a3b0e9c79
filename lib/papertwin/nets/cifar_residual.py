"""Residual networks for small images: CIFAR's ResNet-20, 32, …, a ResNet-18 without its pool, wide ResNets.

- K. He, X. Zhang, S. Ren, J. Sun: Deep residual learning. CVPR 2016, arXiv 1512.03385: section 4.2 for 6n + 2 layers,
  table 1 for the stages of ResNet-18.
- S. Zagoruyko, N. Komodakis: Wide residual networks. BMVC 2016, arXiv 1605.07146: 6n + 4 layers.

A network is a stem, stages of blocks of two 3×3 convolutions, the mean of each map and one fully connected layer; maps
have half as many pixels a side from stage 2 on. A residual stream, channels that blocks add to one after the other,
begins at the stem and at each projection, and is known by the names of its layers:

- begun by `conv1` (the stem) or `stage{s}_block1.projection`, added to by each `stage{s}_block{b}.conv2` from there on;
- read by each `stage{s}_block{b}.conv1` behind it, up to those of the block with the next projection, by that
  `projection`, and in the end by `fc`. In pre-activation networks `norm1` of a block reads it, and `norm` before `fc`.

What `conv1` of a block gives, only its `conv2` reads. No biases but that of `fc`.

Ours: ResNet-20 and its like have projections with batch normalisation (option B there) where nothing else is said: with
option A one stream runs through all stages, and its channels cannot be renumbered stage by stage. First weights are
those of `papertwin.nets.initial`.
"""

from collections.abc import Iterator
from functools import partial
from typing import Literal, get_args

import torch
from torch import nn
from torch.nn import functional as F

from papertwin.checks import is_whole
from papertwin.errors import InputError
from papertwin.nets.initial import LINEAR, seeded
from papertwin.nets.layers import Named, activated, chain, convolution, dense
from papertwin.nets.sizes import scaled, whole

Shortcut = Literal["projection", "padding"]
NARROW, BROAD = (16, 32, 64), (64, 128, 256, 512)  # filters of each stage: of 6n + 2 and 6n + 4 layers, of ResNet-18


class BasicBlock(nn.Module):
    """Two 3×3 convolutions, the input added, batch normalisation and ReLU after each.

    (B, c, H, W) → (B, d, ⌈H / stride⌉, ⌈W / stride⌉).

    Attributes:
        projection: 1×1 convolution of the input, or None.
    """

    def __init__(self, channels: int, filters: int, *, stride: int = 1, shortcut: Shortcut = "projection"):
        """Build the layers.

        Args:
            channels: of the input, c.
            filters: of both convolutions, d; with "padding" at least c.
            stride: of the first.
            shortcut: what becomes of the input where its shape changes: "projection" is a 1×1 convolution with batch
                normalisation, "padding" leaves out pixels and appends maps of zeros.
        """
        super().__init__()
        self.stride, self.missing = stride, filters - channels
        self.conv1 = convolution(channels, filters, 3, stride=stride, bias=False)
        self.norm1 = nn.BatchNorm2d(filters)
        self.conv2 = convolution(filters, filters, 3, bias=False)
        self.norm2 = nn.BatchNorm2d(filters)
        project = shortcut == "projection" and (stride > 1 or channels != filters)
        options = {"stride": stride, "bias": False, "gain": LINEAR}
        self.projection = convolution(channels, filters, 1, **options) if project else None
        self.projection_norm = nn.BatchNorm2d(filters) if project else None

    def forward(self, maps: torch.Tensor) -> torch.Tensor:
        """(B, c, H, W) → (B, d, H', W')."""
        new = self.norm1(self.conv1(maps)).relu()
        return (self.norm2(self.conv2(new)) + self._old(maps)).relu()

    def _old(self, maps: torch.Tensor) -> torch.Tensor:
        """Bring the input into the shape of the output: (B, c, H, W) → (B, d, H', W')."""
        if self.projection is not None:
            return self.projection_norm(self.projection(maps))
        kept = maps[:, :, :: self.stride, :: self.stride]
        return F.pad(kept, (0, 0, 0, 0, 0, self.missing)) if self.missing else kept


class WideBlock(nn.Module):
    """Batch normalisation, ReLU and a 3×3 convolution, twice, and the input added.

    (B, c, H, W) → (B, d, ⌈H / stride⌉, ⌈W / stride⌉). Where its shape changes, a 1×1 convolution of the activated input
    is added instead.

    Attributes:
        projection: that convolution, or None.
    """

    def __init__(self, channels: int, filters: int, *, stride: int = 1):
        """Build the layers.

        Args:
            channels: of the input, c.
            filters: of both convolutions, d.
            stride: of the first.
        """
        super().__init__()
        self.norm1 = nn.BatchNorm2d(channels)
        self.conv1 = convolution(channels, filters, 3, stride=stride, bias=False)
        self.norm2 = nn.BatchNorm2d(filters)
        self.conv2 = convolution(filters, filters, 3, bias=False)
        options = {"stride": stride, "bias": False, "gain": LINEAR}
        changes = stride > 1 or channels != filters
        self.projection = convolution(channels, filters, 1, **options) if changes else None

    def forward(self, maps: torch.Tensor) -> torch.Tensor:
        """(B, c, H, W) → (B, d, H', W')."""
        active = self.norm1(maps).relu()
        new = self.conv2(self.norm2(self.conv1(active)).relu())
        return new + (maps if self.projection is None else self.projection(active))


def cifar_resnet(
    depth: int,
    classes: int = 10,
    *,
    shortcut: Shortcut = "projection",
    width: float = 1.0,
    in_channels: int = 3,
    seed: int,
) -> nn.Sequential:
    """Build a residual network of basic blocks for small images.

    Args:
        depth: 18, four stages of two blocks with 64, 128, 256 and 512 filters; or 6n + 2, three stages of n blocks with
            16, 32 and 64. Layers with weights, without projections.
        classes: number of classes.
        shortcut: where the shape changes, "projection" or the "padding" without parameters; see `BasicBlock`.
        width: factor of every number of filters except the classes.
        in_channels: channels of an image.
        seed: of the weights.

    Returns:
        (B, in_channels, H, W) → (B, classes) logits; 11,173,962 parameters at depth 18 and 272,474 at depth 20, or
        269,722 of them with padding, those of batch normalisation (9,600, 1,568 and 1,376) among them.

    Raises:
        InputError: no such depth or shortcut, or another argument is out of range.
    """
    if depth != 18 and not (is_whole(depth, 8) and depth % 6 == 2):
        raise InputError(f"depth must be 18, or 6n + 2 from 8 on, got {depth!r}.")
    if shortcut not in get_args(Shortcut):
        raise InputError(f"shortcut must be one of {', '.join(get_args(Shortcut))}, got {shortcut!r}.")
    stages, count = (BROAD, 2) if depth == 18 else (NARROW, (depth - 2) // 6)
    sizes = [scaled(filters, width) for filters in stages]

    def layers() -> Iterator[Named]:
        stem = convolution(in_channels, sizes[0], 3, bias=False)
        yield from activated("conv1", stem, norm=sizes[0])
        yield from _stages(partial(BasicBlock, shortcut=shortcut), sizes[0], sizes, count)
        yield from _head(sizes[-1], classes)

    with seeded(seed):
        return chain(layers())


def wide_resnet(
    depth: int = 22,
    widen: int = 2,
    classes: int = 10,
    *,
    width: float = 1.0,
    in_channels: int = 3,
    seed: int,
) -> nn.Sequential:
    """Build a wide residual network, WRN-depth-widen, of pre-activation blocks without dropout.

    Args:
        depth: 6n + 4, three stages of n blocks. The stem, 6n layers in the blocks, and the three projections counted
            (at `widen` 1 there are two).
        widen: k; stages have 16k, 32k and 64k filters, the stem 16.
        classes: number of classes.
        width: factor of every number of filters except the classes, the stem's as well.
        in_channels: channels of an image.
        seed: of the weights.

    Returns:
        (B, in_channels, H, W) → (B, classes) logits; 1,079,642 parameters by default, 2,720 of batch normalisation
        among them.

    Raises:
        InputError: no such depth, or another argument is out of range.
    """
    if not (is_whole(depth, 10) and depth % 6 == 4):
        raise InputError(f"depth must be 6n + 4 from 10 on, got {depth!r}.")
    stem = scaled(NARROW[0], width)
    sizes = [scaled(filters * whole("widen", widen), width) for filters in NARROW]

    def layers() -> Iterator[Named]:
        yield "conv1", convolution(in_channels, stem, 3, bias=False)
        yield from _stages(WideBlock, stem, sizes, (depth - 4) // 6)
        yield from (("norm", nn.BatchNorm2d(sizes[-1])), ("relu", nn.ReLU()))
        yield from _head(sizes[-1], classes)

    with seeded(seed):
        return chain(layers())


def _stages(block: type[nn.Module] | partial, channels: int, sizes: list[int], count: int) -> Iterator[Named]:
    """Yield the blocks: `count` of each stage, the first of stages 2, 3, … with stride 2."""
    for stage, filters in enumerate(sizes, start=1):
        for place in range(1, count + 1):
            stride = 2 if stage > 1 and place == 1 else 1
            yield f"stage{stage}_block{place}", block(channels, filters, stride=stride)
            channels = filters


def _head(channels: int, classes: int) -> Iterator[Named]:
    """Yield the mean of each map and the last layer."""
    yield from (("mean", nn.AdaptiveAvgPool2d(1)), ("flat", nn.Flatten()))
    yield "fc", dense(channels, whole("classes", classes), last=True)
