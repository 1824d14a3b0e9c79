"""First weights: He's normal distribution with the fan count of the layer that is meant, drawn from a seed.

K. He, X. Zhang, S. Ren, J. Sun: Delving deep into rectifiers. arXiv 1502.01852, backward form σ² = 2/n̂: each value
of the input takes part in n̂ products, so that gradients keep their variance on the way down.

- A convolution of d filters of h×w in g groups: n̂ = h·w·d/g, since a channel is seen by d/g filters only
  (arXiv 1605.06489). The `fan_out` of torch leaves out g, its σ is too small by √g.
- A composite layer of filter sets (h_s×w_s, d_s): n̂ = Σ_s h_s·w_s·d_s, one σ for all sets (arXiv 1511.06744).

Half the gain, σ² = 1/n̂, keeps the variance where no ReLU follows; the last layer of a network takes σ² = 1/fan_in, so
that logits start near 1 (both ours). `papertwin.nets.initialising` draws a whole network anew by these rules.
"""

import math
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch

from papertwin.checks import SEEDS, is_whole
from papertwin.errors import InputError

RELU, LINEAR = 2.0, 1.0  # n̂ σ², by what follows the layer


def deviation(terms: float, gain: float = RELU) -> float:
    """Return the standard deviation √(gain / n̂) of a layer's weights.

    Args:
        terms: n̂, the products that a value takes part in.
        gain: 2 before a ReLU, 1 before nothing.
    """
    return math.sqrt(gain) / math.sqrt(terms)


def fan_out(filters: int, height: int, width: int, groups: int = 1) -> float:
    """Products that a value of the input takes part in: n̂ = h·w·d/g."""
    return height * width * filters / groups


def fan_in(channels: int, height: int, width: int, groups: int = 1) -> float:
    """Products that a value of the output is the sum of: h·w·c/g."""
    return height * width * channels / groups


def composite_fan_out(sets: Iterable[tuple[int, int, int]]) -> float:
    """Products that a value of the input takes part in, over all filter sets: n̂ = Σ h·w·d.

    Args:
        sets: (filters, height, width) of each set.
    """
    return sum(fan_out(filters, height, width) for filters, height, width in sets)


@contextmanager
def seeded(seed: Any) -> Iterator[None]:
    """Draw from torch's CPU generator as the seed says; afterwards it is as it was.

    Args:
        seed: whole number from 0 to 2³² − 1.

    Raises:
        InputError: it is something else.
    """
    if not is_whole(seed, 0, SEEDS - 1):
        raise InputError(f"seed must be a whole number from 0 to 4294967295, got {seed!r}.")
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(int(seed))
        yield
