"""The panel of speed-ups draws what its table says, and leaves the standard networks out."""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest

from papertwin.errors import InputError
from papertwin.figures.speeds import speed_panel


def table():
    rows = [
        ("NiN Orig.", "eager", 1.0, 1.0, 1.0, 1.0),
        ("NiN root-2", "eager", 1.4, 1.2, 1.25, 1.1),
        ("NiN root-8", "eager", 2.2, 0.7, 1.6, 1.3),
        ("NiN root-8", "fastest", 2.2, 1.8, 1.6, 1.3),
        ("VGG lr", "eager", 3.0, 2.0, np.nan, np.nan),
    ]
    return pd.DataFrame(rows, columns=["network", "way", "MACs", "faster", "published CPU", "published GPU"])


def points(ax):
    """Label or marker → drawn points."""
    return [
        (line.get_marker(), line.get_markerfacecolor(), np.transpose(line.get_data()).tolist()) for line in ax.lines
    ]


def test_every_measured_and_published_ratio_is_drawn():
    figure, ax = plt.subplots()
    speed_panel(ax, table())
    drawn = points(ax)
    hollow = [data for marker, face, data in drawn if face == "none"]
    assert hollow == [[[1.4, 1.25], [2.2, 1.6]], [[1.4, 1.1], [2.2, 1.3]]]
    filled = [(marker, data) for marker, face, data in drawn if face != "none" and marker != "None" and data]
    assert filled == [("o", [[1.4, 1.2], [2.2, 0.7]]), ("^", [[2.2, 1.8]]), ("o", [[3.0, 2.0]])]
    assert [text.get_text() for text in ax.texts] == ["NiN", "VGG"]
    low, high = ax.get_ylim()
    assert low < 0.7
    assert high > 3.0
    plt.close(figure)


def test_the_dashed_line_is_time_that_falls_as_operations_do():
    figure, ax = plt.subplots()
    speed_panel(ax, table())
    (dashed,) = [line for line in ax.lines if line.get_linestyle() == "--"]
    assert np.allclose(*dashed.get_data())
    assert {text.get_text() for text in ax.get_legend().get_texts()} == {
        *("published CPU", "published GPU", "eager", "fastest")
    }
    plt.close(figure)


def replaced(column, value, row=2):
    found = table()
    found.loc[row, column] = value
    return found


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (table().drop(columns=["way", "faster"]), r"must have the columns network, way, .*; it lacks way, faster\."),
        (pd.DataFrame(), "it lacks network, way, MACs, faster, published CPU, published GPU"),
        (table().iloc[:0], "MACs above 1; got 0 rows, none so"),
        (table().iloc[:1], "MACs above 1; got 1 rows, none so"),
        (replaced("MACs", 0.0), r"MACs must be finite numbers above 0, got \[0\.0\]"),
        (replaced("MACs", np.nan), r"MACs must be finite numbers above 0, got \[nan\]"),
        (replaced("faster", -0.5), r"faster must be finite numbers above 0, got \[-0\.5\]"),
        (replaced("faster", np.nan), r"faster must be finite numbers above 0, got \[nan\]"),
        (replaced("published CPU", 0.0), r"published CPU must be finite numbers above 0, got \[0\.0\]"),
        (replaced("published GPU", np.inf), r"published GPU must be finite numbers above 0, got \[inf\]"),
        (replaced("way", "slow"), "way must be one of eager, channels_last, fastest, compile, got 'slow'"),
        (replaced("way", "fastest", row=4), "must have a row of the way 'eager', got none of VGG"),
    ],
)
def test_what_cannot_be_drawn_is_refused_with_what_was_got_and_nothing_is_drawn(wrong, message):
    figure, ax = plt.subplots()
    with pytest.raises(InputError, match=message):
        speed_panel(ax, wrong)
    assert not ax.lines
    plt.close(figure)
