"""A PLY or PCD file that was cut is refused: Open3D alone would fill it up with points that do not exist."""

import os
import tracemalloc

import numpy as np
import pytest

from papertwin.errors import DataError
from papertwin.points import read_cloud
from papertwin.points.headers import HEADER_LIMIT, check_complete
from papertwin.points.open3d_loader import open3d

FORMS = {"text": {"write_ascii": True}, "binary": {}, "compressed": {"compressed": True}}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("ending", [".ply", ".pcd"])
def test_whole_files_pass_and_cut_ones_do_not(tmp_path, street, ending, form):
    module = open3d()
    whole, part = tmp_path / f"whole{ending}", tmp_path / f"part{ending}"
    cloud = module.geometry.PointCloud(module.utility.Vector3dVector(street))
    assert module.io.write_point_cloud(str(whole), cloud, **FORMS[form])
    assert np.abs(read_cloud(whole).points - street).max() < 1e-4  # text keeps six digits
    content = whole.read_bytes()
    for share in (0.999, 0.5, 0.02):
        part.write_bytes(content[: int(share * len(content))])
        with pytest.raises(DataError, match=r"part.*(cut short|not understood)"):
            read_cloud(part)


def test_vertices_after_another_element(tmp_path):
    header = "ply\nformat ascii 1.0\nelement camera 1\nproperty float a\nelement vertex 2\n"
    header += "property float x\nproperty float y\nproperty float z\nelement face 0\n"
    header += "property list uchar int vertex_index\nend_header\n"
    path = tmp_path / "a.ply"
    path.write_text(header + "5\n1 2 3\n4 5 6\n")
    assert read_cloud(path).points.tolist() == [[1, 2, 3], [4, 5, 6]]
    path.write_text(header + "5\n1 2 3\n")
    with pytest.raises(DataError, match="3 lines of points, 2 are there"):
        read_cloud(path)


MALFORMED = {
    "no vertices.ply": "ply\nformat ascii 1.0\nend_header\n",
    "no number.ply": "ply\nelement vertex many\nend_header\n",
    "no end.ply": "ply\nformat ascii 1.0\nelement vertex 1\n",
    "empty.ply": "",
    "endless.ply": "comment on and on\n" * (HEADER_LIMIT // 16),
    "no data.pcd": "SIZE 4 4 4\nPOINTS 1\n",
    "no points.pcd": "SIZE 4 4 4\nDATA ascii\n0 0 0\n",
    "no content.pcd": "SIZE 4 4 4\nPOINTS 1\nDATA binary_compressed\n",
}


@pytest.mark.parametrize("name", MALFORMED)
def test_malformed_headers(tmp_path, name):
    (tmp_path / name).write_text(MALFORMED[name])
    with pytest.raises(DataError, match="header is not understood"):
        read_cloud(tmp_path / name)


@pytest.mark.parametrize("ending", [".ply", ".pcd"])
def test_only_the_header_of_a_binary_file_is_read(tmp_path, ending):
    """A sparse file of 1 GB: whoever reads the points needs their memory."""
    count = 1_000_000_000 // 12
    header = {
        ".ply": f"ply\nformat binary_little_endian 1.0\nelement vertex {count}\n"
        "property float x\nproperty float y\nproperty float z\nend_header\n",
        ".pcd": f"VERSION 0.7\nFIELDS x y z\nSIZE 4 4 4\nTYPE F F F\nPOINTS {count}\nDATA binary\n",
    }[ending].encode()
    path = tmp_path / f"large{ending}"
    path.write_bytes(header)
    os.truncate(path, len(header) + 12 * count)
    tracemalloc.start()
    try:
        check_complete(path)
        assert tracemalloc.get_traced_memory()[1] < 4 * HEADER_LIMIT
    finally:
        tracemalloc.stop()
    os.truncate(path, len(header) + 12 * count - 1)
    with pytest.raises(DataError, match=f"{12 * count} bytes of points, {12 * count - 1} are there"):
        check_complete(path)
