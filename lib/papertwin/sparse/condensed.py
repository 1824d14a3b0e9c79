"""Condensed linear layers: only the weights that are left, and which input each of them belongs to.

Source: Lasby, Golubeva, Evci, Nica, Ioannou: Dynamic Sparse Training with Structured Sparsity (SRigL), ICLR 2024,
arXiv 2305.02299. With a constant fan-in of k and ablated neurons left out, weights and inputs are two matrices
(active, k):

    y[b, n] = Σ_j w[n, j] x[b, idx[n, j]] + bias[n]

The layer can be trained further; which inputs belong to a neuron stays. On a CPU float32 has compiled kernels
(`papertwin.sparse.condensed_kernels`), on a CUDA device a Triton kernel where Triton is installed, all else is computed
by torch, also what `torch.func` transforms or `torch.jit.trace` traces. A weight that is left out takes no part: where
its input is infinite or NaN, the output is not, other than with a dense layer of masked weights.
"""

from importlib.util import find_spec
from typing import Any

import torch
from torch import nn
from torch.autograd.function import once_differentiable

from papertwin.errors import InputError
from papertwin.sparse import condensed_torch

PLAIN = (torch.Tensor, nn.Parameter)  # whose values lie at an address
TRITON = find_spec("triton") is not None  # a constant, which torch.compile can trace
LEAST = 16  # inputs and active neurons for which there are compiled gradients


class CondensedLinear(nn.Module):
    """A linear layer of which each active neuron has k inputs of its own, ablated ones none.

    Attributes:
        in_features, out_features: as of `nn.Linear`.
        weight: parameter (active, k).
        index: buffer (active, k) int32, the input of each weight.
        rows: buffer (active,) int64, ascending: which outputs are active; the others are their bias.
        bias: parameter (out,), or None.
        kernel: how float32 is computed on a CPU, a name in `condensed_layouts.KERNELS`; None takes the fastest.

    Example:
        >>> linear = nn.Linear(4, 2)
        >>> mask = torch.tensor([[True, False, True, False], [False, False, True, True]])
        >>> layer = CondensedLinear.from_linear(linear, mask)
        >>> layer.index.tolist()
        [[0, 2], [2, 3]]
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        weight: torch.Tensor,
        index: torch.Tensor,
        rows: torch.Tensor,
        bias: torch.Tensor | None = None,
        *,
        kernel: str | None = None,
    ):
        """Take weights and their places; `from_linear` makes them.

        Raises:
            InputError: shapes, places or devices do not fit together, or there is no such kernel.
        """
        super().__init__()
        if kernel is not None:
            from papertwin.sparse.condensed_layouts import check_name

            check_name(kernel)
        _check(in_features, out_features, weight, index, rows, bias)
        self.in_features, self.out_features, self.kernel = in_features, out_features, kernel
        with torch.inference_mode(False):  # whose tensors do not say when they change
            self.weight = nn.Parameter(weight.detach().clone(memory_format=torch.contiguous_format))
            self.register_buffer("index", index.detach().to(torch.int32, copy=True).contiguous())
            self.register_buffer("rows", rows.detach().to(torch.int64, copy=True))
            self.bias = None if bias is None else nn.Parameter(bias.detach().clone())
        self._engine: Any = None

    @classmethod
    def from_linear(cls, linear: nn.Linear, mask: torch.Tensor, *, kernel: str | None = None) -> "CondensedLinear":
        """Condense a linear layer.

        Args:
            linear: whose weights and bias are copied; whether they ask for gradients, the device and the mode are kept.
            mask: (out, in) bool, True where a weight is active, be it 0; k in every row or, if ablated, none. All other
                weights are left out, whatever they are: take the masks that the layer was trained with.
            kernel: see the class.

        Raises:
            InputError: another module, shape or type, rows with different numbers of weights, or an unknown kernel.
        """
        if not isinstance(linear, nn.Linear):
            raise InputError(f"from_linear condenses an nn.Linear, got {type(linear).__name__}.")
        _check_mask(linear.weight, mask)
        mask = mask.to(linear.weight.device)
        counts = _fan_ins(mask)
        rows = counts.nonzero().flatten()
        fan_in = int(counts.max()) if len(rows) else 0
        index = mask.nonzero()[:, 1].view(len(rows), fan_in)
        weight = linear.weight.detach()[rows[:, None], index]
        bias = None if linear.bias is None else linear.bias.detach()
        layer = cls(linear.in_features, linear.out_features, weight, index, rows, bias, kernel=kernel)
        layer.weight.requires_grad_(linear.weight.requires_grad)
        if layer.bias is not None:
            layer.bias.requires_grad_(linear.bias.requires_grad)
        return layer.train(linear.training)

    def to_dense(self) -> nn.Linear:
        """The same layer with all its weights, those that were left out 0."""
        options = {"device": self.weight.device, "dtype": self.weight.dtype}
        linear = nn.Linear(self.in_features, self.out_features, bias=self.bias is not None, device="meta")
        weight = torch.zeros(self.out_features, self.in_features, **options)
        weight[self.rows[:, None], self.index.long()] = self.weight.detach()
        linear.weight = nn.Parameter(weight, requires_grad=self.weight.requires_grad)
        if self.bias is not None:
            linear.bias = nn.Parameter(self.bias.detach().clone(), requires_grad=self.bias.requires_grad)
        return linear.train(self.training)

    def mask(self) -> torch.Tensor:
        """Which weights of the dense layer are left: (out, in) bool."""
        mask = torch.zeros(self.out_features, self.in_features, dtype=torch.bool, device=self.index.device)
        mask[self.rows[:, None], self.index.long()] = True
        return mask

    def refresh(self) -> None:
        """Forget copies of the weights: only after changes that leave no trace, through `.data` or NumPy."""
        self._engine = None

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(…, in) → (…, out).

        Raises:
            InputError: another width, type or device than that of the weights.
        """
        weight, bias = self.weight, self.bias
        if x.dtype != weight.dtype and x.is_floating_point() and torch.is_autocast_enabled(x.device.type):
            x = x.to(weight.dtype)  # no kernel for half precision: as the weights are
        if not torch.jit.is_tracing():  # where sizes are no numbers
            _check_input(x, weight, self.in_features)
        rows = x if x.dim() == 2 else x.reshape(-1, self.in_features)
        known = (x, weight) if bias is None else (x, weight, bias)
        if _is_transformed():
            y = self._traceable(rows, weight, bias)
        elif torch.is_grad_enabled() and any(tensor.requires_grad for tensor in known):
            y = _Condensed.apply(rows, weight, bias, self)
        else:
            y = self._outputs(rows, weight, bias)
        return y if x.dim() == 2 else y.view(*x.shape[:-1], self.out_features)

    def extra_repr(self) -> str:
        """What `print` shows."""
        active, fan_in = self.weight.shape
        return (
            f"in_features={self.in_features}, out_features={self.out_features}, active={active}, fan_in={fan_in}, "
            f"bias={self.bias is not None}"
        )

    def train(self, mode: bool = True) -> "CondensedLinear":
        """As of every module; copies of the weights are forgotten when the mode changes."""
        if mode != self.training:
            self.refresh()
        return super().train(mode)

    def __getstate__(self) -> dict[str, Any]:
        """What copies and pickles consist of: all but the copies of the weights."""
        return self.__dict__ | {"_engine": None}

    # ---- computing ---------------------------------------------------------------------------------------------------

    def _compiled(self, x: torch.Tensor) -> Any:
        """The compiled kernels where they can compute this, or None."""
        if torch.compiler.is_compiling() or not x.is_cpu or x.dtype != torch.float32 or type(x) not in PLAIN:
            return None
        if x.shape[0] == 0 or self.rows.shape[0] == 0:
            return None
        engine = self._engine  # another thread may forget it meanwhile
        if engine is None:
            from papertwin.sparse.condensed_cpu import Engine

            engine = self._engine = Engine(self.out_features, self.in_features)
        return engine

    def _outputs(self, x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
        """(B, in) → (B, out), without a graph."""
        engine = self._compiled(x)
        if engine is not None:
            return engine.forward(x.contiguous(), weight, self.index, self.rows, bias, self.kernel)
        shape = len(x), self.out_features
        y = x.new_zeros(shape) if bias is None else bias.new_empty(shape).copy_(bias)
        if x.is_cuda and x.dtype == torch.float32 and x.numel() and TRITON:
            from papertwin.sparse import _triton

            return _triton.add_outputs(y, x.contiguous(), weight.contiguous(), self.index, self.rows)
        return y.index_add(1, self.rows, condensed_torch.outputs(x, weight, self.index))

    def _traceable(self, x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
        """(B, in) → (B, out), by operations that torch can differentiate, batch and trace."""
        active = condensed_torch.traceable_outputs(x, weight, self.index)
        y = active.new_zeros(x.shape[0], self.out_features).index_add(1, self.rows, active)
        return y if bias is None else y + bias

    def _input_gradient(self, given: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        """`given` (B, active) → (B, in)."""
        engine = self._compiled(given)
        if engine is not None and given.shape[1] >= LEAST:
            return engine.input_gradient(given.contiguous(), weight, self.index, self.rows)
        return condensed_torch.input_gradient(given, weight, self.index, self.in_features)

    def _weight_gradient(self, given: torch.Tensor, x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        """`given` (B, active) and x (B, in) → (active, k)."""
        engine = self._compiled(given)
        if engine is not None and min(given.shape[1], self.in_features) >= LEAST:
            return engine.weight_gradient(given, x, weight, self.index, self.rows)
        return condensed_torch.weight_gradient(given, x, self.index)


class _Condensed(torch.autograd.Function):
    """The layer's product with gradients of inputs, weights and bias."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None, layer: CondensedLinear):
        ctx.save_for_backward(x, weight)
        ctx.layer = layer
        return layer._outputs(x, weight, bias)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, given: torch.Tensor):
        layer, (x, weight) = ctx.layer, ctx.saved_tensors
        needs = ctx.needs_input_grad
        active = given if len(layer.rows) == layer.out_features else given[:, layer.rows]
        return (
            layer._input_gradient(active, weight) if needs[0] else None,
            layer._weight_gradient(active, x, weight) if needs[1] else None,
            given.sum(0) if needs[2] else None,
            None,
        )


def _is_transformed() -> bool:
    """Whether a transform of `torch.func` is at work, or a trace is taken: tensors have no values at an address."""
    if torch.compiler.is_compiling():
        return False
    return torch._C._functorch.peek_interpreter_stack() is not None or torch.jit.is_tracing()


# ---- checks ----------------------------------------------------------------------------------------------------------


def _check_mask(weight: torch.Tensor, mask: torch.Tensor) -> None:
    """Raise InputError where a mask is none of these weights."""
    shape = tuple(weight.shape)
    if not isinstance(mask, torch.Tensor):
        raise InputError(f"mask must be a tensor of bool, got {type(mask).__name__}. Try torch.as_tensor(mask).")
    if mask.dtype != torch.bool or mask.shape != weight.shape:
        turned = " Is it transposed?" if tuple(mask.shape) == shape[::-1] else " Is it the mask of this layer?"
        hint = " Try mask.bool()." if mask.shape == weight.shape else turned
        raise InputError(
            f"mask must be bool of the shape {shape} of the weights, got {mask.dtype} {tuple(mask.shape)}.{hint}"
        )


def _fan_ins(mask: torch.Tensor) -> torch.Tensor:
    """Active weights of each neuron, all the same or 0."""
    counts = mask.sum(1)
    found = counts[counts > 0]
    if len(found) and int(found.min()) != int(found.max()):
        raise InputError(
            f"Every neuron that is not ablated must have the same number of weights, got {int(found.min())} to "
            f"{int(found.max())}. Train with SRigL and take its masks; RigL and SET give each neuron another number."
        )
    return counts


def _check(
    inputs: int,
    outputs: int,
    weight: torch.Tensor,
    index: torch.Tensor,
    rows: torch.Tensor,
    bias: torch.Tensor | None,
) -> None:
    """Raise InputError where the parts of a layer do not fit together."""
    known = {"weight": weight, "index": index, "rows": rows} | ({} if bias is None else {"bias": bias})
    if len({tensor.device for tensor in known.values()}) > 1:
        places = ", ".join(f"{name} on {tensor.device}" for name, tensor in known.items())
        raise InputError(f"All parts of a layer must be on one device, got {places}. Move them with .to(…).")
    if weight.dim() != 2 or index.shape != weight.shape or rows.shape != weight.shape[:1]:
        raise InputError(
            f"weight and index must be (active, k) and rows (active,), got {tuple(weight.shape)}, "
            f"{tuple(index.shape)} and {tuple(rows.shape)}. CondensedLinear.from_linear makes all three."
        )
    if len(rows) and not 1 <= weight.shape[1] <= inputs:
        raise InputError(f"An active neuron must have 1 to {inputs} weights, got {weight.shape[1]}.")
    for name, places, count in (("index", index, inputs), ("rows", rows, outputs)):
        if places.is_floating_point() or (places.numel() and not (places.min() >= 0 and places.max() < count)):
            raise InputError(f"{name} must be whole numbers in [0, {count}), got {places}.")
    ordered = index.sort(1).values
    if bool((ordered[:, 1:] == ordered[:, :-1]).any()) or bool((rows[1:] <= rows[:-1]).any()):
        raise InputError("A neuron must have each input once, and rows must ascend. Use CondensedLinear.from_linear.")
    if bias is not None and bias.shape != (outputs,):
        raise InputError(f"bias must have the shape ({outputs},), got {tuple(bias.shape)}.")


def _check_input(x: torch.Tensor, weight: torch.Tensor, inputs: int) -> None:
    """Raise InputError where an input does not fit a layer."""
    if x.dim() == 0 or x.shape[-1] != inputs:
        raise InputError(f"The input must have the shape (…, {inputs}), got {tuple(x.shape)}.")
    if x.dtype != weight.dtype or x.device != weight.device:
        raise InputError(
            f"The input must be {weight.dtype} on {weight.device} as the weights, got {x.dtype} on {x.device}. "
            "Move one of them with .to(…)."
        )
