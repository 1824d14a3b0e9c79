"""Prepare `.venv` from `requirements.lock`: `python3 lib/bootstrap.py`, or `make setup`.

Standard library only, and written in the syntax of Python 3.6, so that an old interpreter reaches the clear error
instead of a SyntaxError. Nothing happens when the environment is up to date; an interrupted installation is
continued, and a package that it left half unpacked is installed again; an environment that is broken, or was moved
together with its repository, is made anew. The user's own pip configuration decides which package index is asked.
`--lock` rebuilds requirements.lock itself (see `make lock`).
"""

import argparse
import contextlib
import csv
import hashlib
import importlib.util
import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

OLDEST, NEWEST = (3, 11), (3, 14)  # the Python versions for which every pinned package has a wheel
LOCKED_FOR = "3.11.0"
SPACE_GB, SPACE_CUDA_GB = 5, 10  # with the CPU build of torch, with its CUDA build
STAMP = "papertwin.stamp"
PROBE = "import sys, venv, ensurepip; print(*sys.version_info[:2])"
TWINS = {  # one package in two builds: which one a machine gets, as in pyproject.toml
    "open3d-cpu": "sys_platform == 'linux' and platform_machine == 'x86_64'",
    "open3d": "sys_platform != 'linux' or platform_machine != 'x86_64'",
}
LINUX = {"triton": "sys_platform == 'linux' and platform_machine == 'x86_64'"}  # has wheels there only
OMITTED = ("nvidia-", "cuda-", "papertwin")  # torch's GPU build names its own exact versions
HEADER = """\
# Exact versions of everything that PaperTwin runs and is tested with.
# Written by `make lock` (lib/bootstrap.py --lock): what pip chooses in a fresh environment for pyproject.toml with the
# extra `test`, and setuptools, under Python 3.11.0, so that each version serves every later Python as well.
# Do not edit by hand. torch carries no local version: pip takes the CPU or the GPU build that the machine's own pip
# configuration offers. A package needed only on another system or Python follows the bounds of what needs it.
"""


class SetupError(Exception):
    """The environment cannot be prepared; the message says why and what to do."""


def repository() -> Path:
    """Return the folder above lib/, wherever the command was called from."""
    return Path(__file__).resolve().parent.parent


def say(text: str) -> None:
    """Print one progress line at once, also when the output is a pipe."""
    print("setup: " + text, flush=True)


def call(*command) -> int:
    """Run a program with its output shown, and return its exit code."""
    environment = dict(os.environ, PIP_USER="0", PIP_DISABLE_PIP_VERSION_CHECK="1")
    environment.pop("PYTHONHOME", None)
    return subprocess.call([str(part) for part in command], env=environment)


def answer(*command) -> str:
    """Return what a program prints, or an empty text when it fails or does not exist."""
    try:
        out = subprocess.check_output([str(part) for part in command], stderr=subprocess.DEVNULL)
    except (OSError, subprocess.CalledProcessError):
        return ""
    return out.decode("utf-8", "replace").strip()


def venv_python(venv: Path) -> Path:
    """Path of an environment's interpreter."""
    return venv / ("Scripts/python.exe" if os.name == "nt" else "bin/python")


def fingerprint(root: Path) -> str:
    """Describe what the environment must match: the lock, the project file and the place it was made for."""
    lines = []
    for name in ("requirements.lock", "pyproject.toml"):
        path = root / name
        if not path.is_file():
            raise SetupError(f"{name} is missing in {root}. Restore it: git checkout -- {name}")
        lines.append(f"{name} sha256 {hashlib.sha256(path.read_bytes()).hexdigest()}")
    return "\n".join([*lines, "made for " + str(root), ""])


def is_ready(root: Path) -> bool:
    """Tell whether the last installation was finished for exactly these files and this place."""
    stamp = root / ".venv" / STAMP
    if not stamp.is_file() or not venv_python(root / ".venv").exists():
        return False
    return stamp.read_text(encoding="utf-8") == fingerprint(root)


def find_python(newest=NEWEST) -> str:
    """Choose an interpreter of a supported version that can create environments with pip.

    The calling interpreter comes first, then python3.14 … python3.11 and python3 on PATH.
    """
    own = tuple(sys.version_info[:2])
    can_make = all(importlib.util.find_spec(module) for module in ("venv", "ensurepip"))
    if OLDEST <= own <= newest and can_make:
        return getattr(sys, "_base_executable", None) or sys.executable
    names = [f"python3.{minor}" for minor in range(newest[1], OLDEST[1] - 1, -1)] + ["python3"]
    folders = os.environ.get("PATH", os.defpath).split(os.pathsep)
    for found in filter(None, (shutil.which(name, path=folder) for name in names for folder in folders)):
        version = tuple(int(part) for part in answer(found, "-c", PROBE).split())
        if len(version) == 2 and OLDEST <= version <= newest:
            say("using {} (Python {}.{})".format(found, *version))
            return found
    raise SetupError(explain_python(own, newest))


def explain_python(own, newest) -> str:
    """Say why no interpreter can be used, and how to get one."""
    conda = "or, without root rights, with conda: conda env create -f environment.yml && conda activate papertwin"
    if OLDEST <= own <= newest:
        return (
            f"This Python ({sys.executable}) cannot create an environment: the module venv or ensurepip is missing.\n"
            f"On Debian or Ubuntu install it with: sudo apt-get install python{own[0]}.{own[1]}-venv\n{conda}"
        )
    return (
        "PaperTwin needs Python {}.{} to {}.{} ".format(*OLDEST, *newest) + "with the modules venv and ensurepip.\n"
        f"Got Python {own[0]}.{own[1]} ({sys.executable}), and no python3.x on PATH fits.\n"
        f"Install one, for example: sudo apt-get install python3.11 python3.11-venv, or from python.org,\n{conda}"
    )


def check_space(folder: Path) -> None:
    """Refuse to start an installation that cannot fit on the disk, and warn of one that may not.

    Which build of torch comes is known only to pip: its own index gives every Linux the CUDA build, another index may
    give the CPU build. With an NVIDIA driver the CUDA build is taken for granted.
    """
    free = shutil.disk_usage(str(folder)).free / 1e9
    driver = has_nvidia_driver()
    needed = SPACE_CUDA_GB if driver else SPACE_GB
    if free < needed:
        build = "CUDA" if driver else "CPU"
        raise SetupError(
            f"Not enough space in {folder}: {free:.1f} GB free, the environment with the {build} build of torch needs "
            f"about {needed} GB.\nFree some space, or clone the repository on another disk, and run `make setup` again."
        )
    if free < SPACE_CUDA_GB and sys.platform.startswith("linux"):
        say(
            f"{free:.1f} GB free: enough with the CPU build of torch; the CUDA build, which pip's own index gives to "
            f"Linux, needs about {SPACE_CUDA_GB} GB"
        )


def has_nvidia_driver() -> bool:
    """Tell whether this machine runs an NVIDIA driver."""
    return Path("/proc/driver/nvidia").exists() or shutil.which("nvidia-smi") is not None


def create(venv: Path) -> None:
    """Create an empty environment with pip, replacing whatever half-made one is there."""
    check_space(venv.parent)
    python = find_python()
    say(f"creating {venv.name}")
    if call(python, "-m", "venv", "--clear", venv) != 0:
        raise SetupError(
            f"`{python} -m venv` failed; its message is above.\nCheck that {venv.parent} can be written "
            "and that the module ensurepip works (Debian and Ubuntu: package python3-venv)."
        )


def is_usable(venv: Path, root: Path) -> bool:
    """Tell whether an unfinished environment can be continued: its Python runs, has pip, and was not moved here."""
    marker = venv / "made-for"
    if not marker.is_file() or marker.read_text(encoding="utf-8") != str(root):
        return False
    version = answer(venv_python(venv), "-c", "import sys, pip; print(*sys.version_info[:2])").split()
    return len(version) == 2 and OLDEST <= tuple(int(part) for part in version) <= NEWEST


def is_whole(info: Path) -> bool:
    """Tell whether pip finished the package of a `*.dist-info` folder.

    pip unpacks a wheel with the wheel's own RECORD, writes scripts and INSTALLER, and rewrites RECORD last: only a
    RECORD that names INSTALLER is pip's. All that it names must exist; compiled files may be cleaned away.
    """
    try:
        with (info / "RECORD").open(encoding="utf-8", newline="") as file:
            named = {row[0] for row in csv.reader(file) if row}
    except (OSError, ValueError, csv.Error):
        return False
    kept = [name for name in named if not name.endswith(".pyc")]
    return info.name + "/INSTALLER" in named and all((info.parent / name).exists() for name in kept)


def forget_unfinished(venv: Path) -> None:
    """Remove the metadata of half-installed packages, which pip would take for installed, so that it installs them."""
    found = [*venv.glob("lib/python*/site-packages/*.dist-info"), *venv.glob("Lib/site-packages/*.dist-info")]
    broken = sorted(info for info in found if not is_whole(info))
    for info in broken:
        shutil.rmtree(str(info))
    if broken:
        names = ", ".join(info.name.partition("-")[0] for info in broken)
        say("left incomplete by an interruption, installing again: " + names)


def install(python: Path, *arguments) -> None:
    """Run pip, and explain a failure."""
    if call(python, "-m", "pip", "install", "--disable-pip-version-check", *arguments) == 0:
        return
    places = [(name, shutil.disk_usage(name).free / 1e9) for name in (str(python.parent), tempfile.gettempdir())]
    full = [f"{name} ({free:.1f} GB free)" for name, free in places if free < 1]
    if full:
        raise SetupError("The disk is full: {}. Free some space and run `make setup` again.".format(", ".join(full)))
    raise SetupError(
        "pip could not install everything; its message is above.\nCheck the network and `pip config list`, then run "
        "`make setup` again: it continues where it stopped. To start from nothing, remove .venv first."
    )


def prepare(root: Path) -> None:
    """Bring `.venv` up to date; the stamp is written last, so an interrupted run is never taken for a finished one."""
    wanted = fingerprint(root)
    if is_ready(root):
        return
    venv = root / ".venv"
    with contextlib.suppress(FileNotFoundError):
        (venv / STAMP).unlink()
    if not is_usable(venv, root):
        create(venv)
        (venv / "made-for").write_text(str(root), encoding="utf-8")
    forget_unfinished(venv)
    say("installing the packages of requirements.lock (minutes the first time)")
    python = venv_python(venv)
    install(python, "-r", root / "requirements.lock")
    install(python, "--no-deps", "--no-build-isolation", "-e", root)
    partial = venv / (STAMP + ".part")
    partial.write_text(wanted, encoding="utf-8")
    partial.replace(venv / STAMP)
    say("ready")


@contextlib.contextmanager
def alone():
    """Let a second set-up of the same repository wait for the first, where the system has file locks."""
    try:
        import fcntl

        handle = open(__file__, "rb")  # noqa: PTH123, SIM115
        fcntl.flock(handle, fcntl.LOCK_EX)
    except (ImportError, OSError):
        yield
        return
    with handle:
        yield


def lock_text(pins: dict) -> str:
    """Turn resolved packages, name → version, into the text of requirements.lock."""
    lines = []
    for name, version in pins.items():
        public = version.partition("+")[0]
        if name.lower() in TWINS:
            lines += [f"{twin}=={public}; {marker}" for twin, marker in TWINS.items()]
        elif name.lower() in LINUX:
            lines.append(f"{name}=={public}; {LINUX[name.lower()]}")
        elif not name.lower().startswith(OMITTED):
            lines.append(f"{name}=={public}")
    return HEADER + "\n".join(sorted(lines, key=str.lower)) + "\n"


def write_lock(root: Path) -> None:
    """Resolve the newest versions that pyproject.toml admits, in a fresh environment, and pin them all."""
    chosen = find_python(newest=OLDEST)
    with tempfile.TemporaryDirectory() as folder:
        venv, report = Path(folder) / "lock", Path(folder) / "report.json"
        if call(chosen, "-m", "venv", venv) != 0:
            raise SetupError(f"`{chosen} -m venv` failed; its message is above.")
        python = venv_python(venv)
        install(python, "--upgrade", "pip")
        resolve = ["--dry-run", "--ignore-installed", "--report", report, "--target", Path(folder) / "none"]
        resolve += ["--only-binary=:all:", "--implementation", "cp", "--python-version", LOCKED_FOR]
        install(python, "--quiet", *resolve, "setuptools", f"{root}[test]")
        found = json.loads(report.read_text(encoding="utf-8"))["install"]
    partial = root / "requirements.lock.part"
    partial.write_text(lock_text({p["metadata"]["name"]: p["metadata"]["version"] for p in found}), encoding="utf-8")
    partial.replace(root / "requirements.lock")
    say("requirements.lock is new; run `make test` before you commit it")


def main() -> int:
    """Prepare the environment, or write the lock with `--lock`; print a clear error instead of a traceback."""
    parser = argparse.ArgumentParser(description="Prepare .venv from requirements.lock.")
    parser.add_argument("--lock", action="store_true", help="rebuild requirements.lock instead")
    options = parser.parse_args()
    root = repository()
    try:
        if options.lock:
            write_lock(root)
        elif not is_ready(root):
            with alone():
                prepare(root)
    except SetupError as error:
        print(f"setup failed: {error}", file=sys.stderr)
        return 1
    except OSError as error:
        print(f"setup failed: {error}\nCheck that {root} can be written.", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\nsetup interrupted; run it again to continue", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
