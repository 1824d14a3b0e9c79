"""The runner on tiny notebooks: failures are named, good output survives everything, nothing runs twice in vain."""

import json
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import nbformat
import psutil
import pytest
from nbformat import v4

from papertwin import runner
from papertwin.errors import RunError
from papertwin.machine import cores
from papertwin.publish import FAILED, STAGING, Output, check_writable
from papertwin.runner import Job, run_jobs

PATIENCE = 60  # seconds after which a test that waits gives up

WRITE = """\
import json, os
from pathlib import Path
folder = Path(os.environ["PAPERTWIN_FIGURES"]) / address
folder.mkdir(parents=True)
values = {"n": n, "threads": os.environ["NUMBA_NUM_THREADS"], "cwd": os.getcwd()}
values["backend"] = os.environ["MPLBACKEND"]
(folder / "results.json").write_text(json.dumps(values))
print("wrote", n)
"""

BLOCK = """\
import os, time
from pathlib import Path
with Path(flags, "started").open("a") as file:
    file.write(f"{os.getpid()}\\n")
until = time.monotonic() + 60
while not Path(flags, "go").exists() and time.monotonic() < until:
    time.sleep(0.02)
"""

RUN = """\
import json, sys
from pathlib import Path
from papertwin.runner import Job, run_jobs
spec = json.loads(sys.argv[1])
job = Job(**{**spec["job"], "notebook": Path(spec["job"]["notebook"])})
tell = lambda event: print(event.kind, flush=True)
(outcome,) = run_jobs([job], on_event=tell, figures=Path(spec["figures"]))
print(outcome.status, flush=True)
"""


def notebook(folder, slug, *sources):
    """Write a notebook: title, parameters, then the sources."""
    parameters = v4.new_code_cell(
        f'address: str = "{slug}"  # output folder\nn: int = 3  # number\nflags: str = ""  # where to signal',
        metadata={"tags": ["parameters"]},
    )
    cells = [v4.new_markdown_cell("# Toy"), parameters, *map(v4.new_code_cell, sources)]
    path = folder / f"{slug}.ipynb"
    nbformat.write(v4.new_notebook(cells=cells), path)
    return path


def job(folder, slug, *sources, **changes):
    settings = {"fingerprint": "a", "timeout": PATIENCE, **changes}
    return Job(slug, settings.pop("address", slug), notebook(folder, slug, *sources), **settings)


@pytest.fixture(scope="module")
def batch(tmp_path_factory):
    """One batch with everything that can go wrong in it."""
    folder = tmp_path_factory.mktemp("batch")
    jobs = [
        job(folder, "failing", WRITE, "x = 1\nraise ValueError('not today')", parameters={"n": 5}),
        job(folder, "dead", "n += 1", "import os\nos._exit(3)"),
        job(folder, "hanging", "import threading\nthreading.Event().wait()", timeout=3),
        job(folder, "silent", "1 + 1"),
        job(folder, "exclusive", WRITE, exclusive=True),
        job(folder, "good", WRITE, parameters={"n": 5}),
    ]
    events = []
    outcomes = run_jobs(jobs, n_jobs=2, on_event=events.append, figures=folder / "figures")
    return {"folder": folder, "figures": folder / "figures", "jobs": jobs, "events": events, "outcomes": outcomes}


def outcome(batch, address):
    return next(found for found in batch["outcomes"] if found.address == address)


def test_failing_notebooks_do_not_stop_the_others(batch):
    assert [found.status for found in batch["outcomes"]] == ["failed"] * 4 + ["done"] * 2


def test_a_run_publishes_its_folder_and_the_executed_notebook(batch):
    folder = batch["figures"] / "good"
    assert sorted(path.name for path in folder.iterdir()) == ["good.ipynb", "results.json"]
    written = json.loads((folder / "results.json").read_text())
    assert written["n"] == 5
    assert written["cwd"] == str(batch["folder"])
    executed = nbformat.read(folder / "good.ipynb", as_version=4)
    assert executed.cells[-1].outputs[0].text == "wrote 5\n"
    assert "papermill" not in (folder / "good.ipynb").read_text()


@pytest.mark.parametrize(
    ("address", "kind", "cell", "source", "exception"),
    [
        ("failing", "cell", 4, "x = 1\nraise ValueError('not today')", "ValueError: not today"),
        ("dead", "kernel", 4, "import os\nos._exit(3)", "died"),
        ("hanging", "timeout", 3, "import threading", "not finished after 3 seconds"),
        ("silent", "other", None, "", "did not write silent/results.json"),
    ],
)
def test_a_failure_names_kind_cell_and_exception(batch, address, kind, cell, source, exception):
    failure = outcome(batch, address).failure
    assert (failure.kind, failure.cell) == (kind, cell)
    assert source in failure.source
    assert exception in failure.exception


@pytest.mark.parametrize("address", ["failing", "dead", "hanging", "silent"])
def test_a_failed_notebook_publishes_nothing_and_is_kept(batch, address):
    assert not (batch["figures"] / address).exists()
    kept = batch["figures"] / FAILED / f"{address}.ipynb"
    assert outcome(batch, address).failure.notebook == kept
    cells = [cell for cell in nbformat.read(kept, as_version=4).cells if cell.cell_type == "code"]
    assert cells[0].execution_count == 1


def test_the_kept_notebook_shows_the_exception(batch):
    assert "not today" in (batch["figures"] / FAILED / "failing.ipynb").read_text()


def test_nothing_is_left_in_staging(batch):
    assert list((batch["figures"] / STAGING).iterdir()) == []


def test_the_exclusive_one_runs_after_the_others_with_every_core(batch):
    ended = [event.address for event in batch["events"] if event.kind == "ended"]
    first = next(i for i, event in enumerate(batch["events"]) if event.address == "exclusive")
    assert ended[-1] == "exclusive"
    assert sum(event.kind == "ended" for event in batch["events"][:first]) == 5
    threads = {
        slug: json.loads((batch["figures"] / slug / "results.json").read_text())["threads"]
        for slug in ("exclusive", "good")
    }
    assert threads == {"exclusive": str(cores()), "good": str(max(1, cores() // 2))}


def test_figures_are_shown_in_the_notebook_whatever_backend_the_caller_uses(batch):
    assert os.environ["MPLBACKEND"] == "Agg"
    assert "inline" in json.loads((batch["figures"] / "good" / "results.json").read_text())["backend"]


def test_progress_counts_the_cells_of_the_committed_notebook(batch):
    seen = [(event.index, event.of) for event in batch["events"] if event.address == "good" and event.kind == "cell"]
    assert sorted(set(seen)) == [(0, 3), (1, 3), (2, 3), (3, 3)]
    assert seen == sorted(seen)


def test_what_is_up_to_date_is_skipped_and_what_changed_is_not(batch):
    good = batch["jobs"][-1]
    results = batch["figures"] / "good" / "results.json"
    old_trial = batch["figures"] / ".failed" / "good.ipynb"
    old_trial.write_text("a trial that failed since")
    again = run_jobs([good], figures=batch["figures"])
    assert [found.status for found in again] == ["skipped"]
    assert not old_trial.exists()
    changed = Job(**{**vars(good), "fingerprint": "b", "parameters": {"n": 6}})
    assert run_jobs([changed], figures=batch["figures"])[0].status == "done"
    assert json.loads(results.read_text())["n"] == 6
    assert run_jobs([changed], figures=batch["figures"], force=True)[0].status == "done"


def test_a_failure_leaves_the_last_good_output_alone(batch):
    folder = batch["figures"] / "exclusive"
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    bad = job(batch["folder"], "spoiler", WRITE, "1 / 0", address="exclusive", parameters={"address": "exclusive"})
    assert run_jobs([bad], figures=batch["figures"], force=True)[0].status == "failed"
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


def test_a_notebook_that_writes_elsewhere_is_told_so(batch):
    lost = job(batch["folder"], "lost", WRITE, parameters={"address": "somewhere"})
    (found,) = run_jobs([lost], figures=batch["figures"])
    assert "somewhere" in found.failure.exception
    assert not (batch["figures"] / "somewhere").exists()


def test_an_unexpected_exception_is_one_job_s_failure_and_the_others_go_on(tmp_path, monkeypatch):
    def execute(self, job, *rest):
        if job.slug == "odd":
            return {}["surprise"]
        return runner.Outcome(job.address, "done")

    monkeypatch.setattr(runner._Session, "execute", execute)
    settings = {"notebook": tmp_path / "none.ipynb", "fingerprint": "a"}
    todo = [
        Job("odd", "odd", **settings),
        Job("good", "good", **settings),
        Job("last", "last", exclusive=True, **settings),
    ]
    ended = []
    outcomes = run_jobs(todo, n_jobs=1, on_event=ended.append, figures=tmp_path / "figures")
    assert [found.status for found in outcomes] == ["failed", "done", "done"]
    failure = outcomes[0].failure
    assert (failure.kind, failure.exception) == ("other", "KeyError: 'surprise'")
    assert failure.traceback.splitlines()[-1] == "KeyError: 'surprise'"
    assert "execute" in failure.traceback
    assert [event.address for event in ended if event.kind == "ended"] == ["odd", "good", "last"]


def test_a_job_that_is_named_twice_runs_once(tmp_path, monkeypatch):
    ran = []

    def execute(self, job, *rest):
        ran.append(job.slug)
        return runner.Outcome(job.address, "done")

    monkeypatch.setattr(runner._Session, "execute", execute)
    twice = [Job("toy", "toy", tmp_path / "none.ipynb")] * 2
    assert [found.status for found in run_jobs(twice, n_jobs=2, figures=tmp_path / "figures")] == ["done", "done"]
    assert ran == ["toy"]


def test_two_notebooks_run_at_the_same_time(tmp_path):
    """Each waits for the other's file: one after the other they would never end."""
    meet = BLOCK.replace('"go"', "{other!r}").replace("{os.getpid()}\\n", "").replace('"started"', "{own!r}")
    pair = [
        job(tmp_path, own, meet.format(own=own, other=other), WRITE, parameters={"flags": str(tmp_path)})
        for own, other in (("left", "right"), ("right", "left"))
    ]
    outcomes = run_jobs(pair, n_jobs=2, figures=tmp_path / "figures")
    assert [found.status for found in outcomes] == ["done", "done"]
    assert max(found.seconds for found in outcomes) < PATIENCE


def test_a_folder_that_cannot_be_written_stops_before_anything_runs(tmp_path):
    (tmp_path / "figures").write_text("in the way")
    events = []
    with pytest.raises(RunError, match="Nothing was run"):
        run_jobs([job(tmp_path, "toy", WRITE)], on_event=events.append, figures=tmp_path / "figures")
    assert events == []


def test_no_jobs_at_a_time_is_refused(tmp_path):
    with pytest.raises(RunError, match="at least 1"):
        run_jobs([], n_jobs=0, figures=tmp_path)


class Background:
    """A runner in a process of its own, with a notebook that waits for the file `go`."""

    def __init__(self, folder: Path):
        self.flags, self.figures = folder, folder / "figures"
        self.job = job(folder, "slow", BLOCK, WRITE, parameters={"flags": str(folder)})
        self.processes = []

    def start(self):
        spec = {"job": {**vars(self.job), "notebook": str(self.job.notebook)}, "figures": str(self.figures)}
        command = [sys.executable, "-c", RUN, json.dumps(spec)]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        self.processes.append(process)
        return process

    def kernels(self):
        started = self.flags / "started"
        return [int(line) for line in started.read_text().split()] if started.exists() else []

    def go(self):
        (self.flags / "go").touch()


@pytest.fixture
def background(tmp_path):
    made = Background(tmp_path)
    yield made
    made.go()
    for process in made.processes:
        process.kill()
        process.communicate()


def wait_until(condition):
    """Poll a condition, with a deadline."""
    expired = threading.Event()
    timer = threading.Timer(PATIENCE, expired.set)
    timer.start()
    try:
        while not condition():
            assert not expired.wait(0.02), "waited in vain"
    finally:
        timer.cancel()


def gone(pid):
    return not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM])
def test_killed_half_way_the_last_good_output_survives_and_the_next_run_completes(background, how):
    good = Output(background.figures, "slow")
    check_writable(background.figures)
    (good.staging / "slow").mkdir(parents=True)
    (good.staging / "slow" / "results.json").write_text("last good")
    good.publish("old", 1.0)
    good.discard()
    published = background.figures / "slow"
    before = {path.name: path.read_bytes() for path in published.iterdir()}
    runner = background.start()
    wait_until(background.kernels)
    os.kill(runner.pid, how)
    assert runner.wait(PATIENCE) != 0
    wait_until(lambda: gone(background.kernels()[0]))
    assert {path.name: path.read_bytes() for path in published.iterdir()} == before
    background.go()
    assert run_jobs([background.job], figures=background.figures)[0].status == "done"
    assert json.loads((published / "results.json").read_text())["n"] == 3
    assert sorted(path.name for path in published.iterdir()) == ["results.json", "slow.ipynb"]
    assert list((background.figures / STAGING).iterdir()) == []


def test_a_second_runner_waits_and_then_finds_the_paper_up_to_date(background):
    first = background.start()
    wait_until(background.kernels)
    second = background.start()
    assert second.stdout.readline() == "waiting\n"
    background.go()
    assert first.communicate(timeout=PATIENCE)[0].split()[-1] == "done"
    assert second.communicate(timeout=PATIENCE)[0].split() == ["ended", "skipped"]
    assert len(background.kernels()) == 1
