"""Mean and deviation of channels, and the correlation of two networks' channels, over streams of batches.

Source: M. Adnan et al.: Sparse training from random initialization. ICML 2025, arXiv 2505.05143, activation matching:
each image and each place of a map is a sample. Sums are in double precision.
"""

import torch

from papertwin.errors import InputError

EPS = 1e-4  # added to the product of two deviations


def samples(responses: torch.Tensor) -> torch.Tensor:
    """Make rows of responses: (B, c) → (B, c), (B, c, H, W) → (B·H·W, c); float64, a copy.

    Raises:
        InputError: there is no axis of channels.
    """
    if responses.dim() < 2:
        raise InputError(f"Responses must be (B, channels, …), got {tuple(responses.shape)}.")
    device = "cpu" if responses.device.type == "mps" else responses.device  # Apple's GPUs have no double precision
    rows = responses.detach().movedim(1, -1).flatten(0, -2)
    return rows.to(device, torch.float64, copy=True)


class ChannelSums:
    """Mean and deviation of each channel over all batches.

    Attributes:
        count: samples so far.
    """

    def __init__(self) -> None:
        """Begin with no samples."""
        self.count = 0
        self._sum: torch.Tensor | float = 0.0
        self._squares: torch.Tensor | float = 0.0
        self._origin: torch.Tensor | None = None

    def update(self, responses: torch.Tensor) -> None:
        """Take in responses, (B, c, …)."""
        rows = samples(responses)
        if self._origin is None:  # sums of distances from a value near the mean, so that no digits are lost
            self._origin = rows.mean(0)
        rows -= self._origin
        self.count += len(rows)
        self._sum = self._sum + rows.sum(0)
        self._squares = self._squares + rows.square().sum(0)

    def moments(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Return mean and deviation (of the population: divided by n), (c,) float64 each.

        Raises:
            InputError: there were no samples.
        """
        _check_count(self.count)
        shift = self._sum / self.count
        variance = self._squares / self.count - shift.square()
        return self._origin + shift, variance.clamp(min=0).sqrt()


class Correlation:
    """Pearson's correlation of each channel of B with each of A: (E[z_B z_Aᵀ] − μ_B μ_Aᵀ) / (sd_B sd_Aᵀ + 10⁻⁴).

    >>> both = Correlation()
    >>> both.update(torch.tensor([[1.0, 0.0], [3.0, 0.0]]), torch.tensor([[20.0], [10.0]]))
    >>> both.value().round(decimals=3).tolist()                      # of a dead channel it is 0
    [[-1.0], [0.0]]
    """

    def __init__(self) -> None:
        """Begin with no samples."""
        self._of_b, self._of_a = ChannelSums(), ChannelSums()
        self._products: torch.Tensor | float = 0.0
        self._origins: tuple[torch.Tensor, torch.Tensor] | None = None

    def update(self, responses_b: torch.Tensor, responses_a: torch.Tensor) -> None:
        """Take in responses to the same images.

        Args:
            responses_b: (B, c, …).
            responses_a: (B, d, …), of as many samples.

        Raises:
            InputError: the numbers of samples differ.
        """
        rows_b, rows_a = samples(responses_b), samples(responses_a)
        if len(rows_b) != len(rows_a):
            raise InputError(f"Both must respond to the same samples, got {len(rows_b)} of B and {len(rows_a)} of A.")
        if self._origins is None:
            self._origins = rows_b.mean(0), rows_a.mean(0)
        self._of_b.update(rows_b)
        self._of_a.update(rows_a)
        self._products = self._products + (rows_b - self._origins[0]).T @ (rows_a - self._origins[1])

    def value(self) -> torch.Tensor:
        """Return the correlations, (c, d) float64: rows are channels of B, columns of A.

        Raises:
            InputError: there were no samples, or responses are not finite.
        """
        (mean_b, sd_b), (mean_a, sd_a) = self._of_b.moments(), self._of_a.moments()
        shifts = torch.outer(mean_b - self._origins[0], mean_a - self._origins[1])
        found = (self._products / self._of_b.count - shifts) / (torch.outer(sd_b, sd_a) + EPS)
        if not found.isfinite().all():
            raise InputError("Responses must be finite numbers, got infinity or NaN. Did the training diverge?")
        return found


def _check_count(count: int) -> None:
    if not count:
        raise InputError("There must be one batch of images at least, got none.")
