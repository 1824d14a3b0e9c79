"""SparseOpt against a loop written by hand, and what it must leave as it is."""

import copy
import math

import pytest
import torch
from torch import nn

from papertwin.errors import InputError
from papertwin.sparse.growing import rigl_mask, set_mask, srigl_mask
from papertwin.sparse.schedule import DropSchedule
from papertwin.sparse.sparseopt import ADAPTIVE, HAM, SparseOpt
from papertwin.sparse.updaters import SET, RigL, SRigL, Updater
from papertwin.training.loop import fit

KINDS = [Updater, SET, RigL, SRigL]
SCHEDULE = DropSchedule(steps=20, every=3, drop=0.5)  # after steps 3, 6, 9 and 12; T_end is 15
DUE = [3, 6, 9, 12]
SGD = torch.optim.SGD
OPTIMIZERS = {
    "SGD": lambda p: SGD(p, lr=0.05),
    "momentum": lambda p: SGD(p, lr=0.05, momentum=0.9, weight_decay=0.01),
    "Nesterov": lambda p: SGD(p, lr=0.05, momentum=0.9, nesterov=True, foreach=True),
    "Adam": lambda p: torch.optim.Adam(p, lr=0.01),
    "decoupled": lambda p: torch.optim.Adam(p, lr=0.01, weight_decay=0.3, decoupled_weight_decay=True),
    "AdamW": lambda p: torch.optim.AdamW(p, lr=0.01, weight_decay=0.3),
    "foreach": lambda p: torch.optim.AdamW(p, lr=0.01, weight_decay=0.3, foreach=True),
    "fused": lambda p: torch.optim.AdamW(p, lr=0.01, weight_decay=0.3, fused=True),
    "NAdam": lambda p: torch.optim.NAdam(p, lr=0.01, weight_decay=0.3, decoupled_weight_decay=True),
    "RAdam": lambda p: torch.optim.RAdam(p, lr=0.01, weight_decay=0.3, decoupled_weight_decay=True),
    "Adamax": lambda p: torch.optim.Adamax(p, lr=0.01),
    "Adafactor": lambda p: torch.optim.Adafactor(p, lr=0.01, weight_decay=0.3),
    "Adagrad": lambda p: torch.optim.Adagrad(p, lr=0.01),
    "Adadelta": lambda p: torch.optim.Adadelta(p, lr=0.5),
    "RMSprop": lambda p: torch.optim.RMSprop(p, lr=0.001, momentum=0.9, centered=True),
    "Rprop": lambda p: torch.optim.Rprop(p, lr=0.001),
}
REFUSED = ("momentum", "update")  # for its decay
DECAYING = {"decoupled", "AdamW", "foreach", "fused", "NAdam", "RAdam", "Adafactor"}  # by 0.01 · 0.3 a step
BOTH = [(name, where) for name in OPTIMIZERS for where in ("gradient", "update") if (name, where) != REFUSED]


def mlp(seed=0):
    torch.manual_seed(seed)
    layers = [nn.Linear(12, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Linear(16, 14), nn.ReLU(), nn.Linear(14, 5)]
    return nn.Sequential(*layers).double()


def conv(seed=0):
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Conv2d(4, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 6, 3, groups=2), nn.Flatten(), nn.Linear(24, 5)
    ).double()


def loss(model, step, size=8):
    rng = torch.Generator().manual_seed(1000 + step)
    shape = (12,) if isinstance(model[0], nn.Linear) else (4, 6, 6)
    inputs = torch.randn(size, *shape, generator=rng, dtype=torch.float64)
    return nn.functional.cross_entropy(model(inputs), torch.randint(0, 5, (size,), generator=rng))


def made(kind, model, optimizer="momentum", sparsity=0.7, first="masked", **options):
    optimizer = OPTIMIZERS[optimizer](model.parameters())
    return optimizer, kind(model, optimizer, SCHEDULE, sparsity=sparsity, first=first, **options)


def train(model, optimizer, updater, steps=20, start=0):
    for step in range(start, start + steps):
        optimizer.zero_grad()
        loss(model, step).backward()
        optimizer.step()
        updater.step()


def one_step(model, optimizer, step=0):
    optimizer.zero_grad()
    loss(model, step).backward()
    optimizer.step()


def factor(mask, mean="all"):
    """√(fan-in / mean fan-in), shaped like the weights."""
    fan_ins = mask.flatten(1).sum(1).double()
    middle = fan_ins.mean() if mean == "all" else fan_ins[fan_ins > 0].mean()
    return (fan_ins / middle).sqrt().view(-1, *[1] * (mask.ndim - 1))


def equal(one, other):
    return all(torch.equal(a, b) for a, b in zip(one.parameters(), other.parameters(), strict=True))


def close(one, other):
    pairs = zip(one.parameters(), other.parameters(), strict=True)
    return all(torch.allclose(a, b, rtol=1e-9, atol=1e-12) for a, b in pairs)


def by_hand(model, masks, grow, mean, growth, rate=0.05, momentum=0.9, decay=0.01, steps=20):
    """SGD: masked gradients of sparse weights times c, then decay, then momentum; c of the masks of the step."""
    parameters = dict(model.named_parameters())
    velocity = {name: torch.zeros_like(p) for name, p in parameters.items()}
    for step in range(steps):
        dense = dict(zip(parameters, torch.autograd.grad(loss(model, step), list(parameters.values()))))
        with torch.no_grad():
            for name, p in parameters.items():
                mask = masks.get(name.removesuffix(".weight")) if name.endswith("weight") else None
                gradient, keep = (dense[name], 1) if mask is None else (dense[name] * mask * factor(mask, mean), mask)
                velocity[name] = (momentum * velocity[name] + gradient + decay * p) * keep
                p.copy_((p - rate * velocity[name]) * keep)
            if step + 1 in DUE:
                share = 0.5 / 2 * (1 + math.cos(math.pi * (step + 1) / 15))
                for name, mask in masks.items():
                    weight, gradient = parameters[f"{name}.weight"], dense[f"{name}.weight"]
                    score = gradient * factor(mask, mean) if growth == "corrected" else gradient
                    masks[name] = new = grow(name, weight, score, mask, int(share * int(mask.sum())))
                    for each in (weight, velocity[f"{name}.weight"]):
                        each.copy_(torch.where(mask & new, each, 0))


@pytest.mark.parametrize("net", [mlp, conv])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("mean", ["all", "active"])
@pytest.mark.parametrize("growth", ["raw", "corrected"])
def test_training_is_the_loop_by_hand(kind, net, mean, growth):
    """The second layer is not sparse: its weights, as biases and normalisation, learn as ever."""
    options = {"dense": ["3"], **({"gamma": 0.9} if kind is SRigL else {})}
    fast = net()
    optimizer, updater = made(kind, fast, **options)
    slow, masks = net(), {name: mask.clone() for name, mask in updater.masks.items()}
    for name, mask in masks.items():
        slow.get_submodule(name).weight.data *= mask
    generator = torch.Generator()
    generator.set_state(updater.state_dict()["generator"])

    def grow(name, weight, score, mask, count):
        if kind is SRigL:
            gamma = 0 if name == "5" else 0.9
            return srigl_mask(weight, score, mask, budget=updater.budgets[name], count=count, gamma=gamma).mask
        if kind is RigL:
            return rigl_mask(weight, score, mask, count)
        return set_mask(weight, mask, count, generator) if kind is SET else mask

    SparseOpt(optimizer, updater, mean=mean, growth=growth)
    train(fast, optimizer, updater)
    by_hand(slow, masks, grow, mean, growth)
    assert all(torch.equal(updater.masks[name], masks[name]) for name in masks)
    assert close(fast, slow)
    plain = net()
    train(plain, *made(kind, plain, **options))
    assert not close(fast, plain) or (kind is SRigL and mean == "active")


@pytest.mark.parametrize(("optimizer", "where"), BOTH)
@pytest.mark.parametrize(("kind", "options"), [(SRigL, {"gamma": 0}), (RigL, {"sparsity": 0})])
def test_equal_fan_ins_and_dense_layers_train_as_without_it_bit_for_bit(kind, options, optimizer, where):
    plain, corrected = conv(), conv()
    train(plain, *made(kind, plain, optimizer, **options))
    parts = made(kind, corrected, optimizer, **options)
    SparseOpt(*parts, where=where, growth="corrected")
    train(corrected, *parts)
    assert equal(plain, corrected)
    assert not equal(plain, conv())


@pytest.mark.parametrize(("kind", "options"), [(SRigL, {"gamma": 0}), (RigL, {"sparsity": 0}), (RigL, {})])
def test_in_the_loop_of_the_library(kind, options):
    """Constant fan-ins and dense layers train as ever; where fan-ins differ, as by hand with the rates of the loop."""
    rng = torch.Generator().manual_seed(0)
    images, labels = torch.randn(64, 4, 6, 6, generator=rng), torch.randint(0, 5, (64,), generator=rng)
    models = {}
    for how in ("plain", "corrected", "by hand"):

        def follow(model, optimizer, steps, how=how):
            sparse = kind(model, optimizer, DropSchedule(steps, 3), **{"sparsity": 0.7, **options})
            if how == "corrected":
                SparseOpt(optimizer, sparse)
            elif how == "by hand":
                for name, weight in sparse.weights().items():
                    weight.register_hook(lambda gradient, name=name: gradient * factor(sparse.masks[name]))
            return sparse

        models[how] = conv()
        settings = {"epochs": 2, "rate": 0.05, "seed": 0, "batch": 8, "weight_decay": 0.01}
        fit(models[how], images, labels, follow=follow, **settings)
    assert equal(models["corrected"], models["plain"]) == bool(options)
    assert close(models["corrected"], models["by hand"])


@pytest.mark.parametrize(("optimizer", "where"), BOTH)
def test_masked_weights_stay_zero(optimizer, where):
    """Already after the step of the optimiser, for those that do not move what has no gradient."""
    model = conv()
    optimizer, updater = made(RigL, model, optimizer)
    SparseOpt(optimizer, updater, where=where)
    HAM(optimizer, updater, alpha=1)
    for step in range(15):
        one_step(model, optimizer, step)
        for name, weight in updater.weights().items():
            assert not weight[~updater.masks[name]].any()
            assert weight[updater.masks[name]].isfinite().all()
        updater.step()
    assert updater.changes == 4 * len(updater.masks)


@pytest.mark.parametrize("optimizer", sorted(set(OPTIMIZERS) - {"momentum"}))
def test_updates_are_corrected_and_decay_is_not(optimizer):
    """In mode `update`, step by step: w (1 - decay) + c times what the optimiser does to it beside that."""
    model = conv()
    kept = 1 - (0.01 * 0.3 if optimizer in DECAYING else 0)
    optimizer, updater = made(RigL, model, optimizer)
    SparseOpt(optimizer, updater, where="update")
    for step in range(8):
        twin, other = copy.deepcopy((model, optimizer))  # nothing hangs there
        before = {name: weight.detach().clone() for name, weight in updater.weights().items()}
        loss(twin, step).backward()
        for name, mask in updater.masks.items():
            twin.get_submodule(name).weight.grad *= mask
        other.step()
        one_step(model, optimizer, step)
        for name, parameter in model.named_parameters():
            plain, layer = twin.get_parameter(name), name.removesuffix(".weight")
            if layer in before and name.endswith(".weight"):
                base = before[layer] * kept
                wanted = base + factor(updater.masks[layer]) * (plain - base)
                assert torch.allclose(parameter, wanted, rtol=1e-12, atol=1e-15)
                assert not torch.allclose(parameter, plain, rtol=1e-6)
            else:
                assert torch.equal(parameter, plain)
        updater.step()


def moved(optimizer, where):
    """Layer → how far the first step takes each neuron, and its factor."""
    model = conv()
    optimizer, updater = made(Updater, model, optimizer)
    first = {name: weight.detach().clone() for name, weight in updater.weights().items()}
    if where:
        SparseOpt(optimizer, updater, where=where)
    one_step(model, optimizer)
    ways = {name: (weight - first[name]).detach().flatten(1).abs().sum(1) for name, weight in updater.weights().items()}
    return ways, {name: factor(mask).flatten() for name, mask in updater.masks.items()}


def test_adam_cancels_corrected_gradients_but_not_corrected_updates():
    plain, factors = moved("Adam", None)
    on_gradients, on_updates = moved("Adam", "gradient")[0], moved("Adam", "update")[0]
    for name, c in factors.items():
        assert c.min() < 0.95
        assert c.max() > 1.05
        assert torch.allclose(on_gradients[name], plain[name], rtol=1e-4)
        assert torch.allclose(on_updates[name], c * plain[name], rtol=1e-9)
    descent = {where: moved("SGD", where)[0] for where in (None, "gradient", "update")}
    for name, c in factors.items():
        for where in ("gradient", "update"):
            assert torch.allclose(descent[where][name], c * descent[None][name], rtol=1e-9)


def test_where_is_chosen_by_the_optimiser():
    weight = [nn.Parameter(torch.ones(2, 2))]
    for name in ("Adam", "AdamW", "NAdam", "RAdam", "Adamax", "Adafactor", "Adagrad", "Adadelta", "RMSprop", "Rprop"):
        assert isinstance(getattr(torch.optim, name)(weight), ADAPTIVE)
    for kind, where in ((SGD, "gradient"), (torch.optim.ASGD, "gradient"), (torch.optim.Muon, "update")):
        model = nn.Sequential(nn.Linear(8, 8, bias=False))
        optimizer = kind(model.parameters(), lr=0.1)
        sparse = RigL(model, optimizer, SCHEDULE, sparsity=0.5)
        assert SparseOpt(optimizer, sparse).where == where
    assert SparseOpt(*made(RigL, mlp(), "Adam"), where="gradient").where == "gradient"
    assert SparseOpt(*made(RigL, mlp(), "SGD"), where="update").where == "update"


def test_decay_that_would_be_corrected_with_the_update_is_refused():
    for kind in (SGD, torch.optim.Adam, torch.optim.NAdam, torch.optim.RMSprop):
        model = mlp()
        optimizer = kind(model.parameters(), lr=0.1, weight_decay=0.01)
        sparse = RigL(model, optimizer, SCHEDULE, sparsity=0.5)
        with pytest.raises(InputError, match=rf"needs decoupled .*got {kind.__name__} with weight_decay=0.01.*AdamW"):
            SparseOpt(optimizer, sparse, where="update")
        one_step(model, optimizer)  # nothing hangs there
        SparseOpt(optimizer, sparse, where="gradient")
    model = mlp()
    weights = [module.weight for module in model if isinstance(module, nn.Linear)]
    groups = [{"params": weights}, {"params": [model[0].bias], "weight_decay": 0.1}]
    optimizer = torch.optim.Adam(groups, lr=0.1)
    SparseOpt(optimizer, RigL(model, optimizer, SCHEDULE, sparsity=0.5))  # the decay of others is their affair
    optimizer.param_groups[0]["weight_decay"] = 0.1
    with pytest.raises(InputError, match="needs decoupled"):
        one_step(model, optimizer)


def test_factors_are_those_of_the_masks_that_are():
    model = conv()
    optimizer, updater = made(RigL, model)
    corrected = SparseOpt(optimizer, updater)
    before = {name: each.clone() for name, each in corrected.factors().items()}
    train(model, optimizer, updater, 3)
    state = updater.state_dict()
    assert any(not torch.equal(before[name], each) for name, each in corrected.factors().items())
    for name, each in corrected.factors().items():
        assert torch.allclose(each, factor(updater.masks[name]))
        assert each.ndim == updater.masks[name].ndim
    other = conv()
    optimizer, updater = made(RigL, other, seed=9)
    corrected = SparseOpt(optimizer, updater)
    corrected.factors()
    updater.load_state_dict(state)
    for name, each in corrected.factors().items():
        assert torch.allclose(each, factor(state["masks"][name]))


def test_growth_looks_at_the_gradients_that_were_chosen():
    """RigL grows elsewhere by corrected gradients, just where they say, though the optimiser does the same."""
    grown = {}
    for growth in ("raw", "corrected"):
        model = mlp()
        optimizer, updater = made(RigL, model, "SGD")
        corrected = SparseOpt(optimizer, updater, growth=growth)
        train(model, optimizer, updater, 2)
        old = {name: mask.clone() for name, mask in updater.masks.items()}
        twin = copy.deepcopy(model)
        loss(twin, 2).backward()
        train(model, optimizer, updater, 1, start=2)
        for entry in updater.log:
            score = twin.get_submodule(entry.layer).weight.grad
            score = score * factor(old[entry.layer]) if growth == "corrected" else score
            twin_weight = twin.get_submodule(entry.layer).weight
            twin_weight.data -= 0.05 * factor(old[entry.layer]) * twin_weight.grad * old[entry.layer]
            count = int(entry.fraction * int(old[entry.layer].sum()))
            assert torch.equal(updater.masks[entry.layer], rigl_mask(twin_weight, score, old[entry.layer], count))
        grown[growth] = {name: mask.clone() for name, mask in updater.masks.items()}
        corrected.remove()
        assert updater.score is None
    assert any(not torch.equal(grown["raw"][name], grown["corrected"][name]) for name in grown["raw"])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"mean": "median"}, "mean must be all or active, got 'median'"),
        ({"where": "weight"}, "where must be one of None, gradient, update.*got 'weight'"),
        ({"growth": "none"}, "growth raw or corrected, got None and 'none'"),
    ],
)
def test_arguments_that_cannot_be_used(options, message):
    plain, model = mlp(), mlp()
    parts = made(RigL, model)
    with pytest.raises(InputError, match=message):
        SparseOpt(*parts, **options)
    train(plain, *made(RigL, plain))
    train(model, *parts)
    assert equal(plain, model)
