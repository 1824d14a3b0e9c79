"""The output folder of a run: locked, staged aside, swapped in whole, and remembered.

A run writes to `figures/.staging/<address>.<pid>/`. When it has succeeded, its folder takes the place of
`figures/<address>/` by two renames on one file system. Killed before, between or after them, the next run finds the
last good output or the new one, never a mixture.
"""

import json
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
from filelock import FileLock, Timeout

from papertwin import files
from papertwin.errors import RunError

STAGING, BACKUP, LOCKS, STATE, FAILED = ".staging", ".backup", ".locks", ".state", ".failed"
RESULTS = "results.json"
POLL = 0.2  # seconds between two tries for a lock


def check_writable(figures: Path) -> None:
    """Make the folders that runs need and prove that files can be written there.

    Raises:
        RunError: they cannot.
    """
    try:
        for name in (STAGING, BACKUP, LOCKS, STATE, FAILED, "."):
            (figures / name).mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=figures / name) as file:
                file.write(b"papertwin")
    except OSError as error:
        raise RunError(
            f"Cannot write to the output folder {figures}: {error.strerror or error}. Nothing was run. Make it a "
            "writable folder with free space, or choose another one with the environment variable PAPERTWIN_FIGURES."
        ) from error


def sweep(figures: Path) -> None:
    """Remove staging folders whose process has ended."""
    for folder in (figures / STAGING).iterdir():
        pid = folder.name.rpartition(".")[2]
        if not (pid.isdigit() and psutil.pid_exists(int(pid))):
            shutil.rmtree(folder, ignore_errors=True)


class Output:
    """Where the results of one address live below a figures folder."""

    def __init__(self, figures: Path, address: str):
        """Name the folders; nothing is written yet.

        Args:
            figures: folder of all outputs.
            address: output folder of the run, for example "don@full".
        """
        self.address = address
        self.figures = figures
        self.folder = figures / address
        self.backup = figures / BACKUP / address
        self.staging = figures / STAGING / f"{address}.{os.getpid()}"
        self.state = figures / STATE / f"{address}.json"
        self.failed = figures / FAILED / f"{address}.ipynb"

    @contextmanager
    def locked(self, waiting: Callable[[], None], stopped: Callable[[], bool]) -> Iterator[bool]:
        """Hold the address for this process; yield False if `stopped` said so before the lock was free.

        Args:
            waiting: called once if another process holds it.
            stopped: asked while waiting.
        """
        lock = FileLock(self.figures / LOCKS / f"{self.address}.lock")
        told = False
        while not lock.is_locked:
            try:
                lock.acquire(timeout=POLL if told else 0)
            except Timeout:
                if stopped():
                    break
                if not told:
                    waiting()
                told = True
        try:
            yield lock.is_locked
        finally:
            lock.release()

    def recover(self) -> None:
        """Undo what a killed run has left of this address. The lock must be held."""
        if self.backup.exists():
            if self.folder.exists():
                shutil.rmtree(self.backup)
            else:
                self.backup.rename(self.folder)
        for stale in (self.figures / STAGING).iterdir():
            if stale.name.rpartition(".")[0] == self.address:
                shutil.rmtree(stale, ignore_errors=True)

    def is_current(self, fingerprint: str) -> bool:
        """Tell whether the published files are those that a run with this fingerprint has written here."""
        try:
            state = json.loads(self.state.read_text(encoding="utf-8"))
            recorded = state["files"]
            if state["fingerprint"] != fingerprint or RESULTS not in recorded:
                return False
            return all(files.sha256(self.folder / name) == digest for name, digest in recorded.items())
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            return False

    def publish(self, fingerprint: str, seconds: float) -> None:
        """Put the staged folder in the place of the published one and remember what it was made from.

        Args:
            fingerprint: hash of the run's inputs.
            seconds: how long the run took.

        Raises:
            RunError: the folder cannot be written.
        """
        fresh = self.staging / self.address
        recorded = {path.name: files.sha256(path) for path in sorted(fresh.iterdir()) if path.is_file()}
        try:
            if self.folder.exists():
                self.folder.rename(self.backup)
            fresh.rename(self.folder)
            shutil.rmtree(self.backup, ignore_errors=True)
            self.failed.unlink(missing_ok=True)
        except OSError as error:
            raise RunError(
                f"Cannot put the results into {self.folder}: {error.strerror or error}. "
                "Make the folder writable and run again."
            ) from error
        finished = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        state = {"fingerprint": fingerprint, "finished": finished, "seconds": round(seconds, 1), "files": recorded}
        files.write_json(self.state, state)

    def keep_failed(self, notebook: Path) -> Path | None:
        """Keep a partly executed notebook for the reader; return where, or None if there is none."""
        if not notebook.is_file():
            return None
        notebook.replace(self.failed)
        return self.failed

    def discard(self) -> None:
        """Remove the staging folder."""
        shutil.rmtree(self.staging, ignore_errors=True)


def last_run(figures: Path, address: str) -> dict[str, Any]:
    """Return what is remembered of an address: "finished", "seconds", …; empty if it never ran on this machine."""
    try:
        return json.loads((figures / STATE / f"{address}.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
