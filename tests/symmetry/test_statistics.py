"""Streams of batches have the moments and correlations that NumPy finds in all of them together."""

import numpy as np
import pytest
import torch

from papertwin.errors import InputError
from papertwin.symmetry import ChannelSums, Correlation


def rows(responses):
    return responses.double().movedim(1, -1).flatten(0, -2).numpy()


@pytest.mark.parametrize("shape", [(40, 5), (12, 5, 4, 3)])
@pytest.mark.parametrize("offset", [0.0, 1e4])
def test_correlations_are_numpys(shape, offset):
    generator = torch.Generator().manual_seed(0)
    of_b = torch.randn(shape, generator=generator).double() + offset
    of_a = of_b.flip(1) * 3 + torch.randn(shape, generator=generator)
    of_a = torch.cat([of_a, torch.zeros_like(of_a[:, :1])], 1)  # one channel is dead
    both = Correlation()
    for part_b, part_a in zip(of_b.split(5), of_a.split(5)):
        both.update(part_b, part_a)
    wanted = np.corrcoef(rows(of_b), rows(of_a)[:, :5], rowvar=False)[:5, 5:]
    deviations = np.outer(rows(of_b).std(0), rows(of_a)[:, :5].std(0))
    assert both.value()[:, :5].numpy() == pytest.approx(wanted * deviations / (deviations + 1e-4), abs=1e-9)
    assert torch.equal(both.value()[:, 5], torch.zeros(5, dtype=torch.float64))


@pytest.mark.parametrize("shape", [(40, 5), (12, 5, 4, 3)])
def test_moments_are_numpys(shape):
    responses = torch.randn(shape, generator=torch.Generator().manual_seed(0)).double() * 2 + 1e5
    sums = ChannelSums()
    for part in responses.split(7):
        sums.update(part)
    mean, deviation = sums.moments()
    assert sums.count == len(rows(responses))
    assert mean.numpy() == pytest.approx(rows(responses).mean(0), rel=1e-12)
    assert deviation.numpy() == pytest.approx(rows(responses).std(0), rel=1e-9)


def test_what_was_shown_stays_as_it_is():
    responses = torch.ones(3, 2, dtype=torch.float64)
    sums = ChannelSums()
    sums.update(responses)
    sums.update(responses)
    assert torch.equal(responses, torch.ones(3, 2, dtype=torch.float64))


def test_samples_that_cannot_be_used():
    with pytest.raises(InputError, match="one batch of images at least, got none"):
        ChannelSums().moments()
    with pytest.raises(InputError, match="one batch of images at least, got none"):
        Correlation().value()
    with pytest.raises(InputError, match=r"\(B, channels, …\), got \(3,\)"):
        ChannelSums().update(torch.ones(3))
    with pytest.raises(InputError, match="same samples, got 3 of B and 4 of A"):
        Correlation().update(torch.ones(3, 2), torch.ones(4, 2))
    both = Correlation()
    both.update(torch.full((3, 2), torch.inf), torch.ones(3, 2))
    with pytest.raises(InputError, match="finite"):
        both.value()
