"""Explicit routing: equal to the slow definition, gradients as in the paper, and what is not selected does not run."""

import copy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from papertwin.errors import InputError
from papertwin.nets.conditional import Routed, Router


class Counted(nn.Module):
    """A route that writes down the batches it is given."""

    def __init__(self, inner):
        super().__init__()
        self.inner = inner
        self.batches = []

    def forward(self, v0):
        self.batches.append(v0.detach().clone())
        return self.inner(v0)


def subnet(channels, seed):
    """A small convolutional route, (B, c, 6, 6) → (B, 4, 3, 3), some channels of it dead."""
    torch.manual_seed(seed)
    return nn.Sequential(nn.Conv2d(channels, 4, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2))


def of_vectors(routes, top, seed=0, features=5):
    torch.manual_seed(seed)
    parts = [nn.Sequential(nn.Linear(features, 3), nn.Tanh()) for _ in range(routes)]
    return Routed(Router(features, routes, seed=seed), parts, top).double()


def of_maps(routes, top, seed=0, channels=2):
    router = Router(channels, routes, seed=seed)
    with torch.no_grad():
        router.linear.weight.mul_(50)  # means of random maps are alike: without this nearly all take one route
        router.linear.bias.copy_(-router.linear.weight.sum(dim=1) / 2)
    return Routed(router, [subnet(channels, seed + k) for k in range(routes)], top).double()


def slowly(net, v0):
    """The definition, one image at a time: the largest r, divided by their sum, times the outputs of their routes."""
    found = []
    for image in v0:
        pooled = image.flatten(1).mean(dim=1) if image.ndim > 1 else image
        linear = net.router.linear
        r = torch.softmax(linear.weight @ pooled + linear.bias, dim=0).detach()
        kept = sorted(range(len(r)), key=lambda j: (-float(r[j]), j))[: net.top or len(r)]
        total = sum(float(r[j]) for j in kept)
        found.append(sum(r[j] / total * net.routes[j](image[None])[0] for j in kept))
    return torch.stack(found)


def selected(net, v0):
    """Routes of each row, the most likely first, by sorting in Python."""
    return [sorted(range(net.count), key=lambda j: (-float(row[j]), j))[: net.top] for row in net.router(v0).detach()]


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("top", [None, 1])
def test_one_route_is_the_plain_network(device, training, top):
    plain = subnet(2, seed=3)
    net = Routed(Router(2, 1, seed=0), [copy.deepcopy(plain)], top).train(training).to(device)
    images = torch.rand(5, 2, 6, 6, device=device)
    assert torch.equal(net(images), plain.to(device)(images))


@pytest.mark.parametrize("build", [of_vectors, of_maps])
@pytest.mark.parametrize("routes", [2, 3, 5])
def test_all_routes_are_the_soft_output(build, routes):
    net = build(routes, None)
    v0 = torch.rand(7, 5, dtype=torch.double) if build is of_vectors else torch.rand(7, 2, 6, 6, dtype=torch.double)
    soft = net.train()(v0)
    torch.testing.assert_close(soft, slowly(net, v0))
    assert torch.equal(net.eval()(v0), soft)
    net.top = routes
    assert torch.equal(net(v0), soft)
    net.top = 1
    assert torch.equal(net.train()(v0), soft)  # while training, top changes nothing
    assert not torch.equal(net.eval()(v0), soft)


@given(routes=st.integers(1, 6), data=st.data(), rows=st.integers(1, 12), seed=st.integers(0, 999))
@settings(max_examples=40, deadline=None)
def test_vectors_take_the_routes_of_the_definition(routes, data, rows, seed):
    top = data.draw(st.integers(1, routes))
    net = of_vectors(routes, top, seed).eval()
    v0 = torch.randn(rows, 5, dtype=torch.double, generator=torch.Generator().manual_seed(seed)) * 3
    torch.testing.assert_close(net(v0), slowly(net, v0))


@pytest.mark.parametrize(("routes", "top"), [(2, 1), (4, 1), (4, 2), (4, 3), (3, 3)])
def test_maps_take_the_routes_of_the_definition(device, routes, top):
    net = of_maps(routes, top, seed=1).float().eval().to(device)
    images = torch.rand(20, 2, 6, 6, generator=torch.Generator().manual_seed(0)).to(device)
    torch.testing.assert_close(net(images), slowly(net, images))
    assert len({tuple(routes) for routes in selected(net, images)}) > 1  # otherwise this test shows little


def test_hard_routing_is_bit_for_bit_the_route_on_its_rows(device):
    net = of_maps(4, 1, seed=2).float().eval().to(device)
    images = torch.rand(32, 2, 6, 6, generator=torch.Generator().manual_seed(1)).to(device)
    routes = torch.tensor([row[0] for row in selected(net, images)], device=device)
    with torch.no_grad():
        output = net(images)
        for j in routes.unique().tolist():
            assert torch.equal(output[routes == j], net.routes[j](images[routes == j]))


def test_two_of_several_routes_are_bit_for_bit_their_weighted_sum():
    net = of_vectors(4, 2, seed=5).eval()
    v0 = torch.randn(30, 5, dtype=torch.double, generator=torch.Generator().manual_seed(5)) * 3
    chosen = torch.tensor(selected(net, v0))
    with torch.no_grad():
        r = net.router(v0)
        kept = r.gather(1, chosen)
        weights = torch.zeros_like(r).scatter(1, chosen, kept / kept.sum(dim=1, keepdim=True))
        due = torch.zeros(30, 3, dtype=torch.double)
        for j, route in enumerate(net.routes):
            rows = (chosen == j).any(dim=1)
            due[rows] += weights[rows, j, None] * route(v0[rows])
        assert torch.equal(net(v0), due)


@pytest.mark.parametrize("top", [1, 2])
def test_routes_run_once_and_only_on_rows_that_selected_them(top):
    net = of_vectors(5, top, seed=7).eval()
    net.routes = nn.ModuleList(Counted(route) for route in net.routes)
    net.router.linear.bias.data[3] = -100  # nobody selects route 3
    v0 = torch.randn(40, 5, dtype=torch.double, generator=torch.Generator().manual_seed(7)) * 3
    chosen = selected(net, v0)
    net(v0)
    for j, route in enumerate(net.routes):
        rows = [row for row, kept in enumerate(chosen) if j in kept]
        assert len(route.batches) == bool(rows)
        assert not rows or torch.equal(route.batches[0], v0[rows])
    assert not net.routes[3].batches
    assert sum(len(batch) for route in net.routes for batch in route.batches) == top * len(v0)


def test_a_training_pass_runs_every_route_on_every_row():
    net = of_vectors(3, 1)
    net.routes = nn.ModuleList(Counted(route) for route in net.routes)
    net.train()(torch.rand(4, 5, dtype=torch.double))
    assert [[len(batch) for batch in route.batches] for route in net.routes] == [[4]] * 3


@pytest.mark.parametrize("top", [None, 1, 2])
@pytest.mark.parametrize("training", [True, False])
def test_no_row_at_all(top, training):
    assert of_vectors(3, top).train(training)(torch.zeros(0, 5, dtype=torch.double)).shape == (0, 3)
    assert of_maps(3, top).train(training)(torch.zeros(0, 2, 6, 6, dtype=torch.double)).shape == (0, 4, 3, 3)


def test_of_equal_shares_the_first_routes_are_taken(device):
    net = Routed(Router(5, 4, seed=None), [Counted(nn.Identity()) for _ in range(4)], top=2).eval().to(device)
    net(torch.rand(6, 5, device=device))
    assert [len(route.batches) for route in net.routes] == [1, 1, 0, 0]


@pytest.mark.parametrize("top", [None, 2])
def test_gradients_agree_with_finite_differences(top):
    net = of_vectors(3, top, seed=11).eval()
    v0 = (torch.randn(4, 5, dtype=torch.double, generator=torch.Generator().manual_seed(3)) * 2).requires_grad_()
    names = [name for name, _ in net.named_parameters()]

    def output(inputs, *values):
        return torch.func.functional_call(net, dict(zip(names, values)), inputs)

    assert torch.autograd.gradcheck(output, (v0, *[p.detach().requires_grad_() for p in net.parameters()]))


def test_the_gradient_of_the_router_is_that_of_the_paper():
    net = of_vectors(4, None, seed=13).train()
    v0 = torch.randn(6, 5, dtype=torch.double, generator=torch.Generator().manual_seed(4))
    aim = torch.randn(6, 3, dtype=torch.double, generator=torch.Generator().manual_seed(5))
    v2 = net(v0)
    v2.retain_grad()
    (((v2 - aim) ** 2).sum() / 2).backward()
    with torch.no_grad():
        r = net.router(v0)
        by_route = torch.stack([(v2.grad * route(v0)).sum(dim=1) for route in net.routes], dim=1)  # ⟨∂L/∂v2, v1^j⟩
        jacobian = torch.diag_embed(r) - r[:, :, None] * r[:, None, :]
        into_logits = (jacobian @ by_route[:, :, None]).squeeze(2)
        torch.testing.assert_close(net.router.linear.weight.grad, into_logits.T @ v0)
        torch.testing.assert_close(net.router.linear.bias.grad, into_logits.sum(dim=0))


def test_the_gradient_of_a_route_carries_its_share():
    torch.manual_seed(0)
    routes = [nn.Linear(5, 3) for _ in range(3)]
    net = Routed(Router(5, 3, seed=2), routes).double().train()
    v0 = torch.randn(1, 5, dtype=torch.double)
    v2 = net(v0)
    v2.retain_grad()
    (v2**2).sum().backward()
    alone = v2.grad.T @ v0  # what a plain linear layer would get
    for r, route in zip(net.router(v0)[0], routes):
        torch.testing.assert_close(route.weight.grad, r.detach() * alone)


def test_routes_may_be_conditional_networks_themselves():
    inner = of_vectors(2, 1, seed=1)
    net = Routed(Router(5, 2, seed=0), [inner, copy.deepcopy(inner)], top=1).double().eval()
    v0 = torch.randn(9, 5, dtype=torch.double)
    torch.testing.assert_close(net(v0), inner(v0))
    assert inner.seen == 9 + sum(row == [0] for row in selected(net, v0))


def test_a_router_of_maps_sees_their_means(device):
    router = Router(3, 4, seed=1).to(device)
    maps = torch.rand(5, 3, 4, 6, device=device)
    torch.testing.assert_close(router(maps), router(maps.mean(dim=(2, 3))))
    torch.testing.assert_close(router(maps).sum(dim=1), torch.ones(5, device=device))
    torch.testing.assert_close(router.logits(maps).softmax(dim=1), router(maps))


def test_a_router_depends_on_its_seed_alone():
    torch.manual_seed(1)
    before = torch.get_rng_state()
    first = Router(4, 3, seed=8)
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(Router(4, 3, seed=8).linear.weight, first.linear.weight)
    assert not torch.equal(Router(4, 3, seed=9).linear.weight, first.linear.weight)
    assert torch.equal(Router(4, 3, seed=None)(torch.rand(2, 4)), torch.full((2, 3), 1 / 3))


def test_a_router_costs_its_products_and_its_biases():
    assert Router(128, 4, seed=0).macs == 128 * 4 + 4
    assert Router(128, 4, seed=0, bias=False).macs == 128 * 4


def test_conditional_networks_can_be_planned_without_memory():
    with torch.device("meta"):
        net = Routed(Router(2, 3, seed=0), [subnet(2, k) for k in range(3)])
        assert net(torch.rand(4, 2, 6, 6)).shape == (4, 4, 3, 3)
    assert all(p.is_meta for p in net.parameters())


@pytest.mark.parametrize(
    "call",
    [
        lambda: Router(0, 2, seed=0),
        lambda: Router(3, 2.0, seed=0),
        lambda: Router(3, 2, seed=-1),
        lambda: Router(3, 2, seed=True),
        lambda: Router(3, 2, seed=0)(torch.rand(4, 5)),
        lambda: Router(3, 2, seed=0)(torch.rand(3)),
        lambda: Routed(Router(3, 2, seed=0), []),
        lambda: Routed(Router(3, 2, seed=0), [nn.Identity()] * 2, top=3),
        lambda: Routed(Router(3, 2, seed=0), [nn.Identity()] * 2, top=0),
        lambda: Routed(Router(3, 2, seed=0), [nn.Identity()] * 2, top=True),
        lambda: Routed(Router(3, 3, seed=0), [nn.Identity()] * 2)(torch.rand(4, 3)),
        lambda: Routed(Router(3, 2, seed=0), [nn.Identity(), nn.Linear(3, 1)])(torch.rand(4, 3)),
        lambda: Routed(Router(3, 2, seed=None), [nn.Identity(), nn.Linear(3, 1)], top=1).train()(torch.rand(4, 3)),
        lambda: Routed(Router(3, 1, seed=0), [nn.Flatten(0)])(torch.rand(4, 3)),
    ],
)
def test_arguments_that_cannot_be_used(call):
    with pytest.raises(InputError, match=r"must .*got|takes .*got|gives shape .*expected"):
        call()


def test_another_top_must_be_possible_too():
    net = of_vectors(3, 1)
    with pytest.raises(InputError, match="from 1 to 3"):
        net.top = 4
    assert net.top == 1
