"""What a user sees of a run, on a terminal and in a log."""

import io

import pytest
from rich.console import Console

from papertwin import results
from papertwin.claims import Verdict
from papertwin.progress import VERDICTS, Display, summary, verdicts
from papertwin.runner import Event, Failure, Outcome


def console(terminal=False):
    return Console(file=io.StringIO(), width=120, force_terminal=terminal, color_system=None, _environ={})


def shown(events, terminal=False):
    out = console(terminal)
    with Display(out) as display:
        for event in events:
            display(event)
    return out.file.getvalue()


def test_a_log_gets_plain_lines_and_not_one_per_cell():
    cells = [Event("cell", "don", index, 21, 0.5 * index) for index in range(22)]
    done = Event("ended", "don", outcome=Outcome("don", "done", 12.3))
    assert shown([*cells, done]).splitlines() == ["don: starting", "don: done in 12 seconds"]


def test_a_terminal_gets_a_live_line():
    text = shown([Event("cell", "don", 7, 21, 3.0)], terminal=True)
    assert "cell 7 of 21" in text
    assert "don" in text


def test_waiting_is_announced():
    assert "another papertwin runs this paper" in shown([Event("waiting", "don")])


def failed(**changes):
    settings = {"kind": "cell", "exception": "ValueError: [red]no[/]", "cell": 7, "source": "x = [1]\nraise"}
    return Outcome("don", "failed", 3.0, Failure(**{**settings, **changes}))


def test_the_summary_names_the_failing_cell_and_shows_it_as_it_is(tmp_path):
    out = console()
    out.print(summary([failed(), Outcome("other", "skipped")], tmp_path))
    text = out.file.getvalue()
    assert "don: cell 7 failed (cell): ValueError: [red]no[/]" in text
    assert "    x = [1]\n    raise" in text
    assert "up to date" in text


def test_the_summary_shows_the_log_of_a_crash_and_where_the_notebook_is(tmp_path):
    out = console()
    crash = failed(kind="other", cell=None, traceback="\x1b[31mSegfault\x1b[0m", notebook=tmp_path / "don.ipynb")
    out.print(summary([crash], tmp_path))
    assert "Segfault" in out.file.getvalue()
    assert "partial notebook" in out.file.getvalue()


def test_long_runs_are_told_in_hours():
    done = Event("ended", "don", outcome=Outcome("don", "done", 36_000.0))
    cell = Event("cell", "don", 3, 21, 9_000.0)
    assert shown([cell, done]).splitlines() == ["don: cell 3 of 21, 2.5 hours", "don: done in 10 hours"]


def test_verdicts_are_counted_from_the_results(tmp_path):
    assert verdicts(tmp_path) == ["–"] * 4
    judged = [{"id": f"C{n}", "statement": "s", "verdict": "REPRODUCED" if n else "INCONCLUSIVE"} for n in range(10)]
    content = results.Results(schema=results.SCHEMA, paper="toy", profile="quick", claims=judged)
    results.write(tmp_path, content)
    assert verdicts(tmp_path) == ["9", "0", "1", "0"]


def test_the_summary_has_a_column_a_verdict_in_their_order(tmp_path):
    judged = [{"id": f"C{n}", "statement": "s", "verdict": list(Verdict)[n]} for n in (0, 0, 0, 1, 1, 3)]
    content = results.Results(schema=results.SCHEMA, paper="toy", profile="quick", claims=judged)
    results.write(tmp_path / "toy", content)
    out = console()
    out.print(summary([Outcome("toy", "done", 72.0), failed()], tmp_path))
    _, head, toy, don, _, legend, *_ = out.file.getvalue().splitlines()
    assert head.split() == ["paper", "result", "time", "yes", "no", "open", "n/a"]
    assert toy.split() == ["toy", "done", "1.2", "minutes", "3", "2", "0", "1"]
    assert don.split() == ["don", "failed", "3", "seconds"]
    assert legend.startswith("Claims: yes REPRODUCED · no NOT REPRODUCED")
    assert list(VERDICTS) == list(Verdict)


@pytest.mark.parametrize("text", ["", "[]", '{"schema": 1}', '{"schema": 9, "paper": "toy", "profile": "quick"}'])
def test_damaged_results_have_no_verdicts(tmp_path, text):
    (tmp_path / results.FILE).write_text(text)
    assert verdicts(tmp_path) == ["–"] * 4
