"""Setting up `.venv`: idempotent, survives an interruption, and says clearly what is wrong."""

import ast
import importlib.util
import json
import subprocess
import sys
from collections import namedtuple
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[1] / "lib" / "bootstrap.py"
Usage = namedtuple("Usage", "total used free")


class Machine:
    """A pretended machine: records the programs that bootstrap runs and plays what they would leave on the disk."""

    def __init__(self, root):
        self.root = root
        self.calls = []
        self.fails = None
        self.has_pip = False

    def call(self, *command):
        line = " ".join(map(str, command))
        self.calls.append(line)
        if self.fails and self.fails in line:
            return 1
        if " -m venv " in line:
            python = self.root / ".venv/bin/python"
            python.parent.mkdir(parents=True, exist_ok=True)
            python.touch()
            self.has_pip = True
        return 0

    def answer(self, *command):
        return "3 11" if self.has_pip and (self.root / ".venv/bin/python").exists() else ""

    def count(self, part):
        return sum(part in line for line in self.calls)


@pytest.fixture
def bootstrap():
    spec = importlib.util.spec_from_file_location("bootstrap", SOURCE)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def root(tmp_path):
    repo = tmp_path / "a clone"
    repo.mkdir()
    (repo / "requirements.lock").write_text("six==1.17.0\n")
    (repo / "pyproject.toml").write_text("[project]\n")
    return repo


@pytest.fixture
def machine(bootstrap, root, monkeypatch):
    pretended = Machine(root)
    monkeypatch.setattr(bootstrap, "call", pretended.call)
    monkeypatch.setattr(bootstrap, "answer", pretended.answer)
    monkeypatch.setattr(bootstrap, "find_python", lambda newest=None: "python3.11")
    monkeypatch.setattr(bootstrap.os, "name", "posix")
    monkeypatch.setattr(bootstrap.shutil, "disk_usage", lambda place: Usage(0, 0, 50e9))
    return pretended


def test_source_is_python_3_6_with_the_standard_library_only():
    tree = ast.parse(SOURCE.read_text(encoding="utf-8"), feature_version=(3, 6))
    imported = {alias.name.split(".")[0] for n in ast.walk(tree) if isinstance(n, ast.Import) for alias in n.names}
    imported |= {n.module.split(".")[0] for n in ast.walk(tree) if isinstance(n, ast.ImportFrom)}
    assert imported <= sys.stdlib_module_names


def test_fresh_clone_is_prepared_and_then_left_alone(bootstrap, root, machine):
    bootstrap.prepare(root)
    assert [machine.count(part) for part in ("-m venv", "requirements.lock", f"-e {root}")] == [1, 1, 1]
    assert bootstrap.is_ready(root)
    machine.calls.clear()
    bootstrap.prepare(root)
    assert machine.calls == []


def test_the_users_pip_configuration_stays_in_charge(bootstrap, root, machine):
    bootstrap.prepare(root)
    pip = [line for line in machine.calls if "pip install" in line]
    assert len(pip) == 2
    for line in pip:
        assert "index" not in line
        assert "find-links" not in line
        assert "--disable-pip-version-check" in line
    assert "--no-deps --no-build-isolation" in pip[1]


def test_interrupted_installation_is_continued(bootstrap, root, machine):
    machine.fails = "requirements.lock"
    with pytest.raises(bootstrap.SetupError, match="continues where it stopped"):
        bootstrap.prepare(root)
    assert not bootstrap.is_ready(root)
    machine.fails = None
    bootstrap.prepare(root)
    assert bootstrap.is_ready(root)
    assert machine.count("-m venv") == 1, "the environment that was begun is kept"


def test_environment_without_pip_is_made_anew(bootstrap, root, machine):
    (root / ".venv/bin").mkdir(parents=True)
    (root / ".venv/bin/python").touch()
    (root / ".venv/made-for").write_text(str(root))
    bootstrap.prepare(root)
    assert machine.count("-m venv --clear") == 1
    assert bootstrap.is_ready(root)


@pytest.mark.parametrize("name", ["requirements.lock", "pyproject.toml"])
def test_changed_file_means_installing_again(bootstrap, root, machine, name):
    bootstrap.prepare(root)
    machine.calls.clear()
    (root / name).write_text("changed = 1\n")
    assert not bootstrap.is_ready(root)
    bootstrap.prepare(root)
    assert machine.count("-m venv") == 0
    assert machine.count("pip install") == 2


def test_moved_repository_gets_a_new_environment(bootstrap, root, machine):
    bootstrap.prepare(root)
    moved = root.with_name("elsewhere")
    root.rename(moved)
    machine.root = moved
    machine.calls.clear()
    bootstrap.prepare(moved)
    assert machine.count("-m venv --clear") == 1


def test_removed_interpreter_is_noticed(bootstrap, root, machine):
    bootstrap.prepare(root)
    (root / ".venv/bin/python").unlink()
    assert not bootstrap.is_ready(root)


def test_too_little_space_is_refused_before_anything_is_written(bootstrap, root, machine, monkeypatch):
    monkeypatch.setattr(bootstrap.shutil, "disk_usage", lambda place: Usage(0, 0, 2.3e9))
    with pytest.raises(bootstrap.SetupError, match=r"2\.3 GB free.*about 5 GB"):
        bootstrap.prepare(root)
    assert machine.calls == []
    assert not (root / ".venv").exists()


def test_disk_that_fills_up_on_the_way_is_named(bootstrap, root, machine, monkeypatch):
    bootstrap.create(root / ".venv")
    monkeypatch.setattr(bootstrap.shutil, "disk_usage", lambda place: Usage(0, 0, 0.2e9))
    machine.fails = "pip install"
    with pytest.raises(bootstrap.SetupError, match="disk is full"):
        bootstrap.install(root / ".venv/bin/python", "six")


def test_missing_lock_is_a_clear_error(bootstrap, root, machine):
    (root / "requirements.lock").unlink()
    with pytest.raises(bootstrap.SetupError, match=r"git checkout -- requirements\.lock"):
        bootstrap.prepare(root)
    assert machine.calls == []


def old_python(bootstrap, monkeypatch, version=(3, 8, 0)):
    monkeypatch.setattr(bootstrap.sys, "version_info", version)


def test_old_python_uses_a_newer_one_on_path(bootstrap, monkeypatch):
    old_python(bootstrap, monkeypatch)
    monkeypatch.setenv("PATH", "/broken:/good")
    monkeypatch.setattr(
        bootstrap.shutil, "which", lambda name, path: f"{path}/{name}" if name != "python3.14" else None
    )
    monkeypatch.setattr(bootstrap, "answer", lambda command, *rest: "3 13" if command == "/good/python3.13" else "")
    assert bootstrap.find_python() == "/good/python3.13"


def test_old_python_alone_is_a_clear_error(bootstrap, monkeypatch):
    old_python(bootstrap, monkeypatch)
    monkeypatch.setattr(bootstrap.shutil, "which", lambda name, path: None)
    with pytest.raises(bootstrap.SetupError) as caught:
        bootstrap.find_python()
    for part in ("3.11 to 3.14", "Got Python 3.8", "conda env create -f environment.yml"):
        assert part in str(caught.value)


@pytest.mark.parametrize("missing", ["venv", "ensurepip"])
def test_python_without_venv_names_the_package(bootstrap, monkeypatch, missing):
    real = importlib.util.find_spec
    monkeypatch.setattr(bootstrap.importlib.util, "find_spec", lambda name: None if name == missing else real(name))
    monkeypatch.setattr(bootstrap.shutil, "which", lambda name, path: None)
    with pytest.raises(bootstrap.SetupError, match=rf"python3\.{sys.version_info[1]}-venv"):
        bootstrap.find_python()


def test_errors_are_printed_without_a_traceback(root):
    lib = root / "lib"
    lib.mkdir()
    (lib / "bootstrap.py").write_text(SOURCE.read_text(encoding="utf-8"), encoding="utf-8")
    (root / "requirements.lock").unlink()
    done = subprocess.run([sys.executable, lib / "bootstrap.py"], cwd="/", capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stderr.startswith("setup failed: requirements.lock is missing")
    assert "Traceback" not in done.stderr


def test_lock_text_pins_public_versions_and_both_twins(bootstrap):
    pins = {"torch": "2.13.0+cpu", "open3d-cpu": "0.20.0", "papertwin": "0.1.0", "nvidia-x": "1", "Arrow": "1.4.0"}
    lines = [line for line in bootstrap.lock_text(pins).splitlines() if not line.startswith("#")]
    assert [line.partition(";")[0] for line in lines] == [
        "Arrow==1.4.0",
        "open3d-cpu==0.20.0",
        "open3d==0.20.0",
        "torch==2.13.0",
    ]


def test_lock_is_replaced_only_when_resolved(bootstrap, root, machine, monkeypatch):
    before = (root / "requirements.lock").read_text()
    machine.fails = "--dry-run"
    with pytest.raises(bootstrap.SetupError):
        bootstrap.write_lock(root)
    assert (root / "requirements.lock").read_text() == before

    def resolved(*command):
        words = [str(word) for word in command]
        if "--report" in words:
            entry = {"metadata": {"name": "six", "version": "1.18.0"}}
            Path(words[words.index("--report") + 1]).write_text(json.dumps({"install": [entry]}))
        return 0

    monkeypatch.setattr(bootstrap, "call", resolved)
    bootstrap.write_lock(root)
    assert (root / "requirements.lock").read_text().endswith("\nsix==1.18.0\n")
