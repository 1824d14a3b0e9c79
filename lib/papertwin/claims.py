"""From measured values to verdicts: the rules of the ledger, applied without mercy or kindness."""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from papertwin.errors import LedgerError
from papertwin.ledger import PROFILES, Claim, Ledger, Rule


class Verdict(StrEnum):
    """What can honestly be said about a claim."""

    REPRODUCED = "REPRODUCED"
    NOT_REPRODUCED = "NOT REPRODUCED"
    INCONCLUSIVE = "INCONCLUSIVE"
    NOT_JUDGED = "NOT JUDGED"


@dataclass(frozen=True)
class Measured:
    """What we found for one claim.

    Attributes:
        value: the measured number; a bool for a `holds` rule; None where nothing could be measured (the note
            says why).
        interval: confidence interval (low, high) of a statistical value, same unit.
        note: what a reader needs to understand the number.
    """

    value: float | bool | None
    interval: tuple[float, float] | None = None
    note: str = ""


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
    due = {claim.id for claim in ledger.claims if PROFILES.index(claim.needs) <= level}
    if unknown := sorted(set(measured) - known):
        raise LedgerError(f"{ledger.slug}: measured claims {unknown} are not in the ledger, which has {sorted(known)}.")
    if missing := sorted(due - set(measured)):
        raise LedgerError(f"{ledger.slug}: profile {profile} must judge {missing}; pass a Measured for each.")
    judgements = []
    for claim in ledger.claims:
        if claim.id not in due:
            reason = f"needs profile {claim.needs}, this run is {profile}"
            nothing = measured.get(claim.id, Measured(None, note=reason))
            judgements.append(Judgement(claim, nothing, Verdict.NOT_JUDGED, reason))
            continue
        found = measured[claim.id]
        try:
            verdict = apply_rule(claim.rule, found)
        except LedgerError as error:
            raise LedgerError(f"{ledger.slug}, claim {claim.id}: {error}") from error
        judgements.append(Judgement(claim, found, verdict, found.note))
    return judgements
