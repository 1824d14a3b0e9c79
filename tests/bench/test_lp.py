"""The benchmark of the linear programs, on small networks: what it reports is right; how fast, only it itself says."""

import json
from dataclasses import replace

import numpy as np
import pytest
from torch import nn

from papertwin.bench import available, lp
from papertwin.data.images import load_images
from papertwin.errors import RunError
from papertwin.nets import stored
from papertwin.robustness.many import SeedPool
from papertwin.robustness.outcome import Robustness
from papertwin.robustness.pointwise import pointwise_robustness

KINDS = ("feasible", "infeasible")


def small(name: str) -> nn.Sequential:
    """A network for 28×28 images with few rows."""
    import torch

    torch.manual_seed(2)
    if name == "mlp-0":
        return nn.Sequential(nn.AvgPool2d(4), nn.Flatten(), nn.Linear(49, 12), nn.ReLU(), nn.Linear(12, 10))
    return nn.Sequential(nn.AvgPool2d(4), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(9, 40), nn.ReLU(), nn.Linear(40, 10))


@pytest.fixture
def little(monkeypatch):
    """Small networks, few seeds and one process."""
    monkeypatch.setattr(lp, "SEEDS", {"mlp-0": (0, 1, 2), "lenet": (3, 4, 5, 6)})
    monkeypatch.setattr(lp, "LENET_FEASIBLE", ())
    monkeypatch.setattr(lp, "stored", small)
    monkeypatch.setattr(lp.machine, "cores", lambda: 1)


def outcome(seconds: float, epsilon: float = 0.1, status: str = "found") -> Robustness:
    witness = np.zeros(1) if np.isfinite(epsilon) else None
    timings = dict(zip(lp.STAGES, (0.1 * seconds, 0.2 * seconds, 0.3 * seconds, 0.0)))
    return Robustness(epsilon, witness, 0, 1, 1, seconds, status, 3, 20, 0, np.inf, timings)


def test_the_benchmark_is_known():
    assert "lp" in available()


def test_a_whole_run(little):
    seen = []
    result = lp.run(lambda text, done: seen.append(done))
    assert seen == sorted(seen)
    assert (seen[0], seen[-1]) == (0.0, 1.0)
    assert result.headline["goal"] == 10.0
    assert "4 seeds of LeNet" in result.headline["figure"]
    assert result.threads == 1
    measured = [row for row in result.rows if "s" in row]
    for network, seeds in (("MLP", 3), ("LeNet", 4)):
        for way in lp.ways():
            mine = [
                r for r in measured if (r["network"], r["program"], r["solver"]) == (network, way.program, way.solver)
            ]
            assert sum(row["n"] for row in mine) == seeds
            assert {row["seeds"] for row in mine} <= set(KINDS)
            for row in mine:
                assert 0 < sum(row[f"{stage} s"] for stage in lp.STAGES) <= 1.2 * row["s"] + 0.01
                assert row["details"]["quartiles"] == sorted(row["details"]["quartiles"])
    rates = [row for row in result.rows if "seeds/s" in row]
    assert [row["network"] for row in rates] == ["MLP", "LeNet"]
    assert all(row["seeds/s"] > 0 for row in rates)
    json.loads(result.to_json())
    assert result.table().row_count == len(result.rows)


def test_full_programs_share_a_time_and_one_that_is_cut_off_is_a_row(little, monkeypatch):
    """Each full program takes 40 of 100 seconds: two end, the third gets the 20 that are left, and there is no more."""
    monkeypatch.setattr(lp, "FULL_SECONDS", 100.0)
    limits = []

    def search(model, image, *, limit, lazy=True, **_):
        if lazy:
            assert limit == lp.LAZY_SECONDS
            return outcome(2.0)
        limits.append(limit)
        return outcome(40.0) if limit >= 40 else outcome(limit, np.nan, "timeout")

    monkeypatch.setattr(lp, "pointwise_robustness", search)
    monkeypatch.setattr(lp, "_throughput", lambda *_: [])
    result = lp.run(lambda *_: None)
    assert limits == [100.0, 60.0, 20.0] * 2
    full = [row for row in result.rows if row["network"] == "LeNet" and row["program"] in ("full", "full, timed out")]
    heads = [(row["program"], row["solver"], row["n"], row.get("s")) for row in full]
    assert heads == [("full", "PuLP", 1, 40.0), ("full, timed out", "PuLP", 1, None), ("full", "direct", 1, 40.0)]
    assert full[1]["details"] == {"seeds": [4], "seconds": [20.0]}
    assert result.headline["ratio"] == 20.0
    assert "1 seeds of LeNet, 1 feasible and 0 infeasible" in result.headline["figure"]


@pytest.mark.parametrize("epsilon", [0.2, np.inf])
def test_optima_that_differ_are_an_error(little, monkeypatch, epsilon):
    def search(model, image, *, lazy=True, **_):
        return outcome(0.1) if lazy else outcome(0.1, epsilon, "found" if np.isfinite(epsilon) else "infeasible")

    monkeypatch.setattr(lp, "pointwise_robustness", search)
    with pytest.raises(RunError, match=r"Test image 0: the optima differ .*full"):
        lp.run(lambda *_: None)


@pytest.mark.parametrize("status", ["failed", "unverified"])
def test_a_search_that_fails_is_an_error(little, monkeypatch, status):
    monkeypatch.setattr(lp, "pointwise_robustness", lambda *_, **__: outcome(27.0, np.nan, status))
    with pytest.raises(RunError, match=rf"Test image 0 lazy \(PuLP\).*'{status}' after 27 s"):
        lp.run(lambda *_: None)


def test_where_nothing_ends_that_is_what_is_reported(little, monkeypatch):
    monkeypatch.setattr(lp, "pointwise_robustness", lambda *_, **__: outcome(60.0, np.nan, "timeout"))
    monkeypatch.setattr(lp, "_throughput", lambda *_: [])
    result = lp.run(lambda *_: None)
    assert {row["seeds"] for row in result.rows} == {"undecided"}
    assert sum(row["n"] for row in result.rows if row["program"] == "lazy, timed out") == 2 * (3 + 4)
    assert all(row["program"].endswith(", timed out") for row in result.rows)
    assert np.isnan(result.headline["ratio"])
    assert result.table().row_count == len(result.rows)


def test_a_feasible_seed_that_is_lost_is_an_error(little, monkeypatch):
    monkeypatch.setattr(lp, "LENET_FEASIBLE", (3, 4))
    true = pointwise_robustness
    monkeypatch.setattr(
        lp, "pointwise_robustness", lambda *args, **kw: replace(true(*args, **kw), epsilon=np.inf, status="infeasible")
    )
    with pytest.raises(RunError, match=r"test images \[3, 4\] should be feasible"):
        lp.run(lambda *_: None)


def test_medians_and_ratios_are_of_the_same_seeds():
    """The full program is measured on the slow seed only: its ratio must be to that one."""
    lazy = {1: outcome(1.0), 2: outcome(2.0), 3: outcome(9.0), 4: outcome(0.5, np.inf, "infeasible")}
    found = {way: {} for way in lp.ways()} | {
        lp.LAZY: lazy,
        lp.LAZY_DIRECT: {k: outcome(0.5, lazy[k].epsilon) for k in lazy},
    }
    late = outcome(100.0, np.nan, "timeout")
    found[lp.FULL] = {3: outcome(90.0), 4: outcome(20.0, np.inf, "infeasible"), 2: late, 5: late}
    found[lp.UNPROVEN] = {3: outcome(30.0), 4: outcome(40.0, np.inf, "infeasible"), 1: late}
    rows = {(row["seeds"], row["program"], row["solver"]): row for row in lp._rows("LeNet", found)}
    assert rows["feasible", "lazy", "PuLP"]["s"] == 2.0
    assert rows["feasible", "lazy", "PuLP"]["n"] == 3
    assert rows["feasible", "lazy", "PuLP"]["model s"] == pytest.approx(0.4)
    assert rows["feasible", "full / lazy", "PuLP"]["ratio"] == 10.0
    assert rows["infeasible", "full / lazy", "PuLP"]["ratio"] == 40.0
    assert rows["feasible", "lazy", "PuLP / direct"]["ratio"] == 4.0
    assert rows["infeasible", "lazy", "PuLP / direct"]["ratio"] == 1.0
    assert rows["feasible", "full / lazy, no proof", "PuLP"]["ratio"] == 3.0
    assert rows["infeasible", "full / lazy, no proof", "PuLP"]["ratio"] == 0.5
    assert rows["feasible", "full", "PuLP"]["n"] == rows["feasible", "full, timed out", "PuLP"]["n"] == 1
    assert rows["undecided", "full, timed out", "PuLP"]["n"] == 1
    assert ("undecided", "full", "PuLP") not in rows
    assert ("feasible", "full / lazy", "direct") not in rows
    headline = lp._headline(found)
    assert headline["ratio"] == 25.0
    assert "2 seeds of LeNet, 1 feasible and 1 infeasible" in headline["figure"]
    assert "(1.8x without the proof)" in headline["figure"]
    assert lp._ratio(found[lp.FULL], lazy) == 25.0
    assert np.isnan(lp._ratio({}, lazy))


def test_seeds_are_searched_by_as_many_processes_as_there_are_cores(little, monkeypatch):
    opened = []

    class Pool(SeedPool):
        def __init__(self, processes):
            opened.append(processes)
            super().__init__(1)

    monkeypatch.setattr(lp, "SeedPool", Pool)
    monkeypatch.setattr(lp.machine, "cores", lambda: 3)
    rows = lp._throughput("MLP", small("mlp-0"), load_images("mnist", "test").scaled([0, 1, 2, 3]))
    assert opened == [1, 3]
    assert rows[1]["ratio"] == pytest.approx(rows[1]["seeds/s"] / rows[0]["seeds/s"], abs=0.01)
    assert [row["program"] for row in rows] == ["lazy, 1 process", "lazy, 3 processes"]


def test_seeds_differ_and_suffice():
    for seeds in lp.SEEDS.values():
        assert len(seeds) == len(set(seeds)) > 20
    assert set(lp.LENET_FEASIBLE) <= set(lp.SEEDS["lenet"])
    assert len(set(lp.SEEDS["lenet"]) - set(lp.LENET_FEASIBLE)) >= 20


def test_the_feasible_seeds_of_lenet_are_feasible():
    """Two of the five, the others are for the benchmark itself, which refuses to go on where one is not."""
    for seed in lp.LENET_FEASIBLE[-2:]:
        image = load_images("mnist", "test").scaled([seed])[0]
        result = pointwise_robustness(stored("lenet"), image, margin=lp.MARGIN, proof=False)
        assert result.found
        assert result.rows < 3000
