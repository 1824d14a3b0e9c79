"""What a search for an adversarial example returns, whichever algorithm searched."""

import math
from dataclasses import dataclass, field

import numpy as np


@dataclass(frozen=True)
class Adversarial:
    """The nearest input with another label that one algorithm found for one seed image.

    Attributes:
        epsilon: largest change of any pixel, max |x' − x|; inf where nothing was found, NaN where the search did not
            come to an end (`status` says why).
        witness: x', float64, shape of the seed; None where nothing was found.
        label: label of the seed by the network, f(x).
        target: label aimed at; for several targets the one that won, None where nothing was found.
        reached: label of the witness by the network; None without one.
        seconds: wall time spent on this seed.
        status: "found", "partial" (found, but a target stayed open), or why there is no witness.
    """

    epsilon: float
    witness: np.ndarray | None
    label: int
    target: int | None
    reached: int | None
    seconds: float
    status: str

    @property
    def found(self) -> bool:
        """Whether there is a witness."""
        return math.isfinite(self.epsilon)


@dataclass(frozen=True)
class Robustness(Adversarial):
    """What the linear program found: ρ̂, the distance to the nearest other label inside the seed's linear region.

    Where a witness exists ρ̂ ≥ ρ, the distance in the whole space: an upper bound, never a guarantee of robustness.

    Attributes:
        rounds: times a program was solved, over all targets.
        rows: rows of the region that were given to the solver, over all targets.
        steps: steps spent on proving infeasibility without the solver.
        bound: smallest proven bound on the target's margin in the region; inf where no proof was tried, or several
            targets were.
        timings: seconds by stage, over all targets: rows (of the region, computed), model (handed to the solver), solve
            and proof; what they lack to `seconds` went into the network.
    """

    rounds: int = 0
    rows: int = 0
    steps: int = 0
    bound: float = math.inf
    timings: dict[str, float] = field(default_factory=dict)
