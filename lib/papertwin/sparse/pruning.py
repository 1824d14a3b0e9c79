"""Magnitude pruning of all layers together, in rounds: which layers, which weights, how many.

- S. Han et al.: Learning both weights and connections. NeurIPS 2015, arXiv 1506.02626: the smallest weights go.
- J. Frankle, M. Carbin: The lottery ticket hypothesis. ICLR 2019, arXiv 1803.03635: a fifth of those that remain go in
  a round, all layers ranked together.
- M. Adnan et al.: Sparse training from random initialization. ICML 2025, arXiv 2505.05143: the last round is smaller,
  so that it ends at the target; shortcut convolutions are not pruned.

Ours: counts are exact; where weights are equally small, those of earlier layers and places go first.
"""

from collections.abc import Collection, Mapping

import torch
from torch import nn

from papertwin.errors import InputError
from papertwin.sparse.densities import check_sparsity, whole_part
from papertwin.sparse.masks import sparse_layers

Masks = dict[str, torch.Tensor]  # layer → bool tensor of the shape of its weights
SHORTCUTS = ("projection",)  # what shortcut convolutions are called, in `papertwin.nets`


def prunable_layers(model: nn.Module, shortcuts: Collection[str] = SHORTCUTS) -> dict[str, nn.Module]:
    """Linear layers and convolutions by name, without shortcut projections.

    Args:
        model: any.
        shortcuts: last parts of the names of layers that are not pruned: "projection" is `stage2_block1.projection`.

    Raises:
        InputError: as in `papertwin.sparse.sparse_layers`.
    """
    layers = sparse_layers(model)
    return sparse_layers(model, [name for name in layers if name.rpartition(".")[2] in shortcuts])


def prune_smallest(weights: Mapping[str, torch.Tensor], masks: Mapping[str, torch.Tensor], share: float) -> Masks:
    """Prune a share of the weights that remain: the smallest of all layers together.

    Args:
        weights: layer → (out, …).
        masks: layer → bool, True where a weight remains.
        share: in [0, 1), of those that remain; ⌊share · remaining⌋ go.

    Returns:
        New masks; what was False stays so.

    Raises:
        InputError: layers or shapes differ, a weight that remains is NaN, or no such share.
    """
    if isinstance(share, bool) or not isinstance(share, int | float) or not 0 <= share < 1:
        raise InputError(f"share must be a number of at least 0 and below 1, got {share!r}.")
    remaining = sum(int(mask.sum()) for mask in masks.values())
    return _pruned(weights, masks, whole_part(share * remaining))


def prune_to(weights: Mapping[str, torch.Tensor], masks: Mapping[str, torch.Tensor], sparsity: float) -> Masks:
    """Prune the smallest remaining weights of all layers together, until just ⌊sparsity · all⌋ are gone.

    Args:
        weights: layer → (out, …).
        masks: layer → bool, True where a weight remains.
        sparsity: share of all weights that is pruned in the end, in [0, 1), that of `masks` or more.

    Returns:
        New masks; what was False stays so.

    Raises:
        InputError: as in `prune_smallest`, or more weights are pruned already.
    """
    check_sparsity(sparsity)
    total = sum(mask.numel() for mask in masks.values())
    gone = total - sum(int(mask.sum()) for mask in masks.values())
    wanted = whole_part(sparsity * total)
    if wanted < gone:
        raise InputError(f"{gone} of {total} weights are pruned already, more than sparsity {sparsity!r}: {wanted}.")
    return _pruned(weights, masks, wanted - gone)


def rounds_to(sparsity: float, share: float = 0.2) -> list[float]:
    """Sparsity after each round, if each prunes a share of what remains and the last one less, to end at the target.

    >>> [round(each, 3) for each in rounds_to(0.5)]
    [0.2, 0.36, 0.488, 0.5]

    Args:
        sparsity: target in [0, 1).
        share: of the remaining weights that go in a round, in (0, 1).

    Returns:
        Ascending, the target last; for `prune_to`. None for a target of 0.

    Raises:
        InputError: an argument is out of range.
    """
    check_sparsity(sparsity)
    if isinstance(share, bool) or not isinstance(share, int | float) or not 0 < share < 1:
        raise InputError(f"share must be a number above 0 and below 1, got {share!r}.")
    rounds, slack = [], 1e-9  # slack: what floating point may take, so that 0.36 is two rounds
    while sparsity and (1 - share) ** (len(rounds) + 1) > (1 - sparsity) * (1 + slack):
        rounds.append(1 - (1 - share) ** (len(rounds) + 1))
    return [*rounds, sparsity] if sparsity else []


def _pruned(weights: Mapping[str, torch.Tensor], masks: Mapping[str, torch.Tensor], count: int) -> Masks:
    """Prune the `count` smallest of the weights that remain."""
    _check(weights, masks)
    sizes = torch.cat([weights[name].detach()[mask].abs() for name, mask in masks.items()])
    if sizes.isnan().any():
        raise InputError("A weight that remains is NaN, so none is smallest. Was the training finite?")
    kept = torch.ones_like(sizes, dtype=torch.bool)
    kept[sizes.argsort(stable=True)[:count]] = False
    new = {}
    for name, part in zip(masks, kept.split([int(mask.sum()) for mask in masks.values()])):
        new[name] = masks[name].clone()
        new[name][masks[name]] = part
    return new


def _check(weights: Mapping[str, torch.Tensor], masks: Mapping[str, torch.Tensor]) -> None:
    if not masks or set(weights) != set(masks):
        raise InputError(f"weights and masks must be of the same layers, got {list(weights)} and {list(masks)}.")
    for name, mask in masks.items():
        if mask.dtype != torch.bool or mask.shape != weights[name].shape:
            raise InputError(
                f"The mask of {name} must be bool and of shape {tuple(weights[name].shape)}, got {mask.dtype} of "
                f"{tuple(mask.shape)}."
            )
