"""Train a classifier with stochastic gradient descent, and ask it for labels.

Same seed, same weights, bit for bit: images are shuffled by a generator of their own, dropout draws from one seeded
for the call, and on a CPU torch works with one thread, because the order of a sum depends on the number of threads.
Two kinds of processor may still differ in the last bits, and so may an accelerator from run to run; on mps dropout
draws from the global generator.
"""

import math
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from typing import Any, Literal, Protocol

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from papertwin.checks import SEEDS, is_whole
from papertwin.errors import DivergenceError, InputError
from papertwin.training.device import pick_device


class Stepper(Protocol):
    """What follows the optimiser in a training."""

    def step(self) -> object:
        """Do what is to be done after a step."""


MakeOptimizer = Callable[[Iterable[nn.Parameter]], torch.optim.Optimizer]
Follow = Callable[[nn.Module, torch.optim.Optimizer, int], Stepper]
Schedule = Literal["cosine", "constant"]
SCHEDULES = ("cosine", "constant")
MOMENTUM = 0.9  # of gradient descent, where none is asked for
FORMATS = (None, torch.contiguous_format, torch.channels_last)


@contextmanager
def torch_threads(count: int | None) -> Iterator[None]:
    """Let torch use `count` threads on the CPU within the block; None leaves the number as it is.

    Raises:
        InputError: `count` is no whole number above 0.
    """
    if count is not None and (isinstance(count, bool) or not isinstance(count, int) or count < 1):
        raise InputError(f"The number of threads must be a whole number above 0, got {count!r}.")
    before = torch.get_num_threads()
    if count is not None:
        torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def single_thread() -> AbstractContextManager[None]:
    """Let torch use one thread on the CPU within the block, so that sums do not depend on the machine's cores."""
    return torch_threads(1)


def fit(
    model: nn.Module,
    images: Any,
    labels: Any,
    *,
    epochs: int,
    rate: float,
    seed: int,
    batch: int = 128,
    momentum: float = MOMENTUM,
    weight_decay: float = 0.0,
    schedule: Schedule = "cosine",
    device: Any = None,
    threads: int | None = 1,
    memory_format: torch.memory_format | None = None,
    progress: Callable[[int, float], None] | None = None,
    make_optimizer: MakeOptimizer | None = None,
    follow: Follow | None = None,
) -> list[float]:
    """Train a classifier in place on the mean cross-entropy, with momentum.

    Args:
        model: images → (B, classes) logits; it comes back in the mode and on the device it was in.
        images: (n, …) floats, NumPy or torch, scaled as the model takes them, n ≥ 1.
        labels: (n,) whole numbers from 0 to classes - 1.
        epochs: passes over the images, at least 1; the last batch of a pass may be smaller.
        rate: learning rate at the start, above 0.
        seed: of the shuffles and of dropout.
        batch: images a step.
        momentum: in [0, 1).
        weight_decay: L2 penalty on every parameter, at least 0.
        schedule: cosine (step t of T uses rate · (1 + cos πt/T) / 2) or constant.
        device: where to train; None is where the model is.
        threads: of torch on the CPU; None leaves them as they are, and then results depend on their number.
        memory_format: of 4-D weights and batches while training; torch.channels_last is faster for many convolutions,
            on a CPU too, and only rounds otherwise. Weights come back contiguous. None changes nothing.
        progress: called after each epoch with its number, from 1, and its mean loss.
        make_optimizer: makes another one than gradient descent from the parameters, with momentum and decay of its own;
            the rate of all its groups follows `rate` and the schedule.
        follow: called once with the model, the optimiser and the number of steps, before the first; what it returns has
            a `step()` that is called after each step of the optimiser: an updater of sparse masks, for instance.

    Returns:
        Mean loss over the images of each epoch, as seen during training.

    Raises:
        InputError: an argument cannot be used.
        DivergenceError: the loss is no longer finite; it is an InputError too.
        ParameterError: no such device here.
    """
    _check_settings(epochs, rate, batch, momentum, weight_decay, schedule, seed)
    if make_optimizer is not None and (momentum, weight_decay) != (MOMENTUM, 0.0):
        raise InputError(
            f"momentum={momentum!r} and weight_decay={weight_decay!r} are those of gradient descent: give them to the "
            "optimiser that make_optimizer makes."
        )
    place = _device_of(model) if device is None else pick_device(device)
    losses: list[float] = []
    with _guarded(model, threads, memory_format), _private_random(place, seed):
        model.to(place)
        pictures, wanted = _as_data(model, images, labels)
        sgd = partial(torch.optim.SGD, lr=rate, momentum=momentum, weight_decay=weight_decay)
        descent = (make_optimizer or sgd)(model.parameters())
        steps = epochs * math.ceil(len(pictures) / batch)
        rates = _rates(rate, steps, schedule)
        follower = follow(model, descent, steps) if follow is not None else None
        shuffle = torch.Generator().manual_seed(int(seed))
        model.train()
        for epoch in range(1, epochs + 1):
            order = torch.randperm(len(pictures), generator=shuffle).to(place)
            batches = ((_in_format(pictures[rows], memory_format), wanted[rows]) for rows in order.split(batch))
            losses.append(_epoch(model, descent, batches, rates, follower))
            if not math.isfinite(losses[-1]):
                raise DivergenceError(
                    f"The loss is {losses[-1]} in epoch {epoch}: training diverged. Lower rate={rate}."
                )
            if progress is not None:
                progress(epoch, losses[-1])
    return losses


def scores(
    model: nn.Module,
    images: Any,
    batch: int = 1000,
    threads: int | None = 1,
    *,
    memory_format: torch.memory_format | None = None,
) -> np.ndarray:
    """Return a network's outputs for each image, without gradients.

    Args:
        model: images → (B, classes) logits; used in eval mode, on the device it is on, and left as it was.
        images: (n, …) floats, NumPy or torch.
        batch: images at once.
        threads: of torch on the CPU; None leaves them as they are.
        memory_format: of 4-D weights and batches meanwhile, as in `fit`; weights come back contiguous.

    Returns:
        (n, …) in the network's own type, one row an image.

    Raises:
        InputError: images cannot be used, or no such format.
    """
    with _guarded(model, threads, memory_format), torch.inference_mode():
        model.eval()
        chunks = _as_images(model, images).split(batch)
        return np.concatenate([model(_in_format(chunk, memory_format)).cpu().numpy() for chunk in chunks])


def predict(model: nn.Module, images: Any, batch: int = 1000, threads: int | None = 1) -> np.ndarray:
    """Return the label with the largest logit for each image, the first of equal ones: (n,) int64.

    Arguments and errors as in `scores`.
    """
    return scores(model, images, batch, threads).argmax(axis=1)


def accuracy(model: nn.Module, images: Any, labels: Any, batch: int = 1000) -> float:
    """Return the share of images whose predicted label is the given one, in [0, 1].

    Args:
        model: images → (B, classes) logits.
        images: (n, …) floats, NumPy or torch.
        labels: (n,) whole numbers.
        batch: images at once.

    Raises:
        InputError: images or labels cannot be used.
    """
    wanted = _as_labels(labels, len(images)).numpy()
    return float((predict(model, images, batch) == wanted).mean())


def _check_settings(
    epochs: int, rate: float, batch: int, momentum: float, weight_decay: float, schedule: str, seed: int
) -> None:
    for name, value in (("epochs", epochs), ("batch", batch)):
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise InputError(f"{name} must be a whole number above 0, got {value!r}.")
    if not 0 < rate < math.inf:
        raise InputError(f"rate must be a finite number above 0, got {rate!r}.")
    if not 0 <= momentum < 1:
        raise InputError(f"momentum must be at least 0 and below 1, got {momentum!r}.")
    if not 0 <= weight_decay < math.inf:
        raise InputError(f"weight_decay must be a finite number of at least 0, got {weight_decay!r}.")
    if schedule not in SCHEDULES:
        raise InputError(f"schedule must be {' or '.join(SCHEDULES)}, got {schedule!r}.")
    if not is_whole(seed, 0, SEEDS - 1):
        raise InputError(f"seed must be a whole number from 0 to 4294967295, got {seed!r}.")


def _device_of(model: nn.Module) -> torch.device:
    first = next(model.parameters(), None)
    if first is None:
        raise InputError("The model has no parameters, so there is nothing to train or to ask.")
    return first.device


def _as_images(model: nn.Module, images: Any) -> torch.Tensor:
    """Images on the model's device and in its precision."""
    tensor = torch.as_tensor(images)
    if not tensor.is_floating_point():
        raise InputError(
            f"images must be floats scaled as the model takes them, got {tensor.dtype}. "
            "Use `Images.scaled()`, or divide by 255."
        )
    if tensor.ndim < 2 or not len(tensor):
        raise InputError(f"images must have shape (n, …) with n of at least 1, got {tuple(tensor.shape)}.")
    return tensor.to(_device_of(model), next(model.parameters()).dtype)


def _as_labels(labels: Any, count: int) -> torch.Tensor:
    tensor = torch.as_tensor(labels).cpu()
    if tensor.is_floating_point() or tensor.is_complex() or tensor.dtype == torch.bool:
        raise InputError(f"labels must be whole numbers, got {tensor.dtype}.")
    if tensor.shape != (count,):
        raise InputError(f"labels must be one for each of {count} images, got shape {tuple(tensor.shape)}.")
    return tensor.long()


def _as_data(model: nn.Module, images: Any, labels: Any) -> tuple[torch.Tensor, torch.Tensor]:
    """Images and labels on the model's device, once one image shows that they fit the model."""
    pictures = _as_images(model, images)
    wanted = _as_labels(labels, len(pictures))
    model.eval()
    with torch.inference_mode():
        shape = tuple(model(pictures[:1]).shape)
    if len(shape) != 2:
        raise InputError(f"The model must give logits of shape (B, classes), got {shape} for one image.")
    if not 0 <= wanted.min() <= wanted.max() < shape[1]:
        raise InputError(
            f"labels must lie from 0 to {shape[1] - 1}, as the model has {shape[1]} classes; "
            f"got {int(wanted.min())} to {int(wanted.max())}."
        )
    return pictures, wanted.to(pictures.device)


def _rates(rate: float, steps: int, schedule: str) -> Iterator[float]:
    """Yield the learning rate of each step."""
    for step in range(steps):
        yield rate * (1 + math.cos(math.pi * step / steps)) / 2 if schedule == "cosine" else rate


def _epoch(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    batches: Iterator[tuple[torch.Tensor, torch.Tensor]],
    rates: Iterator[float],
    follower: Stepper | None,
) -> float:
    """Take one step for each batch of images and labels; return the mean loss over the images."""
    place, count = _device_of(model), 0
    total = torch.zeros((), dtype=torch.float64 if place.type != "mps" else torch.float32, device=place)
    for images, labels in batches:
        rate = next(rates)
        for group in optimizer.param_groups:
            group["lr"] = rate
        loss = functional.cross_entropy(model(images), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if follower is not None:
            follower.step()
        total += loss.detach() * len(labels)
        count += len(labels)
    return float(total) / count


@contextmanager
def _guarded(model: nn.Module, threads: int | None, memory_format: torch.memory_format | None) -> Iterator[None]:
    """Let a model compute repeatably, with that many threads and in that format; then it is as it was."""
    with _restored(model), _formatted(model, memory_format), torch_threads(threads), _repeatable():
        yield


@contextmanager
def _restored(model: nn.Module) -> Iterator[None]:
    """Bring a model back to its device, and each of its modules to its mode, after the block."""
    home, mode = _device_of(model), [(module, module.training) for module in model.modules()]
    try:
        yield
    finally:
        model.to(home)
        for module, training in mode:
            module.training = training


@contextmanager
def _formatted(model: nn.Module, memory_format: torch.memory_format | None) -> Iterator[None]:
    """Keep 4-D weights in a memory format within the block, and contiguous after it; None does nothing."""
    if memory_format not in FORMATS:
        raise InputError(f"memory_format must be one of {', '.join(map(str, FORMATS))}, got {memory_format!r}.")
    if memory_format is None:
        yield
        return
    _lay_out(model, memory_format)
    try:
        yield
    finally:
        _lay_out(model, torch.contiguous_format)


def _lay_out(model: nn.Module, memory_format: torch.memory_format) -> None:
    """Bring the 4-D weights of a model into a memory format; they stay the same parameters."""
    for weight in model.parameters():
        weight.data = _in_format(weight.data, memory_format)


def _in_format(tensor: torch.Tensor, memory_format: torch.memory_format | None) -> torch.Tensor:
    """Return a tensor in a memory format: itself where that is None, or where it has not four dimensions."""
    if memory_format is None or tensor.ndim != 4:
        return tensor
    return tensor.contiguous(memory_format=memory_format)


@contextmanager
def _private_random(device: torch.device, seed: int) -> Iterator[None]:
    """Seed what dropout draws from within the block, and put the generators back afterwards."""
    shifted = (int(seed) + 1) % 2**32  # not the numbers of the shuffles
    accelerators = [device] if device.type == "cuda" else []
    with torch.random.fork_rng(accelerators):
        torch.default_generator.manual_seed(shifted)
        for each in accelerators:
            with torch.cuda.device(each):
                torch.cuda.manual_seed(shifted)
        yield


@contextmanager
def _repeatable() -> Iterator[None]:
    """Let cuDNN choose only algorithms that give the same result each time, in full float32."""
    with torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True, allow_tf32=False):
        yield
