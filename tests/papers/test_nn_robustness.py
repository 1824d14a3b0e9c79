"""The experiments on robustness: parameters, draws, tables, the plane and CIFAR-10."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from papertwin.data.images import Images
from papertwin.errors import ParameterError
from papertwin.nets import mlp
from papertwin.papers import nn_robustness as paper
from papertwin.papers import nn_robustness_claims as claims
from papertwin.robustness import toy
from papertwin.robustness.many import SeedPool
from papertwin.robustness.outcome import Adversarial
from papertwin.robustness.study import Study
from papertwin.training.loop import predict

PARAMS = paper.Params(device="cpu")


# parameters and draws


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"mlp_points": 1, "tuned_points": 1, "full_mlp_points": 1}, "mlp_points is 1; it must be at least 2"),
        ({"lenet_points": 0, "full_points": 0}, "lenet_points is 0; it must be at least 1"),
        ({"tuned_points": 0}, "tuned_points is 0"),
        ({"tune_points": 0}, "tune_points is 0"),
        ({"tune_images": 0, "tune_points": 0}, "tune_points is 0"),
        ({"replicates": 0}, "replicates is 0"),
        ({"full_points": 0}, "full_points is 0"),
        ({"full_mlp_points": 0}, "full_mlp_points is 0"),
        ({"nin_points": -1}, "nin_points is -1; it must be at least 0"),
        ({"levels": 0}, "levels is 0"),
        ({"processes": -1}, "processes is -1"),
        ({"tuned_points": 101}, "tuned_points is 101; it can be at most the 100 of mlp_points"),
        ({"full_mlp_points": 101}, "full_mlp_points is 101; it can be at most the 100 of mlp_points"),
        ({"full_points": 61}, "full_points is 61; it can be at most the 60 of lenet_points"),
        ({"tuned_points": 61}, "tuned_points is 61; it can be at most the 60 of lenet_points"),
        ({"tune_images": 60_001}, "60,000 training images"),
        ({"nin_points": 10_001}, "10,000 test images"),
        ({"seed": -1}, "seed is -1"),
        ({"tune_points": 2001}, "tune_points is 2001; it can be at most the 2,000 of tune_images"),
        ({"mlp_points": 10_001}, "10,000 test images"),
        ({"lenet_points": 10_001}, "10,000 test images"),
        ({"limit": 0.0}, "limit is 0.0; it must be above 0"),
        ({"limit": math.nan}, "limit is nan"),
    ],
)
def test_numbers_that_no_experiment_can_use_are_refused(changes, message):
    with pytest.raises(ParameterError, match=message):
        replace(paper.Params(), **changes)


def test_the_smallest_and_the_largest_numbers_are_taken():
    least = {"lenet_points": 1, "tuned_points": 1, "tune_points": 1, "tune_images": 1, "full_points": 1, "levels": 1}
    paper.Params(mlp_points=2, full_mlp_points=2, **least)
    paper.Params(
        mlp_points=10_000,
        full_mlp_points=10_000,
        lenet_points=10_000,
        tuned_points=10_000,
        tune_points=2000,
        full_points=10_000,
    )
    assert paper.Params(levels=51).threshold == 0.2


def test_images_are_drawn_without_replacement_and_more_of_them_begin_with_the_same():
    split = Images(np.arange(40, dtype=np.uint8).reshape(40, 1, 1, 1), np.arange(40) % 10, tuple("0123456789"))
    images, labels = paper.choose(split, 40, seed=3)
    assert images.dtype == np.float64
    rows = np.round(images.ravel() * 255).astype(int)
    assert np.array_equal(images.ravel(), (rows / np.float32(255)).astype(np.float32))
    assert sorted(rows) == list(range(40)) != rows.tolist()
    assert np.array_equal(labels, rows % 10)
    for part, first in zip(paper.choose(split, 7, seed=3), (images, labels), strict=True):
        assert np.array_equal(part, first[:7])
    assert not np.array_equal(paper.choose(split, 40, seed=4)[0], images)


def test_as_many_processes_as_asked_for_and_one_a_core_for_zero(monkeypatch):
    monkeypatch.setattr(paper, "SeedPool", lambda processes: processes)
    assert paper.open_pool(replace(PARAMS, processes=3)) == 3
    assert paper.open_pool(PARAMS) is None


def test_networks_are_stored_ones_unless_training_is_asked_for(monkeypatch):
    monkeypatch.setattr(paper, "stored", lambda name: f"stored {name}")
    monkeypatch.setattr(paper, "train", lambda name, device: f"trained {name} on {device}")
    assert paper.network("mlp-1", PARAMS) == "stored mlp-1"
    assert paper.network("mlp-1", replace(PARAMS, retrain=True)) == "trained mlp-1 on cpu"


def test_a_long_run_trains_each_network_once(monkeypatch, tmp_path):
    monkeypatch.setenv("PAPERTWIN_CACHE", str(tmp_path))
    trained = []
    monkeypatch.setattr(paper, "train", lambda name, device: trained.append(name) or mlp((4, 3, 2), seed=len(trained)))
    monkeypatch.setattr(paper, "untrained", lambda name: mlp((4, 3, 2), seed=0))
    long = replace(PARAMS, retrain=True, profile="full")
    first, again, other = (paper.network(name, long) for name in ("mlp-1", "mlp-1", "mlp-2"))
    assert trained == ["mlp-1", "mlp-2"]
    assert not again.training
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), again.parameters(), strict=True))
    assert not torch.equal(first[1].weight, other[1].weight)


# tables


@pytest.fixture
def studies():
    """Five points (label 0), one of them misclassified; the linear program runs out of time on another."""

    def found(epsilon, label=0, status="found", witness=None):
        return Adversarial(epsilon, witness, label, 1, 1, 0.0, status)

    image = np.full((1, 4, 4), 0.5)
    nothing = found(math.inf, status="infeasible")
    lp = [found(0.05, witness=image), found(0.07, witness=image), nothing, found(0.02, label=1)]
    lbfgs = [found(0.06), found(0.3), found(0.04), found(0.01, label=1), found(0.02)]
    outcomes = {"lp": [*lp, found(math.nan, status="timeout")], "lbfgs": lbfgs, "pgd": lbfgs[::-1]}
    first = Study("one", mlp((16, 4, 3), seed=0), 0.75, np.zeros((5, 1, 4, 4)), np.zeros(5, int), outcomes)
    return [first, replace(first, name="two", accuracy=0.5, outcomes={"lp": outcomes["lp"]})]


def test_metrics_table_by_hand(studies):
    """Over the three points that both algorithms measured, whatever else one of them measured."""
    one, two = studies[0], replace(studies[0], name="one, LP T=2", accuracy=0.5)
    table = paper.metrics_table([paper.Tuning(one, [two], {"one, LP T=2": 7})], PARAMS)
    assert table.index.name == "network"
    assert table.index.tolist() == ["one", "one, LP T=2"]
    first = ["examples", "accuracy", "points", "feasible", "timed out", "misclassified"]
    shares = [
        f"{letter} {name}{end}" for name in ("L-BFGS-B", "LP") for end in ("", " low", " high") for letter in "φμ"
    ]
    assert table.columns[:6].tolist() == first
    assert set(table.columns[6:]) == set(shares)
    assert table.loc["one", first].tolist() == [0, 0.75, 3, 2, 1, 1]
    assert table.loc["one, LP T=2", first].tolist() == [7, 0.5, 3, 2, 1, 1]
    row = table.loc["one"]
    assert (row["φ LP"], row["φ L-BFGS-B"]) == pytest.approx((2 / 3, 2 / 3))
    assert (row["μ LP"], row["μ L-BFGS-B"]) == pytest.approx((0.06, 0.05))
    assert row["φ LP low"] == pytest.approx(0.2077, abs=1e-4)  # Wilson, 2 of 3
    (strict,) = paper.metrics_table([paper.Tuning(one, [], {})], replace(PARAMS, levels=15)).to_dict("records")
    assert (strict["φ LP"], strict["φ L-BFGS-B"]) == pytest.approx((1 / 3, 1 / 3))  # 15 / 255 = 0.0588


def test_metrics_of_no_point_are_missing(studies):
    nothing = {method: [replace(each, label=1) for each in found] for method, found in studies[0].outcomes.items()}
    table = paper.metrics_table([paper.Tuning(replace(studies[0], outcomes=nothing), [], {})], PARAMS)
    assert table.loc["one", ["points", "feasible", "misclassified"]].tolist() == [0, 0, 5]
    assert table.filter(regex="φ|μ").isna().all(axis=None)


def test_fates_table_has_a_row_for_every_network_and_algorithm(studies):
    table = paper.fates_table(studies, PARAMS)
    assert table.index.names == ["network", "algorithm"]
    assert table.index.tolist() == [("one", "lp"), ("one", "lbfgs"), ("one", "pgd"), ("two", "lp")]
    row = table.loc[("two", "lp")]
    columns = ["points", "misclassified", "found", "infeasible", "timed out", "other", "within threshold"]
    assert row[columns].tolist() == [5, 1, 2, 1, 1, 0, 2]
    assert paper.fates_table(studies, replace(PARAMS, levels=15)).loc[("two", "lp"), "within threshold"] == 1


def test_wins_table_compares_what_is_there(studies):
    table = paper.wins_table(studies)
    pairs = ["LP against L-BFGS-B", "LP against PGD", "L-BFGS-B against PGD"]
    assert table.index.names == ["network", "pair"]
    assert table.index.tolist() == [("one", pair) for pair in pairs]
    assert table.columns.tolist() == ["first nearer", "second nearer", "equal", "neither found"]
    assert table.loc[("one", pairs[0])].tolist() == [2, 1, 0, 0]  # 0.05 to 0.06, 0.07 to 0.3, none to 0.04
    near = replace(studies[0], outcomes={"lp": studies[0].outcomes["lp"], "lbfgs": studies[0].outcomes["lp"]})
    near.outcomes["lbfgs"] = [replace(near.outcomes["lp"][0], epsilon=0.05009), *near.outcomes["lp"][1:]]
    assert paper.wins_table([near]).loc[("one", pairs[0])].tolist() == [0, 0, 2, 1]


# the plane, CIFAR-10


@pytest.fixture(scope="module")
def flat():
    """The two-dimensional examples, as the notebook shows them."""
    return paper.planes(paper.Params())


def test_the_network_of_the_plane_classifies_all_of_its_points(flat):
    points, labels = toy.plane_data(400, 0)
    for each in flat:
        assert np.array_equal(each.points, points)
        assert np.array_equal(each.labels, labels)
        assert np.array_equal(predict(each.model, points), labels)


def test_the_optima_on_the_plane_are_those_of_its_grid(flat):
    assert [tuple(each.seed) for each in flat] == list(paper.TOY_SEEDS)
    for each in flat:
        assert each.optimum.status == "found"
        assert each.spacing == pytest.approx(0.0025)
        assert -1e-6 <= each.grid_region - each.optimum.epsilon <= each.spacing
        assert np.abs(each.optimum.witness - each.seed).max() == each.optimum.epsilon
        before, after = toy.logit_lead(each.model, np.array([each.seed, each.optimum.witness]))
        assert abs(after) < 1e-4 < 0.1 < abs(before)


def test_the_nearest_point_lies_in_the_region_of_the_first_seed_and_outside_that_of_the_second(flat):
    first, second = flat
    assert first.grid_plane == first.grid_region
    assert second.grid_plane < second.grid_region - second.spacing


def test_the_two_searches_on_the_grid_are_of_the_region_and_of_the_plane(monkeypatch):
    """Without training: a network whose first region holds no other label, although the plane does."""
    model = mlp((2, 2, 2), seed=0)
    values = ([[-1.0, 0.0], [1.0, 0.0]], [0.5, -0.5], [[1.0, 0.0], [0.0, 1.0]], [0.0, 0.0])
    for parameter, value in zip(model.parameters(), values, strict=True):
        parameter.data = torch.tensor(value)
    asked = []
    monkeypatch.setattr(paper, "TOY_SEEDS", ((0.42, 0.4), (0.75, 0.6)))
    monkeypatch.setattr(toy, "plane_network", lambda *data, seed: asked.append(seed) or model)
    found = paper.planes(paper.Params(seed=6))  # logits 0.5 − x and x − 0.5 where positive: label 1 right of 0.5
    assert asked == [6]
    assert np.array_equal(found[0].points, toy.plane_data(400, 6)[0])
    assert [each.grid_region for each in found] == pytest.approx([math.inf, 0.75 - 0.5])  # a border, where a tie is 0
    assert [each.grid_plane for each in found] == pytest.approx([0.5025 - 0.42, 0.75 - 0.5])


@pytest.fixture
def without_cifar(monkeypatch):
    """CIFAR-10 is asked for and not here."""
    monkeypatch.setattr(paper.registry, "present", lambda name: {"cifar10": False}[name])
    return replace(PARAMS, nin_points=3)


def test_cifar_is_left_out_with_a_reason(without_cifar):
    assert paper.cifar(PARAMS, None) == (None, "nin_points is 0: this profile leaves CIFAR-10 out.")
    nothing, reason = paper.cifar(without_cifar, None)
    assert nothing is None
    assert "CIFAR-10 is not here" in reason
    judged = claims.encoding_cifar(nothing, reason)
    assert (judged.value, judged.note) == (None, reason)


def test_cifar_is_measured_by_the_linear_program_where_it_is(without_cifar, monkeypatch):
    colour = np.random.default_rng(0).integers(0, 256, (20, 3, 4, 4)).astype(np.uint8)
    split, model = Images(colour, np.arange(20) % 3, ("a", "b", "c")), mlp((48, 6, 3), seed=0)
    monkeypatch.setattr(paper.registry, "present", lambda name: {"cifar10": True}[name])
    monkeypatch.setattr(paper, "load_images", lambda *which: {("cifar10", "test"): split}[which])
    monkeypatch.setattr(paper, "train", lambda name, device: {("nin", "cpu"): model}[name, device])
    found, reason = paper.cifar(without_cifar, SeedPool(1))
    assert (found.name, reason, list(found.outcomes)) == ("NiN", "", ["lp"])
    assert np.array_equal(found.images, paper.choose(split, 3, 0)[0])
    assert found.accuracy == (predict(model, split.scaled()) == split.labels).mean()
