"""Studies of SparseOpt: the skew against gradients by hand in double precision, and tables made of tables by hand."""

import copy
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn
from torch.nn import functional

from papertwin import ledger
from papertwin.nets.initial import seeded
from papertwin.nets.layers import dense
from papertwin.papers import sparseopt as paper
from papertwin.papers import sparseopt_studies as studies
from papertwin.papers.sparseopt import GROWTH, HAM, OURS, PLAIN, Job
from papertwin.papers.sparseopt_studies import KINDS, Kind
from papertwin.sparse.masks import constant_fan_in_mask
from papertwin.sparse.protocol import perceptron
from papertwin.training.trials import SetSizes, draw_sets

# ---- the skew in theory ----------------------------------------------------------------------------------------------


def test_theory_is_a_root_only_behind_a_normalisation_of_masked_first_weights():
    skewed = (Kind("batch"), Kind("layer"), Kind("batch", "masked", "torch"))
    for kind in skewed:
        assert [kind.theory(share) for share in (0.0, 0.75, 0.9)] == pytest.approx([1, 2, 3.16227766])
    for kind in (Kind("none"), Kind("none", "fan_in"), Kind("batch", "fan_in"), Kind("layer", "fan_in")):
        assert [kind.theory(share) for share in (0.0, 0.75, 0.9)] == [1, 1, 1]


def test_every_kind_and_share_of_the_claims_is_measured():
    assert {
        "batch norm": Kind("batch", "masked", ""),
        "layer norm": Kind("layer", "masked", ""),
        "batch norm, fan-in": Kind("batch", "fan_in", ""),
        "no norm": Kind("none", "masked", ""),
        "no norm, torch's weights": Kind("none", "masked", "torch"),
    } == KINDS
    assert studies.SHARES == (0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95)


# ---- the skew, measured ----------------------------------------------------------------------------------------------

INPUTS = 20
TEST_SHARES = (0.0, 0.25, 0.5, 0.9)


def some_images(count=12, side=(4, 5)):
    generator = torch.Generator().manual_seed(7)
    return torch.randn(count, 1, *side, generator=generator), torch.arange(count) % 10


def gradient_by_hand(images, labels, weights, norm):
    """Gradient of the cross-entropy by the first layer of a two-layer perceptron: no autograd, double precision."""
    first, bias, last, last_bias = weights
    inputs = images.reshape(len(images), -1)
    before = inputs @ first.T + bias
    axis = {"batch": 0, "layer": 1, "none": None}[norm]
    spread, normed = 1.0, before
    if axis is not None:
        spread = np.sqrt(before.var(axis, keepdims=True) + 1e-5)
        normed = (before - before.mean(axis, keepdims=True)) / spread
    logits = np.maximum(normed, 0) @ last.T + last_bias
    chances = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    error = (chances - np.eye(10)[labels]) / len(labels)
    back = (error @ last) * (normed > 0)
    if axis is not None:
        back = back - back.mean(axis, keepdims=True) - normed * (back * normed).mean(axis, keepdims=True)
    return (back / spread).T @ inputs


def first_weights(kind, hidden, seed):
    """Dense weights and biases of both layers, drawn one after the other."""
    with seeded(seed):
        own = kind.dense == "torch"
        layers = [nn.Linear(INPUTS, hidden), nn.Linear(hidden, 10)] if own else [dense(INPUTS, hidden)]
        layers += [] if own else [dense(hidden, 10, last=True)]
    return [each.detach().double().numpy() for layer in layers for each in (layer.weight, layer.bias)]


def by_hand(kind, hidden, seed, share):
    """Mean |gradient| over active weights with that share of each neuron's inputs masked."""
    images, labels = (each.double().numpy() for each in some_images())
    weights = first_weights(kind, hidden, seed)
    generator = torch.Generator().manual_seed(seed)
    fan_in = round(INPUTS * (1 - share))
    mask = constant_fan_in_mask((hidden, INPUTS), fan_in, generator)
    if kind.first == "fan_in":  # drawn after the mask, also where nothing is masked
        draw = torch.randn(mask.shape, generator=generator, dtype=torch.float64)
        weights[0] = draw.numpy() * np.sqrt(2 / fan_in)
    weights[0] = weights[0] * mask.numpy()
    gradient = gradient_by_hand(images, labels.astype(int), weights, kind.norm)
    return np.abs(gradient)[mask.numpy()].mean()


@pytest.mark.parametrize("seed", [0, 3])
@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
def test_ratios_are_those_of_gradients_by_hand(kind, seed, monkeypatch):
    monkeypatch.setattr(studies, "HIDDEN", 6)
    found = studies.skew_ratios(some_images(), kind, seed, TEST_SHARES)
    base = by_hand(kind, 6, seed, 0.0)
    assert found == pytest.approx([by_hand(kind, 6, seed, share) / base for share in TEST_SHARES], rel=1e-4)
    assert found[0] == 1.0
    assert len({round(ratio, 3) for ratio in found}) == len(TEST_SHARES)


def test_all_shares_are_measured_where_none_is_asked_for(monkeypatch):
    monkeypatch.setattr(studies, "HIDDEN", 6)
    found = studies.skew_ratios(some_images(), KINDS["batch norm"], 1)
    assert len(found) == 11
    assert found == [studies.skew_ratios(some_images(), KINDS["batch norm"], 1, [s])[0] for s in studies.SHARES]


def test_the_measured_network_is_as_wide_as_the_claims_say():
    model = studies.two_layers(784, KINDS["batch norm"], 1)
    assert [type(layer).__name__ for layer in model] == ["Flatten", "Linear", "BatchNorm1d", "ReLU", "Linear"]
    assert (model.fc1.weight.shape, model.fc2.weight.shape) == ((256, 784), (10, 256))
    kinds = [type(studies.two_layers(9, kind, 1).norm).__name__ for kind in KINDS.values()]
    assert kinds == ["BatchNorm1d", "LayerNorm", "BatchNorm1d", "Identity", "Identity"]


def test_the_table_has_every_kind_seed_and_share(monkeypatch):
    asked, drawn = [], []

    def ratios(data, kind, seed):
        asked.append((float(data[0].sum()), int(data[1].sum()), kind, seed))
        return [len(asked) + share for share in studies.SHARES]

    def draw(sizes, seed):
        drawn.append((sizes, seed))
        return SimpleNamespace(train=(np.full((2, 1), seed, np.float32), np.array([seed, 5])))

    monkeypatch.setattr(studies, "skew_ratios", ratios)
    monkeypatch.setattr(studies, "draw_sets", draw)
    table = studies.skew_table(paper.Params(seeds=2, few_seeds=2, seed=3, skew_images=345, device="cpu"))
    assert drawn == [(SetSizes("mnist", 28, 345, 50, 50), seed) for seed in (4, 5)]
    assert asked == [(2.0 * seed, seed + 5, kind, seed) for seed in (4, 5) for kind in KINDS.values()]
    assert list(table.columns) == ["kind", "seed", "share", "ratio", "theory"]
    due = []
    for number, (seed, name) in enumerate(((seed, name) for seed in (4, 5) for name in KINDS), start=1):
        skewed = name in ("batch norm", "layer norm")
        due += [[name, seed, s, number + s, (1 - s) ** -0.5 if skewed else 1.0] for s in studies.SHARES]
    assert table[["kind", "seed", "share", "ratio"]].to_numpy().tolist() == [row[:4] for row in due]
    assert table["theory"].tolist() == pytest.approx([row[4] for row in due])


def test_gradients_of_mnist_are_as_the_theory_says():
    """At a twentieth of the claims' cost, so within a wider margin than theirs."""
    data = tuple(map(torch.from_numpy, draw_sets(SetSizes("mnist", 28, 256, 50, 50), 1).train))
    for name in ("batch norm", "batch norm, fan-in"):
        (ratio,) = studies.skew_ratios(data, KINDS[name], 1, [0.9])
        assert ratio == pytest.approx(KINDS[name].theory(0.9), rel=0.25), name


# ---- a layer whose neurons differ ------------------------------------------------------------------------------------


def test_fan_ins_are_spread_evenly_by_their_logarithm_from_one_to_all():
    assert studies.spread_mask((7, 64), 1).sum(1).tolist() == [1, 2, 4, 8, 16, 32, 64]
    assert studies.spread_mask((5, 81), 1).sum(1).tolist() == [1, 3, 9, 27, 81]
    assert studies.spread_mask((4, 10), 1).sum(1).tolist() == [1, 2, 5, 10]  # 10^(1/3) = 2.15, 10^(2/3) = 4.64
    large = studies.spread_mask((256, 256), 3)
    assert large.dtype == torch.bool
    assert large.sum(1).tolist() == np.round(np.geomspace(1, 256, 256)).astype(int).tolist()


def test_places_of_active_weights_are_random_in_each_neuron():
    first, again, other = (studies.spread_mask((400, 30), seed) for seed in (2, 2, 3))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert torch.equal(first.sum(1), other.sum(1))
    one = first[first.sum(1) == 1]
    assert len(one) > 40
    assert int(one.any(0).sum()) > 15, "single weights stand everywhere"
    middle = first[(first.sum(1) > 9) & (first.sum(1) < 21)]
    shares = middle.double().mean(0)
    assert shares.min() > 0.25
    assert shares.max() < 0.75


def layer_gradient(model, data, layer):
    """Gradient of a layer's weights by autograd, in double precision."""
    twin = copy.deepcopy(model).double()
    weight = twin.get_submodule(layer).weight
    loss = functional.cross_entropy(twin(data[0].double()), data[1])
    return torch.autograd.grad(loss, weight)[0]


@pytest.mark.parametrize("layer", ["fc1", "fc2"])
def test_a_skewed_layer_is_compared_with_the_dense_network(layer):
    model = perceptron(10, in_channels=1, seed=2, neurons=9, side=5)
    data = some_images(40, (5, 5))
    before = copy.deepcopy(model)
    found = studies.skewed_layer(model, data, layer, 6)
    shape = tuple(before.get_submodule(layer).weight.shape)
    mask = studies.spread_mask(shape, 6)
    sparse = copy.deepcopy(before)
    sparse.get_submodule(layer).weight.data.mul_(mask)
    dense_one, sparse_one = layer_gradient(before, data, layer), layer_gradient(sparse, data, layer)
    counts = [int(row.sum()) for row in mask]
    due = {"fan-in": counts, "theory": [np.sqrt(shape[1] / count) for count in counts]}
    due["raw"] = [float(s[m].abs().mean() / d.abs().mean()) for s, d, m in zip(sparse_one, dense_one, mask)]
    due["norm"] = [float((s[m] ** 2).sum() / (d**2).sum()) ** 0.5 for s, d, m in zip(sparse_one, dense_one, mask)]
    due["factor"] = [np.sqrt(count / np.mean(counts)) for count in counts]
    assert list(found.columns) == ["fan-in", "theory", "raw", "norm", "factor"]
    for name, column in due.items():
        np.testing.assert_allclose(found[name], column, rtol=1e-3, atol=1e-4, err_msg=name)
    assert counts[0] == 1
    assert found["norm"][0] < 1e-2, "behind a normalisation a single weight only scales, so it learns nothing"
    weights = dict(sparse.named_parameters())
    assert all(torch.equal(value, weights[name]) for name, value in model.named_parameters()), "others are untouched"


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


def test_figure_2_shows_the_second_layer_of_the_first_seed():
    params = paper.Params(train_images=300, width=32, conv_images=100, device="cpu")
    found = studies.skewed_neurons(params, images=100)
    sets = draw_sets(params.sizes, 1)
    model = paper.builders(params)["mlp"](10, in_channels=1, seed=1)
    batch = tuple(torch.from_numpy(each[:100]) for each in sets.train)
    wanted = studies.skewed_layer(model, batch, "fc2", 1).set_index("fan-in")
    pd.testing.assert_frame_equal(found, wanted)
    assert (found.index[0], found.index[-1]) == (1, 32)
