"""Faster ways to compute convolutions in groups on a CPU; the results are the same up to rounding.

What torch calls for a convolution in groups (oneDNN) works on 8 or 16 channels at a time and pads narrower groups. Two
things help, which of them depends on the layer and the machine:

- maps in the order (B, H, W, C), `channels_last`, for which other kernels are chosen;
- several neighbouring groups computed as one, whose weights are block-diagonal: more operations, but on blocks as wide
  as the kernels want.

`fastest` measures and chooses, layer by layer. Unfolding and a batched matrix product were tried as well: slower
everywhere.
"""

import copy
from collections.abc import Callable
from functools import partial
from typing import Any

import pandas as pd
import torch
from torch import nn
from torch.nn import functional

from papertwin.errors import InputError, RunError
from papertwin.nets.sizes import whole
from papertwin.training.clock import interleaved

WIDEST = 64  # channels or filters of a merged group, at most
GAIN = 0.95  # of the plain time, at most, or a layer stays as it is: less would be noise
SAME = 1e-3  # largest difference of two ways, as a share of the largest output
ORDERS = {"channels first": torch.contiguous_format, "channels last": torch.channels_last}


class MergedConv2d(nn.Conv2d):
    """A convolution in groups that computes several neighbouring groups as one, with block-diagonal weights.

    For inference: parameters, state and counts are those of the convolution in groups; the merged weights are made from
    them when the layer is built and when a state is loaded.

    Attributes:
        together: groups computed as one, m.
    """

    def __init__(self, layer: nn.Conv2d, together: int):
        """Share the parameters of a layer.

        Args:
            layer: with zero padding.
            together: m, a divisor of its groups.

        Raises:
            InputError: `together` does not divide the groups, or the layer pads with anything but zeros.
        """
        if layer.groups % whole("together", together):
            raise InputError(f"together must divide {layer.groups} groups, got {together}.")
        if layer.padding_mode != "zeros":
            raise InputError(f"The layer must pad with zeros, got padding_mode {layer.padding_mode!r}.")
        options = {key: getattr(layer, key) for key in ("stride", "padding", "dilation", "groups")}
        shape = layer.in_channels, layer.out_channels, layer.kernel_size
        super().__init__(*shape, bias=layer.bias is not None, device="meta", **options)
        self.weight, self.bias, self.together = layer.weight, layer.bias, together
        self.register_buffer("merged", None, persistent=False)
        self.refresh()
        self.register_load_state_dict_post_hook(lambda module, _: module.refresh())

    @torch.no_grad()
    def refresh(self) -> None:
        """Make the merged weights from the parameters: (d, m·c/g, h, w)."""
        filters, channels, *_ = self.weight.shape
        place = torch.arange(filters, device=self.weight.device) * self.groups // filters % self.together
        wide = self.weight.new_zeros(filters, self.together, channels, *self.kernel_size)
        wide[torch.arange(filters), place] = self.weight
        merged = wide.flatten(1, 2)
        last = self.weight.is_contiguous(memory_format=torch.channels_last) and not self.weight.is_contiguous()
        self.merged = merged.contiguous(memory_format=torch.channels_last) if last else merged

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """(B, c, H, W) → (B, d, H', W')."""
        groups = self.groups // self.together
        return functional.conv2d(images, self.merged, self.bias, self.stride, self.padding, self.dilation, groups)


class Fastest(nn.Module):
    """A network that runs in the way that measured best.

    Attributes:
        model: the network, some of its layers merged.
        order: of its maps, a name in `ORDERS`.
        choices: a row a grouped layer: `layer`, `groups`, `together`, `ms` of it, and `plain ms` of torch's own way.
    """

    def __init__(self, model: nn.Module, order: str, choices: pd.DataFrame):
        """Put maps and weights into their order."""
        super().__init__()
        self.model, self.order, self.choices = model.to(memory_format=ORDERS[order]), order, choices

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """As the network."""
        return self.model(images.contiguous(memory_format=ORDERS[self.order]))


def fastest(
    model: nn.Module, images: torch.Tensor, *, rounds: int = 7, progress: Callable[[str], None] | None = None
) -> Fastest:
    """Find the fastest way to run a network with filter groups on this machine, with one thread, for inference.

    Args:
        model: network in eval mode; it is left as it is.
        images: (B, C, H, W): the shape decides which way is the fastest.
        rounds: of each measurement.
        progress: called with the name of each layer that is measured.

    Returns:
        A copy of the network. On another device than the CPU it runs as it is, in torch's own way.

    Raises:
        RunError: a way gives another result.
    """
    choices = {order: pd.DataFrame(columns=["layer", "groups", "together", "ms", "plain ms"]) for order in ORDERS}
    if images.device.type != "cpu":
        return Fastest(copy.deepcopy(model), "channels first", choices["channels first"])
    with torch.inference_mode():
        known: dict[Any, tuple[int, float, float]] = {}
        seen = _inputs(model, images)
        networks = {"plain": Fastest(copy.deepcopy(model), "channels first", choices["channels first"])}
        for order in ORDERS:
            rows = []
            for name, given in seen.items():
                if progress is not None:
                    progress(f"{name}, {order}")
                layer = model.get_submodule(name)
                key = (order, given, layer.weight.shape, layer.stride, layer.padding, layer.dilation, layer.groups)
                if key not in known:
                    known[key] = _best(layer, given, order, rounds)
                rows.append((name, layer.groups, *known[key]))
            table = pd.DataFrame(rows, columns=choices[order].columns)
            networks[order] = Fastest(_merged(model, table), order, table)
        _check_equal(networks, images)
        times = interleaved({name: partial(each, images) for name, each in networks.items()}, rounds=rounds)
    return networks[times.median().idxmin()]


def _inputs(model: nn.Module, images: torch.Tensor) -> dict[str, tuple[int, ...]]:
    """Shape of what each convolution in groups is given, by its name."""
    seen: dict[str, tuple[int, ...]] = {}
    hooks = [
        layer.register_forward_pre_hook(lambda _, given, name=name: seen.update({name: tuple(given[0].shape)}))
        for name, layer in model.named_modules()
        if isinstance(layer, nn.Conv2d) and layer.groups > 1
    ]
    try:
        model(images)
    finally:
        for hook in hooks:
            hook.remove()
    return seen


def _best(layer: nn.Conv2d, shape: tuple[int, ...], order: str, rounds: int) -> tuple[int, float, float]:
    """How many groups to compute as one, and the milliseconds of that and of one by one."""
    given = torch.randn(shape, generator=torch.Generator().manual_seed(0)).contiguous(memory_format=ORDERS[order])
    own = {m: copy.deepcopy(layer) for m in merges(layer)}  # whose memory order may change
    ways = {m: MergedConv2d(each, m) if m > 1 else each for m, each in own.items()}
    calls = {m: partial(way.to(memory_format=ORDERS[order]), given) for m, way in ways.items()}
    times = 1e3 * interleaved(calls, rounds=rounds).median()
    best = int(times.idxmin())
    best = best if times[best] < GAIN * times[1] else 1
    return best, float(times[best]), float(times[1])


def merges(layer: nn.Conv2d) -> list[int]:
    """Numbers of groups that may be computed as one: divisors of the groups, 1 first; blocks stay narrow.

    >>> merges(nn.Conv2d(192, 192, 3, groups=12))
    [1, 2, 3, 4]
    """
    widest = max(layer.in_channels, layer.out_channels) // layer.groups
    least = [1] if layer.padding_mode == "zeros" else []
    found = [m for m in range(2, layer.groups + 1) if layer.groups % m == 0 and m * widest <= WIDEST]
    return [1, *found] if least else [1]


def _merged(model: nn.Module, table: pd.DataFrame) -> nn.Module:
    """Copy a network and merge the groups of some of its layers."""
    changed = copy.deepcopy(model)
    for name, together in zip(table["layer"], table["together"]):
        if together > 1:
            changed.set_submodule(name, MergedConv2d(changed.get_submodule(name), int(together)))
    return changed


def _check_equal(networks: dict[str, Fastest], images: torch.Tensor) -> None:
    """Raise RunError where two ways give different results."""
    wanted = networks["plain"](images)
    for order, network in networks.items():
        gap = float((network(images) - wanted).abs().max() / wanted.abs().max())
        if not gap <= SAME:
            raise RunError(f"{order}: the results differ by {gap:.1e} of the largest. Please report this.")
