"""SparseOpt where neurons, or all neurons of a layer, have no inputs left: nothing is NaN, and the training goes on."""

import math

import pytest
import torch
from torch import nn

from papertwin.sparse.schedule import DropSchedule
from papertwin.sparse.skew import corrections
from papertwin.sparse.sparseopt import HAM, SparseOpt, UnitNorm
from papertwin.sparse.updaters import SET, RigL, SRigL, Updater

STEPS, SCHEDULE = 14, DropSchedule(steps=20, every=3, drop=0.5)  # updates after steps 3, 6, 9 and 12
EMPTY = {"0": 1, "3": 0, "6": 3}  # layer → neurons that keep inputs, before training
OPTIMIZERS = {
    "momentum": lambda p: torch.optim.SGD(p, lr=0.05, momentum=0.9, weight_decay=0.01),
    "AdamW": lambda p: torch.optim.AdamW(p, lr=0.01, weight_decay=0.3),
    "Adafactor": lambda p: torch.optim.Adafactor(p, lr=0.01),
    "RMSprop": lambda p: torch.optim.RMSprop(p, lr=0.001, momentum=0.9, centered=True),
}
CASES = [(name, where) for name in OPTIMIZERS for where in ("gradient", "update")]
CASES.remove(("momentum", "update"))  # refused, for its decay


def network():
    torch.manual_seed(0)
    layers = [nn.Linear(12, 10), nn.BatchNorm1d(10), nn.ReLU(), nn.Linear(10, 8), nn.BatchNorm1d(8), nn.ReLU()]
    return nn.Sequential(*layers, nn.Linear(8, 5)).double()


def loss(model, step):
    rng = torch.Generator().manual_seed(1000 + step)
    inputs = torch.randn(16, 12, generator=rng, dtype=torch.float64)
    return nn.functional.cross_entropy(model(inputs), torch.randint(0, 5, (16,), generator=rng))


def ablated(kind, model, optimizer, **options):
    """An updater of which one layer keeps one neuron, one none, and the last some, as at the end of an ablation."""
    updater = kind(model, optimizer, SCHEDULE, sparsity=0.7, **options)
    state = updater.state_dict()
    for name, left in EMPTY.items():
        state["masks"][name][left:] = False
    updater.load_state_dict(state)
    return updater


def train(model, optimizer, updater, seen=lambda step: None):
    for step in range(STEPS):
        optimizer.zero_grad()
        loss(model, step).backward()
        optimizer.step()
        seen(step)
        updater.step()


def factors_by_hand(mask, mean):
    """√(fan-in / mean fan-in) of one neuron after the other; without inputs 0, whatever the mean is."""
    counts = [sum(row) for row in mask.flatten(1).tolist()]
    active = [count for count in counts if count]
    middle = sum(counts) / len(counts if mean == "all" else active) if active else math.nan
    return [math.sqrt(count / middle) if count else 0.0 for count in counts]


@pytest.mark.parametrize("mean", ["all", "active"])
def test_neurons_without_inputs_have_the_factor_0(mean):
    model = network()
    optimizer = OPTIMIZERS["momentum"](model.parameters())
    updater = ablated(RigL, model, optimizer)
    factors = SparseOpt(optimizer, updater, mean=mean).factors()
    for name, mask in updater.masks.items():
        by_hand = factors_by_hand(mask, mean)
        assert factors[name].flatten().tolist() == pytest.approx(by_hand, rel=1e-12)
        assert corrections(mask, mean).tolist() == pytest.approx(by_hand, rel=1e-12)
        assert by_hand.count(0) >= len(mask) - EMPTY[name]
    assert factors["3"].tolist() == [[0]] * 8


@pytest.mark.parametrize("mean", ["all", "active"])
def test_a_training_is_the_loop_by_hand(mean):
    """SGD with momentum and decay, layer by layer; the empty layer's biases and all that follows it still learn."""
    model = network()
    optimizer = OPTIMIZERS["momentum"](model.parameters())
    updater = ablated(Updater, model, optimizer, first="masked")
    SparseOpt(optimizer, updater, mean=mean)
    slow = network()
    slow.load_state_dict(model.state_dict())
    parameters = dict(slow.named_parameters())
    velocity = {name: torch.zeros_like(value) for name, value in parameters.items()}
    for step in range(STEPS):
        found = torch.autograd.grad(loss(slow, step), list(parameters.values()))
        with torch.no_grad():
            for (name, value), gradient in zip(parameters.items(), found):
                mask = updater.masks.get(name.removesuffix(".weight")) if name.endswith("weight") else None
                if mask is not None:
                    gradient = gradient * mask * torch.tensor(factors_by_hand(mask, mean)).double()[:, None]
                velocity[name] = 0.9 * velocity[name] + gradient + 0.01 * value
                value -= 0.05 * velocity[name]
    before = {name: value.clone() for name, value in network().named_parameters()}
    train(model, optimizer, updater)
    for name, value in model.named_parameters():
        assert torch.allclose(value, parameters[name], rtol=1e-9, atol=1e-12), name
    assert not torch.equal(model[6].bias, before["6.bias"])


@pytest.mark.parametrize("kind", [Updater, SET, RigL, SRigL])
@pytest.mark.parametrize(("optimizer", "where"), CASES)
@pytest.mark.parametrize("others", [False, True])
def test_nothing_is_infinite_and_masks_are_kept(kind, optimizer, where, others):
    """After every step, of weights, of what the optimiser remembers and of the factors; also with HAM and norm 1."""
    model = network()
    optimizer = OPTIMIZERS[optimizer](model.parameters())
    updater = ablated(kind, model, optimizer, **({"gamma": 1.0} if kind is SRigL else {}))
    first = {name: mask.clone() for name, mask in updater.masks.items()}
    corrected = SparseOpt(optimizer, updater, where=where, mean="active", growth="corrected")
    if others:
        HAM(optimizer, updater, alpha=1)
        UnitNorm(optimizer, updater)

    def look(step):
        for name, weight in updater.weights().items():
            assert corrected.factors()[name].isfinite().all()
            assert not weight[~updater.masks[name]].any()
        values = [each for state in optimizer.state.values() for each in state.values() if torch.is_tensor(each)]
        assert all(each.isfinite().all() for each in (*model.parameters(), *values) if each.dtype.is_floating_point)

    train(model, optimizer, updater, look)
    assert updater.steps == STEPS
    assert loss(model, STEPS).isfinite()
    if kind is SRigL:
        assert updater.masks["3"].any(), "as nothing matters there, nothing is ablated: gradients say where to grow"
    else:
        assert not updater.masks["3"].any(), "a layer without weights has none to move"
        assert [int(mask.sum()) for mask in updater.masks.values()] == [int(mask.sum()) for mask in first.values()]
    if kind is Updater:
        assert all(torch.equal(mask, first[name]) for name, mask in updater.masks.items())


@pytest.mark.parametrize("mean", ["all", "active"])
def test_ablation_down_to_its_floor(mean):
    """SRigL leaves m + 1 neurons where m could hold the budget; with the mean over those the correction is none."""
    models = {"plain": network(), mean: network()}
    for name, model in models.items():
        optimizer = OPTIMIZERS["momentum"](model.parameters())
        schedule = DropSchedule(steps=20, every=3, drop=0.9)
        updater = SRigL(model, optimizer, schedule, sparsity=0.7, gamma=1.0, first="masked")
        if name == mean:
            SparseOpt(optimizer, updater, mean=mean)
        train(model, optimizer, updater)
        last = {entry.layer: entry for entry in updater.log}["3"]
        assert last.active == updater.budgets["3"] // 10 + 1 == 3
        assert all(value.isfinite().all() for value in model.parameters())
    pairs = zip(models["plain"].parameters(), models[mean].parameters())
    assert all(torch.equal(one, other) for one, other in pairs) == (mean == "active")
