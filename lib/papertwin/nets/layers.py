"""The vocabulary of the convolutional networks: filter groups, root modules, composite low-rank layers.

- Filter groups and root modules: Y. Ioannou et al.: Deep Roots. CVPR 2017, arXiv 1605.06489.
- Composite layers: Y. Ioannou et al.: Training CNNs with low-rank filters. ICLR 2016, arXiv 1511.06744.

Convolutions are torch's own; networks are chains of named layers, so that counts and figures can say `conv3-1`.
Padding is "same", ⌊k/2⌋ on each axis, where nothing else is said. First weights: `papertwin.nets.initial`.
"""

from collections import OrderedDict
from collections.abc import Iterable, Iterator, Sequence
from typing import Literal

import torch
from torch import nn

from papertwin.errors import InputError
from papertwin.nets.initial import LINEAR, RELU, composite_fan_out, deviation, fan_out
from papertwin.nets.sizes import whole

Kernel = int | tuple[int, int]
Named = tuple[str, nn.Module]
FilterSet = tuple[int, int, int]  # filters, height, width


def convolution(
    channels: int,
    filters: int,
    kernel: Kernel,
    *,
    stride: Kernel = 1,
    padding: Kernel | None = None,
    groups: int = 1,
    bias: bool = True,
    gain: float = RELU,
    fan: Literal["out", "in"] = "out",
) -> nn.Conv2d:
    """Build a convolution with filter groups: each of `groups` sets of filters sees its own share of the channels.

    Args:
        channels: of the input, c.
        filters: channels of the output, d.
        kernel: side k, or (height, width).
        stride: of both axes, or (vertical, horizontal).
        padding: of each axis; None keeps the size at stride 1 for odd kernels.
        groups: g, a divisor of c and d.
        bias: one value a filter, zero at first.
        gain: 2 before a ReLU, 1 before nothing.
        fan: "out" for σ² = gain / (k²·d/g), "in" for gain / (k²·c/g).

    Returns:
        (B, c, H, W) → (B, d, H', W').

    Raises:
        InputError: a count is no whole number above 0, or the groups do not divide both c and d.
    """
    counts = {"channels": channels, "filters": filters, "groups": groups}
    channels, filters, groups = (whole(name, value) for name, value in counts.items())
    if channels % groups or filters % groups:
        raise InputError(f"groups must divide {channels} channels and {filters} filters, got {groups}.")
    height, width = _axes("kernel", kernel)
    border = (height // 2, width // 2) if padding is None else padding
    layer = nn.Conv2d(channels, filters, (height, width), _axes("stride", stride), border, groups=groups, bias=bias)
    terms = fan_out(channels if fan == "in" else filters, height, width, groups)
    _draw(layer, deviation(terms, gain))
    return layer


def dense(inputs: int, outputs: int, *, last: bool = False) -> nn.Linear:
    """Build a fully connected layer, zero bias; σ² = 2/outputs before a ReLU, 1/inputs for the last one.

    Returns:
        (B, inputs) → (B, outputs).
    """
    layer = nn.Linear(whole("inputs", inputs), whole("outputs", outputs))
    _draw(layer, deviation(inputs, LINEAR) if last else deviation(outputs))
    return layer


def activated(name: str, layer: nn.Module, *, norm: int | None = None, affine: bool = True) -> Iterator[Named]:
    """Yield a layer, batch normalisation if asked for, and a ReLU, with names that begin alike.

    Args:
        name: of the layer.
        layer: what the ReLU follows.
        norm: channels to normalise; None leaves the normalisation out.
        affine: whether it has a learned scale and shift.
    """
    yield name, layer
    if norm is not None:
        yield f"{name}_norm", nn.BatchNorm2d(norm, affine=affine)
    yield f"{name}_relu", nn.ReLU()


def dropped(name: str, probability: float) -> Iterator[Named]:
    """Yield dropout, or nothing at probability 0.

    Raises:
        InputError: `probability` is not from 0 to below 1.
    """
    if isinstance(probability, bool) or not isinstance(probability, int | float) or not 0 <= probability < 1:
        raise InputError(f"dropout must be a probability from 0 to below 1, got {probability!r}.")
    if probability:
        yield name, nn.Dropout(probability)


def classifier(inputs: int, hidden: int, classes: int, dropout: float) -> Iterator[Named]:
    """Yield the three fully connected layers that AlexNet and VGG end in: fc6, fc7, fc8, ReLU and dropout between."""
    yield from activated("fc6", dense(inputs, hidden))
    yield from dropped("dropout6", dropout)
    yield from activated("fc7", dense(hidden, hidden))
    yield from dropped("dropout7", dropout)
    yield "fc8", dense(hidden, whole("classes", classes), last=True)


def chain(layers: Iterable[Named]) -> nn.Sequential:
    """Put named layers one after the other."""
    return nn.Sequential(OrderedDict(layers))


def root_module(
    channels: int, filters: int, kernel: Kernel, groups: int, joined: int, *, norm: bool = False
) -> nn.Sequential:
    """Build a root module: a convolution in groups, then an ungrouped 1×1 one that mixes them; ReLU after each.

    Args:
        channels: of the input, c.
        filters: of the grouped convolution, d; `groups` divides c and d.
        kernel: of the grouped convolution.
        groups: g.
        joined: filters of the 1×1 convolution.
        norm: batch normalisation before each ReLU.

    Returns:
        (B, c, H, W) → (B, joined, H, W).

    Raises:
        InputError: as `convolution`.
    """
    grouped = convolution(channels, filters, kernel, groups=groups)
    join = convolution(filters, joined, 1)
    return chain(
        [
            *activated("grouped", grouped, norm=filters if norm else None),
            *activated("join", join, norm=joined if norm else None),
        ]
    )


def separable(channels: int, filters: int, *, size: int = 3, stride: int = 1, gain: float = RELU) -> nn.Sequential:
    """Build a separable pair: 1×k filters, then k×1 filters, nothing between and no ReLU after.

    Args:
        channels: of the input, c.
        filters: of both layers, d.
        size: k.
        stride: of the pair; each layer strides along its own axis.
        gain: of the second layer.

    Returns:
        (B, c, H, W) → (B, d, H / stride, W / stride).
    """
    flat = convolution(channels, filters, (1, size), stride=(1, stride), gain=LINEAR)
    tall = convolution(filters, filters, (size, 1), stride=(stride, 1), gain=gain)
    return chain([(f"1x{size}", flat), (f"{size}x1", tall)])


class Composite(nn.Module):
    """Filter sets of several shapes side by side, each over all channels of the input, their maps concatenated.

    With a join, a 1×1 convolution follows and nothing between. Not a convolution in groups. No ReLU after.
    (B, c, H, W) → (B, Σ d_s or join, H', W').

    Attributes:
        sets: the convolutions, named by height and width: `3x1` has height 3.
        join: the 1×1 convolution, or None.
        filters: channels of the output.
    """

    def __init__(
        self,
        channels: int,
        sets: Sequence[FilterSet],
        *,
        join: int | None = None,
        stride: int = 1,
        gain: float = RELU,
        sigma: Literal["shared", "own"] | float = "shared",
    ):
        """Build the layer; zero biases.

        Args:
            channels: of the input, c.
            sets: (filters, height, width) of each set; heights and widths odd, no shape twice.
            join: filters of the 1×1 convolution; None leaves it out.
            stride: of every set.
            gain: 2 where a ReLU follows, 1 where nothing does.
            sigma: of the sets: "shared" is √(gain / Σ h·w·d), "own" is √(gain / (h·w·d)) for each set as if it were
                alone, a number is taken as it is. Before a join the gain is 1.

        Raises:
            InputError: no set, a shape twice, an even side, or an unknown `sigma`.
        """
        super().__init__()
        _check_sets(sets)
        self.sets = nn.ModuleDict()
        inner = LINEAR if join is not None else gain
        for filters, height, width in sets:
            layer = convolution(channels, filters, (height, width), stride=stride, gain=inner)
            if sigma != "own":
                terms = composite_fan_out(sets)
                _draw(layer, deviation(terms, inner) if sigma == "shared" else _number("sigma", sigma))
            self.sets[f"{height}x{width}"] = layer
        total = sum(filters for filters, _, _ in sets)
        self.join = None if join is None else convolution(total, join, 1, gain=gain)
        self.filters = total if join is None else join

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """(B, c, H, W) → (B, filters, H', W')."""
        maps = torch.cat([layer(images) for layer in self.sets.values()], dim=1)
        return maps if self.join is None else self.join(maps)


def _check_sets(sets: Sequence[FilterSet]) -> None:
    """Check the shapes of the filter sets of a composite layer."""
    shapes = [(height, width) for _, height, width in sets]
    if not shapes or len(set(shapes)) < len(shapes):
        raise InputError(f"sets must be (filters, height, width), one or more, each shape once, got {list(sets)!r}.")
    if any(side % 2 == 0 for shape in shapes for side in shape):
        raise InputError(f"Heights and widths of sets must be odd, or maps change size; got {shapes!r}.")


def _axes(name: str, value: Kernel) -> tuple[int, int]:
    """Return a size for each axis."""
    if isinstance(value, tuple) and len(value) == 2:
        return whole(name, value[0]), whole(name, value[1])
    return whole(name, value), whole(name, value)


def _number(name: str, value: object) -> float:
    """Check a standard deviation."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not value > 0:
        raise InputError(f"{name} must be 'shared', 'own' or a number above 0, got {value!r}.")
    return float(value)


def _draw(layer: nn.Conv2d | nn.Linear, sigma: float) -> None:
    """Draw weights from the normal distribution, and set the bias to zero."""
    if layer.weight.is_meta:
        return  # there is nothing to draw, and torch takes its time for it
    nn.init.normal_(layer.weight, std=sigma)
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)
