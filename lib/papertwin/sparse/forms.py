"""Forms of a sparse linear layer whose times are compared, and that all of them give the outputs they should.

The comparison is that of Lasby et al. 2024 (SRigL, arXiv 2305.02299), figure 4, float32 on a CPU:

- condensed: `papertwin.sparse.CondensedLinear`, a constant fan-in;
- condensed, ablated: the same, as many weights in fewer neurons, and so a larger fan-in;
- structured only: a dense layer of the neurons that are left there, by torch; weights that are left out there are 0,
  which takes a dense product as long as any other value;
- CSR, torch and CSR, SciPy: the weights of the first form as a matrix in compressed rows;
- dense: a dense layer with these weights, the others 0, by torch.

What takes the time is left to the callers: a form is a call without arguments.
"""

import warnings
from collections.abc import Callable
from dataclasses import dataclass

import torch
from scipy import sparse
from torch import nn

from papertwin.errors import InputError, RunError
from papertwin.sparse.condensed import CondensedLinear
from papertwin.sparse.densities import check_sparsity, whole_part
from papertwin.sparse.masks import constant_fan_in_mask

Call = Callable[[], torch.Tensor]

CONDENSED, ABLATED, STRUCTURED = "condensed", "condensed, ablated", "structured only"
CSR = ("CSR, torch", "CSR, SciPy")
DENSE = "dense"
FORMS = (CONDENSED, ABLATED, STRUCTURED, *CSR, DENSE)
SAME = 1e-4  # largest difference of two forms, as a share of the largest output


@dataclass(frozen=True)
class Layers:
    """The two layers that all forms are made of.

    Attributes:
        condensed: every neuron is active.
        ablated: as many weights, up to rounding down, in some of the neurons.
    """

    condensed: CondensedLinear
    ablated: CondensedLinear


def fan_ins(shape: tuple[int, int], sparsity: float, ablated: float) -> dict[str, tuple[int, int]]:
    """Active neurons and fan-in of the two condensed forms.

    Args:
        shape: neurons and inputs.
        sparsity: share of the weights that are left out, in [0, 1).
        ablated: share of the neurons that the second form leaves out, in [0, 1).

    Raises:
        InputError: a share is none.

    >>> fan_ins((768, 3072), 0.99, 0.3)
    {'condensed': (768, 30), 'condensed, ablated': (537, 42)}
    """
    check_sparsity(sparsity)
    if not 0 <= ablated < 1:
        raise InputError(f"ablated must be a number of at least 0 and below 1, got {ablated!r}.")
    neurons, inputs = shape
    fan_in, left = max(1, whole_part(inputs * (1 - sparsity))), max(1, whole_part((1 - ablated) * neurons))
    return {CONDENSED: (neurons, fan_in), ABLATED: (left, min(inputs, neurons * fan_in // left))}


def layers(shape: tuple[int, int], sparsity: float, ablated: float, seed: int) -> Layers:
    """Draw both layers: masks, which neurons are ablated, weights and biases.

    Args:
        shape, sparsity, ablated: as of `fan_ins`.
        seed: of all that is drawn; torch's own generator is left as it is.

    Raises:
        InputError: as `fan_ins`.
    """
    generator = torch.Generator().manual_seed(seed)
    drawn = (_drawn(shape, *numbers, generator) for numbers in fan_ins(shape, sparsity, ablated).values())
    return Layers(*drawn)


def _drawn(shape: tuple[int, int], active: int, fan_in: int, generator: torch.Generator) -> CondensedLinear:
    """A condensed layer with so many active neurons, drawn."""
    mask = constant_fan_in_mask(shape, fan_in, generator)
    mask[torch.randperm(shape[0], generator=generator)[active:]] = False
    weight, bias = (torch.randn(size, generator=generator) for size in (shape, shape[:1]))
    return CondensedLinear.from_linear(_linear(weight, bias), mask).eval()


def _linear(weight: torch.Tensor, bias: torch.Tensor) -> nn.Linear:
    """A dense layer of these values, without gradients; nothing is drawn."""
    layer = nn.Linear(*weight.shape[::-1], device="meta")
    layer.weight, layer.bias = (nn.Parameter(values, requires_grad=False) for values in (weight, bias))
    return layer


@torch.no_grad()
def ways(layers: Layers, x: torch.Tensor) -> dict[str, Call]:
    """Every form as a call that computes the outputs, in the order of `FORMS`; all have been called and compared.

    Args:
        layers: as `layers` draws them.
        x: (B, in) float32 on a CPU.

    Returns:
        Form → call that returns (B, out); that of `structured only` has just the neurons that are left, (B, active).

    Raises:
        RunError: a form gives other outputs than the masked dense layer.
    """
    condensed, ablated = layers.condensed, layers.ablated
    dense, masked = condensed.to_dense(), ablated.to_dense()
    structured = _linear(masked.weight[ablated.rows], masked.bias[ablated.rows])
    calls = {CONDENSED: lambda: condensed(x), ABLATED: lambda: ablated(x), STRUCTURED: lambda: structured(x)}
    calls |= dict(zip(CSR, _compressed(dense, x)))
    calls[DENSE] = lambda: dense(x)
    whole, least = dense(x), masked(x)
    wanted = dict.fromkeys(FORMS, whole) | {ABLATED: least, STRUCTURED: least[:, ablated.rows]}
    for name, call in calls.items():
        _check(name, call(), wanted[name])
    return calls


def _compressed(dense: nn.Linear, x: torch.Tensor) -> tuple[Call, Call]:
    """Products with the matrix in compressed rows, by torch and by SciPy; one input is a vector for both."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Sparse CSR tensor support is in beta")
        rows = dense.weight.detach().to_sparse_csr()
    matrix, bias = sparse.csr_matrix(dense.weight.detach().numpy()), dense.bias.detach()
    if len(x) == 1:
        return (
            lambda: torch.addmv(bias, rows, x[0])[None],
            lambda: torch.from_numpy(matrix @ x[0].numpy())[None] + bias,
        )
    return (
        lambda: torch.addmm(bias[:, None], rows, x.t()).t(),
        lambda: torch.from_numpy(matrix @ x.numpy().T).t() + bias,
    )


def _check(name: str, found: torch.Tensor, wanted: torch.Tensor) -> None:
    """Raise RunError where a form gives other outputs than it should."""
    if found.shape != wanted.shape:
        raise RunError(f"{name}: outputs have the shape {tuple(found.shape)}, not {tuple(wanted.shape)}.")
    gap = float((found - wanted).abs().max() / wanted.abs().max())
    if not gap <= SAME:
        raise RunError(
            f"{name} and the masked dense layer differ by {gap:.1e} of the largest output, batch {len(found)}. "
            "Please report this."
        )
