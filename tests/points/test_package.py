"""Public names of the package."""

import pytest

from papertwin import points


@pytest.mark.parametrize("name", points.__all__)
def test_public_names_resolve_to_objects_of_that_name(name):
    assert getattr(points, name).__name__ == name


def test_unknown_names_are_attribute_errors():
    with pytest.raises(AttributeError, match="no attribute 'knn'"):
        _ = points.knn
