"""What the tests of conditional networks share."""

import pytest

from papertwin.training.loop import single_thread


@pytest.fixture(scope="module", autouse=True)
def _one_thread():
    """Small tensors gain nothing by threads, and threads of several test runs stand in each other's way."""
    with single_thread():
        yield
