"""Which routes a row of a batch takes, how often each is taken, and what that costs.

Paper: Y. Ioannou et al., arXiv 1603.01250 (2016). While training every route is evaluated; when testing only the τ
with the largest r. The cost of a conditional network is that of its router and of the routes that are evaluated,
averaged over a data set: it depends on how often each route is taken, and is no share 1/R of the whole.

Ours: of equal r the route with the lower number is taken first, so that results are the same on every device.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import nn

from papertwin.checks import is_whole
from papertwin.errors import InputError


class Conditional(nn.Module):
    """Base of the networks that evaluate, for each row, only the routes their router prefers.

    Attributes:
        router: (B, …) → (B, R) shares, each row of sum 1.
        count: R, the number of routes.
        top: τ, the routes evaluated for a row in eval mode; None evaluates all of them. Can be set at any time.
        seen: rows that passed in eval mode since the last `reset`.
        taken: how many of these each route was evaluated for, R numbers.
    """

    def __init__(self, router: nn.Module, count: int, top: int | None) -> None:
        super().__init__()
        self.router = router
        self.count = count
        self.top = top
        self.reset()

    @property
    def top(self) -> int | None:
        """τ, the routes evaluated for a row in eval mode; None is all of them."""
        return self._top

    @top.setter
    def top(self, top: int | None) -> None:
        if top is not None and not is_whole(top, 1, self.count):
            raise InputError(f"top must be a whole number from 1 to {self.count}, the routes, or None, got {top!r}.")
        self._top = None if top is None else int(top)

    @property
    def takes_all(self) -> bool:
        """Whether every route is evaluated for every row, as it is while training."""
        return self.training or self.top is None or self.top == self.count

    @property
    def frequencies(self) -> np.ndarray:
        """Share of the rows seen in eval mode for which each route was evaluated, (R,) float64; their sum is τ.

        Raises:
            InputError: no row was seen since the last `reset`.
        """
        if not self.seen:
            raise InputError("No row was seen: pass data in eval mode before asking how often a route was taken.")
        return np.array(self.taken) / self.seen

    def reset(self) -> None:
        """Forget how often each route was taken."""
        self.seen = 0
        self.taken = [0] * self.count

    def shares(self, v0: torch.Tensor) -> torch.Tensor:
        """The router's r for a batch, (B, R).

        Raises:
            InputError: the router gives another shape.
        """
        r = self.router(v0)
        if r.shape != (len(v0), self.count):
            raise InputError(
                f"The router must give one share a row and route, shape {(len(v0), self.count)}, got {tuple(r.shape)}."
            )
        return r

    def _record(self, rows: int, taken: Sequence[int]) -> None:
        """Count the rows of a batch, and those of each route, in eval mode."""
        if not self.training:
            self.seen += rows
            self.taken = [before + now for before, now in zip(self.taken, taken)]


def keep_largest(r: torch.Tensor, top: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the numbers of the `top` largest values of each row, largest first, and these values.

    Args:
        r: (B, R); of equal values the one further left comes first.
        top: from 1 to R.

    Returns:
        (B, top) int64 and (B, top).
    """
    order = r.argsort(dim=1, descending=True, stable=True)[:, :top]
    return order, r.gather(1, order)


def rows_by_route(chosen: torch.Tensor, count: int) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Regroup a batch by route.

    Args:
        chosen: (B, τ) int64, the routes of each row, all different.
        count: R, the number of routes.

    Returns:
        For each route the rows that chose it, ascending, and at which of their τ places. The two may be empty.
    """
    flat = chosen.flatten()
    sizes = torch.bincount(flat, minlength=count).tolist()
    width = chosen.shape[1]
    return [(piece // width, piece % width) for piece in flat.argsort(stable=True).split(sizes)]


def expected_cost(router_macs: float, route_macs: Sequence[float], frequencies: Sequence[float]) -> float:
    """Mean cost of a row: router + Σ_j frequency_j · cost_j.

    Args:
        router_macs: cost of the router, which every row pays.
        route_macs: (R,) cost of each route, in the same unit.
        frequencies: (R,) shares of the rows for which each route is evaluated, in [0, 1]; their sum is τ, not 1.

    Raises:
        InputError: not one frequency a route, or a number is outside its range.

    >>> expected_cost(10, [100, 300], [0.75, 0.25])
    160.0
    """
    costs, shares = (np.asarray(values, dtype=np.float64) for values in (route_macs, frequencies))
    if costs.shape != shares.shape or costs.ndim != 1:
        raise InputError(f"There must be one frequency a route, got {costs.shape} costs, {shares.shape} frequencies.")
    if not ((shares >= 0) & (shares <= 1)).all():
        raise InputError(f"frequencies must be shares of the rows, from 0 to 1, got {shares.tolist()}.")
    if not (router_macs >= 0 and (costs >= 0).all()):
        raise InputError(f"Costs must be at least 0, got {router_macs} for the router, {costs.tolist()} for routes.")
    return float(router_macs + costs @ shares)


def route_frequencies(net: Conditional, inputs: Any, batch: int = 1000) -> np.ndarray:
    """Measure how often each route is taken over a data set; only the router is evaluated.

    Args:
        net: a conditional network; it is asked as in eval mode and left as it was, its own counts too.
        inputs: (n, …), NumPy or torch, as the network takes them, n ≥ 1.
        batch: rows at once.

    Returns:
        (R,) float64, shares of the rows whose τ largest r hold the route; all 1 where τ is None.

    Raises:
        InputError: there is no row.
    """
    if not len(inputs):
        raise InputError("inputs must hold at least one row, got none.")
    if net.top is None:
        return np.ones(net.count)
    place = next((p for p in net.parameters()), torch.empty(0))
    rows = torch.as_tensor(inputs).to(place.device, place.dtype)
    with evaluating(net), torch.inference_mode():
        chosen = [keep_largest(net.shares(some), net.top)[0].flatten() for some in rows.split(batch)]
    return torch.bincount(torch.cat(chosen), minlength=net.count).cpu().numpy() / len(rows)


@contextmanager
def evaluating(net: nn.Module) -> Iterator[None]:
    """Put a network into eval mode within the block, and each of its modules back into its own mode afterwards."""
    modes = [(module, module.training) for module in net.modules()]
    net.eval()
    try:
        yield
    finally:
        for module, training in modes:
            module.training = training
