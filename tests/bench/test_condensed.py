"""The benchmark of condensed layers at a tiny size: what it times is what it says; how fast, only it itself says."""

import json
from dataclasses import asdict, replace

import pytest
from rich.console import Console

from papertwin.bench import _condensed as inner
from papertwin.bench import available, condensed
from papertwin.errors import RunError
from papertwin.sparse import forms
from papertwin.sparse.forms import FORMS

TINY = inner.Plan(outputs=40, inputs=64, sparsities=(0.9, 0.5), batches=(1, 20), threads=(1,), rounds=2, seconds=0.0)


# ---- the plan --------------------------------------------------------------------------------------------------------


def test_the_plan_comes_back_from_json():
    assert inner.Plan.read(json.loads(json.dumps(asdict(TINY)))) == TINY


def test_threads_are_one_and_all():
    plan = replace(TINY, threads=inner.Plan().threads)
    assert plan.subjects(2)[:4] == [(0.9, 1, 1), (0.9, 1, 2), (0.9, 20, 1), (0.9, 20, 2)]
    assert plan.subjects(1) == [(0.9, 1, 1), (0.9, 20, 1), (0.5, 1, 1), (0.5, 20, 1)]
    assert condensed.SHOWN in inner.Plan().subjects(8)


# ---- what is timed ---------------------------------------------------------------------------------------------------


def test_the_second_of_two_calls_counts(monkeypatch):
    now, called = [0.0], []
    monkeypatch.setattr(inner.time, "perf_counter", lambda: now[0])

    def call(way, cost):
        called.append(way)
        now[0] += 100.0 if called.count(way) % 2 else cost

    calls = {"a": lambda: call("a", 1.0), "b": lambda: call("b", 2.0)}
    assert inner.timed(calls, replace(TINY, rounds=3)) == {"a": [1.0] * 3, "b": [2.0] * 3}
    assert called == ["a", "a", "b", "b"] * 4


def test_subjects_say_what_they_are():
    found = list(inner.measured(replace(TINY, batches=(20,)), 1))
    assert [(each["sparsity"], each["batch"], each["threads"]) for each in found] == [(0.9, 20, 1), (0.5, 20, 1)]
    assert found[0]["shapes"] == {"condensed": [40, 6], "condensed, ablated": [28, 8]}
    assert found[0]["kernels"] == {"condensed": "lanes", "condensed, ablated": "lanes"}
    assert {way: len(taken) for way, taken in found[0]["seconds"].items()} == dict.fromkeys(FORMS, 2)


def test_forms_that_disagree_are_not_timed(monkeypatch):
    def wrong(dense, x):
        return (lambda: dense(x) + 1, lambda: dense(x))

    monkeypatch.setattr(forms, "_compressed", wrong)
    with pytest.raises(RunError, match="CSR, torch and the masked dense layer differ"):
        next(inner.measured(TINY, 1))


# ---- rows and headline -----------------------------------------------------------------------------------------------


def subject(**changed):
    seconds = {"dense": [8.0, 9.0, 10.0], "condensed": [2.0, 3.0, 2.0], "CSR, torch": [4.0, 6.0, 8.0]}
    seconds |= {"CSR, SciPy": [9.0] * 3, "condensed, ablated": [1.0] * 3, "structured only": [4.0] * 3}
    seconds = {way: [1e-3 * value for value in taken] for way, taken in seconds.items()}
    known = {"sparsity": 0.9, "batch": 1, "threads": 1, "shapes": {"condensed": [768, 307]}, "kernels": {}}
    return known | {"seconds": seconds} | changed


def test_rows_by_hand():
    row = condensed._row(subject())
    details = row.pop("details")
    assert row == {
        "sparse %": 90,
        "batch": 1,
        "threads": 1,
        "dense ms": 9.0,
        "ms": 2.0,
        "dense ×": 4.0,
        "CSR ×": 2.0,
        "ablated ×": 9.0,
        "structured ×": 2.25,
    }
    assert details["faster CSR"] == "CSR, torch"
    assert details["quartiles ms"]["CSR, torch"] == [5.0, 6.0, 7.0]
    assert details["rounds"] == 3


def test_the_headline_is_the_papers_comparison():
    others = [subject(batch=8), subject(threads=2), subject(sparsity=0.95)]
    headline = condensed._headline([*others, subject()])
    assert (headline["ratio"], headline["goal"]) == (4.0, 3.4)
    assert headline["figure"] == (
        "time of the dense / condensed layer, 90% sparse, batch 1, 1 thread "
        "(CSR / condensed: 2.0x, goal 2.5x NOT reached)"
    )
    slow = subject(seconds=subject()["seconds"] | {"CSR, torch": [0.006] * 3})
    assert "(CSR / condensed: 3.0x, goal 2.5x reached)" in condensed._headline([slow])["figure"]
    with pytest.raises(RunError, match="no layer 90% sparse, batch 1, 1 thread"):
        condensed._headline(others)


def test_the_whole_benchmark(monkeypatch):
    monkeypatch.setattr(condensed, "PLAN", replace(TINY, threads=(1, 1024)))
    monkeypatch.setattr(condensed, "thread_count", lambda: 2)
    seen = []
    result = condensed.run(lambda text, done: seen.append((text, done)))
    assert len(result.rows) == 8
    assert result.threads == 2
    assert seen[0] == ("90% sparse, batch 1, 1 thread", 0.0)
    assert seen[1] == ("90% sparse, batch 1, 2 threads", 1 / 8)
    assert seen[-1] == ("done", 1.0)
    assert "condensed" in available()
    console = Console(width=100)
    with console.capture() as capture:
        console.print(result.table())
    assert "structured ×" in capture.get()
    assert "…" not in capture.get()
