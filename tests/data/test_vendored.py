"""The data sets in the repository: unchanged, complete, small, and free to pass on."""

import csv
import gzip
import hashlib
import tomllib
from itertools import combinations

import numpy as np
import pytest

from papertwin import paths

DATA = paths.root() / "data"
REGISTRY = tomllib.loads((DATA / "registry.toml").read_text(encoding="utf8"))
VENDORED = sorted(name for name, about in REGISTRY.items() if about["kind"] == "vendored")
FILES = [row for name in VENDORED for row in REGISTRY[name]["files"]]
SCENES = {"avenue": 119_682, "junction": 107_647, "residential": 101_762, "roadside": 97_299}
LABELS = {"car", "pole", "cyclist", "person"}
SIZES = {"car": (6.5, 2.5, 2.5), "pole": (2.5, 1.2, 12.5), "cyclist": (2.5, 1.2, 2.2), "person": (1.2, 1.2, 2.2)}
NUMBERS = ("x", "y", "z", "length", "width", "height", "yaw")
MEGABYTE = 1_000_000
# of the unpacked files in the package's archive
MNIST_MD5 = {
    "train-images-idx3-ubyte": "6bbc9ace898e44ae57da46a324031adb",
    "train-labels-idx1-ubyte": "a25bea736e30d166cdddb491f175f624",
    "t10k-images-idx3-ubyte": "2646ac647ad5339dbf082846283269ea",
    "t10k-labels-idx1-ubyte": "27ae3e4e09519cfbb04c329615203637",
}


def read_boxes(scene):
    with (DATA / "street/boxes.csv").open(encoding="utf8", newline="") as stream:
        rows = [row for row in csv.DictReader(stream) if row["scene"] == scene]
    return [{"label": row["label"], **{key: float(row[key]) for key in NUMBERS}} for row in rows]


def inside(points, box):
    x, y, z = (points - [box["x"], box["y"], box["z"]]).T
    c, s = np.cos(box["yaw"]), np.sin(box["yaw"])
    along, across = c * x + s * y, c * y - s * x
    flat = (np.abs(along) <= box["length"] / 2) & (np.abs(across) <= box["width"] / 2)
    return flat & (z >= 0) & (z <= box["height"])


@pytest.fixture(scope="module", params=SCENES)
def scene(request):
    with np.load(DATA / f"street/{request.param}.npz") as arrays:
        return request.param, arrays["points"].astype(float), read_boxes(request.param)


@pytest.mark.parametrize("row", FILES, ids=lambda row: row["path"])
def test_file_is_the_registered_one(row):
    content = (DATA / row["path"]).read_bytes()
    assert len(content) == row["bytes"]
    assert hashlib.sha256(content).hexdigest() == row["sha256"]


@pytest.mark.parametrize("name", VENDORED)
def test_set_says_where_it_is_from(name):
    about = REGISTRY[name]
    for key in ("title", "licence", "origin", "note"):
        assert about[key].strip()
    assert "copyright" in (DATA / about["notice"]).read_text(encoding="utf8").lower()
    assert (DATA / about["prepare"]).is_file()


def test_every_array_in_a_vendored_folder_is_registered():
    registered = {row["path"] for row in FILES}
    documents = {".md", ""}  # README.md, LICENSE
    found = {
        path.relative_to(DATA).as_posix()
        for name in VENDORED
        for path in (DATA / name).rglob("*")
        if path.is_file() and path.suffix not in documents
    }
    assert found == registered


def test_no_restricted_set_is_vendored():
    for name, about in REGISTRY.items():
        restricted = "NC" in about["licence"] or name.startswith(("kitti", "cifar", "imagenet"))
        assert not (restricted and about["kind"] == "vendored"), name
        if restricted:
            assert not about.get("files"), name
    for word in ("kitti", "cifar", "imagenet"):
        assert not [row["path"] for row in FILES if word in row["path"].lower()]


def test_vendored_files_are_small():
    total = sum(
        path.stat().st_size
        for path in DATA.rglob("*")
        if path.is_file() and "local" not in path.relative_to(DATA).parts
    )
    # Fashion-MNIST (30.9 MB) and MNIST (11.3 MB) are most of it: complete, so that accuracies are those of the whole
    # test sets, offline
    assert total < 56 * MEGABYTE


@pytest.mark.parametrize(
    ("name", "magic", "shape"),
    [
        ("train-images-idx3-ubyte", 2051, (60_000, 28, 28)),
        ("train-labels-idx1-ubyte", 2049, (60_000,)),
        ("t10k-images-idx3-ubyte", 2051, (10_000, 28, 28)),
        ("t10k-labels-idx1-ubyte", 2049, (10_000,)),
    ],
)
def test_mnist_files_are_those_published(name, magic, shape):
    packed = (DATA / f"mnist/{name}.gz").read_bytes()
    assert packed[3:8] == bytes(5)  # neither a name nor a time, so that the bytes can be rebuilt
    content = gzip.decompress(packed)
    header = np.array([magic, *shape], dtype=">u4").tobytes()
    assert content.startswith(header)
    assert len(content) == len(header) + np.prod(shape)
    assert hashlib.md5(content, usedforsecurity=False).hexdigest() == MNIST_MD5[name]


@pytest.mark.parametrize(("name", "count"), SCENES.items())
def test_scene_arrays(name, count):
    with np.load(DATA / f"street/{name}.npz") as arrays:
        points, reflectivity, unit = arrays["points"], arrays["reflectivity"], arrays["unit"]
    assert points.shape == (count, 3)
    assert points.dtype == np.float32
    assert np.isfinite(points).all()
    assert (np.linalg.norm(points, axis=1) > 0.1).all()  # no pixel without a return
    assert reflectivity.shape == (count,)
    assert reflectivity.dtype == np.uint8
    assert unit.item() == "m"


def test_airborne_arrays():
    with np.load(DATA / "airborne/tile.npz") as tile:
        points, classes = tile["points"], tile["classification"]
        assert tile["unit"].item() == "US survey foot"
        assert tile["offset"].dtype == np.float64
    assert points.shape == (25_408, 3)
    assert points.dtype == np.float32
    np.testing.assert_array_equal(points.min(axis=0), 0)
    np.testing.assert_allclose(np.ptp(points, axis=0), [60, 40, 51.3], atol=0.1)
    codes, counts = np.unique(classes, return_counts=True)
    assert dict(zip(codes.tolist(), counts.tolist())) == {2: 9808, 3: 158, 4: 724, 5: 10956, 6: 3737, 7: 25}


@pytest.mark.parametrize("frame", range(5))
def test_simulated_frame_has_the_documented_columns(frame):
    folder = DATA / "liguard"
    points = np.fromfile(folder / f"velodyne/{frame:06d}.bin", dtype="<f4").reshape(-1, 4)
    assert 32_000 < len(points) < 34_000
    assert np.isfinite(points).all()
    labels = [line.split() for line in (folder / f"label_2/{frame:06d}.txt").read_text().splitlines()]
    assert len(labels) == 200
    assert {len(row) for row in labels} == {15}
    height, length, width = np.array([row[8:11] for row in labels if row[0] == "Car"], dtype=float).T
    assert (length > width).all()  # KITTI has width before length
    assert (length > height).all()
    keys = {line.split(":")[0] for line in (folder / f"calib/{frame:06d}.txt").read_text().splitlines() if line}
    assert keys == {"P2", "R0_rect", "Tr_velo_to_cam"}


def test_box_table_has_known_scenes_and_labels():
    with (DATA / "street/boxes.csv").open(encoding="utf8", newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert list(rows[0]) == ["scene", "label", *NUMBERS]
    assert {row["scene"] for row in rows} == set(SCENES)
    assert {row["label"] for row in rows} == LABELS
    assert sum(row["label"] == "car" for row in rows) == 39
    assert sum(row["label"] == "pole" for row in rows) == 21


def test_boxes_have_the_size_of_their_class_and_are_near(scene):
    _, _, boxes = scene
    for box in boxes:
        size = np.array([box["length"], box["width"], box["height"]])
        assert (size > 0.2).all()
        assert (size <= SIZES[box["label"]]).all(), box
        assert np.hypot(box["x"], box["y"]) < 30
        assert abs(box["yaw"]) <= np.pi / 2 + 1e-3


def test_boxes_hold_at_least_fifty_returns(scene):
    name, points, boxes = scene
    counts = [int(inside(points, box).sum()) for box in boxes]
    assert min(counts) >= 50, (name, counts)


def test_boxes_of_a_scene_do_not_share_returns(scene):
    _, points, boxes = scene
    held = [inside(points, box) for box in boxes]
    for a, b in combinations(held, 2):
        assert (a & b).sum() <= 0.02 * min(a.sum(), b.sum())


def test_car_boxes_hold_no_road(scene):
    """Road caught by a box would fill a thin slice above its bottom face."""
    _, points, boxes = scene
    for box in (box for box in boxes if box["label"] == "car"):
        held = inside(points, box)
        slice_ = held & (points[:, 2] < box["z"] + 0.05)
        assert slice_.sum() <= 0.1 * held.sum(), box
