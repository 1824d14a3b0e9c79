"""Setting up `.venv`: idempotent, survives an interruption, and says clearly what is wrong."""

import ast
import importlib.util
import json
import os
import shutil
import subprocess
import sys
import zipfile
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
        self.on_install = lambda: None
        self.has_pip = False

    def call(self, *command):
        line = " ".join(map(str, command))
        self.calls.append(line)
        if self.fails and self.fails in line:
            return 1
        if "pip install" in line:
            self.on_install()
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
    monkeypatch.setattr(bootstrap, "has_nvidia_driver", lambda: False)
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


INFO = "toy-1.0.dist-info"
WHEEL = {
    "toy/__init__.py": "",
    "toy/part/__init__.py": "VALUE = 7\n",
    f"{INFO}/METADATA": "Metadata-Version: 2.1\nName: toy\nVersion: 1.0\n",
    f"{INFO}/WHEEL": "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    f"{INFO}/entry_points.txt": "[console_scripts]\ntoy = toy.part:main\n",
}
WHEEL[f"{INFO}/RECORD"] = "".join(f"{name},,\n" for name in [*WHEEL, f"{INFO}/RECORD"])


class Installed:
    """A real environment with one real package, which pip installs from a wheel on the disk."""

    def __init__(self, folder):
        self.venv = folder / ".venv"
        subprocess.run([sys.executable, "-m", "venv", "--without-pip", self.venv], check=True)
        self.wheel = folder / "toy-1.0-py3-none-any.whl"
        with zipfile.ZipFile(self.wheel, "w") as archive:
            for name, text in WHEEL.items():
                archive.writestr(name, text)
        self.pip()
        (self.site,) = {path.parent for path in self.venv.glob("[lL]ib/**/toy-1.0.dist-info")}

    def pip(self):
        """Install the wheel, as set-up does from the lock: nothing happens if pip believes that it is installed."""
        options = ["--no-index", "--no-deps", "--no-cache-dir", "--disable-pip-version-check", "--quiet"]
        command = [sys.executable, "-m", "pip", "--python", self.venv, "install", *options, self.wheel]
        subprocess.run(command, env={**os.environ, "PIP_USER": "0"}, check=True)

    def is_complete(self):
        scripts = [path.name for path in (self.venv / ("Scripts" if os.name == "nt" else "bin")).glob("toy*")]
        return bool(scripts) and all((self.site / name).exists() for name in [*WHEEL, f"{INFO}/INSTALLER"])

    def lose(self, *patterns):
        for pattern in patterns:
            found = list(self.venv.glob(pattern))
            assert found, pattern
            for path in found:
                if path.is_dir():
                    shutil.rmtree(path)
                else:
                    path.unlink()


@pytest.fixture(scope="module")
def installed_once(tmp_path_factory):
    return Installed(tmp_path_factory.mktemp("real"))


@pytest.fixture
def installed(installed_once):
    installed_once.pip()
    assert installed_once.is_complete()
    return installed_once


KILLED = {
    "while unpacking": ["**/INSTALLER", "**/RECORD", "*/toy*", "**/toy/part"],
    "before the scripts": ["**/INSTALLER", "*/toy*"],
    "while removing the metadata": ["**/METADATA"],
    "by a cleaner of the disk": ["**/toy/part"],
}


@pytest.mark.parametrize("moment", KILLED)
def test_a_half_installed_package_is_installed_again(bootstrap, installed, moment, capsys):
    """pip alone says that the requirement is satisfied as soon as METADATA exists."""
    installed.lose(*KILLED[moment])
    if moment == "before the scripts":  # pip has unpacked the wheel's own RECORD by then
        (installed.site / INFO / "RECORD").write_text(WHEEL[f"{INFO}/RECORD"])
    assert not installed.is_complete()
    bootstrap.forget_unfinished(installed.venv)
    assert capsys.readouterr().out == "setup: left incomplete by an interruption, installing again: toy\n"
    installed.pip()
    assert installed.is_complete()


def test_a_finished_package_is_left_alone(bootstrap, installed, capsys):
    shutil.rmtree(installed.site / "toy" / "__pycache__", ignore_errors=True)
    before = (installed.site / INFO / "RECORD").read_bytes()
    bootstrap.forget_unfinished(installed.venv)
    assert (installed.site / INFO / "RECORD").read_bytes() == before
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("record", [b"", b"\xff\xfe", b'"toy'], ids=["empty", "no text", "no table"])
def test_a_damaged_record_counts_as_half_installed(bootstrap, tmp_path, record):
    info = tmp_path / INFO
    info.mkdir()
    (info / "RECORD").write_bytes(record)
    assert not bootstrap.is_whole(info)


def test_half_installed_packages_are_forgotten_before_pip_is_asked(bootstrap, root, machine):
    machine.fails = "requirements.lock"
    with pytest.raises(bootstrap.SetupError):
        bootstrap.prepare(root)
    info = root / ".venv/lib/python3.11/site-packages" / INFO
    info.mkdir(parents=True)
    (info / "METADATA").write_text(WHEEL[f"{INFO}/METADATA"])
    seen = []
    machine.fails = None
    machine.on_install = lambda: seen.append(info.exists())
    bootstrap.prepare(root)
    assert seen == [False, False]


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
    with pytest.raises(bootstrap.SetupError, match=r"2\.3 GB free.*CPU build of torch needs about 5 GB"):
        bootstrap.prepare(root)
    assert machine.calls == []
    assert not (root / ".venv").exists()


def test_a_machine_with_an_nvidia_driver_needs_space_for_the_cuda_build(bootstrap, root, machine, monkeypatch):
    monkeypatch.setattr(bootstrap.shutil, "disk_usage", lambda place: Usage(0, 0, 7e9))
    monkeypatch.setattr(bootstrap, "has_nvidia_driver", lambda: True)
    with pytest.raises(bootstrap.SetupError, match=r"7\.0 GB free.*CUDA build of torch needs about 10 GB"):
        bootstrap.prepare(root)
    assert machine.calls == []


@pytest.mark.parametrize(("system", "free", "warned"), [("linux", 7, True), ("linux", 11, False), ("darwin", 7, False)])
def test_linux_is_warned_where_only_the_cpu_build_fits(
    bootstrap, root, machine, monkeypatch, capsys, system, free, warned
):
    monkeypatch.setattr(bootstrap.sys, "platform", system)
    monkeypatch.setattr(bootstrap.shutil, "disk_usage", lambda place: Usage(0, 0, free * 1e9))
    bootstrap.prepare(root)
    assert ("the CUDA build" in capsys.readouterr().out) == warned
    assert bootstrap.is_ready(root)


def test_an_nvidia_driver_is_seen_by_its_program(bootstrap, monkeypatch):
    monkeypatch.setattr(bootstrap.Path, "exists", lambda path: False)
    monkeypatch.setattr(bootstrap.shutil, "which", lambda name: "/usr/bin/nvidia-smi" if name == "nvidia-smi" else None)
    assert bootstrap.has_nvidia_driver()
    monkeypatch.setattr(bootstrap.shutil, "which", lambda name: None)
    assert not bootstrap.has_nvidia_driver()


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
    pins["triton"] = "3.7.1"
    lines = [line for line in bootstrap.lock_text(pins).splitlines() if not line.startswith("#")]
    assert [line.partition(";")[0] for line in lines] == [
        "Arrow==1.4.0",
        "open3d-cpu==0.20.0",
        "open3d==0.20.0",
        "torch==2.13.0",
        "triton==3.7.1",
    ]
    assert lines[-1] == "triton==3.7.1; sys_platform == 'linux' and platform_machine == 'x86_64'"


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
