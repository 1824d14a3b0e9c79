"""What updaters refuse, with the model as it was; gradients that are not finite; one updater for each weight."""

import copy

import pytest
import torch
from torch import nn

from papertwin.errors import DivergenceError, InputError
from papertwin.sparse.masks import bits_of, let_through
from papertwin.sparse.schedule import DropSchedule
from papertwin.sparse.updaters import SET, RigL, SRigL, Updater

KINDS = [Updater, SET, RigL, SRigL]
RARE = DropSchedule(steps=20, every=9)


def mlp():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 4))


def made(kind, model, schedule=RARE, optimizer=torch.optim.Adam, **options):
    optimizer = optimizer(model.parameters(), lr=0.01)
    return optimizer, kind(model, optimizer, schedule, **{"sparsity": 0.5, **options})


def backward(model, broken=None, value=torch.inf):
    """Pass gradients, one of the first layer's being `value`, at the place `broken`."""
    model(torch.randn(5, 6)).square().sum().backward()
    if broken is not None:
        dense = torch.zeros(8, 6)
        dense[tuple(broken)] = value
        (model[0].weight * dense).sum().backward()


# ---- gradients that are not finite -----------------------------------------------------------------------------------


@pytest.mark.parametrize("optimizer", [torch.optim.Adam, torch.optim.RMSprop, torch.optim.SGD])
@pytest.mark.parametrize("value", [torch.inf, -torch.inf, torch.nan])
def test_masked_gradients_reach_nobody_even_if_they_are_not_finite(optimizer, value):
    model = mlp()
    optimizer, updater = made(RigL, model, optimizer=optimizer)
    masked = ~updater.masks["0"]
    for step in range(3):
        optimizer.zero_grad()
        backward(model, masked.nonzero()[0] if step == 0 else None, value)
        assert not model[0].weight.grad[masked].any()
        optimizer.step()
        updater.step()
    assert model[0].weight.isfinite().all()
    state = [each for each in optimizer.state[model[0].weight].values() if isinstance(each, torch.Tensor)]
    assert all(each.isfinite().all() for each in state)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64, torch.complex64])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_what_is_let_through_is_what_a_mask_chooses(dtype, layout):
    values = torch.randn(5, 4, 3, 3).to(dtype).contiguous(memory_format=layout)
    mask = torch.rand(5, 4, 3, 3) < 0.5
    values[0, 0, 0, :] = torch.inf
    for each in (mask, mask.contiguous(memory_format=torch.channels_last)):
        through = let_through(values, bits_of(each, dtype))
        assert through.dtype == dtype
        assert torch.equal(through, torch.where(mask, values, 0))
    assert torch.equal(let_through(values, bits_of(mask, torch.float64)), torch.where(mask, values, 0))


def test_gradients_that_are_let_through_have_gradients():
    values, mask = torch.randn(4, 3, requires_grad=True), torch.rand(4, 3) < 0.5
    let_through(values, bits_of(mask, values.dtype)).square().sum().backward()
    assert torch.equal(values.grad, torch.where(mask, 2 * values, 0))


@pytest.mark.parametrize("kind", [RigL, SRigL])
@pytest.mark.parametrize("value", [torch.inf, torch.nan])
@pytest.mark.parametrize("active", [False, True])
def test_gradients_that_are_not_finite_decide_no_growth(kind, value, active):
    """Nothing has changed when that is said."""
    model = mlp()
    optimizer, updater = made(kind, model, DropSchedule(steps=20, every=1), torch.optim.SGD)
    before = {name: mask.clone() for name, mask in updater.masks.items()}
    backward(model, (updater.masks["0"] == active).nonzero()[0], value)
    optimizer.step()
    with pytest.raises(DivergenceError, match=r"update after step 1 are not finite in the layers 0, .*Lower"):
        updater.step()
    assert all(torch.equal(mask, before[name]) for name, mask in updater.masks.items())
    assert not updater.log


def test_random_growth_asks_no_gradients():
    model = mlp()
    optimizer, updater = made(SET, model, DropSchedule(steps=20, every=1))
    backward(model, (~updater.masks["0"]).nonzero()[0])
    optimizer.step()
    updater.step()
    assert len(updater.log) == 3


# ---- what is refused -------------------------------------------------------------------------------------------------


def frozen(model):
    model[2].weight.requires_grad_(False)


def computed(model):
    nn.utils.parametrizations.orthogonal(model[2])


@pytest.mark.parametrize(
    ("change", "kind", "options", "message"),
    [
        (frozen, RigL, {}, "The weights of '2' must be parameters that learn"),
        (computed, RigL, {}, "The weights of '2' must be parameters that learn"),
        (None, SRigL, {"sparsity": 0.85, "distribution": "uniform", "dense": ["2"]}, "Layer '0' may keep"),
        (None, Updater, {"sparsity": 0.97, "distribution": "uniform"}, "4 of shape .* would keep no weight"),
        (None, SET, {"first": "zeros"}, "how must be one of"),
        (None, RigL, {"group": True}, "group must be None, False or a .*got True"),
        (None, RigL, {"group": 0}, "group must be None, False or a .*got 0"),
        (None, RigL, {"group": -100}, "group must be .* is a member, got -100"),  # what torch gives processes outside
    ],
)
def test_a_refused_updater_leaves_the_model_as_it_was(change, kind, options, message):
    model = mlp()
    if change:
        change(model)
    before = copy.deepcopy(model.state_dict())
    with pytest.raises(InputError, match=message):
        made(kind, model, **options)
    assert all(torch.equal(each, before[name]) for name, each in model.state_dict().items())
    assert not any(weight._backward_hooks for weight in model.parameters())
    made(kind, mlp() if change else model)


@pytest.mark.parametrize("kind", KINDS)
def test_weights_have_one_updater_at_a_time(kind):
    model = mlp()
    _, first = made(kind, model, dense=["0"])
    before = copy.deepcopy(model.state_dict())
    with pytest.raises(InputError, match=r"Another updater masks '2': call remove\(\)"):
        made(RigL, model)
    assert all(torch.equal(each, before[name]) for name, each in model.state_dict().items())
    made(RigL, copy.deepcopy(model))
    made(RigL, model, dense=["2", "4"])
    first.remove()
    made(RigL, model, dense=["0"])
    first.remove()  # a second time, which must not free what another masks
    with pytest.raises(InputError, match="Another updater"):
        made(RigL, model, dense=["0"])


@pytest.mark.parametrize("dense", [[], ["4"], ["0"]])
def test_the_last_layer_is_known(dense):
    assert made(RigL, mlp(), dense=dense)[1].last == "4"
