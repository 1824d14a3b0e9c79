"""A last layer turned into a tree: a router, and for each cluster of classes the rows of that layer.

Paper: Y. Ioannou et al., arXiv 1603.01250 (2016), the single perceptron. Ours is the score of class c of cluster j,

    s_c = (P^j v0)_c + ln r_j,    r = softmax(P^R v0),    and s_c = -∞ where route j is not among the τ evaluated ones.

Training is by the cross-entropy of the full score, from the rows of the dense layer. What follows from this choice:

- With r = 1/R the full score is the dense layer's but for a constant: with zero P^R, training starts at the dense net.
- Adding d to row j of P^R and taking it from each row of P^j changes all s_c of an image by one number, so that the
  cross-entropy cannot tell one router from another: the full score alone teaches the router next to nothing, and hard
  routing fails. `fit_tree` therefore first teaches the router which cluster an image belongs to (ours), and takes what
  it has learnt out of the rows of the routes, so that the full score still starts at the dense layer.
"""

import copy
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from papertwin.errors import InputError
from papertwin.nets.conditional.clusters import check_clusters
from papertwin.nets.conditional.inputs import as_labels
from papertwin.nets.conditional.routing import Router
from papertwin.nets.conditional.selection import Conditional, expected_cost, keep_largest, rows_by_route
from papertwin.training.loop import fit


class PerceptronTree(Conditional):
    """A tree of one router and R linear routes, in place of one linear layer.

    Args:
        router: (B, features) → (B, R).
        routes: R linear layers; layer j gives the scores of the classes of cluster j, in ascending order.
        clusters: (C,) cluster of each class, all of 0 … R - 1.
        top: τ, the routes evaluated for a row in eval mode; None is all of them.

    Raises:
        InputError: shapes do not fit each other.
    """

    def __init__(
        self, router: Router, routes: Sequence[nn.Linear], clusters: Sequence[int], top: int | None = 1
    ) -> None:
        routes = list(routes)
        chosen = check_clusters(clusters, len(clusters))
        if len({layer.bias is None for layer in (router.linear, *routes)}) > 1:
            raise InputError("Either the router and all routes have a bias, or none has: got both kinds.")
        sizes = np.bincount(chosen).tolist()
        shapes = [(route.in_features, route.out_features) for route in routes]
        wanted = [(router.linear.in_features, size) for size in sizes]
        if shapes != wanted or router.linear.out_features != len(sizes):
            raise InputError(
                f"Clusters of {sizes} classes need a router to {len(sizes)} and routes of (inputs, outputs) {wanted}; "
                f"got a router to {router.linear.out_features} and {shapes}."
            )
        super().__init__(router, len(routes), top)
        self.routes = nn.ModuleList(routes)
        self.clusters = chosen
        self.sizes = sizes
        order = torch.from_numpy(np.argsort(chosen, kind="stable"))
        self.register_buffer("_order", order, persistent=False)  # classes, cluster by cluster
        self.register_buffer("_route", torch.from_numpy(chosen.copy()), persistent=False)  # of each class
        self.register_buffer("_place", order.argsort(), persistent=False)  # where a class is in that order

    @classmethod
    def from_linear(cls, linear: nn.Linear, clusters: Sequence[int], top: int | None = 1) -> "PerceptronTree":
        """Cut a linear layer into routes; the router starts at r = 1/R, and has a bias where the layer has one.

        Args:
            linear: features → C; it is copied and stays as it is.
            clusters: (C,) cluster of each class, all of 0 … R - 1.
            top: τ.

        Raises:
            InputError: `clusters` does not name one cluster a class, or `top` is out of range.
        """
        chosen = check_clusters(clusters, linear.out_features)
        biased, place = linear.bias is not None, {"device": linear.weight.device, "dtype": linear.weight.dtype}
        routes = []
        for members in (np.flatnonzero(chosen == j) for j in range(chosen.max() + 1)):
            route = nn.utils.skip_init(nn.Linear, linear.in_features, len(members), bias=biased, **place)
            with torch.no_grad():
                for name, parameter in route.named_parameters():
                    parameter.copy_(getattr(linear, name)[torch.from_numpy(members)])
            routes.append(route)
        router = Router(linear.in_features, len(routes), seed=None, bias=biased).to(**place)
        return cls(router, routes, chosen, top).to(place["device"])

    def forward(self, v0: torch.Tensor) -> torch.Tensor:
        """Scores s, (B, features) → (B, C), in the classes' own order.

        Raises:
            InputError: `v0` has another shape.
        """
        if v0.ndim != 2:
            raise InputError(f"A tree takes vectors (B, {self.router.linear.in_features}), got {tuple(v0.shape)}.")
        log_r = self.router.logits(v0).log_softmax(dim=1)
        if self.takes_all:
            self._record(len(v0), [len(v0)] * self.count)
            return self._of_all(v0).index_select(1, self._place) + log_r.index_select(1, self._route)
        groups = rows_by_route(keep_largest(log_r, self.top)[0], self.count)
        self._record(len(v0), [len(rows) for rows, _ in groups])
        scores = log_r.new_full((len(v0), len(self.clusters)), -torch.inf)
        for j, ((rows, _), classes) in enumerate(zip(groups, self._order.split(self.sizes))):
            if len(rows):
                part = self.routes[j](v0.index_select(0, rows)) + log_r[rows, j, None]
                scores.index_put_((rows[:, None], classes), part)
        return scores

    def _of_all(self, v0: torch.Tensor) -> torch.Tensor:
        """Scores of all routes side by side: by one product while training, which is faster; else layer by layer.

        Without gradients the layers themselves run, so that hooks on them see it, as those of `papertwin.nets.count`.
        """
        if not torch.is_grad_enabled():
            return torch.cat([route(v0) for route in self.routes], dim=1)
        weight = torch.cat([route.weight for route in self.routes])
        biased = self.router.linear.bias is not None
        return functional.linear(v0, weight, torch.cat([route.bias for route in self.routes]) if biased else None)

    @property
    def route_macs(self) -> list[int]:
        """Multiply-accumulates of each route for one row: n_j · features, and n_j more where there is a bias."""
        return [r.out_features * (r.in_features + (r.bias is not None)) for r in self.routes]

    def expected_macs(self, frequencies: Sequence[float] | None = None) -> float:
        """Mean multiply-accumulates of a row: the router's, and Σ_j frequency_j · cost of route j.

        Args:
            frequencies: (R,) shares of the rows for which each route is evaluated; None takes those counted since the
                last `reset`.

        Raises:
            InputError: nothing was counted, or the frequencies are no shares.
        """
        shares = self.frequencies if frequencies is None else frequencies
        return expected_cost(self.router.macs, self.route_macs, shares)


def fit_tree(
    tree: PerceptronTree,
    features: Any,
    labels: Any,
    *,
    router_epochs: int,
    epochs: int,
    rate: float,
    seed: int,
    **settings: Any,
) -> list[float]:
    """Train a tree in place: first its router to name the cluster of an image, then all of it on the full score.

    Args:
        tree: from `PerceptronTree.from_linear`; its counts of routes taken are reset.
        features: (n, features) floats that the layer took in, NumPy or torch.
        labels: (n,) whole numbers from 0 to C - 1.
        router_epochs: passes of the first part; 0 leaves it out, and then the routes keep the rows they have.
        epochs: passes of the second part; 0 leaves it out.
        rate: learning rate at the start of each part.
        seed: of the shuffles.
        settings: passed on to `papertwin.training.loop.fit`, for example batch, momentum or device.

    Returns:
        Mean loss of each epoch, first part first.

    Raises:
        InputError: an argument cannot be used, or training diverged.
        ParameterError: no such device here.
    """
    losses = []
    clusters = tree.clusters[as_labels(labels, len(features), len(tree.clusters))]
    if router_epochs:
        before = copy.deepcopy(tree.router.linear)
        losses += fit(tree.router.linear, features, clusters, epochs=router_epochs, rate=rate, seed=seed, **settings)
        _take_out(tree, before)
    if epochs:
        losses += fit(tree, features, labels, epochs=epochs, rate=rate, seed=seed, **settings)
    tree.reset()
    return losses


@torch.no_grad()
def _take_out(tree: PerceptronTree, before: nn.Linear) -> None:
    """Subtract what row j of the router has gained from each row of route j, so that the full score is as before."""
    after = dict(tree.router.linear.named_parameters())
    for name, old in before.named_parameters():
        for route, gained in zip(tree.routes, after[name] - old):
            getattr(route, name).sub_(gained)
