"""What updates of the connections of sparse networks did."""

from dataclasses import dataclass

import torch

from papertwin.sparse.masks import fan_ins


@dataclass(frozen=True)
class LayerUpdate:
    """What one update did to one layer.

    Attributes:
        step: steps of the optimiser before it.
        layer: name.
        fraction: share of the active weights that was to be dropped.
        dropped: weights that were active and are not any more.
        grown: weights that are newly active.
        nonzero: active weights afterwards.
        active: neurons that have any.
        fan_in: the most that a neuron has.
        ablated: neurons that had active weights and have none any more.
        revived: neurons that had none and have some again.
        least: weights that had to matter for a neuron to stay; 0 where none is ablated.
    """

    step: int
    layer: str
    fraction: float
    dropped: int
    grown: int
    nonzero: int
    active: int
    fan_in: int
    ablated: int
    revived: int
    least: int


def layer_update(
    step: int, layer: str, fraction: float, old: torch.Tensor, new: torch.Tensor, least: int
) -> LayerUpdate:
    """Compare the masks (out, …) before and after an update; the other arguments are attributes of `LayerUpdate`."""
    before, after = fan_ins(old), fan_ins(new)
    return LayerUpdate(
        step=step,
        layer=layer,
        fraction=fraction,
        dropped=int((old & ~new).sum()),
        grown=int((new & ~old).sum()),
        nonzero=int(after.sum()),
        active=int((after > 0).sum()),
        fan_in=int(after.max()),
        ablated=int(((before > 0) & (after == 0)).sum()),
        revived=int(((before == 0) & (after > 0)).sum()),
        least=least,
    )
