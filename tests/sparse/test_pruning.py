"""Pruning takes just the smallest weights, as many as it should, and gives none back."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from papertwin.errors import InputError
from papertwin.nets import cifar_resnet
from papertwin.sparse.pruning import prunable_layers, prune_smallest, prune_to, rounds_to

SHAPES = {"conv": (4, 3, 3, 3), "fc": (5, 16)}  # 108 + 80 weights


def drawn(seed, shapes=SHAPES):
    generator = torch.Generator().manual_seed(seed)
    weights = {name: torch.randn(shape, generator=generator) for name, shape in shapes.items()}
    return weights, {name: torch.ones(shape, dtype=torch.bool) for name, shape in shapes.items()}


def active(masks):
    return sum(int(mask.sum()) for mask in masks.values())


@given(seed=st.integers(0, 10**6), shares=st.lists(st.sampled_from([0.0, 0.1, 0.2, 0.5, 0.99]), max_size=4))
@settings(deadline=None, max_examples=30)
def test_the_smallest_of_all_layers_go(seed, shares):
    weights, masks = drawn(seed)
    for share in shares:
        before = {name: mask.clone() for name, mask in masks.items()}
        new = prune_smallest(weights, masks, share)
        assert all(torch.equal(masks[name], before[name]) for name in masks)
        assert not any((new[name] & ~masks[name]).any() for name in masks)
        remaining = np.concatenate([weights[name][masks[name]].abs().numpy() for name in masks])
        kept = np.concatenate([weights[name][new[name]].abs().numpy() for name in masks])
        count = len(remaining) - math.floor(share * len(remaining) + 1e-6)
        assert sorted(kept) == sorted(remaining)[len(remaining) - count :]
        masks = new


@pytest.mark.parametrize("sparsity", [0.0, 0.36, 0.5, 0.8, 0.9, 0.95, 0.97])
@pytest.mark.parametrize("share", [0.2, 0.5])
def test_rounds_end_at_the_target(sparsity, share):
    weights, masks = drawn(0)
    rounds = rounds_to(sparsity, share)
    left = 1.0
    for place, each in enumerate(rounds):
        pruned = 1 - (1 - each) / left
        assert pruned == pytest.approx(share) if place < len(rounds) - 1 else 0 < pruned <= share + 1e-9
        left = 1 - each
        masks = prune_to(weights, masks, each)
        assert active(masks) == 188 - math.floor(188 * each + 1e-6)
    assert len(rounds) == math.ceil(round(math.log(1 - sparsity) / math.log(1 - share), 9))
    assert active(masks) == 188 - math.floor(188 * sparsity + 1e-6)


def test_masks_may_be_of_weights_that_changed():
    """After fine-tuning a weight that was pruned may be large in `weights`: it stays pruned."""
    weights, masks = drawn(1)
    once = prune_to(weights, masks, 0.5)
    grown = {name: torch.where(once[name], weights[name], 100.0) for name in weights}
    twice = prune_to(grown, once, 0.75)
    assert active(twice) == 188 - 141
    assert not any((twice[name] & ~once[name]).any() for name in twice)
    assert prune_to(grown, twice, 0.75)["fc"].equal(twice["fc"])


def test_equal_weights_go_from_the_first_on():
    ones = {"a": torch.ones(2, 2), "b": -torch.ones(1, 4)}
    masks = prune_to(ones, {name: weight.abs() > 0 for name, weight in ones.items()}, 0.625)
    assert masks["a"].tolist() == [[False, False], [False, False]]
    assert masks["b"].tolist() == [[False, True, True, True]]


def test_shortcuts_are_not_pruned():
    model = cifar_resnet(8, width=0.25, seed=0)
    blocks = [f"stage{stage}_block1.conv{place}" for stage in (1, 2, 3) for place in (1, 2)]
    assert list(prunable_layers(model)) == ["conv1", *blocks, "fc"]
    assert "stage2_block1.projection" in prunable_layers(model, shortcuts=())
    assert "fc" not in prunable_layers(model, shortcuts=("projection", "fc"))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda w, m: prune_smallest(w, m, 1.0), "share must be .*got 1.0"),
        (lambda w, m: prune_smallest(w, m, math.nan), "share must be .*got nan"),
        (lambda w, m: prune_smallest({"fc": w["fc"]}, m, 0.2), "same layers, got .*'fc'.* and .*'conv', 'fc'"),
        (lambda w, m: prune_smallest(w, {}, 0.2), "same layers"),
        (lambda w, m: prune_smallest(w, {**m, "fc": m["fc"].float()}, 0.2), "mask of fc must be bool"),
        (lambda w, m: prune_smallest(w, {**m, "fc": m["fc"].T}, 0.2), r"shape \(5, 16\), got .*\(16, 5\)"),
        (lambda w, m: prune_smallest({**w, "fc": w["fc"] * math.nan}, m, 0.2), "remains is NaN"),
        (lambda w, m: prune_to(w, m, 1), "sparsity must be"),
        (lambda w, m: prune_to(w, prune_to(w, m, 0.5), 0.4), "94 of 188 weights are pruned already"),
        (lambda w, m: rounds_to(0.5, 0), "share must be .*got 0"),
        (lambda w, m: rounds_to(-0.1), "sparsity must be"),
    ],
)
def test_arguments_that_cannot_be_used(call, message):
    with pytest.raises(InputError, match=message):
        call(*drawn(0))
