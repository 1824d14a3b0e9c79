"""The networks of three papers by the names under which their counts were published.

The names are those of `papertwin.nets.published`: conditional-networks (arXiv 1603.01250), deep-roots (1605.06489),
low-rank-filters (1511.06744). What a name stands for is said here, once.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from typing import Any

import torch
from torch import nn

from papertwin.errors import InputError
from papertwin.nets import literature, rules
from papertwin.nets.classic import alexnet
from papertwin.nets.inception import googlenet
from papertwin.nets.nin_family import cifar_nin, imagenet_nin, nin64, nin_c3, nin_groups
from papertwin.nets.residual import resnet50, resnet200
from papertwin.nets.vgg_family import vgg


@dataclass(frozen=True)
class Entry:
    """A published network.

    Attributes:
        builder: function of this package that builds it.
        side: pixels of an image.
        options: arguments of the builder.
        rule: how its publication counted.
    """

    builder: Callable[..., nn.Module]
    side: int
    options: Mapping[str, Any] = field(default_factory=dict)
    rule: rules.Rule = rules.PER_IMAGE


def _roots(last: int) -> dict[str, int]:
    """Names of a table's rows → k of root-k."""
    return {"Orig.": 1, **{f"root-{2**power}": 2**power for power in range(1, last.bit_length())}}


def _vgg(rule: rules.Rule = rules.PER_IMAGE, **options: Any) -> Entry:
    """A VGG network on images of 224 pixels, with the dropout of its paper."""
    return Entry(vgg, 224, {"dropout": 0.5, **options}, rule)


def _gmp(rule: rules.Rule = rules.PER_IMAGE, **options: Any) -> Entry:
    """VGG-11 with global max pooling."""
    return _vgg(rule, global_pool=True, **options)


def _googlenet(rule: rules.Rule = rules.WITH_HEADS, **options: Any) -> Entry:
    """A GoogLeNet on images of 224 pixels, with the dropout of its paper."""
    return Entry(googlenet, 224, {"dropout": 0.4, "head_dropout": 0.7, **options}, rule)


def _alexnet(groups: int) -> Entry:
    """AlexNet on images of 227 pixels, with the dropout of its paper."""
    return Entry(alexnet, 227, {"groups": groups, "dropout": 0.5})


TOPOLOGIES = {"root": "root", "tree": "tree", "col": "column"}
DEEP_ROOTS = {
    "NiN Orig.": Entry(cifar_nin, 32, {"norm": True}),
    **{
        f"NiN {short}-{k}": Entry(cifar_nin, 32, {"norm": True, "groups": nin_groups(topology, k)})
        for short, topology in TOPOLOGIES.items()
        for k in (2, 4, 8, 16)
    },
    **{f"ResNet-50 {name}": Entry(resnet50, 224, {"root": k}) for name, k in _roots(64).items()},
    **{f"ResNet-200 {name}": Entry(resnet200, 224, {"root": k}, rules.DOUBLED) for name, k in _roots(64).items()},
    **{f"GoogLeNet {name}": _googlenet(geometry="B", root=k, norm=True) for name, k in _roots(16).items()},
    "AlexNet 2 groups": _alexnet(2),
    "AlexNet no groups": _alexnet(1),
    "AlexNet 4 groups": _alexnet(4),
}
LOW_RANK = {
    "vgg-11": _vgg(),
    "gmp": _gmp(),
    "gmp-sf": _gmp(scheme="separable"),
    "gmp-lr-join-wfull": _gmp(scheme="lr-join-wfull", last_stage=1024),
    "gmp-lr-join": _gmp(scheme="lr-join"),
    "gmp-lr-2x": _gmp(scheme="lr", last_stage=1024),
    "gmp-lr": _gmp(scheme="lr"),
    "gmp-lr-lde": _gmp(scheme="lr-lde", stride=2),
    "gmp stride2": _gmp(stride=2),
    "sf without global pooling": _vgg(scheme="separable"),
    "MIT Places gmp": _gmp(rules.QUARTER),
    "MIT Places gmp-sf": _vgg(rules.QUARTER, scheme="separable"),
    "MIT Places gmp-lr-join": _gmp(rules.QUARTER, scheme="lr-join"),
    "MIT Places gmp-lr": _gmp(rules.QUARTER, scheme="lr"),
    "GoogLeNet GoogLeNet": _googlenet(rules.TRUNK, geometry="A"),
    "GoogLeNet lr": _googlenet(rules.TRUNK, geometry="C", low_rank="inception"),
    "GoogLeNet lr-conv1": _googlenet(rules.TRUNK, geometry="C", low_rank="conv1"),
    "CIFAR NiN": Entry(cifar_nin, 30, {"dropout": 0.5}),
    "CIFAR nin-c3": Entry(nin_c3, 30, {"dropout": 0.5}),
    "CIFAR nin-c3-lr": Entry(nin_c3, 30, {"dropout": 0.5, "low_rank": True}),
    **{f"sota-aug VGG-{letter}": _vgg(rules.SINGLE_VIEW, configuration=letter) for letter in "ABCDE"},
}
CONDITIONAL_VGG = {"groups": (1, 1, 2, 4, 8), "last_stage": 1024}
CONDITIONAL = {
    "VGG11 stride1": _vgg(),
    "*VGG-11 GMP stride1": _gmp(),
    "Cond. Network stride1": _gmp(**CONDITIONAL_VGG),
    "Cond. Network stride2": _gmp(**CONDITIONAL_VGG, stride=2),
    "Alexnet stride4": _alexnet(2),
    "GoogLeNet stride2": _googlenet(geometry="A"),
    "Network In Network stride4": Entry(imagenet_nin, 224, {"dropout": 0.5}),
    "CIFAR NiN": Entry(cifar_nin, 32, {"dropout": 0.5}),
    "CIFAR NiN-64": Entry(nin64, 32, {"dropout": 0.5}),
    "CIFAR optimal conditional": Entry(nin64, 32, {"dropout": 0.5, "groups": (32, 8, 32, 32, 8, 1, 32, 1)}),
    "CIFAR conditional with best search objective": Entry(
        nin64, 32, {"dropout": 0.5, "groups": (32, 16, 32, 16, 32, 1, 32, 4)}
    ),
}
CATALOGUE = {"conditional-networks": CONDITIONAL, "deep-roots": DEEP_ROOTS, "low-rank-filters": LOW_RANK}


def entry(card: str, network: str) -> Entry:
    """Look up a published network.

    Raises:
        InputError: unknown card or network, or one of which only points of plots were published.
    """
    if card not in CATALOGUE:
        raise InputError(f"No card {card!r}: expected one of {', '.join(CATALOGUE)}.")
    if network in CATALOGUE[card]:
        return CATALOGUE[card][network]
    table = literature.published(card)
    if network in set(table["network"]):
        (recipe, *_) = table.loc[table["network"] == network, "recipe"]
        raise InputError(f"{network!r} of {card} is data of a plot, it is not rebuilt under this name: {recipe}.")
    near = get_close_matches(str(network), CATALOGUE[card], n=3, cutoff=0.4) or list(CATALOGUE[card])[:3]
    raise InputError(f"No network {network!r} in {card}; the nearest are {', '.join(near)}. See published({card!r}).")


def build(card: str, network: str, *, device: Any = "meta", seed: int = 0) -> nn.Module:
    """Build a published network at its full size.

    Args:
        card: conditional-networks, deep-roots or low-rank-filters.
        network: as in `published`.
        device: where its weights are; on the meta device they take no memory and no time.
        seed: of the weights; they are the same on every other device.

    Returns:
        The network in train mode.

    Raises:
        InputError: unknown card or network.

    Example:
        >>> model = build("deep-roots", "NiN root-4")
        >>> count(model, input_shape("deep-roots", "NiN root-4")).params
        455498
    """
    found = entry(card, network)
    if torch.device(device).type == "meta":
        with torch.device("meta"):
            return found.builder(**found.options, seed=seed)
    return found.builder(**found.options, seed=seed).to(device)


def sample_images(card: str, network: str, batch: int = 1) -> torch.Tensor:
    """Draw standard normal images as a published network takes them, always the same: (batch, 3, H, W), for the clock.

    Raises:
        InputError: unknown card or network.
    """
    return torch.randn(batch, *input_shape(card, network), generator=torch.Generator().manual_seed(0))


def input_shape(card: str, network: str) -> tuple[int, int, int]:
    """Return the shape (3, H, W) of an image as a published network takes it.

    Raises:
        InputError: unknown card or network.
    """
    side = entry(card, network).side
    return 3, side, side
