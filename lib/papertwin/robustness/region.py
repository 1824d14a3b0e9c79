"""The region around a seed in which a ReLU network is affine, and the affine map it is there.

Fix every ReLU and every max-pool as it is at the seed x* (`papertwin.robustness.layers`). The network then equals one
affine map f(x) = F x + d on the polytope {x : A x + c ≥ 0}, one row per ReLU unit and per loser of a pooling window.
A has tens of thousands of entries per row and is never needed whole: products with it and with its transpose are one
pass forward and one pass back through the held network, and any set of rows is one pass back with one image per row.

Source: Bastani et al. 2016 (arXiv 1605.07262), the convex restriction; that rows come from a batched backward pass is
ours.
"""

from functools import cached_property

import numpy as np
import torch
from torch import Tensor, nn

from papertwin.robustness.layers import hold

BUDGET = 16 * 2**20  # bytes of the largest intermediate of a backward pass; with 100 MiB LeNet takes twice as long
PROBES = 32  # random signs from which row norms are estimated
DUST = 1e-9  # a row with a smaller share of its layer's largest norm is rounding, not a direction


class LinearRegion:
    """The polytope {x : A x + c ≥ 0} around one seed, and the affine network f(x) = F x + d on it.

    Attributes:
        seed: the input it was built at, (…) float64.
        logits: (classes,) f(seed).
        rows: number of rows of A.
        sizes: rows per bending layer, first layer first.
        portion: rows that travel back through the network at once.
    """

    def __init__(self, model: nn.Sequential, seed: Tensor):
        """Hold `model` at `seed`.

        Args:
            model: float64 network in eval mode; see `papertwin.robustness.layers.hold`.
            seed: (…) float64, one input without the batch dimension, on the model's device.

        Raises:
            InputError: a layer that cannot be held.
        """
        self.seed = seed
        with torch.no_grad():
            self.layers = hold(model, seed[None])
            self.sizes = [layer.slacks for layer in self.layers if layer.slacks]
            self.rows = sum(self.sizes)
            width = max([seed.numel(), *(layer.shape.numel() for layer in self.layers)])
            self.portion = max(1, BUDGET // (width * seed.element_size()))
            self._constant, self._shift = (part[0] for part in self.slack(torch.zeros_like(seed)[None]))
            self.logits = self.slack(seed[None])[1][0]

    @torch.no_grad()
    def slack(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Evaluate the held network: A x + c, (B, rows), and F x + d, (B, classes), for x (B, …)."""
        z, slacks = x, []
        for layer in self.layers:
            if layer.slacks:
                slacks.append(layer.slack(z))
            z = layer.forward(z)
        return torch.cat(slacks, 1) if slacks else x.new_zeros(len(x), 0), z

    @torch.no_grad()
    def transpose(self, weights: Tensor, logit_weights: Tensor) -> Tensor:
        """Aᵀ·weights + Fᵀ·logit_weights, (B, …), for weights (B, rows) and logit_weights (B, classes)."""
        gradient, end = logit_weights, self.rows
        for layer in reversed(self.layers):
            gradient = layer.transpose(gradient)
            if layer.slacks:
                gradient = gradient + layer.slack_transpose(weights[:, end - layer.slacks : end])
                end -= layer.slacks
        return gradient

    @cached_property
    @torch.no_grad()
    def row_norms(self) -> Tensor:
        """Estimate of ‖A_i‖ for every row, (rows,), by E (A_i·s)² = ‖A_i‖² for random signs s; one batched pass.

        A row that is nothing but rounding gets `DUST` times the largest norm of its layer, and 1 where all of them are.
        """
        draws = torch.randint(0, 2, (PROBES, self.seed.numel()), generator=torch.Generator().manual_seed(0))
        signs = (draws * 2.0 - 1.0).to(self.seed).view(PROBES, *self.seed.shape)
        norms = (self.slack(signs)[0] - self._constant).square().mean(0).sqrt()
        largest = [part.max().expand(len(part)) for part in norms.split(self.sizes) if len(part)]
        norms = torch.maximum(norms, DUST * torch.cat(largest)) if largest else norms
        return torch.where(norms > 0, norms, 1.0)

    @torch.no_grad()
    def logit_rows(self) -> tuple[np.ndarray, np.ndarray]:
        """F, (classes, n), and d, (classes,), for n the number of entries of an input."""
        eye = torch.eye(self.logits.numel(), dtype=self.seed.dtype, device=self.seed.device)
        matrix = self.transpose(eye.new_zeros(len(eye), self.rows), eye)
        return matrix.flatten(1).cpu().numpy(), self._shift.cpu().numpy()

    @torch.no_grad()
    def constraint_rows(self, index: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The rows A[index], (k, n), and c[index], (k,).

        Args:
            index: (k,) row numbers in [0, rows), ascending.
        """
        matrix = np.empty((len(index), self.seed.numel()))
        for start in range(0, len(index), self.portion):
            matrix[start : start + self.portion] = self._some_rows(index[start : start + self.portion])
        return matrix, self._constant.cpu().numpy()[index]

    def _some_rows(self, index: np.ndarray) -> np.ndarray:
        """One backward pass; the batch grows at each bending layer by the rows that begin there."""
        gradient: Tensor | None = None
        order, end = [], self.rows
        for layer in reversed(self.layers):
            if gradient is not None:
                gradient = layer.transpose(gradient)
            if not layer.slacks:
                continue
            chosen = np.flatnonzero((index >= end - layer.slacks) & (index < end))
            end -= layer.slacks
            if len(chosen):
                own = layer.slack_gradient(torch.from_numpy(index[chosen] - end).to(self.seed.device))
                gradient = own if gradient is None else torch.cat([gradient, own])
                order.append(chosen)
        flat = gradient.flatten(1).cpu().numpy()
        matrix = np.empty_like(flat)
        matrix[np.concatenate(order)] = flat
        return matrix
