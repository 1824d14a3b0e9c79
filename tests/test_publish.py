"""The output folder of a run: swapped in whole, recovered after a kill, up to date only if untouched."""

import json
import os
import subprocess
import sys
from pathlib import Path

import matplotlib.pyplot as plt
import pandas as pd
import pytest

from papertwin import files, provenance, publish, results
from papertwin.claims import Measured
from papertwin.errors import RunError
from papertwin.publish import Output, check_writable, last_run, sweep


@pytest.fixture
def figures(tmp_path):
    check_writable(tmp_path / "figures")
    return tmp_path / "figures"


def stage(output, **contents):
    folder = output.staging / output.address
    folder.mkdir(parents=True)
    for name, text in contents.items():
        (folder / f"{name}.json").write_text(text)


def ended_pid():
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


def never():
    return False


def test_a_published_folder_holds_what_was_staged_and_nothing_else(figures):
    output = Output(figures, "toy")
    stage(output, results="1", fig1="1")
    output.publish("a", 1.5)
    stage(output, results="2")
    output.publish("b", 2.5)
    assert {path.name: path.read_text() for path in output.folder.iterdir()} == {"results.json": "2"}
    assert last_run(figures, "toy")["seconds"] == 2.5
    assert not output.backup.exists()


def test_current_means_same_fingerprint_and_untouched_files(figures):
    output = Output(figures, "toy")
    assert not output.is_current("a")
    stage(output, results="1", fig1="1")
    output.publish("a", 1)
    assert output.is_current("a")
    assert not output.is_current("b")
    (output.folder / "index.html").write_text("made by the report")
    assert output.is_current("a")
    (output.folder / "fig1.json").write_text("edited")
    assert not output.is_current("a")
    (output.folder / "fig1.json").unlink()
    assert not output.is_current("a")


@pytest.mark.parametrize("state", ["", "[]", "{}", '{"fingerprint": "a"}', '{"fingerprint": "a", "files": {}}'])
def test_a_damaged_state_means_not_current(figures, state):
    output = Output(figures, "toy")
    stage(output, results="1")
    output.publish("a", 1)
    output.state.write_text(state)
    assert not output.is_current("a")


def test_killed_between_the_two_renames_the_last_good_output_comes_back(figures):
    output = Output(figures, "toy")
    stage(output, results="good")
    output.publish("a", 1)
    stage(output, results="new")
    output.folder.rename(output.backup)
    output.recover()
    assert (output.folder / "results.json").read_text() == "good"
    assert output.is_current("a")
    assert not output.staging.exists()


def test_killed_after_the_second_rename_the_new_output_stays(figures):
    output = Output(figures, "toy")
    stage(output, results="good")
    output.publish("a", 1)
    stage(output, results="new")
    output.folder.rename(output.backup)
    (output.staging / "toy").rename(output.folder)
    output.recover()
    assert (output.folder / "results.json").read_text() == "new"
    assert not output.backup.exists()
    assert not output.is_current("a")


def test_recovery_touches_no_other_address(figures):
    other = Output(figures, "toy@full")
    stage(other, results="1")
    Output(figures, "toy").recover()
    assert (other.staging / "toy@full" / "results.json").is_file()


def test_only_staging_folders_of_runs_that_hold_no_lock_are_swept(figures):
    """A process id says nothing: it may have been given to another process since."""
    alive = figures / publish.STAGING / f"toy@full.{ended_pid()}"
    reused = figures / publish.STAGING / f"toy.{os.getpid()}"
    stale = figures / publish.STAGING / f"other.{ended_pid()}"
    odd = figures / publish.STAGING / "odd"
    for folder in (alive, reused, stale, odd):
        folder.mkdir()
    with Output(figures, "toy@full").locked(lambda: None, never):
        sweep(figures)
        assert [path.name for path in (figures / publish.STAGING).iterdir()] == [alive.name]
    sweep(figures)
    assert not alive.exists()


def test_if_the_second_rename_fails_the_old_output_is_back_at_once(figures, monkeypatch):
    output = Output(figures, "toy")
    stage(output, results="good")
    output.publish("a", 1)
    stage(output, results="new")
    rename = Path.rename

    def failing(self, target):
        if self == output.staging / "toy":
            raise OSError(28, "No space left on device")
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", failing)
    with pytest.raises(RunError, match="No space left"):
        output.publish("b", 1)
    assert (output.folder / "results.json").read_text() == "good"
    assert not output.backup.exists()
    assert output.is_current("a")


def test_a_file_in_the_place_of_the_folder_is_a_clear_error(tmp_path):
    (tmp_path / "figures").write_text("in the way")
    with pytest.raises(RunError, match=r"Cannot write to the output folder .*Nothing was run"):
        check_writable(tmp_path / "figures")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
@pytest.mark.parametrize("name", [".", publish.STATE])
def test_a_read_only_folder_is_a_clear_error(figures, name):
    (figures / name).chmod(0o500)
    try:
        with pytest.raises(RunError, match="Cannot write to the output folder"):
            check_writable(figures)
    finally:
        (figures / name).chmod(0o700)


def test_a_lock_is_waited_for_once_announced_and_given_up_when_stopped(figures):
    calls = []
    first, second = Output(figures, "toy"), Output(figures, "toy")
    with first.locked(lambda: calls.append("first"), never) as held:
        assert held
        with second.locked(lambda: calls.append("second"), lambda: bool(calls)) as also:
            assert not also
    with second.locked(lambda: calls.append("again"), never) as held:
        assert held
    assert calls == ["second"]


def test_a_failed_notebook_is_kept_until_the_paper_succeeds(figures):
    output = Output(figures, "toy")
    stage(output, results="1")
    partial = output.staging / "executed.ipynb"
    assert output.keep_failed(partial) is None
    partial.write_text("{}")
    kept = output.keep_failed(partial)
    assert json.loads(kept.read_text()) == {}
    output.publish("a", 1)
    assert not kept.exists()


@pytest.fixture
def rerun(toy_run, figures, monkeypatch):
    """Run the toy paper at a commit, publish it, and return name → bytes of the published files."""
    output = Output(figures, "toy")
    monkeypatch.setenv("PAPERTWIN_FIGURES", str(output.staging))

    def again(commit, height=2.0, colour="C0", dirty=False, packages=None, model="Abacus"):
        monkeypatch.setattr(provenance, "git_state", lambda: (commit, dirty))
        monkeypatch.setattr(provenance.machine, "dependencies", lambda: packages or {"numpy": "2.4"})
        monkeypatch.setattr(provenance.machine, "processor", lambda: {"model": model})
        started = toy_run()
        figure, axes = plt.subplots()
        axes.plot([0, 1], [1, height], color=colour)
        started.save(figure, "fig1")
        plt.close(figure)
        started.table(pd.DataFrame({"a": [height]}), "table1")
        started.claims({"C1": Measured(height), "C2": Measured(True)})
        output.publish(commit, 1)
        output.discard()
        assert output.is_current(commit)
        return {path.name: path.read_bytes() for path in output.folder.iterdir()}

    again.folder = output.folder
    return again


def test_two_commits_that_show_the_same_leave_the_figures_alone(rerun):
    first, second = rerun("a" * 40), rerun("b" * 40, dirty=True)
    assert set(first) == {"fig1.png", "fig1.pdf", "fig1.json", "table1.csv", results.FILE}
    assert {name for name in first if first[name] != second[name]} == {results.FILE}
    found = results.read(rerun.folder)
    assert (found.provenance["commit"], found.provenance["dirty"]) == ("b" * 40, True)
    listed = [file for saved in (*found.figures, *found.tables) for file in saved.files.values()]
    assert len(listed) == 4
    assert all(files.sha256(rerun.folder / file.path) == file.sha256 for file in listed)


def test_two_processors_that_show_the_same_leave_the_figures_alone(rerun):
    first, second = rerun("a" * 40), rerun("a" * 40, model="Slide rule")
    assert {name for name in first if first[name] != second[name]} == {results.FILE}
    assert results.read(rerun.folder).provenance["processor"] == {"model": "Slide rule"}


@pytest.mark.parametrize("change", [{"height": 3.0}, {"colour": "C1"}, {"packages": {"numpy": "2.5"}}], ids=str)
def test_a_figure_that_differs_in_anything_else_is_replaced(rerun, change):
    first, second = rerun("a" * 40), rerun("b" * 40, **change)
    assert all(first[name] != second[name] for name in ("fig1.png", "fig1.pdf", "fig1.json"))
    assert b"b" * 40 in second["fig1.json"]


def test_a_published_figure_that_is_damaged_or_incomplete_is_replaced(rerun):
    for name, content in (("fig1.json", b"{"), ("fig1.png", b"no picture"), ("fig1.json", b"[]")):
        rerun("a" * 40)
        (rerun.folder / name).write_bytes(content)
        assert b"b" * 40 in rerun("b" * 40)["fig1.json"]
    (rerun.folder / "fig1.pdf").unlink()
    assert b"c" * 40 in rerun("c" * 40)["fig1.json"]
