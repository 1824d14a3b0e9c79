"""What a sparse layer drops and grows: the update rules of SET, RigL and SRigL, as functions of tensors.

- SET: D. C. Mocanu et al., Nature Communications 9, 2018. Drop the smallest weights, grow at random.
- RigL: U. Evci et al., ICML 2020, arXiv 1911.11134. Grow where the gradient of the dense layer is largest.
- SRigL: M. Lasby et al., ICLR 2024, arXiv 2305.02299. The same with one fan-in for all neurons of a layer; neurons of
  which too few weights matter are ablated.

Just-dropped weights are among those that may grow. Ours: where weights are equally good, torch's `topk` chooses.
"""

from dataclasses import dataclass

import torch

from papertwin.sparse.densities import whole_part
from papertwin.sparse.masks import fan_ins, largest


def set_mask(weight: torch.Tensor, mask: torch.Tensor, count: int, generator: torch.Generator) -> torch.Tensor:
    """Drop the `count` smallest active weights, grow as many at random.

    Args:
        weight: (out, …).
        mask: (out, …) bool, on the same device.
        count: weights to drop, at most those that are active.
        generator: of the CPU.

    Returns:
        The new mask, with as many active weights.
    """
    draw = torch.rand(weight.shape, generator=generator).to(weight.device)
    return _moved(weight, mask, count, draw)


def rigl_mask(weight: torch.Tensor, gradient: torch.Tensor, mask: torch.Tensor, count: int) -> torch.Tensor:
    """Drop the `count` smallest active weights, grow as many where the gradient is largest.

    Args:
        weight: (out, …).
        gradient: (out, …) of the loss with respect to all weights, masked ones as well.
        mask: (out, …) bool.
        count: weights to drop, at most those that are active.

    Returns:
        The new mask, with as many active weights.
    """
    return _moved(weight, mask, count, gradient.abs())


def _moved(weight: torch.Tensor, mask: torch.Tensor, count: int, worth: torch.Tensor) -> torch.Tensor:
    """Keep all but the `count` smallest active weights, add the `count` others that are worth most."""
    kept = _largest(weight.abs().masked_fill(~mask, -1.0), int(mask.sum()) - count)
    return kept | _largest(worth.masked_fill(kept, -1.0), count)


@dataclass(frozen=True)
class Grown:
    """What an SRigL update makes of a layer.

    Attributes:
        mask: (out, …) bool, `fan_in` active weights in each neuron that is not ablated.
        fan_in: k.
        least: weights that matter which a neuron must have; fewer, and it is ablated.
        active: (out,) bool, neurons that are not ablated.
        salient: (out, …) bool, weights that matter.
    """

    mask: torch.Tensor
    fan_in: int
    least: int
    active: torch.Tensor
    salient: torch.Tensor


def srigl_mask(
    weight: torch.Tensor, gradient: torch.Tensor, mask: torch.Tensor, *, budget: int, count: int, gamma: float = 0.0
) -> Grown:
    """Drop small weights and grow others so that all active neurons of the layer have the same fan-in again.

    A weight matters that is among the largest that are kept, or whose gradient is among the `count` largest of the
    layer. A neuron with less than γ · (fan-in without ablation) of those is ablated, and the others share its weights.

    Args:
        weight: (out, …).
        gradient: (out, …) of the loss with respect to all weights.
        mask: (out, …) bool.
        budget: weights that the layer may have, at least one a neuron and fewer than all.
        count: weights to drop.
        gamma: γ in [0, 1]; 0 ablates nothing.
    """
    sizes, slopes = weight.abs().flatten(1), gradient.abs().flatten(1)
    alive = mask.flatten(1) & (sizes > 0)
    before = int(mask.sum())
    keep = min(before - count, int(alive.sum()))
    worth = sizes.masked_fill(~alive, -1.0)
    salient = _largest(worth, keep) | _largest(slopes, before - keep)
    least, active = _threshold(salient, budget, gamma)
    fan_in = budget // int(active.sum())
    alive &= active[:, None]
    kept = _largest(sizes.masked_fill(~alive, -1.0), min(keep, int(alive.sum())))
    kept &= largest(sizes.masked_fill(~kept, -1.0), fan_in)
    chosen = largest(slopes.masked_fill(kept, torch.inf), fan_in) & active[:, None]
    return Grown(chosen.view_as(mask), fan_in, least, active, salient.view_as(mask))


def _threshold(salient: torch.Tensor, budget: int, gamma: float) -> tuple[int, torch.Tensor]:
    """Least number of weights that matter, and which neurons have as many.

    Enough neurons stay for the budget: m + 1 of them, where m could hold all of it with every input.
    """
    counts, (neurons, inputs) = fan_ins(salient), salient.shape
    if gamma == 0:
        return 0, torch.ones_like(counts, dtype=torch.bool)
    least = max(1, whole_part(gamma * (budget // neurons)))
    least = min(least, int(counts.sort(descending=True).values[budget // inputs]))
    return least, counts >= least


def _largest(values: torch.Tensor, count: int) -> torch.Tensor:
    """Mask of the `count` largest values of a tensor."""
    return largest(values.reshape(-1), count).view(values.shape)
