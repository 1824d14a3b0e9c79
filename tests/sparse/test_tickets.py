"""Tickets against masks in the forward pass, torch's own pruning, and a loop written by hand."""

import math
from copy import deepcopy
from functools import partial

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.func import functional_call
from torch.nn.utils import prune

from papertwin.errors import DivergenceError, InputError
from papertwin.nets import cifar_resnet
from papertwin.sparse import prunable_layers, random_mask, rounds_to
from papertwin.sparse.tickets import (
    Frozen,
    Snapshots,
    iterative_pruning,
    sparsity_of,
    state_of,
    train_from,
    train_with_snapshots,
)
from papertwin.training.loop import fit, predict

OPTIMIZERS = {
    "momentum": partial(torch.optim.SGD, lr=0.1, momentum=0.9, weight_decay=0.01),
    "Nesterov": partial(torch.optim.SGD, lr=0.1, momentum=0.9, nesterov=True),
    "Adam": partial(torch.optim.Adam, lr=0.1, weight_decay=0.01, amsgrad=True),
}
SETTINGS = {"epochs": 2, "rate": 0.1, "seed": 3, "batch": 10}


def perceptron(seed=0):
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        norm = nn.BatchNorm1d(10)
        return nn.Sequential(nn.Flatten(), nn.Linear(48, 10, bias=False), norm, nn.ReLU(), nn.Linear(10, 3))


def residual(seed=0):
    return cifar_resnet(8, 3, width=0.25, seed=seed)


NETWORKS = {"perceptron": perceptron, "residual": residual}


def data(count=25, seed=5):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(count, 3, 4, 4, generator=generator), torch.randint(3, (count,), generator=generator)


def drawn_masks(model, share=0.6, seed=1):
    generator = torch.Generator().manual_seed(seed)
    shapes = {name: layer.weight.shape for name, layer in prunable_layers(model).items()}
    return {name: random_mask(shape, round(share * math.prod(shape)), generator) for name, shape in shapes.items()}


def masked_forward(model, masks, make, epochs=2, rate=0.1, seed=3, batch=10):
    """Train with w · mask in the forward pass, weights that are masked left as they come; return the masked state."""
    images, labels = data()
    images = images.to(next(model.parameters()).dtype)
    parameters, buffers = dict(model.named_parameters()), dict(model.named_buffers())
    optimizer, shuffle = make(parameters.values()), torch.Generator().manual_seed(seed)
    steps, step = epochs * math.ceil(len(images) / batch), 0

    def effective():
        return {
            name: p * masks[name[:-7]] if name[:-7] in masks and p.dim() > 1 else p for name, p in parameters.items()
        }

    model.train()
    for _ in range(epochs):
        for rows in torch.randperm(len(images), generator=shuffle).split(batch):
            for group in optimizer.param_groups:
                group["lr"] = rate * (1 + math.cos(math.pi * step / steps)) / 2
            logits = functional_call(model, {**effective(), **buffers}, (images[rows],))
            optimizer.zero_grad()
            nn.functional.cross_entropy(logits, labels[rows]).backward()
            optimizer.step()
            step += 1
    return {name: value.detach() for name, value in {**effective(), **buffers}.items()}


def assert_states_close(one, other, tolerance=1e-6):
    assert set(one) == set(other)
    for name, value in one.items():
        assert torch.allclose(value, other[name], rtol=tolerance, atol=tolerance), name


def assert_states_equal(one, other):
    assert set(one) == set(other)
    assert not [name for name, value in one.items() if not torch.equal(value, other[name])]


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("net", NETWORKS)
@pytest.mark.parametrize("layout", [None, torch.channels_last])
def test_frozen_training_masks_forward_and_backward(net, optimizer, layout):
    model, make = NETWORKS[net]().double(), OPTIMIZERS[optimizer]  # Adam would make much of a rounding
    masks = drawn_masks(model)
    slow = masked_forward(deepcopy(model), masks, make)
    start = state_of(model)
    follow = partial(Frozen, masks=masks)
    fit(model, *data(), **SETTINGS, make_optimizer=make, follow=follow, memory_format=layout)
    assert_states_close(state_of(model), slow)
    for name, mask in masks.items():
        weight = model.get_submodule(name).weight
        assert not weight[~mask].any()
        assert (weight[mask] != start[f"{name}.weight"][mask]).any()


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("spoiled", [math.nan, math.inf, 7.0])
def test_after_every_step_what_is_masked_is_zero(optimizer, spoiled):
    """Weights and all that the optimiser remembers of them, even where it was not finite; the rest stays as it is."""
    model = perceptron()
    masks = drawn_masks(model)
    optimizer = OPTIMIZERS[optimizer](model.parameters())
    with torch.no_grad():
        model[1].weight[~masks["1"]] = spoiled
    frozen = Frozen(model, optimizer, masks=masks)
    images, labels = data()
    for _ in range(3):
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(images), labels).backward()
        model[1].weight.grad[~masks["1"]] = spoiled
        optimizer.step()
        before = deepcopy(optimizer.state_dict()["state"]), state_of(model)
        frozen.step()
        for place, (name, weight) in enumerate(model.named_parameters()):
            mask = masks.get(name.removesuffix(".weight"), torch.ones(weight.shape, dtype=torch.bool))
            assert torch.equal(weight, torch.where(mask, before[1][name], 0))
            memory = {key: value for key, value in optimizer.state[weight].items() if value is not None}
            assert any(value.shape == weight.shape for value in memory.values())
            for key, value in memory.items():
                was = before[0][place][key]
                assert torch.equal(value, torch.where(mask, was, 0) if value.shape == weight.shape else was)


def test_a_network_is_free_after_its_frozen_training():
    model = perceptron()
    fit(model, *data(), **SETTINGS, follow=partial(Frozen, masks=drawn_masks(model)))
    fit(model, *data(), **SETTINGS)
    assert (model[1].weight != 0).all()


def test_masks_of_a_follower_are_its_own():
    model = perceptron()
    masks = drawn_masks(model)
    frozen = Frozen(model, torch.optim.SGD(model.parameters(), lr=0.1), 10, masks=masks)
    masks["1"].fill_(True)
    assert not frozen.masks["1"].all()
    assert not Frozen(model, torch.optim.SGD(model.parameters(), lr=0.1), masks={}).masks


def pruned_by_torch(model, counts):
    """Global pruning and masks in the forward pass by torch itself; return the state after each round."""
    parts = [(layer, "weight") for layer in prunable_layers(model).values()]
    states = []
    for count in counts:
        predict(model, data()[0])  # what torch ranks is the product of the last forward pass
        prune.global_unstructured(parts, prune.L1Unstructured, amount=count)
        fit(model, *data(), **SETTINGS)
        state = state_of(model)
        for name in [name for name in state if name.endswith("_orig")]:
            stem = name.removesuffix("_orig")
            state[stem] = state.pop(name) * state.pop(f"{stem}_mask")
        states.append(state)
    return states


@pytest.mark.parametrize("net", NETWORKS)
def test_rounds_are_those_of_torch(net):
    model = NETWORKS[net](seed=2)
    total = sum(layer.weight.numel() for layer in prunable_layers(model).values())
    rounds = rounds_to(0.7, 0.4)
    gone = [math.floor(sparsity * total + 1e-6) for sparsity in rounds]
    counts = [one - other for one, other in zip(gone, [0, *gone])]
    found = iterative_pruning(model, *data(), rounds, **SETTINGS)
    for each, state in zip(found, pruned_by_torch(deepcopy(model), counts), strict=True):
        assert_states_close(each.state, state, 1e-5)
        for name, mask in each.masks.items():
            assert torch.equal(mask, state[f"{name}.weight"] != 0)


@given(
    seed=st.integers(0, 10**6),
    rounds=st.lists(st.integers(0, 98), min_size=1, max_size=4, unique=True).map(lambda all_: sorted(all_)),
)
@settings(deadline=None, max_examples=15)
def test_masks_only_shrink_to_exact_sparsity(seed, rounds):
    model = perceptron(seed)
    before = state_of(model)
    found = iterative_pruning(model, *data(), [each / 100 for each in rounds], **SETTINGS | {"epochs": 1})
    assert_states_equal(state_of(model), before)
    last, total = None, 480 + 30
    for percent, each in zip(rounds, found, strict=True):
        gone = sum(int((~mask).sum()) for mask in each.masks.values())
        assert gone == percent * total // 100
        assert each.sparsity == sparsity_of(each.masks) == gone / total
        assert not any(each.state[f"{name}.weight"][~mask].any() for name, mask in each.masks.items())
        assert last is None or not any((mask & ~last[name]).any() for name, mask in each.masks.items())
        last = each.masks


def test_rounds_share_a_path():
    """What is found up to a sparsity does not depend on the rounds after it, and rounds hold no common memory."""
    model, rounds = perceptron(), sorted({*rounds_to(0.5), *rounds_to(0.6)})
    long, short = (iterative_pruning(model, *data(), each, **SETTINGS) for each in (rounds, rounds[:-1]))
    for one, other in zip(long, short):
        assert_states_equal(one.state, other.state)
        assert_states_equal(one.masks, other.masks)
    pointers = [tensor.data_ptr() for each in long for tensor in (*each.state.values(), *each.masks.values())]
    assert len(set(pointers)) == len(pointers)


def test_pruning_does_not_rewind_and_spares_shortcuts():
    """A first round that prunes nothing only trains; the next one goes on from there."""
    model = residual()
    first, second = iterative_pruning(model, *data(), [0.0, 0.5], **SETTINGS)
    tuned = deepcopy(model)
    fit(tuned, *data(), **SETTINGS)
    assert_states_equal(first.state, state_of(tuned))
    (alone,) = iterative_pruning(tuned, *data(), [0.5], **SETTINGS)
    assert_states_equal(second.state, alone.state)
    assert set(second.masks) == set(prunable_layers(model))
    assert (second.state["stage2_block1.projection.weight"] != 0).all()


def test_a_ticket_is_rewound_first_and_then_masked():
    model, other = perceptron(0), perceptron(1)
    masks, state = drawn_masks(model), state_of(other)
    before = state_of(model)
    spoiled = {name: value.clone() for name, value in state.items()}
    for name, mask in masks.items():
        spoiled[f"{name}.weight"][~mask] = math.nan
    ticket = train_from(model, spoiled, masks, *data(), **SETTINGS)
    by_hand = deepcopy(other)
    with torch.no_grad():
        for name, mask in masks.items():
            by_hand.get_submodule(name).weight.mul_(mask)
    assert_states_close(state_of(ticket), masked_forward(by_hand, masks, partial(torch.optim.SGD, momentum=0.9)))
    assert not any(ticket.get_submodule(name).weight[~mask].any() for name, mask in masks.items())
    assert_states_equal(state_of(model), before)
    assert_states_equal(state, state_of(other))
    assert not ticket.training
    assert model.training


def test_a_ticket_sees_the_images_in_the_order_of_its_seed():
    model = perceptron()
    full = {name: torch.ones_like(mask) for name, mask in drawn_masks(model).items()}
    for seed in (3, 4):
        dense = deepcopy(model)
        fit(dense, *data(), **SETTINGS | {"seed": seed})
        ticket = train_from(model, state_of(model), full, *data(), **SETTINGS | {"seed": seed})
        assert_states_equal(state_of(ticket), state_of(dense))


@pytest.mark.parametrize("layout", [None, torch.channels_last])
def test_snapshots_are_the_states_after_their_epochs(layout):
    options = SETTINGS | {"epochs": 3, "schedule": "constant", "memory_format": layout}
    model, seen = residual(), []
    start = deepcopy(model)
    report = {"progress": lambda epoch, _: seen.append(epoch)}
    states = train_with_snapshots(model, *data(), keep=(0, 2, 3), **options, **report)
    assert list(states) == [0, 2, 3]
    assert seen == [1, 2, 3]
    assert_states_equal(states[0], state_of(start))
    assert_states_equal(states[3], state_of(model))
    fit(start, *data(), **options | {"epochs": 2})
    assert_states_equal(states[2], state_of(start))
    assert states[2]["conv1_norm.num_batches_tracked"] == 6
    assert not torch.equal(states[2]["conv1_norm.running_mean"], states[3]["conv1_norm.running_mean"])
    assert all(value.is_contiguous() and value.device.type == "cpu" for value in states[2].values())


def test_epochs_to_keep_may_come_from_a_generator():
    states = train_with_snapshots(perceptron(), *data(), keep=(epoch for epoch in (0, 2)), **SETTINGS)
    wanted = train_with_snapshots(perceptron(), *data(), keep=[0, 2], **SETTINGS)
    assert list(states) == [0, 2]
    assert all(list(Snapshots(perceptron(), keep).states) == [0] for keep in (iter([0, 1]), {0: "first"}))
    for epoch, state in states.items():
        assert_states_equal(state, wanted[epoch])


def test_snapshots_do_not_change_the_training():
    one, other = perceptron(), perceptron()
    assert train_with_snapshots(one, *data(), keep=(), **SETTINGS) == {}
    fit(other, *data(), **SETTINGS)
    assert_states_equal(state_of(one), state_of(other))
    kept = Snapshots(other, {1})
    assert kept.states == {}
    fit(other, *data(), **SETTINGS, progress=kept)
    assert list(kept.states) == [1]


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU here")
def test_tickets_on_a_gpu():
    model, options = residual(), SETTINGS | {"device": "cuda"}
    states = train_with_snapshots(model, *data(), keep=(1,), **options)
    found = iterative_pruning(model, *data(), [0.5, 0.8], **options)
    ticket = train_from(model, states[1], found[1].masks, *data(), **options)
    tensors = [*states[1].values(), *found[1].masks.values(), *found[1].state.values(), *ticket.parameters()]
    assert {tensor.device.type for tensor in tensors} == {"cpu"}
    slow = train_from(model, states[1], found[1].masks, *data(), **SETTINGS)
    assert_states_close(state_of(ticket), state_of(slow), 1e-3)
    on_gpu = train_from(deepcopy(model).cuda(), states[1], found[1].masks, *data(), **SETTINGS)
    assert next(on_gpu.parameters()).is_cuda
    assert not any(on_gpu.get_submodule(name).weight.cpu()[~mask].any() for name, mask in found[1].masks.items())


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda m, k: frozen(m, {"9": k["1"]}), "masks name 9; the model has the layers 1, 4"),
        (lambda m, k: frozen(m, {"1": k["1"].float()}), "mask of 1 must be a bool tensor, got one of torch.float32"),
        (lambda m, k: frozen(m, {"1": k["1"].T}), r"shape \(10, 48\), got \(48, 10\)"),
        (lambda m, k: iterative_pruning(m, *data(), [], **SETTINGS), "one at least, got \\[\\]"),
        (lambda m, k: iterative_pruning(m, *data(), [0.5, 0.5], **SETTINGS), "rounds must be ascending"),
        (lambda m, k: iterative_pruning(m, *data(), [0.5, 0.4], **SETTINGS), "rounds must be ascending"),
        (lambda m, k: iterative_pruning(m, *data(), [0.5, 1.0], **SETTINGS), "sparsity must be .*got 1.0"),
        (lambda m, k: train_from(m, {}, k, *data(), **SETTINGS), r"state must be that of [\s\S]*Missing key"),
        (lambda m, k: train_from(m, state_of(m), {"1": k["4"]}, *data(), **SETTINGS), "mask of 1 must be of its"),
        (lambda m, k: train_with_snapshots(m, *data(), keep=(0, 3, 4), **SETTINGS), "from 0 to 2, got 3, 4"),
        (lambda m, k: train_with_snapshots(m, *data(), keep=(-1,), **SETTINGS), "at least 0, got -1"),
        (lambda m, k: Snapshots(m, [True, 1.5]), "at least 0, got True, 1.5"),
        (lambda m, k: frozen(m, {"1": k["1"].numpy()}), "must be a bool tensor, got numpy.ndarray. .*as_tensor"),
        (lambda m, k: frozen(m, {"1": k["1"].tolist()}), "must be a bool tensor, got builtins.list"),
        (lambda m, k: train_from(m, None, k, *data(), **SETTINGS), "state must be that of .*NoneType"),
        (lambda m, k: train_with_snapshots(m, *data(), keep=iter([3]), **SETTINGS), "from 0 to 2, got 3"),
        (lambda m, k: Snapshots(m, iter([-1])), "at least 0, got -1"),
        (lambda m, k: train_with_snapshots(m, *data(), keep=(0,), **SETTINGS | {"epochs": "2"}), "epochs .*got '2'"),
        (lambda m, k: train_with_snapshots(m, *data(), keep=(0,), **SETTINGS | {"epochs": True}), "epochs .*got True"),
        (lambda m, k: sparsity_of({}), "one layer at least, got none"),
        (lambda m, k: sparsity_of({"1": k["1"].int()}), "mask of 1 must be a bool tensor, got one of torch.int32"),
        (lambda m, k: sparsity_of({"1": k["1"].numpy()}), "mask of 1 must be a bool tensor, got numpy.ndarray"),
        (lambda m, k: sparsity_of({"1": k["1"][:0]}), "one element at least, got none in those of 1"),
    ],
)
def test_arguments_that_cannot_be_used(call, message):
    model = perceptron()
    before = state_of(model)
    with pytest.raises(InputError, match=message):
        call(model, drawn_masks(model))
    assert_states_equal(state_of(model), before)


def frozen(model, masks):
    return Frozen(model, torch.optim.SGD(model.parameters(), lr=0.1), masks=masks)


def test_a_training_that_diverges_is_said_to():
    with pytest.raises(DivergenceError, match="diverged"):
        iterative_pruning(perceptron(), *data(), [0.5], **SETTINGS | {"rate": 1e30})
