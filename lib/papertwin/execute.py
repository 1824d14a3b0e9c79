"""Run one notebook in a process of its own: `python -m papertwin.execute JOB.json`.

The process writes one JSON object per line to stdout: `{"event": "cell", "index": 3, "of": 21}` when a cell starts,
then `{"event": "done"}` or `{"event": "failed", "kind": …, "cell": …, "source": …, "exception": …}`. Cells are
counted from 1 in the notebook as it is committed. It ends with its parent, and takes the kernel with it.
"""

import json
import os
import signal
import sys
import threading
import time
from pathlib import Path
from typing import Any

import psutil

EXIT_OK, EXIT_CELL, EXIT_KERNEL, EXIT_TIMEOUT, EXIT_OTHER = 0, 10, 11, 12, 13
EXIT_CODES = {"cell": EXIT_CELL, "kernel": EXIT_KERNEL, "timeout": EXIT_TIMEOUT, "other": EXIT_OTHER}
THREAD_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS")
START_TIMEOUT = 180  # seconds for a kernel to answer; a cold import on a slow disk takes its time
SOURCE_LINES = 6


def emit(event: str, **fields: Any) -> None:
    """Write one line of progress to stdout."""
    print(json.dumps({"event": event, **fields}), file=sys.stdout, flush=True)


def claim_stdout() -> None:
    """Keep stdout for progress alone: what a library or the kernel prints by itself goes to stderr."""
    channel = os.dup(1)  # a duplicate is not inherited by the kernel
    os.dup2(2, 1)
    sys.stdout = os.fdopen(channel, "w", encoding="utf-8")


def head(source: str) -> str:
    """Return the first lines of a cell."""
    lines = source.strip().splitlines()
    return "\n".join(lines[:SOURCE_LINES] + (["…"] if len(lines) > SOURCE_LINES else []))


class Progress:
    """Knows which cell runs: told by nbclient's hook, asked when something goes wrong."""

    def __init__(self, total: int, injected_at: int | None, deadline: float | None):
        """Count `total` cells; skip the one that papermill injects at a position; stop at a monotonic time."""
        self.total, self.injected_at, self.deadline = total, injected_at, deadline
        self.number, self.source = 0, ""

    def cell_started(self, cell: Any, cell_index: int, **_: Any) -> None:
        """Report the start of a cell (hook of nbclient)."""
        shift = self.injected_at is not None and cell_index >= self.injected_at
        self.number, self.source = cell_index + (0 if shift else 1), cell.source
        emit("cell", index=self.number, of=self.total)

    def seconds_left(self, _: Any) -> int | None:
        """Return how long a cell may still run (hook of nbclient, whole seconds)."""
        return None if self.deadline is None else max(1, round(self.deadline - time.monotonic()))

    def failed(self, kind: str, exception: str, traceback: str = "") -> int:
        """Report the failure and return the exit code."""
        fields = {"cell": self.number or None, "source": head(self.source)}
        emit("failed", kind=kind, exception=exception, traceback=traceback, **fields)
        return EXIT_CODES[kind]


def run(job: dict[str, Any]) -> int:
    """Execute the notebook of a job and report how it went.

    Args:
        job: "notebook", "output" (paths), "parameters" (name → value to inject), "timeout" (seconds or None).

    Returns:
        The exit code.
    """
    import papermill
    from nbclient.exceptions import CellTimeoutError, DeadKernelError
    from papermill.exceptions import PapermillExecutionError

    progress = _progress(job)
    emit("cell", index=0, of=progress.total)
    try:
        papermill.execute_notebook(
            job["notebook"],
            job["output"],
            parameters=job["parameters"],
            kernel_name="python3",
            language="python",
            cwd=str(Path(job["notebook"]).parent),
            progress_bar=False,
            start_timeout=START_TIMEOUT,
            autosave_cell_every=0,
            on_cell_start=progress.cell_started,
            timeout_func=progress.seconds_left,
        )
    except PapermillExecutionError as error:
        return progress.failed("cell", f"{error.ename}: {error.evalue}", "\n".join(error.traceback or []))
    except DeadKernelError:
        reason = "the kernel died (killed, out of memory, or a crash in native code)"
        return progress.failed("kernel", reason)
    except CellTimeoutError:
        return progress.failed("timeout", f"not finished after {job['timeout']} seconds")
    except Exception as error:
        return progress.failed("other", f"{type(error).__name__}: {error}")
    emit("done")
    return EXIT_OK


def _progress(job: dict[str, Any]) -> Progress:
    from papertwin import cells
    from papertwin.parameters import TAG

    tags = [cell.tags for cell in cells.read(Path(job["notebook"]))]
    injected_at = None
    if job["parameters"]:
        tagged = [index for index, names in enumerate(tags) if TAG in names]
        injected_at = tagged[0] + 1 if tagged else 0
    timeout = job["timeout"]
    return Progress(len(tags), injected_at, None if timeout is None else time.monotonic() + timeout)


def kill_tree(pid: int) -> None:
    """Kill a process and everything below it; one that is gone already is no error."""
    try:
        process = psutil.Process(pid)
        family = [*process.children(recursive=True), process]
    except psutil.NoSuchProcess:
        return
    for member in family:
        try:
            member.kill()
        except psutil.NoSuchProcess:
            continue


def die_with(parent: int) -> None:
    """End this process when its parent ends: the system does it on Linux, a thread that looks elsewhere.

    Args:
        parent: process id of the parent as the parent knows it.
    """
    signal.signal(signal.SIGTERM, _terminated)
    if sys.platform == "linux":
        import ctypes

        pr_set_pdeathsig = 1
        ctypes.CDLL(None, use_errno=True).prctl(pr_set_pdeathsig, signal.SIGTERM, 0, 0, 0)
    else:
        threading.Thread(target=_follow, args=[parent], daemon=True).start()
    if os.getppid() != parent:
        os._exit(EXIT_OTHER)


def _follow(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(1)
    _terminated()


def _terminated(*_: Any) -> None:
    for child in psutil.Process().children(recursive=True):
        try:
            child.kill()
        except psutil.NoSuchProcess:
            continue
    os._exit(128 + signal.SIGTERM)


def prepare_environment(job: dict[str, Any]) -> None:
    """Set what the kernel inherits: where to write, how many threads, which kernel definition."""
    os.environ["PAPERTWIN_FIGURES"] = job["figures"]
    os.environ["PAPERTWIN_CACHE"] = job["cache"]
    os.environ.update({name: str(job["threads"]) for name in THREAD_VARIABLES})
    os.environ.pop("MPLBACKEND", None)  # else the kernel would not show figures in the notebook
    os.environ["JUPYTER_PREFER_ENV_PATH"] = "1"  # this environment's kernel, not one a user registered
    os.environ["PYDEVD_DISABLE_FILE_VALIDATION"] = "1"  # ipykernel's debugger would warn on stderr


def main(arguments: list[str]) -> int:
    """Run the job described by the file that the only argument names."""
    job = json.loads(Path(arguments[0]).read_text(encoding="utf-8"))
    die_with(job["parent"])
    claim_stdout()
    prepare_environment(job)
    return run(job)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
