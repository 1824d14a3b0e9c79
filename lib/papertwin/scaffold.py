"""Lay out one more paper: ledger, module, notebook and test that run and hold the contract, with one toy figure.

The files come from `templates/new/`. The notebook's template is plain text: a line `%% markdown` or `%% code TAGS`
begins a cell.
"""

import keyword
import re
from pathlib import Path
from typing import TYPE_CHECKING

from papertwin import canonical, paths
from papertwin.errors import RunError

if TYPE_CHECKING:
    from nbformat import NotebookNode

TEMPLATES = paths.PACKAGE / "templates" / "new"
SLUG = re.compile(r"[a-z][a-z0-9_]*")
MARK = "%% "


def normalise(slug: str) -> str:
    """Return the one spelling of a slug, with underscores.

    Raises:
        RunError: it cannot name a Python module.
    """
    name = slug.replace("-", "_")
    if not SLUG.fullmatch(name) or keyword.iskeyword(name):
        raise RunError(
            f"{slug!r} cannot name a paper: expected lower-case letters, digits, _ or -, beginning with a letter and "
            "no Python keyword, for example nn-robustness."
        )
    return name


def targets(slug: str, root: Path) -> dict[str, Path]:
    """Template → the file it becomes in a checkout."""
    papers = root / "lib" / "papertwin" / "papers"
    return {
        "ledger.toml": papers / f"{slug}.toml",
        "module.py": papers / f"{slug}.py",
        "notebook.txt": root / "notebooks" / f"{slug}.ipynb",
        "test.py": root / "tests" / "papers" / f"test_{slug}.py",
    }


def create(slug: str, root: Path | None = None) -> list[Path]:
    """Write the four files of a new paper.

    Args:
        slug: short name; hyphens become underscores.
        root: the checkout, by default this one.

    Returns:
        The files written.

    Raises:
        RunError: the slug cannot be used, one of the files exists already, or one cannot be written.
    """
    name = normalise(slug)
    places = targets(name, root or paths.root())
    if existing := [str(path) for path in places.values() if path.exists()]:
        raise RunError(
            f"Nothing was written: {', '.join(existing)} exists already. Choose another slug, or remove the file "
            "if you do not need it."
        )
    for template, path in places.items():
        text = (TEMPLATES / f"{template}.tmpl").read_text(encoding="utf-8").replace("@slug@", name)
        if path.suffix == ".ipynb":
            canonical.write(notebook_from_text(text), path)
        else:
            _write_new(path, text)
    return list(places.values())


def _write_new(path: Path, text: str) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("x", encoding="utf-8") as file:
            file.write(text)
    except OSError as error:
        raise RunError(f"Cannot write {path}: {error.strerror}. Make its folder writable.") from error


def notebook_from_text(text: str) -> "NotebookNode":
    """Build a notebook from the text of a template.

    Args:
        text: cells, each begun by a line `%% markdown` or `%% code TAG…`.

    Returns:
        The notebook in canonical form, not executed.
    """
    from nbformat import v4

    built = []
    for block in text.split(MARK)[1:]:
        head, _, body = block.partition("\n")
        kind, *tags = head.split()
        make = v4.new_markdown_cell if kind == "markdown" else v4.new_code_cell
        built.append(make(body.strip("\n"), metadata={"tags": tags} if tags else {}, id=f"cell-{len(built) + 1}"))
    return canonical.canonicalise(v4.new_notebook(cells=built))
