"""Where a result comes from: code, packages, data and machine, as plain JSON-ready values."""

import platform
import re
import subprocess
from functools import cache
from importlib import metadata
from typing import Any

from papertwin import paths

# What a result depends on. Figures and reports are outputs: regenerating them does not make the source dirty.
SOURCES = ("lib", "data", "notebooks", "pyproject.toml", "requirements.lock")


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


@cache
def packages() -> dict[str, str]:
    """Versions of the installed packages that papertwin names as its dependencies."""
    names = sorted({re.split(r"[^A-Za-z0-9_.-]", line)[0] for line in metadata.requires("papertwin") or []})
    versions = {}
    for name in names:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return versions


def collect(data_sets: list[str]) -> dict[str, Any]:
    """Collect the provenance of a run.

    Args:
        data_sets: registry names of the data sets that the run reads.
    """
    from papertwin.data import registry

    commit, dirty = git_state()
    return {
        "commit": commit,
        "dirty": dirty,
        "python": platform.python_version(),
        "platform": f"{platform.system()} {platform.machine()}",
        "packages": packages(),
        "data": {name: registry.sha256s(name) for name in data_sets},
    }
