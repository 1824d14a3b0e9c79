"""Explicit routing: a router weighs the outputs of several routes, and a test evaluates only the likely ones.

Paper: Y. Ioannou et al., arXiv 1603.01250 (2016). For an input v0 and the routes' outputs v1^j:

    r = softmax(P^R v0),    v2 = Σ_j r_j v1^j,    ∂L/∂r_j = ⟨∂L/∂v2, v1^j⟩, and ∂L/∂P^j carries the factor r_j.

Ours: while training all routes are evaluated; a test keeps the τ largest r and divides them by their sum. P^R has a
bias, as if v0 ended in a 1. A router of maps sees their means over the pixels. Routes that no row selects are not run.
"""

from collections.abc import Sequence

import torch
from torch import nn

from papertwin.checks import is_whole
from papertwin.errors import InputError
from papertwin.nets.conditional.selection import Conditional, keep_largest, rows_by_route
from papertwin.nets.initial import seeded


class Router(nn.Module):
    """r = softmax(P^R v0), of vectors, or of maps through their global average.

    Args:
        features: values of a vector, or channels of the maps.
        routes: R, at least 1.
        seed: of the weights, drawn as torch draws those of a linear layer; None starts with zeros, hence with r = 1/R.
        bias: whether P^R has a bias.

    Raises:
        InputError: a number is out of range.

    >>> Router(3, 2, seed=None)(torch.ones(1, 3)).tolist()
    [[0.5, 0.5]]
    """

    def __init__(self, features: int, routes: int, *, seed: int | None, bias: bool = True) -> None:
        super().__init__()
        for name, value in (("features", features), ("routes", routes)):
            if not is_whole(value, 1):
                raise InputError(f"{name} must be a whole number above 0, got {value!r}.")
        self.linear = _linear(features, routes, bias, seed)

    def logits(self, v0: torch.Tensor) -> torch.Tensor:
        """P^R v0, before the softmax: (B, features) or (B, features, …) → (B, R).

        Raises:
            InputError: another shape.
        """
        if v0.ndim < 2 or v0.shape[1] != self.linear.in_features:
            wanted = self.linear.in_features
            raise InputError(f"The router takes (B, {wanted}) or maps (B, {wanted}, H, W), got {tuple(v0.shape)}.")
        return self.linear(v0 if v0.ndim == 2 else v0.flatten(2).mean(dim=2))

    def forward(self, v0: torch.Tensor) -> torch.Tensor:
        """r, (B, R): each row has sum 1."""
        return self.logits(v0).softmax(dim=1)

    @property
    def macs(self) -> int:
        """Multiply-accumulates for one row, c_out · c_in + c_out; the global average counts as free, like pooling."""
        return self.linear.out_features * (self.linear.in_features + (self.linear.bias is not None))


class Routed(Conditional):
    """Several routes for one input, and their weighted sum v2 = Σ_j r_j v1^j.

    In training mode, and where `top` is None or R, all routes are evaluated. Otherwise, for each row, r is cut to its
    τ largest values and these are divided by their sum; each route runs once, on the rows that selected it.

    Args:
        router: (B, …) → (B, R) shares.
        routes: R modules, each from the input to outputs of one shape.
        top: τ.

    Raises:
        InputError: no route, or `top` is out of range.

    >>> routes = [nn.Flatten(), nn.Flatten()]
    >>> Routed(Router(3, 2, seed=0), routes, top=1).eval()(torch.ones(1, 3)).tolist()
    [[1.0, 1.0, 1.0]]
    """

    def __init__(self, router: nn.Module, routes: Sequence[nn.Module], top: int | None = None) -> None:
        routes = list(routes)
        if not routes:
            raise InputError("routes must hold at least one module, got none.")
        super().__init__(router, len(routes), top)
        self.routes = nn.ModuleList(routes)

    def forward(self, v0: torch.Tensor) -> torch.Tensor:
        """v2, of the shape that each route gives.

        Raises:
            InputError: router or routes give shapes that do not fit.
        """
        r = self.shares(v0)
        if self.takes_all or not len(v0):
            self._record(len(v0), [len(v0)] * self.count)
            return self._of_all(v0, r)
        return self._of_largest(v0, r)

    def _of_all(self, v0: torch.Tensor, r: torch.Tensor) -> torch.Tensor:
        total, shape = None, None
        for place, route in enumerate(self.routes):
            part = route(v0)
            shape = _checked(part, place, len(v0), shape)
            part = _columns(r[:, place], part) * part
            total = part if total is None else total + part
        return total

    def _of_largest(self, v0: torch.Tensor, r: torch.Tensor) -> torch.Tensor:
        chosen, kept = keep_largest(r, self.top)
        weights = kept / kept.sum(dim=1, keepdim=True)
        groups = rows_by_route(chosen, self.count)
        self._record(len(v0), [len(rows) for rows, _ in groups])
        total, shape = None, None
        for place, (rows, slots) in enumerate(groups):
            if not len(rows):
                continue
            part = self.routes[place](v0.index_select(0, rows))
            shape = _checked(part, place, len(rows), shape)
            part = _columns(weights[rows, slots], part) * part
            total = part.new_zeros((len(v0), *shape)) if total is None else total
            total.index_add_(0, rows, part)
        return total


def _linear(features: int, routes: int, bias: bool, seed: int | None) -> nn.Linear:
    """Return a linear layer that depends on the seed alone, of zeros where it is None."""
    with seeded(0 if seed is None else seed):
        linear = nn.Linear(features, routes, bias=bias)
    if seed is None:
        for parameter in linear.parameters():
            nn.init.zeros_(parameter)
    return linear


def _columns(weights: torch.Tensor, part: torch.Tensor) -> torch.Tensor:
    """Shape one weight a row so that it multiplies everything in the row."""
    return weights.view(-1, *[1] * (part.ndim - 1))


def _checked(part: torch.Tensor, place: int, rows: int, shape: torch.Size | None) -> torch.Size:
    """Return the shape of a row once it is known to be that of the routes before."""
    if part.ndim < 1 or len(part) != rows or (shape is not None and part.shape[1:] != shape):
        wanted = ("…",) if shape is None else tuple(shape)
        raise InputError(
            f"Route {place} gives shape {tuple(part.shape)} for {rows} rows, expected ({rows}, "
            f"{', '.join(map(str, wanted))}): all routes must give outputs of one shape."
        )
    return part.shape[1:]
