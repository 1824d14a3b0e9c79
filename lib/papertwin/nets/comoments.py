"""Mean, covariance and correlation of vectors that arrive in batches, and the matrix that whitens them.

Batches are merged as in T. Chan, G. Golub, R. LeVeque: Updating formulae and a pairwise algorithm for computing sample
variances (1979), so that no sum of squares loses its digits. Arithmetic is float64.

Ours: ε of a whitening is a part of the mean eigenvalue, so that it means the same whatever the scale of the data.
"""

import numpy as np
import torch

from papertwin.errors import InputError
from papertwin.nets.sizes import whole
from papertwin.training.loop import single_thread

EPSILON = 1e-5  # of the mean eigenvalue


class Comoments:
    """Mean and scatter Σ (x − x̄)(x − x̄)ᵀ of vectors that arrive in batches.

    Memory does not grow with the samples; their order and the size of the batches only change the rounding.

    Attributes:
        features: numbers of a sample.
        samples: how many were seen.

    >>> moments = Comoments(2)
    >>> moments.update(torch.tensor([[0.0, 1.0]]))
    >>> moments.update(torch.tensor([[2.0, 5.0]]))
    >>> moments.covariance.tolist()
    [[2.0, 4.0], [4.0, 8.0]]
    """

    def __init__(self, features: int, split: int | None = None) -> None:
        """Begin with no sample.

        Args:
            features: numbers of a sample.
            split: where given, products are kept only between the first `split` features and the others, for vectors
                too long for all.

        Raises:
            InputError: a number is out of range.
        """
        self.features, self.samples = whole("features", features), 0
        if split is not None and whole("split", split) >= self.features:
            raise InputError(f"split must be below {features}, the features, got {split}.")
        self._rows, self._columns = slice(split), slice(split or 0, None)
        self._mean, self._squares = torch.zeros(2, self.features, dtype=torch.float64)
        self._scatter = torch.outer(self._mean[self._rows], self._mean[self._columns])

    def update(self, samples: torch.Tensor) -> None:
        """Take in a batch; it is not changed.

        Args:
            samples: (n, features) real numbers; sums stay on the device of the first batch, but for mps, which has no
                float64.

        Raises:
            InputError: wrong shape, or a value is NaN or infinite.
        """
        if samples.ndim != 2 or samples.shape[1] != self.features:
            raise InputError(f"samples must have shape (n, {self.features}), got {tuple(samples.shape)}.")
        if not (count := len(samples)):
            return
        batch = double(samples)
        if not batch.isfinite().all():
            raise InputError("samples must be finite, got NaN or infinite values.")
        if not self.samples:
            sums = (self._mean, self._squares, self._scatter)
            self._mean, self._squares, self._scatter = (each.to(batch.device) for each in sums)
        centre, total = batch.mean(dim=0), self.samples + count
        batch = (batch - centre).to(self._mean.device)
        shift, weight = centre.to(self._mean.device) - self._mean, self.samples * count / total
        self._squares += batch.square().sum(dim=0) + weight * shift.square()
        self._scatter += batch[:, self._rows].T @ batch[:, self._columns]
        self._scatter += weight * torch.outer(shift[self._rows], shift[self._columns])
        self._mean += shift * (count / total)
        self.samples = total

    @property
    def mean(self) -> np.ndarray:
        """(features,) float64; 0 before the first sample."""
        return self._mean.cpu().numpy().copy()

    @property
    def scatter(self) -> np.ndarray:
        """(features, features), or (split, features − split), float64; 0 before the first sample."""
        return self._scatter.cpu().numpy().copy()

    @property
    def covariance(self) -> np.ndarray:
        """scatter / (N − 1).

        Raises:
            InputError: fewer than two samples were seen.
        """
        self._check_samples("covariance")
        return self.scatter / (self.samples - 1)

    @property
    def varies(self) -> np.ndarray:
        """(features,), whether a feature took different values; what rounding leaves of a constant does not count."""
        tiny = 1024 * np.finfo(np.float64).eps ** 2 * self.samples * self.mean**2
        return self._squares.cpu().numpy() > tiny

    @property
    def correlation(self) -> np.ndarray:
        """Pearson's correlation in [-1, 1], of the shape of `scatter`; 0 with what never varies.

        Raises:
            InputError: fewer than two samples were seen.
        """
        self._check_samples("correlation")
        spread = np.sqrt(np.where(self.varies, self._squares.cpu().numpy(), 0))
        scale = np.outer(spread[self._rows], spread[self._columns])
        return np.divide(self.scatter, scale, out=np.zeros_like(scale), where=scale > 0).clip(-1, 1)

    def _check_samples(self, what: str) -> None:
        if self.samples < 2:
            raise InputError(f"A {what} needs at least two samples, got {self.samples}.")


def whitening(covariance: np.ndarray, epsilon: float = EPSILON) -> np.ndarray:
    """Return W = P (D + ε·mean D)^(−1/2) Pᵀ of a covariance P D Pᵀ: symmetric, W Σ W = 1 for ε = 0 (ZCA).

    Args:
        covariance: (C, C) symmetric, no negative eigenvalues.
        epsilon: ε, at least 0.

    Returns:
        (C, C) float64.

    Raises:
        InputError: `epsilon` is out of range or 0 where the covariance is singular, or the covariance is 0.
    """
    if isinstance(epsilon, bool) or not isinstance(epsilon, int | float) or not 0 <= epsilon < float("inf"):
        raise InputError(f"epsilon must be a finite number of at least 0, got {epsilon!r}.")
    with single_thread():
        values, vectors = (part.numpy() for part in torch.linalg.eigh(torch.as_tensor(covariance)))
    mean, floor = values.mean(), len(values) * np.finfo(np.float64).eps * values.max()
    if not mean > 0:
        raise InputError("A layer whose channels never vary cannot be whitened: got the covariance 0.")
    if epsilon == 0 and values.min() <= floor:
        raise InputError(f"The covariance is singular, got the smallest eigenvalue {values.min():g}: raise epsilon.")
    return product(vectors / np.sqrt(values.clip(0) + epsilon * mean), vectors.T)


def double(values: torch.Tensor) -> torch.Tensor:
    """float64, on the CPU where the device has none."""
    return (values.cpu() if values.device.type == "mps" else values).detach().to(torch.float64)


def product(*matrices: np.ndarray) -> np.ndarray:
    """Matrix product, the same for any number of threads."""
    with single_thread():
        return torch.linalg.multi_dot([torch.as_tensor(np.ascontiguousarray(each)) for each in matrices]).numpy()
