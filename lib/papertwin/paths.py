"""Where things are: every folder is found from the repository's root, never from the working directory."""

import os
from functools import cache
from pathlib import Path

from papertwin.errors import RunError

PACKAGE = Path(__file__).resolve().parent
MARKER = "data/registry.toml"


@cache
def root() -> Path:
    """Find the repository: the nearest folder above the package, or above the working directory, with MARKER.

    Raises:
        RunError: neither place lies inside a PaperTwin checkout.
    """
    cwd = Path.cwd()
    for folder in (*PACKAGE.parents, cwd, *cwd.parents):
        if (folder / MARKER).is_file() and (folder / "notebooks").is_dir():
            return folder
    raise RunError(
        f"No PaperTwin checkout found above {PACKAGE} or above the working directory {cwd}.\n"
        f"Expected a folder that holds notebooks/ and {MARKER}. Clone the repository and install it with "
        "`make setup` (or `pip install -e .` inside the clone)."
    )


def notebook(slug: str) -> Path:
    """Path of a paper's committed notebook."""
    return root() / "notebooks" / f"{slug}.ipynb"


def cache(slug: str) -> Path:
    """Folder for what a paper keeps from one run to the next, so that a long run that was interrupted can go on.

    A run writes its outputs to a folder of its own that is gone when it fails; the runner names the lasting place in
    `PAPERTWIN_CACHE`. Without a runner it is `.cache` in `figures_root()`.
    """
    chosen = os.environ.get("PAPERTWIN_CACHE")
    return (Path(chosen).expanduser().resolve() if chosen else figures_root() / ".cache") / slug


def figures_root() -> Path:
    """Folder that runs write to: `figures/`, or the folder named by `PAPERTWIN_FIGURES` (tests, trials)."""
    chosen = os.environ.get("PAPERTWIN_FIGURES")
    return Path(chosen).expanduser().resolve() if chosen else root() / "figures"
