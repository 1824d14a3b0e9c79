"""When the connections of a sparse network change, and how many: the cosine schedule of RigL (arXiv 1911.11134)."""

import math
from dataclasses import dataclass

from papertwin.checks import is_whole
from papertwin.errors import InputError
from papertwin.sparse.densities import whole_part


@dataclass(frozen=True)
class DropSchedule:
    """Every `every` steps until `stop` of them, the share a(t) = a₀/2 · (1 + cos πt/T_end) of the weights is dropped.

    Attributes:
        steps: T, of the whole training.
        every: ΔT, steps between two updates.
        drop: a₀, share of the weights in [0, 1] that the first update would drop.
        stop: T_end / T; there is no update from step T_end on.

    Raises:
        InputError: an attribute is out of range.
    """

    steps: int
    every: int = 100
    drop: float = 0.3
    stop: float = 0.75

    def __post_init__(self) -> None:
        """Check the attributes."""
        for name in ("steps", "every"):
            if not is_whole(getattr(self, name), 1):
                raise InputError(f"{name} must be a whole number above 0, got {getattr(self, name)!r}.")
        for name in ("drop", "stop"):
            if not 0 <= getattr(self, name) <= 1:
                raise InputError(f"{name} must be a number from 0 to 1, got {getattr(self, name)!r}.")

    @property
    def end(self) -> int:
        """T_end: the first step without updates."""
        return whole_part(self.stop * self.steps)

    def due(self, step: int) -> bool:
        """Whether an update follows step t = 1, 2, … of the optimiser."""
        return step % self.every == 0 and 0 < step < self.end

    def waits(self, step: int) -> int | None:
        """Return how many more steps come before the next update, counted from before step t; None after the last."""
        following = -(-step // self.every) * self.every
        return following - step if following < self.end else None

    def fraction(self, step: int) -> float:
        """Share of the active weights that an update after step t drops."""
        return self.drop / 2 * (1 + math.cos(math.pi * step / self.end)) if step < self.end else 0.0
