"""Renumber the hidden channels of a network, and of its masks.

One convention throughout: a permutation σ is an int64 tensor, and (PW)[i] = W[σ(i)] along every axis, so σ(i) is the
old number of new channel i. With W' = P_out W P_inᵀ a network computes what it did.

Source: M. Adnan et al.: Sparse training from random initialization. ICML 2025, arXiv 2505.05143. Ours: tensors are
gathered in both axes, and never multiplied with permutation matrices.
"""

from collections.abc import Mapping
from copy import deepcopy

import torch
from torch import nn

from papertwin.errors import InputError
from papertwin.symmetry.axes import Axis, Description

Permutations = dict[str, torch.Tensor]  # name of a `Permutable` → σ, (size,) int64


def permuted(
    state: Mapping[str, torch.Tensor], description: Description, permutations: Mapping[str, torch.Tensor]
) -> dict[str, torch.Tensor]:
    """Renumber channels: (PW)[i] = W[σ(i)] in every axis that they share.

    Args:
        state: tensors of a state_dict by name; or masks of weights, by the name of the layer or of its weights. Some
            may be missing.
        description: of the network, see `permutables`.
        permutations: σ of each `Permutable`, by name; those that are not named stay as they are.

    Returns:
        New tensors under the same names, in the same order; those that no axis names are copies.

    Raises:
        InputError: a permutation is none or of an unknown name, a tensor of two or more dimensions is unknown, or an
            axis is no multiple of the channels.
    """
    check_permutations(description, permutations)
    keys = {name.removesuffix(".weight") if name not in state else name: name for name in _tensors(description)}
    unknown = [key for key, tensor in state.items() if tensor.dim() > 1 and key not in keys]
    if unknown:
        names = ", ".join(each.name for each in description)
        raise InputError(
            f"state has {', '.join(unknown)}, which hold none of the described channels, those of {names}."
        )
    found = {tensor: key for key, tensor in keys.items() if key in state}
    new = {key: tensor.detach().clone() for key, tensor in state.items()}
    for each in description:
        if each.name in permutations:
            for axis in each.axes:
                if key := found.get(axis.tensor):
                    new[key] = gathered(new[key], axis, permutations[each.name])
    return new


def gathered(tensor: torch.Tensor, axis: Axis, permutation: torch.Tensor) -> torch.Tensor:
    """Renumber the channels along one axis.

    Args:
        tensor: as long along `axis.dim` as there are channels, or a multiple: then whole blocks move.
        axis: where channels lie.
        permutation: σ, (channels,) int64.

    Raises:
        InputError: the axis is missing, or no multiple of the channels.
    """
    size = len(permutation)
    if axis.dim >= tensor.dim() or not tensor.shape[axis.dim] or tensor.shape[axis.dim] % size:
        raise InputError(
            f"{axis.tensor} must have a multiple of {size} channels along axis {axis.dim}, got {tuple(tensor.shape)}."
        )
    block = tensor.shape[axis.dim] // size
    index = permutation.to(tensor.device)[:, None] * block + torch.arange(block, device=tensor.device)
    return tensor.index_select(axis.dim, index.flatten())


def inverse(permutations: Mapping[str, torch.Tensor]) -> Permutations:
    """Undo permutations: σ⁻¹ of each, so that permuting by both gives what there was."""
    return {name: torch.argsort(sigma) for name, sigma in permutations.items()}


def compose(first: Mapping[str, torch.Tensor], then: Mapping[str, torch.Tensor]) -> Permutations:
    """Make one permutation of two, the first applied first: i → σ₁(σ₂(i)).

    Args:
        first: by name.
        then: by name; a name that only one of them has keeps that one's.

    Raises:
        InputError: two of the same name differ in size.
    """
    both = {**first, **then}
    for name in set(first) & set(then):
        if len(first[name]) != len(then[name]):
            raise InputError(
                f"Permutations of {name} must be as long, got {len(first[name])} and {len(then[name])} channels."
            )
        both[name] = first[name][then[name].to(first[name].device)]
    return both


def random_permutations(description: Description, generator: torch.Generator) -> Permutations:
    """Draw a permutation of each, all as likely."""
    return {each.name: torch.randperm(each.size, generator=generator) for each in description}


def identities(description: Description) -> Permutations:
    """Permutations that change nothing."""
    return {each.name: torch.arange(each.size) for each in description}


def check_same_function(
    model: nn.Module,
    description: Description,
    permutations: Mapping[str, torch.Tensor],
    images: torch.Tensor,
    tolerance: float = 1e-5,
) -> float:
    """Check that the permuted network computes what the network does, in evaluation mode and double precision.

    Args:
        model: stays as it is.
        description: of it.
        permutations: see `permuted`.
        images: (B, …), what it takes.
        tolerance: of a logit.

    Returns:
        The largest difference of a logit.

    Raises:
        InputError: it is above the tolerance: the description does not fit the network.
    """
    old = deepcopy(model).double().eval()
    new = with_state(old, permuted(old.state_dict(), description, permutations))
    with torch.no_grad():
        difference = float((old(images.double()) - new(images.double())).abs().max())
    if not difference <= tolerance:
        raise InputError(
            f"The permuted network computes something else: logits differ by {difference:.3g}, expected at most "
            f"{tolerance:g}. Describe the network anew with `permutables`."
        )
    return difference


def with_state(model: nn.Module, state: Mapping[str, torch.Tensor]) -> nn.Module:
    """Copy a model, in evaluation mode, with other tensors.

    Args:
        model: of the architecture; stays as it is.
        state: state_dict of a network of it.

    Raises:
        InputError: it is of another architecture.
    """
    copy = deepcopy(model).eval()
    try:
        copy.load_state_dict(state)
    except (RuntimeError, TypeError) as error:
        raise InputError(f"state must be that of a network of the architecture of model: {error}") from error
    return copy


def check_permutations(description: Description, permutations: Mapping[str, torch.Tensor]) -> None:
    """Refuse what is no permutation of the channels.

    Raises:
        InputError: an unknown name, or a tensor that does not hold each number from 0 to size − 1 once.
    """
    sizes = {each.name: each.size for each in description}
    if unknown := sorted(set(permutations) - set(sizes)):
        raise InputError(f"permutations name {', '.join(unknown)}; the network has {', '.join(sizes)}.")
    for name, sigma in permutations.items():
        whole = sigma.dim() == 1 and sigma.dtype == torch.int64
        if not whole or not torch.equal(sigma.sort().values.cpu(), torch.arange(sizes[name])):
            raise InputError(
                f"The permutation of {name} must be int64 and hold each number from 0 to {sizes[name] - 1} once, got "
                f"{sigma.dtype} of shape {tuple(sigma.shape)}."
            )


def _tensors(description: Description) -> list[str]:
    """Names of all tensors in which channels lie."""
    return list(dict.fromkeys(axis.tensor for each in description for axis in each.axes))
