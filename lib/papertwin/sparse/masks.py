"""Masks of sparse layers: bool tensors of the shape of the weights, (out, in) or (out, in/groups, height, width).

A neuron is an output: a row of a linear layer, a filter of a convolution. Its fan-in is the number of its active
weights; a neuron with none is ablated. Drawn masks depend on the generator alone, not on the device they go to.
"""

from collections import Counter
from collections.abc import Iterable, Mapping

import torch
from torch import nn

from papertwin.checks import is_whole
from papertwin.errors import InputError

SPARSE = (nn.Linear, nn.Conv2d)  # layers whose weights can be masked


def sparse_layers(model: nn.Module, dense: Iterable[str] = ()) -> dict[str, nn.Module]:
    """Linear layers and convolutions whose weights are to be masked, by name, in the model's order.

    Weights of anything else stay dense, those of the queries, keys and values of `nn.MultiheadAttention` (its
    `in_proj_weight`) among them; its `out_proj` is a linear layer.

    Args:
        model: any.
        dense: names of those that stay dense.

    Raises:
        InputError: a name in `dense` is no such layer, none is left, or one shares its weights with another module of
            the model (tied embeddings, say).
    """
    found = {name: module for name, module in model.named_modules() if isinstance(module, SPARSE)}
    left_out = set(dense)
    if unknown := sorted(left_out - set(found)):
        raise InputError(f"dense names {', '.join(unknown)}; the model has the layers {', '.join(found) or 'none'}.")
    kept = {name: module for name, module in found.items() if name not in left_out}
    if not kept:
        raise InputError("The model has no linear layer or convolution that could be sparse.")
    own = (module.named_parameters(recurse=False, remove_duplicate=False) for module in model.modules())
    owners = Counter(id(weight) for each in own for _, weight in each)
    if shared := [name for name, module in kept.items() if owners[id(module.weight)] > 1]:
        raise InputError(
            f"Weights of {', '.join(shared)} are shared with other modules of the model, which a mask would reach too. "
            "Name every linear layer and convolution that shares them in `dense`."
        )
    return kept


def last_layer(model: nn.Module) -> str:
    """Name of the last linear layer or convolution of a model, in whose neurons it answers.

    Raises:
        InputError: it has none.
    """
    found = [name for name, module in model.named_modules() if isinstance(module, SPARSE)]
    if not found:
        raise InputError("The model has no linear layer or convolution, so none that is the last.")
    return found[-1]


def fan_ins(mask: torch.Tensor) -> torch.Tensor:
    """Active weights of each neuron: (out,) int64."""
    return mask.flatten(1).sum(1)


def active_share(masks: Mapping[str, torch.Tensor], last: str) -> float:
    """Share of the hidden neurons that have any active weight, all layers together.

    Args:
        masks: layer → (out, …) bool.
        last: layer that is not hidden, whether it has a mask or not, see `last_layer`.

    Returns:
        In [0, 1]; 1 where no hidden layer has a mask.
    """
    hidden = [fan_ins(mask) > 0 for name, mask in masks.items() if name != last]
    return float(torch.cat(hidden).double().mean()) if hidden else 1.0


def has_constant_fan_in(mask: torch.Tensor) -> bool:
    """Whether all neurons that are not ablated have the same fan-in."""
    counts = fan_ins(mask)
    return len(counts[counts > 0].unique()) <= 1


def bits_of(mask: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """Whole numbers as wide as those of `dtype`, of the mask's shape, with all bits set where it is True, else none."""
    wide = {2: torch.int16, 4: torch.int32}.get(dtype.itemsize, torch.int64)
    return torch.empty_like(mask, dtype=wide).copy_(mask).neg_()


def let_through(values: torch.Tensor, bits: torch.Tensor) -> torch.Tensor:
    """Values where all bits are set and 0 elsewhere, also where they are infinite or NaN there.

    As fast as a product, which would make NaN of them; `torch.where` takes ten times as long on a processor.

    Args:
        values: of any shape.
        bits: of that shape, see `bits_of`; other widths, and values that need a gradient, take the slow way.
    """
    if values.requires_grad or values.is_complex() or values.element_size() != bits.element_size():
        return torch.where(bits != 0, values, 0)
    return values.view(bits.dtype).bitwise_and(bits).view(values.dtype)


def largest(values: torch.Tensor, count: int) -> torch.Tensor:
    """Mask of the largest values of each row; of equal ones `topk` chooses.

    Args:
        values: (…, n).
        count: of each row, from 0 to n.
    """
    chosen = values.topk(count, sorted=False).indices  # their order takes as long as they do
    return torch.zeros_like(values, dtype=torch.bool).scatter_(-1, chosen, True)


def remembered(optimizer: torch.optim.Optimizer, weight: torch.Tensor) -> list[torch.Tensor]:
    """What an optimiser remembers of each of the weights: tensors of their shape, itself and no copies."""
    state = optimizer.state.get(weight, {}).values()
    return [each for each in state if isinstance(each, torch.Tensor) and each.shape == weight.shape]


def random_mask(shape: Iterable[int], nonzero: int, generator: torch.Generator) -> torch.Tensor:
    """Draw a mask with `nonzero` active weights, anywhere, on the CPU.

    Raises:
        InputError: more than there are, or no whole number.
    """
    mask = torch.zeros(tuple(shape), dtype=torch.bool)
    if not is_whole(nonzero, 0, mask.numel()):
        raise InputError(f"nonzero must be a whole number from 0 to {mask.numel()}, got {nonzero!r}.")
    mask.view(-1)[torch.randperm(mask.numel(), generator=generator)[:nonzero]] = True
    return mask


def constant_fan_in_mask(shape: Iterable[int], fan_in: int, generator: torch.Generator) -> torch.Tensor:
    """Draw a mask in which every neuron has `fan_in` active weights, on the CPU.

    Raises:
        InputError: more than a neuron has inputs, or no whole number.
    """
    mask = torch.zeros(tuple(shape), dtype=torch.bool)
    rows = mask.view(len(mask), -1)
    if not is_whole(fan_in, 0, rows.shape[1]):
        raise InputError(f"fan_in must be a whole number from 0 to {rows.shape[1]}, got {fan_in!r}.")
    rows.copy_(largest(torch.rand(rows.shape, generator=generator), int(fan_in)))
    return mask
