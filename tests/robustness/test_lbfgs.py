"""The L-BFGS baseline: against closed forms on linear networks, finite differences, and a grid."""

import numpy as np
import pytest
import torch
from scipy import optimize
from torch import nn

from papertwin.errors import InputError
from papertwin.nets import mlp
from papertwin.robustness.inputs import frozen, predict_labels
from papertwin.robustness.lbfgs import _minimiser, lbfgs_adversarial, objective

FREE = (-np.inf, np.inf)


def linear(weight: np.ndarray, bias: np.ndarray) -> nn.Linear:
    """The network x → W x + b, float64."""
    layer = nn.Linear(weight.shape[1], len(weight)).double()
    layer.load_state_dict({"weight": torch.tensor(weight), "bias": torch.tensor(bias)})
    return layer


def two_classes(seed: int, size: int = 20):
    """A linear network of two classes, a seed, v = w_other − w_label and the lead of the seed's label."""
    rng = np.random.default_rng(seed)
    weight, bias, x = rng.normal(size=(2, size)), rng.normal(size=2), rng.uniform(0.3, 0.7, size)
    logits = weight @ x + bias
    label = int(logits.argmax())
    return linear(weight, bias), x, weight[1 - label] - weight[label], logits[label] - logits[1 - label]


@pytest.mark.parametrize("seed", range(5))
def test_one_minimiser_against_a_search_on_a_line(seed):
    model, x, v, lead = two_classes(seed)
    model64, label = frozen(model), int(predict_labels(frozen(model), x[None])[0])
    for c in (0.05, 1.0, 20.0):
        point = _minimiser(model64, x, 1 - label, FREE, 200)(c)
        along = optimize.minimize_scalar(lambda t, c=c: c * t * t * (v @ v) + np.logaddexp(0, lead - t * (v @ v)))
        assert point - x == pytest.approx(along.x * v, abs=0.01 * np.abs(along.x * v).max())


def test_a_minimiser_within_the_box_cannot_be_improved():
    """On free coordinates the gradient vanishes; on an end of the box it points out of it."""
    rng = np.random.default_rng(8)
    model64 = frozen(linear(rng.normal(size=(5, 20)), rng.normal(size=5)))
    x = np.clip(rng.uniform(-0.2, 1.2, 20), 0, 1)
    for c in (0.1, 1.0):
        point = _minimiser(model64, x, 3, (0.0, 1.0), 200)(c)
        gradient = objective(model64, x, 3)(point, c)[1]
        assert 0 < ((point == 0) | (point == 1)).sum() < 20
        step = np.clip(point - gradient, 0, 1) - point
        assert np.abs(step).max() < 0.05 * np.abs(gradient).max()


@pytest.mark.parametrize("seed", range(5))
def test_two_linear_classes_by_the_closed_form(seed):
    """The minimiser of the largest c lies on the boundary in the direction of v: d = lead · v / ‖v‖²."""
    model, x, v, lead = two_classes(seed)
    result = lbfgs_adversarial(model, x, box=FREE)
    assert result.found
    nearest = lead * np.abs(v).max() / (v @ v)
    assert nearest * (1 - 1e-9) < result.epsilon < 1.02 * nearest
    assert result.epsilon > lead / np.abs(v).sum()
    assert result.target == result.reached == 1 - result.label


def test_no_linear_network_is_fooled_within_its_robustness():
    rng = np.random.default_rng(3)
    for _ in range(8):
        weight, bias, x = rng.normal(size=(4, 15)), rng.normal(size=4), rng.random(15)
        logits = weight @ x + bias
        label = int(logits.argmax())
        gaps = [(logits[label] - logits[k]) / np.abs(weight[label] - weight[k]).sum() for k in range(4) if k != label]
        for target in ("runner-up", "all"):
            assert lbfgs_adversarial(linear(weight, bias), x, target=target).epsilon >= min(gaps)


def test_the_gradient_by_finite_differences():
    model64 = frozen(nn.Sequential(nn.Flatten(), nn.Linear(12, 9), nn.Tanh(), nn.Linear(9, 5)))
    rng = np.random.default_rng(0)
    function = objective(model64, rng.random((3, 2, 2)), 4)
    point = rng.random(12)
    for c in (0.0, 3.0):
        numeric = optimize.approx_fprime(point, lambda z, c=c: function(z, c)[0], 1e-6)
        assert function(point, c)[1] == pytest.approx(numeric, abs=2e-5)


def test_a_witness_is_what_it_says(device, zoo):
    model = mlp((30, 20, 6), seed=1).train()
    images = np.random.default_rng(1).random((6, 1, 5, 6), dtype=np.float32)
    for x in images:
        result = lbfgs_adversarial(model, x, device=device)
        if result.found:
            zoo.check_found(model, x, result)
    assert model.training
    assert all(p.dtype == torch.float32 and p.requires_grad and p.grad is None for p in model.parameters())


def test_the_same_call_gives_the_same_witness_and_more_targets_never_a_farther_one():
    model = mlp((30, 20, 6), seed=4)
    x = np.random.default_rng(4).random((1, 5, 6))
    first, second = lbfgs_adversarial(model, x), lbfgs_adversarial(model, x)
    assert first.found
    assert np.array_equal(first.witness, second.witness)
    every = lbfgs_adversarial(model, x, target="all")
    single = [lbfgs_adversarial(model, x, target=k) for k in range(6) if k != first.label]
    assert every.epsilon == min(result.epsilon for result in single) <= first.epsilon
    assert single[every.target - (every.target > every.label)].epsilon == every.epsilon


def test_the_box_holds_the_nearest_corner_only():
    """A linear boundary beyond the box is out of reach; just inside it, the corner is found."""
    weight = np.array([[0.0, 0.0], [1.0, 1.0]])
    x = np.array([0.9, 0.2])
    outside = lbfgs_adversarial(linear(weight, np.array([0.0, -2.01])), x)
    assert (outside.epsilon, outside.witness, outside.target, outside.reached) == (np.inf, None, None, None)
    assert outside.status == "not found"
    inside = lbfgs_adversarial(linear(weight, np.array([0.0, -1.98])), x)
    assert 0.78 <= inside.epsilon <= 0.8
    assert inside.witness[0] > 0.97


def test_never_nearer_than_a_grid_says():
    model = mlp((2, 12, 3), seed=2)
    axis = np.linspace(0, 1, 401)
    grid = np.stack(np.meshgrid(axis, axis, indexing="ij"), axis=-1).reshape(-1, 2)
    draw = torch.Generator().manual_seed(2)
    for parameter in model.parameters():
        nn.init.normal_(parameter, generator=draw)
    model[-1].bias.data -= model(torch.tensor(grid).float()).mean(dim=0).detach()
    labels = predict_labels(frozen(model), grid)
    assert len(np.unique(labels)) == 3
    excess = []
    for row in np.random.default_rng(0).choice(len(grid), 8, replace=False):
        nearest = np.abs(grid[labels != labels[row]] - grid[row]).max(axis=1).min()
        excess.append(lbfgs_adversarial(model, grid[row], target="all").epsilon - nearest)
    assert min(excess) >= -1 / 400
    assert np.median(excess) < 0.05


@pytest.mark.parametrize(
    "wrong",
    [
        {"c_range": (1, 1)},
        {"c_range": (0, 1)},
        {"c_range": (1, np.inf)},
        {"c_range": 3},
        {"steps": 0},
        {"iterations": 1.5},
        {"target": 9},
        {"target": "best"},
        {"box": (0, 0.1)},
    ],
)
def test_settings_that_mean_nothing_are_refused(wrong):
    with pytest.raises(InputError, match=next(iter(wrong))):
        lbfgs_adversarial(nn.Linear(2, 2), np.array([0.5, 0.5]), **wrong)
