"""How our networks are trained, and the stored weights of those for MNIST (`data/nn_robustness_nets`).

A name is a recipe and, after a hyphen, a seed: `lenet` is `lenet-0`, `mlp-2` a perceptron from seed 2. The seed sets
the first weights and the order of the images. The settings are ours: plain stochastic gradient descent, chosen once.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import nn

from papertwin.data import registry
from papertwin.data.images import Images, load_images
from papertwin.errors import InputError
from papertwin.nets.classic import lenet, mlp, nin
from papertwin.training.checkpoints import load_weights
from papertwin.training.loop import Schedule, fit

STORE = "nn_robustness_nets"
STORED = ("lenet", "mlp-0", "mlp-1", "mlp-2")


@dataclass(frozen=True)
class Recipe:
    """A network and how it is trained.

    Attributes:
        network: builds it from a seed.
        epochs: passes over the training images.
        rate: learning rate at the start.
        batch: images a step.
        momentum: of the gradient descent.
        weight_decay: L2 penalty.
        schedule: of the learning rate.
        dataset: name of the image set, whose `train` split is used.
    """

    network: Callable[..., nn.Sequential]
    epochs: int
    rate: float
    batch: int = 128
    momentum: float = 0.9
    weight_decay: float = 0.0
    schedule: Schedule = "cosine"
    dataset: str = "mnist"


RECIPES = {
    "lenet": Recipe(lenet, epochs=5, rate=0.05, weight_decay=5e-4),
    "mlp": Recipe(mlp, epochs=10, rate=0.1),
    "nin": Recipe(nin, epochs=20, rate=0.02, weight_decay=1e-4, dataset="cifar10"),  # hours on a CPU
}


def untrained(name: str) -> nn.Sequential:
    """Build a network with the weights from which its training starts.

    Args:
        name: recipe or recipe-seed, as `mlp-1`.

    Raises:
        InputError: unknown recipe, or the seed is no whole number.
    """
    recipe, seed = _parts(name)
    return recipe.network(seed=seed)


def train(
    name: str,
    images: Images | None = None,
    *,
    device: Any = None,
    threads: int | None = 1,
    progress: Callable[[int, float], None] | None = None,
) -> nn.Sequential:
    """Train a network by its recipe.

    Args:
        name: recipe or recipe-seed, as `mlp-1`.
        images: what to train on; None takes the whole training split of the recipe's image set.
        device: where to train; None is the CPU.
        threads: of torch on the CPU; with another number than 1 the last bits of the weights may differ.
        progress: called after each epoch with its number, from 1, and its mean loss.

    Returns:
        The network in eval mode, on the CPU.

    Raises:
        InputError: unknown recipe, or the seed is no whole number.
        DataError: the image set is missing or damaged.
    """
    recipe, seed = _parts(name)
    chosen = load_images(recipe.dataset, "train") if images is None else images
    model = recipe.network(seed=seed)
    fit(
        model,
        chosen.scaled(),
        chosen.labels,
        epochs=recipe.epochs,
        rate=recipe.rate,
        seed=seed,
        batch=recipe.batch,
        momentum=recipe.momentum,
        weight_decay=recipe.weight_decay,
        schedule=recipe.schedule,
        device=device,
        threads=threads,
        progress=progress,
    )
    return model.eval()


def stored(name: str) -> nn.Sequential:
    """Load one of our trained networks, in eval mode, on the CPU.

    Args:
        name: lenet, mlp-0, mlp-1 or mlp-2.

    Raises:
        InputError: no such network is stored.
        DataError: its file is missing or damaged.
    """
    if name not in STORED:
        raise InputError(f"No stored network {name!r}: expected one of {', '.join(STORED)}, or train({name!r}).")
    return load_weights(untrained(name), registry.path(STORE, f"{STORE}/{name}.npz")).eval()


def _parts(name: str) -> tuple[Recipe, int]:
    """The recipe and the seed that a name stands for."""
    recipe, hyphen, seed = name.partition("-")
    if recipe not in RECIPES:
        raise InputError(f"No recipe {recipe!r}: expected one of {', '.join(RECIPES)}, and after a hyphen a seed.")
    if hyphen and not (seed.isascii() and seed.isdigit()):
        raise InputError(f"The seed in {name!r} must be a whole number, as in {recipe}-1.")
    return RECIPES[recipe], int(seed or 0)
