"""Keep what a long run has finished, so that an interrupted one goes on: never what another code or setting has made.

A file's name holds a hash of what it was made from: the arguments, the source of the modules that made it with all that
they import from here, and the version of torch. What does not match is never found, and so is made again.
"""

import hashlib
import json
import pickle
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch

from papertwin import files, imports


def kept(folder: Path | None, name: str, settings: Mapping[str, Any], module: str, make: Callable[[], Any]) -> Any:
    """Load what was made from the same settings by the same code, or make and keep it.

    Args:
        folder: where files lie; None keeps nothing.
        name: of what is made, the beginning of the file's name.
        settings: all that it depends on, beside the code: what JSON can hold.
        module: of PaperTwin, whose code makes it; all that it imports from here counts as well.
        make: makes it from tensors, numbers, text, and lists, tuples and dicts of them.

    Returns:
        What `make` returns; a file that is damaged is made again, with a warning.

    Raises:
        RunError: the file cannot be written.
    """
    if folder is None:
        return make()
    place = folder / f"{name}-{fingerprint(settings, module)}.pt"
    try:
        return torch.load(place, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        pass
    except (OSError, RuntimeError, EOFError, ValueError, pickle.UnpicklingError) as error:
        warnings.warn(f"{place} is damaged and is made again ({type(error).__name__}).", stacklevel=2)
    made = make()
    with files.replacing(place) as temporary:
        torch.save(made, temporary)
    return made


def fingerprint(settings: Mapping[str, Any], module: str) -> str:
    """Hash settings, the code of a module and of all that it imports from here, and the version of torch.

    Returns:
        24 hexadecimal digits.
    """
    content = json.dumps([dict(settings), imports.digest((module,), ("torch",))], sort_keys=True)
    return hashlib.sha256(content.encode()).hexdigest()[:24]
