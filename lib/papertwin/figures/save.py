"""Save a figure as PNG and PDF with its provenance inside, and the plotted arrays as JSON beside it."""

import json
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from papertwin import files
from papertwin.figures.arrays import figure_arrays

CHUNK = "papertwin"


def save_figure(figure: Figure, folder: Path, name: str, provenance: dict[str, Any]) -> dict[str, Path]:
    """Write `name.png`, `name.pdf` and `name.json` into a folder, each atomically and byte-reproducibly.

    Args:
        figure: the matplotlib figure.
        folder: where to write; made if absent.
        name: file stem, the figure's id in the ledger.
        provenance: JSON-ready; goes into the PNG's text chunk `papertwin` and the PDF's keywords.

    Returns:
        "png", "pdf" and "data" → path.

    Raises:
        RunError: the folder cannot be written.
    """
    text = json.dumps(provenance, sort_keys=True, ensure_ascii=True)
    out = {"png": folder / f"{name}.png", "pdf": folder / f"{name}.pdf", "data": folder / f"{name}.json"}
    with files.replacing(out["png"]) as temporary:
        figure.savefig(temporary, format="png", metadata={"Software": "PaperTwin", CHUNK: text})
    with files.replacing(out["pdf"]) as temporary:
        metadata = {"Creator": "PaperTwin", "Producer": None, "CreationDate": None, "Keywords": text}
        figure.savefig(temporary, format="pdf", metadata=metadata)
    content = {"figure": name, "provenance": provenance, "axes": figure_arrays(figure)}
    files.write_text(out["data"], json.dumps(content, separators=(",", ":"), ensure_ascii=False) + "\n")
    return out


def read_provenance(png: Path) -> dict[str, Any]:
    """Read back what `save_figure` stored inside a PNG.

    Raises:
        KeyError: the PNG carries no such chunk.
    """
    from PIL import Image

    with Image.open(png) as image:
        return json.loads(image.info[CHUNK])
