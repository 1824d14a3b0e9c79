"""The fingerprint changes with everything that a run depends on, and with nothing else."""

import hashlib
import json
import subprocess
import sys

import nbformat
import pytest

from papertwin import fingerprint as fp
from papertwin import imports, ledger, machine, paths
from papertwin.data import registry
from papertwin.errors import DataError

PACKAGE = {
    "__init__.py": "def __getattr__(name):\n    from papertwin.run import start\n    return start\n",
    "run.py": "from papertwin import files\n",
    "files.py": "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from papertwin import cli\n",
    "cli.py": "",
    "papers/__init__.py": "",
    "papers/toy.py": "from papertwin.points import normals\n",
    "papers/toy.toml": "year = 2020\n",
    "papers/other.py": "from papertwin.points.kernels import sums\n",
    "papers/other.toml": "year = 2021\n",
    "points/__init__.py": "from .normals import vectors\n",
    "points/normals.py": "def f():\n    from ..deep import inner\n",
    "points/kernels.py": "",
    "points/style.mplstyle": "x: 1\n",
    "deep/__init__.py": "LAZY = {'inner': '.inner'}\n",
    "deep/inner.py": "",
    "broken.py": "def f(:\n",
}
USED = [
    "__init__.py",
    "deep/__init__.py",
    "deep/inner.py",
    "files.py",
    "papers/__init__.py",
    "papers/toy.py",
    "papers/toy.toml",
    "points/__init__.py",
    "points/normals.py",
    "points/style.mplstyle",
    "run.py",
]


@pytest.fixture
def package(tmp_path, monkeypatch):
    """A small package in the place of papertwin, and a data folder."""
    folder = tmp_path / "papertwin"
    for name, text in PACKAGE.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    monkeypatch.setattr(paths, "PACKAGE", folder)
    content = b"points"
    digest = hashlib.sha256(content).hexdigest()
    data = tmp_path / "data"
    (data / "street").mkdir(parents=True)
    (data / "street" / "a.bin").write_bytes(content)
    (data / "registry.toml").write_text(
        '[street]\ntitle = "t"\nkind = "vendored"\nlicence = "MIT"\norigin = "o"\nnotice = "n"\n'
        f'[[street.files]]\npath = "street/a.bin"\nbytes = 6\nsha256 = "{digest}"\n'
        '[kitti]\ntitle = "t"\nkind = "optional"\nlicence = "l"\nurl = "u"\nfolder = "kitti"\n'
    )
    monkeypatch.delenv("PAPERTWIN_DATA", raising=False)
    monkeypatch.setattr(registry, "default", lambda: registry.Registry(data))
    forget()
    yield folder
    monkeypatch.undo()
    forget()


def forget():
    imports.modules.cache_clear()
    imports.direct.cache_clear()


def notebook(folder, source="import papertwin\nfrom papertwin.papers import toy", tags=(), output=None):
    cell = nbformat.v4.new_code_cell(source, metadata={"tags": list(tags)})
    if output:
        cell.outputs = [nbformat.v4.new_output("stream", name="stdout", text=output)]
        cell.execution_count = 1
    path = folder / "toy.ipynb"
    nbformat.write(nbformat.v4.new_notebook(cells=[nbformat.v4.new_markdown_cell("# Toy"), cell]), path)
    return path


def take(path, values=None, data_sets=("street",)):
    forget()
    return fp.fingerprint("toy", path, values or {"n": 3}, data_sets)


def test_the_closure_follows_functions_lazy_names_and_relative_imports(package, tmp_path):
    assert [path.as_posix() for path in fp.sources("toy", notebook(tmp_path))] == USED


def test_the_same_inputs_give_the_same_fingerprint(package, tmp_path):
    assert take(notebook(tmp_path)) == take(notebook(tmp_path))


@pytest.mark.parametrize("name", PACKAGE)
def test_a_changed_file_of_the_package_counts_exactly_if_it_is_used(package, tmp_path, name):
    path = notebook(tmp_path)
    before = take(path)
    (package / name).write_text(PACKAGE[name] + "\n# changed\n")
    assert (take(path) != before) == (name in USED)


def test_outputs_do_not_count_but_sources_and_tags_do(package, tmp_path):
    before = take(notebook(tmp_path))
    assert take(notebook(tmp_path, output="42\n")) == before
    changed = [take(notebook(tmp_path, source="import papertwin\nfrom papertwin.papers import toy  # x"))]
    changed.append(take(notebook(tmp_path, tags=["parameters"])))
    assert before not in changed


def test_parameters_and_data_count(package, tmp_path):
    path = notebook(tmp_path)
    before = take(path)
    assert take(path, values={"n": 4}) != before
    assert take(path, data_sets=()) != before
    entry = tmp_path / "data" / "registry.toml"
    digest = hashlib.sha256(b"points").hexdigest()
    entry.write_text(entry.read_text().replace(digest, hashlib.sha256(b"others").hexdigest()))
    assert take(path) != before


def test_an_edited_file_of_a_vendored_set_counts(package, tmp_path):
    path = notebook(tmp_path)
    before = take(path)
    (tmp_path / "data" / "street" / "a.bin").write_bytes(b"POINTS")
    edited = take(path)
    (tmp_path / "data" / "street" / "a.bin").unlink()
    assert len({before, edited, take(path)}) == 3
    (tmp_path / "data" / "street" / "a.bin").write_bytes(b"points")
    assert take(path) == before


def test_files_of_an_optional_set_count(package, tmp_path):
    path = notebook(tmp_path)
    before = take(path, data_sets=["kitti"])
    folder = tmp_path / "data" / "local" / "kitti"
    folder.mkdir(parents=True)
    (folder / "000001.bin").write_bytes(b"123")
    first = take(path, data_sets=["kitti"])
    (folder / "000001.bin").write_bytes(b"1234")
    assert len({before, first, take(path, data_sets=["kitti"])}) == 3


def test_an_unknown_data_set_is_an_error(package, tmp_path):
    with pytest.raises(DataError, match="strete"):
        take(notebook(tmp_path), data_sets=["strete"])


def test_package_versions_count(package, tmp_path, monkeypatch):
    path = notebook(tmp_path)
    before = take(path)
    monkeypatch.setattr(machine, "locked", lambda: {"numpy": "0.0"})
    assert take(path) != before


def test_every_paper_depends_on_its_own_files_and_on_no_other_paper():
    forget()
    for slug in ledger.slugs():
        found = [path.as_posix() for path in fp.sources(slug, paths.notebook(slug))]
        assert {f"papers/{slug}.toml", f"papers/{slug}.py", "run.py"} <= set(found)
        others = [f"papers/{other}{end}" for other in ledger.slugs() if other != slug for end in (".py", ".toml")]
        assert not set(others) & set(found)
        assert "cli.py" not in found


LOADED = """
import importlib, json, sys
papers = "papertwin.papers."
importlib.import_module(papers + sys.argv[1])
for package in [module for name, module in sys.modules.items() if name.startswith("papertwin.")]:
    for name in getattr(package, "__all__", ()):
        getattr(package, name)
print(json.dumps(sorted(name for name in sys.modules if name.partition(".")[0] == "papertwin")))
"""


@pytest.mark.parametrize("slug", ledger.slugs())
def test_whatever_a_paper_loads_in_real_life_is_in_its_fingerprint(slug):
    """The closure is read from text; here Python itself says which modules the paper and its topics load."""
    forget()
    done = subprocess.run([sys.executable, "-c", LOADED, slug], capture_output=True, text=True, check=True)
    loaded = json.loads(done.stdout)
    hashed = {(paths.PACKAGE / path).resolve() for path in fp.sources(slug, paths.notebook(slug))}
    assert len(loaded) > 5
    assert [name for name in loaded if imports.modules()[name].resolve() not in hashed] == []
