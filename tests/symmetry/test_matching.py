"""Matching finds a shuffle again, brings A nearer to B, and never makes its objective worse."""

import copy
import itertools

import pytest
import torch
from torch import nn

from papertwin.errors import InputError
from papertwin.symmetry import (
    Permutable,
    activation_matching,
    agreement,
    compose,
    inverse,
    permutables,
    permuted,
    random_permutations,
    weight_matching,
)
from papertwin.symmetry.matching import _recorded, assignment


def generator(seed):
    return torch.Generator().manual_seed(seed)


def shuffled(model, description, sigma):
    new = copied(model)
    new.load_state_dict(permuted(model.state_dict(), description, sigma))
    return new


def copied(model):
    return copy.deepcopy(model)


def batches(images, count=8):
    return [images(32, seed) for seed in range(count)]


def live(model, description, shown):
    """Channels of each `Permutable` that respond to anything, alike in no two."""
    found = {}
    with _recorded(model, description) as kept, torch.no_grad():
        model(torch.cat(shown))
        for each in description:
            found[each.name] = kept[each.name].movedim(1, -1).flatten(0, -2).std(0) > 1e-2
    return found


def test_equal_networks_need_no_permutation(network, images, kind):
    model, shown = network(kind), batches(images)
    description = permutables(model)
    found = activation_matching(model, copied(model), description, shown)
    alive = live(model, description, shown)
    assert sum(int(each.sum()) for each in alive.values()) >= 0.6 * sum(each.size for each in description)
    for name, sigma in found.items():
        assert torch.equal(sigma[alive[name]], torch.arange(len(sigma))[alive[name]])
    state = model.state_dict()
    same = weight_matching(state, state, description, generator(0))
    assert all(torch.equal(sigma, torch.arange(len(sigma))) for sigma in same.permutations.values())
    assert len(same.agreements) == 1


@pytest.mark.parametrize("seed", [0, 1])
def test_activations_give_a_shuffle_back(network, images, kind, seed):
    """B is A renumbered by σ: A renumbered by what is found is B, in all channels that are alive."""
    model, shown = network(kind, seed), batches(images)
    description = permutables(model)
    sigma = random_permutations(description, generator(seed))
    other = shuffled(model, description, sigma)
    found = activation_matching(model, other, description, shown)
    for name, alive in live(other, description, shown).items():
        assert torch.equal(found[name][alive], sigma[name][alive])
    back = activation_matching(other, model, description, shown)
    for name, alive in live(model, description, shown).items():
        assert torch.equal(back[name][alive], inverse(sigma)[name][alive])


def test_weights_give_a_shuffle_back(network, kind):
    """A shuffle of a part of the channels; from a shuffle of all, coordinate ascent may end elsewhere."""
    model = network(kind)
    description = permutables(model)
    for each in description:
        sigma = {each.name: torch.randperm(each.size, generator=generator(1))}
        other = permuted(model.state_dict(), description, sigma)
        found = weight_matching(model.state_dict(), other, description, generator(2))
        wanted = {one.name: torch.arange(one.size) for one in description} | sigma
        assert all(torch.equal(found.permutations[name], wanted[name]) for name in wanted)


@pytest.mark.parametrize("kind", ["mlp", "mlp with norms", "vgg"])
def test_weights_give_a_shuffle_of_all_layers_back(network, kind):
    model = network(kind)
    description = permutables(model)
    sigma = random_permutations(description, generator(3))
    other = permuted(model.state_dict(), description, sigma)
    found = [weight_matching(model.state_dict(), other, description, generator(seed)) for seed in range(5)]
    best = max(found, key=lambda each: each.agreements[-1])
    assert all(torch.equal(best.permutations[name], sigma[name]) for name in sigma)


def test_agreement_never_falls_and_is_what_it_says(network, kind):
    state_a, state_b = (network(kind, seed).state_dict() for seed in (0, 1))
    description = permutables(network(kind))
    found = weight_matching(state_a, state_b, description, generator(0))
    assert len(found.agreements) > len(description)
    assert all(one < other for one, other in itertools.pairwise(found.agreements))
    assert found.agreements[0] == pytest.approx(agreement(state_a, state_b, description, {}))
    moved = permuted(state_a, description, found.permutations)
    names = {axis.tensor for each in description for axis in each.axes if "running" not in axis.tensor}
    dots = sum(float((moved[name].double() * state_b[name].double()).sum()) for name in names)
    assert found.agreements[-1] == pytest.approx(dots)
    assert agreement(state_a, state_b, description, found.permutations) == pytest.approx(dots)


def test_no_single_permutation_is_better_than_what_is_found(network):
    """Brute force over all permutations of 5 channels, the others kept."""
    states = []
    for seed in (0, 1):
        torch.manual_seed(seed)
        model = nn.Sequential(nn.Linear(3, 5), nn.ReLU(), nn.Linear(5, 5), nn.ReLU(), nn.Linear(5, 2))
        states.append(model.state_dict())
    description = permutables(model)
    found = weight_matching(*states, description, generator(0))
    for name in ("0", "2"):
        for order in itertools.permutations(range(5)):
            tried = found.permutations | {name: torch.tensor(order)}
            assert agreement(*states, description, tried) <= found.agreements[-1] + 1e-9


def test_one_pass_is_layer_by_layer(network, images, kind):
    """To permute A in place before the next layer is matched, as the paper does, gives the same permutations."""
    model_a, model_b, shown = network(kind, 0), network(kind, 1), batches(images, 3)
    description = permutables(model_a)
    at_once = activation_matching(model_a, model_b, description, shown)
    moving, in_turn = model_a, {}
    for each in description:
        one = activation_matching(moving, model_b, (each,), shown)
        moving = shuffled(moving, description, one)
        in_turn |= one
    responsive = live(model_b, description, shown)
    for name, sigma in at_once.items():
        assert torch.equal(sigma[responsive[name]], in_turn[name][responsive[name]])


def test_responses_are_those_after_the_relu():
    """A channel and its negative correlate only before it: after, what B's channel shows is A's second."""
    first = torch.tensor([[1.0], [-1.0]])
    models = []
    for order in ([0, 1], [1, 0]):
        model = nn.Sequential(nn.Linear(1, 2, bias=False), nn.ReLU(inplace=True), nn.Linear(2, 1))
        model[0].weight.data = first[order]
        models.append(model)
    found = activation_matching(*models, permutables(models[0]), [torch.linspace(-1, 1, 9)[:, None]])
    assert found["0"].tolist() == [1, 0]


def test_blocks_and_streams_are_shown_after_their_relu(network, images):
    model, shown = network("resnet"), images()
    description = permutables(model)
    with _recorded(model, description) as kept, torch.no_grad():
        model(shown)
        stem = model.conv1_relu(model.conv1_norm(model.conv1(shown)))
        block = model.stage1_block1
        inner = block.norm1(block.conv1(stem)).relu()
        stream = model.stage1_block2(block(stem))
    assert torch.allclose(kept["stage1_block1.conv1"], inner)
    assert torch.allclose(kept["conv1"], stream)
    assert all(bool((responses >= 0).all()) for responses in kept.values())


@pytest.mark.parametrize("seed", range(4))
def test_ties_of_large_weights_are_no_gain(seed):
    """All channels are equal, so that no permutation is better but by the rounding of large sums."""
    model = nn.Sequential(nn.Linear(6, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 6))
    description, rng = permutables(model), generator(seed)
    state = {
        name: torch.randn(value.shape, dtype=torch.float64, generator=rng) * 1e6
        for name, value in model.state_dict().items()
    }
    for axis in (axis for each in description for axis in each.axes):
        state[axis.tensor] = state[axis.tensor].index_select(axis.dim, torch.zeros(64, dtype=torch.int64))
    other = permuted(state, description, random_permutations(description, rng))
    assert len(weight_matching(state, other, description, rng).agreements) == 1


def test_convention_of_both_matchings(network, images):
    """σ(i) is A's channel for B's i: shuffling B composes, and shuffling A undoes."""
    model_a, model_b, shown = network("mlp with norms", 0), network("mlp with norms", 1), batches(images)
    description = permutables(model_a)
    sigma = random_permutations(description, generator(7))
    plain = activation_matching(model_a, model_b, description, shown)
    of_b = activation_matching(model_a, shuffled(model_b, description, sigma), description, shown)
    of_a = activation_matching(shuffled(model_a, description, sigma), model_b, description, shown)
    for name in plain:
        assert torch.equal(of_b[name], compose(plain, sigma)[name])
        assert torch.equal(compose(sigma, of_a)[name], plain[name])


def test_models_stay_as_they_are(network, images):
    model_a, model_b = network("resnet", 0).train(), network("resnet", 1)
    model_a[1].eval()
    before = {name: value.clone() for name, value in model_a.state_dict().items()}
    modes = [module.training for module in model_a.modules()]
    activation_matching(model_a, model_b, permutables(model_a), batches(images, 1))
    assert all(torch.equal(value, before[name]) for name, value in model_a.state_dict().items())
    assert [module.training for module in model_a.modules()] == modes
    assert not any(module._forward_hooks for module in [*model_a.modules(), *model_b.modules()])


def test_assignments_are_the_best():
    scores = torch.rand(5, 5, generator=generator(0), dtype=torch.float64)
    totals = {order: float(scores[range(5), order].sum()) for order in itertools.permutations(range(5))}
    assert tuple(assignment(scores).tolist()) == max(totals, key=totals.get)


def test_networks_that_cannot_be_matched(network, images):
    model, other = network("mlp"), network("vgg")
    description = permutables(model)
    state = model.state_dict()
    with pytest.raises(InputError, match="got none"):
        activation_matching(model, model, description, [])
    with pytest.raises(InputError, match=r"of another network: the model has no modules 2, 4"):
        activation_matching(model, other, description, batches(images, 1))
    wrong = (Permutable("1", 11, description[0].axes, "2"),)
    with pytest.raises(InputError, match=r"2 must show 11 channels in both networks, got 10 in A and 10 in B"):
        activation_matching(model, model, wrong, batches(images, 1))
    with pytest.raises(InputError, match=r"state of B lacks 1\.weight"):
        weight_matching(state, {n: v for n, v in state.items() if n != "1.weight"}, description, generator(0))
    with pytest.raises(InputError, match=r"Weights of A must be finite numbers; 1\.bias"):
        weight_matching(state | {"1.bias": torch.full((10,), torch.nan)}, state, description, generator(0))
    with pytest.raises(InputError, match=r"1\.bias must be alike, got \(10,\) and \(20,\)"):
        weight_matching(state, state | {"1.bias": torch.ones(20)}, description, generator(0))
