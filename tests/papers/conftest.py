"""What the tests of all papers share: torch computes with one thread, so that sums do not depend on the cores."""

import pytest

from papertwin.training.loop import single_thread


@pytest.fixture(autouse=True, scope="module")
def _one_thread():
    """For the whole of a file."""
    with single_thread():
        yield
