"""Rules become verdicts; every branch, both sides, and the borders."""

import pytest

from papertwin import ledger
from papertwin.claims import Measured, Verdict, apply_rule, judge
from papertwin.errors import LedgerError
from papertwin.ledger import Rule

LEDGER = """
[paper]
slug = "toy"
title = "Toy"
authors = ["A"]
venue = "V"
year = 2020
idea = "i"
topic = "t"
[[figure]]
id = "fig1"
caption = "c"
source = "s"
status = "regenerated"
[[claim]]
id = "C1"
statement = "s"
source = "abstract"
published = "1"
rule = {kind = "at_least", value = 1.0, text = "t"}
[[claim]]
id = "C2"
statement = "s"
source = "abstract"
published = "2"
needs = "full"
rule = {kind = "holds", text = "t"}
[profiles.quick]
minutes = 1
memory_gb = 1
device = "cpu"
data = []
[profiles.full]
minutes = 1
memory_gb = 1
device = "cpu"
data = []
"""


@pytest.mark.parametrize(
    ("rule", "measured", "verdict"),
    [
        (("at_least", 1.0, None), Measured(1.0), Verdict.REPRODUCED),
        (("at_least", 1.0, None), Measured(0.99), Verdict.NOT_REPRODUCED),
        (("at_least", 1.0, None), Measured(1.2, (1.0, 1.4)), Verdict.REPRODUCED),
        (("at_least", 1.0, None), Measured(1.2, (0.9, 1.4)), Verdict.INCONCLUSIVE),
        (("at_least", 1.0, None), Measured(0.5, (0.4, 0.99)), Verdict.NOT_REPRODUCED),
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


@pytest.mark.parametrize("found", [Measured(True), Measured(0.5, (0.6, 0.7)), Measured(float("nan"))])
def test_unusable_measurements_are_refused(found):
    with pytest.raises(LedgerError):
        apply_rule(Rule(kind="at_least", value=1.0, text="t"), found)


def test_a_number_does_not_satisfy_a_holds_rule():
    with pytest.raises(LedgerError, match="judges a bool"):
        apply_rule(Rule(kind="holds", text="t"), Measured(1.0))


def test_a_claim_beyond_the_profile_is_not_judged_and_says_why():
    first, second = judge(ledger.parse(LEDGER, "toy"), "quick", {"C1": Measured(2.0)})
    assert first.verdict is Verdict.REPRODUCED
    assert second.verdict is Verdict.NOT_JUDGED
    assert "needs profile full" in second.reason


def test_missing_and_unknown_claims_are_errors():
    book = ledger.parse(LEDGER, "toy")
    with pytest.raises(LedgerError, match="must judge \\['C1'\\]"):
        judge(book, "quick", {})
    with pytest.raises(LedgerError, match="C9"):
        judge(book, "quick", {"C1": Measured(1.0), "C9": Measured(1.0)})
    with pytest.raises(LedgerError, match="C2"):
        judge(book, "full", {"C1": Measured(1.0)})


@pytest.mark.parametrize(
    ("old", "new", "named"),
    [
        ('kind = "at_least", value = 1.0', 'kind = "at_least"', "needs value"),
        ('status = "regenerated"', 'status = "at-scale-only"', "say why"),
        ('id = "C2"', 'id = "C1"', "more than once"),
        ("year = 2020", 'year = "soon"', "paper.year"),
        ('topic = "t"', 'topic = "t"\ncolour = "red"', "paper.colour"),
        ("[profiles.full]", "[profiles.full]\nparameters = {x = 1}", "quick does not have"),
        ("[profiles.quick]", "[profiles.paper]", "quick\\] is missing"),
        ("[paper]", "[paper", "not valid TOML"),
    ],
)
def test_a_malformed_ledger_is_refused_with_the_field_named(old, new, named):
    assert old in LEDGER
    with pytest.raises(LedgerError, match=named):
        ledger.parse(LEDGER.replace(old, new, 1), "toy.toml")


def test_unknown_paper_lists_the_known_ones():
    with pytest.raises(LedgerError, match="don"):
        ledger.load("nothing")


def test_hyphens_and_underscores_are_the_same_slug():
    assert ledger.load("don").slug == "don"
    with pytest.raises(LedgerError, match="No paper is called 'no-such'"):
        ledger.load("no-such")
