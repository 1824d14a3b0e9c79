"""What SparseOpt's notebook reads off its trainings, from tables and curves that are written by hand."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from papertwin import ledger
from papertwin.papers import sparseopt_studies as studies
from papertwin.papers.sparseopt import GROWTH, HAM, OURS, PLAIN, Job

# ---- reading tables --------------------------------------------------------------------------------------------------

COLUMNS = ["network", "method", "arm", "sparsity", "passes", "seed", "gamma", "test accuracy", "ITOP"]
NO = np.nan
TABLE = pd.DataFrame(
    [
        ("mlp", "RigL", OURS, 0.99, 2, 3, NO, 63.0, 11.0),
        ("mlp", "RigL", OURS, 0.99, 2, 1, NO, 61.0, 12.5),
        ("mlp", "RigL", OURS, 0.99, 2, 2, NO, 65.0, 14.0),
        ("mlp", "RigL", PLAIN, 0.99, 2, 4, NO, 40.0, 5.0),
        ("mlp", "RigL", PLAIN, 0.99, 2, 2, NO, 60.5, 9.0),
        ("mlp", "RigL", PLAIN, 0.99, 2, 1, NO, 58.0, 8.0),
        ("mlp", "RigL", GROWTH, 0.99, 2, 1, NO, 57.0, 2.0),
        ("mlp", "RigL", GROWTH, 0.99, 2, 2, NO, 56.0, 3.5),
        ("mlp", "RigL", HAM, 0.99, 2, 1, NO, 51.0, 30.0),
        ("mlp", "RigL", OURS, 0.99, 8, 1, NO, 70.0, 20.0),
        ("mlp", "RigL", PLAIN, 0.99, 8, 1, NO, 70.5, 21.0),
        ("mlp", "RigL", OURS, 0.95, 2, 2, NO, 80.0, 40.0),
        ("mlp", "RigL", PLAIN, 0.95, 2, 2, NO, 79.0, 41.0),
        ("mlp", "RigL", PLAIN, 0.9, 2, 2, NO, 85.0, 50.0),
        ("mlp", "SET", OURS, 0.99, 2, 1, NO, 66.0, 31.0),
        ("mlp", "SET", PLAIN, 0.99, 2, 1, NO, 62.5, 33.0),
        ("mlp", "SET", OURS, 0.9, 2, 1, NO, 67.0, 35.0),
        ("mlp", "SET", PLAIN, 0.9, 2, 2, NO, 68.0, 36.0),
        ("mlp", "SRigL", OURS, 0.95, 2, 1, 0.0, 77.0, 44.0),
        ("mlp", "SRigL", PLAIN, 0.95, 2, 1, 0.0, 77.5, 45.0),
        ("protocol", "RigL", OURS, 0.99, 2, 1, NO, 30.0, 60.0),
        ("protocol", "RigL", PLAIN, 0.99, 2, 1, NO, 33.0, 61.0),
        ("protocol", "SRigL", OURS, 0.99, 2, 1, 0.3, 34.0, 62.0),
        ("protocol", "SRigL", OURS, 0.99, 2, 1, 0.0, 35.0, 63.0),
    ],
    columns=COLUMNS,
)


def test_rates_of_explored_weights_are_of_rigl_on_the_perceptron():
    rates = studies.itop_rates(TABLE, 2, range(1, 3))
    assert list(rates) == [PLAIN, OURS, GROWTH]
    assert rates[PLAIN].to_dict() == {(0.9, 2): 50.0, (0.95, 2): 41.0, (0.99, 1): 8.0, (0.99, 2): 9.0}
    assert rates[OURS].to_dict() == {(0.95, 2): 40.0, (0.99, 1): 12.5, (0.99, 2): 14.0}
    assert rates[GROWTH].to_dict() == {(0.99, 1): 2.0, (0.99, 2): 3.5}
    assert studies.itop_rates(TABLE, 8, [1])[PLAIN].to_dict() == {(0.99, 1): 21.0}
    assert (rates[OURS] - rates[PLAIN]).dropna().tolist() == [-1.0, 4.5, 5.0]


def test_rows_of_an_arm_are_by_seed():
    rows = studies.of_arm(TABLE, "mlp", "RigL", OURS, 0.99, 2)
    assert rows.index.tolist() == [1, 2, 3]
    assert rows.index.name == "seed"
    assert rows["test accuracy"].tolist() == [61, 65, 63]
    assert studies.of_arm(TABLE, "mlp", "RigL", PLAIN, 0.99, 2)["test accuracy"].tolist() == [58, 60.5, 40]
    for changed, value in {
        ("protocol", "RigL", OURS, 0.99, 2): 30,
        ("mlp", "SET", OURS, 0.99, 2): 66,
        ("mlp", "RigL", HAM, 0.99, 2): 51,
        ("mlp", "RigL", OURS, 0.95, 2): 80,
        ("mlp", "RigL", OURS, 0.99, 8): 70,
    }.items():
        assert studies.of_arm(TABLE, *changed)["test accuracy"].tolist() == [value]
    assert studies.of_arm(TABLE, "mlp", "RigL", OURS, 0.9, 2).empty


def test_srigl_without_ablation_is_no_row_of_an_arm():
    assert studies.of_arm(TABLE, "mlp", "SRigL", OURS, 0.95, 2).empty
    assert studies.of_arm(TABLE, "protocol", "SRigL", OURS, 0.99, 2)["test accuracy"].tolist() == [34]


def test_gains_are_seed_by_seed_where_both_arms_have_one():
    assert studies.gains(TABLE, "mlp", "RigL", 0.99, 2).to_dict() == {1: 3.0, 2: 4.5}
    assert studies.gains(TABLE, "mlp", "RigL", 0.99, 8).to_dict() == {1: -0.5}
    assert studies.gains(TABLE, "protocol", "RigL", 0.99, 2).to_dict() == {1: -3.0}
    growth = studies.gains(TABLE, "mlp", "RigL", 0.99, 2, (GROWTH, PLAIN))
    assert growth.to_dict() == {1: -1.0, 2: -4.5}
    explored = studies.gains(TABLE, "mlp", "RigL", 0.99, 2, (OURS, GROWTH), "ITOP")
    assert explored.to_dict() == {1: 10.5, 2: 10.5}
    assert studies.gains(TABLE, "mlp", "SRigL", 0.95, 2).empty


def test_gains_are_summed_up_where_both_arms_have_a_seed_in_common():
    found = studies.gain_table(TABLE, "mlp")
    assert found.index.names == ["method", "sparsity", "passes"]
    assert list(found.columns) == ["mean", "min", "max"]
    due = {("RigL", 0.95, 2): [1, 1, 1], ("RigL", 0.99, 2): [3.75, 3, 4.5], ("RigL", 0.99, 8): [-0.5] * 3}
    due["SET", 0.99, 2] = [3.5] * 3
    assert {key: row.tolist() for key, row in found.iterrows()} == due
    assert found.index.tolist() == list(due)
    other = studies.gain_table(TABLE, "protocol")
    assert {key: row.tolist() for key, row in other.iterrows()} == {("RigL", 0.99, 2): [-3, -3, -3]}


def test_arms_are_summed_up_in_the_order_asked_for():
    found = studies.arm_table(TABLE, (GROWTH, OURS, PLAIN, HAM), 0.99, 2)
    assert found.index.tolist() == [GROWTH, OURS, PLAIN, HAM]
    assert list(found.columns) == ["mean", "min", "max", "count"]
    assert found.loc[GROWTH].tolist() == [56.5, 56, 57, 2]
    assert found.loc[OURS].tolist() == [63, 61, 65, 3]
    assert found.loc[PLAIN].tolist() == pytest.approx([(40 + 60.5 + 58) / 3, 40, 60.5, 3])
    assert studies.arm_table(TABLE, (OURS,), 0.99, 8).loc[OURS].tolist() == [70, 70, 70, 1]


# ---- published numbers -----------------------------------------------------------------------------------------------

RIGL = {0.9: (73.88, 74.99, 75.26), 0.95: (72.33, 73.36, 73.62), 0.97: (69.94, 72.00, 72.35)}
SET = {0.9: (73.69, 74.83, 75.17), 0.95: (71.84, 73.51, 73.82), 0.97: (70.12, 72.17, 72.65)}
OUR_RIGL = {0.9: (74.41, 75.06, 75.26), 0.95: (72.93, 73.62, 73.95), 0.97: (71.15, 72.65, 72.66)}
OUR_SET = {0.9: (74.15, 74.81, 74.85), 0.95: (72.59, 73.75, 73.79), 0.97: (71.43, 72.40, 72.73)}
LENGTHS = (90, 180, 270)


def test_published_numbers_are_those_of_the_card():
    known = ledger.load("sparseopt").published
    assert set(known) == {"plain", "SparseOpt", "ITOP", "skew"}
    for arm, tables in ((PLAIN, (RIGL, SET)), (OURS, (OUR_RIGL, OUR_SET))):
        due = {
            f"{method} {sparsity}": {str(passes): value for passes, value in zip(LENGTHS, values)}
            for method, table in zip(("RigL", "SET"), tables)
            for sparsity, values in table.items()
        }
        assert known[arm] == due
    rates = {PLAIN: (74, 54, 40), OURS: (75, 56, 43), GROWTH: (61, 40, 27)}
    assert known["ITOP"] == {arm: dict(zip(("0.9", "0.95", "0.97"), each)) for arm, each in rates.items()}
    assert known["skew"] == {"batch norm": 3.55, "no norm": 1.05}


def test_our_gains_stand_beside_the_published_ones():
    found = studies.beside_published(TABLE, ledger.load("sparseopt").published)
    assert found.index.names == ["where", "method", "sparsity", "passes"]
    assert list(found.columns) == ["plain", "SparseOpt", "gain", "lowest", "highest", "seeds"]
    here = {
        ("RigL", 0.95, 2): [79, 80, 1, 1, 1, 1],
        ("RigL", 0.99, 2): [59.25, 63, 3.75, 3, 4.5, 2],  # of the seeds that both arms have
        ("RigL", 0.99, 8): [70.5, 70, -0.5, -0.5, -0.5, 1],
        ("SET", 0.99, 2): [62.5, 66, 3.5, 3.5, 3.5, 1],
    }
    published = {}
    for method, plain, ours in (("RigL", RIGL, OUR_RIGL), ("SET", SET, OUR_SET)):
        for sparsity, values in plain.items():
            for passes, one, other in zip(LENGTHS, values, ours[sparsity]):
                published[method, sparsity, passes] = [one, other, other - one, NO, NO, NO]
    assert found.index.tolist() == [*(("here", *key) for key in here), *(("published", *key) for key in published)]
    np.testing.assert_allclose(found, [*here.values(), *published.values()], atol=1e-9)
    gains = {key[1:]: value for key, value in found["gain"].items() if key[0] == "published"}
    assert gains["RigL", 0.97, 90] == 1.21
    assert gains["SET", 0.97, 90] == 1.31
    assert gains["SET", 0.9, 270] == -0.32
    assert gains["RigL", 0.9, 270] == 0


# ---- curves ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("curve", "level", "passes"),
    [
        ([50, 70, 80, 79], 75, 2.5),
        ([50, 70, 80, 79], 70, 2),  # exactly there
        ([50, 70, 80, 79], 50, 1),
        ([50, 70, 80, 79], 10, 1),  # before the first look
        ([50, 70, 80, 79], 80, 3),
        ([50, 70, 80, 79], 80.1, 4),  # never
        ([50, 70], 90, 2),
        ([50, 70, 60, 80], 65, 1.75),  # the first time
        ([50, 40, 60, 80], 45, 1),
        ([50, 40, 30, 80], 55, 3.5),
        ([60, 40, 50, 80], 60.0001, 3 + 10.0001 / 30),
        ([50], 60, 1),
        ([50], 40, 1),
        ([50, 50, 51], 51, 3),
    ],
)
def test_passes_until_a_level_is_reached(curve, level, passes):
    found = studies.passes_to(np.array(curve, float), level)
    assert isinstance(found, float)
    assert found == pytest.approx(passes, abs=1e-9)


def with_curve(*validation):
    """A trial whose training curve has nothing to do with that on validation images."""
    validation = np.array(validation)
    return SimpleNamespace(curve=np.stack([validation[::-1] ** 2, validation], axis=1))


BASE = Job("mlp", "RigL", PLAIN, 0.99, 4, 1)
TRIALS = {
    replace(BASE, seed=3): with_curve(0.3, 0.5, 0.4, 0.44),  # ends below its best
    BASE: with_curve(0.5, 0.6, 0.8, 0.9),
    replace(BASE, arm=OURS): with_curve(0.7, 0.85, 0.89, 0.86),
    replace(BASE, arm=OURS, seed=3): with_curve(0.1, 0.2, 0.3, 0.4),
    replace(BASE, method="SET"): with_curve(0.2, 0.2, 0.2, 0.2),
    replace(BASE, sparsity=0.95): with_curve(0.21, 0.2, 0.2, 0.2),
    replace(BASE, passes=2): with_curve(0.22, 0.2),
    replace(BASE, arm=HAM): with_curve(0.23, 0.2, 0.2, 0.2),
    replace(BASE, network="protocol"): SimpleNamespace(curve=None),
    replace(BASE, method="SRigL", gamma=0.0): with_curve(0.24, 0.2, 0.2, 0.2),
    replace(BASE, method="SRigL", gamma=0.3, seed=2): with_curve(0.25, 0.2, 0.2, 0.2),
}


def test_curves_are_of_one_arm_in_per_cent_and_in_the_order_of_seeds():
    found = studies.curves(TRIALS, "RigL", PLAIN, 0.99, 4)
    assert list(found) == [1, 3]
    assert found[1][:, 1].tolist() == pytest.approx([50, 60, 80, 90])
    assert found[1][:, 0].tolist() == pytest.approx([81, 64, 36, 25])
    assert found[3][:, 1].tolist() == pytest.approx([30, 50, 40, 44])
    firsts = {}
    for change in ({"method": "SET"}, {"sparsity": 0.95}, {"passes": 2}, {"arm": HAM}, {"method": "SRigL"}):
        case = {"method": "RigL", "arm": PLAIN, "sparsity": 0.99, "passes": 4} | change
        ((seed, curve),) = studies.curves(TRIALS, **case).items()
        firsts[next(iter(change.values()))] = (seed, round(float(curve[0, 1]), 9))
    assert firsts == {"SET": (1, 20), 0.95: (1, 21), 2: (1, 22), HAM: (1, 23), "SRigL": (2, 25)}


def test_curves_of_seeds_become_a_mean_and_a_range():
    found = studies.over_passes(studies.curves(TRIALS, "RigL", PLAIN, 0.99, 4), 1)
    assert found.index.tolist() == [1, 2, 3, 4]
    assert found.index.name == "pass"
    assert list(found.columns) == ["mean", "min", "max"]
    due = [[40, 30, 50], [55, 50, 60], [60, 40, 80], [67, 44, 90]]
    np.testing.assert_allclose(found, due)
    training = studies.over_passes(studies.curves(TRIALS, "RigL", PLAIN, 0.99, 4), 0)
    np.testing.assert_allclose(training.loc[1], [(81 + 19.36) / 2, 19.36, 81])


def test_speeds_are_passes_to_what_the_plain_network_of_the_seed_ends_with():
    found = studies.speeds(TRIALS, "RigL", 0.99, 4)
    assert found.index.tolist() == [1, 3]
    assert found.index.name == "seed"
    assert list(found.columns) == ["plain", "SparseOpt"]
    # 98 % of 90 is 88.2, of 44 is 43.12
    np.testing.assert_allclose(found, [[3 + 8.2 / 10, 2 + 3.2 / 4], [1 + 13.12 / 20, 4]])
