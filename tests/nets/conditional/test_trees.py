"""A last layer as a tree: its score by the definition, its cost by counting, its training from the dense layer."""

import copy
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional

from papertwin.errors import InputError
from papertwin.nets.conditional import PerceptronTree, Router, fit_tree, route_frequencies
from papertwin.training.loop import accuracy, fit

CLUSTERS = np.array([1, 0, 2, 1, 1, 0, 1])  # sizes 2, 4, 1


def dense(features=5, classes=7, seed=0, bias=True):
    torch.manual_seed(seed)
    return nn.Linear(features, classes, bias=bias)


def routed(top, seed=0, clusters=CLUSTERS, bias=True):
    """A tree whose router has an opinion, in float64, with its dense layer."""
    linear = dense(classes=len(clusters), seed=seed, bias=bias).double()
    tree = PerceptronTree.from_linear(linear, clusters, top)
    torch.manual_seed(seed + 1)
    nn.init.normal_(tree.router.linear.weight, std=2)
    return tree, linear


def rows(n, seed=0):
    return torch.randn(n, 5, dtype=torch.double, generator=torch.Generator().manual_seed(seed))


def slowly(tree, linear, v0):
    """The definition, one image and one class at a time."""
    found = np.full((len(v0), linear.out_features), -np.inf)
    for i, image in enumerate(v0):
        r = functional.softmax(tree.router.linear(image), dim=0).tolist()
        kept = sorted(range(len(r)), key=lambda j: (-r[j], j))[: tree.top]
        for c, j in enumerate(tree.clusters):
            if j in kept:
                bias = 0 if linear.bias is None else float(linear.bias.detach()[c])
                found[i, c] = float(linear.weight[c].detach() @ image) + bias + math.log(r[j])
    return found


@st.composite
def clusterings(draw):
    """Clusters of classes, no cluster empty, and a τ."""
    routes = draw(st.integers(1, 4))
    more = draw(st.lists(st.integers(0, routes - 1), max_size=5))
    return np.array(draw(st.permutations([*range(routes), *more]))), draw(st.integers(1, routes))


@given(case=clusterings(), seed=st.integers(0, 10**6), n=st.integers(0, 9), bias=st.booleans())
@settings(max_examples=40, deadline=None)
def test_scores_are_those_of_the_definition(case, seed, n, bias):
    clusters, top = case
    tree, linear = routed(top, seed, clusters, bias)
    v0 = rows(n, seed)
    found = tree.eval()(v0).detach().numpy()
    np.testing.assert_allclose(found, slowly(tree, linear, v0), atol=1e-10)
    assert np.isfinite(found).any(axis=1).all()


@given(case=clusterings(), seed=st.integers(0, 10**6))
@settings(max_examples=25, deadline=None)
def test_a_uniform_router_leaves_the_dense_layer_up_to_a_constant(case, seed):
    clusters, _ = case
    linear = dense(classes=len(clusters), seed=seed).double()
    before = copy.deepcopy(linear.state_dict())
    tree = PerceptronTree.from_linear(linear, clusters, top=None)
    v0 = rows(6, seed)
    routes = clusters.max() + 1
    torch.testing.assert_close(tree(v0), linear(v0) - math.log(routes))
    torch.testing.assert_close(tree.eval()(v0), linear(v0) - math.log(routes))
    with torch.no_grad():
        for parameter in tree.parameters():
            parameter.add_(1)
    assert all(torch.equal(linear.state_dict()[name], value) for name, value in before.items())


def test_all_routes_evaluated_is_the_full_score(device):
    tree, _ = routed(None)
    tree, v0 = tree.float().to(device), rows(8).float().to(device)
    full = tree.train()(v0)
    assert torch.equal(tree.eval()(v0), full)
    tree.top = 3
    assert torch.equal(tree(v0), full)
    tree.top = 2
    some = tree(v0)
    finite = some.isfinite()
    torch.testing.assert_close(some[finite], full[finite])
    assert not finite.all()
    assert torch.equal(tree.train()(v0), full)


@pytest.mark.parametrize("bias", [True, False])
def test_one_product_gives_the_scores_and_gradients_of_the_routes(bias):
    tree, _ = routed(None, bias=bias)
    v0, labels = rows(9), torch.arange(9) % 7

    def gradients(scores):
        functional.cross_entropy(scores, labels).backward()
        found = [p.grad.clone() for p in tree.parameters()]
        tree.zero_grad()
        return found

    log_r = tree.router.logits(v0).log_softmax(1)
    parts = torch.cat([route(v0) + log_r[:, j, None] for j, route in enumerate(tree.routes)], 1)
    order = np.argsort(np.argsort(CLUSTERS, kind="stable"))
    torch.testing.assert_close(tree(v0), parts[:, order])
    for found, due in zip(gradients(tree(v0)), gradients(parts[:, order])):
        torch.testing.assert_close(found, due)
    with torch.no_grad():
        torch.testing.assert_close(tree(v0), parts[:, order])


def test_unevaluated_classes_have_no_score_and_are_never_the_answer():
    tree, _ = routed(1)
    tree.eval()
    v0 = rows(40)
    scores, best = tree(v0), tree.router(v0).argmax(dim=1).numpy()
    assert ((scores == -torch.inf).numpy() == (tree.clusters != best[:, None])).all()
    assert (tree.clusters[scores.argmax(dim=1).numpy()] == best).all()


@pytest.mark.parametrize("top", [1, 2, None])
def test_names_of_classes_and_clusters_do_not_matter(top):
    tree, linear = routed(top)
    classes, names = np.random.default_rng(0).permutation(7), np.array([2, 0, 1])
    renamed = dense().double()
    with torch.no_grad():
        renamed.weight.copy_(linear.weight[classes])
        renamed.bias.copy_(linear.bias[classes])
    other = PerceptronTree.from_linear(renamed, names[CLUSTERS][classes], top)
    with torch.no_grad():
        for name, value in tree.router.linear.named_parameters():
            getattr(other.router.linear, name)[names] = value
    v0 = rows(12)
    torch.testing.assert_close(other.eval()(v0), tree.eval()(v0)[:, classes])


def test_routes_that_no_row_takes_do_not_run():
    tree, _ = routed(1)
    tree.eval()
    with torch.no_grad():
        tree.router.linear.bias[2] = -100
    calls = {}
    for j, route in enumerate(tree.routes):
        route.register_forward_hook(lambda module, args, output, j=j: calls.setdefault(j, []).append(args[0]))
    v0 = rows(30)
    tree(v0)
    best = tree.router(v0).argmax(dim=1)
    assert 2 not in calls
    assert all(len(batches) == 1 and torch.equal(batches[0], v0[best == j]) for j, batches in calls.items())
    assert tree.taken == [len(calls[0][0]), len(calls[1][0]), 0]
    np.testing.assert_allclose(route_frequencies(tree, v0), tree.frequencies)


@given(case=clusterings(), seed=st.integers(0, 10**6), bias=st.booleans())
@settings(max_examples=25, deadline=None)
def test_expected_operations_by_counting_rows(case, seed, bias):
    clusters, top = case
    tree, linear = routed(top, seed, clusters, bias)
    v0 = rows(11, seed)
    scores = tree.eval()(v0)
    router = (clusters.max() + 1) * (5 + bias)
    spent = [router + int(row.isfinite().sum()) * (5 + bias) for row in scores]  # a score costs a row of the matrix
    assert tree.expected_macs() == pytest.approx(np.mean(spent))
    assert tree.expected_macs(route_frequencies(tree, v0)) == pytest.approx(np.mean(spent))
    tree.top = None
    tree.reset()
    tree(v0)
    assert tree.expected_macs() == pytest.approx(router + linear.out_features * (5 + bias))


def test_expected_operations_of_the_published_tree():
    """Clusters of 185, 216, 59 and 540 classes, balanced classes, a router that is always right: 1.556 M, not 1/4."""
    sizes = np.array([185, 216, 59, 540])
    linear = nn.Linear(4096, 1000, bias=False, device="meta")
    tree = PerceptronTree.from_linear(linear, np.repeat(np.arange(4), sizes))
    due = 4096 * int((sizes**2).sum()) / 1000 + 4 * 4096
    assert tree.expected_macs(sizes / 1000) == pytest.approx(due)
    assert due / 1e6 == pytest.approx(1.556, abs=5e-4)
    assert tree.expected_macs(sizes / 1000) > 1.4 * (4096 * 1000 / 4 + 4 * 4096)
    biased = PerceptronTree.from_linear(nn.Linear(4096, 1000, device="meta"), np.repeat(np.arange(4), sizes))
    assert biased.expected_macs(sizes / 1000) == pytest.approx(due * 4097 / 4096)


def test_gradients_agree_with_finite_differences():
    tree, _ = routed(None)
    names = [name for name, _ in tree.named_parameters()]
    labels = torch.tensor([0, 6, 2])

    def loss(*values):
        return functional.cross_entropy(torch.func.functional_call(tree, dict(zip(names, values)), rows(3)), labels)

    assert torch.autograd.gradcheck(loss, tuple(p.detach().requires_grad_() for p in tree.parameters()))


def test_the_full_score_cannot_tell_one_router_from_another():
    """What moves from the routes into the router changes where images go, and the cross-entropy not at all."""
    tree, _ = routed(1)
    v0, labels = rows(50), torch.arange(50) % 7
    before = functional.cross_entropy(tree.train()(v0), labels)
    paths = tree.router(v0).argmax(dim=1)
    with torch.no_grad():
        moved = torch.randn(3, 5, dtype=torch.double, generator=torch.Generator().manual_seed(9)) * 3
        tree.router.linear.weight.add_(moved)
        for route, row in zip(tree.routes, moved):
            route.weight.sub_(row)
    torch.testing.assert_close(functional.cross_entropy(tree(v0), labels), before)
    assert not torch.equal(tree.router(v0).argmax(dim=1), paths)


def groups_of_classes(n, seed):
    """Eight classes in four clusters, told apart by a few features each; features in float32."""
    rng = np.random.default_rng(seed)
    clusters, labels = np.array([0, 1, 2, 3, 0, 1, 2, 0]), rng.integers(8, size=n)
    means = np.random.default_rng(99).normal(size=(8, 12)) * 0.8
    means[:, :4] += 2 * np.eye(4)[clusters]
    return (rng.normal(size=(n, 12)) + means[labels]).astype(np.float32), labels, clusters


@pytest.fixture(scope="module")
def trained():
    features, labels, clusters = groups_of_classes(1500, 0)
    linear = dense(12, 8)
    fit(linear, features, labels, epochs=5, rate=0.1, seed=0)
    return linear, clusters, features, labels


def learn(trained, router_epochs, epochs, top=1, seed=0):
    linear, clusters, features, labels = trained
    tree = PerceptronTree.from_linear(linear, clusters, top)
    losses = fit_tree(tree, features, labels, router_epochs=router_epochs, epochs=epochs, rate=0.05, seed=seed)
    return tree, losses


def test_a_router_is_taught_first_and_then_hard_routing_works(trained):
    features, labels, _ = groups_of_classes(1000, 1)
    whole = accuracy(trained[0], features, labels)
    taught, alone = learn(trained, 4, 4)[0], learn(trained, 0, 4)[0]
    assert accuracy(taught, features, labels) > whole - 0.05
    assert accuracy(alone, features, labels) < whole - 0.1  # the score alone does not teach the router
    taught.top = alone.top = None
    assert accuracy(taught, features, labels) > whole - 0.02
    assert accuracy(alone, features, labels) > whole - 0.02


def test_teaching_the_router_leaves_the_full_score_as_it_was(trained):
    linear, clusters, features, labels = trained
    tree, losses = learn(trained, 3, 0, top=None)
    v0 = torch.from_numpy(features[:50])
    torch.testing.assert_close(tree(v0).log_softmax(1), linear(v0).log_softmax(1), atol=1e-5, rtol=1e-5)
    right = tree.router(torch.from_numpy(features)).argmax(dim=1).numpy() == clusters[labels]
    assert right.mean() > 0.8
    assert losses[2] < losses[0]
    fit_tree(tree, features, labels, router_epochs=1, epochs=0, rate=0.05, seed=1)
    torch.testing.assert_close(tree(v0).log_softmax(1), linear(v0).log_softmax(1), atol=1e-5, rtol=1e-5)


def test_training_is_repeatable_and_both_parts_count(trained):
    first, losses = learn(trained, 2, 1)
    again, same = learn(trained, 2, 1)
    other, _ = learn(trained, 2, 1, seed=1)
    assert losses == same
    assert len(losses) == 3
    for one, two, three in zip(first.parameters(), again.parameters(), other.parameters()):
        assert torch.equal(one, two)
        assert not torch.equal(one, three)
    assert first.seen == 0
    assert learn(trained, 0, 0)[1] == []


def test_conversions_that_cannot_be_made():
    linear = dense()
    for clusters in ([0] * 6, [0, 2] * 3 + [0], [0.0] * 7):
        with pytest.raises(InputError, match=r"clusters must be .*got"):
            PerceptronTree.from_linear(linear, clusters)
    with pytest.raises(InputError, match="top must be"):
        PerceptronTree.from_linear(linear, CLUSTERS, top=4)
    routes = [nn.Linear(5, size) for size in (2, 4, 1)]
    assert PerceptronTree(Router(5, 3, seed=0), routes, CLUSTERS).eval()(torch.rand(2, 5)).shape == (2, 7)
    for router, parts in ((Router(5, 2, seed=0), routes), (Router(4, 3, seed=0), routes)):
        with pytest.raises(InputError, match=r"Clusters of \[2, 4, 1\] classes need"):
            PerceptronTree(router, parts, CLUSTERS)
    with pytest.raises(InputError, match="Clusters of"):
        PerceptronTree(Router(5, 3, seed=0), routes[::-1], CLUSTERS)
    with pytest.raises(InputError, match="have a bias"):
        PerceptronTree(Router(5, 3, seed=0, bias=False), routes, CLUSTERS)
    with pytest.raises(InputError, match=r"vectors \(B, 5\), got \(2, 5, 3, 3\)"):
        PerceptronTree.from_linear(linear, CLUSTERS)(torch.rand(2, 5, 3, 3))
    with pytest.raises(InputError, match="router takes"):
        PerceptronTree.from_linear(linear, CLUSTERS)(torch.rand(2, 4))


@pytest.mark.parametrize("labels", [[0, 8], [0, -1], [0], [0.0, 1.0]])
def test_labels_that_are_no_classes(trained, labels):
    tree = PerceptronTree.from_linear(trained[0], trained[1])
    with pytest.raises(InputError, match=r"labels must .*got"):
        fit_tree(tree, trained[2][:2], labels, router_epochs=1, epochs=0, rate=0.1, seed=0)
