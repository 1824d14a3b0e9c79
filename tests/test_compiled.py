"""Compilation works where no cache can be written, and importing the package compiles and loads nothing."""

import subprocess
import sys

import numba

from papertwin import compiled


def test_without_a_cache_folder_kernels_still_compile(monkeypatch):
    asked = []

    def njit(**options):
        asked.append(options)
        if options.get("cache"):
            raise RuntimeError("cannot cache function: no locator available")
        return lambda function: function

    monkeypatch.setattr(numba, "njit", njit)
    assert compiled.jit(len) is len
    assert [options.get("cache", False) for options in asked] == [True, False]
    assert all(options["nogil"] for options in asked)


def test_importing_the_package_loads_nothing_heavy():
    code = "import sys, papertwin.points; print([m for m in ('numba', 'torch', 'open3d', 'laspy') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.strip() == "[]"
