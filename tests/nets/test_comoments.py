"""Moments that arrive in batches are those of NumPy, whatever the batches; whitening gives the identity."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.linalg import fractional_matrix_power

from papertwin.errors import InputError
from papertwin.nets.comoments import EPSILON, Comoments, whitening


def sample(n, seed, features=5):
    rng = np.random.default_rng(seed)
    return rng.normal(size=(n, features)) @ rng.normal(size=(features, features)) + rng.normal(size=features)


def streamed(x, cuts=(), **options):
    moments = Comoments(x.shape[1], **options)
    for rows in np.split(np.arange(len(x)), sorted(cuts)):  # empty batches among them
        moments.update(torch.from_numpy(x[rows]))
    return moments


@given(n=st.integers(2, 40), seed=st.integers(0, 10**6), cuts=st.sets(st.integers(0, 40), max_size=6))
@settings(deadline=None)
def test_moments_are_those_of_numpy_in_any_batches_and_order(n, seed, cuts):
    x = sample(n, seed)
    cuts = [min(cut, n) for cut in cuts]
    for rows in (np.arange(n), np.random.default_rng(seed).permutation(n)):
        moments = streamed(x[rows], cuts)
        assert moments.samples == n
        np.testing.assert_allclose(moments.mean, x.mean(axis=0), atol=1e-12)
        np.testing.assert_allclose(moments.covariance, np.cov(x.T), rtol=1e-9, atol=1e-11)
        np.testing.assert_allclose(moments.scatter, (n - 1) * np.cov(x.T), rtol=1e-9, atol=1e-11)
        np.testing.assert_allclose(moments.correlation, np.corrcoef(x.T), atol=1e-9)


@given(seed=st.integers(0, 10**6), split=st.integers(1, 4), cuts=st.sets(st.integers(0, 20), max_size=4))
@settings(deadline=None)
def test_a_split_keeps_a_corner_of_the_whole(seed, split, cuts):
    x = sample(20, seed)
    whole, part = streamed(x, cuts), streamed(x, cuts, split=split)
    assert part.scatter.shape == (split, 5 - split)
    np.testing.assert_allclose(part.covariance, whole.covariance[:split, split:], rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(part.correlation, whole.correlation[:split, split:], atol=1e-12)


def test_a_large_mean_costs_no_digits():
    x = sample(300, 1)
    np.testing.assert_allclose(streamed(x + 1e8, range(7, 300, 7)).covariance, np.cov(x.T), rtol=1e-5)


def test_what_never_varies_correlates_with_nothing_not_even_itself():
    x = sample(60, 0)
    x[:, 1], x[:, 3] = 0, 0.1
    moments = streamed(x, range(7, 60, 7))
    assert moments.varies.tolist() == [True, False, True, False, True]
    assert not moments.correlation[[1, 3]].any()
    assert not moments.correlation[:, [1, 3]].any()
    np.testing.assert_allclose(np.diag(moments.correlation)[[0, 2, 4]], 1)


def test_batches_stay_as_they_are_and_results_are_copies():
    x = torch.from_numpy(sample(9, 0))
    before, moments = x.clone(), Comoments(5)
    moments.update(x)
    assert torch.equal(x, before)
    moments.scatter[:] = 7
    moments.mean[:] = 7
    np.testing.assert_allclose(moments.covariance, np.cov(x.numpy().T))
    np.testing.assert_allclose(moments.mean, x.numpy().mean(axis=0))


def test_batches_of_any_device_and_precision(device):
    x = sample(30, 2).astype(np.float32)
    moments = Comoments(5)
    for rows in (slice(0, 11), slice(11, 30)):
        moments.update(torch.tensor(x[rows], device=device, requires_grad=True))
    moments.update(torch.tensor(x[:4]))  # of another device
    np.testing.assert_allclose(moments.covariance, np.cov(np.concatenate([x, x[:4]]).T.astype(float)), rtol=1e-9)


def test_memory_does_not_grow():
    moments = Comoments(3)
    size = lambda: sum(t.numel() for t in vars(moments).values() if isinstance(t, torch.Tensor))  # noqa: E731
    before = size()
    for seed in range(20):
        moments.update(torch.from_numpy(sample(50, seed, 3)))
    assert size() == before == 3 + 3 + 9


@given(seed=st.integers(0, 10**6), features=st.integers(1, 8))
@settings(deadline=None)
def test_whitening_of_ones_own_data_gives_the_identity(seed, features):
    covariance = streamed(sample(50, seed, features)).covariance
    white = whitening(covariance, 0)
    rough = np.linalg.cond(covariance)
    np.testing.assert_allclose(white @ covariance @ white.T, np.eye(features), atol=1e-13 * rough + 1e-12)
    np.testing.assert_allclose(white, white.T, atol=1e-12 * np.abs(white).max())


def test_whitening_is_the_inverse_square_root():
    covariance = streamed(sample(50, 3)).covariance
    np.testing.assert_allclose(whitening(covariance, 0), fractional_matrix_power(covariance, -0.5), rtol=1e-8)
    shifted = covariance + 0.3 * np.diag(covariance).mean() * np.eye(5)
    np.testing.assert_allclose(whitening(covariance, 0.3), fractional_matrix_power(shifted, -0.5), rtol=1e-10)


@pytest.mark.parametrize("scale", [1e-6, 1.0, 1e5])
def test_epsilon_knows_no_units(scale):
    covariance = np.diag([4.0, 1.0, 0.0])
    due = np.diag((np.array([4.0, 1.0, 0.0]) + EPSILON * 5 / 3) ** -0.5)
    np.testing.assert_allclose(whitening(scale**2 * covariance) * scale, due, rtol=1e-9)


@pytest.mark.parametrize(
    "call",
    [
        lambda: Comoments(0),
        lambda: Comoments(3, split=3),
        lambda: Comoments(3, split=0),
        lambda: Comoments(2).update(torch.zeros(2, 3)),
        lambda: Comoments(2).update(torch.zeros(2)),
        lambda: Comoments(1).update(torch.tensor([[float("nan")]])),
        lambda: Comoments(1).update(torch.tensor([[float("inf")]])),
        lambda: Comoments(1).covariance,
        lambda: streamed(np.ones((1, 2))).correlation,
        lambda: whitening(np.eye(2), -0.1),
        lambda: whitening(np.eye(2), float("nan")),
        lambda: whitening(np.eye(2), True),
        lambda: whitening(np.zeros((2, 2))),
        lambda: whitening(np.diag([1.0, 0.0]), 0),
    ],
)
def test_arguments_that_cannot_be_used(call):
    with pytest.raises(InputError, match="got"):
        call()
