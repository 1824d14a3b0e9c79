"""Prove that no input of a linear region has the label that was asked for.

The question is whether the box holds an x with A x + c ≥ 0 (the region) and D x + d ≥ m (the label, by margin m).
Farkas' lemma: if there are weights λ ≥ 0 on the region's rows and μ ≥ 0, Σμ = 1, on the label's rows with

    b(λ, μ) = max over the box of (Aᵀλ + Dᵀμ)·x  +  c·λ + d·μ  <  m,

then there is none, because on any such x the left side is at least m. The maximum over a box is a sum over its entries,
so a proof is checked by one pass back through the held network, in float64. b also bounds how far the label can get in
the region: its margin is at most b.

The weights are searched with the primal-dual hybrid gradient method (Chambolle and Pock 2011), which needs nothing but
products with A and Aᵀ: one pass forward and one back through the network a step, no row of A is built. Rows are scaled
to norm 1, by the region's estimate of their norms. This proof is ours; the paper leaves infeasibility to its solver.
"""

import math
import time
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from papertwin.robustness.region import LinearRegion

STEPS = 600
CHECK = 25  # steps between two checks of the proof
POWER = 12  # power iterations for the norm of the scaled matrix
SAFETY = 0.9  # of the largest step the theory allows, as the norm is an estimate from below
ROUNDING = 1e-6  # b must be smaller than m by this much


@dataclass(frozen=True)
class Certificate:
    """The outcome of the search for a proof.

    Attributes:
        proven: whether the label is proven to be out of reach.
        bound: smallest b found: in the region and the box, the label's margin is at most this.
        steps: steps of the search.
        weights: (rows,) λ of that bound; large entries name the rows that matter.
        label_weights: (classes − 1,) μ of that bound, Σμ = 1, labels ascending.
    """

    proven: bool
    bound: float
    steps: int
    weights: np.ndarray
    label_weights: np.ndarray


@torch.no_grad()
def prove_infeasible(
    region: LinearRegion,
    target: int,
    low: Tensor,
    high: Tensor,
    *,
    margin: float = 0.0,
    steps: int = STEPS,
    deadline: float = math.inf,
) -> Certificate:
    """Search for a proof that no x of the region with low ≤ x ≤ high has `target` as its label by `margin`.

    Args:
        region: linear region of the seed.
        target: label asked for.
        low, high: box, in the shape of the seed.
        margin: by how much the target's logit must exceed every other.
        steps: after so many the search gives up, which says nothing about feasibility.
        deadline: of `time.perf_counter()`; past it the search gives up at the next check, every `CHECK` steps.
    """
    search = _Search(region, target, low, high)
    best, bound, step = search.dual.clone(), np.inf, 0
    for step in range(1, steps + 1):
        search.step()
        if step % CHECK == 0 or step == steps:
            now = search.bound()
            if now < bound:
                best, bound = search.dual.clone(), now
            if bound < margin - ROUNDING or not time.perf_counter() < deadline:
                break
    weights = (best * search.scale)[0].cpu().numpy()
    weights /= weights[region.rows :].sum()
    proven = bound < margin - ROUNDING
    return Certificate(proven, float(bound), step, weights[: region.rows], weights[region.rows :])


class _Search:
    """State of the primal-dual steps: x, and the weights of all rows, the label's rows last."""

    def __init__(self, region: LinearRegion, target: int, low: Tensor, high: Tensor):
        self.region, self.low, self.high = region, low[None], high[None]
        classes = region.logits.numel()
        eye = torch.eye(classes, dtype=low.dtype, device=low.device)
        others = [label for label in range(classes) if label != target]
        self.contrast = eye[target] - eye[others]  # (labels, classes): f_target − f_other
        self.scale = torch.ones(1, region.rows + len(others), dtype=low.dtype, device=low.device)
        self.constant = self._values(torch.zeros_like(self.low))
        self.scale = 1.0 / torch.cat([region.row_norms, self._label_norms()])[None]
        self.constant = self.constant * self.scale
        self.x = region.seed[None].clone()
        self.dual = torch.zeros_like(self.scale)
        self.dual[:, region.rows :] = 1.0 / (self.scale[:, region.rows :] * len(others))
        self.pull = self._transpose(self.dual)
        self.rate = SAFETY / self._norm()

    def step(self) -> None:
        """One primal and one dual step of equal length."""
        ahead = (self.x + self.rate * self.pull).clamp(self.low, self.high)
        values = self._values(2 * ahead - self.x)
        self.x = ahead
        self.dual = (self.dual - self.rate * values).clamp_min(0.0)
        self.pull = self._transpose(self.dual)

    def bound(self) -> float:
        """b of the present weights; inf while the label's rows weigh nothing."""
        total = float((self.dual * self.scale)[:, self.region.rows :].sum())
        reach = torch.maximum(self.pull * self.low, self.pull * self.high).sum()
        return float(reach + (self.dual * self.constant).sum()) / total if total > 0 else np.inf

    def _values(self, x: Tensor) -> Tensor:
        """Scaled slacks of the region and of the label at x, (B, rows + labels)."""
        slack, logits = self.region.slack(x)
        return torch.cat([slack, logits @ self.contrast.T], 1) * self.scale

    def _transpose(self, dual: Tensor) -> Tensor:
        weights = dual * self.scale
        return self.region.transpose(weights[:, : self.region.rows], weights[:, self.region.rows :] @ self.contrast)

    def _label_norms(self) -> Tensor:
        """Norms of the label's rows, (labels,); 1 where two logits have the same row."""
        rows = self.region.transpose(self.scale.new_zeros(len(self.contrast), self.region.rows), self.contrast)
        norms = torch.linalg.vector_norm(rows.flatten(1), dim=1)
        return torch.where(norms > 0, norms, 1.0)

    def _norm(self) -> float:
        """Largest singular value of the scaled matrix, by power iteration."""
        x = torch.rand(self.low.shape, generator=torch.Generator().manual_seed(0), dtype=self.low.dtype).to(self.low)
        size = torch.linalg.vector_norm(x)
        for _ in range(POWER):
            x = self._transpose(self._values(x / size) - self.constant)
            size = torch.linalg.vector_norm(x)
        return max(float(size.sqrt()), 1e-9)
