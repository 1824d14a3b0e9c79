"""Fine-tuning: what is trained on, what is left alone, and that it teaches the network its adversarial examples."""

import copy

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits

from papertwin.errors import InputError
from papertwin.nets import mlp
from papertwin.robustness import finetuning
from papertwin.robustness.finetuning import finetune, rounds
from papertwin.robustness.outcome import Adversarial
from papertwin.robustness.pgd import pgd_adversarial
from papertwin.training.loop import fit, predict


@pytest.fixture(scope="module")
def digits():
    """Images (1500, 1, 8, 8) in [0, 1], their labels, and a perceptron trained on them."""
    data = load_digits()
    images, labels = (data.images[:1500, None] / 16).astype(np.float32), data.target[:1500].astype(np.int64)
    model = mlp((64, 32, 10), seed=0)
    fit(model, images, labels, epochs=8, rate=0.1, seed=0)
    return model.eval(), images, labels


def attack(model, seeds):
    """A quick search for the nearest adversarial examples."""
    return pgd_adversarial(model, seeds, steps=10, bisections=8)


def same(one, two) -> bool:
    """Whether two networks have the same weights, bit for bit."""
    return all(torch.equal(a, b) for a, b in zip(one.state_dict().values(), two.state_dict().values(), strict=True))


def test_it_is_training_on_both_sets_at_a_constant_rate(digits, device):
    model, images, labels = digits
    extra, truth = np.random.default_rng(0).random((30, 1, 8, 8)), np.arange(30) % 10
    by_hand, before = copy.deepcopy(model), copy.deepcopy(model)
    both = np.concatenate([images, extra.astype(np.float32)]), np.concatenate([labels, truth])
    fit(by_hand, *both, epochs=2, rate=0.01, seed=5, batch=64, schedule="constant", device=device)
    tuned = finetune(model, images, labels, extra, truth, rate=0.01, epochs=2, batch=64, seed=5, device=device)
    if device == "cpu":
        assert same(tuned, by_hand)
    assert not same(tuned, model)
    assert same(model, before)
    assert not model.training
    assert all(p.requires_grad for p in model.parameters())


def test_without_adversarial_examples_it_is_one_more_epoch(digits):
    model, images, labels = digits
    by_hand = copy.deepcopy(model)
    fit(by_hand, images, labels, epochs=1, rate=0.01, seed=0, schedule="constant")
    assert same(finetune(model, images, labels, [], [], rate=0.01), by_hand)


def test_examples_that_do_not_fit_are_refused(digits):
    model, images, labels = digits
    with pytest.raises(InputError, match="label each"):
        finetune(model, images, labels, images[:3], labels[:2], rate=0.01)
    with pytest.raises(InputError, match="shape of the images"):
        finetune(model, images, labels, images[:3, 0], labels[:3], rate=0.01)
    with pytest.raises(InputError, match="rate"):
        finetune(model, images, labels, images[:3], labels[:3], rate=0)


def test_the_network_learns_its_examples_and_keeps_its_accuracy(digits):
    model, images, labels = digits
    before = (predict(model, images) == labels).mean()
    first, second = rounds(model, images, labels, attack, rate=0.02, points=300)
    taught = {}
    for each in (first, second):
        witnesses = np.array([o.witness for o in each.outcomes if o.found], dtype=np.float32)
        truth = np.array([o.label for o in each.outcomes if o.found])
        taught[each.number] = (predict(each.model, witnesses) == truth).mean()
        assert each.found == len(witnesses) > 200
    assert min(taught.values()) > 0.5
    assert (predict(second.model, images) == labels).mean() > before - 0.02
    farther = np.median([o.epsilon for o in second.outcomes]) - np.median([o.epsilon for o in first.outcomes])
    assert farther > 0


def recorded(digits, monkeypatch, search, **settings):
    """Run `rounds` and record the sets that each round trains on."""
    sets = []

    def spy(model, images, labels, **keywords):
        sets.append((images, labels, {"start": copy.deepcopy(model), **keywords}))
        return fit(model, images, labels, **keywords)

    monkeypatch.setattr(finetuning, "fit", spy)
    return list(rounds(*digits, search, rate=0.01, **settings)), sets


def test_the_rounds_append_true_labels_of_the_same_seeds(digits, monkeypatch):
    model, images, labels = digits
    start, seen = copy.deepcopy(model), []

    def search(network, seeds):
        seen.append((network, seeds))
        tags = range(len(seeds))
        outcomes = [Adversarial(0.1, np.full((1, 8, 8), k / 1000), 0, 1, 1, 0.0, "found") for k in tags]
        return [Adversarial(np.inf, None, 0, None, None, 0.0, "not found"), *outcomes[1:]]

    done, sets = recorded(digits, monkeypatch, search, count=3, points=40, seed=7, epochs=1)
    assert [each.number for each in done] == [1, 2, 3]
    assert same(model, start)
    assert seen[0][0] is model
    assert [network for network, _ in seen[1:]] == [each.model for each in done[:2]]
    appended = 0
    for each, (network, seeds), (pictures, wanted, keywords) in zip(done, seen, sets):
        rows = [int(np.flatnonzero((images == s).all(axis=(1, 2, 3)))[0]) for s in seeds]
        assert (predict(network, seeds) == labels[rows]).all()
        assert same(keywords["start"], network)
        assert each.searched == len(seeds)
        assert each.found == len(seeds) - 1
        assert np.array_equal(pictures[:1500], images)
        assert wanted[1500 + appended :].tolist() == labels[rows[1:]].tolist()
        assert pictures[1500 + appended :, 0, 0, 0] == pytest.approx(np.arange(1, len(seeds)) / 1000)
        appended += each.found
        assert each.appended == appended == len(pictures) - 1500
        assert keywords["seed"] == 7 + each.number
        assert keywords["schedule"] == "constant"


def test_seeds_that_the_network_misclassifies_are_not_searched(digits):
    model, images, labels = digits
    wrong = (labels + (np.arange(1500) % 3 == 0)) % 10
    seen = []

    def search(network, seeds):
        seen.append(seeds)
        return [Adversarial(np.inf, None, 0, None, None, 0.0, "not found")] * len(seeds)

    (only,) = rounds(model, images, wrong, search, rate=0.001, count=1, points=1500)
    right = predict(model, images) == wrong
    assert np.array_equal(seen[0], images[right])
    assert (only.searched, only.found, only.appended) == (int(right.sum()), 0, 0)


def test_the_draw_depends_on_the_seed_alone(digits):
    model, images, labels = digits

    def drawn(seed):
        seen = []

        def search(network, seeds):
            seen.append(seeds)
            return [Adversarial(np.inf, None, 0, None, None, 0.0, "not found")] * len(seeds)

        next(rounds(model, images, labels, search, rate=0.001, points=20, seed=seed))
        return seen[0]

    assert np.array_equal(drawn(1), drawn(1))
    assert not np.array_equal(drawn(1), drawn(2))


@pytest.mark.parametrize("wrong", [{"count": 0}, {"points": 0}, {"points": 1501}])
def test_numbers_that_mean_nothing_are_refused(digits, wrong):
    with pytest.raises(InputError, match=next(iter(wrong))):
        next(rounds(*digits, attack, rate=0.01, **wrong))


def test_a_search_that_forgets_a_seed_is_refused(digits):
    with pytest.raises(InputError, match="19 results for"):
        next(rounds(*digits, lambda model, seeds: attack(model, seeds[:19]), rate=0.01, points=30))
