"""Draw the weights of a whole network anew, by the rules of `papertwin.nets.initial` or by the usual mistakes.

Which gain a layer has is read from the chain it stands in: 2 where a ReLU follows, 1 where another layer does; batch
normalisation, pools, dropout and reshaping between are passed over. Within a module with a `forward` of its own, what
follows its layers and the ends of its chains cannot be read. A ReLU is assumed, but for fully connected layers at the
end of a chain, which give logits, and the projections of our residual blocks; the caller can say otherwise.

Deviations: on every device the numbers are those of the CPU's generator. What a network has besides convolutions,
fully connected and composite layers (batch normalisation, say) stays as it is. Strides are left out of n̂.
"""

import copy
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from difflib import get_close_matches
from fnmatch import fnmatchcase
from typing import Any, Literal, get_args

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.dropout import _DropoutNd

from papertwin.errors import InputError
from papertwin.nets.cifar_residual import BasicBlock, WideBlock
from papertwin.nets.initial import LINEAR, RELU, composite_fan_out, deviation, fan_in, fan_out, seeded
from papertwin.nets.layers import Composite
from papertwin.nets.residual import Bottleneck

Rule = Literal["shared", "own", "ungrouped", "stock"]
Fan = Literal["out", "in"]
Weighted = nn.Conv2d | nn.Linear | Composite
PASSED = (
    *(_BatchNorm, _DropoutNd, nn.Identity, nn.Flatten),
    *(nn.MaxPool2d, nn.AvgPool2d, nn.AdaptiveMaxPool2d, nn.AdaptiveAvgPool2d),
)
BLOCKS = (Bottleneck, BasicBlock, WideBlock)
# known of our own modules
GAINS: dict[type[nn.Module], dict[str, float]] = {block: {"projection": LINEAR} for block in BLOCKS}
UNKNOWN = nn.Module()  # what follows a chain within a module whose forward cannot be read


@dataclass(frozen=True)
class Place:
    """A layer with weights, and what follows it.

    Attributes:
        name: dotted path of the layer in its network; "" where it is all of it.
        layer: convolution, fully connected or composite layer.
        gain: 2 before a ReLU, 1 before nothing.
        last: whether it gives the output of the network.
    """

    name: str
    layer: Weighted
    gain: float
    last: bool


def init_(
    model: nn.Module,
    *,
    seed: int,
    sigma: Rule | float = "shared",
    fan: Fan = "out",
    gains: Mapping[str, float | Literal["last"]] | None = None,
) -> nn.Module:
    """Draw the weights of every convolution, fully connected and composite layer anew, in place.

    Biases become zero (with "stock" they are drawn). From one seed, networks that differ in `sigma` have the same
    normal numbers, times another σ each (but for "stock").

    Args:
        model: network; weights on the meta device are left alone.
        seed: of the weights.
        sigma: "shared" is √(gain / n̂), of a layer in g groups n̂ = h·w·d/g, of a composite layer one σ for all its sets
            with n̂ = Σ h·w·d, and √(1 / fan_in) for the last layer; "own" gives each set of a composite layer its σ as
            if it were alone; "ungrouped" leaves g out, as torch's `fan_out` does; "stock" is torch's own draw; a number
            is the σ of every layer.
        fan: "out" for n̂ as above, "in" for n̂ = h·w·c/g, of each filter set by itself.
        gains: names of layers, or patterns such as `*.conv3` → the gain, or "last"; of a composite layer with a join it
            is the gain of the join. Without it gains are as `layer_gains` reads them.

    Returns:
        The same network.

    Raises:
        InputError: an argument is none of these, or a pattern names no layer.

    Example:
        >>> layer = init_(nn.Sequential(nn.Conv2d(64, 64, 3, groups=4), nn.ReLU()), seed=0)[0]
        >>> round(layer.weight.std().item(), 2), round(math.sqrt(2 / (9 * 64 / 4)), 2)
        (0.12, 0.12)
    """
    sigma = _checked(sigma)
    if fan not in get_args(Fan):
        raise InputError(f"fan must be 'out' or 'in', got {fan!r}.")
    found = places(model, gains)
    with seeded(seed), torch.no_grad():
        for place in found:
            for layer, spread in _spreads(place, sigma, fan):
                _draw(layer, spread)
    return model


def products(layer: Weighted) -> float:
    """Products that a value of a layer's input takes part in, away from the border: n̂.

    Args:
        layer: convolution, h·w·d/g; composite layer, Σ h·w·d over its filter sets, without its join; fully connected
            layer, its outputs.

    Raises:
        InputError: it is none of these.

    Example:
        >>> products(nn.Conv2d(64, 32, 3, groups=4)), products(Composite(64, [(4, 3, 1), (4, 1, 3)], join=8))
        (72.0, 24.0)
    """
    if isinstance(layer, Composite):
        return composite_fan_out((each.out_channels, *each.kernel_size) for each in layer.sets.values())
    if not isinstance(layer, Weighted):
        raise InputError(f"layer must be a Conv2d, a Linear or a Composite, got {type(layer).__name__}.")
    return _terms(layer, "out", "shared")


def places(model: nn.Module, gains: Mapping[str, float | Literal["last"]] | None = None) -> list[Place]:
    """List the layers of a network with weights, each once, with the gain that is read for it.

    Args:
        model: network.
        gains: as in `init_`.

    Raises:
        InputError: `model` is no network, a pattern names no layer, or a gain is no number above 0.

    Example:
        >>> [(place.name, place.gain) for place in places(nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 2), nn.ReLU()))]
        [('0', 1.0), ('1', 2.0)]
    """
    if not isinstance(model, nn.Module):
        raise InputError(f"model must be a torch.nn.Module, got {type(model).__name__}.")
    found: dict[int, Place] = {}
    for place in _visit("", model, []):
        found.setdefault(id(place.layer), place)  # a layer that stands twice is drawn once
    return _overridden(list(found.values()), gains or {})


def layer_gains(model: nn.Module) -> dict[str, float | Literal["last"]]:
    """Read which gain each layer has: 2 before a ReLU or what cannot be read, 1 before another layer, or "last".

    Raises:
        InputError: `model` is no network.
    """
    return {place.name: "last" if place.last else place.gain for place in places(model)}


def _visit(name: str, module: nn.Module, rest: Sequence[nn.Module]) -> Iterator[Place]:
    """Yield the layers of a module, given what follows it; nothing where that is the output of the network."""
    if isinstance(module, Weighted):
        yield Place(name, module, *_followed(module, rest))
        return
    every = module.named_modules(remove_duplicate=False)  # a ReLU that stands several times is met each time
    children = [(key, child) for key, child in every if key and "." not in key]
    for step, (key, child) in enumerate(children, start=1):
        path = f"{name}.{key}" if name else key
        if isinstance(module, nn.Sequential):
            yield from _visit(path, child, [*(after for _, after in children[step:]), *rest])
        elif isinstance(child, Weighted):
            yield Place(path, child, GAINS.get(type(module), {}).get(key, RELU), False)
        else:
            yield from _visit(path, child, [UNKNOWN])


def _followed(layer: Weighted, rest: Sequence[nn.Module]) -> tuple[float, bool]:
    """Return the gain of a layer before these modules, and whether it is the last."""
    for module in _flat(rest):
        if module is UNKNOWN and isinstance(layer, nn.Linear):
            break
        if isinstance(module, nn.LeakyReLU):
            return RELU / (1 + module.negative_slope**2), False
        if isinstance(module, Weighted):
            return LINEAR, False
        if not isinstance(module, PASSED):
            return RELU, False
    return LINEAR, True


def _flat(modules: Iterable[nn.Module]) -> Iterator[nn.Module]:
    """Yield modules, chains layer by layer."""
    for module in modules:
        if isinstance(module, nn.Sequential):
            yield from _flat(module)
        else:
            yield module


def _overridden(found: list[Place], gains: Mapping[str, Any]) -> list[Place]:
    """Put in the gains that the caller gives."""
    names = [place.name for place in found]
    for pattern, gain in gains.items():
        if not any(fnmatchcase(name, pattern) for name in names):
            near = get_close_matches(str(pattern), names, n=3, cutoff=0.4) or names[:3]
            raise InputError(
                f"gains names {pattern!r}, but no convolution, fully connected or composite layer is called so; "
                f"the nearest are {', '.join(near) or 'none'}."
            )
        last = gain == "last"
        value = LINEAR if last else _positive("A gain must be 'last' or", gain)
        found = [replace(p, gain=value, last=last) if fnmatchcase(p.name, pattern) else p for p in found]
    return found


def _spreads(place: Place, sigma: Rule | float, fan: Fan) -> Iterator[tuple[nn.Conv2d | nn.Linear, float | None]]:
    """Yield each convolution or fully connected layer with its σ; None is torch's own draw."""
    layer = place.layer
    if not isinstance(sigma, str) or sigma == "stock":
        parts = (each for each in layer.modules() if isinstance(each, nn.Conv2d | nn.Linear))
        yield from ((each, None if sigma == "stock" else sigma) for each in parts)
        return
    outer = layer.join if isinstance(layer, Composite) else layer
    if isinstance(layer, Composite):
        for each in layer.sets.values():
            alone = fan == "in" or sigma == "own"
            terms = _terms(each, fan, sigma) if alone else products(layer)
            yield each, deviation(terms, place.gain if outer is None else LINEAR)
    if outer is not None:
        yield outer, deviation(_terms(outer, "in" if place.last else fan, sigma), place.gain)


def _terms(layer: nn.Conv2d | nn.Linear, fan: Fan, sigma: Rule) -> float:
    """Products that a value of the input takes part in, or with fan "in" those that a value of the output sums."""
    if isinstance(layer, nn.Linear):
        return float(layer.in_features if fan == "in" else layer.out_features)
    groups = 1 if sigma == "ungrouped" else layer.groups
    if fan == "in":
        return fan_in(layer.in_channels, *layer.kernel_size, groups)
    return fan_out(layer.out_channels, *layer.kernel_size, groups)


def _draw(layer: nn.Conv2d | nn.Linear, spread: float | None) -> None:
    """Draw the weights on the CPU, and put them where the layer has its own."""
    if layer.weight.is_meta:
        return
    if spread is None:
        drawn = copy.deepcopy(layer).cpu()
        drawn.reset_parameters()
        layer.load_state_dict(drawn.state_dict())
        return
    layer.weight.copy_(torch.empty(layer.weight.shape, dtype=layer.weight.dtype, device="cpu").normal_() * spread)
    if layer.bias is not None:
        layer.bias.zero_()


def _checked(sigma: Any) -> Rule | float:
    """Check how σ is to be chosen."""
    if isinstance(sigma, str) and sigma in get_args(Rule):
        return sigma
    return _positive(f"sigma must be one of {', '.join(get_args(Rule))}, or", sigma)


def _positive(name: str, value: Any) -> float:
    """Check a finite number above 0."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < math.inf:
        raise InputError(f"{name} a finite number above 0, got {value!r}.")
    return float(value)
