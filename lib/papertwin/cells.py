"""Read the cells of a notebook file: plain JSON, so that the command line needs no Jupyter library for it."""

import json
from dataclasses import dataclass
from pathlib import Path

from papertwin.errors import RunError


@dataclass(frozen=True)
class Cell:
    """What a cell says, without what it printed.

    Attributes:
        kind: "code", "markdown" or "raw".
        source: its text.
        tags: its tags, in the notebook's order.
    """

    kind: str
    source: str
    tags: tuple[str, ...] = ()


def read(notebook: Path) -> list[Cell]:
    """Read a notebook's cells.

    Raises:
        RunError: there is no such file, or it is not a notebook of format 4.
    """
    if not notebook.is_file():
        raise RunError(f"No notebook at {notebook}. Restore it, or lay it out with `papertwin new SLUG`.")
    try:
        cells = json.loads(notebook.read_text(encoding="utf-8"))["cells"]
        return [_cell(entry) for entry in cells]
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise RunError(
            f"{notebook} is not a Jupyter notebook of format 4 ({type(error).__name__}: {error}). "
            "Open and save it in JupyterLab, or restore it."
        ) from error


def _cell(entry: dict) -> Cell:
    source = entry["source"]
    text = source if isinstance(source, str) else "".join(source)
    return Cell(entry["cell_type"], text, tuple(entry.get("metadata", {}).get("tags", ())))
