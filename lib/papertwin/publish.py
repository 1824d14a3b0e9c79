"""The output folder of a run: locked, staged aside, swapped in whole, and remembered.

A run writes to `figures/.staging/<address>.<pid>/`. When it has succeeded, its folder takes the place of
`figures/<address>/` by two renames on one file system. Killed before, between or after them, the next run finds the
last good output or the new one, never a mixture. (Nothing is flushed to the disk: a power failure is another matter.)

A figure that shows the same as the published one, and was made from the same, keeps the published files: they differ
in nothing but the names of the commit and the processor, and a fresh clone that runs everything shall not look changed.
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

from filelock import FileLock, Timeout

from papertwin import files, provenance, results
from papertwin.errors import RunError

STAGING, BACKUP, LOCKS, STATE, FAILED = ".staging", ".backup", ".locks", ".state", ".failed"
PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
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
    """Remove the staging folders of killed runs: those of an address that no process holds locked."""
    for folder in (figures / STAGING).iterdir():
        lock = _lock(figures, folder.name.rpartition(".")[0] or folder.name)
        try:
            with lock.acquire(timeout=0):
                shutil.rmtree(folder, ignore_errors=True)
        except Timeout:
            continue  # that run is alive


def _lock(figures: Path, address: str) -> FileLock:
    return FileLock(figures / LOCKS / f"{address}.lock")


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
        lock = _lock(self.figures, self.address)
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
            if state["fingerprint"] != fingerprint or results.FILE not in recorded:
                return False
            return all(files.sha256(self.folder / name) == digest for name, digest in recorded.items())
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            return False

    def publish(self, fingerprint: str, seconds: float) -> None:
        """Put the staged folder in the place of the published one and remember what it was made from.

        Published figures that the new ones repeat are taken over as they are.

        Args:
            fingerprint: hash of the run's inputs.
            seconds: how long the run took.

        Raises:
            RunError: the folder cannot be written.
        """
        fresh = self.staging / self.address
        try:
            keep_repeated(fresh, self.folder)
            recorded = {path.name: files.sha256(path) for path in sorted(fresh.iterdir()) if path.is_file()}
            self._swap(fresh)
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

    def _swap(self, fresh: Path) -> None:
        """Move the published folder aside and the fresh one into its place; if that fails, move the old one back."""
        had = self.folder.exists()
        if had:
            self.folder.rename(self.backup)
        try:
            fresh.rename(self.folder)
        except OSError:
            if had:
                self.backup.rename(self.folder)
            raise

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
        state = json.loads((figures / STATE / f"{address}.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return state if isinstance(state, dict) else {}


def keep_repeated(fresh: Path, published: Path) -> list[str]:
    """Replace fresh figures by the published ones that they repeat, and list these in the fresh results.json.

    A figure repeats another if its arrays and its picture are the same, and its provenance up to commit and
    processor.

    Args:
        fresh: folder of the new run; changed in place.
        published: folder of the last one; may be absent.

    Returns:
        The ids of these figures.

    Raises:
        OSError: a figure's file cannot be read or written.
        RunError: results.json cannot be written.
    """
    try:
        content = results.read(fresh)
    except RunError:
        return []  # not of our making
    kept = []
    for data in sorted(published.glob("fig*.json")):
        names = [data.with_suffix(suffix).name for suffix in (".json", ".png", ".pdf")]
        if all((folder / name).is_file() for folder in (fresh, published) for name in names) and _repeats(
            fresh / data.name, data
        ):
            for name in names:
                shutil.copyfile(published / name, fresh / name)
            kept.append(data.stem)
    if kept:
        results.write(fresh, content.rehashed(fresh))
    return kept


def _repeats(fresh: Path, published: Path) -> bool:
    """Compare two figures by their arrays' files and the PNG files beside these."""
    pictures = [_picture(path.with_suffix(".png")) for path in (fresh, published)]
    try:
        one, two = (_lasting(json.loads(path.read_text(encoding="utf-8"))) for path in (fresh, published))
    except (ValueError, KeyError, TypeError, AttributeError):
        return False  # not of our making
    return pictures[0] == pictures[1] and one == two


def _lasting(content: dict[str, Any]) -> dict[str, Any]:
    """Leave out of a figure's provenance what may change without a trace in it."""
    origin = dict(content["provenance"]["provenance"])
    for name in provenance.PASSING:
        origin.pop(name, None)
    return {**content, "provenance": {**content["provenance"], "provenance": origin}}


def _picture(png: Path) -> list[bytes]:
    """Split a PNG into its chunks, without those that hold text."""
    content, start, chunks = png.read_bytes(), len(PNG_SIGNATURE), []
    while start < len(content):
        length = int.from_bytes(content[start : start + 4], "big")
        chunks.append(content[start : start + 12 + length])
        start += 12 + length
    return [chunk for chunk in chunks if chunk[4:8] not in (b"tEXt", b"iTXt", b"zTXt")]
