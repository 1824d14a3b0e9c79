"""Networks in plain torch, the recipes by which we train them, and our trained weights.

    >>> from papertwin.nets import lenet, mlp, stored

Every network takes images in [0, 1], has no normalisation layer and gives logits. Names are imported on first use.
"""

from papertwin.lazy import names_from

# public name → the module that defines it
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
__getattr__ = names_from(__name__, _HOMES)
