"""The skew of gradients at first weights, as SparseOpt's notebook measures it, against gradients by hand in float64."""

import copy
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn
from torch.nn import functional

from papertwin.nets.initial import seeded
from papertwin.nets.layers import dense
from papertwin.papers import sparseopt as paper
from papertwin.papers import sparseopt_studies as studies
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
    built, real = [], studies.two_layers
    monkeypatch.setattr(studies, "HIDDEN", 6)
    monkeypatch.setattr(studies, "two_layers", lambda *given: built.append(given) or real(*given))
    found = studies.skew_ratios(some_images(), KINDS["batch norm"], 1)
    assert len(found) == len(built) == 11, "the dense layer is one of them"
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


def test_figure_2_shows_the_second_layer_of_the_first_seed():
    params = paper.Params(train_images=300, width=32, conv_images=100, device="cpu")
    found = studies.skewed_neurons(params, images=100)
    sets = draw_sets(params.sizes, 1)
    model = paper.builders(params)["mlp"](10, in_channels=1, seed=1)
    batch = tuple(torch.from_numpy(each[:100]) for each in sets.train)
    wanted = studies.skewed_layer(model, batch, "fc2", 1).set_index("fan-in")
    pd.testing.assert_frame_equal(found, wanted)
    assert (found.index[0], found.index[-1]) == (1, 32)
