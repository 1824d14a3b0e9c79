"""Λ12 is Pearson's correlation, whatever the batches; what does not vary correlates with nothing."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from papertwin.errors import InputError
from papertwin.nets.conditional import ActivationCorrelation, activation_correlation


def pearson(x, y):
    """The definition, pair by pair, by NumPy."""
    return np.array([[np.corrcoef(column, target)[0, 1] for target in y.T] for column in x.T])


def sample(n, seed, features=4, classes=3):
    rng = np.random.default_rng(seed)
    labels = np.append(np.arange(classes), rng.integers(classes, size=n - classes))
    return rng.normal(size=(n, features)) + rng.normal(size=(classes, features))[labels], labels


@given(n=st.integers(4, 40), seed=st.integers(0, 10**6), batch=st.integers(1, 41))
@settings(deadline=None)
def test_labels_and_outputs_in_any_batches(n, seed, batch):
    x, labels = sample(n, seed)
    outputs = np.random.default_rng(seed + 1).normal(size=(n, 5)) + x[:, :1]
    by_label = activation_correlation(x, labels, batch=batch)
    np.testing.assert_allclose(by_label, pearson(x, np.eye(3)[labels]), atol=1e-9)
    np.testing.assert_allclose(activation_correlation(x, outputs, batch=batch), pearson(x, outputs), atol=1e-9)
    np.testing.assert_allclose(activation_correlation(x, np.eye(3)[labels], batch=batch), by_label, atol=1e-12)


@given(seed=st.integers(0, 10**6), cuts=st.sets(st.integers(0, 30), max_size=5))
@settings(deadline=None)
def test_a_stream_forgets_nothing(seed, cuts):
    x, labels = sample(30, seed)
    stream = ActivationCorrelation(4, 3)
    for rows in np.split(np.arange(30), sorted(cuts)):  # empty batches among them
        stream.update(x[rows], labels[rows])
    assert stream.seen == 30
    np.testing.assert_allclose(stream.value, activation_correlation(x, labels), atol=1e-12)


@given(seed=st.integers(0, 10**6), scale=st.sampled_from([1e-3, 0.5, 7.0, 1e4]), shift=st.floats(-5, 5))
@settings(deadline=None)
def test_units_and_orders_do_not_matter(seed, scale, shift):
    x, labels = sample(25, seed)
    due = activation_correlation(x, labels)
    rng = np.random.default_rng(seed)
    np.testing.assert_allclose(activation_correlation(scale * x + shift, labels), due, atol=1e-9)
    np.testing.assert_allclose(activation_correlation(-x, labels), -due, atol=1e-12)
    rows, columns, classes = rng.permutation(25), rng.permutation(4), rng.permutation(3)
    other = activation_correlation(x[rows][:, columns], classes[labels][rows])
    np.testing.assert_allclose(other[:, classes], due[columns], atol=1e-12)  # class c is now called classes[c]


def test_what_never_varies_correlates_with_nothing():
    x, labels = sample(50, 0)
    x[:, 1], x[:, 2] = 0, 0.1
    value = activation_correlation(x, labels, count=5, batch=7)  # nobody is of class 3 or 4
    assert value.shape == (4, 5)
    assert not value[1:3].any()
    assert not value[:, 3:].any()
    np.testing.assert_allclose(value[[0, 3], :3], pearson(x[:, [0, 3]], np.eye(3)[labels]))


def test_a_large_mean_costs_no_digits():
    x, labels = sample(200, 1)
    far = activation_correlation(x + 1e7, labels, batch=13)
    np.testing.assert_allclose(far, activation_correlation(x, labels), atol=1e-7)


def test_perfect_correlation_is_exactly_one():
    labels = np.array([0, 1, 1, 0, 1])
    np.testing.assert_allclose(activation_correlation(labels[:, None] * 3.0, labels), [[-1, 1]])
    assert np.abs(activation_correlation(labels[:, None] * 0.1, labels)).max() <= 1


def test_maps_and_tensors_of_any_device(device):
    x, labels = sample(20, 2)
    maps = torch.tensor(x.reshape(20, 1, 2, 2), dtype=torch.float32, device=device, requires_grad=True)
    found = activation_correlation(maps, torch.tensor(labels, device=device))
    np.testing.assert_allclose(found, activation_correlation(x, labels), atol=1e-6)


@pytest.mark.parametrize(
    "call",
    [
        lambda: activation_correlation(np.ones((3, 2)), [0, 1]),
        lambda: activation_correlation(np.ones((1, 2)), [0]),
        lambda: activation_correlation([[1.0], [np.nan]], [0, 1]),
        lambda: activation_correlation([[1.0], [2.0]], [0, -1]),
        lambda: activation_correlation([[1.0], [2.0]], [0, 2], count=2),
        lambda: activation_correlation([[1.0], [2.0]], [0.0, 1.0]),
        lambda: ActivationCorrelation(2, 2).update([[1.0]], [0]),
        lambda: ActivationCorrelation(1, 2).update([[1.0]], [[1.0, 2.0, 3.0]]),
        lambda: ActivationCorrelation(0, 2),
        lambda: ActivationCorrelation(2, True),
        lambda: ActivationCorrelation(1, 2).value,
    ],
)
def test_arguments_that_cannot_be_used(call):
    with pytest.raises(InputError, match="got"):
        call()
