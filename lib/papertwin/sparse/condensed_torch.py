"""Condensed layers by plain torch, right for every type and device: gather, multiply, add, in chunks of neurons.

Source: Lasby et al. 2024 (SRigL, arXiv 2305.02299), y[b, n] = Σ_j w[n, j] x[b, idx[n, j]].
"""

from collections.abc import Iterator

import torch

CHUNK = 2**22  # values that are gathered at once, at most, as long as one neuron needs no more


def outputs(x: torch.Tensor, weight: torch.Tensor, index: torch.Tensor) -> torch.Tensor:
    """Σ_j w[n, j] x[b, idx[n, j]].

    Args:
        x: (B, in).
        weight, index: (active, k).

    Returns:
        (B, active).
    """
    y = x.new_empty(len(x), len(weight))
    for part in _chunks(len(x), index):
        torch.sum(x[:, index[part]] * weight[part], -1, out=y[:, part])
    return y


def traceable_outputs(x: torch.Tensor, weight: torch.Tensor, index: torch.Tensor) -> torch.Tensor:
    """The same as `outputs` without writing in place; a trace holds for every size of the batch."""
    chunks = [slice(None)] if torch.jit.is_tracing() else _chunks(x.shape[0], index)
    products = [(x[:, index[part].long()] * weight[part]).sum(-1) for part in chunks]
    return torch.cat(products, 1) if products else x.new_zeros(x.shape[0], 0)


def input_gradient(given: torch.Tensor, weight: torch.Tensor, index: torch.Tensor, inputs: int) -> torch.Tensor:
    """Σ over the (n, j) with idx[n, j] = i of w[n, j] given[b, n]: given (B, active) → (B, in)."""
    gradient = given.new_zeros(len(given), inputs)
    for part in _chunks(len(given), index):
        terms = given[:, part, None] * weight[part]
        gradient.index_add_(1, index[part].flatten(), terms.flatten(1))
    return gradient


def weight_gradient(given: torch.Tensor, x: torch.Tensor, index: torch.Tensor) -> torch.Tensor:
    """Σ_b given[b, n] x[b, idx[n, j]]: (active, k)."""
    gradient = x.new_empty(index.shape)
    for part in _chunks(len(x), index):
        gradient[part] = torch.einsum("bn,bnk->nk", given[:, part], x[:, index[part]])
    return gradient


def _chunks(batch: int, index: torch.Tensor) -> Iterator[slice]:
    """Neurons that are computed together."""
    neurons, fan_in = index.shape
    size = max(1, CHUNK // max(1, batch * fan_in))
    for first in range(0, neurons, size):
        yield slice(first, first + size)
