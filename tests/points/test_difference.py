"""Normals and Difference of Normals: the card's traps, theorems, and three other implementations."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial import cKDTree
from scipy.spatial.transform import Rotation

from papertwin.errors import InputError, ParameterError
from papertwin.points import difference_of_normals, normals
from papertwin.points.open3d_loader import open3d

WELL = 0.01


def grid(count: int, spacing: float = 1.0) -> np.ndarray:
    axis = spacing * np.arange(count)
    x, y = np.meshgrid(axis, axis, indexing="ij")
    return np.c_[x.ravel(), y.ravel(), np.zeros(count * count)]


@pytest.mark.parametrize("radius", [0.1, 0.5, 2.0, 9.0, 100.0])
def test_normals_equal_brute_force(street, reference, between, radius):
    found = normals(street, radius)
    vectors, counts, spectrum = reference(street, radius)
    assert np.array_equal(found.counts, counts)
    well = (counts >= 3) & (spectrum[:, 1] - spectrum[:, 0] > WELL * spectrum[:, 2])
    assert well.sum() > 50
    assert between(found.vectors, vectors)[well].max() < 1e-6
    assert np.allclose(np.linalg.norm(found.vectors, axis=1), ~found.degenerate)
    assert np.allclose(
        found.gap[well], ((spectrum[:, 1] - spectrum[:, 0]) / np.maximum(spectrum[:, 2], 1e-300))[well], atol=1e-9
    )


@pytest.mark.parametrize("radius", [0.3, 1.5])
def test_normals_equal_open3d(street, between, radius):
    module = open3d()
    cloud = module.geometry.PointCloud(module.utility.Vector3dVector(street))
    cloud.estimate_normals(module.geometry.KDTreeSearchParamRadius(radius))
    found = normals(street, radius)
    well = found.gap > WELL
    assert well.sum() > 500
    assert between(found.vectors, np.asarray(cloud.normals))[well].max() < 0.01


def test_counts_equal_a_kd_tree_on_a_real_scan():
    from papertwin import paths
    from papertwin.points import read_cloud

    points = read_cloud(paths.root() / "data/street/junction.npz").points[:20000].astype(np.float64)
    chosen = np.arange(0, len(points), 17)
    tree = cKDTree(points)
    for radius in (0.4, 4.0):
        expected = tree.query_ball_point(points[chosen], radius, return_length=True)
        assert np.array_equal(normals(points, radius).counts[chosen], expected)


def test_radius_is_inclusive_and_the_point_itself_counts():
    found = normals(grid(7), 2.0)
    assert found.counts[24] == 13  # the lattice points of the closed disc of radius 2
    assert normals(grid(7), np.nextafter(2.0, 0.0)).counts[24] == 9


def test_few_collinear_and_coincident_neighbours_are_degenerate():
    line = np.c_[np.arange(5.0), 2.0 * np.arange(5.0), -np.arange(5.0)]
    pair = np.array([[100.0, 0, 0], [100.5, 0, 0]])
    same = np.full((4, 3), 200.0)
    corner = np.array([[300.0, 0, 0], [301, 0, 0], [300, 1, 0]])
    found = normals(np.concatenate((line, pair, same, corner)), 50.0)
    assert found.counts.tolist() == [5] * 5 + [2] * 2 + [4] * 4 + [3] * 3
    assert found.degenerate.tolist() == [True] * 11 + [False] * 3
    assert (found.vectors[:11] == 0.0).all()
    assert np.allclose(found.vectors[11:], [0, 0, 1])
    assert (found.gap[:11] == 0.0).all()


@pytest.mark.parametrize("scale", [1.0, 1e-3, 1e5])
@pytest.mark.parametrize("offset", [0.0, 5e5, 4e6])
def test_collinear_points_far_from_the_origin(rng, scale, offset):
    steps = np.round(rng.random(200) * 2**12) / 2**12
    line = scale * np.outer(steps, (1.0, 0.5, 0.25)) + offset
    # far away the coordinates themselves are rounded: the line is as straight as float64 allows
    straight = 1e-10 * scale**2 > (4 * np.spacing(offset + scale)) ** 2
    assert normals(line, 0.2 * scale).degenerate.all() == straight


def test_duplicates_far_from_the_query_group(rng):
    """All neighbours coincide although the tree node of the queries is wide: rounding must not invent a normal."""
    places = np.array([[0.0, 0, 0], [1.5, 0, 0], [0, 1.5, 0], [0, 0, 1.5]]) + 0.1234567
    points = np.repeat(places, 9, axis=0)
    found = normals(points, 1.0)
    assert (found.counts == 9).all()
    assert found.degenerate.all()


def test_tight_patch_seen_from_a_distance(rng, between):
    """Queries off the surface: the patch is 1e-5 wide and 1 away, its normal is still exact."""
    patch = np.c_[1e-5 * rng.random((200, 2)), np.zeros(200)] @ Rotation.from_rotvec([0.3, 0.2, 0]).as_matrix().T
    queries = patch[:50] + np.array([0.0, 0.0, 1.0])
    found = normals(queries, 2.0, surface=patch)
    assert (found.counts == 200).all()
    centred = patch - patch.mean(axis=0)
    expected = np.linalg.svd(centred)[2][2]
    assert between(found.vectors, np.tile(expected, (50, 1))).max() < 1e-3


@pytest.mark.parametrize("offset", [(5e5, 4e6, 100.0), (-4e6, 5e5, 0.0)])
def test_large_coordinates_change_nothing(street, between, offset):
    street = np.round(street * 1024) / 1024  # stays exact after the shift
    near, far = normals(street, 1.0), normals(street + offset, 1.0)
    assert np.array_equal(near.counts, far.counts)
    assert np.array_equal(near.degenerate, far.degenerate)
    well = near.gap > WELL
    assert between(near.vectors, far.vectors)[well].max() < 1e-6


def test_plane_interior_is_zero_and_its_edge_too(rng):
    plane = grid(12) @ Rotation.from_rotvec([0.4, -0.3, 0.9]).as_matrix().T
    difference = difference_of_normals(plane, 1.01, 4.01)
    assert np.abs(difference).max() < 1e-12


def test_the_half_is_there():
    """Two perpendicular half-planes: close to the edge, sin(θ/2) and not 2 sin(θ/2)."""
    floor = grid(21, 0.1)
    wall = floor[:, [2, 1, 0]]
    points = np.unique(np.concatenate((floor, wall)), axis=0)
    difference = difference_of_normals(points, 0.25, 1.5, orientation="pairwise")
    small, large = normals(points, 0.25), normals(points, 1.5)
    cosine = np.abs(np.einsum("ij,ij->i", small.vectors, large.vectors)).clip(0, 1)
    expected = np.sin(0.5 * np.arccos(cosine))
    assert np.linalg.norm(difference, axis=1) == pytest.approx(expected, abs=1e-7)
    assert expected.max() > 0.3


@pytest.mark.parametrize(("orientation", "limit"), [("viewpoint", 1.0), ("pairwise", np.sqrt(0.5))])
@given(seed=st.integers(0, 10_000), r_small=st.floats(0.05, 1.0), growth=st.floats(1.1, 10.0))
@settings(max_examples=25, deadline=None)
def test_norm_is_bounded(orientation, limit, seed, r_small, growth):
    points = np.random.default_rng(seed).standard_normal((120, 3))
    norms = np.linalg.norm(difference_of_normals(points, r_small, growth * r_small, orientation=orientation), axis=1)
    assert norms.max() <= limit + 1e-12


def test_equal_normals_give_zero_and_missing_ones_too(street):
    small, large = normals(street, 0.2), normals(street, 2.0)
    difference = difference_of_normals(street, 0.2, 2.0)
    missing = small.degenerate | large.degenerate
    assert 0 < missing.sum() < len(street)
    assert (difference[missing] == 0.0).all()
    assert np.allclose(difference[~missing], 0.5 * (small.vectors - large.vectors)[~missing], atol=1e-15)
    # two radii between which no point lies: the same neighbours, the same normals
    lattice = grid(9) + np.random.default_rng(0).normal(0, 0.05, (81, 3)) * (0, 0, 1)
    assert np.abs(difference_of_normals(lattice, 1.1, 1.101)).max() == 0.0


@given(seed=st.integers(0, 10_000), scale=st.sampled_from([0.25, 2.0, 1024.0]), turn=st.floats(-3.0, 3.0))
@settings(max_examples=20, deadline=None)
def test_shift_scale_order_and_rotation(seed, scale, turn):
    rng = np.random.default_rng(seed)
    points = np.round(rng.random((150, 3)) * 4096) / 1024  # exact under the shift below
    eye = np.array([10.0, -3.0, 5.0])
    plain = difference_of_normals(points, 0.6, 1.5, viewpoint=eye)
    well = np.minimum(normals(points, 0.6).gap, normals(points, 1.5).gap) > WELL
    shift = np.array([512.0, -256.0, 64.0])
    assert np.allclose(
        difference_of_normals(points + shift, 0.6, 1.5, viewpoint=eye + shift)[well], plain[well], atol=1e-9
    )
    scaled = difference_of_normals(scale * points, scale * 0.6, scale * 1.5, viewpoint=scale * eye)
    assert np.allclose(scaled[well], plain[well], atol=1e-9)
    order = rng.permutation(len(points))
    assert np.allclose(
        difference_of_normals(points[order], 0.6, 1.5, viewpoint=eye)[well[order]], plain[order][well[order]], atol=1e-9
    )
    turned = Rotation.from_rotvec(turn * np.array([0.2, 0.5, 1.0])).as_matrix()
    rotated = difference_of_normals(points @ turned.T, 0.6, 1.5, viewpoint=turned @ eye)
    assert np.allclose(rotated[well], (plain @ turned.T)[well], atol=1e-7)


def test_pairwise_norms_do_not_change_under_rotation_but_viewpoint_norms_do(rng):
    wall = rng.random((800, 3)) * (6.0, 0.02, 6.0)
    bumps = wall + (0.0, 0.3, 0.0) * (np.sin(3 * wall[:, :1]) > 0.6)
    turned = bumps @ Rotation.from_euler("z", 45 + 1e-3, degrees=True).as_matrix().T
    pairwise = [
        np.linalg.norm(difference_of_normals(p, 0.3, 1.5, orientation="pairwise"), axis=1) for p in (bumps, turned)
    ]
    assert np.allclose(*pairwise, atol=1e-7)
    fixed = [np.linalg.norm(difference_of_normals(p, 0.3, 1.5), axis=1) for p in (bumps, turned)]
    assert np.abs(fixed[0] - fixed[1]).max() > 0.5


def test_viewpoint_conventions(street):
    default = normals(street, 0.5)
    alive = ~default.degenerate
    assert (default.vectors[alive].sum(axis=1) > -1e-8).all()
    assert np.array_equal(default.vectors, normals(street, 0.5, viewpoint=(np.inf,) * 3).vectors)
    down = normals(street, 0.5, viewpoint=(0.0, 7.0, -np.inf)).vectors[alive]
    assert (down[:, 2] < 1e-8).all()
    eye = np.array([0.3, -2.0, 1.8])
    seen = normals(street, 0.5, viewpoint=eye).vectors[alive]
    towards = np.einsum("ij,ij->i", eye - street[alive], seen)
    assert (towards > -1e-7 * np.linalg.norm(eye - street[alive], axis=1)).all()
    assert (towards < 0.0).sum() <= 0.02 * len(towards)


def test_perpendicular_normals_get_a_stable_sign():
    """A wall whose normal (1, -1, 0) is perpendicular to (1, 1, 1): rounding must not choose the signs."""
    along, up = grid(9)[:, 0], grid(9)[:, 1]
    wall = np.c_[along * np.sqrt(0.5), along * np.sqrt(0.5), up] @ Rotation.from_rotvec([1e-13, 0, 0]).as_matrix()
    assert np.abs(difference_of_normals(wall, 1.5, 4.0)).max() < 1e-12
    assert np.allclose(normals(wall, 1.5).vectors, [np.sqrt(0.5), -np.sqrt(0.5), 0.0])


def test_other_surface_and_voxels(street, reference, between):
    surface, places = street[::2], street[1::40]
    found = normals(places, 1.0, surface=surface)
    vectors, counts, spectrum = reference(surface, 1.0, places)
    assert np.array_equal(found.counts, counts)
    well = (counts >= 3) & (spectrum[:, 1] - spectrum[:, 0] > WELL * spectrum[:, 2])
    assert between(found.vectors, vectors)[well].max() < 1e-6
    fine = difference_of_normals(street, 0.5, 3.0, surface_voxel=1e6)
    assert np.allclose(fine, difference_of_normals(street, 0.5, 3.0), atol=1e-9)
    coarse = normals(street, 3.0, surface_voxel=5.0)
    assert coarse.counts.sum() < normals(street, 3.0).counts.sum()


def test_neighbour_count_may_explode():
    points = np.random.default_rng(3).random((30_000, 3))
    found = normals(points, 10.0)  # 900 million pairs, none of them visited
    assert (found.counts == 30_000).all()
    expected = np.linalg.eigh(np.cov(points.T, bias=True))[1][:, 0]
    assert np.allclose(np.abs(found.vectors @ expected), 1.0)


@pytest.mark.parametrize("kind", [np.float32, np.float64, np.int32])
def test_numpy_comes_back_as_numpy(street, kind):
    points = np.round(street * 8).astype(kind)
    found = normals(points, 4.0)
    expected = np.float32 if kind is np.float32 else np.float64
    assert found.vectors.dtype == expected
    assert found.counts.dtype == np.int64
    assert found.degenerate.dtype == bool
    assert difference_of_normals(points, 4.0, 9.0).dtype == expected


def test_tensors_come_back_as_tensors_on_their_device(street, between, device):
    tensor = torch.from_numpy(street.astype(np.float32)).to(device)
    found = normals(tensor, 0.8)
    expected = normals(street.astype(np.float32), 0.8)
    assert found.vectors.device == tensor.device
    assert found.vectors.dtype == torch.float32
    assert np.array_equal(found.counts.cpu().numpy(), expected.counts)
    well = expected.gap > WELL
    assert between(found.vectors.cpu().numpy(), expected.vectors)[well].max() < 0.01
    assert difference_of_normals(tensor, 0.3, 0.8, device="cpu").device == tensor.device
    on_device = difference_of_normals(street, 0.3, 0.8, device=device)
    assert isinstance(on_device, np.ndarray)


@pytest.mark.parametrize(
    ("points", "words"),
    [
        (np.zeros((0, 3)), "empty"),
        (np.zeros((5, 2)), r"shape \(n, 3\)"),
        (np.zeros(3), r"shape \(n, 3\)"),
        ([["a", "b", "c"]], "real numbers"),
        (np.zeros((5, 3), complex), "real numbers"),
        ([[0.0, 0, 0], [1, 2]], "cannot be read|real numbers"),
        (np.array([[0.0, 0, 0], [0, np.nan, 0], [np.inf, 0, 0]]), "2 of 3 rows .* row 1 "),
        (np.array([[0.0, 0, 0], [0, 1e60, 0]]), "1 of 2 rows .* row 1 "),
        (np.array([[np.nan, 0, 0]], np.float32), "1 of 1 rows .* row 0 "),
        (torch.full((2, 3), torch.nan), "2 of 2 rows .* row 0 "),
    ],
)
def test_bad_points(points, words):
    with pytest.raises(InputError, match=words):
        normals(points, 1.0)
    with pytest.raises(InputError, match=words):
        difference_of_normals(points, 1.0, 2.0)


@pytest.mark.parametrize("radius", [0.0, -1.0, np.nan, np.inf, None, "wide", [1.0, 2.0]])
def test_bad_radius(street, radius):
    with pytest.raises(InputError, match="radius must be"):
        normals(street, radius)


def test_bad_options(street):
    with pytest.raises(InputError, match="r_small must be smaller"):
        difference_of_normals(street, 1.0, 1.0)
    with pytest.raises(InputError, match="r_small must be smaller"):
        difference_of_normals(street, 2.0, 1.0)
    with pytest.raises(InputError, match="orientation"):
        difference_of_normals(street, 0.5, 1.0, orientation="outwards")
    for viewpoint in ((0.0, 1.0), (np.nan, 0, 0), "up"):
        with pytest.raises(InputError, match="viewpoint"):
            normals(street, 0.5, viewpoint=viewpoint)
    with pytest.raises(InputError, match="surface_voxel"):
        difference_of_normals(street, 0.5, 1.0, surface_voxel=0)
    with pytest.raises(InputError, match="surface: 1 of"):
        normals(street, 0.5, surface=np.full((1, 3), np.nan))
    with pytest.raises(ParameterError, match="Unknown device"):
        normals(street, 0.5, device="gpu")
