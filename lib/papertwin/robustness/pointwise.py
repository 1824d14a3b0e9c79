"""Pointwise robustness ρ̂(f, x) of a ReLU network by linear programming.

    min e   s.t.   |x'_i − x_i| ≤ e,   low ≤ x' ≤ high,
                   A x' + c ≥ 0                              (x' stays in the linear region of the seed)
                   f_l(x') − f_j(x') ≥ margin for all j ≠ l  (the label becomes l)

Bastani et al. 2016 (arXiv 1605.07262). The region's rows are added lazily: solve without them, add the rows that the
optimum breaks, repeat until it breaks none; the optimum never decreases and ends at that of the full program. Rows are
scaled to norm 1, so that the same function with its hidden layers scaled otherwise gives the same program. Where the
first optimum breaks many rows we first try to prove that the region does not hold the label at all
(`papertwin.robustness.certificate`), which takes no solver.
"""

import math
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn

from papertwin.errors import InputError
from papertwin.robustness.certificate import prove_infeasible
from papertwin.robustness.inputs import (
    Box,
    Target,
    check_box,
    check_count,
    check_seed,
    frozen,
    logits_of,
    ranked,
    targets_of,
)
from papertwin.robustness.layers import check_layers
from papertwin.robustness.outcome import Robustness
from papertwin.robustness.program import Solution, open_program
from papertwin.robustness.region import LinearRegion
from papertwin.training.loop import single_thread

TOLERANCE = 1e-6  # a row of norm 1 counts as broken beyond this; a tie as one within it, in units of the label rows'
ROWS_PER_ROUND = 150  # the most broken ones; more at once cost more in the solver than they save in rounds
MANY = 300  # broken rows from which a proof of infeasibility is tried first
STAGES = ("rows", "model", "solve", "proof")  # of `Robustness.timings`
RETRIES = 2  # times the margin is raised tenfold when rounding left the witness on the wrong side


@dataclass(frozen=True)
class Settings:
    """How to solve; see `pointwise_robustness`."""

    lazy: bool
    solver: str
    margin: float
    proof: bool
    threads: int


def pointwise_robustness(
    model: nn.Sequential,
    x: Any,
    *,
    target: Target = "runner-up",
    lazy: bool = True,
    solver: str = "highs",
    box: Box = (0.0, 1.0),
    margin: float = 0.0,
    proof: bool = True,
    limit: float = math.inf,
    threads: int = 1,
    device: Any = "cpu",
) -> Robustness:
    """Find the nearest input with another label in the linear region of a seed, in the ∞-norm.

    Args:
        model: Sequential of Linear, Conv2d, ReLU, MaxPool2d, AvgPool2d, Flatten, Dropout, BatchNorm, Identity; images →
            logits. It is copied to float64 in eval mode and stays as it is.
        x: one image as the network takes it, without the batch axis, inside `box`.
        target: label aimed at: "runner-up" at x (as in the paper, reconstructed), a label, or "all" for the nearest.
        lazy: add rows as they are broken; False gives the solver all of them at once.
        solver: highs, highspy, cbc or scipy; see `papertwin.robustness.program`.
        box: smallest and largest value of a pixel.
        margin: by how much the target's logit must exceed every other. At 0 a tie counts as adversarial; for images
            1e-6 leaves the witness strictly on the other side.
        proof: with lazy, try to prove infeasibility without the solver where that pays.
        limit: seconds; beyond it the status is "timeout" and epsilon NaN. The clock is looked at between the steps of
            the search, so that it may end a little later.
        threads: of the solver.
        device: of the network passes.

    Returns:
        `Robustness`; status "found", "partial", "infeasible", "timeout", "failed" (the solver gave up) or "unverified"
        (the network, run on the optimum, disagreed). epsilon is inf only where infeasible, NaN where unknown.
        Infeasible is not robust: the seed's linear region does not hold the label, another region nearby may.

    Raises:
        InputError: a layer without linear encoding, a seed outside the box, an unknown target or solver, a
            negative margin, or threads that are no whole number above 0.
    """
    start = time.perf_counter()
    if not margin >= 0:
        raise InputError(f"margin must be 0 or more, got {margin!r}.")
    check_count("threads", threads)
    seed, (low, high) = check_seed(x, box), check_box(box)
    model64 = frozen(model, device)
    with single_thread():  # passes of one image: more threads wait for each other more than they help
        check_layers(model64)
        logits = logits_of(model64, seed)
        targets = targets_of(logits, target)
        place = next((p.device for p in model64.parameters()), torch.device("cpu"))
        region = LinearRegion(model64, torch.from_numpy(seed).to(place))
        settings = Settings(lazy, solver, float(margin), proof, threads)
        best, found = None, []
        for label in targets:
            reach = best.epsilon if best else math.inf
            search = _TargetSearch(model64, region, label, (low, high), reach, settings)
            result = search.run(start + limit)
            found.append((search, result))
            best = result if result.status == "found" else best
    return _combine(found, ranked(logits)[0], best, time.perf_counter() - start)


@dataclass(frozen=True)
class _Outcome:
    """Of one target."""

    status: str
    target: int
    epsilon: float = math.nan
    witness: np.ndarray | None = None
    reached: int | None = None


def _combine(found: list, label: int, best: _Outcome | None, seconds: float) -> Robustness:
    states = [result.status for _, result in found]
    open_ones = [state for state in states if state not in ("found", "infeasible")]
    if best:
        status = "partial" if open_ones else "found"
    else:
        status, best = (open_ones[0] if open_ones else "infeasible"), _Outcome("", found[0][0].target)
    epsilon = math.inf if status == "infeasible" else best.epsilon
    target = best.target if best.witness is not None or len(found) == 1 else None
    totals = {name: sum(getattr(search, name) for search, _ in found) for name in ("rounds", "rows", "steps")}
    bound = found[0][0].bound if len(found) == 1 else math.inf  # that of several targets holds only within a reach
    timings = {stage: sum(search.timings[stage] for search, _ in found) for stage in STAGES}
    result = epsilon, best.witness, label, target, best.reached, seconds, status
    return Robustness(*result, bound=bound, timings=timings, **totals)


def _late(deadline: float) -> bool:
    """Whether the time is up; NaN is no time at all."""
    return not time.perf_counter() < deadline


class _TargetSearch:
    """The search for one target label in one region."""

    def __init__(
        self, model64: nn.Module, region: LinearRegion, target: int, box: Box, reach: float, settings: Settings
    ):
        self.model64, self.region, self.target, self.settings = model64, region, target, settings
        self.seed = region.seed.flatten().cpu().numpy()
        self.low = np.maximum(box[0], self.seed - reach)
        self.high = np.minimum(box[1], self.seed + reach)
        self.reach = reach
        self.rounds = self.rows = self.steps = 0
        self.bound = math.inf
        self.timings = dict.fromkeys(STAGES, 0.0)
        self._given = np.zeros(region.rows, dtype=bool)

    def run(self, deadline: float) -> _Outcome:
        """Solve, and check the witness with the network; where rounding spoiled it, ask for a larger margin."""
        margin, outcome = self.settings.margin, None
        program = self._open(margin, deadline)
        if program is None:
            return _Outcome("timeout", self.target)
        for _ in range(RETRIES + 1):
            solution = self._solve(program, margin, deadline)
            if solution.status == "infeasible" and outcome:
                return outcome  # only the raised margin is out of reach
            if solution.status != "optimal":
                return _Outcome(solution.status, self.target)
            outcome = self._check(np.clip(solution.x, self.low, self.high))
            if outcome.status == "found":
                return outcome
            margin = max(10 * margin, TOLERANCE * self.unit)
            self._label_rows(program, margin)
        return outcome

    def _open(self, margin: float, deadline: float) -> Any:
        """The program with the rows that it gets before it is solved; None where the time is up."""
        if _late(deadline):
            return None
        solver, threads = self.settings.solver, self.settings.threads
        with self._timed("model"):
            program = open_program(solver, self.seed, self.low, self.high, self.reach, threads)
        with self._timed("rows"):
            self._logit_rows, self._norms = self._contrasts(), self.region.row_norms.cpu().numpy()
        self.unit = float(np.abs(self._logit_rows[0]).max(initial=0.0)) or 1.0  # so that the scale of logits cancels
        self._label_rows(program, margin)
        rows, portion = 0 if self.settings.lazy else self.region.rows, self.region.portion
        for first in range(0, rows, portion):
            if _late(deadline):
                return None
            self._give(program, np.arange(first, min(first + portion, rows)))
        return program

    def _solve(self, program: Any, margin: float, deadline: float) -> Any:
        """Add rows until the optimum keeps them all."""
        while True:
            if _late(deadline):
                return Solution("timeout")
            with self._timed("solve"):
                solution = program.solve(deadline - time.perf_counter())
            self.rounds += 1
            if solution.status != "optimal":
                return solution
            broken, slack = self._broken(solution.x)
            if not len(broken):
                return solution
            worst = broken[np.argsort(slack[broken])[:ROWS_PER_ROUND]]
            if self.settings.proof and self.rounds == 1 and len(broken) > MANY and self._bounded():
                proof = self._prove(margin, deadline)
                if proof.proven:
                    return Solution("infeasible")
            if _late(deadline):
                return Solution("timeout")
            self._give(program, np.sort(worst))

    def _prove(self, margin: float, deadline: float) -> Any:
        place = self.region.seed
        low, high = (torch.from_numpy(end).to(place).view_as(place) for end in (self.low, self.high))
        with self._timed("proof"):
            proof = prove_infeasible(self.region, self.target, low, high, margin=margin, deadline=deadline)
        self.steps, self.bound = proof.steps, proof.bound
        return proof

    @contextmanager
    def _timed(self, stage: str) -> Iterator[None]:
        start = time.perf_counter()
        yield
        self.timings[stage] += time.perf_counter() - start

    def _bounded(self) -> bool:
        return bool(np.isfinite(self.low).all() and np.isfinite(self.high).all())

    def _contrasts(self) -> tuple[np.ndarray, np.ndarray]:
        """f_target − f_j for every other label j: (labels, n) and (labels,)."""
        matrix, shift = self.region.logit_rows()
        others = np.arange(len(matrix)) != self.target
        return matrix[self.target] - matrix[others], shift[self.target] - shift[others]

    def _label_rows(self, program: Any, margin: float) -> None:
        matrix, shift = self._logit_rows
        with self._timed("model"):
            program.add_rows(matrix / self.unit, (margin - shift) / self.unit)

    def _give(self, program: Any, index: np.ndarray) -> None:
        with self._timed("rows"):
            matrix, constant = self.region.constraint_rows(index)
            norms = np.maximum(np.linalg.norm(matrix, axis=1), self._norms[index] / 2)  # an estimate, but never of dust
            matrix /= norms[:, None]
        with self._timed("model"):
            program.add_rows(matrix, -constant / norms)
        self._given[index] = True
        self.rows += len(index)

    def _broken(self, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Numbers of the rows not yet given that x breaks, and the slack of every row in units of its norm."""
        place = self.region.seed
        slack = self.region.slack(torch.from_numpy(x).to(place).view(1, *place.shape))[0][0].cpu().numpy() / self._norms
        return np.flatnonzero((slack < -TOLERANCE) & ~self._given), slack

    def _check(self, x: np.ndarray) -> _Outcome:
        """Run the network on x: a witness has the target as its label, or ties with it at margin 0."""
        witness = x.reshape(self.region.seed.shape)
        logits = logits_of(self.model64, witness)
        tied = self.settings.margin == 0 and logits[self.target] >= logits.max() - TOLERANCE * self.unit
        reached = self.target if tied else ranked(logits)[0]
        if reached != self.target:
            return _Outcome("unverified", self.target)
        return _Outcome("found", self.target, float(np.abs(x - self.seed).max()), witness, reached)
