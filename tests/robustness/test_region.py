"""The linear region: against Jacobians of the network itself, and inside exactly where every unit does the same."""

import math

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch import nn
from torch.autograd.functional import jacobian

from papertwin.nets import lenet, mlp
from papertwin.robustness import region as module
from papertwin.robustness.inputs import frozen
from papertwin.robustness.region import LinearRegion


def deep():
    """Two blocks of everything."""
    return nn.Sequential(
        nn.Sequential(nn.Conv2d(2, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU()),
        nn.MaxPool2d(3, 2, padding=1, ceil_mode=True),
        nn.Dropout2d(0.5),
        nn.Sequential(nn.Conv2d(4, 3, 3, padding="same", padding_mode="reflect", bias=False), nn.ReLU()),
        nn.AvgPool2d(2, 1),
        nn.Flatten(),
        nn.Linear(27, 4),
    )


def shared():
    """One ReLU in three places."""
    bend = nn.ReLU()
    return nn.Sequential(nn.Linear(6, 7), bend, nn.Linear(7, 7), bend, nn.Linear(7, 3), bend)


NETS = {
    "perceptron": (lambda: mlp((6, 9, 8, 4), seed=0), (1, 2, 3)),
    "deep": (deep, (2, 7, 7)),
    "pool without relu": (
        lambda: nn.Sequential(nn.Conv2d(1, 2, 2), nn.MaxPool2d(3, 2), nn.Flatten(), nn.Linear(8, 3)),
        (1, 6, 6),
    ),
    "pool first": (lambda: nn.Sequential(nn.MaxPool2d(2), nn.Flatten(), nn.Linear(4, 3), nn.ReLU()), (1, 4, 4)),
    "shared relu": (shared, (6,)),
    "linear": (lambda: nn.Linear(6, 3), (6,)),
}


def network(kind: str, seed: int, device="cpu") -> nn.Module:
    """A float64 network whose weights, biases and statistics are random."""
    model = NETS[kind][0]()
    rng = np.random.default_rng(seed)
    for name, value in model.state_dict().items():
        if value.is_floating_point():
            draws = torch.from_numpy(rng.normal(size=value.shape))
            value.copy_(draws.abs() + 0.2 if name.endswith("running_var") else draws)
    return frozen(model, device)


def inputs(kind: str, seed: int, count: int = 1, device="cpu") -> torch.Tensor:
    """(count, …) points of the unit box."""
    points = torch.from_numpy(np.random.default_rng(seed + 1000).random((count, *NETS[kind][1])))
    return points.to("cpu" if str(device) == "mps" else device)


def flat(model: nn.Module) -> list[nn.Module]:
    """The layers of a network, one by one."""
    return [layer for child in model for layer in flat(child)] if isinstance(model, nn.Sequential) else [model]


def choices(model: nn.Module, x: torch.Tensor) -> list[torch.Tensor]:
    """What every bending layer of the network itself chooses from at one input: (units,), or (windows, entries)."""
    z, found = x[None], []
    for layer in flat(model):
        if isinstance(layer, nn.ReLU):
            found.append(z.flatten())
        if isinstance(layer, nn.MaxPool2d):
            beyond = [layer.padding, sum(z.shape[2:])] * 2
            wide = nn.functional.pad(z, beyond, value=-math.inf)
            size = layer(z).shape[2:]
            windows = wide.unfold(2, layer.kernel_size, layer.stride).unfold(3, layer.kernel_size, layer.stride)
            found.append(windows[:, :, : size[0], : size[1]].flatten(4).flatten(0, 3))
        z = layer(z)
    return found


def pattern(model: nn.Module, x: torch.Tensor) -> tuple[list[list], float]:
    """What the network chooses at one input, and how far the closest choice is from a tie."""
    chosen, gap = [], math.inf
    for values in choices(model, x):
        if values.ndim == 1:
            chosen.append((values > 0).tolist())
            gap = min(gap, float(values.abs().min()))
        else:
            chosen.append(values.argmax(1).tolist())
            best = values.topk(2, dim=1).values
            gap = min(gap, float((best[:, 0] - best[:, 1]).min()))
    return chosen, gap


def rows_of_the_network(model: nn.Module, seed: torch.Tensor) -> list[np.ndarray]:
    """(rows, n + 1) of each bending layer, A beside c, by derivatives of the network itself; rows in any order."""
    slopes = jacobian(lambda x: tuple(choices(model, x)), seed, vectorize=True)
    found = []
    for values, slope in zip(choices(model, seed), slopes):
        slope = slope.reshape(*values.shape, -1)
        if values.ndim == 1:
            sign = torch.where(values > 0, 1.0, -1.0).double()
            values, slope = values * sign, slope * sign[:, None]
        else:
            won, inside = values.argmax(1, keepdim=True), values > -math.inf
            inside.scatter_(1, won, False)
            slope = (slope.take_along_dim(won[:, :, None], 1) - slope)[inside]
            values = (values.take_along_dim(won, 1) - values)[inside]
        found.append(torch.column_stack([slope, values - slope @ seed.flatten()]).numpy())
    return found


def in_order(rows: np.ndarray) -> np.ndarray:
    """The rows sorted by their products with one random vector."""
    return rows[np.argsort(rows @ np.random.default_rng(0).normal(size=rows.shape[1]))]


@pytest.mark.parametrize("kind", [kind for kind in NETS if kind != "linear"])
@pytest.mark.parametrize("seed", range(3))
def test_the_rows_are_derivatives_of_the_network_itself(kind, seed):
    model, x = network(kind, seed), inputs(kind, seed)[0]
    region = LinearRegion(model, x)
    matrix, constant = region.constraint_rows(np.arange(region.rows))
    assert matrix.shape == (region.rows, x.numel())
    expected = rows_of_the_network(model, x)
    assert region.sizes == [len(rows) for rows in expected]
    ends = np.cumsum(region.sizes)[:-1]
    for ours, theirs in zip(np.split(np.column_stack([matrix, constant]), ends), expected):
        np.testing.assert_allclose(in_order(ours), in_order(theirs), atol=1e-9)


def explicit(region: LinearRegion) -> tuple[np.ndarray, np.ndarray]:
    """A over F, and c over d, by pushing zero and every unit image through the held network."""
    count = region.seed.numel()
    units = torch.eye(count, dtype=torch.float64).view(count, *region.seed.shape).to(region.seed)
    both = torch.cat(region.slack(torch.cat([torch.zeros_like(units[:1]), units])), 1).cpu().numpy()
    return (both[1:] - both[0]).T, both[0]


@pytest.mark.parametrize("kind", NETS)
def test_products_and_rows_are_of_one_matrix(kind, device):
    model, (x, *others) = network(kind, 4, device), inputs(kind, 4, 4, device)
    region, points = LinearRegion(model, x), torch.stack(others)
    count, close = region.rows, {"rtol": 1e-9, "atol": 1e-9}
    both, constant = explicit(region)
    rows = np.concatenate([region.constraint_rows(np.arange(count))[0], region.logit_rows()[0]])
    np.testing.assert_allclose(rows, both, **close)
    np.testing.assert_allclose(region.constraint_rows(np.arange(count))[1], constant[:count], **close)
    np.testing.assert_allclose(region.logit_rows()[1], constant[count:], **close)
    values = torch.cat(region.slack(points), 1).cpu()
    np.testing.assert_allclose(values, points.flatten(1).cpu().numpy() @ both.T + constant, **close)
    weights = np.random.default_rng(5).normal(size=(3, len(both)))
    given_weights = torch.from_numpy(weights).to(x)
    back = region.transpose(given_weights[:, :count], given_weights[:, count:])
    assert back.shape == points.shape
    np.testing.assert_allclose(back.flatten(1).cpu(), weights @ both, **close)


@pytest.mark.parametrize("kind", NETS)
def test_the_seed_is_inside_and_the_network_is_itself_there(kind, device):
    for seed in range(3):
        model, x = network(kind, seed, device), inputs(kind, seed, 1, device)[0]
        region = LinearRegion(model, x)
        slack, logits = region.slack(x[None])
        assert slack.shape == (1, region.rows) == (1, sum(region.sizes))
        assert not region.rows or slack.min() >= 0
        torch.testing.assert_close(logits, model(x[None]))
        torch.testing.assert_close(region.logits, model(x[None])[0])
    assert (region.rows == 0) == (kind == "linear")


@pytest.mark.parametrize("kind", NETS)
def test_the_norms_of_rows_are_estimated_to_a_factor(kind, device):
    model, x = network(kind, 4, device), inputs(kind, 4, 1, device)[0]
    region, state = LinearRegion(model, x), torch.get_rng_state()
    exact = np.linalg.norm(region.constraint_rows(np.arange(region.rows))[0], axis=1)
    norms = region.row_norms.cpu().numpy()
    assert norms.shape == (region.rows,)
    assert torch.equal(torch.get_rng_state(), state)
    solid = exact > 1e-9
    assert solid.any() == (kind != "linear")
    assert ((norms > exact / 2) & (norms < 2 * exact))[solid].all()
    assert (norms > 0).all()


@pytest.mark.parametrize("scale", [1e-30, 1e-7, 1.0, 1e7])
def test_rows_of_rounding_have_the_norm_of_their_layer_and_rows_of_nothing_that_of_one(scale):
    model = nn.Sequential(nn.Linear(3, 3), nn.ReLU(), nn.Linear(3, 2), nn.ReLU(), nn.Linear(2, 2)).double()
    first = scale * torch.tensor([[3.0, 4.0, 0.0], [1e-16, -1e-16, 0.0], [0.0, 0.0, 0.0]], dtype=torch.float64)
    model[0].weight.data, model[0].bias.data = first, -1e3 * scale * torch.ones(3, dtype=torch.float64)
    norms = LinearRegion(frozen(model), torch.full((3,), 0.5, dtype=torch.float64)).row_norms
    assert norms[0] == pytest.approx(5 * scale, rel=0.5)
    assert norms[1:3].tolist() == pytest.approx([1e-9 * float(norms[0])] * 2)
    assert norms[3:].tolist() == [1, 1]


@settings(max_examples=60, deadline=None)
@given(kind=st.sampled_from([kind for kind in NETS if kind != "linear"]), seed=st.integers(0, 10**6))
def test_inside_exactly_where_every_unit_and_window_does_the_same(kind, seed):
    """Along a ray from the seed the region ends at the first slack that gets to 0."""
    model, (x, far) = network(kind, seed % 50), inputs(kind, seed, 2)
    region = LinearRegion(model, x)
    (start, end), _ = region.slack(torch.stack([x, far]))
    at_seed, gap = pattern(model, x)
    falls = start - end > 1e-9
    assume(gap > 1e-6 and falls.any())
    last = float((start / (start - end))[falls].min())
    for step, inside in ((0.3 * last, True), (0.999 * last, True), (1.001 * last, False)):
        point = x + step * (far - x)
        slack, logits = region.slack(point[None])
        there, gap = pattern(model, point)
        assume(gap > 1e-9)
        assert bool((slack >= 0).all()) == (there == at_seed) == inside
        if inside:
            torch.testing.assert_close(logits, model(point[None]))


@settings(max_examples=60, deadline=None)
@given(kind=st.sampled_from(list(NETS)), seed=st.integers(0, 10**6), scale=st.sampled_from([0.003, 0.03, 0.3]))
def test_a_point_is_inside_if_and_only_if_the_pattern_is_that_of_the_seed(kind, seed, scale):
    model, (x, far) = network(kind, seed % 50), inputs(kind, seed, 2)
    point = x + scale * (far - x)
    (here, gap), (there, gap_there) = pattern(model, x), pattern(model, point)
    assume(min(gap, gap_there) > 1e-9)
    slack, logits = LinearRegion(model, x).slack(point[None])
    assert bool((slack >= 0).all()) == (here == there)
    if here == there:
        torch.testing.assert_close(logits, model(point[None]))


@pytest.fixture(scope="module")
def deep_region():
    """A region with rows of every kind, and its A and c."""
    region = LinearRegion(network("deep", 1), inputs("deep", 1)[0])
    return region, *explicit(region)


@settings(max_examples=40, deadline=None)
@given(data=st.data(), chunk=st.integers(1, 9))
def test_any_rows_in_any_portions(deep_region, data, chunk):
    region, both, shift = deep_region
    index = np.array(sorted(data.draw(st.sets(st.integers(0, region.rows - 1)))), dtype=np.int64)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(region, "portion", chunk)
        matrix, constant = region.constraint_rows(index)
    assert matrix.shape == (len(index), region.seed.numel())
    np.testing.assert_allclose(matrix, both[index], atol=1e-9)
    np.testing.assert_allclose(constant, shift[index], atol=1e-9)


@pytest.mark.parametrize("count", [1023, 1024, 1025])
def test_rows_around_the_border_of_a_portion(count, monkeypatch):
    monkeypatch.setattr(module, "BUDGET", 1024 * 700 * 8)
    model = frozen(nn.Sequential(nn.Linear(2, 700), nn.ReLU(), nn.Linear(700, 700), nn.ReLU(), nn.Linear(700, 2)))
    region = LinearRegion(model, torch.tensor([0.3, 0.6], dtype=torch.float64))
    assert region.portion == 1024
    index = np.arange(1400 - count, 1400)
    both, shift = explicit(region)
    matrix, constant = region.constraint_rows(index)
    np.testing.assert_allclose(matrix, both[index], atol=1e-12)
    np.testing.assert_allclose(constant, shift[index], atol=1e-12)


def test_a_portion_is_a_row_at_least_and_keeps_to_its_budget(monkeypatch):
    lenet_region = LinearRegion(frozen(lenet(seed=0)), torch.zeros(1, 28, 28, dtype=torch.float64))
    assert lenet_region.portion == module.BUDGET // (20 * 24 * 24 * 8)
    assert LinearRegion(network("linear", 0), inputs("linear", 0)[0]).portion == module.BUDGET // (6 * 8)
    monkeypatch.setattr(module, "BUDGET", 100)
    tight = LinearRegion(network("deep", 0), inputs("deep", 0)[0])
    assert tight.portion == 1
    both, _ = explicit(tight)
    np.testing.assert_allclose(tight.constraint_rows(np.arange(9))[0], both[:9], atol=1e-9)


def test_the_lenet_of_caffe_has_11540_rows_and_a_blank_image_is_in_its_own_region():
    region = LinearRegion(frozen(lenet(seed=0)), torch.zeros(1, 28, 28, dtype=torch.float64))
    assert region.sizes == [20 * 12 * 12 * 3, 50 * 4 * 4 * 3, 500]
    assert region.rows == 11_540
    slack = region.slack(region.seed[None])[0]
    assert slack.min() == 0
    assert (slack[:, :8640] == 0).all()
    matrix, constant = region.constraint_rows(np.array([0, 8640, 11_539]))
    assert (np.count_nonzero(matrix[:2], axis=1) <= [5 * 6, 14 * 14]).all()
    assert (constant >= 0).all()
