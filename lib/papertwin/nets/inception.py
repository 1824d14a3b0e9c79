"""GoogLeNet, plain, with root modules or with low-rank filters, in the three geometries that were counted.

- C. Szegedy et al.: Going deeper with convolutions. CVPR 2015, arXiv 1409.4842; widths of its table 1.
- Root modules in conv2 and the inception modules: arXiv 1605.06489.
- Low-rank filters, "lr" and "lr-conv1": arXiv 1511.06744.

The geometries are inferred from the published counts, each reproduces its rows exactly. They differ in the padding of
the four pools of 3×3 with stride 2: A none (maps 112/56/28/14/7), B one pixel in the third and fourth (112/56/28/15/8),
C one pixel in all (112/57/29/15/8). Pools end at the border. On B and C the final average of 7×7 leaves 2×2 values.

Deviations: no local response normalisation; for small images averages shrink to the map they see.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import Literal, NamedTuple, get_args

import torch
from torch import nn

from papertwin.errors import InputError
from papertwin.nets.initial import seeded
from papertwin.nets.layers import Composite, Named, activated, chain, convolution, dense, dropped
from papertwin.nets.sizes import convolved, pooled, scaled, share, whole

Geometry = Literal["A", "B", "C"]
LowRank = Literal["none", "inception", "conv1"]
PADDING: dict[str, tuple[int, int, int, int]] = {"A": (0, 0, 0, 0), "B": (0, 0, 1, 1), "C": (1, 1, 1, 1)}
# 1×1; reduce and 3×3; reduce and 5×5; 1×1 after the pool
MODULES = {
    "3a": (64, 96, 128, 16, 32, 32),
    "3b": (128, 128, 192, 32, 96, 64),
    "4a": (192, 96, 208, 16, 48, 64),
    "4b": (160, 112, 224, 24, 64, 64),
    "4c": (128, 128, 256, 24, 64, 64),
    "4d": (112, 144, 288, 32, 64, 64),
    "4e": (256, 160, 320, 32, 128, 128),
    "5a": (256, 160, 320, 32, 128, 128),
    "5b": (384, 192, 384, 48, 128, 128),
}
HEADS = ("inception4a", "inception4d")  # what the auxiliary heads hang on


class Logits(NamedTuple):
    """What GoogLeNet gives while it trains: (B, classes) from its end and from each auxiliary head."""

    main: torch.Tensor
    first: torch.Tensor
    second: torch.Tensor


class GoogLeNet(nn.Module):
    """A chain of layers, two of which feed auxiliary heads while the network trains.

    (B, C, H, W) → (B, classes) in eval mode, `Logits` of three such tensors in train mode.

    Attributes:
        trunk: the layers.
        heads: auxiliary heads, by the layer of the trunk that feeds them; may be empty.
    """

    def __init__(self, trunk: nn.Sequential, heads: Mapping[str, nn.Module]):
        """Put trunk and heads together."""
        super().__init__()
        self.trunk = trunk
        self.heads = nn.ModuleDict(heads)

    def forward(self, images: torch.Tensor) -> torch.Tensor | Logits:
        """(B, C, H, W) → (B, classes), in train mode also those of the heads."""
        maps, extra = images, []
        for name, layer in self.trunk.named_children():
            maps = layer(maps)
            if self.training and name in self.heads:
                extra.append(self.heads[name](maps))
        return Logits(maps, *extra) if extra else maps


@dataclass(frozen=True)
class Style:
    """How the layers of a GoogLeNet are built.

    Attributes:
        root: k of root-k; 1 has no filter groups.
        low_rank: no layer, the 3×3 and 5×5 of the inception modules, or conv1 and conv2 as well.
        norm: batch normalisation without scale and shift before each ReLU.
    """

    root: int
    low_rank: LowRank
    norm: bool

    def layer(self, name: str, channels: int, filters: int, kernel: int, **options: int) -> Iterator[Named]:
        """Yield a convolution with what follows it."""
        layer = convolution(channels, filters, kernel, **options)
        return activated(name, layer, norm=filters if self.norm else None, affine=False)

    def spatial(
        self,
        name: str,
        channels: int,
        filters: int,
        kernel: int,
        *,
        groups: int = 1,
        stride: int = 1,
        stem: bool = False,
    ) -> Iterator[Named]:
        """Yield a k×k layer, of the stem or an inception module: in groups, or of low rank: half k×1, half 1×k."""
        if self.low_rank == "none" or (stem and self.low_rank == "inception"):
            return self.layer(name, channels, filters, kernel, groups=groups, stride=stride)
        half = share(filters, Fraction(1, 2))
        layer = Composite(channels, [(half, kernel, 1), (half, 1, kernel)], stride=stride)
        return activated(name, layer, norm=filters if self.norm else None, affine=False)

    def groups(self, stage: int) -> int:
        """Filter groups: k in conv2, k/2 in inception 3, k/4 in inception 4, k/8 in inception 5."""
        return max(1, self.root // 2 ** (stage - 2))


class Inception(nn.Module):
    """Four branches over the same maps, concatenated: 1×1, 3×3, 5×5, pool. (B, c, H, W) → (B, filters, H, W)."""

    def __init__(self, channels: int, widths: tuple[int, ...], style: Style, groups: int):
        """Build the branches.

        Args:
            channels: of the input.
            widths: 1×1; reduce and 3×3; reduce and 5×5; 1×1 after the pool.
            style: how layers are built.
            groups: filter groups of the 3×3 and the 5×5.
        """
        super().__init__()
        point, reduce3, full3, reduce5, full5, after = widths
        self.branch1 = chain(style.layer("1x1", channels, point, 1))
        self.branch3 = chain(
            [*style.layer("reduce", channels, reduce3, 1), *style.spatial("3x3", reduce3, full3, 3, groups=groups)]
        )
        self.branch5 = chain(
            [*style.layer("reduce", channels, reduce5, 1), *style.spatial("5x5", reduce5, full5, 5, groups=groups)]
        )
        self.branch_pool = chain([("pool", nn.MaxPool2d(3, 1, 1)), *style.layer("1x1", channels, after, 1)])
        self.filters = point + full3 + full5 + after

    def forward(self, maps: torch.Tensor) -> torch.Tensor:
        """(B, c, H, W) → (B, filters, H, W)."""
        return torch.cat([branch(maps) for branch in self.children()], dim=1)


def googlenet(
    classes: int = 1000,
    *,
    geometry: Geometry = "A",
    root: int = 1,
    low_rank: LowRank = "none",
    auxiliary: bool = True,
    width: float = 1.0,
    in_channels: int = 3,
    side: int = 224,
    norm: bool = False,
    dropout: float = 0.0,
    head_dropout: float = 0.0,
    seed: int,
) -> GoogLeNet:
    """Build GoogLeNet.

    Args:
        classes: number of classes.
        geometry: padding of the pools, see above.
        root: k of root-k: groups of conv2 k, of the 3×3 and 5×5 of the inception modules k/2, k/4 and k/8.
        low_rank: "inception" for the 3×3 and 5×5 of the inception modules, "conv1" for conv1 and conv2 as well.
        auxiliary: whether there are auxiliary heads.
        width: factor of every number of filters and units except the classes.
        in_channels: channels of an image.
        side: pixels of an image; small ones (28) need geometry B or C.
        norm: batch normalisation without scale and shift before each ReLU.
        dropout: probability, before the last layer; the paper's 0.4.
        head_dropout: the same in the auxiliary heads; the paper's 0.7.
        seed: of the weights.

    Returns:
        (B, in_channels, side, side) → (B, classes) logits in eval mode, `Logits` in train mode with heads; 13,378,280
        parameters by default.

    Raises:
        InputError: unknown geometry or low rank, both low rank and root, images too small, filters that cannot be
            shared out, or another argument out of range.
    """
    style, classes = _style(geometry, root, low_rank, norm), whole("classes", classes)
    left = convolved(whole("side", side), 7, 2, 3)
    sides = [left := pooled(left, padding=padding) for padding in PADDING[geometry]]
    with seeded(seed):
        trunk, heads = [], {}
        for name, layer in _trunk(style, PADDING[geometry], in_channels, width):
            trunk.append((name, layer))
            if auxiliary and name in HEADS:
                heads[name] = chain(_head(style, layer.filters, sides[2], width, classes, head_dropout))
        kernel, channels = min(7, left), trunk[-1][1].filters
        trunk += [("average", nn.AvgPool2d(kernel, 1)), ("flat", nn.Flatten()), *dropped("dropout", dropout)]
        inputs = channels * (left - kernel + 1) ** 2
        trunk.append(("classifier", dense(inputs, classes, last=True)))
        return GoogLeNet(chain(trunk), heads)


def _style(geometry: str, root: int, low_rank: str, norm: bool) -> Style:
    """Check what a GoogLeNet is to look like."""
    if geometry not in PADDING:
        raise InputError(f"geometry must be one of {', '.join(PADDING)}, got {geometry!r}.")
    if low_rank not in get_args(LowRank):
        raise InputError(f"low_rank must be one of {', '.join(get_args(LowRank))}, got {low_rank!r}.")
    if whole("root", root) > 1 and low_rank != "none":
        raise InputError(f"root must be 1 with low-rank filters, got {root}.")
    return Style(root, low_rank, norm)


def _trunk(style: Style, padding: tuple[int, ...], channels: int, width: float) -> Iterator[Named]:
    """Yield the layers up to the last inception module, pools of 3×3 with stride 2 between them."""

    def pool(place: int) -> Named:
        return f"pool{place}", nn.MaxPool2d(3, 2, padding[place - 1], ceil_mode=True)

    first, second = scaled(64, width), scaled(192, width)
    yield from style.spatial("conv1", channels, first, 7, stride=2, stem=True)
    yield pool(1)
    yield from style.layer("conv2_reduce", first, first, 1)
    yield from style.spatial("conv2", first, second, 3, groups=style.groups(2), stem=True)
    yield pool(2)
    channels = second
    for name, widths in MODULES.items():
        if name in ("4a", "5a"):
            yield pool(int(name[0]) - 1)
        module = Inception(channels, tuple(scaled(n, width) for n in widths), style, style.groups(int(name[0])))
        yield f"inception{name}", module
        channels = module.filters


def _head(style: Style, channels: int, side: int, width: float, classes: int, dropout: float) -> Iterator[Named]:
    """Yield an auxiliary head: average of 5×5 with stride 3, 1×1 of 128, fc of 1024, fc of the classes."""
    kernel, filters, units = min(5, side), scaled(128, width), scaled(1024, width)
    yield "average", nn.AvgPool2d(kernel, 3, ceil_mode=True)
    yield from style.layer("1x1", channels, filters, 1)
    yield "flat", nn.Flatten()
    yield from activated("fc1", dense(filters * pooled(side, kernel, 3) ** 2, units))
    yield from dropped("dropout", dropout)
    yield "fc2", dense(units, classes, last=True)
