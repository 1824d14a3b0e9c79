"""First weights of sparse layers: the deviation follows from what a neuron really has as inputs.

U. Evci et al.: Gradient flow in sparse neural networks and how lottery tickets win. AAAI 2022, arXiv 2010.03533.
"""

from typing import Literal, get_args

import torch

from papertwin.errors import InputError
from papertwin.sparse.masks import fan_ins

First = Literal["fan_in", "as_coded", "masked"]
FIRST: tuple[First, ...] = get_args(First)


@torch.no_grad()
def sparse_init_(weight: torch.Tensor, mask: torch.Tensor, how: First, generator: torch.Generator) -> None:
    """Give a layer its first weights, in place; masked ones are 0.

    Args:
        weight: (out, …).
        mask: (out, …) bool.
        how: `fan_in` draws the k active weights of a neuron from N(0, 2/k), which keeps the variance of what a ReLU
            lets through; `as_coded` from N(0, (2/k)²), as the authors' code of SRigL does (2/k is the deviation there);
            `masked` leaves the weights that are there, of the dense network.
        generator: of the CPU, so that every device gets the same.

    Raises:
        InputError: no such `how`.
    """
    if how not in FIRST:
        raise InputError(f"how must be one of {', '.join(FIRST)}, got {how!r}.")
    if how != "masked":
        variance = 2 / fan_ins(mask).cpu().clamp(min=1).double()  # a GPU rounds another way
        deviation = variance.sqrt() if how == "fan_in" else variance
        draw = torch.randn(weight.shape, generator=generator, dtype=torch.float64)
        scale = deviation.view(-1, *[1] * (weight.ndim - 1))
        weight.copy_(draw * scale)
    weight.mul_(mask)
