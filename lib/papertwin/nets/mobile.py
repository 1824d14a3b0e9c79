"""MobileNet: depthwise convolutions, each followed by a 1×1 one.

A. G. Howard et al.: MobileNets. arXiv 1704.04861 (2017), table 1. A separable layer is a 3×3 convolution with as many
groups as channels and a 1×1 convolution over all of them, batch normalisation and ReLU after each; no biases but that
of the last layer.

Reconstructed: table 1 there gives the last depthwise layer stride 2 and maps of 7×7 on both sides of it; its stride is
1. Ours: the form for images of at most 64 pixels a side, which strides fewer times, see `mobilenet`; first weights,
those of `papertwin.nets.initial`.
"""

from collections.abc import Iterator

from torch import nn

from papertwin.nets.initial import seeded
from papertwin.nets.layers import Named, activated, chain, convolution, dense
from papertwin.nets.sizes import convolved, scaled, whole

STEM = 32
FILTERS = (64, 128, 128, 256, 256, *(512,) * 6, 1024, 1024)  # of the 1×1 convolutions
STRIDED = (0, 2, 4, 6, 12)  # layers with stride 2: 0 is the stem, the others depthwise
LAST = 4  # pixels a side of the last maps of a small image, at most


def mobilenet(
    classes: int = 1000,
    *,
    width: float = 1.0,
    in_channels: int = 3,
    side: int = 224,
    seed: int,
) -> nn.Sequential:
    """Build a MobileNet of 28 layers: `conv1`, 13 pairs `depthwise{n}` and `pointwise{n}`, `fc`.

    Args:
        classes: number of classes.
        width: factor of every number of filters except the classes, α of the paper.
        in_channels: channels of an image.
        side: pixels of an image. Above 64, five layers have stride 2. Otherwise (ours) the stem has stride 1, and of
            the four others the last ones that are needed for maps of at most 4 pixels a side at the end: four for 64
            pixels, three for 32 and 28, two for 14.
        seed: of the weights.

    Returns:
        (B, in_channels, side, side) → (B, classes) logits; 4,231,976 parameters by default, 21,888 of batch
        normalisation among them. Images of another size are taken as well.

    Raises:
        InputError: an argument is out of range.
    """
    strided = _strided(whole("side", side))

    def layers() -> Iterator[Named]:
        channels = scaled(STEM, width)
        stem = convolution(in_channels, channels, 3, stride=2 if 0 in strided else 1, bias=False)
        yield from activated("conv1", stem, norm=channels)
        for place, count in enumerate(FILTERS, start=1):
            filters, stride = scaled(count, width), 2 if place in strided else 1
            deep = convolution(channels, channels, 3, stride=stride, groups=channels, bias=False)
            yield from activated(f"depthwise{place}", deep, norm=channels)
            yield from activated(f"pointwise{place}", convolution(channels, filters, 1, bias=False), norm=filters)
            channels = filters
        yield from (("mean", nn.AdaptiveAvgPool2d(1)), ("flat", nn.Flatten()))
        yield "fc", dense(channels, whole("classes", classes), last=True)

    with seeded(seed):
        return chain(layers())


def _strided(side: int) -> tuple[int, ...]:
    """Choose the layers with stride 2 for an image: the last ones, all five of them above 64 pixels a side."""
    halvings = 0
    while side > LAST and halvings < len(STRIDED):
        side, halvings = convolved(side, 3, 2, 1), halvings + 1
    return STRIDED[len(STRIDED) - halvings :]
