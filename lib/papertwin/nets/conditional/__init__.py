"""Conditional networks: what lies between decision trees and convolutional networks.

    >>> from papertwin.nets.conditional import PerceptronTree, Routed, Router

- Explicit routing: `Router`, `Routed`. A last layer turned into a tree: `activation_correlation`, `cluster_classes`,
  `PerceptronTree`, `fit_tree`.
- An ensemble whose second route is taken where it pays: `fit_correctness`, `sweep`.
- The search for an architecture of filter groups: `GroupSpace`, `bayesian_search`.
- The other end of the continuum: `fit_forest`.

Source: Y. Ioannou et al.: Decision Forests, Convolutional Networks and the Models in-Between, arXiv 1603.01250
(2016). Names are imported on first use.
"""

from papertwin.lazy import names_from

# public name → the module that defines it
_HOMES = {
    "ActivationCorrelation": ".correlation",
    "BlockOrder": ".clusters",
    "BlockStructure": ".clusters",
    "Conditional": ".selection",
    "CorrectnessRouter": ".ensembles",
    "EnsembleCurve": ".ensembles",
    "Evaluated": ".search",
    "ExponentSpace": ".spaces",
    "FilterSpace": ".spaces",
    "Forest": ".forests",
    "GroupSpace": ".spaces",
    "PerceptronTree": ".trees",
    "Routed": ".routing",
    "Router": ".routing",
    "activation_correlation": ".correlation",
    "at_threshold": ".ensembles",
    "bayesian_search": ".search",
    "block_order": ".clusters",
    "block_structure": ".clusters",
    "cluster_classes": ".clusters",
    "correct_answers": ".ensembles",
    "expected_cost": ".selection",
    "fit_correctness": ".ensembles",
    "fit_forest": ".forests",
    "fit_tree": ".trees",
    "nearest_to_origin": ".search",
    "oversampled_probabilities": ".oversampling",
    "oversampled_views": ".oversampling",
    "pareto_front": ".search",
    "propose": ".search",
    "random_search": ".search",
    "relative_cost": ".ensembles",
    "route_frequencies": ".selection",
    "sweep": ".ensembles",
}
__all__ = sorted(_HOMES)
__getattr__ = names_from(__name__, _HOMES)
