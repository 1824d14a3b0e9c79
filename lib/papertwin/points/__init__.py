"""Point clouds: readers, normals within a radius, Difference of Normals, clusters, boxes.

    >>> from papertwin.points import difference_of_normals, euclidean_clusters, read_cloud

Everything here takes numpy arrays or torch tensors and gives the same kind back. Names are imported on first use.
"""

from importlib import import_module
from typing import Any

# public name → the module that defines it; with a leading dot, by which `papertwin.imports` knows it for a module
_HOMES = {
    "Box": ".cloud",
    "Frame": ".kitti",
    "Normals": ".difference",
    "ObjectMatch": ".segments",
    "PointCloud": ".cloud",
    "Scene": ".scenes",
    "Segmentation": ".segments",
    "difference_of_normals": ".difference",
    "euclidean_clusters": ".clusters",
    "load_airborne": ".scenes",
    "load_scene": ".scenes",
    "load_simulated": ".scenes",
    "load_street": ".scenes",
    "match_objects": ".segments",
    "normals": ".difference",
    "points_between": ".boxes",
    "points_in_box": ".boxes",
    "precision": ".segments",
    "read_boxes": ".annotations",
    "read_cloud": ".readers",
    "read_kitti": ".kitti",
    "segment": ".segments",
    "tilt": ".difference",
    "voxel_centroids": ".voxels",
}
__all__ = sorted(_HOMES)


def __getattr__(name: str) -> Any:
    """Import a public name from the module that defines it."""
    if name not in _HOMES:
        raise AttributeError(f"module 'papertwin.points' has no attribute {name!r}")
    value = getattr(import_module(_HOMES[name], __name__), name)
    globals()[name] = value
    return value
