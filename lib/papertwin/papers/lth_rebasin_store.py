"""Keep what took long to make from one run to the next, and never use it where anything that it depends on has changed.

A file holds one result and the fingerprint of its making: its inputs in words, the images, the source of the code that
made it with all that this imports, the versions of the packages that computed, and the kind of processor. Another
fingerprint, a damaged file or one of another form is not used: the result is made anew and the file replaced. Whether
a file is there changes no result, only the time.

Part of `papertwin.papers.lth_rebasin`, whose trained networks are kept.
"""

import hashlib
import json
import platform
import warnings
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from papertwin import files, imports

PACKAGES = ("numpy", "torch")  # whose versions may change what is trained
PARTS = {"fingerprint", "content"}


def fingerprint(inputs: Mapping[str, Any], arrays: Iterable[np.ndarray], modules: tuple[str, ...]) -> str:
    """Hash everything that a result depends on.

    Args:
        inputs: by name; whatever `repr` tells apart.
        arrays: the data.
        modules: names of modules of this package whose source counts, with all that they import from here.

    Returns:
        64 hexadecimal digits.
    """
    machine = [platform.machine(), torch.backends.cpu.get_cpu_capability(), platform.python_version()]
    words = [dict(inputs), imports.digest(modules, PACKAGES), machine]
    found = hashlib.sha256(json.dumps(words, sort_keys=True, default=repr).encode())
    for array in arrays:
        found.update(f"{array.dtype} {array.shape}".encode() + np.ascontiguousarray(array).tobytes())
    return found.hexdigest()


def kept(path: Path | None, mark: str, make: Callable[[], Any]) -> Any:
    """Read a result, or make and keep it.

    Args:
        path: of its file; None keeps nothing.
        mark: fingerprint of its making, see `fingerprint`.
        make: makes it: tensors, numbers and texts in dicts, lists and tuples.

    Returns:
        The result; a file that was damaged is told of in a warning.

    Raises:
        RunError: the file cannot be written.
    """
    if path is None:
        return make()
    found = _read(path)
    if found is not None and found["fingerprint"] == mark:
        return found["content"]
    content = make()
    with files.replacing(path) as temporary:
        torch.save({"fingerprint": mark, "content": content}, temporary)
    return content


def _read(path: Path) -> dict[str, Any] | None:
    """What a file holds; None where there is none, or none that can be used."""
    if not path.is_file():
        return None
    try:
        found = torch.load(path, map_location="cpu", weights_only=True)  # tensors and plain containers, no code
        if isinstance(found, dict) and set(found) == PARTS:
            return found
        problem = "it has another form"
    except Exception as error:  # a damaged archive may raise almost anything
        problem = f"{type(error).__name__}: {error}".splitlines()[0]
    warnings.warn(f"{path.name} cannot be used and is made anew ({problem}).", stacklevel=3)
    return None
