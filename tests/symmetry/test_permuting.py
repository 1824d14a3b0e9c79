"""A renumbered network computes what it did, weight for weight, mask for mask; an inverse is not the permutation."""

import copy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from papertwin.errors import InputError
from papertwin.sparse import random_mask, sparse_layers
from papertwin.symmetry import (
    Axis,
    Permutable,
    check_same_function,
    compose,
    inverse,
    permutables,
    permuted,
    random_permutations,
)
from papertwin.symmetry.permuting import with_state


def generator(seed):
    return torch.Generator().manual_seed(seed)


def masks_of(model, seed=3):
    shapes = {name: layer.weight.shape for name, layer in sparse_layers(model).items()}
    drawn = generator(seed)
    return {name: random_mask(shape, int(0.3 * shape.numel()), drawn) for name, shape in shapes.items()}


def loaded(model, state):
    new = copy.deepcopy(model)
    new.load_state_dict(state)
    return new


@pytest.mark.parametrize("seed", [0, 1])
def test_the_same_function(network, images, kind, seed):
    model, shown = network(kind, seed), images()
    description = permutables(model)
    permutations = random_permutations(description, generator(seed))
    state = model.state_dict()
    kept = {name: value.clone() for name, value in state.items()}
    new = permuted(state, description, permutations)
    with torch.no_grad():
        old, renumbered = model(shown), loaded(model, new)(shown)
    assert torch.allclose(old, renumbered, atol=1e-5, rtol=1e-5)
    assert old.std() > 1e-2
    assert check_same_function(model, description, permutations, shown) < 1e-9
    assert all(torch.equal(state[name], kept[name]) for name in state)
    assert list(new) == list(state)
    for name, value in state.items():
        assert new[name].dtype == value.dtype
        assert new[name].shape == value.shape
        assert torch.equal(new[name].flatten().abs().sort().values, value.flatten().abs().sort().values)
        assert new[name].data_ptr() != value.data_ptr()
    assert sum(not torch.equal(new[name], state[name]) for name in state) >= len(description)


def test_each_permutation_alone_keeps_the_function(network, images, kind):
    model = network(kind)
    description = permutables(model)
    for name, sigma in random_permutations(description, generator(5)).items():
        assert check_same_function(model, description, {name: sigma}, images()) < 1e-9


def test_channels_are_gathered():
    """(PW)[i] = W[σ(i)] on the way out and on the way in: with P as a matrix, W' = P_out W P_inᵀ."""
    model = nn.Sequential(nn.Linear(2, 3), nn.ReLU(), nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2))
    sigma, tau = torch.tensor([2, 0, 1]), torch.tensor([1, 2, 3, 0])
    state = model.state_dict()
    new = permuted(state, permutables(model), {"0": sigma, "2": tau})
    matrices = [torch.eye(len(each))[each] for each in (sigma, tau)]
    assert torch.equal(new["0.bias"], state["0.bias"][[2, 0, 1]])
    assert torch.equal(new["0.weight"], matrices[0] @ state["0.weight"])
    assert torch.equal(new["2.weight"], matrices[1] @ state["2.weight"] @ matrices[0].T)
    assert torch.equal(new["4.weight"], state["4.weight"] @ matrices[1].T)
    assert torch.equal(new["4.bias"], state["4.bias"])


def test_a_mask_of_the_inverse_is_another(network, kind):
    """Trap: π⁻¹ in place of π also gives a network of the same function, but not the mask that belongs to it."""
    model = network(kind)
    description, masks = permutables(model), masks_of(model)
    sigma = random_permutations(description, generator(2))
    right, wrong = permuted(masks, description, sigma), permuted(masks, description, inverse(sigma))
    state = {
        name: value * masks[name.removesuffix(".weight")] if name.removesuffix(".weight") in masks else value
        for name, value in model.state_dict().items()
    }
    weights = permuted(state, description, sigma)
    for name, mask in right.items():
        assert torch.equal(weights[f"{name}.weight"] != 0, mask)
    assert any(not torch.equal(right[name], wrong[name]) for name in masks)


def test_masks_and_weights_commute(network, kind):
    model = network(kind)
    description, masks = permutables(model), masks_of(model)
    sigma = random_permutations(description, generator(4))
    weights = {f"{name}.weight": layer.weight.detach() for name, layer in sparse_layers(model).items()}
    masked = {f"{name}.weight": weights[f"{name}.weight"] * mask for name, mask in masks.items()}
    before = permuted(masked, description, sigma)
    moved, new = permuted(weights, description, sigma), permuted(masks, description, sigma)
    for name, mask in new.items():
        assert mask.dtype == torch.bool
        assert mask.sum() == masks[name].sum()
        assert torch.equal(before[f"{name}.weight"], moved[f"{name}.weight"] * mask)
    by_tensor = permuted({f"{name}.weight": mask for name, mask in masks.items()}, description, sigma)
    assert all(torch.equal(by_tensor[f"{name}.weight"], mask) for name, mask in new.items())


@given(seed=st.integers(0, 10**6))
@settings(deadline=None, max_examples=20)
def test_permutations_are_a_group(seed):
    axes = (Axis("w", 0),), (Axis("w", 1), Axis("v", 0))
    description = (Permutable("rows", 5, axes[0], "w"), Permutable("columns", 4, axes[1], "v"))
    rng = generator(seed)
    one, other = (random_permutations(description, rng) for _ in range(2))
    state = {"w": torch.randn(5, 8, generator=rng), "v": torch.randn(4, generator=rng)}
    twice = permuted(permuted(state, description, one), description, other)
    both = permuted(state, description, compose(one, other))
    back = permuted(permuted(state, description, one), description, inverse(one))
    assert all(torch.equal(twice[name], both[name]) for name in state)
    assert all(torch.equal(back[name], state[name]) for name in state)
    assert all(torch.equal(sigma, torch.arange(len(sigma))) for sigma in compose(one, inverse(one)).values())
    assert torch.equal(compose({"rows": one["rows"]}, {})["rows"], one["rows"])


def test_permutations_of_two_devices_have_a_product(device):
    one, other = {"a": torch.tensor([1, 2, 0])}, {"a": torch.tensor([2, 1, 0], device=device)}
    assert compose(one, other)["a"].tolist() == [0, 2, 1]
    assert compose(other, one)["a"].tolist() == [1, 0, 2]
    assert compose(other, one)["a"].device == other["a"].device


def test_flattened_maps_move_as_blocks():
    model = nn.Sequential(nn.Conv2d(1, 3, 1), nn.Flatten(), nn.Linear(12, 2))
    new = permuted(model.state_dict(), permutables(model), {"0": torch.tensor([2, 0, 1])})
    columns = [8, 9, 10, 11, 0, 1, 2, 3, 4, 5, 6, 7]
    assert torch.equal(new["2.weight"], model[2].weight[:, columns])


def test_a_stream_that_is_not_renumbered_whole_is_noticed(network, images):
    model = network("resnet")
    description = permutables(model)
    sigma = random_permutations(description, generator(0))
    for each in description:
        others = tuple(other for other in description if other != each)
        for axis in each.axes:
            if axis.tensor in ("conv1.weight", "fc.weight"):
                continue  # with their only axis they would be unknown weights, which are refused
            axes = tuple(other for other in each.axes if other != axis)
            broken = Permutable(each.name, each.size, axes, each.activation)
            with pytest.raises(InputError, match=r"computes something else: logits differ by .*Describe"):
                check_same_function(model, (broken, *others), {each.name: sigma[each.name]}, images(4))


@pytest.mark.parametrize(
    ("state", "permutations", "message"),
    [
        ({}, {"fc": torch.arange(10)}, "permutations name fc; the network has 1, 3"),
        ({}, {"3": torch.tensor([0, 1, 1, 2, 3, 4, 5])}, "permutation of 3 must be .*from 0 to 6 once"),
        ({}, {"3": torch.arange(6)}, r"permutation of 3 must be .*got torch.int64 of shape \(6,\)"),
        ({}, {"3": torch.arange(7.0)}, "must be int64 .*got torch.float32"),
        (
            {"module.1": torch.ones(10, 192)},
            {},
            "state has module.1, which hold none of the described channels, those of 1, 3",
        ),
        (
            {"1.weight": torch.ones(9, 192)},
            {"1": torch.arange(10)},
            r"multiple of 10 channels along axis 0, got \(9, 192\)",
        ),
        ({"3.weight": torch.ones(7)}, {"1": torch.arange(10)}, "multiple of 10 channels along axis 1"),
    ],
)
def test_arguments_that_cannot_be_used(network, state, permutations, message):
    description = permutables(network("mlp"))
    with pytest.raises(InputError, match=message):
        permuted(state, description, permutations)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda state: {**state, "0.bias": torch.ones(4)}, r"architecture of model: [\s\S]*size mismatch for 0.bias"),
        (lambda state: {"0.weight": state["0.weight"]}, r"state must be that of [\s\S]*Missing key.*0.bias"),
        (lambda state: {**state, "1.weight": torch.ones(2)}, r"state must be that of [\s\S]*Unexpected key.*1.weight"),
        (lambda state: None, "state must be that of .*NoneType"),
    ],
)
def test_states_of_another_architecture(change, message):
    model = nn.Sequential(nn.Linear(2, 3))
    before = copy.deepcopy(model.state_dict())
    with pytest.raises(InputError, match=message):
        with_state(model, change(model.state_dict()))
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_permutations_of_two_sizes_have_no_product():
    with pytest.raises(InputError, match="of a must be as long, got 2 and 3"):
        compose({"a": torch.arange(2)}, {"a": torch.arange(3)})
