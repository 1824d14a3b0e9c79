"""A plain chain of equal layers without batch normalisation: the network on which first weights show what they do.

- Composite layers and their first weights: Y. Ioannou et al., ICLR 2016, arXiv 1511.06744; the sets are those of
  WFULL, ⅜ 3×1, ⅜ 1×3 and ¼ 3×3, whose areas differ.
- Root modules: Y. Ioannou et al.: Deep Roots. CVPR 2017, arXiv 1605.06489.

The chain is ours: the paper shows no such network. Every layer has as many filters as it has channels, but for the
first, so that each layer does the same. Two things change gradients besides the weights, both known: zero padding, see
`padding_share`, and pools: a maximum of 2×2 leaves a quarter of the mean square. That batch normalisation hides it all
can be seen with `norm`.
"""

from collections.abc import Iterator, Sequence
from typing import Literal, get_args

import torch
from torch import nn
from torch.nn import functional as F

from papertwin.errors import InputError
from papertwin.nets.initial import seeded
from papertwin.nets.initialising import Rule, init_, places, products
from papertwin.nets.layers import Composite, Named, activated, chain, convolution, dense, root_module
from papertwin.nets.sizes import share, whole
from papertwin.nets.vgg_family import PARTS, SHAPES

Kind = Literal["composite", "join", "grouped", "plain"]


def deep_net(
    classes: int = 10,
    *,
    depth: int = 10,
    layer: Kind = "composite",
    filters: int = 48,
    groups: int = 8,
    in_channels: int = 1,
    norm: bool = False,
    pools: Sequence[int] | None = None,
    sigma: Rule | float = "shared",
    seed: int,
) -> nn.Sequential:
    """Build a chain of `depth` layers with a ReLU after each, the mean of each map, and a fully connected layer.

    Args:
        classes: number of classes.
        depth: number of layers, or of root modules.
        layer: "composite" has filter sets 3×1, 1×3 and 3×3, "join" these and a 1×1 layer, "plain" 3×3 filters,
            "grouped" root modules: 3×3 in groups, ReLU, 1×1. The first of these has no groups, as in the papers.
        filters: of each layer, n; a multiple of 8 with "composite" and "join", of `groups` with "grouped".
        groups: of the root modules.
        in_channels: channels of an image.
        norm: batch normalisation before each ReLU.
        pools: layers, from 1 to `depth` and ascending, after which a maximum of 2×2 stands; None is (2, 5), as far
            as there are so many layers: a third of the operations. To measure variances leave them out.
        sigma: of the weights, see `papertwin.nets.initialising.init_`.
        seed: of the weights.

    Returns:
        (B, in_channels, H, W) → (B, classes) logits.

    Raises:
        InputError: unknown kind of layer, filters that cannot be shared out, or another argument out of range.
    """
    if layer not in get_args(Kind):
        raise InputError(f"layer must be one of {', '.join(get_args(Kind))}, got {layer!r}.")
    depth = whole("depth", depth)
    ends = _pools([stage for stage in (2, 5) if stage <= depth] if pools is None else pools, depth)
    with seeded(seed):
        body = _body(layer, depth, ends, channels=in_channels, filters=filters, groups=groups, norm=norm)
        head = [("mean", nn.AdaptiveAvgPool2d(1)), ("flat", nn.Flatten())]
        model = chain([*body, *head, ("classifier", dense(filters, whole("classes", classes), last=True))])
    return init_(model, seed=seed, sigma=sigma)


def padding_share(model: nn.Sequential, side: int) -> float:
    """Return what zero padding leaves of the mean square of gradients, from the output of the last layer to the first.

    A value near the border takes part in fewer than n̂ products; what it has lost, layers below do not lose again. Ours.

    Args:
        model: of `deep_net`, without pools, on any device.
        side: pixels of an image.

    Returns:
        The ratio that `papertwin.nets.variances.gradient_ratio` would have at "shared", were the weights very many.

    Raises:
        InputError: it has a pool, or `side` is no whole number above 0.

    Example:
        >>> net = deep_net(layer="plain", pools=(), seed=0)
        >>> round(padding_share(net, 14), 2), round(padding_share(net, 28), 2)
        (0.61, 0.79)
    """
    if any(isinstance(each, nn.MaxPool2d) for each in model.modules()):
        raise InputError("The network has pools, after which maps are smaller: build it with pools=().")
    power = torch.ones(1, 1, whole("side", side), side, dtype=torch.float64)
    for place in reversed(places(model)[1:]):  # of the first layer it is the output that matters
        layer = place.layer
        if not isinstance(layer, nn.Linear):
            sets = layer.sets.values() if isinstance(layer, Composite) else [layer]
            power = sum(_terms(each, power) for each in sets) / products(layer)
    return power.mean().item()


def _terms(layer: nn.Conv2d, power: torch.Tensor) -> torch.Tensor:
    """Sum at each pixel the mean squares of the outputs that it takes part in."""
    window = torch.ones(1, 1, *layer.kernel_size, dtype=power.dtype)
    return layer.out_channels / layer.groups * F.conv2d(power, window, padding=layer.padding)


def _wfull(channels: int, filters: int, join: bool) -> Composite:
    """Build a composite layer of 3×1, 1×3 and 3×3 filters, with a 1×1 layer or without."""
    sets = [(share(filters, part), *shape) for part, shape in zip(PARTS["lr-join-wfull"], SHAPES)]
    return Composite(channels, sets, join=filters if join else None)


def _body(
    kind: Kind, depth: int, ends: tuple[int, ...], *, channels: int, filters: int, groups: int, norm: bool
) -> Iterator[Named]:
    """Yield all layers but the last, with the pools among them; the first layer has no groups."""
    for place in range(1, depth + 1):
        first = place == 1
        yield from _layer(kind, f"layer{place}", channels if first else filters, filters, 1 if first else groups, norm)
        if place in ends:
            yield f"pool{place}", nn.MaxPool2d(2, 2, ceil_mode=True)


def _layer(kind: Kind, name: str, channels: int, filters: int, groups: int, norm: bool) -> Iterator[Named]:
    """Yield a layer with what follows it."""
    if kind == "grouped":
        yield name, root_module(channels, filters, 3, groups, filters, norm=norm)
        return
    if kind == "plain":
        built = convolution(channels, filters, 3)
    else:
        built = _wfull(channels, whole("filters", filters), kind == "join")
    yield from activated(name, built, norm=filters if norm else None)


def _pools(pools: Sequence[int], depth: int) -> tuple[int, ...]:
    """Check the layers after which a pool stands."""
    known = isinstance(pools, Sequence) and not isinstance(pools, str)
    stages = tuple(whole("pools", place) for place in pools) if known else ()
    if not known or stages != tuple(sorted(set(stages) & set(range(1, depth + 1)))):
        raise InputError(f"pools must be layers from 1 to {depth}, ascending and each once, got {pools!r}.")
    return stages
