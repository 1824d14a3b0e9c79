r"""How much the norm of a sparse layer's output varies from draw to draw, by theory and by simulation.

A layer of n inputs and n neurons, z = √(2/k) · (M ∘ N)(ξ ∘ u): N standard normal weights, M a mask with k active
weights a neuron on average, ξ ~ Bernoulli(½) a ReLU's work, u on the unit sphere, so that E‖z‖² = 1.

Source: M. Lasby et al., ICLR 2024, arXiv 2305.02299. The constants of the variance with constant fan-in are derived
from those of independent weights (reconstructed).
"""

from typing import Any, Literal, get_args

import numpy as np
import torch

from papertwin.checks import SEEDS, is_whole
from papertwin.errors import InputError
from papertwin.sparse.masks import largest
from papertwin.training.device import pick_device

CHUNK = 2**22  # entries of masks that are drawn at once
Kind = Literal["bernoulli", "layer", "neuron"]
_WORDS = (
    "each weight active with probability k/n",
    "nk active weights in the layer",
    "k active weights in each neuron",
)
KINDS: dict[Kind, str] = dict(zip(get_args(Kind), _WORDS, strict=True))  # kind → its words


def norm_variance(width: int, fan_in: int, kind: Kind) -> float:
    """Return the variance of ‖z‖² over masks, weights, activations and directions.

    Args:
        width: n, at least 2.
        fan_in: k, from 1 to n.
        kind: `bernoulli` activates each weight with probability k/n, `layer` exactly nk of the layer, `neuron` exactly
            k of each neuron (constant fan-in).

    Raises:
        InputError: an argument is out of range.

    Example:
        >>> [round(norm_variance(64, 64, kind), 4) for kind in KINDS]  # with all weights there is nothing to draw
        [0.0781, 0.0781, 0.0781]
    """
    n, k = _checked(width, fan_in, kind)
    if kind == "layer":
        return 18 / (k * (n + 2)) + (n * k - 1) * (n + 8) / (k * (n + 1) * (n + 2)) - 1
    independent = (5 * n - 8 + 18 * n / k) / (n * (n + 2))
    return independent if kind == "bernoulli" else independent - 3 * (n - k) / (k * n * (n + 2))


def simulated_norms(width: int, fan_in: int, kind: Kind, *, draws: int, seed: int, device: Any = "cpu") -> torch.Tensor:
    """Draw ‖z‖² of many layers.

    Given mask and input, the outputs are independent normal numbers whose variances are 2/k times the squares that the
    mask lets through; so n of them are drawn instead of n² weights, from the same distribution.

    Args:
        width: n, at least 2.
        fan_in: k, from 1 to n.
        kind: as in `norm_variance`.
        draws: number of layers.
        seed: of masks, activations, directions and weights; two devices draw other numbers.
        device: where.

    Returns:
        (draws,) float64 on the CPU.

    Raises:
        InputError: an argument is out of range.
        ParameterError: no such device.
    """
    n, k = _checked(width, fan_in, kind)
    if not is_whole(draws, 2) or not is_whole(seed, 0, SEEDS - 1):
        raise InputError(f"draws must be a whole number from 2 and seed one from 0, got {draws!r} and {seed!r}.")
    place = pick_device(device)
    generator = torch.Generator(place).manual_seed(int(seed))
    most = max(1, CHUNK // n**2)
    sizes = [min(most, draws - first) for first in range(0, draws, most)]
    return torch.cat([_norms(n, k, kind, size, generator).double().cpu() for size in sizes])


def _norms(n: int, k: int, kind: Kind, draws: int, generator: torch.Generator) -> torch.Tensor:
    """Draw ‖z‖² of some layers at once: (draws,)."""
    options = {"generator": generator, "device": generator.device}
    u = torch.randn(draws, n, **options)
    squares = u.square() / u.square().sum(1, keepdim=True) * (torch.rand(draws, n, **options) < 0.5)
    masks = _masks(n, k, kind, draws, generator)
    variances = 2 / k * torch.einsum("bij,bj->bi", masks.to(squares.dtype), squares)
    return (variances * torch.randn(draws, n, **options).square()).sum(1)


def _masks(n: int, k: int, kind: Kind, draws: int, generator: torch.Generator) -> torch.Tensor:
    """Draw masks of some layers at once: (draws, n, n) bool."""
    scores = torch.rand(draws, n, n, generator=generator, device=generator.device)
    if kind == "bernoulli":
        return scores < k / n
    if kind == "layer":
        return _chosen(scores.flatten(1), n * k).view(draws, n, n)
    return _chosen(scores, k)


def _chosen(scores: torch.Tensor, count: int) -> torch.Tensor:
    """Mask of the largest scores of each row: those of `largest`, which is slower and asked where some are equal."""
    if scores.device.type != "cpu":
        return largest(scores, count)
    place = scores.shape[-1] - count
    mask = scores >= torch.from_numpy(np.partition(scores.numpy(), place)[..., place, None])
    unclear = mask.sum(-1) != count
    mask[unclear] = largest(scores[unclear], count)
    return mask


def _checked(width: int, fan_in: int, kind: str) -> tuple[int, int]:
    """Check what all functions here take; return width and fan-in."""
    if not is_whole(width, 2) or not is_whole(fan_in, 1, width):
        raise InputError(f"width must be a whole number from 2, fan_in one from 1 to it, got {width!r} and {fan_in!r}.")
    if kind not in KINDS:
        raise InputError(f"kind must be one of {', '.join(KINDS)}, got {kind!r}.")
    return int(width), int(fan_in)
