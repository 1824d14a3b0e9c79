"""VGG-A to VGG-E and the variants of VGG-11 (= VGG-A): global pooling, low-rank layers, filter groups.

- K. Simonyan, A. Zisserman: Very deep convolutional networks for large-scale image recognition. arXiv 1409.1556.
- Global max pooling and the low-rank schemes: arXiv 1511.06744, table 6 there, with the numbers of the counted nets:
  LR-2X doubles the last stage only, JOIN-WFULL has 1024 filters there, LDE has sets of ¾n, ¾n, ¼n and a join of n/2.
- Filter groups ("conditional network"): arXiv 1603.01250.

Five stages of convolutions of n filters; a 2×2 pool after each of the first four; then a fifth pool and three fully
connected layers, or the maximum of each map and the same layers. ReLU after each layer (after the second of a separable
pair, after the join of a composite layer). Ours, for small images only: pools end at the border, and some of the first
four may be left out, as otherwise a map of one pixel is all that is left to take the maximum of.
"""

from collections.abc import Callable, Iterator, Sequence
from fractions import Fraction
from typing import Literal, get_args

from torch import nn

from papertwin.errors import InputError
from papertwin.nets.initial import seeded
from papertwin.nets.layers import Composite, Named, activated, chain, classifier, convolution, separable
from papertwin.nets.sizes import convolved, pooled, scaled, share, whole

Configuration = Literal["A", "B", "C", "D", "E"]
Scheme = Literal["full", "separable", "lr", "lr-2x", "lr-join", "lr-join-wfull", "lr-lde"]
FILTERS = (64, 128, 256, 512, 512)  # of each stage
# sides of the kernels of each stage
KERNELS: dict[str, tuple[tuple[int, ...], ...]] = {
    "A": ((3,), (3,), (3, 3), (3, 3), (3, 3)),
    "B": ((3, 3),) * 5,
    "C": ((3, 3), (3, 3), (3, 3, 1), (3, 3, 1), (3, 3, 1)),
    "D": ((3, 3), (3, 3), (3, 3, 3), (3, 3, 3), (3, 3, 3)),
    "E": ((3, 3), (3, 3), (3,) * 4, (3,) * 4, (3,) * 4),
}
# parts of n in the sets 3×1, 1×3 and 3×3, and in the join
PARTS: dict[str, tuple[Fraction | int, ...]] = {
    "lr": (Fraction(1, 2), Fraction(1, 2), 0, 0),
    "lr-2x": (1, 1, 0, 0),
    "lr-join": (Fraction(1, 2), Fraction(1, 2), 0, 1),
    "lr-join-wfull": (Fraction(3, 8), Fraction(3, 8), Fraction(1, 4), 1),
    "lr-lde": (Fraction(3, 4), Fraction(3, 4), Fraction(1, 4), Fraction(1, 2)),
}
SHAPES = ((3, 1), (1, 3), (3, 3))


def vgg(
    classes: int = 1000,
    *,
    configuration: Configuration = "A",
    scheme: Scheme = "full",
    global_pool: bool = False,
    stride: int = 1,
    groups: Sequence[int] = (1, 1, 1, 1, 1),
    pools: Sequence[int] = (1, 2, 3, 4),
    last_stage: int = 512,
    hidden: int = 4096,
    width: float = 1.0,
    in_channels: int = 3,
    side: int = 224,
    norm: bool = False,
    dropout: float = 0.0,
    seed: int,
) -> nn.Sequential:
    """Build a VGG network.

    Args:
        classes: number of classes.
        configuration: A (11 layers) to E (19); C has 1×1 filters in the third layers of stages 3 to 5.
        scheme: what stands for each 3×3 layer of n filters: "full" itself, "separable" 1×3 then 3×1, "lr" halves of 3×1
            and 1×3, "lr-2x" n of each, "lr-join" "lr" and a 1×1, "lr-join-wfull" the same with a quarter 3×3,
            "lr-lde" wider sets and a join of n/2.
        global_pool: the maximum of each map instead of the fifth pool.
        stride: of the first layer.
        groups: filter groups of the stages; only with scheme "full".
        pools: stages, from 1 to 4 and ascending, after which a 2×2 pool stands, besides the one at the end.
        last_stage: filters of the layers of stage 5.
        hidden: units of fc6 and fc7.
        width: factor of every number of filters and units except the classes.
        in_channels: channels of an image.
        side: pixels of an image; needed for fc6 without `global_pool`.
        norm: batch normalisation before each ReLU of the stages.
        dropout: probability, after fc6 and fc7; the paper's 0.5.
        seed: of the weights.

    Returns:
        (B, in_channels, side, side) → (B, classes) logits; 132,863,336 parameters by default.

    Raises:
        InputError: unknown configuration or scheme, filters that cannot be shared out, or another argument is out of
            range.
    """
    build, places = _scheme(configuration, scheme, groups), _pools(pools)
    counts = [scaled(filters, width) for filters in (*FILTERS[:4], whole("last_stage", last_stage))]

    def layers() -> Iterator[Named]:
        channels, left = in_channels, convolved(whole("side", side), 3, whole("stride", stride), 1)
        for place, kernels in enumerate(KERNELS[configuration]):
            for step, kernel in enumerate(kernels, start=1):
                name = f"conv{place + 1}" if len(kernels) == 1 else f"conv{place + 1}-{step}"
                first = stride if (place, step) == (0, 1) else 1
                layer, channels = build(channels, counts[place], kernel, first, place)
                yield from activated(name, layer, norm=channels if norm else None)
            if place + 1 in places or (place == 4 and not global_pool):
                yield f"pool{place + 1}", nn.MaxPool2d(2, 2, ceil_mode=True)
                left = pooled(left, 2)
        if global_pool:
            yield "pool5", nn.AdaptiveMaxPool2d(1)
        yield "flat", nn.Flatten()
        inputs = channels if global_pool else channels * left**2
        yield from classifier(inputs, scaled(whole("hidden", hidden), width), classes, dropout)

    with seeded(seed):
        return chain(layers())


def _scheme(configuration: str, scheme: str, groups: Sequence[int]) -> Callable[..., tuple[nn.Module, int]]:
    """Return the function that builds a layer: channels, n, kernel, stride, stage → layer, channels of its output."""
    if configuration not in KERNELS:
        raise InputError(f"configuration must be one of {', '.join(KERNELS)}, got {configuration!r}.")
    if scheme not in get_args(Scheme):
        raise InputError(f"scheme must be one of {', '.join(get_args(Scheme))}, got {scheme!r}.")
    if isinstance(groups, str) or not isinstance(groups, Sequence) or len(groups) != 5:
        raise InputError(f"groups must be 5 whole numbers, one for each stage, got {groups!r}.")
    if scheme != "full" and (set(groups) != {1} or configuration == "C"):
        raise InputError(f"groups and configuration C must be left out with scheme {scheme!r}, got {groups!r}.")

    def layer(channels: int, filters: int, kernel: int, stride: int, stage: int) -> tuple[nn.Module, int]:
        if scheme == "full":
            return convolution(channels, filters, kernel, stride=stride, groups=groups[stage]), filters
        if scheme == "separable":
            return separable(channels, filters, stride=stride), filters
        composite = low_rank_layer(channels, filters, scheme, stride=stride)
        return composite, composite.filters

    return layer


def _pools(pools: Sequence[int]) -> tuple[int, ...]:
    """Check the stages after which a pool stands."""
    known = isinstance(pools, Sequence) and not isinstance(pools, str)
    places = tuple(whole("pools", place) for place in pools) if known else ()
    if not known or places != tuple(sorted(set(places) & {1, 2, 3, 4})):
        raise InputError(f"pools must be stages from 1 to 4, ascending and each once, got {pools!r}.")
    return places


def low_rank_layer(channels: int, filters: int, scheme: Scheme, *, stride: int = 1) -> Composite:
    """Build what stands for a 3×3 layer of n filters in a low-rank scheme.

    Args:
        channels: of the input.
        filters: n.
        scheme: "lr", "lr-2x", "lr-join", "lr-join-wfull" or "lr-lde".
        stride: of the layer.

    Returns:
        (B, channels, H, W) → (B, n, H, W); 2n maps with "lr-2x", n/2 with "lr-lde".

    Raises:
        InputError: another scheme, or n cannot be shared out.
    """
    if scheme not in PARTS:
        raise InputError(f"scheme must be one of {', '.join(PARTS)}, got {scheme!r}.")
    *parts, join = (Fraction(part) for part in PARTS[scheme])
    sets = [(share(filters, part), *shape) for part, shape in zip(parts, SHAPES) if part]
    return Composite(channels, sets, join=share(filters, join) if join else None, stride=stride)
