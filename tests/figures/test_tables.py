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


def test_a_whole_number_of_a_float_column_keeps_its_digits():
    assert readable(pd.DataFrame({"a": [81.0, 2.5], "b": [3, 4]})).to_numpy().tolist() == [["81.0", "3"], ["2.5", "4"]]
