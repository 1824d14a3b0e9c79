"""Sparse networks: densities, masks, static and dynamic sparse training, condensed layers.

    >>> from papertwin.sparse import erk_densities, RigL, SRigL, DropSchedule     # train sparse from scratch
    >>> from papertwin.sparse import CondensedLinear                             # and compute only what is left

Names are imported on first use.
"""

from papertwin.lazy import names_from

# public name → the module that defines it
_HOMES = {
    "CondensedLinear": ".condensed",
    "DropSchedule": ".schedule",
    "Frozen": ".tickets",
    "HAM": ".sparseopt",
    "LayerUpdate": ".updaters",
    "Pruned": ".tickets",
    "RigL": ".updaters",
    "SET": ".updaters",
    "SRigL": ".updaters",
    "Snapshots": ".tickets",
    "SparseOpt": ".sparseopt",
    "Updater": ".updaters",
    "active_share": ".masks",
    "budgets": ".densities",
    "constant_fan_in_mask": ".masks",
    "corrections": ".skew",
    "erk_densities": ".densities",
    "fan_ins": ".masks",
    "forward_macs": ".costs",
    "gradient_skew": ".skew",
    "has_constant_fan_in": ".masks",
    "iterative_pruning": ".tickets",
    "norm_variance": ".variances",
    "prunable_layers": ".pruning",
    "prune_smallest": ".pruning",
    "prune_to": ".pruning",
    "random_mask": ".masks",
    "rigl_mask": ".growing",
    "rounds_to": ".pruning",
    "set_mask": ".growing",
    "simulated_norms": ".variances",
    "sparse_init_": ".initialising",
    "sparse_layers": ".masks",
    "sparsity_of": ".tickets",
    "srigl_mask": ".growing",
    "state_of": ".tickets",
    "train_from": ".tickets",
    "train_with_snapshots": ".tickets",
    "training_macs": ".costs",
    "uniform_densities": ".densities",
}
__all__ = sorted(_HOMES)
__getattr__ = names_from(__name__, _HOMES)
