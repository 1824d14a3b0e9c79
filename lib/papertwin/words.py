"""Quantities as people say them: durations, large numbers, lists."""

from collections.abc import Iterable

TIMES = {"year": 365.25 * 86400, "day": 86400, "hour": 3600, "minute": 60, "second": 1}  # seconds
SCALES = {"quintillion": 1e18, "quadrillion": 1e15, "trillion": 1e12, "billion": 1e9, "million": 1e6}


def duration(seconds: float) -> str:
    """Say a duration in the largest unit of which it has one, with a digit behind the point below ten.

    >>> duration(72), duration(60 * 680_000), duration(3600), duration(0.3)
    ('1.2 minutes', '1.3 years', '1 hour', 'less than a second')
    """
    for unit, size in TIMES.items():
        amount = seconds / size
        if round(amount, 2) >= 1:
            shown = f"{round(amount, 1):g}" if amount < 10 else f"{amount:,.0f}"
            return f"{shown} {unit}" if shown == "1" else f"{shown} {unit}s"
    return "less than a second"


def number(count: float) -> str:
    """Say a whole number: in digits below a million, else with three digits and a word.

    >>> number(108_159), number(22_440_000), number(4.65e12), number(999_999_999)
    ('108,159', '22.4 million', '4.65 trillion', '1 billion')
    """
    rounded = float(f"{count:.3g}")
    for word, size in SCALES.items():
        if rounded >= size:
            return f"{rounded / size:,.6g} {word}"
    return f"{count:,.0f}"


def listed(items: Iterable[object], last: str = "and") -> str:
    """Join items with commas, the last one with a word.

    >>> listed([0.95, 0.99]), listed(["mlp", "resnet", "vgg"], "or")
    ('0.95 and 0.99', 'mlp, resnet or vgg')
    """
    *before, final = (f"{item:g}" if isinstance(item, float) else str(item) for item in items)
    return f"{', '.join(before)} {last} {final}" if before else final
