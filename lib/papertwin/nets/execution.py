"""Faster ways to compute convolutions on a CPU, in groups above all; the results are the same up to rounding.

What torch calls for a convolution in groups (oneDNN) works on 8 or 16 channels at a time and pads narrower groups. For
few images on one thread torch calls it for 1×1 filters not at all, those that join the groups, but multiplies matrices.
Three things help, which of them depends on the layer and the machine:

- maps in the order (B, H, W, C), `channels_last`, for which other kernels are chosen;
- several neighbouring groups computed as one, whose weights are block-diagonal: more operations, but on blocks as wide
  as the kernels want;
- oneDNN for layers without groups that torch would compute without it.

`fastest` measures and chooses, layer by layer. Unfolding and a batched matrix product were tried as well: slower
everywhere, as were merged groups of more than `WIDEST` channels, up to the dense layer. Groups of one channel have a
kernel of their own, which is what torch calls.
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
MANY = 16  # images, from which on torch leaves every convolution to oneDNN
GAIN = 0.95  # of the time in torch's own way, at most, or a layer stays as it is: less would be noise
SAME = 1e-3  # largest difference of two ways, as a share of the largest output
ORDERS = {"channels first": torch.contiguous_format, "channels last": torch.channels_last}
TORCH, MERGED, ONEDNN = "torch", "merged", "oneDNN"

Way = tuple[str, int]  # one of the three, and how many groups are computed as one
Times = dict[tuple[str, str, int], float]  # order and way → ms
AS_IT_IS = (TORCH, 1)


class _LikeConv2d(nn.Conv2d):
    """A convolution that shares the parameters of another one, with zero padding; its state and counts are the same."""

    def __init__(self, layer: nn.Conv2d):
        if layer.padding_mode != "zeros":
            raise InputError(f"The layer must pad with zeros, got padding_mode {layer.padding_mode!r}.")
        options = {key: getattr(layer, key) for key in ("stride", "padding", "dilation", "groups")}
        shape = layer.in_channels, layer.out_channels, layer.kernel_size
        super().__init__(*shape, bias=layer.bias is not None, device="meta", **options)
        self.weight, self.bias = layer.weight, layer.bias


class OneDnnConv2d(_LikeConv2d):
    """A convolution by oneDNN, for inference, float32 on a CPU; torch chooses for itself whether to call it."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """(B, c, H, W) → (B, d, H', W')."""
        sizes = self.padding, self.stride, self.dilation
        return torch.mkldnn_convolution(images, self.weight, self.bias, *sizes, self.groups)


class MergedConv2d(_LikeConv2d):
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
        super().__init__(layer)
        self.together = together
        self.register_buffer("merged", None, persistent=False)
        self.refresh()
        self.register_load_state_dict_post_hook(_refresh)

    @torch.no_grad()
    def refresh(self) -> None:
        """Make the merged weights from the parameters: (d, m·c/g, h, w)."""
        filters, channels, *_ = self.weight.shape
        place = torch.arange(filters, device=self.weight.device) * self.groups // filters % self.together
        wide = self.weight.new_zeros(filters, self.together, channels, *self.kernel_size)
        wide[torch.arange(filters), place] = self.weight
        like = self.weight if self.merged is None else self.merged
        last = like.is_contiguous(memory_format=torch.channels_last) and not like.is_contiguous()
        self.merged = wide.flatten(1, 2).contiguous(memory_format=ORDERS["channels last" if last else "channels first"])

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """(B, c, H, W) → (B, d, H', W')."""
        groups = self.groups // self.together
        return functional.conv2d(images, self.merged, self.bias, self.stride, self.padding, self.dilation, groups)


def _refresh(layer: MergedConv2d, _: object) -> None:
    """Follow the parameters that were just loaded."""
    layer.refresh()


class Fastest(nn.Module):
    """A network that runs in the way that measured best, for inference: its parameters ask for no gradients.

    Attributes:
        model: the network, some of its layers replaced; its state is that of the network as it was.
        order: of its maps, a name in `ORDERS`.
        choices: a row a convolution that was measured: `layer`, `groups`, `way` (torch, merged or oneDNN), `together`
            (how many groups are computed as one), `ms` of that, `plain ms` of torch's own way, and `tried`: (order,
            way, together) → ms of everything that was measured.
    """

    def __init__(self, model: nn.Module, order: str, choices: pd.DataFrame):
        """Put maps and weights into their order."""
        super().__init__()
        self.model = model.to(memory_format=ORDERS[order]).requires_grad_(False)
        self.order, self.choices = order, choices

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """As the network."""
        return self.model(images.contiguous(memory_format=ORDERS[self.order]))


def fastest(
    model: nn.Module, images: torch.Tensor, *, rounds: int = 7, progress: Callable[[str], None] | None = None
) -> Fastest:
    """Find the fastest way to run a network on this machine, with one thread, for inference.

    Args:
        model: network in eval mode; it is left as it is.
        images: (B, C, H, W): the shape decides which way is the fastest.
        rounds: of each measurement.
        progress: called with the name of each layer that is measured.

    Returns:
        A copy of the network. On another device than the CPU it runs as it is, in torch's own way.

    Raises:
        InputError: the model is in training mode.
        RunError: a way gives another result.
    """
    if model.training:
        raise InputError("The fastest way is one for inference, got a model in training mode. Call model.eval() first.")
    if images.device.type != "cpu":
        return Fastest(copy.deepcopy(model), "channels first", _choices(model, {}, {}, "channels first"))
    tried = _tried(model, images, rounds, progress)
    networks = _candidates(model, tried)
    with torch.inference_mode():
        _check_equal(networks, images)
        times = interleaved({name: partial(each, images) for name, each in networks.items()}, rounds=rounds)
    return networks[times.median().idxmin()]


def _tried(
    model: nn.Module, images: torch.Tensor, rounds: int, progress: Callable[[str], None] | None
) -> dict[str, Times]:
    """Time every convolution for which there is another way, in every way; those that are alike are measured once."""
    known: dict[Any, Times] = {}
    found = {}
    for name, shape in _inputs(model, images).items():
        layer = model.get_submodule(name)
        if ways(layer, shape) == [AS_IT_IS]:
            continue
        if progress is not None:
            progress(name)
        key = shape, layer.extra_repr()
        if key not in known:
            known[key] = _timed(layer, shape, rounds)
        found[name] = known[key]
    return found


def _inputs(model: nn.Module, images: torch.Tensor) -> dict[str, tuple[int, ...]]:
    """Shape of what each convolution is given, by its name."""
    seen: dict[str, tuple[int, ...]] = {}
    hooks = [
        layer.register_forward_pre_hook(lambda _, given, name=name: seen.update({name: tuple(given[0].shape)}))
        for name, layer in model.named_modules()
        if isinstance(layer, nn.Conv2d)
    ]
    try:
        with torch.inference_mode():
            model(images)
    finally:
        for hook in hooks:
            hook.remove()
    return seen


@torch.inference_mode()
def _timed(layer: nn.Conv2d, shape: tuple[int, ...], rounds: int) -> Times:
    """Milliseconds of a layer in every way; all of them take turns."""
    calls = {}
    images = torch.randn(shape, generator=torch.Generator().manual_seed(0), dtype=layer.weight.dtype)
    for order, memory in ORDERS.items():
        given = images.contiguous(memory_format=memory)
        for kind, together in ways(layer, shape):
            own = copy.deepcopy(layer)  # whose memory order may change
            calls[order, kind, together] = partial(_replaced(own, (kind, together)).to(memory_format=memory), given)
    return (1e3 * interleaved(calls, rounds=rounds).median()).to_dict()


def _best(times: Times, order: str) -> Way:
    """How to compute a layer, with maps in this order."""
    known = {(kind, together): ms for (each, kind, together), ms in times.items() if each == order}
    best = min(known, key=known.get)
    return best if known[best] < GAIN * known[AS_IT_IS] else AS_IT_IS


@torch.inference_mode(False)
def _candidates(model: nn.Module, tried: dict[str, Times]) -> dict[str, Fastest]:
    """The network with maps in each order, as it is and with the layers replaced that are faster so."""
    found = {}
    for order in ORDERS:
        plain = dict.fromkeys(tried, AS_IT_IS)
        best = {name: _best(times, order) for name, times in tried.items()}
        found[order] = Fastest(copy.deepcopy(model), order, _choices(model, tried, plain, order))
        if best != plain:
            changed = _changed(model, best)
            found[f"{order}, changed"] = Fastest(changed, order, _choices(model, tried, best, order))
    return found


def _choices(model: nn.Module, tried: dict[str, Times], chosen: dict[str, Way], order: str) -> pd.DataFrame:
    """A row a layer, as in `Fastest`."""
    table = pd.DataFrame({"layer": list(chosen)})
    table["groups"] = [model.get_submodule(name).groups for name in chosen]
    table["way"], table["together"] = ([way[place] for way in chosen.values()] for place in (0, 1))
    table["ms"] = [tried[name][order, *way] for name, way in chosen.items()]
    table["plain ms"] = [tried[name]["channels first", *AS_IT_IS] for name in chosen]
    return table.assign(tried=[tried[name] for name in chosen])


def ways(layer: nn.Conv2d, shape: tuple[int, ...]) -> list[Way]:
    """How a convolution may be computed, torch's own way first; other ways only where they may be faster.

    Args:
        layer: convolution.
        shape: (B, c, H, W) of what it is given.
    """
    found = [(MERGED, together) for together in merges(layer)[1:]]
    plain = layer.padding_mode == "zeros" and not isinstance(layer.padding, str) and layer.weight.dtype == torch.float32
    here = torch.backends.mkldnn.is_available() and hasattr(torch, "mkldnn_convolution")
    if layer.groups == 1 and shape[0] < MANY and plain and here:
        found.append((ONEDNN, 1))
    return [AS_IT_IS, *found]


def merges(layer: nn.Conv2d) -> list[int]:
    """Numbers of groups that may be computed as one: divisors of the groups, 1 first; blocks stay narrow.

    >>> merges(nn.Conv2d(192, 192, 3, groups=12))
    [1, 2, 3, 4]
    """
    if layer.padding_mode != "zeros":
        return [1]
    widest = max(layer.in_channels, layer.out_channels) // layer.groups
    return [1, *(m for m in range(2, layer.groups + 1) if layer.groups % m == 0 and m * widest <= WIDEST)]


def _replaced(layer: nn.Conv2d, way: Way) -> nn.Conv2d:
    """A layer that does the same in another way, with the same parameters."""
    kind, together = way
    if kind == TORCH:
        return layer
    return OneDnnConv2d(layer) if kind == ONEDNN else MergedConv2d(layer, together)


def _changed(model: nn.Module, chosen: dict[str, Way]) -> nn.Module:
    """Copy a network and replace some of its layers."""
    changed = copy.deepcopy(model)
    for name, way in chosen.items():
        if way != AS_IT_IS:
            changed.set_submodule(name, _replaced(changed.get_submodule(name), way))
    return changed


def _check_equal(networks: dict[str, Fastest], images: torch.Tensor) -> None:
    """Raise RunError where two ways give different results."""
    wanted = networks["channels first"](images)
    for name, network in networks.items():
        gap = float((network(images) - wanted).abs().max() / wanted.abs().max())
        if not gap <= SAME:
            raise RunError(f"{name}: the results differ by {gap:.1e} of the largest. Please report this.")
