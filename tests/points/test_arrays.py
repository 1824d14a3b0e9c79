"""What may be handed in as a cloud, and what comes back."""

import numpy as np
import pytest
import torch

from papertwin.errors import InputError
from papertwin.points.arrays import positive, take_points


def test_layouts_are_made_contiguous_and_the_input_is_never_changed():
    columns = np.asfortranarray(np.random.default_rng(0).random((5, 3)))
    before = columns.copy()
    array, kind = take_points(columns)
    assert array.flags.c_contiguous
    assert np.array_equal(array, columns)
    assert np.array_equal(columns, before)
    assert not kind.tensor
    assert not kind.single


@pytest.mark.parametrize(
    ("dtype", "single"), [(torch.float32, True), (torch.float64, False), (torch.bfloat16, False), (torch.int64, False)]
)
def test_tensors(dtype, single):
    tensor = torch.ones((4, 3), dtype=dtype)
    array, kind = take_points(tensor)
    assert kind.tensor
    assert kind.single == single
    back = kind.back(array.astype(np.float64))
    assert back.dtype == (torch.float32 if single else torch.float64)
    assert back.device == tensor.device


def test_gradients_are_cut_not_an_error():
    array, _ = take_points(torch.ones((2, 3), requires_grad=True))
    assert array.shape == (2, 3)


def test_integers_and_booleans_keep_their_type_on_the_way_back():
    _, kind = take_points(np.zeros((1, 3), np.float32))
    assert kind.back(np.zeros(2, np.int64)).dtype == np.int64
    assert kind.back(np.zeros(2, bool)).dtype == bool
    assert kind.back(np.zeros(2)).dtype == np.float32


def test_positive():
    assert positive(np.float32(0.5), "x") == 0.5
    for bad in (0, -1, np.nan, np.inf, 1e60, None, "a", [1, 2]):
        with pytest.raises(InputError, match="x must be"):
            positive(bad, "x")
