"""Sparse training against a loop written by hand, and what holds after every step of it."""

import copy
import math

import numpy as np
import pytest
import torch
from torch import nn

from papertwin.errors import InputError
from papertwin.sparse.growing import rigl_mask, set_mask, srigl_mask
from papertwin.sparse.schedule import DropSchedule
from papertwin.sparse.updaters import SET, RigL, SRigL, Updater

KINDS = [Updater, SET, RigL, SRigL]
SCHEDULE = DropSchedule(steps=20, every=3)  # after steps 3, 6, 9 and 12; T_end is 15
DUE = [3, 6, 9, 12]
OPTIMIZERS = {
    "SGD": lambda p: torch.optim.SGD(p, lr=0.05),
    "momentum": lambda p: torch.optim.SGD(p, lr=0.05, momentum=0.9, weight_decay=0.01),
    "Nesterov": lambda p: torch.optim.SGD(p, lr=0.05, momentum=0.9, nesterov=True),
    "Adam": lambda p: torch.optim.Adam(p, lr=0.01, weight_decay=0.01, amsgrad=True),
    "AdamW": lambda p: torch.optim.AdamW(p, lr=0.01, weight_decay=0.3),
    "RMSprop": lambda p: torch.optim.RMSprop(p, lr=0.001, momentum=0.9, centered=True),
    "Adafactor": lambda p: torch.optim.Adafactor(p, lr=0.01),
}


def mlp(seed=0):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(12, 16), nn.ReLU(), nn.Linear(16, 14), nn.ReLU(), nn.Linear(14, 5)).double()


def conv(seed=0):
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Conv2d(4, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 6, 3, groups=2), nn.Flatten(), nn.Linear(24, 5)
    ).double()


def batch(model, step, size=8):
    """Inputs and classes of a step."""
    rng = torch.Generator().manual_seed(1000 + step)
    shape = (12,) if isinstance(model[0], nn.Linear) else (4, 6, 6)
    inputs = torch.randn(size, *shape, generator=rng, dtype=torch.float64)
    return inputs, torch.randint(0, 5, (size,), generator=rng)


def loss(model, step):
    inputs, classes = batch(model, step)
    return nn.functional.cross_entropy(model(inputs), classes)


def made(kind, model, optimizer=OPTIMIZERS["momentum"], schedule=SCHEDULE, sparsity=0.6, **options):
    optimizer = optimizer(model.parameters())
    return optimizer, kind(model, optimizer, schedule, sparsity=sparsity, **options)


def trained(kind, model, steps=20, accumulate=1, **options):
    """Train, `accumulate` backward passes a step; return the updater."""
    optimizer, updater = made(kind, model, **options)
    for step in range(steps):
        optimizer.zero_grad()
        for part in range(accumulate):
            loss(model, step * accumulate + part).backward()
        optimizer.step()
        updater.step()
    return updater


def memory(optimizer, weight):
    return [v for v in optimizer.state[weight].values() if isinstance(v, torch.Tensor) and v.shape == weight.shape]


def by_hand(model, masks, grow, passes, accumulate, rate=0.05, momentum=0.9, decay=0.01, steps=20):
    """SGD whose gradient, momentum and weights are masked; `grow` gives new masks after steps 3, 6, 9 and 12."""
    parameters = dict(model.named_parameters())
    velocity = {name: torch.zeros_like(p) for name, p in parameters.items()}
    seen = []
    for step in range(steps):
        total = dict.fromkeys(parameters, 0)
        for part in range(accumulate):
            value = loss(model, step * accumulate + part)
            seen.append(dict(zip(parameters, torch.autograd.grad(value, list(parameters.values())))))
            total = {name: total[name] + seen[-1][name] for name in parameters}
        with torch.no_grad():
            for name, p in parameters.items():
                mask = masks.get(name.removesuffix(".weight"), torch.ones(p.shape).bool())
                velocity[name] = (momentum * velocity[name] + total[name] * mask + decay * p) * mask
                p.copy_((p - rate * velocity[name]) * mask)
            if step + 1 in DUE:
                share = 0.3 / 2 * (1 + math.cos(math.pi * (step + 1) / 15))
                for name, mask in masks.items():
                    weight = parameters[f"{name}.weight"]
                    gradient = sum(each[f"{name}.weight"] for each in seen[-passes:]) / passes
                    new = grow(name, weight, gradient, mask, int(share * int(mask.sum())))
                    for each in (weight, velocity[f"{name}.weight"]):
                        each.copy_(torch.where(mask & new, each, 0))
                    masks[name] = new


@pytest.mark.parametrize("net", [mlp, conv])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("passes", "accumulate"), [(1, 1), (2, 1), (3, 1), (3, 2), (5, 2)])
def test_training_is_the_loop_by_hand(kind, net, passes, accumulate):
    model = net()
    _, start = made(kind, model, first="masked", passes=passes)
    slow, masks = copy.deepcopy(model), {name: mask.clone() for name, mask in start.masks.items()}
    generator, least = torch.Generator(), []
    generator.set_state(start.state_dict()["generator"])

    def grow(name, weight, gradient, mask, count):
        if start.budgets[name] == mask.numel():
            return mask
        if kind is SRigL:
            gamma = 0 if name in ("4", "5") else 0.3
            options = {"budget": start.budgets[name], "count": count, "gamma": gamma}
            grown = srigl_mask(weight, gradient, mask, **options)
            least.append(grown.least)
            return grown.mask
        if kind is RigL:
            return rigl_mask(weight, gradient, mask, count)
        return set_mask(weight, mask, count, generator) if kind is SET else mask

    by_hand(slow, masks, grow, passes, accumulate)
    fast = net()
    updater = trained(kind, fast, first="masked", passes=passes, accumulate=accumulate)
    assert all(torch.equal(updater.masks[name], masks[name]) for name in masks)
    assert [entry.least for entry in updater.log] == (least or [0] * len(updater.log))
    for one, other in zip(fast.parameters(), slow.parameters()):
        assert torch.allclose(one, other, rtol=1e-9, atol=1e-12)
    changed = [not torch.equal(start.masks[name], masks[name]) for name in masks]
    assert any(changed) == (kind is not Updater)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_what_holds_after_every_step(kind, optimizer):
    """Only the active gradient arrives; new weights and their memory are 0, those that stay keep theirs."""
    model, gamma = conv(), {"gamma": 1.0} if kind is SRigL else {}
    optimizer, updater = made(
        kind, model, OPTIMIZERS[optimizer], sparsity=0.8, schedule=DropSchedule(20, 3, drop=0.9), **gamma
    )
    layers = {name: model.get_submodule(name) for name in updater.masks}
    ever = {name: mask.clone() for name, mask in updater.masks.items()}
    back_at_once = 0
    for step in range(20):
        old = {name: mask.clone() for name, mask in updater.masks.items()}
        twin = copy.deepcopy(model)
        loss(twin, step).backward()
        optimizer.zero_grad()
        loss(model, step).backward()
        for name, layer in layers.items():
            dense = twin.get_submodule(name).weight.grad
            assert torch.equal(layer.weight.grad, dense * old[name])
            assert dense[~old[name]].any() or old[name].all()
        optimizer.step()
        before = {
            name: [w.weight.detach().clone(), *(m.clone() for m in memory(optimizer, w.weight))]
            for name, w in layers.items()
        }
        done = len(updater.log)
        updater.step()
        logged = {entry.layer: entry for entry in updater.log[done:]}
        assert set(logged) == (
            {n for n in layers if not old[n].all()} if step + 1 in DUE and kind is not Updater else set()
        )
        for name, layer in layers.items():
            new = updater.masks[name]
            ever[name] |= new
            stays = old[name] & new
            for was, now in zip(before[name], [layer.weight, *memory(optimizer, layer.weight)], strict=True):
                assert torch.equal(now, torch.where(stays, was, 0))
            if name not in logged:
                assert torch.equal(old[name], new)
                continue
            was, now = old[name].flatten(1).numpy(), new.flatten(1).numpy()
            entry, fans, before_fans = logged[name], np.count_nonzero(now, axis=1), np.count_nonzero(was, axis=1)
            assert entry.step == step + 1
            assert entry.fraction == pytest.approx(0.9 / 2 * (1 + math.cos(math.pi * (step + 1) / 15)))
            assert entry.dropped == np.count_nonzero(was & ~now)
            assert entry.grown == np.count_nonzero(now & ~was)
            assert (entry.nonzero, entry.fan_in) == (fans.sum(), fans.max())
            assert entry.active == np.count_nonzero(fans)
            assert entry.ablated == np.count_nonzero((before_fans > 0) & (fans == 0))
            assert entry.revived == np.count_nonzero((before_fans == 0) & (fans > 0))
            back_at_once += int(entry.fraction * was.sum() + 1e-9) - entry.dropped
        total = sum(mask.numel() for mask in ever.values())
        assert updater.itop_rate() == pytest.approx(sum(int(mask.sum()) for mask in ever.values()) / total)
        assert updater.sparsity() == pytest.approx(1 - sum(int(m.sum()) for m in updater.masks.values()) / total)
    assert updater.steps == 20
    assert (back_at_once > 0) == (kind is not Updater)  # some were dropped and grown in one update
    if kind is SRigL:
        assert all(sum(getattr(entry, what) for entry in updater.log) for what in ("ablated", "revived", "least"))
        assert any(entry.dropped != entry.grown for entry in updater.log)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("net", [mlp, conv])
@pytest.mark.parametrize("distribution", ["erk", "uniform"])
def test_budgets_hold(kind, net, distribution):
    model = net()
    updater = trained(kind, model, sparsity=0.7, distribution=distribution)
    for name, mask in updater.masks.items():
        budget, fan_ins = updater.budgets[name], mask.flatten(1).sum(1)
        if distribution == "uniform":
            assert budget == math.floor(mask.numel() * 3 / 10)
        if kind is SRigL and budget < mask.numel():
            active = int((fan_ins > 0).sum())
            assert set(fan_ins.tolist()) <= {0, budget // active}
        else:
            assert mask.sum() == budget


@pytest.mark.parametrize("kind", KINDS)
def test_without_sparsity_training_is_dense_bit_for_bit(kind):
    model, dense = conv(), conv()
    trained(kind, model, sparsity=0, first="masked")
    optimizer = OPTIMIZERS["momentum"](dense.parameters())
    for step in range(20):
        optimizer.zero_grad()
        loss(dense, step).backward()
        optimizer.step()
    assert all(torch.equal(one, other) for one, other in zip(model.parameters(), dense.parameters()))


@pytest.mark.parametrize("kind", [SET, RigL, SRigL])
def test_layers_that_erk_makes_dense_are_left_alone(kind):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(12, 80), nn.Linear(80, 80), nn.Linear(80, 5)).double()
    updater = trained(kind, model, sparsity=0.75, passes=3, steps=8)
    assert updater.budgets["2"] == 400
    assert updater.masks["2"].all()
    assert {entry.layer for entry in updater.log} == {"0", "1"}
    seen = updater.state_dict()["seen"]
    assert [len(seen[name]) for name in ("0", "1", "2")] == ([0, 0, 0] if kind is SET else [2, 2, 0])


def test_gradients_are_kept_only_while_they_are_wanted():
    counts = [
        len(trained(RigL, mlp(), steps=steps, passes=2, accumulate=2).state_dict()["seen"]["0"])
        for steps in range(1, 17)
    ]
    assert counts == [0, 2, 0, 0, 2, 0, 0, 2, 0, 0, 2, 0, 0, 0, 0, 0]  # of two passes a step, those of step 2 then 3
    assert not trained(SET, mlp(), steps=2, passes=2).state_dict()["seen"]["0"]


@pytest.mark.parametrize("dense", [[], ["4"]])
def test_the_last_layer_of_the_model_is_never_ablated(dense):
    """Whether it is sparse itself or not, the hidden ones are."""
    schedule = DropSchedule(steps=20, every=1, drop=0.9)
    updater = trained(SRigL, mlp(), gamma=1.0, sparsity=0.85, schedule=schedule, dense=dense)
    lost = {name: sum(entry.ablated for entry in updater.log if entry.layer == name) for name in updater.masks}
    assert lost["0"] > 0
    assert lost["2"] > 0
    assert not lost.get("4", 0)
    assert sum(entry.revived for entry in updater.log) > 0
    assert not any(entry.ablated for entry in trained(SRigL, mlp(), gamma=0, sparsity=0.85, schedule=schedule).log)


@pytest.mark.parametrize("kind", KINDS)
def test_memory_formats_make_no_difference(kind):
    plain, moved = conv(), conv().to(memory_format=torch.channels_last)
    updaters = [trained(kind, model, passes=2) for model in (plain, moved)]
    for name, mask in updaters[0].masks.items():
        assert torch.equal(mask, updaters[1].masks[name])
    for one, other in zip(plain.parameters(), moved.parameters()):
        assert torch.allclose(one, other)
    assert moved[0].weight.is_contiguous(memory_format=torch.channels_last)
    assert updaters[1].masks["0"].is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("kind", KINDS)
def test_a_seed_gives_one_training(kind):
    one, same, other = (mlp() for _ in range(3))
    masks = [trained(kind, model, seed=seed).masks for model, seed in ((one, 3), (same, 3), (other, 4))]
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), same.parameters()))
    assert all(torch.equal(masks[0][name], masks[1][name]) for name in masks[0])
    assert not any(torch.equal(masks[0][name], masks[2][name]) for name in ("0", "2"))


@pytest.mark.parametrize("first", ["fan_in", "as_coded", "masked"])
def test_first_weights_and_masks(first):
    model = mlp()
    before = model[2].weight.detach().clone()
    updater = made(SRigL, model, sparsity=0.5, first=first)[1]
    for name, mask in updater.masks.items():
        weight = model.get_submodule(name).weight
        fan_in = updater.budgets[name] // len(mask)
        assert mask.sum(1).tolist() == [fan_in] * len(mask)
        assert torch.equal(weight != 0, mask)
        deviation = {"fan_in": math.sqrt(2 / fan_in), "as_coded": 2 / fan_in, "masked": before.std()}[first]
        assert weight[mask].std().item() == pytest.approx(float(deviation), rel=0.35)
    if first == "masked":
        assert torch.equal(model[2].weight, before * updater.masks["2"])


@pytest.mark.parametrize("kind", [SET, RigL, SRigL])
def test_connections_that_are_learnt_beat_those_that_were_drawn(kind):
    """Each of 8 outputs is the sum of 3 of 40 inputs: static masks miss most of them, gradients find all."""
    torch.manual_seed(0)
    wanted = torch.zeros(8, 40).scatter_(1, torch.rand(8, 40).topk(3, dim=1).indices, 1.0)
    errors = {}
    for each in (Updater, kind):
        model = nn.Linear(40, 8, bias=False)
        schedule = DropSchedule(steps=300, every=5)
        optimizer, updater = made(each, model, lambda p: torch.optim.SGD(p, lr=0.1), schedule, sparsity=1 - 3 / 40)
        rng = torch.Generator().manual_seed(1)
        for _ in range(300):
            inputs = torch.randn(64, 40, generator=rng)
            optimizer.zero_grad()
            (model(inputs) - inputs @ wanted.T).square().mean().backward()
            optimizer.step()
            updater.step()
        errors[each] = ((model.weight - wanted).square().sum() / wanted.sum()).item()
    assert errors[Updater] > 0.7
    assert errors[kind] < (0.8 * errors[Updater] if kind is SET else 1e-4)


def test_removed_updaters_mask_no_gradients():
    model = mlp()
    _, updater = made(RigL, model)
    updater.remove()
    updater.remove()
    loss(model, 0).backward()
    assert model[0].weight.grad[~updater.masks["0"]].any()
    assert not model[0].weight[~updater.masks["0"]].any()


def test_updates_need_a_gradient():
    optimizer, updater = made(RigL, mlp(), schedule=DropSchedule(steps=10, every=1))
    optimizer.step()
    with pytest.raises(InputError, match=r"no gradient since their last update: 0, 2, 4\. Call backward"):
        updater.step()


@pytest.mark.parametrize(
    ("kind", "options", "message"),
    [
        (Updater, {"passes": 0}, "passes must be .*got 0"),
        (Updater, {"seed": -1}, "seed .*got .*-1"),
        (Updater, {"sparsity": 1}, "sparsity must be"),
        (Updater, {"sparsity": 0.999, "distribution": "uniform"}, "0 of shape .*16, 12.* would keep no weight"),
        (
            SRigL,
            {"sparsity": 0.95, "distribution": "uniform"},
            "Layer '0' may keep 9 weights, fewer than its 16 neurons",
        ),
        (SRigL, {"gamma": 1.5}, "gamma must be .*got 1.5"),
        (SRigL, {"gamma": math.nan}, "gamma must be .*got nan"),
        (RigL, {"distribution": "even"}, "distribution must be"),
        (RigL, {"first": "zeros"}, "how must be one of"),
        (RigL, {"dense": ["head"]}, "dense names head"),
    ],
)
def test_arguments_that_cannot_be_used(kind, options, message):
    with pytest.raises(InputError, match=message):
        made(kind, mlp(), **options)
