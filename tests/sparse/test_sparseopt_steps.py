"""SparseOpt and HAM in trainings that stop and go on, with closures, groups, missing and added gradients; HAM alone."""

import copy
import math

import pytest
import torch
from torch import nn

from papertwin.errors import InputError
from papertwin.sparse.schedule import DropSchedule
from papertwin.sparse.sparseopt import HAM, SparseOpt, UnitNorm
from papertwin.sparse.updaters import RigL, Updater

SCHEDULE = DropSchedule(steps=20, every=3, drop=0.5)  # after steps 3, 6, 9 and 12
OPTIMIZERS = {
    "SGD": lambda p: torch.optim.SGD(p, lr=0.05),
    "momentum": lambda p: torch.optim.SGD(p, lr=0.05, momentum=0.9, weight_decay=0.01),
    "Nesterov": lambda p: torch.optim.SGD(p, lr=0.05, momentum=0.9, nesterov=True, foreach=True),
    "AdamW": lambda p: torch.optim.AdamW(p, lr=0.01, weight_decay=0.3),
}
ORDERS = {"alone": (HAM,), "before": (HAM, SparseOpt), "after": (SparseOpt, HAM)}


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


@pytest.mark.parametrize("optimizer", ["momentum", "AdamW"])
@pytest.mark.parametrize("stop", range(8))
def test_an_interrupted_training_goes_on_bit_for_bit(stop, optimizer):
    def parts(seed):
        model = conv(seed)
        optimizer_, updater = made(RigL, model, optimizer, seed=seed)
        SparseOpt(optimizer_, updater, growth="corrected")
        HAM(optimizer_, updater, alpha=1)
        return model, optimizer_, updater

    whole, first, second = parts(0), parts(0), parts(3)
    train(*whole, 8)
    train(*first, stop)
    for part, source in zip(second, first):
        part.load_state_dict(copy.deepcopy(source.state_dict()))
    train(*second, 8 - stop, start=stop)
    assert equal(second[0], whole[0])


def test_groups_of_parameters_keep_their_rates_and_decay():
    """Each with its own; a layer whose weights the optimiser has not stays as it is."""
    model = mlp()

    def grouped(model):
        groups = [{"params": model[0].parameters(), "lr": 0.3, "weight_decay": 0.5}, {"params": [model[3].weight]}]
        return torch.optim.AdamW(groups, lr=0.01, weight_decay=0)

    optimizer = grouped(model)
    updater = Updater(model, optimizer, SCHEDULE, sparsity=0.7)
    twin = copy.deepcopy(model)
    plain = grouped(twin)
    SparseOpt(optimizer, updater)
    HAM(optimizer, updater, alpha=2, beta=0.1)
    first = copy.deepcopy(model)
    loss(twin, 0).backward()
    for name, mask in updater.masks.items():
        twin.get_submodule(name).weight.grad *= mask
    plain.step()
    one_step(model, optimizer)
    for name, rate, decay in (("0", 0.3, 0.5), ("3", 0.01, 0)):
        was, now = first.get_submodule(name).weight, twin.get_submodule(name).weight
        base = was * (1 - rate * decay)
        wanted = base + factor(updater.masks[name]) * (now - base)
        wanted = wanted * (rate * (-2 * wanted.sign() * now.grad - 0.1)).exp()
        assert torch.allclose(model.get_submodule(name).weight, wanted, rtol=1e-9)
    assert torch.equal(model[0].bias, twin[0].bias)
    assert torch.equal(model[5].weight, first[5].weight)


def test_once_removed_they_do_nothing():
    plain, model = conv(), conv()
    parts = made(RigL, model)
    hung = SparseOpt(*parts, growth="corrected"), HAM(*parts), SparseOpt(*parts, mean="active", where="gradient")
    for each in (*hung, *hung):
        each.remove()
    assert parts[1].score is None
    train(plain, *made(RigL, plain))
    train(model, *parts)
    assert equal(plain, model)


def test_a_score_of_others_is_left_to_them():
    optimizer, updater = made(RigL, mlp())
    updater.score = mine = lambda name, gradient: gradient.abs()
    SparseOpt(optimizer, updater).remove()
    assert updater.score is mine


@pytest.mark.parametrize("to_none", [True, False])
@pytest.mark.parametrize("optimizer", ["momentum", "Nesterov", "AdamW"])
@pytest.mark.parametrize("keyword", [False, True])
def test_closures_make_no_difference(optimizer, keyword, to_none):
    """Also before the first backward pass, when there is no gradient yet."""
    models = conv(), conv()
    for model, closed in zip(models, (False, True)):
        descent, updater = made(RigL, model, optimizer)
        SparseOpt(descent, updater)
        HAM(descent, updater, alpha=3)
        for step in range(8):

            def closure(model=model, descent=descent, step=step):
                descent.zero_grad(set_to_none=to_none)
                value = loss(model, step)
                value.backward()
                return value

            if closed:
                value = descent.step(closure=closure) if keyword else descent.step(closure)
                assert value.item() > 0
            else:
                closure()
                descent.step()
            updater.step()
    assert equal(*models)


def test_closures_that_are_asked_often_are_corrected_each_time():
    """L-BFGS with two evaluations a step, against one whose weights have the factors in their gradients."""
    models = mlp(), mlp()
    for model, hooked in zip(models, (False, True)):
        optimizer = torch.optim.LBFGS(model.parameters(), lr=0.01, max_iter=3)
        updater = Updater(model, optimizer, SCHEDULE, sparsity=0.7)
        if hooked:
            for name, weight in updater.weights().items():
                weight.register_hook(lambda gradient, name=name, masks=updater.masks: gradient * factor(masks[name]))
        else:
            assert SparseOpt(optimizer, updater).where == "gradient"

        def closure(model=model, optimizer=optimizer):
            optimizer.zero_grad()
            value = loss(model, 0)
            value.backward()
            return value

        for _ in range(2):
            optimizer.step(closure)
    assert close(*models)


@pytest.mark.parametrize("where", ["gradient", "update"])
@pytest.mark.parametrize("optimizer", ["SGD", "AdamW"])
def test_weights_without_gradient_stay(optimizer, where):
    """Not even decayed, as in the optimiser, while the others learn."""
    model = mlp()
    optimizer, updater = made(Updater, model, optimizer)
    SparseOpt(optimizer, updater, where=where)
    HAM(optimizer, updater)
    optimizer.step()
    assert equal(model, made_model := copy.deepcopy(model))
    loss(model, 0).backward()
    model[3].weight.grad = None
    optimizer.step()
    assert torch.equal(model[3].weight, made_model[3].weight)
    assert not torch.equal(model[0].weight, made_model[0].weight)
    assert model[3].weight.grad is None


@pytest.mark.parametrize("ham", [False, True])
def test_gradients_that_add_up_are_corrected_once(ham):
    """They are left as they came: without zero_grad, the second step has the sum of two of them, not of one twice."""
    model = mlp()
    optimizer, updater = made(Updater, model, "SGD")
    SparseOpt(optimizer, updater)
    if ham:
        HAM(optimizer, updater, alpha=0, beta=0)
    slow = copy.deepcopy(model)
    total = {name: 0 for name, _ in slow.named_parameters()}
    for step in range(3):
        loss(model, step).backward()
        optimizer.step()
        found = torch.autograd.grad(loss(slow, step), list(slow.parameters()))
        with torch.no_grad():
            for (name, p), gradient in zip(slow.named_parameters(), found):
                mask = updater.masks.get(name.removesuffix(".weight")) if name.endswith("weight") else None
                total[name] = total[name] + (gradient if mask is None else gradient * mask)
                p -= 0.05 * total[name] * (1 if mask is None else factor(mask))
                assert torch.allclose(model.get_parameter(name).grad, total[name])
    assert close(model, slow)


# ---- HAM ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("optimizer", ["SGD", "momentum", "Nesterov", "AdamW"])
def test_ham_multiplies_last_and_by_the_raw_gradient(order, optimizer):
    """After the step, corrected or not: w · exp(lr (-α sign(w) g - β)); in whatever order both were built."""
    name_of, model = optimizer, conv()
    optimizer, updater = made(RigL, model, optimizer, dense=["5"])
    bare = conv()
    bare_optimizer, bare_updater = made(RigL, bare, name_of, dense=["5"])
    if order != "alone":
        SparseOpt(bare_optimizer, bare_updater)
    for kind in ORDERS[order]:
        kind(optimizer, updater, **({"alpha": 4.0, "beta": 0.2} if kind is HAM else {}))
    rate = optimizer.param_groups[0]["lr"]
    for step in range(7):
        bare.load_state_dict(copy.deepcopy(model.state_dict()))
        bare_optimizer.load_state_dict(copy.deepcopy(optimizer.state_dict()))
        bare_optimizer.zero_grad()
        loss(bare, step).backward()
        raw = {name: weight.grad.clone() for name, weight in bare_updater.weights().items()}
        bare_optimizer.step()
        one_step(model, optimizer, step)
        for name, parameter in model.named_parameters():
            wanted, layer = bare.get_parameter(name), name.removesuffix(".weight")
            if layer in raw and name.endswith(".weight"):
                wanted = wanted * (rate * (-4.0 * wanted.sign() * raw[layer] - 0.2)).exp()
                assert torch.equal(parameter.sign(), wanted.sign())
            assert torch.allclose(parameter, wanted, rtol=1e-12, atol=0)
        bare.load_state_dict(copy.deepcopy(model.state_dict()))
        for each in (updater, bare_updater):
            each.step()


@pytest.mark.parametrize("optimizer", ["momentum", "Nesterov", "AdamW"])
def test_ham_of_nothing_changes_nothing(optimizer):
    plain, model = conv(), conv()
    train(plain, *made(RigL, plain, optimizer))
    parts = made(RigL, model, optimizer)
    HAM(*parts, alpha=0, beta=0)
    train(model, *parts)
    assert equal(plain, model)


def test_ham_decays_and_keeps_signs():
    model = mlp()
    optimizer, updater = made(Updater, model, "SGD")
    HAM(optimizer, updater, alpha=0, beta=2.0)
    first = copy.deepcopy(model)
    optimizer.zero_grad(set_to_none=False)
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    for name, parameter in model.named_parameters():
        decayed = name.endswith("weight") and name.removesuffix(".weight") in updater.masks
        wanted = first.get_parameter(name) * (math.exp(-0.05 * 2) if decayed else 1)
        assert torch.allclose(parameter, wanted, rtol=1e-12)
    assert updater.weights()["0"].count_nonzero() == updater.masks["0"].sum()


def test_defaults_of_ham():
    ham = HAM(*made(Updater, mlp()))
    assert (ham.alpha, ham.beta) == (200.0, 1e-3)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"alpha": -1}, "alpha must be a finite number of at least 0, got -1"),
        ({"beta": math.nan}, "beta must be a finite number of at least 0, got nan"),
        ({"beta": math.inf}, "beta must be .*got inf"),
    ],
)
def test_arguments_that_cannot_be_used(options, message):
    with pytest.raises(InputError, match=message):
        HAM(*made(RigL, mlp()), **options)


# ---- gradients of norm 1 --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("corrected", [False, True])
@pytest.mark.parametrize("ham", [False, True])
def test_only_the_direction_of_each_sparse_layer_is_left(corrected, ham):
    """Corrected first, then scaled; other parameters as ever, HAM by the raw gradient, which is left as it came."""
    model = conv()
    optimizer, updater = made(RigL, model, "SGD", dense=["5"])
    if ham:
        HAM(optimizer, updater, alpha=4.0, beta=0.2)
    if corrected:
        SparseOpt(optimizer, updater)
    UnitNorm(optimizer, updater)
    for step in range(4):
        before = copy.deepcopy(model)
        optimizer.zero_grad()
        loss(model, step).backward()
        raw = {name: p.grad.clone() for name, p in model.named_parameters()}
        optimizer.step()
        for name, p in model.named_parameters():
            layer, wanted = name.removesuffix(".weight"), raw[name]
            sparse = name.endswith(".weight") and layer in updater.masks
            if sparse:
                wanted = wanted * factor(updater.masks[layer]) if corrected else wanted
                wanted = wanted / wanted.square().sum().sqrt()
            wanted = before.get_parameter(name) - 0.05 * wanted
            if sparse and ham:
                wanted = wanted * (0.05 * (-4.0 * wanted.sign() * raw[name] - 0.2)).exp()
            assert torch.allclose(p, wanted, rtol=1e-10, atol=1e-14)
            assert torch.equal(p.grad, raw[name])
        updater.step()


def test_gradients_of_nothing_stay_nothing():
    model = mlp()
    optimizer, updater = made(Updater, model, "SGD")
    hung = UnitNorm(optimizer, updater)
    first = copy.deepcopy(model)
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    assert equal(model, first)
    hung.remove()
    one_step(model, optimizer)
    wanted = first[0].weight - 0.05 * model[0].weight.grad
    assert torch.allclose(model[0].weight, wanted, rtol=1e-10)
