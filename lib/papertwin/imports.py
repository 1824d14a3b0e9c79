"""Which module of PaperTwin imports which, read from the source text without importing anything.

An import inside a function counts as well, and so does a module that is named in a string (lazy imports): better one
file too many in a fingerprint than one too few. What only a type checker sees (`if TYPE_CHECKING:`) does not count.
"""

import ast
import hashlib
import json
import re
from collections.abc import Iterable, Iterator
from functools import cache
from importlib import metadata
from pathlib import Path

from papertwin import paths

ROOT = "papertwin"
LAZY_NAME = re.compile(rf"({ROOT})?(\.\w+)+")


@cache
def modules() -> dict[str, Path]:
    """Every module of the package → its file."""
    found = {}
    for path in sorted(paths.PACKAGE.rglob("*.py")):
        parts = path.relative_to(paths.PACKAGE).with_suffix("").parts
        parts = parts[:-1] if parts[-1] == "__init__" else parts
        found[".".join((ROOT, *parts))] = path
    return found


def imported_names(source: str, package: str) -> set[str]:
    """Dotted names that a piece of Python may import, those of attributes included (`from a import b` → a, a.b).

    Args:
        source: Python source text; one that does not parse imports nothing.
        package: package that a leading dot refers to; "" where relative imports cannot occur.
    """
    names: set[str] = set()
    try:
        tree = ast.parse(source)
    except SyntaxError:
        return names  # running or importing it says so, and where
    for node in _executed(tree):
        match node:
            case ast.Import():
                names.update(alias.name for alias in node.names)
            case ast.ImportFrom():
                base = _absolute("." * node.level + (node.module or ""), package)
                names.update((base, *(f"{base}.{alias.name}" for alias in node.names)))
            case ast.Constant(value=str(text)) if LAZY_NAME.fullmatch(text):
                names.add(_absolute(text, package))
    return names


def _executed(node: ast.AST) -> Iterator[ast.AST]:
    """Yield every node below one, without the bodies of `if TYPE_CHECKING:`."""
    yield node
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.If) and ast.unparse(child.test).endswith("TYPE_CHECKING"):
            for other in child.orelse:
                yield from _executed(other)
        else:
            yield from _executed(child)


def _absolute(name: str, package: str) -> str:
    level = len(name) - len(name.lstrip("."))
    if not level:
        return name
    parents = package.split(".")
    return ".".join(part for part in (*parents[: len(parents) - level + 1], name[level:]) if part)


def known_modules(names: Iterable[str]) -> set[str]:
    """Keep the names that are modules of PaperTwin; add the packages above them, which Python imports too."""
    found = set()
    for name in names:
        if name in modules():
            parts = name.split(".")
            found.update(".".join(parts[:depth]) for depth in range(1, len(parts) + 1))
    return found


@cache
def direct(module: str) -> frozenset[str]:
    """Modules of PaperTwin that one module imports itself, on its top level or inside functions."""
    path = modules()[module]
    package = module if path.name == "__init__.py" else module.rpartition(".")[0]
    return frozenset(known_modules(imported_names(path.read_text(encoding="utf-8"), package)) - {module})


def closure(start: Iterable[str]) -> set[str]:
    """Return the modules given and everything that they import, directly or not.

    Args:
        start: module names; names outside PaperTwin are ignored.
    """
    waiting, seen = known_modules(start), set()
    while waiting:
        module = waiting.pop()
        seen.add(module)
        waiting |= direct(module) - seen
    return seen


@cache
def digest(start: tuple[str, ...], packages: tuple[str, ...] = ()) -> str:
    """Hash the source of some modules and of all that they import from here, and the versions of some packages.

    Args:
        start: names of modules of PaperTwin.
        packages: installed distributions whose versions count.
    """
    files = modules()
    found = hashlib.sha256(json.dumps([[name, metadata.version(name)] for name in packages]).encode())
    for name in sorted(closure(start)):
        found.update(name.encode() + files[name].read_bytes())
    return found.hexdigest()
