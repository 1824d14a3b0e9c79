"""Fine-tune a network on adversarial examples of its own training images.

Source: Bastani et al., NIPS 2016 (arXiv 1605.07262), reconstructed: append adversarial examples with the true labels
of their seeds to the training set, train one epoch at a reduced rate; repeat the whole for T = 1, 2.

Ours: the seeds are drawn once and are the same in each round; an example found in an earlier round stays in the
training set; seeds that the network of a round misclassifies are not searched in it; the rate is constant.
"""

import copy
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import nn

from papertwin.errors import InputError
from papertwin.robustness.inputs import check_count
from papertwin.robustness.outcome import Adversarial
from papertwin.training.loop import fit, predict

Search = Callable[[nn.Module, np.ndarray], list[Adversarial]]


@dataclass(frozen=True)
class Round:
    """One round of fine-tuning.

    Attributes:
        number: T, from 1.
        model: the network after this round.
        searched: seeds that the network before this round classified correctly.
        found: seeds among them with an adversarial example.
        appended: adversarial examples in the training set of this round, those of earlier rounds included.
        outcomes: of the search, one for each searched seed.
    """

    number: int
    model: nn.Module
    searched: int
    found: int
    appended: int
    outcomes: list[Adversarial]


def finetune(
    model: nn.Module,
    images: Any,
    labels: Any,
    adversaries: Any,
    adversary_labels: Any,
    *,
    rate: float,
    epochs: int = 1,
    batch: int = 128,
    weight_decay: float = 0.0,
    seed: int = 0,
    device: Any = None,
    threads: int | None = 1,
) -> nn.Module:
    """Train a copy of a network on its training images and on adversarial examples.

    Args:
        model: images → (B, classes) logits; left as it is.
        images: (n, …) floats, the training images.
        labels: (n,) whole numbers.
        adversaries: (m, …) adversarial examples, m ≥ 0; rounded to the precision of `images`.
        adversary_labels: (m,) true labels of their seeds, not those that the network gives them.
        rate: learning rate, constant; lower than that of the first training.
        epochs: passes over both sets, shuffled together.
        batch: images a step.
        weight_decay: L2 penalty on every parameter.
        seed: of the shuffles and of dropout.
        device: where to train; None is where the model is.
        threads: of torch on the CPU; None leaves them as they are.

    Returns:
        The fine-tuned copy, on the device of `model` and in its mode.

    Raises:
        InputError: adversarial examples do not fit the images or their labels.
        InputError: what `papertwin.training.loop.fit` refuses.
    """
    pictures, extra = np.asarray(images), np.asarray(adversaries)
    wanted, truth = np.asarray(labels), np.asarray(adversary_labels)
    if len(extra) != len(truth) or (len(extra) and extra.shape[1:] != pictures.shape[1:]):
        raise InputError(
            f"Adversarial examples must have the shape of the images, {pictures.shape[1:]}, and a label each; "
            f"got shape {extra.shape} and {len(truth)} labels."
        )
    if len(extra):
        pictures = np.concatenate([pictures, extra.astype(pictures.dtype)])
        wanted = np.concatenate([wanted, truth])
    tuned = copy.deepcopy(model)
    settings = {"epochs": epochs, "rate": rate, "batch": batch, "weight_decay": weight_decay}
    settings |= {"seed": seed, "device": device, "threads": threads, "schedule": "constant"}
    fit(tuned, pictures, wanted, **settings)
    return tuned


def rounds(
    model: nn.Module,
    images: Any,
    labels: Any,
    search: Search,
    *,
    rate: float,
    count: int = 2,
    points: int = 200,
    seed: int = 0,
    **settings: Any,
) -> Iterator[Round]:
    """Search adversarial examples of training images and fine-tune on them, again and again.

    Args:
        model: images → (B, classes) logits; left as it is.
        images: (n, …) floats, the training images.
        labels: (n,) whole numbers.
        search: (network, (m, …) seeds) → m results, by any algorithm.
        rate: learning rate of each round, constant.
        count: rounds, T at the end.
        points: seeds, drawn once among the training images, at most n.
        seed: of that draw; round T trains with seed + T.
        settings: epochs, batch, weight_decay, device and threads of `finetune`.

    Yields:
        Each round, T = 1, 2, …; the next one starts from its network.

    Raises:
        InputError: a number cannot be used, or `search` returns another number of results than seeds.
        InputError: what `papertwin.training.loop.fit` refuses.
    """
    pictures, truth = np.asarray(images), np.asarray(labels)
    count, points = check_count("count", count), check_count("points", points)
    if points > len(pictures):
        raise InputError(f"points is {points}, but there are only {len(pictures)} training images to draw from.")
    chosen = np.sort(np.random.default_rng(seed).choice(len(pictures), points, replace=False))
    found: list[np.ndarray] = []
    found_labels: list[int] = []
    for number in range(1, count + 1):
        seeds = chosen[predict(model, pictures[chosen]) == truth[chosen]]
        outcomes = _searched(search, model, pictures[seeds])
        hits = [(outcome.witness, truth[row]) for outcome, row in zip(outcomes, seeds) if outcome.witness is not None]
        found += [witness for witness, _ in hits]
        found_labels += [int(label) for _, label in hits]
        model = finetune(model, pictures, truth, found, found_labels, rate=rate, seed=seed + number, **settings)
        yield Round(number, model, len(seeds), len(hits), len(found), outcomes)


def _searched(search: Search, model: nn.Module, seeds: np.ndarray) -> list[Adversarial]:
    outcomes = search(model, seeds) if len(seeds) else []
    if len(outcomes) != len(seeds):
        raise InputError(f"The search returned {len(outcomes)} results for {len(seeds)} seeds; expected one each.")
    return outcomes
