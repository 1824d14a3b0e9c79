"""Robustness of neural networks: linear programs on the linear region of a seed, attacks, metrics, fine-tuning.

    >>> from papertwin.robustness import adversarial_frequency, pointwise_robustness

Names are imported on first use.
"""

from papertwin.lazy import names_from

# public name → the module that defines it
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
__getattr__ = names_from(__name__, _HOMES)
