"""Read point clouds from files: one entry, `read_cloud`, for every format PaperTwin knows."""

import re
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np

from papertwin.errors import DataError
from papertwin.points.cloud import PointCloud

LAS_FIELDS = ("intensity", "classification", "return_number", "number_of_returns")


def read_cloud(path: str | Path) -> PointCloud:
    """Read a cloud; the file name's ending tells the format.

    `.npz`: `points` (n, 3), optional `unit`, and (n,) arrays that become attributes. `.bin`: KITTI, rows of x, y, z,
    reflectance as little-endian float32. `.ply`, `.pcd`: through Open3D. `.las`, `.laz`: through laspy (optional).

    Args:
        path: the file.

    Returns:
        The cloud as stored: points that are not finite are kept, the point functions name them.

    Raises:
        DataError: no such file, unknown ending, a file that is cut short or malformed, or a missing optional package.
    """
    path = Path(path)
    reader = _READERS.get(path.suffix.lower())
    if reader is None:
        known = ", ".join(sorted(_READERS))
        raise DataError(f"{path}: unknown ending {path.suffix!r}; point clouds are read from {known}.")
    check_file(path)
    cloud = reader(path)
    if cloud.points.ndim != 2 or cloud.points.shape[1] != 3:
        raise DataError(f"{path}: points must have shape (n, 3), got {cloud.points.shape}.")
    return cloud


def check_file(path: Path) -> None:
    """Raise unless `path` is a file.

    Raises:
        DataError: it is missing, or a folder.
    """
    if not path.is_file():
        what = "is a folder, expected a file" if path.is_dir() else "does not exist"
        raise DataError(f"{path} {what}. Check the path; `papertwin data` lists the data sets that come along.")


def _read_npz(path: Path) -> PointCloud:
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
    except (ValueError, OSError, EOFError, KeyError, zipfile.BadZipFile) as error:
        raise DataError(
            f"{path} cannot be read as .npz ({error}): cut short, corrupted or not one; copy it again."
        ) from error
    if "points" not in arrays:
        raise DataError(f"{path}: expected an array 'points' of shape (n, 3), found {sorted(arrays)}.")
    points = arrays.pop("points")
    unit = str(arrays.pop("unit", "m"))
    attributes = {name: array for name, array in arrays.items() if array.shape == points.shape[:1]}
    return PointCloud(points, attributes, unit, path.stem)


def _read_bin(path: Path) -> PointCloud:
    size = path.stat().st_size
    if size == 0 or size % 16:
        raise DataError(
            f"{path} holds {size} bytes, expected a multiple of 16 above 0 (x, y, z, reflectance as float32 a point): "
            "the file is cut short or not a KITTI scan; copy it again."
        )
    rows = np.fromfile(path, "<f4").reshape(-1, 4).astype(np.float32, copy=False)
    return PointCloud(np.ascontiguousarray(rows[:, :3]), {"reflectance": rows[:, 3].copy()}, "m", path.stem)


def _read_open3d(path: Path) -> PointCloud:
    from papertwin.points.headers import check_complete
    from papertwin.points.open3d_loader import open3d

    check_complete(path)
    module = open3d()
    with module.utility.VerbosityContextManager(module.utility.VerbosityLevel.Error):
        try:
            table = module.t.io.read_point_cloud(str(path)).point
        except RuntimeError as error:
            raise DataError(f"{path} cannot be read by Open3D ({error}): cut short or malformed.") from error
    columns = {name: table[name].numpy() for name in table}
    points = columns.pop("positions", np.empty((0, 3)))
    if len(points) == 0:
        raise DataError(f"{path}: Open3D finds no points; the file is empty, cut short or malformed.")
    if points.dtype.kind != "f":
        points = points.astype(np.float64)
    attributes = {name: column[:, 0] for name, column in columns.items() if column.shape == (len(points), 1)}
    return PointCloud(points, attributes, "m", path.stem)


def _read_las(path: Path) -> PointCloud:
    try:
        import laspy
    except ImportError as error:
        raise DataError(f"Reading {path} needs laspy: install it with `pip install laspy[lazrs]`.") from error
    try:
        las = laspy.read(path)
    except (laspy.errors.LaspyException, ValueError, OSError, EOFError) as error:
        raise DataError(
            f"{path} cannot be read by laspy ({error}): cut short, malformed, or .laz without lazrs."
        ) from error
    names = set(las.point_format.dimension_names)
    attributes = {name: np.array(las[name]) for name in LAS_FIELDS if name in names}
    return PointCloud(np.ascontiguousarray(las.xyz), attributes, _las_unit(las.header), path.stem)


def _las_unit(header) -> str:
    """Name of the length unit in the file's WKT, `unknown` where it has none."""
    for record in header.vlrs:
        units = re.findall(r'UNIT\["([^"]+)"', getattr(record, "string", ""))
        lengths = [unit for unit in units if "deg" not in unit.lower()]
        if lengths:
            return lengths[0]
    return "unknown"


_READERS: dict[str, Callable[[Path], PointCloud]] = {
    ".npz": _read_npz,
    ".bin": _read_bin,
    ".ply": _read_open3d,
    ".pcd": _read_open3d,
    ".las": _read_las,
    ".laz": _read_las,
}
