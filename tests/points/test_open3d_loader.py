"""Open3D is loaded, and its absence says what to do."""

import sys

import pytest

from papertwin.errors import RunError
from papertwin.points.open3d_loader import open3d


def test_open3d_is_the_module():
    assert open3d() is sys.modules["open3d"]
    assert open3d() is open3d()


def test_missing_open3d_says_how_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "open3d", None)
    with pytest.raises(RunError, match="pip install open3d-cpu"):
        open3d()


def test_missing_libusb_package_is_not_fatal(monkeypatch):
    open3d()
    monkeypatch.setitem(sys.modules, "libusb_package", None)
    assert open3d() is sys.modules["open3d"]
