"""Draw the first weights of a whole network anew: as derived, or with one of the usual mistakes.

Which gain a layer needs is read off the chain that it stands in. A ReLU may come after normalisation, pools or dropout,
none of which has weights that mix channels; another layer instead (the first of a separable pair) means gain 1, as does
a join. The last layer of a chain that nothing follows gives logits, σ² = 1/fan_in.

Inside a module with a forward of its own nothing can be read off: gain 2 is taken, except that a fully connected layer
at the end of a chain in there gives logits. `gains` overrides this, for example for the projections of a residual
block. Strides are left out of n̂, as the papers do.
"""

import copy
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Literal, get_args

import torch
from torch import nn

from papertwin.errors import InputError
from papertwin.nets.initial import LINEAR, RELU, composite_fan_out, deviation, fan_out, seeded
from papertwin.nets.layers import Composite

Rule = Literal["shared", "own", "ungrouped", "stock"]
Gain = float | Literal["last"]
LAYERS = (nn.Conv2d, nn.Linear, Composite)
PASSING = (
    *(nn.modules.batchnorm._BatchNorm, nn.GroupNorm, nn.LocalResponseNorm, nn.Identity, nn.Flatten),
    *(nn.modules.dropout._DropoutNd, nn.MaxPool2d, nn.AvgPool2d, nn.AdaptiveMaxPool2d, nn.AdaptiveAvgPool2d),
)


def products(layer: nn.Module) -> float:
    """Count the products that a value of a layer's input takes part in, away from the border: n̂.

    Args:
        layer: convolution, h·w·d/g; fully connected, its outputs; `Composite`, Σ h·w·d over its sets, no join.

    Raises:
        InputError: another module.
    """
    if isinstance(layer, Composite):
        return composite_fan_out((each.out_channels, *each.kernel_size) for each in layer.sets.values())
    if isinstance(layer, nn.Conv2d):
        return fan_out(layer.out_channels, *layer.kernel_size, layer.groups)
    if isinstance(layer, nn.Linear):
        return float(layer.out_features)
    raise InputError(f"layer must be a Conv2d, Linear or Composite, got {type(layer).__name__}.")


def layer_gains(model: nn.Module) -> dict[str, Gain]:
    """Read off which gain each layer needs.

    Args:
        model: any network.

    Returns:
        Name of each convolution, composite or fully connected layer, in the order of `named_modules` → 2 before a ReLU
        or where the follower cannot be read off, 1 before another layer, "last" where logits leave.
    """
    found: dict[str, Gain] = {}
    _read("", model, True, found)
    return found


def init_(
    model: nn.Module,
    *,
    seed: int,
    sigma: Rule | float = "shared",
    gains: Mapping[str, Gain] | None = None,
) -> nn.Module:
    """Draw the weights of all convolutions, composite and fully connected layers anew, in place; zero biases.

    Other modules, and weights on the meta device, are left alone. Weights are drawn on the CPU and do not depend on
    the device of the network.

    Args:
        model: any network.
        seed: of the weights, from 0 to 2³² − 1.
        sigma: "shared" is √(gain / n̂), one σ for all sets of a composite layer; "own" takes each set as if it were
            alone; "ungrouped" leaves filter groups out of n̂, as fan_out of torch does; "stock" is what torch draws by
            itself, biases too; a number is the deviation of every weight.
        gains: gain by name of a layer, or "last" for 1/fan_in, instead of what `layer_gains` says. Of a composite
            layer with a join it is the gain of the join.

    Returns:
        The same network.

    Raises:
        InputError: unknown sigma, a gain for a layer that does not exist, a gain not above 0, or a bad seed.

    Example:
        >>> from papertwin.nets import resnet50
        >>> net = resnet50(10, width=0.25, seed=0)
        >>> linear = {name: 1.0 for name, _ in net.named_modules() if name.endswith("projection")}
        >>> init_(net, seed=1, sigma="ungrouped", gains=linear) is net
        True
    """
    rule = _sigma(sigma)
    due = layer_gains(model)
    due |= _gains(gains or {}, due)
    with seeded(seed):
        for name, layer in model.named_modules():
            if name not in due:
                continue
            for part, spread in _parts(layer, due[name], rule):
                _draw(part, spread)
    return model


def _read(name: str, module: nn.Module, outermost: bool, found: dict[str, Gain]) -> None:
    """Read off the gains of the layers in a module.

    Args:
        name: of the module.
        module: chain, layer or anything else.
        outermost: whether it is the network itself.
        found: where gains are put.
    """
    leaves = list(_leaves(name, module))
    for place, (full, leaf) in enumerate(leaves):
        if not isinstance(leaf, LAYERS):
            for child_name, child in leaf.named_children():
                _read(f"{full}.{child_name}" if full else child_name, child, False, found)
            continue
        gain = _follower([each for _, each in leaves[place + 1 :]])
        if gain is None:
            logits = outermost or (isinstance(leaf, nn.Linear) and _is_chain(module))
            gain = "last" if logits else RELU
        found.setdefault(full, gain)


def _leaves(name: str, module: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """Yield the modules of a chain and of the chains in it, with full names; another module is its own only leaf."""
    if not _is_chain(module):
        yield name, module
        return
    for child_name, child in module.named_children():
        yield from _leaves(f"{name}.{child_name}" if name else child_name, child)


def _is_chain(module: nn.Module) -> bool:
    """Whether a module applies its children one after the other and does nothing else."""
    return isinstance(module, nn.Sequential) and type(module).forward is nn.Sequential.forward


def _follower(after: Sequence[nn.Module]) -> float | None:
    """Return the gain that the modules after a layer ask for; None where the chain ends first."""
    for module in after:
        if not isinstance(module, PASSING):
            return LINEAR if isinstance(module, LAYERS) else RELU
    return None


def _parts(layer: nn.Module, gain: Gain, rule: Rule | float) -> Iterator[tuple[nn.Conv2d | nn.Linear, float | None]]:
    """Yield what has weights in a layer with its deviation, None for what torch draws by itself."""
    if not isinstance(layer, Composite):
        yield layer, _deviation(layer, gain, rule)
        return
    inner = LINEAR if layer.join is not None or gain == "last" else gain
    for each in layer.sets.values():
        numeric = not isinstance(rule, str) or rule in ("stock", "own")
        yield each, _deviation(each, inner, rule) if numeric else deviation(products(layer), inner)
    if layer.join is not None:
        yield layer.join, _deviation(layer.join, gain, rule)


def _deviation(layer: nn.Conv2d | nn.Linear, gain: Gain, rule: Rule | float) -> float | None:
    """Return the deviation of a layer's weights, None for what torch draws by itself."""
    if rule == "stock":
        return None
    if not isinstance(rule, str):
        return rule
    if gain == "last":
        return deviation(layer.weight[0].numel(), LINEAR)
    groups = layer.groups if rule == "ungrouped" and isinstance(layer, nn.Conv2d) else 1
    return deviation(products(layer) * groups, gain)


@torch.no_grad()
def _draw(layer: nn.Conv2d | nn.Linear, spread: float | None) -> None:
    """Draw the weights of a layer, and set its bias."""
    if layer.weight.is_meta:
        return
    if spread is None:
        fresh = copy.deepcopy(layer).cpu()
        fresh.reset_parameters()
        layer.load_state_dict(fresh.state_dict())
        return
    layer.weight.copy_(torch.randn(layer.weight.shape) * spread)
    if layer.bias is not None:
        layer.bias.zero_()


def _sigma(sigma: object) -> Rule | float:
    """Check how deviations are chosen."""
    if isinstance(sigma, str) and sigma in get_args(Rule):
        return sigma
    if _positive(sigma):
        return float(sigma)
    raise InputError(f"sigma must be one of {', '.join(get_args(Rule))} or a finite number above 0, got {sigma!r}.")


def _gains(gains: Mapping[str, Gain], known: Mapping[str, Gain]) -> dict[str, Gain]:
    """Check gains that the caller chose."""
    strange = [name for name in gains if name not in known]
    if strange:
        names = ", ".join(known) or "none"
        raise InputError(f"gains must name layers of the network, got {strange[0]!r}. Its layers: {names}.")
    for name, gain in gains.items():
        if not (gain == "last" or _positive(gain)):
            raise InputError(f"gains[{name!r}] must be 'last' or a finite number above 0, got {gain!r}.")
    return dict(gains)


def _positive(value: object) -> bool:
    """Whether a value is a finite number above 0."""
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 < value < math.inf
