"""Readers: what was written is read again, and a damaged file says what is wrong."""

import sys

import numpy as np
import pytest

from papertwin import paths
from papertwin.errors import DataError
from papertwin.points import read_cloud
from papertwin.points.open3d_loader import open3d


def test_npz_round_trip(tmp_path, street):
    path = tmp_path / "scene.npz"
    np.savez_compressed(
        path, points=street.astype(np.float32), reflectivity=np.arange(1500), offset=np.zeros(3), unit="ft"
    )
    cloud = read_cloud(path)
    assert np.array_equal(cloud.points, street.astype(np.float32))
    assert list(cloud.attributes) == ["reflectivity"]
    assert (cloud.unit, cloud.name, len(cloud)) == ("ft", "scene", 1500)


def test_bin_round_trip(tmp_path, rng):
    rows = rng.random((10, 4)).astype("<f4")
    rows.tofile(tmp_path / "000007.bin")
    cloud = read_cloud(tmp_path / "000007.bin")
    assert np.array_equal(cloud.points, rows[:, :3])
    assert np.array_equal(cloud.attributes["reflectance"], rows[:, 3])


@pytest.mark.parametrize("ending", [".ply", ".pcd"])
def test_open3d_round_trip(tmp_path, street, ending):
    module = open3d()
    table = module.t.geometry.PointCloud(street.astype(np.float32))
    table.point["intensity"] = np.arange(1500, dtype=np.float32)[:, None]
    path = tmp_path / f"scene{ending}"
    assert module.t.io.write_point_cloud(str(path), table)
    cloud = read_cloud(path)
    assert np.array_equal(cloud.points, street.astype(np.float32))
    assert np.array_equal(cloud.attributes["intensity"], np.arange(1500))


def test_las_round_trip(tmp_path, street):
    laspy = pytest.importorskip("laspy")
    las = laspy.create(point_format=3, file_version="1.2")
    las.header.scales = [1e-4] * 3
    las.x, las.y, las.z = street.T
    las.classification = np.arange(1500) % 7
    las.write(tmp_path / "tile.las")
    cloud = read_cloud(tmp_path / "tile.las")
    assert np.abs(cloud.points - street).max() <= 0.51e-4
    assert np.array_equal(cloud.attributes["classification"], np.arange(1500) % 7)
    assert cloud.unit == "unknown"


def test_vendored_scans_are_read():
    cloud = read_cloud(paths.root() / "data/street/junction.npz")
    assert cloud.points.shape == (107_647, 3)
    assert cloud.unit == "m"
    assert read_cloud(paths.root() / "data/airborne/tile.npz").unit == "US survey foot"


@pytest.mark.parametrize("ending", [".npz", ".bin", ".ply", ".pcd", ".las"])
def test_missing_empty_and_broken_files(tmp_path, ending):
    path = tmp_path / f"x{ending}"
    with pytest.raises(DataError, match="does not exist"):
        read_cloud(path)
    for content in (b"", b"\x00\x01not a cloud" * 7):
        path.write_bytes(content)
        with pytest.raises(DataError, match=f"x{ending}"):
            read_cloud(path)


def test_npz_cut_short(tmp_path, street):
    np.savez(tmp_path / "whole.npz", points=street)
    content = (tmp_path / "whole.npz").read_bytes()
    (tmp_path / "part.npz").write_bytes(content[: len(content) // 2])
    with pytest.raises(DataError, match=r"part\.npz cannot be read"):
        read_cloud(tmp_path / "part.npz")


def test_bin_that_is_cut_short(tmp_path):
    path = tmp_path / "a.bin"
    path.write_bytes(bytes(16 * 5 + 7))
    with pytest.raises(DataError, match="87 bytes, expected a multiple of 16"):
        read_cloud(path)


def test_npz_without_points_or_with_wrong_shape(tmp_path):
    np.savez(tmp_path / "a.npz", xyz=np.zeros((2, 3)))
    with pytest.raises(DataError, match="expected an array 'points'"):
        read_cloud(tmp_path / "a.npz")
    np.savez(tmp_path / "b.npz", points=np.zeros((2, 4)))
    with pytest.raises(DataError, match=r"\(n, 3\), got \(2, 4\)"):
        read_cloud(tmp_path / "b.npz")


def test_unknown_ending_and_folder(tmp_path):
    with pytest.raises(DataError, match=r"unknown ending '.xyz'.*\.pcd"):
        read_cloud(tmp_path / "a.xyz")
    (tmp_path / "b.bin").mkdir()
    with pytest.raises(DataError, match="is a folder"):
        read_cloud(tmp_path / "b.bin")


def test_missing_laspy_says_how_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "laspy", None)
    (tmp_path / "a.las").write_bytes(b"LASF")
    with pytest.raises(DataError, match="pip install laspy"):
        read_cloud(tmp_path / "a.las")
