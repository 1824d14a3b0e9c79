"""Which channel of A does what a channel of B does: activation matching and weight matching.

Both give σ, where σ(i) is A's channel for B's channel i, as `permuted` takes it: permuted A is near to B.

- M. Adnan et al.: Sparse training from random initialization. ICML 2025, arXiv 2505.05143: activation matching, the
  sum of correlations after the ReLU is maximal. Ours: one pass over the images for all layers. To permute A in place
  before the next layer is matched, as there, changes no response of that layer, so the outcome is the same.
- S. Ainsworth, J. Hayase, S. Srinivasa: Git Re-Basin. ICLR 2023, arXiv 2209.04836: weight matching, algorithm 1. Ours:
  running means and variances of batch normalisation are not among the weights.
"""

from collections.abc import Iterable, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from scipy.optimize import linear_sum_assignment
from torch import nn

from papertwin.errors import InputError
from papertwin.symmetry.axes import Axis, Description, Permutable
from papertwin.symmetry.permuting import Permutations, check_permutations, gathered, identities
from papertwin.symmetry.statistics import Correlation

LEAST = 1e-12  # a gain that counts, of weight matching, as a share of the agreement where that is above 1
BUFFERS = ("running_mean", "running_var")


def assignment(scores: torch.Tensor) -> torch.Tensor:
    """Solve the linear assignment problem: the permutation σ with the largest Σ scores[i, σ(i)].

    Args:
        scores: (c, c), rows for B, columns for A.

    Returns:
        σ, (c,) int64, on the CPU.
    """
    return torch.from_numpy(linear_sum_assignment(scores.cpu().numpy(), maximize=True)[1]).long()


def activation_matching(
    model_a: nn.Module, model_b: nn.Module, description: Description, batches: Iterable[torch.Tensor]
) -> Permutations:
    """Match channels by the correlation of their responses, in evaluation mode; dead channels match anything.

    Args:
        model_a: stays as it is.
        model_b: of the same architecture.
        description: of it, see `permutables`.
        batches: images (B, …), read once.

    Returns:
        σ of each `Permutable`, by name.

    Raises:
        InputError: no images, responses that are not finite, or a description of another network.
    """
    found = {each.name: Correlation() for each in description}
    with _recorded(model_a, description) as of_a, _recorded(model_b, description) as of_b, torch.no_grad():
        for images in batches:
            model_a(images)
            model_b(images)
            for each in description:
                _check_channels(each, of_a[each.name], of_b[each.name])
                found[each.name].update(of_b[each.name], of_a[each.name])
    return {name: assignment(correlation.value()) for name, correlation in found.items()}


@contextmanager
def _recorded(model: nn.Module, description: Description):
    """Put a model into evaluation mode and keep each batch's responses, by the name of their `Permutable`."""
    kept: dict[str, torch.Tensor] = {}

    def hook(each: Permutable):
        def keep(_module, _inputs, output):
            # a copy, as what follows may work in place
            kept[each.name] = output.relu() if each.relu else output.clone()

        return keep

    modules = dict(model.named_modules())
    if missing := [each.activation for each in description if each.activation not in modules]:
        raise InputError(f"The description is of another network: the model has no modules {', '.join(missing)}.")
    modes = {name: module.training for name, module in modules.items()}
    hooks = [modules[each.activation].register_forward_hook(hook(each)) for each in description]
    model.eval()
    try:
        yield kept
    finally:
        for each in hooks:
            each.remove()
        for name, module in modules.items():
            module.training = modes[name]


@dataclass(frozen=True)
class WeightMatch:
    """What weight matching found.

    Attributes:
        permutations: σ by name.
        agreements: ⟨W_B, π(W_A)⟩ at first and after each permutation that was improved; it never falls.
    """

    permutations: Permutations
    agreements: tuple[float, ...]


def weight_matching(
    state_a: Mapping[str, torch.Tensor],
    state_b: Mapping[str, torch.Tensor],
    description: Description,
    generator: torch.Generator,
) -> WeightMatch:
    """Match channels by their weights: each permutation in turn is the best for what the others are (algorithm 1).

    The score of B's channel i and A's channel j is the sum, over the axes that share the permutation, of
    W_B (W_A, permuted in its other axes)ᵀ. Rounds in random order go on until none gains more than
    10⁻¹², or that share of a score above 1, which ties could seem to gain by rounding for ever.

    Args:
        state_a: a state_dict; masked weights are 0 in it.
        state_b: of the same architecture.
        description: of it, see `permutables`.
        generator: of the order.

    Returns:
        A local optimum, and how the objective rose.

    Raises:
        InputError: tensors differ in shape, are not finite or are missing.
    """
    weights_a, weights_b = _both(state_a, state_b, description)
    found, others = identities(description), _sharing(description)
    agreements = [agreement(state_a, state_b, description, found)]
    improved = True
    while improved:
        improved = False
        for place in torch.randperm(len(description), generator=generator).tolist():
            each = description[place]
            scores = _scores(each, weights_a, weights_b, others, found)
            best, rows = assignment(scores), torch.arange(each.size)
            before = float(scores[rows, found[each.name]].sum())
            gain = float(scores[rows, best].sum()) - before
            if gain > LEAST * max(1.0, abs(before)):
                found[each.name], improved = best, True
                agreements.append(agreements[-1] + gain)
    return WeightMatch(found, tuple(agreements))


def agreement(
    state_a: Mapping[str, torch.Tensor],
    state_b: Mapping[str, torch.Tensor],
    description: Description,
    permutations: Mapping[str, torch.Tensor],
) -> float:
    """Objective of weight matching: Σ ⟨W_B, π(W_A)⟩ over all tensors in which channels lie, each once.

    Raises:
        InputError: as in `weight_matching`, or no such permutations.
    """
    check_permutations(description, permutations)
    weights_a, weights_b = _both(state_a, state_b, description)
    others = _sharing(description)
    return sum(
        float((weights_b[name] * _elsewhere(name, weights_a[name], None, others, permutations)).sum())
        for name in weights_a
    )


def _scores(
    each: Permutable,
    weights_a: dict[str, torch.Tensor],
    weights_b: dict[str, torch.Tensor],
    others: dict[str, list[tuple[str, Axis]]],
    found: Permutations,
) -> torch.Tensor:
    """Sum W_B (W_A permuted elsewhere)ᵀ over the axes of one permutation: (size, size)."""
    total = torch.zeros(each.size, each.size, dtype=torch.float64)
    for axis in each.axes:
        if axis.tensor in weights_a:
            moved = _elsewhere(axis.tensor, weights_a[axis.tensor], each.name, others, found)
            rows_b, rows_a = (
                tensor.movedim(axis.dim, 0).reshape(each.size, -1) for tensor in (weights_b[axis.tensor], moved)
            )
            total += rows_b @ rows_a.T
    return total


def _elsewhere(
    name: str,
    tensor: torch.Tensor,
    but: str | None,
    others: dict[str, list[tuple[str, Axis]]],
    permutations: Mapping[str, torch.Tensor],
) -> torch.Tensor:
    """Permute a tensor along all its axes but those of one permutation."""
    for owner, axis in others[name]:
        if owner != but and owner in permutations:
            tensor = gathered(tensor, axis, permutations[owner])
    return tensor


def _sharing(description: Description) -> dict[str, list[tuple[str, Axis]]]:
    """Tensor → (name of a `Permutable`, axis) of each that lies in it."""
    found: dict[str, list[tuple[str, Axis]]] = {}
    for each in description:
        for axis in each.axes:
            found.setdefault(axis.tensor, []).append((each.name, axis))
    return found


def _weights(state: Mapping[str, torch.Tensor], description: Description, whose: str) -> dict[str, torch.Tensor]:
    """Pick the learned tensors in which channels lie, as doubles on the CPU."""
    names = [name for name in _sharing(description) if not name.endswith(BUFFERS)]
    if missing := [name for name in names if name not in state]:
        raise InputError(f"The state of {whose} lacks {', '.join(missing)}. Is the description of another network?")
    found = {name: state[name].detach().cpu().double() for name in names}
    if wild := [name for name, tensor in found.items() if not tensor.isfinite().all()]:
        raise InputError(f"Weights of {whose} must be finite numbers; {', '.join(wild)} holds infinity or NaN.")
    return found


def _both(
    state_a: Mapping[str, torch.Tensor], state_b: Mapping[str, torch.Tensor], description: Description
) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]:
    """Pick the learned tensors of A and of B, and check that they are alike."""
    weights_a, weights_b = _weights(state_a, description, "A"), _weights(state_b, description, "B")
    for name, tensor in weights_a.items():
        if tensor.shape != weights_b[name].shape:
            raise InputError(f"{name} must be alike, got {tuple(tensor.shape)} and {tuple(weights_b[name].shape)}.")
    return weights_a, weights_b


def _check_channels(each: Permutable, of_a: torch.Tensor, of_b: torch.Tensor) -> None:
    if not of_a.shape[1] == of_b.shape[1] == each.size:
        raise InputError(
            f"{each.activation} must show {each.size} channels in both networks, got {of_a.shape[1]} in A and "
            f"{of_b.shape[1]} in B."
        )
