"""Our stored networks do what their README says, and a recipe always gives the same network."""

import pytest
import torch

from papertwin.data.images import load_images
from papertwin.errors import InputError
from papertwin.nets import recipes, stored, train, untrained
from papertwin.training.loop import accuracy

# the accuracies in data/nn_robustness_nets/README.md are those measured; these are floors
FLOORS = {"lenet": 0.985, "mlp-0": 0.97, "mlp-1": 0.97, "mlp-2": 0.97}


@pytest.fixture(scope="module")
def digits():
    return load_images("mnist", "test")


def equal(one, other):
    return all(torch.equal(a, b) for a, b in zip(one.parameters(), other.parameters(), strict=True))


@pytest.mark.parametrize("name", recipes.STORED)
def test_stored_networks_know_the_whole_test_set(digits, name):
    model = stored(name)
    assert not model.training
    assert accuracy(model, digits.scaled(), digits.labels) >= FLOORS[name]


def test_stored_perceptrons_are_of_three_seeds():
    assert not equal(stored("mlp-0"), stored("mlp-1"))
    assert not equal(stored("mlp-1"), stored("mlp-2"))


def test_training_gives_the_same_network_whatever_came_before():
    some = load_images("mnist", "train").take(range(2000))
    first = train("mlp-1", some)
    torch.manual_seed(99)
    torch.rand(3)
    losses = []
    again = train("mlp-1", some, progress=lambda epoch, loss: losses.append((epoch, loss)))
    assert equal(first, again)
    assert not equal(first, untrained("mlp-1"))
    assert not equal(first, train("mlp-2", some))
    assert [epoch for epoch, _ in losses] == list(range(1, recipes.RECIPES["mlp"].epochs + 1))
    assert losses[-1][1] < losses[0][1] / 4


def test_the_seed_sets_the_first_weights_and_the_order(monkeypatch, digits):
    seen = []
    monkeypatch.setattr(recipes, "fit", lambda model, images, labels, **settings: seen.append((model, settings)))
    train("mlp-5", digits.take([0]))
    ((model, settings),) = seen
    assert equal(model, untrained("mlp-5"))
    assert settings["seed"] == 5
    recipe = recipes.RECIPES["mlp"]
    for name in ("epochs", "rate", "batch", "momentum", "weight_decay", "schedule"):
        assert settings[name] == getattr(recipe, name)


def test_lenet_trains_on_a_few_images():
    some = load_images("mnist", "train").take(range(300))
    model = train("lenet", some)
    assert not model.training
    assert equal(model, train("lenet-0", some))
    assert accuracy(model, some.scaled(), some.labels) > accuracy(untrained("lenet"), some.scaled(), some.labels)


def test_a_seed_follows_a_hyphen():
    assert equal(untrained("mlp"), untrained("mlp-0"))
    assert not equal(untrained("mlp"), untrained("mlp-3"))


@pytest.mark.parametrize("name", ["vgg", "", "mlp-", "mlp-x", "mlp--1", "mlp-²", "lenet-1-2"])
def test_unknown_recipes(name):
    with pytest.raises(InputError, match=r"No recipe|The seed in"):
        untrained(name)


@pytest.mark.parametrize("name", ["mlp", "mlp-3", "lenet-1", "vgg"])
def test_networks_that_are_not_stored(name):
    with pytest.raises(InputError, match=r"No stored network.*lenet, mlp-0"):
        stored(name)
