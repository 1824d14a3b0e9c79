"""Parameters and multiply-accumulate operations of a network, layer by layer, by hooks on one forward pass.

The rule of the three papers (arXiv 1603.01250, 1605.06489, 1511.06744), for one image:

- convolution: H·W·d·(c/g)·h·w with the size H×W of its output, + d where it has a bias (once a channel, not a pixel);
- fully connected: in·out, + out where it has a bias;
- ReLU, pooling, normalisation, concatenation, dropout: nothing; parameters of batch normalisation are left out.

Ours, for transformers, of which none of them speaks: a fully connected layer costs in·out for each token; attention
costs 2·n²·D of n tokens of D values (q kᵀ, and its product with v), its softmax nothing; class token and positions are
parameters that cost nothing, as any sum of two maps; parameters of layer normalisation are left out like the others.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import astuple, dataclass, fields
from typing import Literal

import pandas as pd
import torch
from torch import nn
from torch.func import functional_call
from torch.nn.modules.batchnorm import _BatchNorm

from papertwin.errors import InputError
from papertwin.nets.conditional.selection import Conditional
from papertwin.nets.sizes import whole
from papertwin.nets.transformer import Heads, Tokens

Kind = Literal["conv", "fc", "tokens", "attention"]
KINDS: dict[type[nn.Module], Kind] = {nn.Conv2d: "conv", nn.Linear: "fc", Tokens: "tokens", Heads: "attention"}
COUNTED = tuple(KINDS)
NORMS = (_BatchNorm, nn.LayerNorm)


@dataclass(frozen=True)
class LayerCount:
    """What one layer costs.

    Attributes:
        name: dotted path of the layer in its network.
        kind: conv, fc, or of transformers tokens and attention.
        params: weights and biases; 0 where the layer shares them with one that ran before.
        macs: multiply-accumulate operations an image.
        output: shape of its output without the batch, (C, H, W), (C,) or, of tokens, (n, D).
    """

    name: str
    kind: Kind
    params: int
    macs: int
    output: tuple[int, ...]


@dataclass(frozen=True)
class Counts:
    """What a network costs.

    Attributes:
        params: weights and biases, without those of normalisation.
        macs: multiply-accumulate operations an image.
        layers: convolutions, fully connected layers, tokens and attention in the order in which they ran.
    """

    params: int
    macs: int
    layers: tuple[LayerCount, ...]

    def table(self) -> pd.DataFrame:
        """One row a layer: name, kind, params, macs, output."""
        return pd.DataFrame([astuple(layer) for layer in self.layers], columns=[f.name for f in fields(LayerCount)])


def count(model: nn.Module, input_shape: tuple[int, ...]) -> Counts:
    """Count a network on the device and in the mode in which it is; afterwards it is as it was.

    Only layers that run are counted: in eval mode those of auxiliary heads are not. Of conditional networks that is
    every route; what a few of them cost depends on the data.

    Args:
        model: network; on the meta device nothing is computed.
        input_shape: of an image, (C, H, W).

    Raises:
        InputError: a layer with parameters is none of those above, the network does not take such images, or it would
            choose among the routes of a `papertwin.nets.conditional.Conditional`, in eval mode with fewer than all.

    Example:
        >>> count(nn.Linear(3, 2), (3,)).macs
        8
    """
    shape = [whole("input_shape", size) for size in input_shape]
    _check_layers(model)
    _check_routes(model)
    state = next(iter(model.state_dict().values()), torch.zeros(()))
    device = state.device
    dtype = next((p.dtype for p in model.parameters()), torch.float32)
    buffers = {name: buffer.clone() for name, buffer in model.named_buffers()}  # batch normalisation updates its own
    images = torch.zeros(2, *shape, dtype=dtype, device=device)  # two: batch normalisation refuses one value a channel
    spare = [device.index or 0] if device.type == "cuda" else []
    with _recorded(model) as rows, _uncounted(model), torch.no_grad(), torch.random.fork_rng(devices=spare):
        try:
            functional_call(model, buffers, (images,))
        except RuntimeError as error:
            raise InputError(f"{type(model).__name__} does not take images of shape {tuple(shape)}: {error}") from error
    return Counts(sum(row.params for row in rows), sum(row.macs for row in rows), tuple(rows))


def _check_layers(model: nn.Module) -> None:
    """Check that every layer with parameters of its own can be counted."""
    for name, layer in model.named_modules():
        own = [key for key, _ in layer.named_parameters(recurse=False)]
        if own and not isinstance(layer, (*COUNTED, *NORMS)):
            raise InputError(
                f"Layer {name or '(the network itself)'} is a {type(layer).__name__} with parameters {', '.join(own)}: "
                "only Conv2d, Linear, batch and layer normalisation, and Tokens and Heads of "
                "papertwin.nets.transformer can be counted. Build it from those."
            )


def _check_routes(model: nn.Module) -> None:
    """Check that no part of the network would evaluate some of its routes only: which ones, zeros cannot tell."""
    for name, layer in _conditional(model):
        if not layer.takes_all:
            raise InputError(
                f"{name or type(layer).__name__} evaluates top={layer.top} of its {layer.count} routes in eval mode, "
                "so its cost depends on the data: use expected_macs of a tree, or expected_cost with the counts of "
                "router and routes. Set top=None to count them all."
            )


def _conditional(model: nn.Module) -> list[tuple[str, Conditional]]:
    """Name and module of each conditional part of a network."""
    return [(name, layer) for name, layer in model.named_modules() if isinstance(layer, Conditional)]


@contextmanager
def _uncounted(model: nn.Module) -> Iterator[None]:
    """Give conditional parts back their counts of rows after the block."""
    before = [(layer, layer.seen, layer.taken) for _, layer in _conditional(model)]
    try:
        yield
    finally:
        for layer, seen, taken in before:
            layer.seen, layer.taken = seen, taken


@contextmanager
def _recorded(model: nn.Module) -> Iterator[list[LayerCount]]:
    """Record what each layer costs when it runs."""
    rows: list[LayerCount] = []
    seen: set[int] = set()

    def record(name: str, layer: nn.Module, output: torch.Tensor) -> None:
        new = [tensor for tensor in layer.parameters(recurse=False) if id(tensor) not in seen]
        seen.update(id(tensor) for tensor in new)
        params = sum(tensor.numel() for tensor in new)
        kind = next(kind for type_, kind in KINDS.items() if isinstance(layer, type_))
        rows.append(LayerCount(name, kind, params, _macs(layer, output), tuple(output.shape[1:])))

    hooks = [
        layer.register_forward_hook(lambda layer, _, output, name=name: record(name, layer, output))
        for name, layer in model.named_modules()
        if isinstance(layer, COUNTED)
    ]
    try:
        yield rows
    finally:
        for hook in hooks:
            hook.remove()


def _macs(layer: nn.Module, output: torch.Tensor) -> int:
    """Operations of a layer for one image: a product for each weight at each place, a sum for each bias.

    Of attention: two matrix products of n×D values; of tokens: none.
    """
    if isinstance(layer, Tokens):
        return 0
    if isinstance(layer, Heads):
        return 2 * output.shape[1] * output[0].numel()
    channels = output.shape[1] if isinstance(layer, nn.Conv2d) else output.shape[-1]
    places = output[0].numel() // channels
    return places * layer.weight.numel() + (channels if layer.bias is not None else 0)
