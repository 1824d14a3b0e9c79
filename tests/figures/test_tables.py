"""Tables for reading keep their shape and names and show no NaN."""

import numpy as np
import pandas as pd

from papertwin.figures import readable


def test_numbers_are_rounded_and_missing_ones_are_dashes():
    table = pd.DataFrame(
        {"mean": [81.26, np.nan], "seeds": pd.array([5, None], dtype="Int64"), "of": ["RigL", None]},
        index=pd.Index([0.9, 0.95], name="sparsity"),
    )
    shown = readable(table, 2)
    assert shown.to_numpy().tolist() == [["81.26", "5", "RigL"], ["–", "–", "–"]]
    assert shown.index.equals(table.index)
    assert shown.columns.equals(table.columns)
    assert readable(table).loc[0.9, "mean"] == "81.3"
    assert table.loc[0.9, "mean"] == 81.26, "the table itself stays"


def test_what_is_no_single_number_is_written_as_it_is():
    table = pd.DataFrame({"a": [[1, 2.5], []], "b": [(1,), None], "c": [np.array([1, 2]), {"d": 3}]})
    assert readable(table).to_numpy().tolist() == [["[1, 2.5]", "(1,)", "[1 2]"], ["[]", "–", "{'d': 3}"]]


def test_only_a_column_of_whole_numbers_has_no_point():
    table = pd.DataFrame({"a": [81.0, 2.5], "b": [3.0, np.nan], "c": [1234567, 4], "d": [True, None]})
    assert readable(table).to_numpy().tolist() == [["81.0", "3", "1,234,567", "True"], ["2.5", "–", "4", "–"]]
