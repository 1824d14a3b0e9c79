"""Three networks lie on their plane where it says, distances on it are theirs, and three on a line span none."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from papertwin.errors import InputError
from papertwin.symmetry import interpolated, losses_on, plane_through


def states_of(network, kind):
    return [network(kind, seed).state_dict() for seed in range(3)]


def flat(state):
    return np.concatenate([v.double().flatten().numpy() for v in state.values() if v.is_floating_point()])


def drawn(seed, scales=(1.0, 1.0, 1.0)):
    """States of one tensor of doubles and one of float32."""
    generator = torch.Generator().manual_seed(seed)
    shapes = {"w": ((3, 4), torch.float64), "b": ((5,), torch.float32)}
    return [
        {name: (scale * torch.randn(shape, generator=generator)).to(kind) for name, (shape, kind) in shapes.items()}
        for scale in scales
    ]


def assert_same(one, other):
    assert list(one) == list(other)
    for name, value in one.items():
        assert value.dtype == other[name].dtype
        assert torch.allclose(value, other[name], rtol=1e-6, atol=1e-7), name


def test_corners_are_the_networks(network, kind):
    states = states_of(network, kind)
    plane = plane_through(*states)
    for corner, state in zip(plane.corners, states):
        assert_same(plane.state(*corner), state)
    assert plane.corners[0] == (0, 0)
    assert plane.corners[1][1] == 0
    assert min(plane.corners[1][0], plane.corners[2][1]) > 0


def test_directions_are_orthonormal_and_of_the_span(network, kind):
    states = states_of(network, kind)
    plane = plane_through(*states)
    first, second = flat(plane.first), flat(plane.second)
    assert [first @ first, second @ second, first @ second] == pytest.approx([1, 1, 0], abs=1e-12)
    a, b, c = map(flat, states)
    span = np.stack([b - a, c - a])  # another way: what both directions leave of it
    assert np.abs(span - span @ first[:, None] * first - span @ second[:, None] * second).max() < 1e-10
    assert len(first) == sum(value.numel() for value in states[0].values() if value.is_floating_point())


@given(seed=st.integers(0, 10**6), scale=st.sampled_from([1e-3, 1.0, 1e3]))
@settings(deadline=None, max_examples=30)
def test_distances_are_those_of_the_networks(seed, scale):
    states = drawn(seed, (scale, 1.0, 2.0))
    plane = plane_through(*states)
    points = [*plane.corners, *np.random.default_rng(seed).normal(size=(3, 2)).tolist()]
    for one in points:
        for other in points:
            apart = np.linalg.norm(flat(plane.state(*one)) - flat(plane.state(*other)))
            assert apart == pytest.approx(math.dist(one, other), abs=1e-5 * max(1, scale))
    for corner, state in zip(plane.corners, states):
        assert_same(plane.state(*corner), state)


def test_sides_are_lines_between_networks(network):
    """Where y = 0 lies what `interpolated` gives, batch normalisation included; so on the other sides."""
    states = states_of(network, "resnet")
    plane = plane_through(*states)
    for one, other in ((0, 1), (0, 2), (1, 2)):
        for alpha in (0.25, 0.75):
            point = (np.array(plane.corners[one]) * (1 - alpha) + np.array(plane.corners[other]) * alpha).tolist()
            assert_same(plane.state(*point), interpolated(states[one], states[other], alpha))


def test_whole_numbers_are_those_of_the_nearest():
    states = drawn(0)
    for count, state in enumerate(states):
        state["seen"] = torch.tensor(10 + count)
    plane = plane_through(*states)
    assert "seen" not in plane.first
    for count, corner in enumerate(plane.corners):
        near = plane.state(corner[0] + 0.01, corner[1] - 0.01)["seen"]
        assert (near, near.dtype) == (10 + count, torch.int64)
    middle = plane.corners[1][0] / 2
    assert plane.state(middle, -50.0)["seen"] == 10
    plane.state(0, 0)["seen"].fill_(0)
    assert plane.state(0, 0)["seen"] == 10


def test_variances_stay_those_of_networks(network):
    """Far outside no variance is below the least of the three; inside, mixing is all there is."""
    states = states_of(network, "vgg")
    plane = plane_through(*states)
    names = [name for name in states[0] if name.endswith("running_var")]
    assert names
    far = plane.state(-3 * plane.corners[1][0], 5 * plane.corners[2][1])
    least = {name: torch.stack([state[name] for state in states]).amin(0) for name in names}
    assert all((far[name] >= least[name]).all() for name in names)
    assert any((far[name] == least[name]).any() for name in names)
    means = [name for name in far if name.endswith("running_mean")]
    assert any((far[name] < torch.stack([state[name] for state in states]).amin(0)).any() for name in means)
    inside = plane.state(*(np.array(plane.corners).T @ [0.5, 0.3, 0.2]).tolist())
    for name in names:
        mix = sum(share * state[name].double() for share, state in zip((0.5, 0.3, 0.2), states))
        assert torch.allclose(inside[name].double(), mix, rtol=1e-6)


def test_losses_lie_row_by_row():
    model = nn.Linear(2, 1, bias=False)
    corners = [{"weight": torch.tensor([value])} for value in ([0.0, 0.0], [0.0, 2.0], [3.0, 1.0])]
    plane = plane_through(*corners)
    assert np.allclose(plane.corners, [(0, 0), (2, 0), (1, 3)])  # x along the second weight, y along the first
    before = model.weight.clone()

    def measure(m):
        loss = 10 * m.weight[0, 0].item() + m.weight[0, 1].item() + 1000 * m.training
        nn.init.constant_(m.weight, 77.0)  # what is measured may be changed
        return loss

    found = losses_on(model, plane, [0.0, 1.0, 2.0], np.array([-1, 3]), measure)
    assert np.allclose(found, [[-10, -9, -8], [30, 31, 32]], atol=1e-5)
    assert torch.equal(model.weight, before)
    assert model.training
    assert losses_on(model, plane, [0.0, 1.0], [], measure).shape == (0, 2)


def test_losses_at_the_corners(network, images):
    """The plane of a real network: its corners answer as the networks do."""
    networks = [network("resnet", seed) for seed in range(3)]
    plane = plane_through(*(each.state_dict() for each in networks))
    batch = images()
    with torch.no_grad():
        xs, ys = zip(*plane.corners)
        found = losses_on(networks[0], plane, xs, ys, lambda m: float(m(batch).square().mean()))
        wanted = [float(each(batch).square().mean()) for each in networks]
    assert np.diag(found) == pytest.approx(wanted, rel=1e-4)


def test_a_grid_holds_the_networks_with_a_margin():
    plane = plane_through(*({"weight": torch.tensor(value)} for value in ([0.0, 0.0], [2.0, 0.0], [-1.0, 4.0])))
    xs, ys = plane.grid(margin=0.5, points=7)
    assert np.allclose(xs, np.linspace(-2.5, 3.5, 7))  # corners from −1 to 2
    assert np.allclose(ys, np.linspace(-2, 6, 7))
    xs, ys = plane.grid(0, 2)
    assert [*xs, *ys] == pytest.approx([-1, 2, 0, 4])


def test_planes_are_not_of_the_tensors_given():
    states = drawn(1)
    plane = plane_through(*states)
    plane.state(0, 0)["w"].fill_(9.0)
    assert_same(plane.state(0, 0), states[0])
    for state in states:
        state["w"].fill_(9.0)  # as a training that goes on would
    for corner, state in zip(plane.corners, drawn(1)):
        assert_same(plane.state(*corner), state)


@pytest.mark.parametrize("alpha", [0.0, 0.3, 1.0])
def test_networks_on_a_line_are_refused(network, alpha):
    """Also where float32 rounds the third a little off the line."""
    one, other = (network("resnet", seed).state_dict() for seed in range(2))
    with pytest.raises(InputError, match=r"C lies on the line through A and B.*losses_along"):
        plane_through(one, other, interpolated(one, other, alpha))
    with pytest.raises(InputError, match="A and B are the same network"):
        plane_through(one, one, other)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda a, b, c: plane_through(a, b, {"w": c["w"]}), "only one of A and C has b"),
        (lambda a, b, c: plane_through(a, {**b, "b": b["b"][:2]}, c), r"b must be alike.*\(5,\) in A.*\(2,\) in B"),
        (lambda a, b, c: plane_through(a, b, {**c, "b": c["b"].double()}), "float32 of .* in A and torch.float64"),
        (lambda a, b, c: plane_through({**a, "b": a["b"] * math.nan}, b, c), "A must hold finite numbers; b does not"),
        (lambda a, b, c: plane_through(a, b, c).state(math.inf, 0), "x and y must be finite numbers, got inf and 0"),
        (lambda a, b, c: plane_through(a, b, c).grid(-0.1), "margin must be .*got -0.1"),
        (lambda a, b, c: plane_through(a, b, c).grid(points=1), "points must be .*got 1"),
        (lambda a, b, c: plane_through({}, {}, {}), "span a plane"),
        (
            lambda a, b, c: losses_on(nn.Linear(2, 1), plane_through(a, b, c), [0.0], [0.0], lambda m: 0.0),
            r"state must be that of a network of the architecture of model: [\s\S]*Missing key.*weight",
        ),
    ],
)
def test_arguments_that_cannot_be_used(call, message):
    with pytest.raises(InputError, match=message):
        call(*drawn(0))
