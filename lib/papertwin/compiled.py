"""How the kernels are compiled: without the GIL, cached on disk where a folder for it can be written.

`jit` is strict IEEE arithmetic. `simd` lets sums be reordered and products be fused into sums, so that loops use the
vector unit; infinities, NaN and comparisons keep their meaning.
"""

from collections.abc import Callable
from typing import Any

import numba


def _cached(**options: Any) -> Callable[[Callable], Any]:
    def decorate(function: Callable) -> Any:
        try:
            return numba.njit(nogil=True, cache=True, error_model="numpy", **options)(function)
        except RuntimeError:  # no folder for the cache can be written: compile once in every process
            return numba.njit(nogil=True, error_model="numpy", **options)(function)

    return decorate


jit = _cached()
simd = _cached(fastmath={"reassoc", "contract", "nsz"})
