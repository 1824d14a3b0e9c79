"""What every search for adversarial examples shares: the seed, the label aimed at, the network in float64.

An input is adversarial for a seed x where the network's label differs from f(x); f(x) is the label with the largest
logit, the lowest of equal ones. Arithmetic is float64 throughout, because witnesses lie on the decision surface.
"""

import copy
import math
from typing import Any, Literal

import numpy as np
import torch
from torch import nn

from papertwin.checks import is_whole
from papertwin.errors import InputError, ParameterError
from papertwin.training.device import pick_device

Box = tuple[float, float]
Target = Literal["runner-up", "all"] | int


def check_seed(x: Any, box: Box) -> np.ndarray:
    """Return a seed image as float64 once it is known to lie in the box.

    Args:
        x: one image of any shape, without a batch axis.
        box: smallest and largest value of a pixel; either may be infinite.

    Returns:
        Copy of `x`, float64, same shape.

    Raises:
        InputError: the box is no interval, or the image is empty, not of numbers, not finite or outside the box.
    """
    low, high = check_box(box)
    seed = np.array(x.detach().cpu().numpy() if isinstance(x, torch.Tensor) else x)
    if seed.dtype.kind not in "fiu" or not seed.size:
        raise InputError(f"A seed must be an image of numbers, got {seed.dtype} of shape {seed.shape}.")
    seed = seed.astype(np.float64)
    if not np.isfinite(seed).all():
        raise InputError(f"The seed holds {int((~np.isfinite(seed)).sum())} values that are NaN or infinite.")
    if seed.min() < low or seed.max() > high:
        raise InputError(
            f"The seed has values from {seed.min():g} to {seed.max():g}, outside the box [{low:g}, {high:g}]. "
            "Scale the image as the network takes it, or give its box."
        )
    return seed


def check_box(box: Box) -> Box:
    """Return the two ends of the box as floats.

    Raises:
        InputError: not two numbers, the first below the second.
    """
    try:
        low, high = (float(end) for end in box)
    except (TypeError, ValueError):
        raise InputError(f"box must be two numbers, for example (0.0, 1.0), got {box!r}.") from None
    if not low < high:
        raise InputError(f"box must be an interval with its lower end first, got {box!r}.")
    return low, high


def runner_up(logits: np.ndarray) -> int:
    """Return the label with the second largest of (classes,) logits; of equal ones the lowest label comes first.

    >>> runner_up(np.array([0.1, 2.0, 2.0]))
    2
    """
    return ranked(logits)[1]


def ranked(logits: np.ndarray) -> list[int]:
    """Return all labels, the one with the largest of (classes,) logits first, the lower one where logits are equal."""
    return [int(label) for label in np.argsort(-np.asarray(logits), kind="stable")]


def targets_of(logits: np.ndarray, target: Target) -> list[int]:
    """Return the labels that a search for the nearest adversarial example aims at.

    Args:
        logits: (classes,) of the seed.
        target: "runner-up" (the second largest logit), "all" (every other label, most likely first), or one label.

    Raises:
        InputError: the label does not exist or is the seed's own, or `target` is something else.
    """
    label, *others = ranked(logits)
    if isinstance(target, str) and target in ("runner-up", "all"):
        return others if target == "all" else others[:1]
    if not is_whole(target):
        raise InputError(f'target must be "runner-up", "all" or a label, got {target!r}.')
    if not 0 <= target < len(logits):
        raise InputError(f"target must be a label from 0 to {len(logits) - 1}, got {target}.")
    if target == label:
        raise InputError(f"target {target} is the label that the network gives the seed: choose another one.")
    return [int(target)]


def frozen(model: nn.Module, device: Any = "cpu") -> nn.Module:
    """Return a float64 copy of a network in eval mode whose parameters need no gradient; the network stays as it is.

    Args:
        model: images → (B, classes) logits.
        device: where the copy goes; on mps, which has no float64, it stays on the CPU.

    Raises:
        InputError: `model` is no torch module, or there is no such device here.
    """
    if not isinstance(model, nn.Module):
        raise InputError(f"model must be a torch.nn.Module, got {type(model).__name__}.")
    try:
        place = pick_device(device)
    except ParameterError as error:
        raise InputError(str(error)) from None
    if place.type == "mps":
        place = torch.device("cpu")
    return copy.deepcopy(model).to(place, torch.float64).eval().requires_grad_(False)


def as_batch(model64: nn.Module, images: Any) -> torch.Tensor:
    """Return images, (n, …), as a float64 tensor on the device of a network from `frozen`."""
    first = next(model64.parameters(), None)
    place = "cpu" if first is None else first.device
    return torch.as_tensor(images).to(place, torch.float64)


def logits_of(model64: nn.Module, x: np.ndarray) -> np.ndarray:
    """Return the (classes,) logits of one image, float64.

    Args:
        model64: network from `frozen`.
        x: one image, without a batch axis.

    Raises:
        InputError: the network does not take the image, or does not give finite logits of shape (1, classes),
            classes ≥ 2.
    """
    batch = as_batch(model64, x[None])
    try:
        with torch.no_grad():
            logits = model64(batch)
    except torch.OutOfMemoryError:
        raise
    except (RuntimeError, ValueError, IndexError, TypeError) as error:
        raise InputError(
            f"The network does not take an image of shape {x.shape}, as a batch {tuple(batch.shape)}: {error}\n"
            "Give one image as the network takes it, without the batch axis."
        ) from error
    if not isinstance(logits, torch.Tensor):
        raise InputError(f"The network must give a tensor of logits, got {type(logits).__name__}.")
    logits = logits.cpu().numpy()
    if logits.ndim != 2 or logits.shape[0] != 1 or logits.shape[1] < 2:
        raise InputError(f"The network must give (1, classes) logits for one image, got shape {logits.shape}.")
    if not np.isfinite(logits).all():
        raise InputError("The network gives logits that are NaN or infinite at the seed; its training diverged.")
    return logits[0]


def predict_labels(model64: nn.Module, batch: Any) -> np.ndarray:
    """Return the label of each image, (n,) int64: the largest logit, the lowest label of equal ones.

    Args:
        model64: network from `frozen`.
        batch: (n, …) images.
    """
    with torch.no_grad():
        return model64(as_batch(model64, batch)).argmax(dim=1).cpu().numpy()


def overtaken_by(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Return by how much the largest other logit exceeds that of `labels`: (B, classes), (B,) → (B,)."""
    own = logits.gather(1, labels[:, None])[:, 0]
    others = logits.scatter(1, labels[:, None], -math.inf).amax(dim=1)
    return others - own


def is_adversarial(model64: nn.Module, witness: np.ndarray, label: int, margin: float = 0.0) -> bool:
    """Tell whether another logit is at least `margin` above that of `label`; at margin 0 a tie is adversarial.

    Args:
        model64: network from `frozen`.
        witness: one image, without a batch axis.
        label: label of the seed.
        margin: in logits, at least 0.
    """
    with torch.no_grad():
        logits = model64(as_batch(model64, witness[None]))
        return bool(overtaken_by(logits, torch.tensor([label], device=logits.device))[0] >= margin)


def check_count(name: str, value: Any, smallest: int = 1) -> int:
    """Return a setting that counts something.

    Raises:
        InputError: it is no whole number of at least `smallest`.
    """
    if not is_whole(value, smallest):
        raise InputError(f"{name} must be a whole number of at least {smallest}, got {value!r}.")
    return int(value)
