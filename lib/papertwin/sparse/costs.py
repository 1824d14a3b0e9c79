"""Multiply-accumulates of sparse networks: of an image forward, and of training on it.

Source: the accounting of RigL (U. Evci et al., ICML 2020, arXiv 1911.11134, appendix): a backward pass costs two
forward passes, and every ΔT-th step needs the gradient of the dense weights once. The bias of a neuron counts once.
"""

from collections.abc import Mapping
from typing import Literal, get_args

import torch
from torch import nn

from papertwin.checks import is_whole
from papertwin.errors import InputError
from papertwin.nets import count

Method = Literal["dense", "static", "set", "rigl", "srigl"]
METHODS: tuple[Method, ...] = get_args(Method)


def forward_macs(model: nn.Module, shape: tuple[int, ...], masks: Mapping[str, torch.Tensor]) -> int:
    """Return the multiply-accumulates of an image that active weights take part in.

    Args:
        model: any that `papertwin.nets.count` takes.
        shape: of an image, (c, h, w).
        masks: layer → bool tensor of the shape of its weights; layers without one are dense.

    Raises:
        InputError: a mask belongs to no layer that is counted, or is of another shape than its weights.
    """
    rows = count(model, shape).layers
    if unknown := sorted(set(masks) - {row.name for row in rows}):
        raise InputError(f"masks name {', '.join(unknown)}; counted are {', '.join(row.name for row in rows)}.")
    for name, mask in masks.items():
        if mask.shape != (wanted := model.get_submodule(name).weight.shape):
            raise InputError(f"The mask of {name} must be of shape {tuple(wanted)}, got {tuple(mask.shape)}.")
    return sum(_active_macs(row.macs, model.get_submodule(row.name), masks.get(row.name)) for row in rows)


def _active_macs(macs: int, layer: nn.Module, mask: torch.Tensor | None) -> int:
    """Return those of one run of a layer: a product for each active weight at each place, a sum for each bias."""
    if mask is None:
        return macs
    biases = 0 if layer.bias is None else layer.bias.numel()
    return biases + (macs - biases) // mask.numel() * int(mask.sum())


def training_macs(dense: float, sparse: float, method: Method, every: int = 100) -> float:
    """Return the multiply-accumulates of one step with one image.

    Args:
        dense: forward multiply-accumulates of the dense network, f_D.
        sparse: of the sparse one, f_S.
        method: dense 3 f_D; static and set 3 f_S; rigl and srigl (3 f_S ΔT + 2 f_S + f_D) / (ΔT + 1).
        every: ΔT, steps between two updates.

    Raises:
        InputError: no such method, or `every` is no whole number above 0.
    """
    if method not in METHODS or not is_whole(every, 1):
        raise InputError(
            f"method must be one of {', '.join(METHODS)} and every a whole number above 0, got {method!r}, {every!r}."
        )
    if method in ("rigl", "srigl"):
        return (3 * sparse * every + 2 * sparse + dense) / (every + 1)
    return 3 * (dense if method == "dense" else sparse)
