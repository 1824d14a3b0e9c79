"""What is said of this machine comes from the system, and an absent package is no crash."""

import os
from types import SimpleNamespace

import numpy
import psutil
import pytest
import torch
from llvmlite import binding

from papertwin import machine, paths


@pytest.fixture
def checkout(tmp_path, monkeypatch):
    """A checkout with a pyproject.toml of its own; nothing remembered before or after."""

    def forget():
        machine.dependencies.cache_clear()
        machine.locked.cache_clear()

    forget()
    monkeypatch.setattr(paths, "root", lambda: tmp_path)
    (tmp_path / "pyproject.toml").write_text(
        '[project]\ndependencies = ["numpy>=2", "no-such-package==1; sys_platform == \'linux\'"]\n'
        '[project.optional-dependencies]\ntest = ["pytest"]\n'
    )
    yield tmp_path
    forget()


def test_the_description_names_processor_cores_and_memory(monkeypatch):
    monkeypatch.setattr(machine, "cores", lambda: 7)
    monkeypatch.setattr(psutil, "virtual_memory", lambda: SimpleNamespace(total=12 * 2**30))
    monkeypatch.setattr(machine, "_model", lambda: "Abacus 3000")
    assert machine.describe().startswith("Abacus 3000, 7 cores, 12 GiB, ")


def test_the_processor_is_what_system_llvm_and_torch_call_it(monkeypatch):
    monkeypatch.setattr(machine, "_model", lambda: "Abacus 3000")
    monkeypatch.setattr(binding, "get_host_cpu_name", lambda: "beads")
    found = machine._processor.__wrapped__()
    assert (found["model"], found["architecture"]) == ("Abacus 3000", "beads")
    assert f"CPU capability usage: {found['instructions']}" in torch.__config__.show()


def test_the_processor_is_found_once_and_handed_out_as_a_copy():
    first = machine.processor()
    kept, first["model"] = dict(first), "Abacus 3000"
    first.pop("architecture")
    assert machine.processor() == kept
    hits = machine._processor.cache_info().hits
    machine.processor()
    assert machine._processor.cache_info().hits == hits + 1


def test_cores_are_those_that_this_process_may_use(monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {0, 3, 5}, raising=False)
    assert machine.cores() == 3
    monkeypatch.delattr(os, "sched_getaffinity")
    monkeypatch.setattr(os, "cpu_count", lambda: None)
    assert machine.cores() == 1


def test_the_peak_is_in_bytes_and_never_falls():
    before = machine.peak_memory()
    block = numpy.ones(8_000_000)  # 64 MB, touched
    during = machine.peak_memory()
    del block
    assert during >= psutil.Process().memory_info().rss * 0.5
    assert before <= during <= machine.peak_memory() < psutil.virtual_memory().total


def test_dependencies_are_the_installed_ones_that_pyproject_names(checkout):
    assert machine.dependencies() == {"numpy": numpy.__version__}


def test_the_lock_counts_with_what_is_absent(checkout):
    (checkout / "requirements.lock").write_text("# lock\n--hash=sha256:0\nNumPy==1.0  # old\nno-such-package==1\n")
    assert machine.locked() == {"no-such-package": "absent", "numpy": numpy.__version__}


def test_without_a_lock_the_dependencies_count(checkout):
    assert machine.locked() == {"numpy": numpy.__version__}
