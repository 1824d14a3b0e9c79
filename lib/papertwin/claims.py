"""From measured values to verdicts: the rules of the ledger, applied without mercy or kindness."""

import math
import numbers
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from papertwin.errors import LedgerError
from papertwin.ledger import PROFILES, Claim, Ledger, Rule

if TYPE_CHECKING:
    import pandas as pd

OPEN = "In the table above, as another machine may decide otherwise (a measured time, or a difference near its limit):"


class Verdict(StrEnum):
    """What can honestly be said about a claim."""

    REPRODUCED = "REPRODUCED"
    NOT_REPRODUCED = "NOT REPRODUCED"
    INCONCLUSIVE = "INCONCLUSIVE"
    NOT_JUDGED = "NOT JUDGED"


@dataclass(frozen=True)
class Measured:
    """What we found for one claim.

    Scalars of numpy and torch are taken as well and become plain ones.

    Attributes:
        value: the measured number; a bool for a `holds` rule; None where nothing could be measured (the note
            says why).
        interval: confidence interval (low, high) of a statistical value, same unit.
        note: what a reader needs to understand the number.

    Raises:
        LedgerError: no scalar, NaN or infinite, an interval that is not two such numbers, or None without a note.
    """

    value: float | bool | None
    interval: tuple[float, float] | None = None
    note: str = ""

    def __post_init__(self) -> None:
        """Bring value and interval to plain Python, or say what is wrong with them."""
        object.__setattr__(self, "value", _scalar(self.value))
        if self.value is None and not self.note.strip():
            raise LedgerError("Measured(None) without a note: say why nothing was measured, Measured(None, note=…).")
        if self.interval is None:
            return
        try:
            low, high = self.interval
        except (TypeError, ValueError) as error:
            raise LedgerError(f"Interval {self.interval!r} is not two numbers (low, high).") from error
        object.__setattr__(self, "interval", (_number(low), _number(high)))


def over_seeds(values: Any, note: str, least: int = 3) -> Measured:
    """Measure a mean over seeds with its t-interval; not judged with too few, or where a seed gave none (NaN).

    Leaving out the seeds without a value would choose those that went well.

    Args:
        values: (seeds,) numbers.
        note: what they are.
        least: smallest number of seeds.
    """
    import numpy as np

    from papertwin.training.intervals import t_interval

    found = np.asarray(values, dtype=float)
    each = ", ".join(f"{value:+.2f}" for value in found)
    if np.isnan(found).any() or len(found) < least:
        return Measured(None, note=f"{np.isfinite(found).sum()} of {len(found)} seeds gave a value; {note}; {each}")
    return Measured(found.mean(), t_interval(found), f"{note}; per seed {each}")


def median_ratio(ratios: Any, note: str, seed: int = 0) -> Measured:
    """Measure a ratio of times: the median of the ratios, round by round or case by case, and its bootstrap interval.

    Args:
        ratios: (n,) numbers.
        note: what they are.
        seed: of the bootstrap.
    """
    import numpy as np

    from papertwin.training.intervals import bootstrap

    found = np.asarray(ratios, dtype=float)
    interval = bootstrap(lambda rows: float(np.median(found[rows])), len(found), seed)
    return Measured(np.median(found), interval, note)


def exact_shares(table: "pd.DataFrame", wanted: Mapping[tuple[str, str, str], float]) -> Measured:
    """Check counts that are exact, and what is left of another row's.

    Args:
        table: a row a name; columns of counts, and `exact`, whether a row's counts are the published ones.
        wanted: (name, name that it is compared with, column) → the share that is left, to two digits.
    """
    found = {key: table.loc[key[0], key[2]] / table.loc[key[1], key[2]] for key in wanted}
    exact = bool(table.loc[list({name for key in wanted for name in key[:2]}), "exact"].all())
    right = all(round(share, 2) == wanted[key] for key, share in found.items())
    note = "; ".join(f"{name}: {share:.4f} of {base}'s {column}" for (name, base, column), share in found.items())
    return Measured(exact and right, note=note)


def _scalar(value: Any) -> float | bool | None:
    """Turn a plain, numpy or torch scalar into a float, a bool or None."""
    try:
        plain = value.item() if hasattr(value, "item") else value
    except (ValueError, RuntimeError, TypeError) as error:
        raise LedgerError(f"Measured {value!r} is not one value but several; pass a scalar.") from error
    if plain is None or isinstance(plain, bool):
        return plain
    if not isinstance(plain, numbers.Real):
        raise LedgerError(f"Measured {value!r} ({type(value).__name__}); expected a number, a bool or None.")
    if not math.isfinite(plain):
        raise LedgerError(f"Measured {value!r}; a number must be finite. Where there is none: Measured(None, note=…).")
    return float(plain)


def _number(value: Any) -> float:
    plain = _scalar(value)
    if plain is None or isinstance(plain, bool):
        raise LedgerError(f"Interval with {value!r}; expected two numbers (low, high).")
    return plain


@dataclass(frozen=True)
class Judgement:
    """One line of the claims table."""

    claim: Claim
    measured: Measured
    verdict: Verdict
    reason: str


def apply_rule(rule: Rule, measured: Measured) -> Verdict:
    """Decide one claim from its rule alone.

    Raises:
        LedgerError: the measured value is not of the kind that the rule judges.
    """
    value = measured.value
    if value is None:
        return Verdict.NOT_JUDGED
    if (rule.kind == "holds") != isinstance(value, bool):
        raise LedgerError(
            f"Rule `{rule.kind}` got {value!r} ({type(value).__name__}); "
            "`holds` judges a bool, every other rule a number."
        )
    low, high = measured.interval or (value, value)
    if not low <= value <= high:
        raise LedgerError(f"Interval [{low}, {high}] does not contain the measured value {value}.")
    match rule.kind:
        case "holds":
            inside, outside = bool(value), not value
        case "at_least":
            inside, outside = low >= rule.value, high < rule.value
        case "above":
            inside, outside = low > rule.value, high <= rule.value
        case "at_most":
            inside, outside = high <= rule.value, low > rule.value
        case _:
            least, most = rule.value - rule.tolerance, rule.value + rule.tolerance
            inside, outside = least <= low and high <= most, high < least or low > most
    if inside:
        return Verdict.REPRODUCED
    return Verdict.NOT_REPRODUCED if outside else Verdict.INCONCLUSIVE


def judge(ledger: Ledger, profile: str, measured: Mapping[str, Measured]) -> list[Judgement]:
    """Judge every claim of a paper, in the ledger's order.

    Args:
        ledger: the paper's ledger.
        profile: the profile that was run; a claim that needs a larger one is NOT JUDGED.
        measured: claim id → what was found. Claims that this profile can judge must all be there.

    Raises:
        LedgerError: an unknown claim id, or a judgeable claim without a measurement.
    """
    level = PROFILES.index(profile)
    known = {claim.id for claim in ledger.claims}
    due = {claim.id for claim in ledger.claims if claim.needs in PROFILES[: level + 1]}
    if unknown := sorted(set(measured) - known):
        raise LedgerError(f"{ledger.slug}: measured claims {unknown} are not in the ledger, which has {sorted(known)}.")
    if missing := sorted(due - set(measured)):
        raise LedgerError(f"{ledger.slug}: profile {profile} must judge {missing}; pass a Measured for each.")
    judgements = []
    for claim in ledger.claims:
        if claim.id not in due:
            found = measured.get(claim.id)
            none = "no profile can judge it"
            reason = none if claim.needs == "more" else f"needs profile {claim.needs}, this run is {profile}"
            if found is not None and found.note:
                reason += f"; {found.note}"
            judgements.append(Judgement(claim, found or Measured(None, note=reason), Verdict.NOT_JUDGED, reason))
            continue
        found = measured[claim.id]
        try:
            verdict = apply_rule(claim.rule, found)
        except LedgerError as error:
            raise LedgerError(f"{ledger.slug}, claim {claim.id}: {error}") from error
        judgements.append(Judgement(claim, found, verdict, "; ".join(filter(None, (found.note, claim.caveat)))))
    return judgements


class Claims:
    """The judged claims of a run: a full table for the reader, verdict lines that CI compares."""

    def __init__(self, judgements: list[Judgement]):
        """Hold the judgements in the ledger's order."""
        self.judgements = judgements

    @property
    def table(self) -> "pd.DataFrame":
        """Every claim with the published and the measured value, the limit, the rule in words and the verdict."""
        import pandas as pd

        pd.set_option("display.max_colwidth", None)
        rows = [
            {
                "claim": j.claim.id,
                "statement": j.claim.statement,
                "source": j.claim.source,
                "published": j.claim.published,
                "measured": describe(j.measured, j.claim.rule.unit),
                "limit": limit(j.claim.rule),
                "rule": j.claim.rule.text,
                "verdict": str(j.verdict),
                "note": j.reason,
            }
            for j in self.judgements
        ]
        return pd.DataFrame(rows).set_index("claim")

    @property
    def verdicts(self) -> str:
        """One line per claim whose verdict is clear on any machine; a last line names the others."""
        lines = [f"{j.claim.id:4} {j.verdict}" for j in self.judgements if j.claim.stable]
        unclear = [j.claim.id for j in self.judgements if not j.claim.stable]
        if unclear:
            lines.append(f"{OPEN} {', '.join(unclear)}")
        return "\n".join(lines)


def limit(rule: Rule) -> str:
    """Write what a measured value must keep to.

    >>> limit(Rule(kind="within", value=0.5, tolerance=0.02, text="")), limit(Rule(kind="above", value=0, text=""))
    ('0.5 ± 0.02', '> 0')
    """
    signs = {"at_least": "≥ ", "above": "> ", "at_most": "≤ ", "within": "", "holds": "yes"}
    value = "" if rule.value is None else f"{rule.value:g}"
    tolerance = f" ± {rule.tolerance:g}" if rule.kind == "within" else ""
    return f"{signs[rule.kind]}{value}{tolerance} {rule.unit}".rstrip()


def describe(measured: Measured, unit: str = "") -> str:
    """Write a measured value for people: `0.93 [0.90, 0.95] points`, `yes`, `–`."""
    if measured.value is None:
        return "–"
    if isinstance(measured.value, bool):
        return "yes" if measured.value else "no"
    text = f"{measured.value:.3g}"
    if measured.interval:
        text += f" [{measured.interval[0]:.3g}, {measured.interval[1]:.3g}]"
    return f"{text} {unit}".rstrip()
