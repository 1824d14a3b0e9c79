"""Tables as people read them."""

from typing import Any

import pandas as pd

NONE = "–"


def readable(table: pd.DataFrame, digits: int = 1) -> pd.DataFrame:
    """Write every number of a table for reading: rounded where it is a float, a dash where there is none.

    >>> readable(pd.DataFrame({"mean": [81.26, float("nan")], "seeds": [5, 3]})).to_numpy().tolist()
    [['81.3', '5'], ['–', '3']]

    Args:
        table: numbers and texts.
        digits: behind the point.
    """

    def text(value: Any) -> str:
        if pd.isna(value):
            return NONE
        return f"{value:.{digits}f}" if isinstance(value, float) else str(value)

    return table.astype(object).map(text)
