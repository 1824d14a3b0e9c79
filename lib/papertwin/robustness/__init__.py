"""Robustness of neural networks: linear programs on the linear region of a seed, attacks, metrics, fine-tuning.

    >>> from papertwin.robustness import adversarial_frequency, pointwise_robustness

Names are imported on first use.
"""

from importlib import import_module
from typing import Any

# public name → the module that defines it; with a leading dot, by which `papertwin.imports` knows it for a module
_HOMES = {
    "Adversarial": ".outcome",
    "LinearRegion": ".region",
    "Robustness": ".outcome",
    "adversarial_frequency": ".metrics",
    "adversarial_severity": ".metrics",
    "finetune": ".finetuning",
    "lbfgs_adversarial": ".lbfgs",
    "pgd_adversarial": ".pgd",
    "pointwise_robustness": ".pointwise",
    "prove_infeasible": ".certificate",
}
__all__ = sorted(_HOMES)


def __getattr__(name: str) -> Any:
    """Import a public name from the module that defines it."""
    if name not in _HOMES:
        raise AttributeError(f"module 'papertwin.robustness' has no attribute {name!r}")
    value = getattr(import_module(_HOMES[name], __name__), name)
    globals()[name] = value
    return value
