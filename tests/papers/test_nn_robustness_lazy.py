"""Lazy against full: the table of timings on small networks, and the judgements on tables known beforehand."""

import math
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from papertwin.nets import mlp
from papertwin.papers import nn_robustness as paper
from papertwin.papers import nn_robustness_claims as claims
from papertwin.robustness.many import SeedPool
from papertwin.robustness.study import Study

PARAMS = paper.Params()


def test_each_network_is_solved_in_three_ways_on_its_first_points():
    images = np.random.default_rng(0).random((5, 6))
    mlp_study, lenet = (
        Study(name, mlp((6, hidden, 3), seed=seed), 1.0, images, np.zeros(5, int), {})
        for name, hidden, seed in (("MLP", 12, 2), ("LeNet", 9, 1))
    )
    params = replace(PARAMS, full_points=2, full_mlp_points=3)
    table = paper.lazy_against_full(mlp_study, lenet, params, SeedPool(1))
    assert list(zip(table.network, table.point)) == [("MLP", 0), ("MLP", 1), ("MLP", 2), ("LeNet", 0), ("LeNet", 1)]
    assert table["full rows"].tolist() == [12] * 3 + [9] * 2
    assert (table["lazy rows"] <= table["full rows"]).all()
    assert np.allclose(table["ratio"], table["full s"] / table["lazy s"])
    assert (table["full status"] == "found").any()
    assert claims.lazy_is_exact(table).value is True


def test_the_three_ways_differ_in_rows_and_proof_alone():
    asked = []

    class Pool:
        """Remembers what it was asked."""

        def search(self, model, images, method, *, settings):
            """Nothing for no points."""
            asked.append((model, images.ravel().tolist(), method, settings))
            return []

    each = Study("MLP", "network", 1.0, np.arange(5)[:, None], np.zeros(5, int), {})
    paper.lazy_against_full(each, replace(each, model="other"), replace(PARAMS, full_mlp_points=4), Pool())
    common = {"margin": 1e-6, "limit": 600.0}
    ways = [{**common, "proof": False}, common, {**common, "lazy": False}]
    assert asked == [(model, list(range(n)), "lp", way) for model, n in (("network", 4), ("other", 2)) for way in ways]


def timings(*rows: tuple, network: str = "MLP", ratio: float = 2.0) -> pd.DataFrame:
    """Status and optimum lazily, with the proof, and in full."""
    columns = [f"{way} {what}" for way in ("lazy", "proof", "full") for what in ("status", "optimum")]
    return pd.DataFrame(rows, columns=columns).assign(network=network, ratio=ratio)


FOUND, NONE = ("found", 0.1), ("infeasible", math.inf)
LATE, FAILED = ("timeout", math.nan), ("failed", math.nan)
GOOD = [(*FOUND, "found", 0.1 - 4e-6, "found", 0.1 + 5e-6), NONE * 3]
OPEN = [LATE + FOUND * 2, FOUND + LATE + FOUND, FOUND * 2 + LATE, NONE + FAILED + NONE]


def test_lazy_is_exact_where_all_ways_end_alike():
    found = claims.lazy_is_exact(timings(*GOOD, *OPEN))
    assert found.value is True
    assert found.note == "2 seeds, 1 with an optimum; largest difference 9.0e-06"


@pytest.mark.parametrize(
    "row",
    [
        ("found", 0.1 + 2e-5, *FOUND, *FOUND),
        ("found", 0.1 - 2e-5, *FOUND, *FOUND),
        (*FOUND, "found", 0.1 + 2e-5, *FOUND),
        (*FOUND, "found", 0.1 - 2e-5, *FOUND),
        NONE + FOUND * 2,
        FOUND + NONE + FOUND,
        FOUND * 2 + NONE,
        FOUND + NONE * 2,
        NONE + FOUND + NONE,
        NONE * 2 + FOUND,
    ],
)
def test_one_seed_that_ends_otherwise_flips_it(row):
    assert claims.lazy_is_exact(timings(*GOOD, row)).value is False


@pytest.mark.parametrize(("rows", "ended"), [(OPEN, 0), ([GOOD[1], OPEN[0]], 1)])
def test_lazy_is_not_judged_where_nothing_ended_or_no_optimum_is_known(rows, ended):
    found = claims.lazy_is_exact(timings(*rows))
    assert found.value is None
    assert f"among the {ended} of {len(rows)} seeds" in found.note


def speeds(*ratios: float) -> pd.DataFrame:
    """Ended LeNet seeds with these ratios, beside perceptrons and seeds that did not end."""
    lenet = [timings(NONE * 3, network="LeNet", ratio=ratio) for ratio in ratios]
    others = [
        timings(FOUND * 3, ratio=3000.0),
        *(timings(row, network="LeNet", ratio=9e9) for row in (OPEN[0], OPEN[2])),
    ]
    return pd.concat([*lenet, *others], ignore_index=True)


def test_lazy_is_faster_by_the_median_on_lenet():
    found = claims.lazy_is_faster(speeds(1, 2, 3, 4, 5, 7, 8, 9, 10, 1000), PARAMS)
    assert found.value == 6
    assert 1 < found.interval[0] < 6 < found.interval[1] < 1000
    assert found.note.startswith("10 LeNet seeds, 0 feasible, 1.0 to 1000.0; MLP 3000.0")
    assert claims.lazy_is_faster(speeds(*[20] * 12), PARAMS).interval == (20, 20)


def test_speed_is_not_judged_on_few_seeds():
    found = claims.lazy_is_faster(speeds(*[20] * 9), PARAMS)
    assert found.value is None
    assert "9 LeNet seeds" in found.note
