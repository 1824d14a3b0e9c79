"""Which rows take which route, how often, and what that costs: all by counting."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from papertwin.errors import InputError
from papertwin.nets.conditional import Routed, Router, expected_cost, route_frequencies
from papertwin.nets.conditional.selection import evaluating, keep_largest, rows_by_route


class Fixed(nn.Module):
    """A router that reads r from the first columns of its input, and counts its calls."""

    def __init__(self, routes):
        super().__init__()
        self.routes, self.calls = routes, 0

    def forward(self, v0):
        self.calls += 1
        return v0[:, : self.routes]


class Forbidden(nn.Module):
    """A route that must not run."""

    def forward(self, v0):
        raise AssertionError(f"called with {len(v0)} rows")


@st.composite
def shares(draw):
    """r of a batch, with ties, and a τ."""
    rows, routes = draw(st.integers(1, 12)), draw(st.integers(1, 6))
    values = draw(st.lists(st.integers(1, 4), min_size=rows * routes, max_size=rows * routes))
    r = torch.tensor(values, dtype=torch.double).reshape(rows, routes)
    return r / r.sum(dim=1, keepdim=True), draw(st.integers(1, routes))


def kept_by(row, top):
    return sorted(range(len(row)), key=lambda j: (-float(row[j]), j))[:top]


@given(shares())
def test_the_largest_are_kept_in_order_and_ties_by_number(case):
    r, top = case
    chosen, values = keep_largest(r, top)
    assert chosen.tolist() == [kept_by(row, top) for row in r]
    assert torch.equal(values, torch.stack([row[kept] for row, kept in zip(r, chosen)]))


@given(shares())
def test_regrouping_loses_and_repeats_nothing(case):
    r, top = case
    chosen, _ = keep_largest(r, top)
    groups = rows_by_route(chosen, r.shape[1])
    assert len(groups) == r.shape[1]
    for j, (rows, places) in enumerate(groups):
        assert rows.tolist() == [row for row, kept in enumerate(chosen.tolist()) if j in kept]
        assert (chosen[rows, places] == j).all()
    assert sum(len(rows) for rows, _ in groups) == chosen.numel()


@given(shares(), st.lists(st.integers(0, 1000), min_size=7, max_size=7))
@settings(deadline=None)
def test_expected_cost_is_the_mean_over_the_rows(case, costs):
    """Rows pay the router and each route that they take, one by one."""
    r, top = case
    router, *routes = costs[: r.shape[1] + 1]
    due = np.mean([router + sum(routes[j] for j in kept_by(row, top)) for row in r])
    net = Routed(Fixed(r.shape[1]), [nn.Identity()] * r.shape[1], top).eval()
    net(r)
    assert expected_cost(router, routes, net.frequencies) == pytest.approx(due)
    assert expected_cost(router, routes, route_frequencies(net, r, batch=3)) == pytest.approx(due)
    assert net.frequencies.sum() == pytest.approx(top)


def test_cost_is_no_share_of_the_whole():
    assert expected_cost(4, [10, 90], [0.8, 0.2]) == pytest.approx(4 + 8 + 18)
    assert expected_cost(4, [10, 90], [0.8, 0.2]) != pytest.approx(4 + (10 + 90) / 2)
    assert expected_cost(4, [10, 90], [1, 1]) == 104


def test_rows_are_counted_over_calls_until_reset():
    r = torch.tensor([[0.9, 0.1, 0], [0.2, 0.8, 0], [0.7, 0.3, 0]])
    net = Routed(Fixed(3), [nn.Identity()] * 3, top=1).eval()
    net(r)
    net(r[:1])
    assert (net.seen, net.taken) == (4, [3, 1, 0])
    assert net.frequencies.tolist() == [0.75, 0.25, 0]
    net.top = None
    net(r)
    assert (net.seen, net.taken) == (7, [6, 4, 3])
    net.reset()
    net.train()(r)
    assert (net.seen, net.taken) == (0, [0, 0, 0])
    with pytest.raises(InputError, match="No row was seen"):
        _ = net.frequencies


@pytest.mark.parametrize("as_numpy", [True, False])
def test_frequencies_of_a_data_set_ask_the_router_alone(as_numpy):
    r = torch.tensor([[0.9, 0.1], [0.2, 0.8], [0.7, 0.3], [0.6, 0.4], [0.5, 0.5]], dtype=torch.float32)
    net = Routed(Fixed(2), [Forbidden()] * 2, top=1).train()
    assert route_frequencies(net, r.numpy() if as_numpy else r, batch=2).tolist() == [0.8, 0.2]
    assert net.router.calls == 3
    assert net.training
    assert net.router.training
    assert net.seen == 0
    net.top = 2
    assert route_frequencies(net, r).tolist() == [1, 1]
    net.top = None
    assert route_frequencies(net, r).tolist() == [1, 1]
    with pytest.raises(InputError, match="at least one row"):
        route_frequencies(net, r[:0])


def test_frequencies_are_measured_where_the_network_is(device):
    net = Routed(Router(5, 3, seed=0), [nn.Linear(5, 2) for _ in range(3)], top=1).to(device).eval()
    inputs = np.random.default_rng(0).normal(size=(50, 5)) * 5
    net(torch.as_tensor(inputs, dtype=torch.float32, device=device))
    np.testing.assert_allclose(route_frequencies(net, inputs), net.frequencies)


def test_modes_come_back_one_by_one_also_after_an_error():
    net = nn.Sequential(nn.Dropout(), nn.Dropout()).train()
    net[1].eval()
    with evaluating(net):
        assert not any(module.training for module in net.modules())
    assert [module.training for module in net.modules()] == [True, True, False]
    with pytest.raises(ZeroDivisionError), evaluating(net):
        _ = 1 / 0
    assert [module.training for module in net.modules()] == [True, True, False]


@pytest.mark.parametrize(
    ("router", "costs", "frequencies"),
    [(1, [1, 2], [0.5]), (1, [1, 2], [0.5, 1.5]), (1, [1, 2], [-0.1, 1]), (-1, [1], [1]), (1, [-1], [1]), (1, 2, 1)],
)
def test_costs_that_cannot_be(router, costs, frequencies):
    with pytest.raises(InputError, match="got"):
        expected_cost(router, costs, frequencies)
