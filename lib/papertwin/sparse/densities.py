"""How many weights each layer of a sparse network keeps.

- Erdős–Rényi-Kernel (ERK): U. Evci et al.: Rigging the lottery. ICML 2020, arXiv 1911.11134. The density of a layer is
  ε · Σ shape / Π shape, the sides of the kernel among its shape; layers that would have more than all are dense, and ε
  is solved again for the others.
- Uniform: every layer the same.

Counts are whole numbers: ⌊density · weights + 10⁻⁶⌋, since ⌊100 · (1 − 0.9)⌋ is 9 in floating point.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any, Literal, get_args

from papertwin.checks import is_whole
from papertwin.errors import InputError

Distribution = Literal["erk", "uniform"]
DISTRIBUTIONS: tuple[Distribution, ...] = get_args(Distribution)
SLACK = 1e-6  # what floating point may take from a whole number


def whole_part(value: float) -> int:
    """⌊value⌋, where a value just below a whole number is that number.

    >>> whole_part(100 * (1 - 0.9)), int(100 * (1 - 0.9))
    (10, 9)
    """
    return math.floor(value + SLACK)


def check_sparsity(sparsity: Any) -> None:
    """Refuse what is no number in [0, 1).

    Raises:
        InputError: it is none.
    """
    if isinstance(sparsity, bool) or not isinstance(sparsity, int | float) or not 0 <= sparsity < 1:
        raise InputError(f"sparsity must be a number of at least 0 and below 1, got {sparsity!r}.")


def erk_densities(shapes: Mapping[str, Sequence[int]], sparsity: float) -> dict[str, float]:
    """Spread a sparsity over layers by the Erdős–Rényi-Kernel rule.

    Args:
        shapes: layer → shape of its weights, (out, in) or (out, in, height, width).
        sparsity: of all of them together, in [0, 1).

    Returns:
        Layer → density in (0, 1]. Together they keep Σ (n − ⌊n · sparsity⌋) of the weights.

    Raises:
        InputError: no layers, a shape that is none, or no such sparsity.
    """
    sizes = {name: _size(name, shape) for name, shape in shapes.items()}
    _check(sizes, sparsity)
    wanted = sum(size - whole_part(size * sparsity) for size in sizes.values())
    raw = {name: sum(shape) / sizes[name] for name, shape in shapes.items()}
    dense: set[str] = set()
    while True:
        rest = [name for name in sizes if name not in dense]
        left = wanted - sum(sizes[name] for name in dense)
        scale = left / sum(raw[name] * sizes[name] for name in rest) if rest else 0.0
        full = {name for name in rest if scale * raw[name] > 1}
        if not full:
            return {name: 1.0 if name in dense else scale * raw[name] for name in sizes}
        dense |= full


def uniform_densities(shapes: Mapping[str, Sequence[int]], sparsity: float) -> dict[str, float]:
    """Give every layer the same density; arguments and errors as in `erk_densities`."""
    _check({name: _size(name, shape) for name, shape in shapes.items()}, sparsity)
    return dict.fromkeys(shapes, 1.0 - sparsity)


def budgets(shapes: Mapping[str, Sequence[int]], sparsity: float, distribution: Distribution = "erk") -> dict[str, int]:
    """Number of weights that each layer keeps.

    Args:
        shapes: layer → shape of its weights.
        sparsity: of all of them together, in [0, 1).
        distribution: erk or uniform.

    Raises:
        InputError: as in `erk_densities`, or no such distribution.
    """
    if distribution not in DISTRIBUTIONS:
        raise InputError(f"distribution must be {' or '.join(DISTRIBUTIONS)}, got {distribution!r}.")
    spread = erk_densities if distribution == "erk" else uniform_densities
    return {name: whole_part(density * math.prod(shapes[name])) for name, density in spread(shapes, sparsity).items()}


def _size(name: str, shape: Sequence[int]) -> int:
    if len(shape) < 2 or not all(is_whole(side, 1) for side in shape):
        raise InputError(f"The shape of {name} must be (out, in, …) of whole numbers above 0, got {tuple(shape)}.")
    return math.prod(shape)


def _check(sizes: Mapping[str, int], sparsity: float) -> None:
    if not sizes:
        raise InputError("There must be a layer at least to spread a sparsity over, got none.")
    check_sparsity(sparsity)
