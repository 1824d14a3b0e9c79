"""results.json: what run writes is what report and progress read; a damaged file is told in words."""

import json
from hashlib import sha256

import pytest

from papertwin import ledger, results
from papertwin.claims import Measured, judge
from papertwin.errors import RunError
from papertwin.results import JudgedClaim, Results, Saved, address


@pytest.fixture
def content(toy_ledger, tmp_path):
    """What a run of the toy paper writes down; its figure lies in tmp_path."""
    book = ledger.parse(toy_ledger, "toy")
    (tmp_path / "fig1.png").write_bytes(b"red")
    found = {"C1": Measured(2.0, (1.5, 2.5), "note"), "C2": Measured(False)}
    return Results(
        schema=results.SCHEMA,
        paper="toy",
        profile="quick",
        parameters={"n": 3},
        figures=[Saved.of(book.figures[0], {"png": tmp_path / "fig1.png"})],
        claims=[JudgedClaim.of(judgement) for judgement in judge(book, "quick", found)],
    )


def test_what_is_written_is_read_back(content, tmp_path):
    results.write(tmp_path, content)
    assert results.read(tmp_path) == content
    written = json.loads((tmp_path / results.FILE).read_text())
    assert next(iter(written)) == "schema"
    assert {type(claim["measured"]) for claim in written["claims"]} == {float, bool, type(None)}


def test_verdicts_are_counted(content):
    assert content.counts == {"REPRODUCED": 1, "NOT REPRODUCED": 1, "INCONCLUSIVE": 0, "NOT JUDGED": 1}


def test_checksums_follow_the_files(content, tmp_path):
    (tmp_path / "fig1.png").write_bytes(b"blue")
    assert content.rehashed(tmp_path).figures[0].files["png"].sha256 == sha256(b"blue").hexdigest()
    assert content.figures[0].files["png"].sha256 == sha256(b"red").hexdigest()


def test_reading_passes_over_what_it_does_not_know(tmp_path):
    (tmp_path / results.FILE).write_text('{"schema": 1, "paper": "toy", "profile": "quick", "weather": "fine"}')
    assert results.read(tmp_path).paper == "toy"


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (None, "did not finish"),
        ("{", "not understood"),
        ('{"schema": 1, "paper": "toy"}', "not understood: profile"),
        ('{"schema": 2, "paper": "toy", "profile": "quick"}', "schema 2"),
    ],
)
def test_a_damaged_file_is_told_in_words(tmp_path, text, reason):
    if text is not None:
        (tmp_path / results.FILE).write_text(text)
    with pytest.raises(RunError, match=reason):
        results.read(tmp_path)


def test_addresses_tell_runs_apart_whatever_the_order_of_overrides():
    assert address("don", "quick", {}) == "don"
    assert address("don", "full", {}) == "don@full"
    assert address("don", "quick", {"seed": 3}) == "don@quick-1391dc1f"
    assert address("don", "full", {"a": 1, "b": 2}) == address("don", "full", {"b": 2, "a": 1})
    assert len({address("don", profile, {"a": n}) for profile in ("quick", "full") for n in (1, 2)}) == 4
