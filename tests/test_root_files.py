"""The files in the repository's root agree with each other and with what is installed."""

import os
import re
import subprocess
import tomllib
from importlib import metadata
from pathlib import Path

import pytest
import yaml
from packaging.markers import Marker
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).parents[1]
FIX_LOCK = "run `make lock`, then `make setup`"


def project():
    return tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


def declared():
    lines = [*project()["dependencies"], *project()["optional-dependencies"]["test"]]
    return [Requirement(line) for line in lines]


def locked():
    lines = (ROOT / "requirements.lock").read_text(encoding="utf-8").splitlines()
    return [Requirement(line) for line in lines if line and not line.startswith("#")]


def pins():
    return {canonicalize_name(pin.name): next(iter(pin.specifier)).version for pin in locked()}


def test_every_line_of_the_lock_is_one_exact_public_version():
    names = [canonicalize_name(pin.name) for pin in locked()]
    assert len(names) == len(set(names))
    for pin in locked():
        (specifier,) = pin.specifier
        assert specifier.operator == "=="
        assert "*" not in specifier.version
        assert Version(specifier.version).local is None, f"{pin}: a local version exists on some machines only"


@pytest.mark.parametrize("wanted", declared(), ids=lambda r: r.name)
def test_lock_satisfies_pyproject(wanted):
    found = [pin for pin in locked() if canonicalize_name(pin.name) == canonicalize_name(wanted.name)]
    assert found, f"{wanted.name} is not in requirements.lock: {FIX_LOCK}"
    version = next(iter(found[0].specifier)).version
    assert wanted.specifier.contains(version, prereleases=True), f"{found[0]} does not satisfy {wanted}: {FIX_LOCK}"
    assert found[0].marker == wanted.marker


def test_the_two_builds_of_open3d_never_meet():
    first, second = (pin.marker for pin in locked() if pin.name in ("open3d-cpu", "open3d"))
    for system, machine in [("linux", "x86_64"), ("linux", "aarch64"), ("darwin", "arm64"), ("win32", "AMD64")]:
        place = {"sys_platform": system, "platform_machine": machine}
        assert first.evaluate(place) != second.evaluate(place)


def test_the_lock_can_build_the_package():
    assert "setuptools" in pins(), "bootstrap installs papertwin without build isolation"


def test_installed_versions_are_the_locked_ones():
    wrong = []
    for pin in locked():
        if pin.marker is None or pin.marker.evaluate():
            version = pins()[canonicalize_name(pin.name)]
            installed = Version(metadata.version(pin.name)).public
            wrong += [f"{pin.name} {installed}, locked {version}"] if Version(installed) != Version(version) else []
    assert not wrong, f"the environment was not made from requirements.lock, run `make setup`: {'; '.join(wrong)}"


def test_lock_covers_everything_that_is_needed_here():
    """Walk the installed packages' own requirements: nothing that they need may be unpinned."""
    unpinned, seen, todo = set(), set(), declared()
    while todo:
        wanted = todo.pop()
        name = canonicalize_name(wanted.name)
        if (name, *wanted.extras) in seen or not is_needed(wanted.marker):
            continue
        seen.add((name, *wanted.extras))
        if name not in pins():
            unpinned.add(name)
            continue
        for line in metadata.requires(wanted.name) or []:
            needed = Requirement(line)
            extras = wanted.extras or {""}
            if any(is_needed(needed.marker, extra) for extra in extras):
                needed.marker = None
                todo.append(needed)
    gpu_build = {name for name in unpinned if name.startswith(("nvidia-", "cuda-", "triton"))}
    assert not unpinned - gpu_build - elsewhere(), f"not in requirements.lock: {FIX_LOCK}"


def is_needed(marker: Marker | None, extra: str = "") -> bool:
    return marker is None or marker.evaluate({"extra": extra})


def elsewhere() -> set[str]:
    """Packages needed only outside the lock's own system and Python: their versions follow their parents."""
    here = os.uname()
    is_home = here.sysname == "Linux" and here.machine == "x86_64" and os.sys.version_info[:2] == (3, 11)
    return set() if is_home else {canonicalize_name(dist.metadata["Name"]) for dist in metadata.distributions()}


def test_conda_users_get_the_same_lock():
    environment = yaml.safe_load((ROOT / "environment.yml").read_text(encoding="utf-8"))
    assert environment["name"] == project()["name"]
    plain = [line for line in environment["dependencies"] if isinstance(line, str)]
    (pip,) = [line["pip"] for line in environment["dependencies"] if isinstance(line, dict)]
    assert sorted(re.split("[=<>]", line)[0] for line in plain) == ["pip", "python"], "everything else is the lock's"
    assert pip == ["-r requirements.lock", "-e ."]
    (python,) = [line.split("=")[1] for line in plain if line.startswith("python")]
    assert Requirement(f"python{project()['requires-python']}").specifier.contains(python)


def test_bootstrap_and_pyproject_ask_for_the_same_python():
    source = (ROOT / "lib/bootstrap.py").read_text(encoding="utf-8")
    oldest = re.search(r"OLDEST, NEWEST = \((\d+), (\d+)\)", source)
    assert project()["requires-python"] == f">={oldest[1]}.{oldest[2]}"


def test_continuous_integration_runs_make_test():
    script = ROOT / ".ci/run"
    assert os.access(script, os.X_OK)
    assert "make test" in script.read_text(encoding="utf-8")
    workflow = yaml.safe_load((ROOT / ".github/workflows/ci.yml").read_text(encoding="utf-8"))
    job = workflow["jobs"]["papers"]
    assert {"make test", "make figures"} <= {step.get("run") for step in job["steps"]}
    versions = job["strategy"]["matrix"]["python"]
    assert {"3.11", "3.12", "3.13"} <= set(versions), "the oldest supported Python and those that people have"
    assert all(Requirement(f"python{project()['requires-python']}").specifier.contains(version) for version in versions)


@pytest.mark.parametrize(
    ("path", "kept"),
    [
        ("figures/don/fig1.png", True),
        ("figures/don/results.json", True),
        ("figures/don/table1.csv", True),
        ("figures/don/.fig1.k2x9.png", False),  # what a killed papermill run leaves
        ("figures/don/.results.k2x9.json", False),
        ("figures/.state/don.json", False),
        ("figures/.staging/don.17/don/fig1.png", False),
        ("figures/don@full/fig1.png", False),
        ("figures/don/don.html", False),
        ("figures/don/don.ipynb", False),
        ("data/local/kitti/a.bin", False),
        ("notebooks/don.ipynb", True),
    ],
)
def test_git_keeps_results_and_ignores_what_runs_leave_behind(path, kept):
    done = subprocess.run(["git", "check-ignore", "--no-index", "-q", path], cwd=ROOT, check=False)
    assert done.returncode == int(kept)


def test_nothing_that_is_committed_is_ignored():
    command = ["git", "ls-files", "--cached", "--ignored", "--exclude-standard"]
    assert subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout == ""


def test_pre_commit_fetches_nothing():
    config = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text(encoding="utf-8"))
    assert [repo["repo"] for repo in config["repos"]] == ["local"]
    assert {hook["language"] for repo in config["repos"] for hook in repo["hooks"]} == {"system"}


def test_citation_file_names_every_paper():
    from papertwin import ledger

    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert citation["version"] == project()["version"]
    cited = {reference["title"] for reference in citation["references"]}
    assert {ledger.load(slug).paper.title for slug in ledger.slugs()} <= cited


def test_make_without_a_target_lists_the_commands():
    done = subprocess.run(["make", "-C", str(ROOT), "--no-print-directory"], capture_output=True, text=True, check=True)
    for target in ("figures", "test", "lab", "setup", "lock", "clean"):
        assert f"make {target}" in done.stdout


def test_make_clean_keeps_what_is_committed():
    """Ask make what it would remove: nothing that git keeps may be among it."""
    done = subprocess.run(["make", "-C", str(ROOT), "-n", "clean"], capture_output=True, text=True, check=True)
    removed = re.findall(r"(?:figures|data)/\S+", done.stdout)
    assert removed, "clean removes run state"
    assert not [path for path in removed if path.startswith("data/")]
    for path in removed:
        kept = subprocess.run(["git", "ls-files", path], cwd=ROOT, capture_output=True, text=True, check=True)
        assert kept.stdout == ""
