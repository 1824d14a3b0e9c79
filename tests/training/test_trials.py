"""Trials: which images a seed draws, what is done to them, and that a training depends on its arguments alone."""

from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch
from torch import nn

from papertwin.data.images import Images
from papertwin.errors import DataError, InputError
from papertwin.nets.initial import seeded
from papertwin.training import trials
from papertwin.training.pool import Pool
from papertwin.training.trials import SetSizes, Trial, draw_sets, error, shrink, standardised, train_trial

SIZES = SetSizes("fashion_mnist", 7, 300, 100, 150)
SETTINGS = {"epochs": 2, "rate": 0.05, "batch": 32}


@pytest.fixture
def numbered(monkeypatch):
    """An image set in which the first pixel of an image tells its row, test images from 200 on."""
    sets = {}
    for split, first, count in (("train", 0, 200), ("test", 200, 50)):
        pictures = np.random.default_rng(first).integers(0, 255, (count, 1, 8, 8), dtype=np.uint8)
        pictures[:, 0, 0, 0] = first + np.arange(count)
        sets[split] = Images(pictures, np.arange(count) % 3, ("a", "b", "c"))
    monkeypatch.setattr(trials, "whole_set", lambda name, split: sets[split])
    draw_sets.cache_clear()
    yield sets
    draw_sets.cache_clear()


# ---- which images ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", [0, 1, 7])
def test_training_and_validation_images_are_drawn_apart_and_tests_are_the_first(numbered, monkeypatch, seed):
    monkeypatch.setattr(trials, "standardised", lambda parts, classes: trials.Sets(*parts, classes))
    sets = draw_sets(SetSizes("numbered", 8, 120, 80, 30), seed)
    rows = [np.rint(255 * images[:, 0, 0, 0]).astype(int) for images, _ in (sets.train, sets.check, sets.test)]
    assert [len(each) for each in rows] == [120, 80, 30]
    assert sorted([*rows[0], *rows[1]]) == list(range(200)), "each training image once, in one of the two"
    assert rows[2].tolist() == list(range(200, 230))
    for (images, labels), drawn, first, split in zip(
        (sets.train, sets.check, sets.test), rows, (0, 0, 200), ("train", "train", "test")
    ):
        assert np.array_equal(images, numbered[split].scaled(drawn - first))
        assert np.array_equal(labels, (drawn - first) % 3)
    assert sets.classes == ("a", "b", "c")
    assert sets.shape == (1, 8, 8)


def test_a_seed_draws_the_same_images_again_and_another_one_others():
    first = draw_sets(SIZES, 1)
    assert draw_sets(SIZES, 1) is first, "a process draws them once"
    draw_sets.cache_clear()
    again, other = draw_sets(SIZES, 1), draw_sets(SIZES, 2)
    for part in ("train", "check", "test"):
        for mine, same in zip(getattr(first, part), getattr(again, part)):
            assert np.array_equal(mine, same)
    assert not np.array_equal(first.train[1], other.train[1])
    assert not np.array_equal(first.check[1], other.check[1])
    assert np.array_equal(first.test[1], other.test[1])
    # the same test images, each shifted and scaled by the training images of its seed
    (mine, _), (theirs, _) = first.test, other.test
    slope, offset = np.polyfit(mine.ravel(), theirs.ravel(), 1)
    assert np.abs(slope * mine + offset - theirs).max() < 1e-5


def test_more_validation_images_leave_the_training_images_as_they_are(numbered, monkeypatch):
    monkeypatch.setattr(trials, "standardised", lambda parts, classes: trials.Sets(*parts, classes))
    few, many = (draw_sets(SetSizes("numbered", 8, 50, check, 10), 3) for check in (20, 100))
    assert np.array_equal(few.train[0], many.train[0])
    assert np.array_equal(few.check[0], many.check[0][:20])


@pytest.mark.parametrize(
    ("change", "asked"), [({"train": 150}, "150 [+] 80 and 30"), ({"test": 51}, "100 [+] 80 and 51")]
)
def test_more_images_than_there_are_are_refused(numbered, change, asked):
    sizes = replace(SetSizes("numbered", 8, 100, 80, 30), **change)
    with pytest.raises(InputError, match=rf"numbered has 200 training and 50 test images; asked for are {asked}"):
        draw_sets(sizes, 0)


def test_unknown_sets_and_sides_are_refused():
    with pytest.raises(DataError, match="No image set 'letters'"):
        draw_sets(replace(SIZES, dataset="letters"), 0)
    with pytest.raises(InputError, match="side is 9; it must divide the 28 pixels"):
        draw_sets(replace(SIZES, side=9), 0)


# ---- what is done to them --------------------------------------------------------------------------------------------


def test_pixels_are_standardised_by_the_training_images_alone():
    sets = draw_sets(SIZES, 4)
    pixels = sets.train[0].astype(np.float64)
    assert pixels.mean() == pytest.approx(0, abs=1e-5)
    assert pixels.std() == pytest.approx(1, abs=1e-5)
    assert all(part[0].dtype == np.float32 for part in (sets.train, sets.check, sets.test))
    parts = [
        (np.array([[1.0, 3.0]]), np.array([0])),
        (np.array([[5.0]]), np.array([1])),
        (np.array([[2.0]]), np.array([2])),
    ]
    by_hand = standardised(parts, ("x",))
    found = [part[0].tolist() for part in (by_hand.train, by_hand.check, by_hand.test)]
    assert found == [[[-1.0, 1.0]], [[3.0]], [[0.0]]]
    assert [part[1].tolist() for part in (by_hand.train, by_hand.check, by_hand.test)] == [[0], [1], [2]]


@pytest.mark.parametrize("side", [1, 2, 3, 4, 6, 12])
def test_shrinking_is_the_mean_of_blocks(side):
    images = np.random.default_rng(side).random((3, 2, 12, 12)).astype(np.float32)
    block = 12 // side
    small = shrink(images, side)
    assert small.shape == (3, 2, side, side)
    for row in range(side):
        for column in range(side):
            part = images[:, :, row * block : (row + 1) * block, column * block : (column + 1) * block]
            np.testing.assert_allclose(small[:, :, row, column], part.mean(axis=(2, 3)), rtol=1e-5)
    assert small.mean() == pytest.approx(images.mean(), rel=1e-5)


@pytest.mark.parametrize("side", [5, 8, 24])
def test_sides_that_do_not_divide_an_image_are_refused(side):
    with pytest.raises(InputError, match=f"side is {side}; it must divide the 12 pixels"):
        shrink(np.zeros((1, 1, 12, 12), dtype=np.float32), side)


# ---- trials ----------------------------------------------------------------------------------------------------------


def test_errors_by_hand():
    logits = np.array([[3.0, 1.0, 2.0], [0.0, 5.0, 5.0], [1.0, 0.0, 2.0], [-np.inf, -1.0, -2.0]])
    assert error(logits, np.array([0, 1, 2, 1])) == 0.0
    assert error(logits, np.array([0, 2, 2, 1])) == 0.25, "of equal logits the first is the answer"
    assert error(logits, np.array([1, 2, 0, 0])) == 1.0
    trial = Trial("a", 1, nn.Identity(), logits, logits[:2], np.array([0, 1, 0, 1]), np.array([0, 2]), 0.0)
    assert (trial.check_error, trial.test_error) == (0.25, 0.5)
    assert isinstance(trial.test_error, float)


def small(classes: int, *, in_channels: int, seed: int, hidden: int = 8) -> nn.Sequential:
    """A network with normalisation and dropout: both would show a wrong mode or a shared generator."""
    with seeded(seed):
        layers = [nn.Flatten(), nn.Linear(in_channels * 49, hidden), nn.BatchNorm1d(hidden), nn.ReLU(), nn.Dropout(0.2)]
        return nn.Sequential(*layers, nn.Linear(hidden, classes))


def same(first: Trial, second: Trial) -> bool:
    weights = zip(first.model.state_dict().values(), second.model.state_dict().values())
    outputs = ((getattr(first, name), getattr(second, name)) for name in ("check", "test"))
    return all(torch.equal(a, b) for a, b in weights) and all(np.array_equal(a, b) for a, b in outputs)


def test_a_memory_format_serves_training_and_questions():
    seen = set()

    def build(classes, *, in_channels, seed):
        with seeded(seed):
            layers = [nn.Conv2d(in_channels, 6, 3), nn.ReLU(), nn.Conv2d(6, 4, 3), nn.Flatten(), nn.Linear(36, classes)]
        layers[2].register_forward_hook(lambda layer, *_: seen.add(layer.weight.is_contiguous()))
        return nn.Sequential(*layers)

    plain, other = (
        train_trial("net", build, 1, SIZES, epochs=2, rate=0.05, **options)
        for options in ({}, {"memory_format": torch.channels_last})
    )
    assert seen == {True, False}
    np.testing.assert_allclose(other.test, plain.test, rtol=1e-3, atol=1e-3)
    assert other.model[2].weight.is_contiguous()


def test_a_trial_depends_on_its_arguments_and_not_on_the_processes():
    tasks = [("net", small, seed) for seed in (1, 2)] + [("wide", partial(small, hidden=16), 1)]
    found = {}
    for processes in (1, 2):
        torch.rand(processes)  # a generator that others use
        with Pool(processes) as pool:
            found[processes] = pool.map(partial(train_trial, sizes=SIZES, **SETTINGS), tasks)
    for one, two in zip(*found.values()):
        assert (one.name, one.seed, one.loss) == (two.name, two.seed, two.loss)
        assert same(one, two)
    first, second, _ = found[1]
    assert not np.array_equal(first.test, second.test)
    assert same(first, train_trial("again", small, 1, SIZES, **SETTINGS))


def test_what_a_trial_holds_is_what_its_network_says():
    trial = train_trial("net", small, 3, SIZES, device="cpu", **SETTINGS)
    sets = draw_sets(SIZES, 3)
    assert not trial.model.training
    with torch.inference_mode():
        for logits, images in ((trial.check, sets.check[0]), (trial.test, sets.test[0])):
            np.testing.assert_allclose(trial.model(torch.from_numpy(images)).numpy(), logits, atol=1e-5)
    assert np.array_equal(trial.check_labels, sets.check[1])
    assert np.array_equal(trial.test_labels, sets.test[1])
    assert (trial.name, trial.seed) == ("net", 3)
    assert trial.test_error == (trial.test.argmax(axis=1) != sets.test[1]).mean() < 0.8  # chance is 0.9


def test_the_network_sees_training_images_only_and_the_last_loss_is_kept(monkeypatch):
    seen = {}

    def fit(model, images, labels, **settings):
        assert torch.equal(model[1].weight, small(10, in_channels=1, seed=5)[1].weight), "weights are those of the seed"
        seen.update(images=images, labels=labels, settings=settings)
        return [3.0, 2.0, 1.5]

    monkeypatch.setattr(trials, "fit", fit)
    assert train_trial("net", small, 5, SIZES, **SETTINGS).loss == 1.5
    sets = draw_sets(SIZES, 5)
    assert seen["images"] is sets.train[0]
    assert seen["labels"] is sets.train[1]
    assert seen["settings"] == {"seed": 5, **SETTINGS}


def test_the_shape_is_known_without_the_data_and_is_that_of_the_data(monkeypatch):
    for name in ("mnist", "fashion_mnist"):
        sizes = SetSizes(name, 14, 50, 50, 50)
        assert sizes.shape == draw_sets(sizes, 0).shape
    monkeypatch.setattr(trials, "whole_set", None)
    assert SetSizes("cifar10", 16, 1, 1, 1).shape == (3, 16, 16)
