"""A training that was interrupted anywhere goes on bit for bit, also through a file; states of others are refused."""

import pytest
import torch
from torch import nn

from papertwin.errors import InputError
from papertwin.sparse.schedule import DropSchedule
from papertwin.sparse.updaters import SET, RigL, SRigL, Updater

STEPS = 14
KINDS = [Updater, SET, RigL, SRigL]


def built(kind, seed=0, passes=3, sparsity=0.6, schedule=None, sizes=(10, 12, 8, 4), **options):
    torch.manual_seed(seed)
    a, b, c, d = sizes
    model = nn.Sequential(nn.Linear(a, b), nn.ReLU(), nn.Linear(b, c), nn.ReLU(), nn.Linear(c, d))
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    schedule = schedule or DropSchedule(steps=STEPS + 6, every=4, drop=0.8)
    return model, optimizer, kind(model, optimizer, schedule, sparsity=sparsity, passes=passes, seed=seed, **options)


def backward(model, step, part):
    rng = torch.Generator().manual_seed(10 * step + part)
    model(torch.randn(6, 10, generator=rng)).square().mean().backward()


def train(model, optimizer, updater, first, last):
    for step in range(first, last):
        optimizer.zero_grad()
        for part in range(2):
            backward(model, step, part)
        optimizer.step()
        updater.step()


def same(one, other):
    """Whether two states are equal, bit for bit."""
    if isinstance(one, torch.Tensor):
        return one.dtype == other.dtype and torch.equal(one, other)
    if isinstance(one, dict):
        return list(one) == list(other) and all(same(one[key], other[key]) for key in one)
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(map(same, one, other))
    return one == other


def states(*parts):
    return [part.state_dict() for part in parts]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("step", range(STEPS + 1))
def test_training_goes_on_bit_for_bit_from_any_step(kind, step, tmp_path):
    """Three backward passes are averaged, of which two come in a step: windows begin in the midst of one."""
    whole = built(kind)
    train(*whole, 0, STEPS)
    first = built(kind)
    train(*first, 0, step)
    torch.save(states(*first), tmp_path / "state.pt")
    second = built(kind, seed=5)  # other weights, masks and draws
    for part, state in zip(second, torch.load(tmp_path / "state.pt")):
        part.load_state_dict(state)
    assert same(states(*second), states(*first))
    train(*second, step, STEPS)
    assert same(states(*second), states(*whole))
    assert second[2].log == whole[2].log
    assert second[2].steps == STEPS


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 1, 0), (1, 2, 0)])
def test_the_order_of_loading_makes_no_difference(order):
    first = built(SRigL)
    train(*first, 0, 7)
    second = built(SRigL, seed=5)
    for place in order:
        second[place].load_state_dict(first[place].state_dict())
    assert same(states(*second), states(*first))


@pytest.mark.parametrize("step", [0, 5, 7])
def test_what_an_updater_had_seen_is_forgotten(step):
    first, second = built(RigL), built(RigL, seed=5)
    train(*first, 0, step)
    train(*second, 0, 7)  # in the midst of a window
    assert len(second[2].state_dict()["seen"]["0"]) == 3
    for part, state in zip(second, states(*first)):
        part.load_state_dict(state)
    assert same(states(*second), states(*first))


def test_interruption_between_the_passes_of_a_step():
    """The gradient that has come so far is the model's; what has been seen is the updater's."""
    whole = built(RigL)
    train(*whole, 0, STEPS)
    model, optimizer, updater = built(RigL)
    train(model, optimizer, updater, 0, 7)
    optimizer.zero_grad()
    backward(model, 7, 0)
    resumed = built(RigL, seed=5)
    for part, state in zip(resumed, states(model, optimizer, updater)):
        part.load_state_dict(state)
    for one, other in zip(resumed[0].parameters(), model.parameters()):
        one.grad = other.grad.clone()
    backward(resumed[0], 7, 1)
    resumed[1].step()
    resumed[2].step()
    train(*resumed, 8, STEPS)
    assert same(states(*resumed), states(*whole))


def test_states_are_copies():
    parts = built(SET)
    train(*parts, 0, 5)
    state = parts[2].state_dict()
    kept = {name: mask.clone() for name, mask in state["masks"].items()}
    resumed = built(SET, seed=5)
    resumed[2].load_state_dict(state)
    train(*parts, 5, STEPS)
    train(*resumed, 5, STEPS)
    assert same(state["masks"], kept)
    assert len(state["log"]) == 3
    assert state["steps"] == 5


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        (RigL, {"sparsity": 0.61}),
        (RigL, {"distribution": "uniform"}),
        (RigL, {"dense": ["4"]}),
        (RigL, {"sizes": (10, 12, 8, 5)}),
        (SRigL, {}),
        (SET, {}),
    ],
)
def test_states_of_others_are_refused(kind, options):
    state = built(RigL)[2].state_dict()
    updater = built(kind, **options)[2]
    before = updater.state_dict()
    with pytest.raises(InputError, match=r"The state must be .*, got"):
        updater.load_state_dict(state)
    assert same(updater.state_dict(), before)


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"gamma": 0.9}, "gamma is 0.9 here, got 0.3"),
        ({"passes": 2}, "passes is 2 here, got 3"),
        ({"schedule": DropSchedule(40, 4, 0.8)}, "steps of the schedule is 40 here, got 20"),
        ({"schedule": DropSchedule(20, 5, 0.8)}, "every of the schedule is 5 here, got 4"),
        ({"schedule": DropSchedule(20, 4, 0.7)}, "drop of the schedule is 0.7 here, got 0.8"),
        ({"schedule": DropSchedule(20, 4, 0.8, 0.5)}, "stop of the schedule is 0.5 here, got 0.75"),
        ({"passes": 1, "gamma": 0.0}, "passes is 1 here, got 3; gamma is 0.0 here, got 0.3"),
        ({"sizes": (10, 12, 8, 5), "dense": ["0", "2"]}, None),
    ],
)
def test_what_differs_is_named_and_nothing_else(changed, words):
    state = built(SRigL)[2].state_dict()
    with pytest.raises(InputError) as raised:
        built(SRigL, **changed)[2].load_state_dict(state)
    if words:
        assert str(raised.value) == f"The state must be of an updater of the same settings: {words}."
    else:
        assert "shape of '4' is (5, 8) here, got (4, 8); " in str(raised.value)
        assert "shape of '0' is None here, got (12, 10)" in str(raised.value)
        assert "passes" not in str(raised.value)


def test_a_state_of_the_same_counts_and_other_shapes_is_refused():
    """A mask of one row would fit every row."""
    schedule = DropSchedule(steps=4)
    tall, wide = nn.Linear(4, 2), nn.Linear(4, 1)
    updaters = [
        Updater(layer, torch.optim.SGD(layer.parameters(), lr=1), schedule, sparsity=share, distribution="uniform")
        for layer, share in ((tall, 0.75), (wide, 0.5))
    ]
    assert updaters[0].budgets == updaters[1].budgets == {"": 2}
    with pytest.raises(InputError, match="must be"):
        updaters[0].load_state_dict(updaters[1].state_dict())
