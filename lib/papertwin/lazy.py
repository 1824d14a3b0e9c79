"""Public names of a package that are imported on first use, so that naming the package costs nothing."""

import sys
from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any


def names_from(package: str, homes: Mapping[str, str]) -> Callable[[str], Any]:
    """Return the `__getattr__` of a package whose names live in other modules.

    Args:
        package: its `__name__`.
        homes: public name → the module that defines it; with a leading dot, by which `papertwin.imports` knows it for
            a module.
    """

    def attribute(name: str) -> Any:
        """Import a public name from the module that defines it."""
        if name not in homes:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        value = getattr(import_module(homes[name], package), name)
        setattr(sys.modules[package], name, value)
        return value

    return attribute
