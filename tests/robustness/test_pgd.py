"""Projected gradient descent: against closed forms on linear networks and a grid, alone and among other images."""

import numpy as np
import pytest
import torch
from torch import nn

from papertwin.errors import InputError
from papertwin.nets import mlp
from papertwin.robustness import pgd
from papertwin.robustness.inputs import frozen, predict_labels
from papertwin.robustness.pgd import pgd_adversarial


def linear(weight: np.ndarray, bias: np.ndarray) -> nn.Linear:
    """The network x → W x + b, float64."""
    layer = nn.Linear(weight.shape[1], len(weight)).double()
    layer.load_state_dict({"weight": torch.tensor(weight), "bias": torch.tensor(bias)})
    return layer


def bumpy(seed: int) -> nn.Sequential:
    """A network of three classes on the unit square, each with a share of it."""
    model = mlp((2, 12, 3), seed=seed)
    draw = torch.Generator().manual_seed(seed)
    for parameter in model.parameters():
        nn.init.normal_(parameter, generator=draw)
    model[-1].bias.data -= model(torch.rand(500, 2, generator=draw)).mean(dim=0).detach()
    return model


def robustness(weight: np.ndarray, bias: np.ndarray, images: np.ndarray) -> np.ndarray:
    """ρ of each image by the closed form: min over k of (f_y − f_k) / ‖w_y − w_k‖₁, without a box."""
    logits = images @ weight.T + bias
    labels = logits.argmax(axis=1)
    found = []
    for row, y in zip(logits, labels):
        gaps = [(row[y] - row[k]) / np.abs(weight[y] - weight[k]).sum() for k in range(len(row)) if k != y]
        found.append(min(gaps))
    return np.array(found)


@pytest.mark.parametrize("target", ["runner-up", "untargeted", "all"])
@pytest.mark.parametrize("seed", range(3))
def test_two_linear_classes_within_two_per_cent(target, seed):
    rng = np.random.default_rng(seed)
    weight, bias, images = rng.normal(size=(2, 20)), rng.normal(size=2), rng.random((10, 20))
    exact = robustness(weight, bias, images)
    results = pgd_adversarial(linear(weight, bias), images, target=target, box=(-np.inf, np.inf), largest=2.0)
    ratio = np.array([result.epsilon for result in results]) / exact
    assert (ratio >= 1 - 1e-12).all()
    assert (ratio - 1 < np.maximum(0.02, 2.1 / 4096 / exact)).all()


def test_several_linear_classes_within_two_per_cent():
    rng = np.random.default_rng(7)
    weight, bias, images = rng.normal(size=(5, 30)), rng.normal(size=5), rng.random((12, 30))
    exact = robustness(weight, bias, images)
    results = pgd_adversarial(
        linear(weight, bias), images, target="all", box=(-np.inf, np.inf), largest=2.0, bisections=16
    )
    ratio = np.array([result.epsilon for result in results]) / exact
    assert (ratio >= 1 - 1e-12).all()
    assert (ratio < 1.02).all()


def test_as_near_as_a_grid_says():
    model = bumpy(2)
    axis = np.linspace(0, 1, 401)
    grid = np.stack(np.meshgrid(axis, axis, indexing="ij"), axis=-1).reshape(-1, 2)
    labels = predict_labels(frozen(model), grid)
    rows = np.random.default_rng(0).choice(len(grid), 40, replace=False)
    nearest = [np.abs(grid[labels != labels[row]] - grid[row]).max(axis=1).min() for row in rows]
    epsilons = np.array([result.epsilon for result in pgd_adversarial(model, grid[rows], target="all", steps=20)])
    assert (epsilons >= np.array(nearest) - 1 / 400).all()
    assert np.median(epsilons - nearest) < 1 / 400


def test_a_witness_is_what_it_says(device, zoo):
    model = mlp((30, 20, 6), seed=1).train()
    images = np.random.default_rng(1).random((12, 1, 5, 6), dtype=np.float32)
    results = pgd_adversarial(model, images, device=device)
    assert sum(result.found for result in results) > 6
    for x, result in zip(images, results):
        if result.found:
            zoo.check_found(model, x, result)
    assert model.training
    assert all(p.dtype == torch.float32 and p.requires_grad and p.grad is None for p in model.parameters())


@pytest.mark.parametrize("restarts", [1, 3])
def test_an_image_alone_and_among_others_gets_the_same_answer(restarts, monkeypatch):
    model = mlp((30, 20, 6), seed=1)
    images = np.random.default_rng(2).random((7, 1, 5, 6))
    settings = {"restarts": restarts, "steps": 12, "bisections": 8}
    together = pgd_adversarial(model, images, **settings)
    alone = [pgd_adversarial(model, images[k : k + 1], **settings)[0] for k in range(7)]
    monkeypatch.setattr(pgd, "TOGETHER", 3)
    parted = pgd_adversarial(model, images[::-1], **settings)[::-1]
    assert any(result.found for result in together)
    for one, two, three in zip(together, alone, parted):
        assert two.epsilon == pytest.approx(one.epsilon, rel=1e-6)
        assert three.epsilon == pytest.approx(one.epsilon, rel=1e-6)
        assert one.reached == two.reached == three.reached
        assert one.target == two.target == three.target


def test_the_same_seed_gives_the_same_witnesses_and_another_starts_elsewhere():
    model = mlp((30, 20, 6), seed=1)
    images = np.random.default_rng(3).random((6, 1, 5, 6))
    runs = [pgd_adversarial(model, images, restarts=3, steps=3, seed=seed) for seed in (0, 0, 1)]
    witnesses = [[result.witness for result in run if result.found] for run in runs]
    assert all(np.array_equal(a, b) for a, b in zip(witnesses[0], witnesses[1], strict=True))
    assert [r.epsilon for r in runs[0]] != [r.epsilon for r in runs[2]]


def test_targets_are_those_asked_for():
    model = mlp((30, 20, 6), seed=1)
    images = np.random.default_rng(3).random((6, 1, 5, 6))
    logits = frozen(model)(torch.tensor(images)).numpy()
    quick = {"steps": 15, "bisections": 8}
    near = pgd_adversarial(model, images, **quick)
    assert [r.target for r in near if r.found] == [int(np.argsort(-row)[1]) for row, r in zip(logits, near) if r.found]
    every, climbing = (pgd_adversarial(model, images, target=target, **quick) for target in ("all", "untargeted"))
    assert all(a.epsilon <= b.epsilon for a, b in zip(every, near))
    assert all(r.target is None and r.found for r in climbing)
    with pytest.raises(InputError, match="gives the seed"):
        pgd_adversarial(model, images, target=every[0].label)


def test_the_scale_of_the_logits_does_not_matter():
    model, images = bumpy(5), np.random.default_rng(5).random((8, 2))
    before = [result.epsilon for result in pgd_adversarial(model, images)]
    model[-1].weight.data *= 1024
    model[-1].bias.data *= 1024
    assert [result.epsilon for result in pgd_adversarial(model, images)] == before
    assert any(np.isfinite(before))


class Band(nn.Module):
    """Two classes on a line: label 1 only where x lies within `width` of `centre`."""

    def __init__(self, centre, width):
        super().__init__()
        self.centre, self.width = centre, width

    def forward(self, x):
        """(B, 1) → (B, 2)."""
        return torch.cat([torch.zeros_like(x), self.width - (x - self.centre).abs()], dim=1)


def test_a_radius_that_is_too_large_to_succeed_is_halved():
    """With one step an attack only reaches ± the radius: 1, 1/2, 1/4 pass the band over, 1/8 hits it."""
    (result,) = pgd_adversarial(Band(0.115, 0.015), np.zeros((1, 1)), steps=1, bisections=9)
    assert 0.1 < result.epsilon < 0.102
    assert result.reached == 1
    (nothing,) = pgd_adversarial(Band(0.115, -0.015), np.zeros((1, 1)))
    assert (nothing.epsilon, nothing.witness, nothing.reached, nothing.status) == (np.inf, None, None, "not found")


def test_a_box_without_ends_needs_a_radius():
    with pytest.raises(InputError, match="unbounded"):
        pgd_adversarial(nn.Linear(2, 2), np.zeros((1, 2)), box=(-np.inf, np.inf))
    assert pgd_adversarial(nn.Linear(2, 2), np.zeros((0, 2))) == []


@pytest.mark.parametrize(
    "wrong",
    [
        {"steps": 0},
        {"restarts": 0},
        {"bisections": -1},
        {"seed": -1},
        {"largest": 0.0},
        {"target": "best"},
        {"target": 9},
        {"box": (0, 0.1)},
    ],
)
def test_settings_that_mean_nothing_are_refused(wrong):
    with pytest.raises(InputError, match=next(iter(wrong))):
        pgd_adversarial(nn.Linear(2, 2), np.full((1, 2), 0.5), **wrong)


def test_images_of_different_shapes_are_refused():
    with pytest.raises(InputError, match="one shape"):
        pgd_adversarial(nn.Linear(2, 2), [np.zeros(2), np.zeros(3)])
