"""What the tests of all papers share: equal networks, and what a perceptron costs."""

import pytest
import torch


def _same_state(first, second):
    one, other = first.state_dict(), second.state_dict()
    return one.keys() == other.keys() and all(torch.equal(value, other[name]) for name, value in one.items())


@pytest.fixture(scope="session")
def same_state():
    """Whether two networks are equal in every bit, as a function."""
    return _same_state


@pytest.fixture(scope="session")
def macs_of_perceptron():
    """Multiply-accumulates of the perceptron of two hidden layers on 14 × 14 pixels, by its neurons, as a function."""
    return lambda neurons: 196 * neurons + neurons + neurons * neurons + neurons + 10 * neurons + 10
