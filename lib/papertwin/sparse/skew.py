"""SparseOpt: undo the skew that normalisation brings into the gradients of sparse neurons; and HAM.

Behind a batch normalisation the gradient of the active weights of a neuron with the share s of its inputs masked is
1/√(1 − s) times that of the dense neuron, as long as the active weights keep the dense variance. SparseOpt divides the
skew between the neurons of a layer out of what the optimiser gets.

Source: M. Adnan et al.: SparseOpt. ICML 2026, arXiv 2605.27541. No code was found: where the correction stands, over
which neurons the mean goes, and what growth sees are options, the first of each the default (reconstructed).
HAM: hyperbolic aware minimisation, a multiplicative step on weights after the optimiser's.
"""

from typing import Literal

import torch

from papertwin.errors import InputError
from papertwin.sparse.masks import fan_ins

Mean = Literal["all", "active"]
MEANS = ("all", "active")


def gradient_skew(mask: torch.Tensor) -> torch.Tensor:
    """Factor by which normalisation enlarges the gradients of each neuron: 1/√(1 − s), ∞ for an ablated one.

    Args:
        mask: (out, …) bool.

    Returns:
        (out,) float64.

    Example:
        >>> mask = torch.zeros(2, 100, dtype=torch.bool)
        >>> mask[0, :10], mask[1, :5] = True, True
        >>> [round(each, 2) for each in gradient_skew(mask).tolist()]
        [3.16, 4.47]
    """
    return (mask[0].numel() / fan_ins(mask).double()).sqrt()


def corrections(mask: torch.Tensor, mean: Mean = "all") -> torch.Tensor:
    """Factor of each neuron's gradient: c = √(fan-in / mean fan-in), 0 for an ablated one.

    Computed from whole numbers, so that equal fan-ins give exactly 1.

    Args:
        mask: (out, …) bool.
        mean: over all neurons or only the active ones.

    Returns:
        (out,) float64; 0 where nothing is active. With the mean over all neurons Σ c² is their number.

    Raises:
        InputError: no such mean.
    """
    if mean not in MEANS:
        raise InputError(f"mean must be {' or '.join(MEANS)}, got {mean!r}.")
    counts = fan_ins(mask)
    number = len(counts) if mean == "all" else int((counts > 0).sum())
    total = int(counts.sum())
    if not total:
        return torch.zeros_like(counts, dtype=torch.float64)
    return (counts.double() * number / total).sqrt()
