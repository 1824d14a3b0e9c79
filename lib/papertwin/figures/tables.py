"""Tables as people read them."""

from typing import Any

import pandas as pd

NONE = "–"


def readable(table: pd.DataFrame, digits: int = 1) -> pd.DataFrame:
    """Write every number of a table for reading: a dash where there is none, whole columns without a point.

    >>> readable(pd.DataFrame({"mean": [81.26, float("nan")], "steps": [51200, 3.0]})).to_numpy().tolist()
    [['81.3', '51,200'], ['–', '3']]

    Args:
        table: numbers and texts; a column of which each number is whole has no digits behind the point, and what is
            neither, for example a list, is written as Python does.
        digits: behind the point, of all other columns.
    """

    def text(value: Any) -> str:
        if isinstance(value, bool | str) or not pd.api.types.is_scalar(value):
            return str(value)
        if pd.isna(value):
            return NONE
        return f"{value:,}" if isinstance(value, int) else f"{value:,.{digits}f}"

    return table.convert_dtypes().astype(object).map(text)
