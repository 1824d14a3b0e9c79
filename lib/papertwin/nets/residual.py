"""ResNet-50, 101 and 152 and the pre-activation ResNet-200, plain or with filter groups in their 3×3 layers (root-k).

- K. He, X. Zhang, S. Ren, J. Sun: Deep residual learning. CVPR 2016, arXiv 1512.03385; Identity mappings in deep
  residual networks. ECCV 2016, arXiv 1603.05027.
- Root modules: arXiv 1605.06489; stage s = 0 … 3 has max(1, k / 2^s) groups.

As counted: ResNet-50 has stride 2 in the first 1×1 of a stage and biases in conv1 and fc only; ResNet-200 has it in the
3×3 and no biases but that of fc. Each first block of a stage has a projection. Ours: ResNet-101 and 152, of which no
counts were published, are as ResNet-50; the projection of a pre-activation block starts from its activated input.
"""

from collections.abc import Iterator
from typing import Any

import torch
from torch import nn

from papertwin.errors import InputError
from papertwin.nets.initial import LINEAR, seeded
from papertwin.nets.layers import Named, activated, chain, convolution, dense
from papertwin.nets.sizes import scaled, whole

STAGES = {50: (3, 4, 6, 3), 101: (3, 4, 23, 3), 152: (3, 8, 36, 3), 200: (3, 24, 36, 3)}  # depth → blocks of each
PRE_ACTIVATION = (200,)
MIDDLE = (64, 128, 256, 512)  # filters of the 3×3 of each stage; four times as many leave a block


class Bottleneck(nn.Module):
    """1×1, 3×3 in groups, 1×1, and the input added, by a projection where its shape differs.

    (B, c, H, W) → (B, 4m, H / stride, W / stride).
    """

    def __init__(self, channels: int, middle: int, *, groups: int, stride: int, project: bool, pre: bool):
        """Build the layers.

        Args:
            channels: of the input, c.
            middle: m.
            groups: of the 3×3.
            stride: of the 3×3 with `pre`, of the first 1×1 otherwise.
            project: whether the input goes through a 1×1 convolution of its own.
            pre: normalisation and ReLU before each convolution, instead of after.
        """
        super().__init__()
        first, second = (1, stride) if pre else (stride, 1)
        self.pre = pre
        self.conv1 = convolution(channels, middle, 1, stride=first, bias=False)
        self.conv2 = convolution(middle, middle, 3, stride=second, groups=groups, bias=False)
        self.conv3 = convolution(middle, 4 * middle, 1, bias=False)
        sizes = (channels, middle, middle) if pre else (middle, middle, 4 * middle)
        self.norm1, self.norm2, self.norm3 = (nn.BatchNorm2d(size) for size in sizes)
        options = {"stride": stride, "bias": False, "gain": LINEAR}
        self.projection = convolution(channels, 4 * middle, 1, **options) if project else None
        self.projection_norm = nn.BatchNorm2d(4 * middle) if project and not pre else None

    def forward(self, maps: torch.Tensor) -> torch.Tensor:
        """(B, c, H, W) → (B, 4m, H', W')."""
        return self._before(maps) if self.pre else self._after(maps)

    def _before(self, maps: torch.Tensor) -> torch.Tensor:
        """Normalise and cut before each convolution."""
        active = self.norm1(maps).relu()
        new = self.conv1(active)
        new = self.conv2(self.norm2(new).relu())
        new = self.conv3(self.norm3(new).relu())
        return new + (maps if self.projection is None else self.projection(active))

    def _after(self, maps: torch.Tensor) -> torch.Tensor:
        """Normalise and cut after each convolution."""
        new = self.norm1(self.conv1(maps)).relu()
        new = self.norm2(self.conv2(new)).relu()
        new = self.norm3(self.conv3(new))
        old = maps if self.projection is None else self.projection_norm(self.projection(maps))
        return (new + old).relu()


def resnet(
    depth: int, classes: int = 1000, *, root: int = 1, width: float = 1.0, in_channels: int = 3, seed: int
) -> nn.Sequential:
    """Build a ResNet of 50, 101, 152 or, pre-activation, 200 layers.

    Args:
        depth: layers with weights, without projections; see `STAGES`.
        classes: number of classes.
        root: k of root-k: filter groups k, k/2, k/4 and k/8 in the 3×3 of the stages.
        width: factor of every number of filters except the classes.
        in_channels: channels of an image.
        seed: of the weights.

    Returns:
        (B, in_channels, H, W) → (B, classes) logits; by default 25,503,976, 44,443,880, 60,041,448 or 64,497,832
        parameters, without those of batch normalisation.

    Raises:
        InputError: no such depth, groups do not divide the filters, or another argument is out of range.
    """
    if depth not in STAGES:
        raise InputError(f"depth must be one of {', '.join(map(str, STAGES))}, got {depth!r}.")
    blocks, pre = STAGES[depth], depth in PRE_ACTIVATION

    def layers() -> Iterator[Named]:
        channels = scaled(64, width)
        stem = convolution(in_channels, channels, 7, stride=2, bias=not pre)
        yield from activated("conv1", stem, norm=channels)
        yield "pool", nn.MaxPool2d(3, 2, ceil_mode=True)
        for stage, (count, filters) in enumerate(zip(blocks, MIDDLE)):
            middle, groups = scaled(filters, width), max(1, whole("root", root) // 2**stage)
            for place in range(count):
                stride = 2 if stage and not place else 1
                options = {"groups": groups, "stride": stride, "project": not place, "pre": pre}
                yield f"stage{stage + 1}_block{place + 1}", Bottleneck(channels, middle, **options)
                channels = 4 * middle
        if pre:
            yield from (("norm", nn.BatchNorm2d(channels)), ("relu", nn.ReLU()))
        yield from (("mean", nn.AdaptiveAvgPool2d(1)), ("flat", nn.Flatten()))
        yield "fc", dense(channels, whole("classes", classes), last=True)

    with seeded(seed):
        return chain(layers())


def resnet50(classes: int = 1000, **options: Any) -> nn.Sequential:
    """Build `resnet(50)`."""
    return resnet(50, classes, **options)


def resnet101(classes: int = 1000, **options: Any) -> nn.Sequential:
    """Build `resnet(101)`."""
    return resnet(101, classes, **options)


def resnet152(classes: int = 1000, **options: Any) -> nn.Sequential:
    """Build `resnet(152)`."""
    return resnet(152, classes, **options)


def resnet200(classes: int = 1000, **options: Any) -> nn.Sequential:
    """Build `resnet(200)`, which is pre-activation."""
    return resnet(200, classes, **options)
