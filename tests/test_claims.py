"""Rules become verdicts; every branch, both sides, and the borders."""

import dataclasses
import json
import math

import numpy as np
import pytest
import torch

from papertwin import ledger
from papertwin.claims import (
    OPEN,
    Claims,
    Measured,
    Verdict,
    apply_rule,
    describe,
    exact_shares,
    judge,
    limit,
    median_ratio,
    over_seeds,
)
from papertwin.errors import LedgerError
from papertwin.ledger import Rule
from papertwin.results import JudgedClaim


@pytest.mark.parametrize(
    ("rule", "measured", "verdict"),
    [
        (("at_least", 1.0, None), Measured(1.0), Verdict.REPRODUCED),
        (("at_least", 1.0, None), Measured(0.99), Verdict.NOT_REPRODUCED),
        (("at_least", 1.0, None), Measured(1.2, (1.0, 1.4)), Verdict.REPRODUCED),
        (("at_least", 1.0, None), Measured(1.2, (0.9, 1.4)), Verdict.INCONCLUSIVE),
        (("at_least", 1.0, None), Measured(0.5, (0.4, 0.99)), Verdict.NOT_REPRODUCED),
        (("above", 1.0, None), Measured(1.0), Verdict.NOT_REPRODUCED),
        (("above", 1.0, None), Measured(1.2, (1.0, 1.4)), Verdict.INCONCLUSIVE),
        (("above", 1.0, None), Measured(1.2, (1.1, 1.4)), Verdict.REPRODUCED),
        (("above", 1.0, None), Measured(0.9, (0.8, 1.0)), Verdict.NOT_REPRODUCED),
        (("at_most", 1.0, None), Measured(1.0), Verdict.REPRODUCED),
        (("at_most", 1.0, None), Measured(0.8, (0.7, 1.1)), Verdict.INCONCLUSIVE),
        (("at_most", 1.0, None), Measured(1.3, (1.1, 1.4)), Verdict.NOT_REPRODUCED),
        (("within", 2.0, 0.5), Measured(2.5), Verdict.REPRODUCED),
        (("within", 2.0, 0.5), Measured(2.6), Verdict.NOT_REPRODUCED),
        (("within", 2.0, 0.5), Measured(2.4, (2.3, 2.6)), Verdict.INCONCLUSIVE),
        (("within", 2.0, 0.5), Measured(1.2, (1.0, 1.4)), Verdict.NOT_REPRODUCED),
        (("holds", None, None), Measured(True), Verdict.REPRODUCED),
        (("holds", None, None), Measured(False), Verdict.NOT_REPRODUCED),
        (("holds", None, None), Measured(None, note="why"), Verdict.NOT_JUDGED),
    ],
)
def test_rule_to_verdict(rule, measured, verdict):
    kind, value, tolerance = rule
    assert apply_rule(Rule(kind=kind, value=value, tolerance=tolerance, text="t"), measured) is verdict


@pytest.mark.parametrize("found", [Measured(True), Measured(0.5, (0.6, 0.7)), Measured(0.5, (0.7, 0.4))])
def test_unusable_measurements_are_refused(found):
    with pytest.raises(LedgerError):
        apply_rule(Rule(kind="at_least", value=1.0, text="t"), found)


@pytest.mark.parametrize(
    ("value", "plain"),
    [
        (2, 2.0),
        (np.float32(0.5), 0.5),
        (np.int64(3), 3.0),
        (np.array(1.5), 1.5),
        (torch.tensor(0.25), 0.25),
        (np.bool_(True), True),
        (torch.tensor(False), False),
        (True, True),
    ],
    ids=repr,
)
def test_scalars_of_numpy_and_torch_become_plain(value, plain):
    found = Measured(value)
    assert found.value == plain
    assert type(found.value) is type(plain)
    kind = "holds" if isinstance(plain, bool) else "at_least"
    assert apply_rule(Rule(kind=kind, value=0.0, text="t"), found) in (Verdict.REPRODUCED, Verdict.NOT_REPRODUCED)
    assert json.loads(json.dumps(found.value)) == plain


def test_intervals_become_two_plain_floats():
    for given in (np.array([0.5, 2.0]), [np.float32(0.5), 2], torch.tensor([0.5, 2.0])):
        interval = Measured(1.0, given).interval
        assert interval == (0.5, 2.0)
        assert [type(end) for end in interval] == [float, float]


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        ((None,), "say why"),
        ((None, None, "  "), "say why"),
        ((float("nan"),), "finite"),
        ((np.float64("inf"),), "finite"),
        (("0.5",), "expected a number"),
        ((1j,), "expected a number"),
        ((np.array([1.0, 2.0]),), "several"),
        ((torch.ones(2),), "several"),
        ((1.0, 0.5), "not two numbers"),
        ((1.0, (0.5, 1.0, 2.0)), "not two numbers"),
        ((1.0, (0.5, float("inf"))), "finite"),
        ((1.0, (None, 2.0)), "two numbers"),
    ],
    ids=repr,
)
def test_what_is_no_measurement_is_refused_at_once(given, reason):
    with pytest.raises(LedgerError, match=reason):
        Measured(*given)


def test_a_number_does_not_satisfy_a_holds_rule():
    with pytest.raises(LedgerError, match="judges a bool"):
        apply_rule(Rule(kind="holds", text="t"), Measured(1.0))


@pytest.fixture
def book(toy_ledger):
    return ledger.parse(toy_ledger, "toy")


FOUND = {"C1": Measured(2.0, (1.5, 2.5), "note"), "C2": Measured(False)}


def test_a_claim_beyond_the_profile_is_not_judged_and_says_why(book):
    first, _, last = judge(book, "quick", FOUND)
    assert first.verdict is Verdict.REPRODUCED
    assert last.verdict is Verdict.NOT_JUDGED
    assert "needs profile full" in last.reason


def test_a_caveat_stands_behind_the_note_of_a_verdict(book):
    first, second, third = (each.model_copy(update={"caveat": "beware"}) for each in book.claims)
    judged = judge(book.model_copy(update={"claims": [first, second, third]}), "quick", FOUND)
    assert [each.reason for each in judged[:2]] == ["note; beware", "beware"]
    assert "beware" not in judged[2].reason
    assert JudgedClaim.of(judged[0]).note == "note; beware"


def test_a_claim_that_no_profile_can_judge_says_so(book):
    more = book.claims[2].model_copy(update={"needs": "more"})
    book = book.model_copy(update={"claims": [*book.claims[:2], more]})
    measured = FOUND | {"C3": Measured(None, note="it needs a factory")}
    for profile in ("quick", "full", "paper"):
        last = judge(book, profile, measured)[2]
        assert (last.verdict, last.reason) == (Verdict.NOT_JUDGED, "no profile can judge it; it needs a factory")
        assert judge(book, profile, FOUND)[2].reason == "no profile can judge it"
    with pytest.raises(LedgerError, match="must judge"):
        judge(book, "paper", {"C3": Measured(None, note="it needs a factory")})


def test_a_claim_beyond_the_profile_keeps_its_own_note(book):
    measured = {"C1": Measured(2.0), "C2": Measured(True), "C3": Measured(None, note="3 frames found")}
    third = judge(book, "quick", measured)[2]
    assert third.verdict is Verdict.NOT_JUDGED
    assert third.reason == "needs profile full, this run is quick; 3 frames found"


def test_missing_and_unknown_claims_are_errors(book):
    with pytest.raises(LedgerError, match="must judge \\['C1', 'C2'\\]"):
        judge(book, "quick", {})
    with pytest.raises(LedgerError, match="C9"):
        judge(book, "quick", {**FOUND, "C9": Measured(1.0)})
    with pytest.raises(LedgerError, match="C3"):
        judge(book, "full", FOUND)


def test_a_claim_that_cannot_be_judged_is_named(book):
    with pytest.raises(LedgerError, match="toy, claim C2: Rule `holds`"):
        judge(book, "quick", {**FOUND, "C2": Measured(1.0)})


def test_verdict_lines_name_the_unstable_claims_at_the_end(book):
    judged = judge(book, "quick", FOUND)
    assert Claims(judged).verdicts.splitlines() == ["C1   REPRODUCED", "C3   NOT JUDGED", f"{OPEN} C2"]
    stable = [each for each in judged if each.claim.stable]
    assert Claims(stable).verdicts.splitlines() == ["C1   REPRODUCED", "C3   NOT JUDGED"]


def test_the_table_shows_published_and_measured_side_by_side(book):
    table = Claims(judge(book, "quick", FOUND)).table
    assert list(table.columns[:4]) == ["statement", "source", "published", "measured"]
    assert list(table.measured) == ["2 [1.5, 2.5]", "no", "–"]
    assert list(table.limit) == [limit(claim.rule) for claim in book.claims]
    assert list(table.verdict) == ["REPRODUCED", "NOT REPRODUCED", "NOT JUDGED"]


@pytest.mark.parametrize(
    ("old", "new", "named"),
    [
        ('kind = "at_least", value = 1.0', 'kind = "at_least"', "needs value"),
        ('reason = "Needs a factory."', "", "say why"),
        ('id = "C2"', 'id = "C1"', "more than once"),
        ("year = 2020", 'year = "soon"', "paper.year"),
        ('topic = "play"', 'topic = "play"\ncolour = "red"', "paper.colour"),
        ("n = 30", "x = 1", "quick does not have"),
        ("[profiles.quick]", "[profiles.paper]", "quick"),
        ("[paper]", "[paper", "not valid TOML"),
    ],
)
def test_a_malformed_ledger_is_refused_with_the_field_named(toy_ledger, old, new, named):
    assert old in toy_ledger
    with pytest.raises(LedgerError, match=named):
        ledger.parse(toy_ledger.replace(old, new, 1), "toy.toml")


def test_a_ledger_that_is_no_text_is_refused(monkeypatch, tmp_path):
    (tmp_path / "papers").mkdir()
    (tmp_path / "papers" / "toy.toml").write_bytes(b"\xff\xfe")
    monkeypatch.setattr(ledger.paths, "PACKAGE", tmp_path)
    with pytest.raises(LedgerError, match=r"toy\.toml cannot be read"):
        ledger.load("toy")


def test_unknown_paper_lists_the_known_ones():
    with pytest.raises(LedgerError, match="don"):
        ledger.load("nothing")


def test_hyphens_and_underscores_are_the_same_slug():
    assert ledger.load("don").slug == "don"
    with pytest.raises(LedgerError, match="No paper is called 'no-such'"):
        ledger.load("no-such")


def test_over_seeds_is_a_t_interval_and_leaves_no_seed_out():
    found = over_seeds(np.array([1.0, 2.0, 3.0]), "points")
    assert found.value == pytest.approx(2.0)
    assert found.interval == pytest.approx((-0.484, 4.484), abs=1e-3)
    assert found.note == "points; per seed +1.00, +2.00, +3.00"
    assert over_seeds(np.array([1.0, 2.0]), "points").value is None
    partly = over_seeds(np.array([0.9, 0.8, 0.7, math.nan]), "points")
    assert partly.value is None
    assert partly.note.startswith("3 of 4 seeds gave a value")


def test_a_median_ratio_stands_against_one_disturbed_round():
    found = median_ratio(np.array([1.0, 2.0, 3.0, 4.0, 500.0]), "times")
    assert found.value == 3.0
    assert (found.interval[0], found.note) == (1.0, "times")
    assert found.interval[1] == 500.0
    steady = median_ratio(np.array([2.0] * 8 + [900.0]), "times")
    assert (steady.value, steady.interval) == (2.0, (2.0, 2.0))


@pytest.mark.parametrize(
    ("kind", "value", "tolerance", "text"),
    [
        ("holds", None, None, "yes"),
        ("at_least", 3.4, None, "≥ 3.4"),
        ("above", 0.0, None, "> 0"),
        ("at_most", -2, None, "≤ -2"),
        ("within", 0.5, 0.02, "0.5 ± 0.02"),
    ],
)
def test_a_limit_is_written_with_its_sign(kind, value, tolerance, text):
    assert limit(Rule(kind=kind, value=value, tolerance=tolerance, text="…")) == text


def test_limit_and_measured_value_have_the_unit_of_the_rule(book):
    assert limit(Rule(kind="at_most", value=1.5, unit="points", text="…")) == "≤ 1.5 points"
    assert describe(Measured(0.25, (-0.5, 1.0)), "points") == "0.25 [-0.5, 1] points"
    assert [describe(Measured(value, note="…"), "points") for value in (True, None)] == ["yes", "–"]
    first, *rest = judge(book, "quick", FOUND)
    rule = first.claim.rule.model_copy(update={"unit": "points"})
    judged = dataclasses.replace(first, claim=first.claim.model_copy(update={"rule": rule}))
    assert Claims([judged, *rest]).table.loc["C1", ["measured", "limit"]].tolist() == [
        "2 [1.5, 2.5] points",
        "≥ 1 points",
    ]
    assert JudgedClaim.of(judged).shown == "2 [1.5, 2.5] points"


def test_shares_hold_where_counts_are_exact_and_two_digits_agree():
    import pandas as pd

    table = pd.DataFrame({"macs": [100, 34, 50], "exact": [True, True, False]}, index=["base", "small", "other"])
    found = exact_shares(table, {("small", "base", "macs"): 0.34})
    assert (found.value, found.note) == (True, "small: 0.3400 of base's macs")
    assert exact_shares(table, {("small", "base", "macs"): 0.35}).value is False
    assert exact_shares(table, {("base", "small", "macs"): 0.34}).value is False
    for name in ("base", "small"):
        wrong = table.assign(exact=table.index != name)
        assert exact_shares(wrong, {("small", "base", "macs"): 0.34}).value is False
    two = {("small", "base", "macs"): 0.34, ("other", "base", "macs"): 0.5}
    assert exact_shares(table, two).value is False, "the third row is not exact"
    assert exact_shares(table.assign(exact=True), two).value is True
