"""One hash over everything that a run depends on: if it has not changed, the run need not be repeated."""

import hashlib
import json
import platform
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from papertwin import cells, files, imports, machine, paths

if TYPE_CHECKING:
    from papertwin.data.registry import Registry

PAPERS = f"{imports.ROOT}.papers"


def fingerprint(slug: str, notebook: Path, values: Mapping[str, Any], data_sets: Iterable[str]) -> str:
    """Hash a run's inputs.

    Args:
        slug: the paper; its module and ledger count where they exist.
        notebook: the notebook, of which sources and tags count and outputs do not.
        values: every parameter of the run.
        data_sets: names of the data sets that the profile reads.

    Returns:
        64 hexadecimal digits.

    Raises:
        RunError: the notebook cannot be read.
        DataError: a data set is not registered, or the registry cannot be read.
    """
    inputs = {
        "notebook": [[cell.kind, cell.source, list(cell.tags)] for cell in cells.read(notebook)],
        "library": {path.as_posix(): files.sha256(paths.PACKAGE / path) for path in sources(slug, notebook)},
        "parameters": dict(values),
        "data": {name: data_state(name) for name in sorted(data_sets)},
        "packages": machine.locked(),
        "python": [platform.python_version(), platform.machine()],
    }
    return hashlib.sha256(json.dumps(inputs, sort_keys=True, default=repr).encode()).hexdigest()


def sources(slug: str, notebook: Path) -> list[Path]:
    """List the files of the package that a notebook's run can touch, relative to the package, in order.

    These are the modules in the closure of its imports and of `papers/<slug>.py`, what lies beside them that is not
    Python (styles), and the paper's ledger; never another paper's.
    """
    names = {f"{PAPERS}.{slug}"}
    for cell in cells.read(notebook):
        if cell.kind == "code":
            names |= imports.imported_names(cell.source, "")
    used = imports.closure(names)
    found = {imports.modules()[module] for module in used}
    for module in used - {imports.ROOT, PAPERS}:
        path = imports.modules()[module]
        if path.name == "__init__.py":
            found.update(p for p in path.parent.iterdir() if p.is_file() and p.suffix not in (".py", ".pyc"))
    ledger = paths.PACKAGE / "papers" / f"{slug}.toml"
    found.update([ledger] if ledger.is_file() else [])
    return sorted(path.relative_to(paths.PACKAGE) for path in found)


def data_state(name: str, sets: "Registry | None" = None) -> Any:
    """Describe a data set: what the registry pins, and what is really there now.

    Of a vendored set these are the checksums of its files, of an optional one names, sizes and times: it may be large.

    Args:
        name: the set's name.
        sets: the registry, by default the repository's.

    Raises:
        DataError: no such set, or the registry is missing or malformed.
    """
    from papertwin.data import registry

    sets = sets or registry.default()
    entry = sets.describe(name)
    pinned = sorted([file.path, file.sha256] for file in entry.files)
    if entry.kind == "optional":
        return [pinned, _listing(sets.local(name))]
    return [pinned, [[path, _content(sets.folder / path)] for path, _ in pinned]]


def _content(path: Path) -> str:
    try:
        return files.sha256(path)
    except OSError:
        return machine.ABSENT  # the run says so, and what to do


def _listing(folder: Path) -> list[list[Any]]:
    listed = ((p.relative_to(folder).as_posix(), p.stat()) for p in sorted(folder.rglob("*")) if p.is_file())
    return [[name, stat.st_size, stat.st_mtime_ns] for name, stat in listed]
