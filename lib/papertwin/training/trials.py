"""Trials: small networks trained from several seeds on small images, with what is needed to judge them honestly.

Images are drawn by the seed: a training set, a validation set by which every choice is made, and test images, which are
the same for every seed and decide nothing. `train_trial` is a plain function of its arguments, so that
`papertwin.training.pool.Pool` can spread trials over processes; each process reads a data set once.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from papertwin.data.images import ABOUT, Images, load_images
from papertwin.errors import InputError
from papertwin.training.loop import fit, scores

Part = tuple[np.ndarray, np.ndarray]  # images (n, c, h, w) float32, labels (n,) int64


@dataclass(frozen=True)
class Sets:
    """Standardised images with their labels.

    Attributes:
        train: what networks are trained on.
        check: validation images, by which choices are made.
        test: what is reported.
        classes: names of the classes.
    """

    train: Part
    check: Part
    test: Part
    classes: tuple[str, ...]

    @property
    def shape(self) -> tuple[int, int, int]:
        """Of an image, (c, h, w)."""
        return self.train[0].shape[1:]


@dataclass(frozen=True)
class SetSizes:
    """How many images of which set, and their size.

    Attributes:
        dataset: mnist, fashion_mnist, cifar10 or cifar100.
        side: pixels of an image; a divisor of its own side.
        train, check, test: numbers of images.
    """

    dataset: str
    side: int
    train: int
    check: int
    test: int

    @property
    def classes(self) -> int:
        """How many there are; the data need not be there."""
        return ABOUT[self.dataset].classes

    @property
    def shape(self) -> tuple[int, int, int]:
        """Of an image, (c, h, w); the data need not be there."""
        return ABOUT[self.dataset].channels, self.side, self.side


@dataclass(frozen=True)
class Trial:
    """A network after its training.

    Attributes:
        name: of the network.
        seed: of its weights and of its training images.
        model: in eval mode, on the CPU.
        check: (n, C) logits of the validation images.
        test: (m, C) logits of the test images.
        check_labels: (n,) true labels.
        test_labels: (m,) true labels.
        loss: mean training loss of the last epoch.
    """

    name: str
    seed: int
    model: nn.Module
    check: np.ndarray
    test: np.ndarray
    check_labels: np.ndarray
    test_labels: np.ndarray
    loss: float

    @property
    def check_error(self) -> float:
        """Share of wrong answers on validation images."""
        return error(self.check, self.check_labels)

    @property
    def test_error(self) -> float:
        """Share of wrong answers on test images."""
        return error(self.test, self.test_labels)


def error(logits: np.ndarray, labels: np.ndarray) -> float:
    """Share of images whose largest logit, the first of equal ones, is not that of their label, in [0, 1].

    >>> error(np.array([[1.0, 0.0], [0.0, 2.0]]), np.array([0, 0]))
    0.5
    """
    return float((logits.argmax(1) != labels).mean())


def shrink(images: np.ndarray, side: int) -> np.ndarray:
    """Average blocks of pixels: (n, c, h, h) → (n, c, side, side).

    Raises:
        InputError: the side does not divide that of the images.
    """
    if images.shape[-1] % side:
        raise InputError(f"side is {side}; it must divide the {images.shape[-1]} pixels of an image.")
    return functional.avg_pool2d(torch.from_numpy(images), images.shape[-1] // side).numpy()


def standardised(parts: Sequence[Part], classes: tuple[str, ...]) -> Sets:
    """Shift and scale the pixels of training, validation and test images by mean and deviation of the training ones."""
    mean, spread = parts[0][0].mean(), parts[0][0].std()
    return Sets(*(((images - mean) / spread, labels) for images, labels in parts), classes)


@cache
def whole_set(name: str, split: str) -> Images:
    """An image set, read once a process."""
    return load_images(name, split)


@cache
def draw_sets(sizes: SetSizes, seed: int) -> Sets:
    """Draw training and validation images by a seed; test images are the first ones.

    Raises:
        InputError: the set has fewer images, or `side` does not divide theirs.
        DataError: the set is absent or damaged.
    """
    train, test = whole_set(sizes.dataset, "train"), whole_set(sizes.dataset, "test")
    if sizes.train + sizes.check > len(train) or sizes.test > len(test):
        raise InputError(
            f"{sizes.dataset} has {len(train)} training and {len(test)} test images; asked for are "
            f"{sizes.train} + {sizes.check} and {sizes.test}."
        )
    rows = np.random.default_rng(seed).permutation(len(train))[: sizes.train + sizes.check]
    chosen = (train, rows[: sizes.train]), (train, rows[sizes.train :]), (test, np.arange(sizes.test))
    parts = [(shrink(source.scaled(at), sizes.side), source.labels[at]) for source, at in chosen]
    return standardised(parts, train.classes)


def train_trial(name: str, build: Callable[..., nn.Module], seed: int, sizes: SetSizes, **settings: Any) -> Trial:
    """Build a network from a seed, train it on the images of that seed, and ask it for the others.

    Args:
        name: of the network.
        build: `build(classes, in_channels=…, seed=…)`.
        seed: of weights, images and shuffles.
        sizes: of the sets.
        settings: of `papertwin.training.loop.fit`: epochs, rate, batch, …; its `memory_format` serves all three steps.
    """
    sets = draw_sets(sizes, seed)
    model = build(len(sets.classes), in_channels=sets.shape[0], seed=seed)
    losses = fit(model, *sets.train, seed=seed, **settings)
    layout = settings.get("memory_format")
    check, test = (scores(model, images, memory_format=layout) for images, _ in (sets.check, sets.test))
    return Trial(name, seed, model.eval().cpu(), check, test, sets.check[1], sets.test[1], losses[-1])
