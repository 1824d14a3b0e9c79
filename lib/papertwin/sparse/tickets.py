"""Lottery tickets: masks found by pruning a trained network in rounds, and sparse networks trained with given masks.

- J. Frankle, M. Carbin: The lottery ticket hypothesis. ICLR 2019, arXiv 1803.03635; with G. K. Dziugaite and D. Roy:
  Linear mode connectivity. ICML 2020, arXiv 1912.05671: weights are rewound to those of an early epoch, then masked.
- M. Adnan et al.: Sparse training from random initialization. ICML 2025, arXiv 2505.05143: the mask is found by pruning
  and fine-tuning in turn, without rewinding in between; sparse training masks forward and backward.

Masked weights are 0 in the model itself, so it computes as ever and keeps no trace of the masks after its training.
Ours: each round of pruning sees the images in the same order.

    >>> import torch
    >>> model = torch.nn.Sequential(torch.nn.Linear(8, 16), torch.nn.ReLU(), torch.nn.Linear(16, 4))
    >>> data = torch.randn(64, 8), torch.arange(64) % 4
    >>> states = train_with_snapshots(model, *data, keep=(0, 1), epochs=2, rate=0.1, seed=0)
    >>> last = iterative_pruning(model, *data, [0.2, 0.36, 0.5], epochs=1, rate=0.01, seed=0)[-1]
    >>> ticket = train_from(model, states[1], last.masks, *data, epochs=1, rate=0.1, seed=0)
    >>> last.sparsity, int((ticket[0].weight != 0).sum()) == int(last.masks["0"].sum())
    (0.5, True)
"""

from collections.abc import Iterable, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from typing import Any

import torch
from torch import nn

from papertwin.checks import is_whole
from papertwin.errors import InputError
from papertwin.sparse.densities import check_sparsity
from papertwin.sparse.masks import bits_of, let_through, remembered, sparse_layers
from papertwin.sparse.pruning import Masks, prunable_layers, prune_to
from papertwin.training.loop import fit

State = dict[str, torch.Tensor]  # a state_dict


class Frozen:
    """Keep given masks through a training: what follows the optimiser in `papertwin.training.loop.fit`.

        fit(model, images, labels, follow=partial(Frozen, masks=masks), …)

    Weights that remain are trained as if masks were multiplied with the weights in the forward pass. What the optimiser
    remembers of each weight (tensors of the weights' shape, as of SGD and Adam) is masked as well.
    """

    def __init__(
        self,
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        steps: int = 0,
        *,
        masks: Mapping[str, torch.Tensor],
    ):
        """Mask the weights.

        Args:
            model: in training, on whatever device.
            optimizer: of its parameters.
            steps: of the training; nothing depends on it.
            masks: layer → bool tensor of the shape of its weights, on whatever device; other layers stay dense.

        Raises:
            InputError: a mask is of no layer, no bool tensor or of another shape; the model is as it was.
        """
        self._weights = check_masks(model, masks)
        self._optimizer = optimizer
        like = {name: torch.empty_like(weight, dtype=torch.bool) for name, weight in self._weights.items()}
        self.masks: Masks = {name: each.copy_(masks[name]) for name, each in like.items()}
        self._bits = {name: bits_of(mask, self._weights[name].dtype) for name, mask in self.masks.items()}
        self.step()

    @torch.no_grad()
    def step(self) -> None:
        """Set masked weights, and what the optimiser remembers of them, to 0, whatever they were. After each step."""
        for name, weight in self._weights.items():
            for values in (weight, *remembered(self._optimizer, weight)):
                values.copy_(let_through(values.detach(), self._bits[name]))


class Snapshots:
    """States of a model after chosen epochs: what reports the progress of `papertwin.training.loop.fit`.

    Attributes:
        states: epoch → state_dict, copied to the CPU, buffers of batch normalisation among it.
    """

    def __init__(self, model: nn.Module, keep: Iterable[int]):
        """Keep the state before the training, if 0 is among the epochs.

        Args:
            model: that is about to be trained.
            keep: epochs after which its state is kept; 0 is before the training.

        Raises:
            InputError: an epoch is no whole number of at least 0.
        """
        keep = tuple(keep)
        if wrong := [epoch for epoch in keep if not is_whole(epoch, 0)]:
            raise InputError(f"keep must be whole numbers of at least 0, got {', '.join(map(repr, wrong))}.")
        self._model, self._keep = model, frozenset(keep)
        self.states: dict[int, State] = {}
        self(0, 0.0)

    def __call__(self, epoch: int, loss: float) -> None:
        """Keep the state after an epoch, if it is one of those."""
        if epoch in self._keep:
            self.states[epoch] = state_of(self._model)


@dataclass(frozen=True)
class Pruned:
    """A network after a round of pruning and fine-tuning.

    Attributes:
        sparsity: share of the weights of its layers that is pruned, just so.
        masks: layer → bool, on the CPU; True where a weight remains.
        state: state_dict after the fine-tuning, on the CPU; masked weights are 0.
    """

    sparsity: float
    masks: Masks
    state: State


def train_with_snapshots(
    model: nn.Module, images: Any, labels: Any, *, keep: Iterable[int], epochs: int, **settings: Any
) -> dict[int, State]:
    """Train a network in place, and keep its state after chosen epochs.

    Args:
        model: images → (B, classes) logits.
        images: (n, …) floats.
        labels: (n,) whole numbers.
        keep: epochs from 0, before the training, to `epochs`.
        epochs: of the training.
        settings: others of `papertwin.training.loop.fit`: rate, seed, …

    Returns:
        Epoch → state_dict, on the CPU.

    Raises:
        InputError: no such epoch, or settings that `fit` refuses.
        DivergenceError: the loss is no longer finite.
    """
    if not is_whole(epochs, 1):
        raise InputError(f"epochs must be a whole number above 0, got {epochs!r}.")
    keep = tuple(keep)
    kept, report = Snapshots(model, keep), settings.pop("progress", None)
    if beyond := [epoch for epoch in keep if epoch > epochs]:
        raise InputError(f"keep must be epochs from 0 to {epochs}, got {', '.join(map(str, beyond))}.")

    def progress(epoch: int, loss: float) -> None:
        kept(epoch, loss)
        if report is not None:
            report(epoch, loss)

    fit(model, images, labels, epochs=epochs, progress=progress, **settings)
    return kept.states


def iterative_pruning(
    model: nn.Module, images: Any, labels: Any, rounds: Sequence[float], **settings: Any
) -> list[Pruned]:
    """Prune a trained network in rounds: the smallest weights of all layers go, then those that remain are fine-tuned.

    Nothing is rewound: a round goes on from the weights of the one before.

    Args:
        model: trained; it stays as it is.
        images: (n, …) floats.
        labels: (n,) whole numbers.
        rounds: sparsity of `prunable_layers` after each, ascending, see `rounds_to`. Several targets share a path:
            `sorted({*rounds_to(0.9), *rounds_to(0.97)})`.
        settings: of `papertwin.training.loop.fit`, for each round: epochs, rate, seed, …

    Returns:
        The network after each round.

    Raises:
        InputError: no rounds, or they do not ascend in [0, 1); a weight is NaN; or settings that `fit` refuses.
        DivergenceError: the loss is no longer finite.
    """
    for sparsity in rounds:
        check_sparsity(sparsity)
    if not len(rounds) or any(one >= other for one, other in pairwise(rounds)):
        raise InputError(f"rounds must be ascending sparsities, one at least, got {list(rounds)}. See `rounds_to`.")
    model = deepcopy(model)
    layers = prunable_layers(model)
    masks = {name: torch.ones(layer.weight.shape, dtype=torch.bool) for name, layer in layers.items()}
    found = []
    for sparsity in rounds:
        masks = prune_to({name: layer.weight.detach().cpu() for name, layer in layers.items()}, masks, sparsity)
        fit(model, images, labels, follow=partial(Frozen, masks=masks), **settings)
        found.append(Pruned(sparsity_of(masks), masks, state_of(model)))
    return found


def train_from(
    model: nn.Module,
    state: Mapping[str, torch.Tensor],
    masks: Mapping[str, torch.Tensor],
    images: Any,
    labels: Any,
    **settings: Any,
) -> nn.Module:
    """Train a sparse network: rewind its weights, then mask them, and keep the masks.

    Args:
        model: of the architecture; it stays as it is.
        state: state_dict to begin with, of an early epoch or of another network; whatever is masked in it is set to 0.
        masks: layer → bool tensor of the shape of its weights; other layers stay dense.
        images: (n, …) floats.
        labels: (n,) whole numbers.
        settings: of `papertwin.training.loop.fit`: epochs, rate, seed, …

    Returns:
        The trained network in evaluation mode, on the device of `model`.

    Raises:
        InputError: state or masks do not fit the model, or settings that `fit` refuses.
        DivergenceError: the loss is no longer finite.
    """
    ticket = deepcopy(model).eval()
    try:
        ticket.load_state_dict(state)
    except (RuntimeError, TypeError) as error:
        raise InputError(f"state must be that of a network of the architecture of model: {error}") from error
    fit(ticket, images, labels, follow=partial(Frozen, masks=masks), **settings)
    return ticket


def state_of(model: nn.Module) -> State:
    """Copy the state_dict of a model to the CPU, contiguous."""
    layout = torch.contiguous_format
    return {name: value.detach().cpu().clone(memory_format=layout) for name, value in model.state_dict().items()}


def sparsity_of(masks: Mapping[str, torch.Tensor]) -> float:
    """Share of the weights that is masked, in [0, 1].

    Raises:
        InputError: there are no masks, one is no bool tensor, or none has any element.
    """
    if not masks:
        raise InputError("There must be a mask of one layer at least, got none.")
    for name, mask in masks.items():
        _check_bool(name, mask)
    total = sum(mask.numel() for mask in masks.values())
    if not total:
        raise InputError(f"Masks must have one element at least, got none in those of {', '.join(masks)}.")
    return sum(int((~mask).sum()) for mask in masks.values()) / total


def check_masks(model: nn.Module, masks: Mapping[str, torch.Tensor]) -> dict[str, nn.Parameter]:
    """Find the weights that masks are of: layer → parameter.

    Raises:
        InputError: a mask is of no linear layer or convolution of the model, no bool tensor, or of another shape.
    """
    layers = sparse_layers(model)
    if unknown := sorted(set(masks) - set(layers)):
        raise InputError(f"masks name {', '.join(unknown)}; the model has the layers {', '.join(layers)}.")
    for name, mask in masks.items():
        _check_bool(name, mask)
        shape = tuple(layers[name].weight.shape)
        if tuple(mask.shape) != shape:
            raise InputError(f"The mask of {name} must be of its weights' shape {shape}, got {tuple(mask.shape)}.")
    return {name: layers[name].weight for name in masks}


def _check_bool(name: str, mask: Any) -> None:
    """Refuse a mask that is no bool tensor."""
    is_tensor = isinstance(mask, torch.Tensor)
    if not is_tensor or mask.dtype != torch.bool:
        got = f"one of {mask.dtype}" if is_tensor else f"{type(mask).__module__}.{type(mask).__qualname__}"
        raise InputError(
            f"The mask of {name} must be a bool tensor, got {got}. Where it is True, a weight remains: make it one by "
            "torch.as_tensor(mask, dtype=torch.bool), if that is so."
        )
