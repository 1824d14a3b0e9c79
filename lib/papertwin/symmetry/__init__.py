"""Permutation symmetry of networks: renumber hidden channels, match those of two networks, measure what lies between.

    >>> from papertwin.symmetry import permutables, permuted, random_permutations    # the same function, renumbered
    >>> from papertwin.symmetry import activation_matching, weight_matching          # bring A near to B
    >>> from papertwin.symmetry import interpolated, barrier, repaired               # and see how near
    >>> from papertwin.symmetry import plane_through, losses_on                      # on a plane as well
    >>> from papertwin.symmetry import disagreement, ensemble_accuracy               # how differently they answer

Names are imported on first use.
"""

from papertwin.lazy import names_from

# public name → the module that defines it
_HOMES = {
    "Axis": ".axes",
    "ChannelSums": ".statistics",
    "Correlation": ".statistics",
    "Permutable": ".axes",
    "Plane": ".planes",
    "WeightMatch": ".matching",
    "activation_matching": ".matching",
    "agreement": ".matching",
    "barrier": ".barriers",
    "check_same_function": ".permuting",
    "compose": ".permuting",
    "disagreement": ".diversity",
    "ensemble_accuracy": ".diversity",
    "interpolated": ".barriers",
    "inverse": ".permuting",
    "jensen_shannon": ".diversity",
    "kullback_leibler": ".diversity",
    "losses_along": ".barriers",
    "losses_on": ".planes",
    "permutables": ".axes",
    "permuted": ".permuting",
    "plane_through": ".planes",
    "random_permutations": ".permuting",
    "repaired": ".repairing",
    "weight_matching": ".matching",
}
__all__ = sorted(_HOMES)
__getattr__ = names_from(__name__, _HOMES)
