"""Point clouds: readers, normals within a radius, Difference of Normals, clusters, boxes.

    >>> from papertwin.points import difference_of_normals, euclidean_clusters, read_cloud

Everything here takes numpy arrays or torch tensors and gives the same kind back. Names are imported on first use.
"""

from papertwin.lazy import names_from

# public name → the module that defines it
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
__getattr__ = names_from(__name__, _HOMES)
