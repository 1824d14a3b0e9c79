"""Run notebooks: one process each, several at a time, nothing lost when one fails or is killed.

`run_jobs` skips what is up to date, lets papers that measure time run alone, and reports events; what a run has
written is published by `publish.Output` only if its notebook ran to the end. Files are renamed into place, not flushed
to the disk: after a power failure the file system decides what is left of the last seconds.
"""

import json
import os
import signal
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from papertwin import canonical, files, paths, results, words
from papertwin.errors import PaperTwinError, RunError
from papertwin.execute import kill_tree
from papertwin.machine import cores
from papertwin.publish import Output, check_writable, sweep

GRACE = 30  # seconds that a process gets to report its own timeout before it is killed
LOG_LINES = 12


@dataclass(frozen=True)
class Job:
    """One notebook to run.

    Attributes:
        slug: the paper.
        address: name of its output folder.
        notebook: the notebook to execute.
        parameters: values that differ from the notebook's own, to inject.
        fingerprint: hash of everything that the run depends on.
        exclusive: run alone, with every core.
        timeout: seconds for the whole notebook; None for no limit.
    """

    slug: str
    address: str
    notebook: Path
    parameters: dict[str, Any] = field(default_factory=dict)
    fingerprint: str = ""
    exclusive: bool = False
    timeout: float | None = None


@dataclass(frozen=True)
class Failure:
    """What went wrong and where.

    Attributes:
        kind: cell (it raised), kernel (it died), timeout, setup (nothing was run) or other.
        exception: one line, or the message.
        cell: number of the cell, from 1, in the committed notebook; None outside of cells.
        source: first lines of that cell.
        traceback: as the kernel printed it, or the last lines of the log or of our own exception.
        notebook: the partly executed notebook that was kept.
    """

    kind: Literal["cell", "kernel", "timeout", "setup", "other"]
    exception: str
    cell: int | None = None
    source: str = ""
    traceback: str = ""
    notebook: Path | None = None


@dataclass(frozen=True)
class Outcome:
    """How one job ended: done, skipped (up to date), failed, or stopped (interrupted before its end)."""

    address: str
    status: Literal["done", "skipped", "failed", "stopped"]
    seconds: float = 0.0
    failure: Failure | None = None


@dataclass(frozen=True)
class Event:
    """Something that a user may want to see: waiting, cell (number `index` of `of`), or ended (with outcome)."""

    kind: Literal["waiting", "cell", "ended"]
    address: str
    index: int = 0
    of: int = 0
    seconds: float = 0.0
    outcome: Outcome | None = None


def run_jobs(
    jobs: Sequence[Job],
    *,
    n_jobs: int | None = None,
    force: bool = False,
    on_event: Callable[[Event], None] | None = None,
    figures: Path | None = None,
) -> list[Outcome]:
    """Run jobs and publish what succeeds.

    Args:
        jobs: what to run; the exclusive ones run one by one after the others.
        n_jobs: how many at a time; by default half the cores. Each gets its share of the cores as threads.
        force: run also what is up to date.
        on_event: told what happens; called from several threads, one at a time.
        figures: folder of all outputs, by default the repository's.

    Returns:
        One outcome per job, in the order of the jobs.

    Raises:
        RunError: the output folder cannot be written, or n_jobs is less than one; nothing has been run.
        KeyboardInterrupt: the user (or SIGTERM) stopped it; every child has been killed.
    """
    if n_jobs is not None and n_jobs < 1:
        raise RunError(f"Cannot run {n_jobs} notebooks at a time; expected --jobs of at least 1.")
    figures = figures or paths.figures_root()
    check_writable(figures)
    sweep(figures)
    session = _Session(figures, force, on_event)
    shared = [job for job in jobs if not job.exclusive]
    due = sum(session.is_due(job) for job in shared)
    width = max(1, min(n_jobs or max(1, cores() // 2), due))
    outcomes = session.run(shared, width, max(1, cores() // width))
    outcomes |= session.run([job for job in jobs if job.exclusive], 1, cores())
    return [outcomes[job.address] for job in jobs]


class _Session:
    """The state that the jobs of one `run_jobs` share."""

    def __init__(self, figures: Path, force: bool, on_event: Callable[[Event], None] | None):
        self.figures, self.force, self.on_event = figures, force, on_event
        self.stop = threading.Event()
        self.speaking = threading.Lock()
        self.children: set[int] = set()

    def tell(self, event: Event) -> None:
        if self.on_event is not None:
            with self.speaking:
                self.on_event(event)

    def is_due(self, job: Job) -> bool:
        return self.force or not Output(self.figures, job.address).is_current(job.fingerprint)

    def run(self, jobs: Sequence[Job], width: int, threads: int) -> dict[str, Outcome]:
        """Run jobs, `width` at a time; an interruption kills the children and is passed on."""
        with ThreadPoolExecutor(max_workers=width) as pool, _terminate_as_interrupt():
            futures: dict[str, Future[Outcome]] = {}
            try:
                for job in jobs:
                    if job.address not in futures:
                        futures[job.address] = pool.submit(self.attend, job, threads)
                # a plain wait in the main thread would hold back signals on some platforms
                while wait(futures.values(), timeout=1).not_done:
                    pass
            except BaseException:
                self.stop.set()
                pool.shutdown(wait=False, cancel_futures=True)
                for pid in tuple(self.children):
                    kill_tree(pid)
                raise
        return {address: future.result() for address, future in futures.items()}

    def attend(self, job: Job, threads: int) -> Outcome:
        """Run one job unless it is up to date; whatever goes wrong with it is its outcome, so that the others go on."""
        began = time.monotonic()
        output = Output(self.figures, job.address)
        waiting = Event("waiting", job.address)
        try:
            with output.locked(lambda: self.tell(waiting), self.stop.is_set) as held:
                if not held or self.stop.is_set():
                    return Outcome(job.address, "stopped")
                output.recover()
                if self.is_due(job):
                    outcome = self.execute(job, output, threads, began)
                else:
                    output.failed.unlink(missing_ok=True)  # of a trial since; what is published is current
                    outcome = Outcome(job.address, "skipped")
        except Exception as error:
            outcome = Outcome(job.address, "failed", time.monotonic() - began, _unexpected(error))
        self.tell(Event("ended", job.address, seconds=outcome.seconds, outcome=outcome))
        return outcome

    def execute(self, job: Job, output: Output, threads: int, began: float) -> Outcome:
        """Run one job in a child process and publish its folder if it succeeds."""
        executed = output.staging / "executed.ipynb"
        output.staging.mkdir(parents=True)
        try:
            failure = self.watch(job, output, executed, threads, began)
            seconds = time.monotonic() - began
            if self.stop.is_set():
                return Outcome(job.address, "stopped", seconds)
            failure = failure or _missing_results(job, output)
            if failure is None:
                notebook = canonical.canonicalise(canonical.read(executed))
                canonical.write(notebook, output.staging / job.address / f"{job.slug}.ipynb")
                output.publish(job.fingerprint, seconds)
                return Outcome(job.address, "done", seconds)
            kept = output.keep_failed(executed)
            return Outcome(job.address, "failed", seconds, Failure(**{**vars(failure), "notebook": kept}))
        finally:
            output.discard()

    def watch(self, job: Job, output: Output, executed: Path, threads: int, began: float) -> Failure | None:
        """Start the child process, pass on its progress, and tell how it failed, if it did."""
        description = {
            "notebook": str(job.notebook.resolve()),
            "output": str(executed),
            "parameters": job.parameters,
            "figures": str(output.staging),
            "cache": os.environ.get("PAPERTWIN_CACHE", str(output.figures / ".cache")),
            "threads": threads,
            "timeout": job.timeout,
            "parent": os.getpid(),
        }
        files.write_json(output.staging / "job.json", description)
        failure = None
        with _child(output.staging, self.children) as process, _deadline(process.pid, job.timeout) as expired:
            if self.stop.is_set():  # asked to stop between its start and its registration
                kill_tree(process.pid)
            for line in process.stdout or ():
                entry = json.loads(line)
                if entry["event"] == "cell":
                    elapsed = time.monotonic() - began
                    self.tell(Event("cell", job.address, entry["index"], entry["of"], elapsed))
                elif entry["event"] == "failed":
                    failure = Failure(**{name: entry[name] for name in entry if name != "event"})
            code = process.wait()
        if expired.is_set() and failure is None:
            return Failure("timeout", f"not finished after {words.duration(job.timeout or 0)}, and did not react")
        return failure if failure or code == 0 else _crash(code, output.staging / "log.txt")


@contextmanager
def _child(staging: Path, children: set[int]) -> Iterator[subprocess.Popen[str]]:
    """Start `papertwin.execute` in its own process group; leave nothing of it running at the end."""
    command = [sys.executable, "-m", "papertwin.execute", str(staging / "job.json")]
    with (staging / "log.txt").open("w", encoding="utf-8") as log:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
            encoding="utf-8",
            start_new_session=True,
        )
    children.add(process.pid)
    try:
        with process:
            yield process
    finally:
        if process.poll() is None:
            kill_tree(process.pid)
        children.discard(process.pid)


@contextmanager
def _deadline(pid: int, timeout: float | None) -> Iterator[threading.Event]:
    """Kill a process that has not even reported its timeout; the event yielded tells whether that was needed."""
    expired = threading.Event()

    def expire() -> None:
        expired.set()
        kill_tree(pid)

    timer = threading.Timer((timeout or 0) + GRACE, expire)
    timer.daemon = True
    if timeout is not None:
        timer.start()
    try:
        yield expired
    finally:
        timer.cancel()


@contextmanager
def _terminate_as_interrupt() -> Iterator[None]:
    """Let SIGTERM end a run as Ctrl-C does: children first."""

    def interrupt(*_: Any) -> None:
        raise KeyboardInterrupt

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _unexpected(error: Exception) -> Failure:
    """Tell an error that names its own remedy in its words, any other one with the end of its traceback."""
    if isinstance(error, PaperTwinError):
        return Failure("other", str(error))
    lines = "".join(traceback.format_exception(error)).splitlines()
    return Failure("other", f"{type(error).__name__}: {error}", traceback="\n".join(lines[-LOG_LINES:]))


def _missing_results(job: Job, output: Output) -> Failure | None:
    if (output.staging / job.address / results.FILE).is_file():
        return None
    found = sorted(path.name for path in output.staging.iterdir() if path.is_dir())
    return Failure(
        "other",
        f"the notebook ran to its end, but did not write {job.address}/{results.FILE} (folders written: {found}). "
        f"It must call papertwin.start({job.slug!r}, globals()) and run.claims(...).",
    )


def _crash(code: int, log: Path) -> Failure:
    ended = f"signal {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
    tail = "\n".join(log.read_text(encoding="utf-8", errors="replace").splitlines()[-LOG_LINES:])
    return Failure("other", f"the process that ran the notebook ended with {ended}", traceback=tail)
