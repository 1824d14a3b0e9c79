"""What lies on the straight line between two networks: mixed weights, and how high the loss rises.

Sources: J. Frankle et al.: Linear mode connectivity. ICML 2020, arXiv 1912.05671; M. Adnan et al.: Sparse training from
random initialization. ICML 2025, arXiv 2505.05143: the barrier is max_α [L(mix) − ((1 − α) L_A + α L_B)], and buffers
of batch normalisation are mixed like weights.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise

import torch
from torch import nn

from papertwin.errors import InputError
from papertwin.symmetry.permuting import with_state


def interpolated(
    state_a: Mapping[str, torch.Tensor], state_b: Mapping[str, torch.Tensor], alpha: float
) -> dict[str, torch.Tensor]:
    """Mix two networks: (1 − α) A + α B, running means and variances as well.

    Args:
        state_a: a state_dict.
        state_b: with the same names and shapes.
        alpha: α in [0, 1]; just A at 0, just B at 1.

    Returns:
        New tensors. Whole numbers (counts of batches) are those of the nearer network, A's halfway.

    Raises:
        InputError: names or shapes differ, or no such α.
    """
    check_alpha(alpha)
    if set(state_a) != set(state_b):
        raise InputError(f"Both must have the same tensors; only one has {', '.join(set(state_a) ^ set(state_b))}.")
    mix = {}
    for name, of_a in state_a.items():
        of_b = state_b[name]
        if of_a.shape != of_b.shape:
            raise InputError(f"{name} must be alike, got {tuple(of_a.shape)} and {tuple(of_b.shape)}.")
        nearer = of_a if alpha <= 0.5 else of_b
        mixes = of_a.is_floating_point() and 0 < alpha < 1
        mix[name] = torch.lerp(of_a.detach(), of_b.detach(), alpha) if mixes else nearer.detach().clone()
    return mix


def losses_along(
    model: nn.Module,
    state_a: Mapping[str, torch.Tensor],
    state_b: Mapping[str, torch.Tensor],
    alphas: Sequence[float],
    measure: Callable[[nn.Module], float],
) -> list[float]:
    """Measure networks on the line from A to B.

    Args:
        model: of the architecture; stays as it is.
        state_a: of α = 0.
        state_b: of α = 1.
        alphas: each in [0, 1].
        measure: of a network in evaluation mode: a loss.

    Raises:
        InputError: as in `interpolated`.
    """
    return [float(measure(with_state(model, interpolated(state_a, state_b, alpha)))) for alpha in alphas]


def barrier(alphas: Sequence[float], losses: Sequence[float]) -> float:
    """Height of the loss above the line through the ends: max_α [L(mix) − ((1 − α) L_A + α L_B)].

    >>> barrier([0, 0.25, 1], [1.0, 2.0, 3.0])
    0.5

    Args:
        alphas: α ascending, from 0 to 1.
        losses: L of each; the first is L_A, the last L_B.

    Returns:
        0 or more, since the ends count; NaN where a loss is NaN.

    Raises:
        InputError: not as many, or `alphas` do not ascend from 0 to 1.
    """
    if len(alphas) != len(losses):
        raise InputError(f"There must be a loss for each α, got {len(losses)} for {len(alphas)}.")
    ascend = all(one < other for one, other in pairwise(alphas))
    if len(alphas) < 2 or alphas[0] != 0 or alphas[-1] != 1 or not ascend:
        raise InputError(f"alphas must ascend from 0 to 1, got {list(alphas)}.")
    if any(math.isnan(loss) for loss in losses):
        return math.nan
    first, last = losses[0], losses[-1]
    inside = [loss - (first + alpha * (last - first)) for alpha, loss in zip(alphas[1:-1], losses[1:-1])]
    return max([0.0, *inside])


def check_alpha(alpha: float) -> None:
    """Refuse what is no number from 0 to 1.

    Raises:
        InputError: it is none.
    """
    if isinstance(alpha, bool) or not isinstance(alpha, int | float) or not 0 <= alpha <= 1:
        raise InputError(f"alpha must be a number from 0 (A) to 1 (B), got {alpha!r}.")
