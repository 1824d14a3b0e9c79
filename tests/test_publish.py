"""The output folder of a run: swapped in whole, recovered after a kill, up to date only if untouched."""

import json
import os
import subprocess
import sys

import pytest

from papertwin import publish
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


def test_only_staging_folders_of_ended_processes_are_swept(figures):
    ours = figures / publish.STAGING / f"toy.{os.getpid()}"
    stale = figures / publish.STAGING / f"toy.{ended_pid()}"
    odd = figures / publish.STAGING / "toy"
    for folder in (ours, stale, odd):
        folder.mkdir()
    sweep(figures)
    assert [path.name for path in (figures / publish.STAGING).iterdir()] == [ours.name]


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
