"""The linear program of pointwise robustness, min e with |x' − x| ≤ e and growing rows, and who solves it.

One program is stated with PuLP and kept: rows that come later are added to the same program, so that a solver that can
goes on from its last basis.

=========  ==========================================================================================================
highs      PuLP states the program; its HiGHS model stays alive, later rows go to it directly, dual simplex warm
highspy    the same HiGHS model built without PuLP: the peer that shows what PuLP costs
cbc        PuLP hands the whole program to CBC each time
scipy      scipy.optimize.linprog (its own HiGHS), the whole program each time
=========  ==========================================================================================================
"""

import ctypes
import os
import sys
import time
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from typing import Any, Protocol

import numpy as np
from scipy import sparse

from papertwin.errors import InputError, RunError

NEGLIGIBLE = 1e-12  # coefficients below this are rounding, not structure


@dataclass(frozen=True)
class Solution:
    """What a solver said.

    Attributes:
        status: "optimal", "infeasible", "timeout", or "failed" where the solver gave up.
        x: (n,) optimal x'; None unless optimal.
        epsilon: optimal e; NaN unless optimal.
    """

    status: str
    x: np.ndarray | None = None
    epsilon: float = float("nan")


class Program(Protocol):
    """min e subject to |x' − x| ≤ e, low ≤ x' ≤ high, 0 ≤ e ≤ reach, and rows matrix·x' ≥ least."""

    def add_rows(self, matrix: np.ndarray, least: np.ndarray) -> None:
        """Add the rows matrix·x' ≥ least: (k, n) and (k,).

        Raises:
            InputError: a number that is not finite.
            RunError: the solver does not take the rows.
        """

    def solve(self, seconds: float) -> Solution:
        """Solve with all rows added so far, for at most so many seconds."""


def open_program(
    solver: str, x: np.ndarray, low: np.ndarray, high: np.ndarray, reach: float, threads: int = 1
) -> Program:
    """Begin a program without rows.

    Args:
        solver: highs, highspy, cbc or scipy.
        x: (n,) the seed.
        low, high: (n,) box.
        reach: largest e of interest.
        threads: for the solver, where it can use them.

    Raises:
        InputError: unknown solver.
        RunError: the solver is not installed, or refuses the program.
    """
    if solver not in SOLVERS:
        raise InputError(f"Unknown solver {solver!r}: expected one of {', '.join(SOLVERS)}.")
    return SOLVERS[solver](np.asarray(x, float), low, high, reach, threads)


def _distance_rows(x: np.ndarray) -> tuple[sparse.csr_matrix, np.ndarray]:
    """x'_i + e ≥ x_i and −x'_i + e ≥ −x_i: (2n, n + 1) and (2n,)."""
    eye, one = sparse.eye(len(x), format="csr"), sparse.csr_matrix(np.ones((len(x), 1)))
    return sparse.bmat([[eye, one], [-eye, one]], format="csr"), np.concatenate([x, -x])


def _sparse_rows(matrix: np.ndarray, least: np.ndarray) -> sparse.csr_matrix:
    """(k, n + 1) with a zero column for e, without rounding dust; InputError where anything is not finite."""
    wrong = np.size(matrix) + np.size(least) - int(np.isfinite(matrix).sum() + np.isfinite(least).sum())
    if wrong:
        raise InputError(
            f"{wrong} numbers in the rows of the program are NaN or infinite; expected finite ones. Are the network's "
            "weights finite, and not so large that their products overflow?"
        )
    rows = sparse.csr_matrix(np.where(np.abs(matrix) < NEGLIGIBLE, 0.0, matrix))
    rows.resize(matrix.shape[0], matrix.shape[1] + 1)
    return rows


def _bound(value: float) -> float | None:
    """A bound as PuLP writes it: None where there is none."""
    return float(value) if np.isfinite(value) else None


@cache
def _keep_banner_out() -> None:
    """Make the first HiGHS model of this process, which prints a line from C, while its output goes nowhere.

    Where there is no output to redirect, or it cannot be, the line is printed.
    """
    import highspy

    with suppress(AttributeError, ValueError, OSError):  # there is no sys.stdout, or it is closed
        sys.stdout.flush()
    try:
        flush = ctypes.CDLL(None).fflush if os.name == "posix" else None
        kept = os.dup(1) if flush else None
    except (OSError, AttributeError):
        kept = None
    if kept is None:
        return
    try:
        nowhere = os.open(os.devnull, os.O_WRONLY)
    except OSError:
        os.close(kept)
        return
    flush(None)  # what others wrote from C and is still to come out
    try:
        os.dup2(nowhere, 1)
        highspy.Highs()
        flush(None)
    finally:
        os.dup2(kept, 1)
        os.close(kept)
        os.close(nowhere)


def _heed(status: Any, what: str) -> None:
    """Raise RunError where HiGHS answers a call with an error."""
    from highspy import HighsStatus

    if status not in (HighsStatus.kOk, HighsStatus.kWarning):
        raise RunError(f"HiGHS does not {what}: it answered {status.name}. Please report this with network and seed.")


class _LiveHighs:
    """A `highspy.Highs` model that is added to and solved again from its last basis."""

    def __init__(self, model: Any, order: np.ndarray, threads: int):
        """Take over a model in which our columns, the pixels and then e, stand at the places `order`."""
        self.model, self.order = model, order
        options = {"output_flag": False, "threads": threads, "solver": "simplex"}
        for name, value in options.items():
            _heed(model.setOptionValue(name, value), f"take the option {name} = {value!r}")

    def add(self, rows: sparse.csr_matrix, least: np.ndarray) -> None:
        count = rows.shape[0]
        starts, columns = rows.indptr.astype(np.int32), self.order[rows.indices].astype(np.int32)
        status = self.model.addRows(count, least, np.full(count, np.inf), rows.nnz, starts, columns, rows.data)
        _heed(status, f"take {count} rows")

    def solve(self, seconds: float) -> Solution:
        from highspy import HighsModelStatus as Status
        from highspy import HighsStatus

        self.model.resetGlobalScheduler(True)  # else a run with other threads than the last model's fails
        limit = self.model.getRunTime() + max(seconds, 0.0)
        _heed(self.model.setOptionValue("time_limit", limit), f"take the option time_limit = {limit!r}")
        if self.model.run() == HighsStatus.kError:
            return Solution("failed")
        status = self.model.getModelStatus()
        if status == Status.kOptimal:
            values = np.asarray(self.model.getSolution().col_value)[self.order]
            return Solution("optimal", values[:-1], float(values[-1]))
        infeasible = (Status.kInfeasible, Status.kUnboundedOrInfeasible)  # e ≥ 0 cannot be unbounded
        return Solution(
            "infeasible" if status in infeasible else "timeout" if status == Status.kTimeLimit else "failed"
        )


class Highspy:
    """HiGHS without PuLP in between."""

    def __init__(self, x: np.ndarray, low: np.ndarray, high: np.ndarray, reach: float, threads: int):
        """Build the model from arrays."""
        import highspy

        _keep_banner_out()
        model = highspy.Highs()
        self._live = _LiveHighs(model, np.arange(len(x) + 1), threads)
        _heed(model.addVars(len(x) + 1, np.append(low, 0.0), np.append(high, reach)), f"take {len(x) + 1} columns")
        _heed(model.changeColCost(len(x), 1.0), "take the objective")
        self._live.add(*_distance_rows(x))

    def add_rows(self, matrix: np.ndarray, least: np.ndarray) -> None:
        """See `Program.add_rows`."""
        self._live.add(_sparse_rows(matrix, least), least)

    def solve(self, seconds: float) -> Solution:
        """See `Program.solve`."""
        return self._live.solve(seconds)


class _Stated:
    """The program as PuLP objects; rows wait as sparse matrices until somebody needs them as text."""

    def __init__(self, x: np.ndarray, low: np.ndarray, high: np.ndarray, reach: float, threads: int):
        import pulp

        self.threads, self._waiting = threads, []  # of pairs: sparse rows, least
        self._problem = pulp.LpProblem("pointwise_robustness", pulp.LpMinimize)
        add = self._problem.add_variable
        self.pixels = [add(f"x{i}", _bound(low[i]), _bound(high[i])) for i in range(len(x))]
        self.epsilon = add("e", 0.0, _bound(reach))
        self._problem += 1.0 * self.epsilon
        for pixel, value in zip(self.pixels, x.tolist()):
            self._problem.addConstraint(pulp.LpAffineExpression([(pixel, 1.0), (self.epsilon, 1.0)]) >= value)
            self._problem.addConstraint(pulp.LpAffineExpression([(pixel, -1.0), (self.epsilon, 1.0)]) >= -value)

    @property
    def problem(self) -> Any:
        """The `pulp.LpProblem` with every row added so far; `problem.writeLP(path)` writes it down."""
        import pulp

        for rows, least in self._waiting:
            for start, end, bound in zip(rows.indptr, rows.indptr[1:], least.tolist()):
                entries = zip(rows.indices[start:end], rows.data[start:end].tolist())
                terms = [(self.pixels[column], value) for column, value in entries]
                self._problem.addConstraint(pulp.LpAffineExpression(terms) >= bound)
        self._waiting = []
        return self._problem

    def add_rows(self, matrix: np.ndarray, least: np.ndarray) -> None:
        """See `Program.add_rows`."""
        self._keep(matrix, least)

    def _keep(self, matrix: np.ndarray, least: np.ndarray) -> sparse.csr_matrix:
        rows = _sparse_rows(matrix, least)
        self._waiting.append((rows, least))
        return rows


class PulpHighs(_Stated):
    """PuLP states the program, HiGHS keeps it: rows that come later go to both, to PuLP only when it is asked."""

    def __init__(self, x: np.ndarray, low: np.ndarray, high: np.ndarray, reach: float, threads: int):
        """State the program and let PuLP build its HiGHS model."""
        import pulp

        super().__init__(x, low, high, reach, threads)
        solver = pulp.HiGHS(msg=False, threads=threads)
        _keep_banner_out()
        solver.createAndConfigureSolver(self._problem)
        solver.buildSolverModel(self._problem)
        order = np.array([variable.index for variable in (*self.pixels, self.epsilon)])
        self._live = _LiveHighs(self._problem.solverModel, order, threads)

    def add_rows(self, matrix: np.ndarray, least: np.ndarray) -> None:
        """See `Program.add_rows`."""
        self._live.add(self._keep(matrix, least), least)

    def solve(self, seconds: float) -> Solution:
        """See `Program.solve`."""
        return self._live.solve(seconds)


class PulpCbc(_Stated):
    """PuLP writes the program down, CBC reads and solves it, from the beginning each time."""

    def __init__(self, x: np.ndarray, low: np.ndarray, high: np.ndarray, reach: float, threads: int):
        """State the program.

        Raises:
            RunError: no CBC is found.
        """
        import pulp

        super().__init__(x, low, high, reach, threads)
        bundled = getattr(getattr(pulp, "PULP_CBC_CMD", None), "pulp_cbc_path", None)
        found = [solver for solver in (pulp.COIN_CMD(), pulp.COIN_CMD(path=bundled)) if solver.available()]
        if not found:
            raise RunError("No CBC solver is installed. Use solver='highs', or `pip install pulp[cbc]`.")
        self._path = found[0].path

    def solve(self, seconds: float) -> Solution:
        """See `Program.solve`."""
        import pulp

        start = time.perf_counter()
        problem = self.problem
        problem.solve(pulp.COIN_CMD(path=self._path, msg=False, timeLimit=max(seconds, 0.01), threads=self.threads))
        if problem.sol_status == pulp.LpSolutionOptimal:
            values = np.array([pixel.varValue or 0.0 for pixel in self.pixels])
            return Solution("optimal", values, float(self.epsilon.varValue or 0.0))
        if time.perf_counter() - start >= seconds:
            return Solution("timeout")
        return Solution("infeasible" if problem.status == pulp.LpStatusInfeasible else "failed")


class Scipy:
    """scipy's `linprog`, from the beginning each time: an implementation to compare with."""

    def __init__(self, x: np.ndarray, low: np.ndarray, high: np.ndarray, reach: float, threads: int):
        """Keep the program as arrays; scipy decides about threads itself."""
        matrix, least = _distance_rows(x)
        self._rows, self._least = [matrix], [least]
        self._bounds = np.column_stack([np.append(low, 0.0), np.append(high, reach)])

    def add_rows(self, matrix: np.ndarray, least: np.ndarray) -> None:
        """See `Program.add_rows`."""
        self._rows.append(_sparse_rows(matrix, least))
        self._least.append(least)

    def solve(self, seconds: float) -> Solution:
        """See `Program.solve`."""
        from scipy.optimize import linprog

        cost = np.zeros(len(self._bounds))
        cost[-1] = 1.0
        found = linprog(
            cost,
            A_ub=-sparse.vstack(self._rows),
            b_ub=-np.concatenate(self._least),
            bounds=self._bounds,
            options={"time_limit": max(seconds, 0.01)},
        )
        if found.status == 0:
            return Solution("optimal", found.x[:-1], float(found.x[-1]))
        return Solution({1: "timeout", 2: "infeasible"}.get(found.status, "failed"))


SOLVERS = {"highs": PulpHighs, "highspy": Highspy, "cbc": PulpCbc, "scipy": Scipy}
