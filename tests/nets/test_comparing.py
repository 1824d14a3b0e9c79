"""Tables of trials, fronts, and prices at equal cost, on tables whose answers are known."""

import math
from functools import partial
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from torch import nn

from papertwin.nets import comparing
from papertwin.training.pool import Pool
from papertwin.training.trials import SetSizes

COLUMNS = ["network", "MACs", "parameters", "validation error", "test error"]


def table(*rows, seed=1):
    return pd.DataFrame(rows, columns=COLUMNS).assign(seed=seed)


def test_a_front_has_one_network_for_each_cost():
    rows = [("a", 100, 9, 20.0, 1.0), ("b", 100, 8, 20.0, 2.0), ("c", 50, 7, 30.0, 3.0)]
    rows += [("d", 60, 6, 31.0, 4.0), ("e", 100, 5, 19.0, 5.0)]
    assert comparing.front(table(*rows))["network"].tolist() == ["c", "e"]
    assert comparing.front(table(*rows[:4]))["network"].tolist() == ["c", "a"]
    assert comparing.front(table(*rows), "parameters")["network"].tolist() == ["e"]


def test_the_price_is_read_off_a_line_through_the_front_at_equal_cost():
    reference = table(("a", 100, 1, 20.0, 22.0), ("b", 400, 1000, 10.0, 12.0), ("bad", 200, 10, 60.0, 70.0))
    asked = table(("x", 200, 10, 50.0, 20.0), ("y", 400, 1000, 50.0, 11.0), ("dear", 401, 1001, 0.0, 0.0))
    price, number = comparing.above_front(asked, reference)
    assert (price, number) == (pytest.approx(((20 - 17) + (11 - 12)) / 2), 2)
    by_parameters, _ = comparing.above_front(asked.iloc[:1], reference, "parameters")
    assert by_parameters == pytest.approx(20 - (22 - 10 / 3))  # a third of the way from 1 to 1000 in decades
    none, zero = comparing.above_front(asked.iloc[2:], reference)
    assert math.isnan(none)
    assert zero == 0


def test_pairs_are_of_one_seed():
    rows = pd.concat([table(("p", 1, 1, 0, 20.0 + s), ("q", 1, 1, 0, 18.0 - s), seed=s) for s in (2, 1)])
    assert comparing.paired(rows, "p", "q").tolist() == [4.0, 6.0]
    assert comparing.paired(rows, "p", "q", "seed").tolist() == [0, 0]


def linear(classes, *, in_channels, seed):
    return nn.Sequential(nn.Flatten(), nn.Linear(in_channels * 49, classes))


def test_known_trials_are_not_trained_again_and_every_other_pair_is():
    sizes = SetSizes("mnist", 7, 60, 50, 50)
    known = [SimpleNamespace(name="b", seed=2)]
    with Pool(1) as pool:
        options = {"epochs": 1, "rate": 0.1}
        found = comparing.train_all({"a": partial(linear), "b": partial(linear)}, (1, 2), sizes, pool, known, **options)
    assert [(trial.name, trial.seed) for trial in found] == [("b", 2), ("a", 1), ("b", 1), ("a", 2)]
    rows = comparing.trial_table(found[1:], sizes.shape)
    assert rows["MACs"].tolist() == [500] * 3
    assert rows["parameters"].tolist() == [500] * 3
    assert np.allclose(rows["test error"], [100 * trial.test_error for trial in found[1:]])
