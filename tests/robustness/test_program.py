"""The linear program: four solvers that agree, rows in batches, time limits, and what PuLP writes down."""

import subprocess
import sys

import highspy
import numpy as np
import pulp
import pytest

from papertwin.errors import InputError, RunError
from papertwin.robustness.program import SOLVERS, open_program


def random_program(seed: int, feasible: bool, pixels: int = 17, rows: int = 24):
    """A seed of the unit box, rows in three batches, some entries exactly 0; a point inside if feasible."""
    rng = np.random.default_rng(seed)
    x, inside = rng.random((2, pixels))
    matrix = rng.normal(size=(rows, pixels)) * (rng.random((rows, pixels)) < 0.6)
    least = matrix @ inside - rng.exponential(0.05, rows)
    if not feasible:
        matrix[-1], least[-1] = -matrix[:3].sum(0), 0.01 - least[:3].sum()
    return x, list(zip(np.split(matrix, [4, 15]), np.split(least, [4, 15])))


def opened(solver: str, x: np.ndarray, low: float = 0.0, high: float = 1.0, reach: float = np.inf, threads: int = 1):
    """A program in the box [low, high]^n."""
    return open_program(solver, x, np.full(len(x), low), np.full(len(x), high), reach, threads)


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("feasible", [True, False])
def test_all_solvers_agree_after_every_batch_of_rows(seed, feasible):
    x, batches = random_program(seed, feasible)
    outcomes = {}
    for solver in SOLVERS:
        program, given_rows, found = opened(solver, x), [], []
        assert program.solve(np.inf).epsilon == 0
        for matrix, least in batches:
            program.add_rows(matrix, least)
            given_rows.append((matrix, least))
            solution = program.solve(np.inf)
            if solution.status == "optimal":
                assert solution.x.shape == x.shape
                assert np.abs(solution.x - x).max() == pytest.approx(solution.epsilon, abs=1e-6)
                assert -1e-7 <= solution.x.min() <= solution.x.max() <= 1 + 1e-7
                assert all((m @ solution.x >= b - 1e-6).all() for m, b in given_rows)
            else:
                assert solution.x is None
                assert np.isnan(solution.epsilon)
            found.append((solution.status, solution.epsilon))
        outcomes[solver] = found
    statuses, optima = (np.array([[pair[k] for pair in found] for found in outcomes.values()]) for k in (0, 1))
    assert (statuses == statuses[0]).all()
    assert statuses[0].tolist() == ["optimal", "optimal", "optimal" if feasible else "infeasible"]
    np.testing.assert_allclose(optima, np.tile(optima[0], (len(SOLVERS), 1)), atol=1e-6)
    steps = optima[0][~np.isnan(optima[0])]
    assert steps[-1] > 0
    assert (np.diff(steps) >= -1e-9).all()


@pytest.mark.parametrize("solver", SOLVERS)
def test_every_pixel_keeps_its_place(solver):
    """PuLP sorts by name, x10 before x2: with 23 pixels, rows that fix each of them tell if any is exchanged."""
    rng = np.random.default_rng(0)
    x, wanted = rng.random((2, 23))
    program = opened(solver, x)
    for part in np.array_split(rng.permutation(23), 3):
        eye = np.eye(23)[part]
        program.add_rows(np.concatenate([eye, -eye]), np.concatenate([wanted[part], -wanted[part]]))
        solution = program.solve(np.inf)
        assert solution.x[part] == pytest.approx(wanted[part], abs=1e-6)
    assert solution.x == pytest.approx(wanted, abs=1e-6)
    assert solution.epsilon == pytest.approx(np.abs(wanted - x).max(), abs=1e-6)


@pytest.mark.parametrize("solver", SOLVERS)
def test_each_pixel_has_its_own_box(solver):
    """Pixel i can rise by 0.1 i; together they are to rise by 1.5, which takes 0.14 of those that can."""
    x, high = np.full(12, 0.5), np.linspace(0.5, 1.6, 12)
    program = open_program(solver, x, np.zeros(12), high, np.inf)
    program.add_rows(np.ones((1, 12)), np.array([7.5]))
    solution = program.solve(np.inf)
    assert solution.epsilon == pytest.approx((1.5 - 0.1) / 10, abs=1e-6)
    assert solution.x[0] == pytest.approx(0.5)
    program.add_rows(-np.eye(12)[3:4], np.array([-0.5]))
    assert program.solve(np.inf).epsilon == pytest.approx((1.5 - 0.1) / 9, abs=1e-6)


@pytest.mark.parametrize("solver", SOLVERS)
def test_a_box_without_end_and_a_reach(solver):
    """Σ x' ≥ Σ x + 12 moves each of four pixels by 3, wherever the box ends, if the reach lets it."""
    x = np.array([0.1, -40.0, 7.0, 0.5])
    for low, high in ((-np.inf, np.inf), (-np.inf, 50.0), (-50.0, np.inf)):
        program = opened(solver, x, low, high)
        program.add_rows(np.ones((1, 4)), np.array([x.sum() + 12]))
        solution = program.solve(np.inf)
        assert (solution.status, solution.epsilon) == ("optimal", pytest.approx(3, abs=1e-6))
        assert solution.x == pytest.approx(x + 3, abs=1e-6)
    for reach, status in ((3.1, "optimal"), (2.9, "infeasible")):
        program = opened(solver, x, -np.inf, np.inf, reach)
        program.add_rows(np.ones((1, 4)), np.array([x.sum() + 12]))
        assert program.solve(np.inf).status == status


@pytest.mark.parametrize("solver", SOLVERS)
def test_infeasible_in_a_box_without_end(solver):
    program = opened(solver, np.zeros(5), -np.inf, np.inf)
    program.add_rows(np.ones((1, 5)), np.array([1.0]))
    program.add_rows(-np.ones((1, 5)), np.array([-0.9]))
    assert program.solve(np.inf).status == "infeasible"


@pytest.mark.parametrize("solver", SOLVERS)
def test_rows_of_nothing(solver):
    """No row, a row without coefficients that holds, rounding dust, and a row without coefficients that cannot hold."""
    x = np.array([0.2, 0.7])
    program = opened(solver, x)
    program.add_rows(np.zeros((0, 2)), np.zeros(0))
    program.add_rows(np.array([[0.0, 0.0], [1e-14, 0.0]]), np.array([-1.0, 0.0]))
    solution = program.solve(np.inf)
    assert (solution.status, solution.epsilon) == ("optimal", 0)
    assert solution.x == pytest.approx(x)
    program.add_rows(np.zeros((1, 2)), np.array([0.5]))
    assert program.solve(np.inf).status == "infeasible"


def large(feasible: bool):
    """A program that takes each solver far longer than a hundredth of a second."""
    x, batches = random_program(0, feasible, pixels=150, rows=700)
    return x, np.concatenate([m for m, _ in batches]), np.concatenate([b for _, b in batches])


@pytest.mark.parametrize("solver", SOLVERS)
def test_out_of_time_is_said_and_is_never_infeasible(solver):
    x, matrix, least = large(feasible=True)
    program = opened(solver, x)
    program.add_rows(matrix, least)
    for seconds in (0.0, -1.0):
        solution = program.solve(seconds)
        assert solution.status == "timeout"
        assert solution.x is None
        assert np.isnan(solution.epsilon)


@pytest.mark.parametrize("solver", ["highs", "highspy"])
def test_the_limit_is_of_each_solve_and_a_program_goes_on_after_it(solver):
    """HiGHS counts the time of all runs of a model, so ours is added to it; the next solve begins at the last basis."""
    x, matrix, least = large(feasible=True)
    program = opened(solver, x)
    program.add_rows(matrix[:-1], least[:-1])
    assert program.solve(0.0).status == "timeout"
    first = program.solve(np.inf)
    assert first.status == "optimal"
    model, steps = program._live.model, program._live.model.getInfo().simplex_iteration_count
    program.add_rows(matrix[-1:], matrix[-1:] @ first.x + 1e-3)
    before = model.getRunTime()
    again = program.solve(1000.0)
    assert again.status == "optimal"
    assert model.getOptionValue("time_limit")[1] == pytest.approx(before + 1000.0)
    assert 0 < model.getInfo().simplex_iteration_count < steps / 2
    assert matrix[-1] @ (again.x - first.x) >= 1e-3 - 1e-6


@pytest.mark.parametrize("stopped", ["Stopped on time - objective value 0.5", "Stopped on time (no integer solution)"])
def test_cbc_that_stopped_early_is_not_infeasible_nor_optimal(monkeypatch, stopped):
    """PuLP takes the point at which CBC stopped for optimal."""
    monkeypatch.setattr(pulp.COIN_CMD, "get_status", lambda self, path: status_of(stopped))
    x, batches = random_program(1, True)
    program = opened("cbc", x)
    program.add_rows(*batches[0])
    assert program.solve(1e-6).status == "timeout"
    assert program.solve(1e6).status == "failed"


def status_of(line: str):
    """What PuLP makes of the first line of a solution file of CBC."""
    words = line.split()
    if words[4:5] == ["objective"]:
        return pulp.LpStatusOptimal, pulp.LpSolutionIntegerFeasible
    return pulp.LpStatusNotSolved, pulp.LpSolutionNoSolutionFound


@pytest.mark.parametrize("solver", ["highs", "highspy"])
def test_the_number_of_threads_may_change_between_programs(solver):
    x, batches = random_program(2, True)
    programs = [opened(solver, x, threads=threads) for threads in (1, 2, 1)]
    for program in programs:
        program.add_rows(*batches[0])
    found = [program.solve(np.inf) for program in (*programs, *programs)]
    assert [solution.status for solution in found] == ["optimal"] * 6
    assert np.ptp([solution.epsilon for solution in found]) < 1e-9


def test_the_problem_that_pulp_writes_down_is_the_whole_one(tmp_path):
    """Solved afresh, by CBC without PuLP from the LP file, and by PuLP from the MPS file."""
    x, batches = random_program(3, True)
    program = opened("highs", x)
    for count, (matrix, least) in enumerate(batches, 1):
        program.add_rows(matrix, least)
        optimum = program.solve(np.inf).epsilon
        problem = program.problem
        assert problem is program.problem
        assert len(problem.constraints()) == 2 * len(x) + sum(len(least) for _, least in batches[:count])
        problem.writeLP(tmp_path / "program.lp")
        assert cbc_alone(tmp_path) == pytest.approx(optimum, abs=1e-6)
        problem.writeMPS(tmp_path / "program.mps")
        _, again = pulp.LpProblem.fromMPS(tmp_path / "program.mps")
        assert again.solve(pulp.COIN_CMD(path=opened("cbc", x)._path, msg=False)) == pulp.LpStatusOptimal
        assert pulp.value(again.objective) == pytest.approx(optimum, abs=1e-6)
    assert program.solve(np.inf).epsilon == pytest.approx(optimum)


def cbc_alone(folder) -> float:
    """The optimum of program.lp in a folder, by the program CBC itself."""
    path = opened("cbc", np.zeros(1))._path
    subprocess.run([path, "program.lp", "solve", "solution", "found.txt"], cwd=folder, check=True, capture_output=True)
    first = (folder / "found.txt").read_text().splitlines()[0]
    assert first.startswith("Optimal")
    return float(first.split()[-1])


def test_a_solver_that_gives_up_has_failed(monkeypatch):
    x, batches = random_program(4, True)
    for solver in ("highs", "highspy"):
        program = opened(solver, x)
        program.add_rows(*batches[0])
        with monkeypatch.context() as patch:
            patch.setattr(highspy.Highs, "getModelStatus", lambda self: highspy.HighsModelStatus.kSolveError)
            solution = program.solve(np.inf)
            assert (solution.status, solution.x) == ("failed", None)
            patch.undo()
            patch.setattr(highspy.Highs, "run", lambda self: highspy.HighsStatus.kError)
            assert program.solve(np.inf).status == "failed"
        assert program.solve(np.inf).status == "optimal"


@pytest.mark.parametrize("solver", ["highs", "highspy"])
@pytest.mark.parametrize("call", ["addRows", "setOptionValue"])
def test_what_highs_refuses_is_an_error_and_a_warning_is_none(solver, call, monkeypatch):
    x, batches = random_program(4, True)
    program = opened(solver, x)
    true = getattr(highspy.Highs, call)
    monkeypatch.setattr(highspy.Highs, call, lambda *args: (true(*args), highspy.HighsStatus.kWarning)[1])
    program.add_rows(*batches[0])
    assert program.solve(np.inf).status == "optimal"
    monkeypatch.setattr(highspy.Highs, call, lambda *args: highspy.HighsStatus.kError)
    with pytest.raises(RunError, match=r"HiGHS does not take .*kError"):
        add_and_solve(program, *batches[1])


def add_and_solve(program, matrix, least):
    """Both calls after which HiGHS may complain."""
    program.add_rows(matrix, least)
    program.solve(np.inf)


@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_rows_that_are_not_finite_are_refused(solver, value):
    program = opened(solver, np.full(3, 0.5))
    with pytest.raises(InputError, match="1 numbers in the rows"):
        program.add_rows(np.array([[1.0, value, 0.0]]), np.zeros(1))
    with pytest.raises(InputError, match="1 numbers in the rows"):
        program.add_rows(np.array([[1.0, 0.0, 0.0]]), np.array([value]))
    assert program.solve(np.inf).epsilon == 0


QUIET = """
import ctypes, os, sys
import numpy as np
from papertwin.robustness.program import open_program
from papertwin.robustness import program
printf = ctypes.CDLL(None).printf
def both():
    for solver in ("highspy", "highs", "highspy"):
        print(open_program(solver, np.zeros(2), np.zeros(2), np.ones(2), 1.0).solve(9.0).status)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="redirection is for POSIX only")
@pytest.mark.parametrize(
    ("code", "out"),
    [
        ("printf(b'from C '); print('a'); both()", "from C a\noptimal\noptimal\noptimal\n"),
        ("true = os.dup2; seen = []; os.dup2 = lambda *a: seen.append(a) or true(*a); both(); print(len(seen))",
         "optimal\noptimal\noptimal\n2\n"),
        ("os.close(1); sys.stdout = sys.stderr; both()", ""),
        ("sys.stdout = None; both()", ""),
        ("sys.stdout.close(); sys.stdout = sys.stderr; both()", ""),
        ("os.devnull = '/not/there'; both()", "Running HiGHS"),
    ],
)  # fmt: skip
def test_the_banner_is_kept_out_once_a_process_whatever_stdout_is(code, out):
    done = subprocess.run([sys.executable, "-c", QUIET + code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "optimal" in done.stdout + done.stderr or "None" in code
    assert sorted(done.stdout) == sorted(out) if "HiGHS" not in out else out in done.stdout


def test_an_unknown_solver_and_one_that_is_not_there(monkeypatch):
    with pytest.raises(InputError, match=r"'glpk'.*highs, highspy, cbc, scipy"):
        opened("glpk", np.zeros(2))
    monkeypatch.setattr(pulp.COIN_CMD, "available", lambda self: False)
    with pytest.raises(RunError, match=r"CBC.*solver='highs'"):
        opened("cbc", np.zeros(2))
