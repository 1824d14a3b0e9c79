"""The frame of the benchmarks: results, tables, names."""

import json

import pytest
from rich.console import Console

from papertwin.bench import BenchResult, available, run_benchmark
from papertwin.errors import ParameterError

ROWS = [
    {"cloud": "a", "details": {"hidden": 1}, "points": 107647, "ours s": 0.1634, "ratio": 78.5},
    {"cloud": "b", "peak GiB": 1.25},
]


def result(ratio: float = 78.5) -> BenchResult:
    headline = {"figure": "peer / ours", "ratio": ratio, "goal": 20.0}
    return BenchResult("toy", "a machine", 2, ROWS, headline)


def text(table) -> str:
    console = Console(width=200)
    with console.capture() as capture:
        console.print(table)
    return " ".join(capture.get().split())


def test_json_holds_everything():
    assert json.loads(result().to_json()) == {
        "name": "toy",
        "machine": "a machine",
        "threads": 2,
        "rows": ROWS,
        "headline": {"figure": "peer / ours", "ratio": 78.5, "goal": 20.0},
    }


def test_table_shows_every_column_and_the_goal():
    shown = text(result().table())
    for part in ("cloud", "points", "ours s", "ratio", "peak GiB", "107,647", "0.163", "78.5x", "goal 20.0x reached"):
        assert part in shown
    assert "hidden" not in shown
    assert "goal 20.0x NOT reached" in text(result(19.9).table())


def test_names():
    assert "don" in available()
    assert not any(name.startswith("_") for name in available())
    with pytest.raises(ParameterError, match=r"No benchmark 'speed': expected one of .*don"):
        run_benchmark("speed")


def test_run_benchmark_hands_on_progress(monkeypatch, tmp_path, capsys):
    from papertwin.bench import don

    seen = []

    def run(progress):
        progress("half", 0.5)
        return result()

    monkeypatch.setattr(don, "run", run)
    assert run_benchmark("don", lambda word, done: seen.append((word, done))) == result()
    assert seen == [("half", 0.5)]
    assert run_benchmark("don").name == "toy"
    assert capsys.readouterr().out == ""  # the progress line goes to standard error
