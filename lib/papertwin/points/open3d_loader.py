"""Import Open3D without a system package: its libusb comes from the Python package `libusb-package`."""

import ctypes
from typing import Any

from papertwin.errors import RunError


def open3d() -> Any:
    """The `open3d` module.

    Open3D looks for libusb-1.0 while it is imported. The library inside `libusb-package` is loaded first, visible to
    all, so that machines without a system-wide libusb can import it too.

    Raises:
        RunError: Open3D is not installed, or cannot be loaded on this machine.
    """
    try:
        import libusb_package

        library = libusb_package.get_library_path()
        if library is not None:
            ctypes.CDLL(str(library), mode=ctypes.RTLD_GLOBAL)
    except (ImportError, OSError):
        pass  # a system libusb may still be there; the import below tells
    try:
        import open3d as module
    except (ImportError, OSError) as error:
        raise RunError(
            f"Open3D cannot be loaded ({error}). It reads PLY and PCD files and is the peer of the benchmark; "
            "install it with `pip install open3d-cpu libusb-package` (Linux x86-64) or `pip install open3d`."
        ) from error
    return module
