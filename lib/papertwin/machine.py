"""What this machine is: its processor, its cores, its memory, and the versions of the packages installed on it."""

import os
import platform
import re
import sys
import tomllib
from collections.abc import Iterable
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

from papertwin import paths

ABSENT = "absent"


def cores() -> int:
    """Return how many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def peak_memory() -> int:
    """Return the largest resident size of this process so far, in bytes."""
    try:
        import resource
    except ImportError:  # Windows keeps the peak elsewhere
        import psutil

        return psutil.Process().memory_info().peak_wset
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def describe() -> str:
    """Name processor, usable cores and memory, in words."""
    import psutil

    memory = psutil.virtual_memory().total / 2**30
    return f"{_model()}, {cores()} cores, {memory:.0f} GiB, {platform.system()} {platform.machine()}"


def processor() -> dict[str, str]:
    """Name what the last digits of a result may depend on besides the packages.

    Returns:
        "model": as the system calls it, which virtual machines shorten; "architecture": as LLVM calls it, for which
        numba compiles; "instructions": the widest that torch uses. The dictionary is the caller's own.
    """
    return dict(_processor())


@cache
def _processor() -> dict[str, str]:
    import torch
    from llvmlite import binding

    instructions = torch.backends.cpu.get_cpu_capability()
    return {"model": _model(), "architecture": binding.get_host_cpu_name(), "instructions": instructions}


def _model() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    except OSError:
        pass  # only Linux has that file
    return platform.processor() or "unknown processor"


@cache
def dependencies() -> dict[str, str]:
    """Versions of the installed packages that pyproject.toml names as what PaperTwin needs to run.

    Raises:
        RunError: there is no checkout.
    """
    found = _versions(_pyproject().get("project", {}).get("dependencies", []))
    return {name: version for name, version in found.items() if version != ABSENT}


@cache
def locked() -> dict[str, str]:
    """Installed versions of every package in requirements.lock; without a lock, of the dependencies.

    Raises:
        RunError: there is no checkout.
    """
    lock = paths.root() / "requirements.lock"
    return _versions(lock.read_text(encoding="utf-8").splitlines()) if lock.is_file() else dependencies()


def _pyproject() -> dict[str, Any]:
    return tomllib.loads((paths.root() / "pyproject.toml").read_text(encoding="utf-8"))


def _versions(requirements: Iterable[str]) -> dict[str, str]:
    """Package of each requirement → its installed version, in alphabetical order; comments and options are none."""
    names = (re.match(r"[A-Za-z0-9][A-Za-z0-9._-]*", line.strip()) for line in requirements)
    return {name: _version(name) for name in sorted({match[0].lower() for match in names if match})}


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return ABSENT
