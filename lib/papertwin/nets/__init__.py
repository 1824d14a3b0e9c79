"""Networks in plain torch, the recipes by which we train them, and our trained weights.

    >>> from papertwin.nets import lenet, mlp, stored

Every network takes images in [0, 1], has no normalisation layer and gives logits. Names are imported on first use.
"""

from importlib import import_module
from typing import Any

# public name → the module that defines it; with a leading dot, by which `papertwin.imports` knows it for a module
_HOMES = {
    "Recipe": ".recipes",
    "lenet": ".classic",
    "mlp": ".classic",
    "nin": ".classic",
    "stored": ".recipes",
    "train": ".recipes",
    "untrained": ".recipes",
}
__all__ = sorted(_HOMES)


def __getattr__(name: str) -> Any:
    """Import a public name from the module that defines it."""
    if name not in _HOMES:
        raise AttributeError(f"module 'papertwin.nets' has no attribute {name!r}")
    value = getattr(import_module(_HOMES[name], __name__), name)
    globals()[name] = value
    return value
