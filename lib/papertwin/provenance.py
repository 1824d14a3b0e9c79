"""Where a result comes from: code, packages, data and machine, as plain JSON-ready values."""

import platform
import subprocess
from typing import Any

from papertwin import machine, paths

# What a result depends on. Figures and reports are outputs: regenerating them does not make the source dirty.
SOURCES = ("lib", "data", "notebooks", "pyproject.toml", "requirements.lock")
# What may change without a trace in a figure: if picture and arrays are the same, so is the figure.
PASSING = ("commit", "dirty", "processor")


def _git(*arguments: str) -> str | None:
    try:
        done = subprocess.run(
            ["git", *arguments], cwd=paths.root(), capture_output=True, text=True, timeout=20, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()


def git_state() -> tuple[str | None, bool | None]:
    """Return (commit, dirty): dirty means that sources differ from the commit. None outside a git checkout."""
    commit = _git("rev-parse", "HEAD")
    status = _git("status", "--porcelain", "--", *SOURCES)
    return commit, None if status is None else bool(status)


def collect(data_sets: list[str]) -> dict[str, Any]:
    """Collect the provenance of a run.

    Args:
        data_sets: registry names of the data sets that the run reads; an optional one may be absent.

    Raises:
        DataError: an unknown data set, or a vendored file that is missing or corrupted.
        RunError: there is no checkout.
    """
    commit, dirty = git_state()
    return {
        "commit": commit,
        "dirty": dirty,
        "python": platform.python_version(),
        "platform": f"{platform.system()} {platform.machine()}",
        "processor": machine.processor(),
        "packages": machine.dependencies(),
        "data": {name: _data(name) for name in data_sets},
    }


def _data(name: str) -> dict[str, str] | str:
    """File → sha256 of a data set; `absent` for an optional one that the user has not brought."""
    from papertwin.data import registry

    if registry.describe(name).kind == "optional" and not registry.present(name):
        return machine.ABSENT
    return registry.sha256s(name)
