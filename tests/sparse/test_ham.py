"""HAM: its formula, last and by the raw gradient whatever else hangs on the optimiser."""

import copy
import math

import pytest
import torch
from torch import nn

from papertwin.errors import InputError
from papertwin.sparse.schedule import DropSchedule
from papertwin.sparse.sparseopt import HAM, SparseOpt
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


def equal(one, other):
    return all(torch.equal(a, b) for a, b in zip(one.parameters(), other.parameters(), strict=True))


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
