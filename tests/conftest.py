"""What every test shares: outputs go to a temporary folder, figures are drawn without a screen."""

import os

import pytest


@pytest.fixture(scope="session", autouse=True)
def _figures_elsewhere(tmp_path_factory):
    """Keep every run of the test session, also in child processes, out of figures/."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PAPERTWIN_FIGURES", str(tmp_path_factory.mktemp("figures")))
        patch.setenv("MPLBACKEND", "Agg")
        yield


def pytest_configure():
    """Choose the backend before any test module can import matplotlib."""
    os.environ["MPLBACKEND"] = "Agg"


def pytest_generate_tests(metafunc):
    """Run a test that takes `device` once on every device that this machine has."""
    if "device" in metafunc.fixturenames:
        from papertwin.training.device import available_devices

        metafunc.parametrize("device", available_devices(), ids=str)
