"""Executed notebooks in one canonical form: the same run gives the same file, and a diff shows what changed.

Kept: sources, outputs, execution counts, tags. Dropped: timing, papermill's notes, widget state, versions of the
Python that ran it. nbval compares nothing in a cell without an execution count, so these are never removed.
"""

import hashlib
import re
from pathlib import Path
from typing import TYPE_CHECKING

from papertwin import files
from papertwin.errors import RunError

if TYPE_CHECKING:
    from nbformat import NotebookNode

INJECTED = "injected-parameters"
VOLATILE = ("papermill", "execution", "ExecuteTime", "trusted", "collapsed", "scrolled")
CELL_ID = re.compile(r"[A-Za-z0-9_-]{1,64}")
KERNEL = {"display_name": "Python 3", "language": "python", "name": "python3"}
LANGUAGE = {
    "file_extension": ".py",
    "mimetype": "text/x-python",
    "name": "python",
    "nbconvert_exporter": "python",
    "pygments_lexer": "ipython3",
}


def canonicalise(notebook: "NotebookNode", *, keep_injected: bool = True) -> "NotebookNode":
    """Bring a notebook into canonical form, in place.

    Args:
        notebook: of format 4.
        keep_injected: keep the cell that papermill adds with the parameters of this run.

    Returns:
        The same notebook.
    """
    from nbformat import from_dict

    if not keep_injected:
        notebook.cells = [cell for cell in notebook.cells if INJECTED not in cell.metadata.get("tags", [])]
    taken: set[str] = set()
    for cell in notebook.cells:
        for name in VOLATILE:
            cell.metadata.pop(name, None)
        if not cell.metadata.get("tags", True):
            del cell.metadata["tags"]
        cell.id = _stable_id(cell, taken)
        if cell.cell_type == "code":
            cell.outputs = [_clean(output) for output in _merge_streams(cell.outputs)]
    notebook.metadata = from_dict({"kernelspec": dict(KERNEL), "language_info": dict(LANGUAGE)})
    notebook.nbformat, notebook.nbformat_minor = 4, 5
    return notebook


def _stable_id(cell: "NotebookNode", taken: set[str]) -> str:
    """Keep a cell's own id; make one from the cell's text where it has none, a doubled one or papermill's random."""
    own = cell.get("id", "")
    if INJECTED in cell.metadata.get("tags", []) or not CELL_ID.fullmatch(own) or own in taken:
        own = base = hashlib.sha256(f"{cell.cell_type}\n{cell.source}".encode()).hexdigest()[:8]
        number = 1
        while own in taken:
            number += 1
            own = f"{base}-{number}"
    taken.add(own)
    return own


def _merge_streams(outputs: list["NotebookNode"]) -> list["NotebookNode"]:
    """Join neighbouring pieces of one stream: where the kernel cuts them is chance."""
    merged: list[NotebookNode] = []
    for output in outputs:
        last = merged[-1] if merged else None
        same = last is not None and last.output_type == output.output_type == "stream" and last.name == output.name
        if same:
            last.text += output.text
        else:
            merged.append(output)
    return merged


def _clean(output: "NotebookNode") -> "NotebookNode":
    output.pop("transient", None)
    data = output.get("data", {})
    data.pop("application/vnd.jupyter.widget-view+json", None)  # points to widget state, which is not kept
    return output


def read(path: Path) -> "NotebookNode":
    """Read a notebook and upgrade it to the present format.

    Raises:
        RunError: it cannot be read.
    """
    import nbformat

    try:
        return nbformat.read(path, as_version=4)
    except (OSError, ValueError, nbformat.reader.NotJSONError, nbformat.ValidationError) as error:
        raise RunError(f"Cannot read the notebook {path}: {error}. Open and save it in JupyterLab.") from error


def write(notebook: "NotebookNode", path: Path) -> None:
    """Write a notebook atomically: UTF-8, indented by one, keys sorted, one newline at the end.

    Raises:
        RunError: it cannot be written.
    """
    import nbformat

    files.write_text(path, nbformat.writes(notebook, version=nbformat.NO_CONVERT).rstrip("\n") + "\n")


def update_source(executed: Path, committed: Path) -> None:
    """Replace a committed notebook by its executed twin of the plain quick run, in canonical form.

    Raises:
        RunError: the two do not have the same cells, because the committed one was edited meanwhile.
    """
    fresh = canonicalise(read(executed), keep_injected=False)
    now = [(cell.cell_type, cell.source) for cell in read(committed).cells]
    if [(cell.cell_type, cell.source) for cell in fresh.cells] != now:
        raise RunError(
            f"{committed} was edited since its run began, so it was not updated. Run it again with --update."
        )
    write(fresh, committed)
