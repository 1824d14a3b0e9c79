"""The benchmark of the normals, on small clouds: what it reports is right; how fast it is, only the benchmark says."""

import json
import shutil

import numpy as np
import pytest

from papertwin.bench import don
from papertwin.data import registry
from papertwin.errors import DataError, RunError
from papertwin.points import normals


@pytest.fixture
def small(monkeypatch):
    """The scans cut to 2,000 points each."""
    whole = don._scan

    def scan(name):
        return whole(name)[::50][:2000]

    monkeypatch.setattr(don, "_scan", scan)
    return scan


def test_one_scene_is_compared(small):
    points = small("junction")
    row = don._compare("junction", points, 4.0)
    assert row["details"]["points"] == 2000
    assert row["mean n"] == round(float(normals(points, 4.0).counts.mean()))
    assert row["agree %"] == 100.0
    assert row["ratio"] == pytest.approx(row["Open3D s"] / row["ours s"], rel=0.2)


def test_a_corrupted_scan_is_refused(monkeypatch, tmp_path):
    (tmp_path / "street").mkdir()
    shutil.copy(registry.default().folder / "registry.toml", tmp_path)
    (tmp_path / "street" / "junction.npz").write_bytes(b"edited")
    monkeypatch.setattr(registry, "default", lambda: registry.Registry(tmp_path))
    with pytest.raises(DataError, match="not the registered one"):
        don._scan("junction")


def test_wrong_normals_would_show(small, monkeypatch):
    """The agreement is measured, not assumed: turn our normals and it drops."""
    true = don.normals

    def turned(points, radius):
        found = true(points, radius)
        return type(found)(found.vectors[:, [1, 2, 0]], found.counts, found.degenerate, found.gap)

    monkeypatch.setattr(don, "normals", turned)
    assert don._compare("junction", small("junction"), 4.0)["agree %"] < 10.0


@pytest.mark.parametrize("count", [1, 1999, 8000, 20_001])
def test_scans_side_by_side_never_touch(small, count):
    cloud = don.side_by_side(count)
    assert cloud.shape == (count, 3)
    alone = normals(small("junction")[:count], 4.0)
    together = normals(cloud, 4.0)
    first = min(count, 2000)
    assert np.array_equal(alone.counts, together.counts[:first])


def test_whole_run_has_a_row_per_measurement(small, monkeypatch):
    monkeypatch.setattr(don, "MILLIONS", (1,))
    monkeypatch.setattr(don, "_alone", lambda million, radius: {"cloud": f"{million} M", "r (m)": radius})
    seen = []
    result = don.run(lambda text, done: seen.append(done))
    assert len(result.rows) == 4 * 2 + 2
    assert result.headline["ratio"] == pytest.approx(min(r["ratio"] for r in result.rows[1:8:2]), abs=0.06)
    assert result.headline["goal"] == 20.0
    assert seen == sorted(seen)
    assert (seen[0], seen[-1]) == (0.0, 1.0)
    json.loads(result.to_json())


def test_process_of_its_own_reports_its_peak(monkeypatch, capsys):
    monkeypatch.setattr(don, "side_by_side", lambda count: np.random.default_rng(0).random((count, 3)))
    don._main(3000, 0.2)
    row = json.loads(capsys.readouterr().out)
    assert row["cloud"] == "0 M points"
    assert row["peak GiB"] > 0.01


def test_a_process_that_dies_is_an_error(monkeypatch):
    monkeypatch.setattr(don.sys, "executable", "/bin/false")
    with pytest.raises(RunError, match="ended with code 1"):
        don._alone(1, 0.4)
