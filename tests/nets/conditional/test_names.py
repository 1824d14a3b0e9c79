"""The public names of the package."""

import inspect
import subprocess
import sys

import pytest

from papertwin.nets import conditional


@pytest.mark.parametrize("name", conditional.__all__)
def test_public_names_resolve_to_documented_objects_of_that_name(name):
    found = getattr(conditional, name)
    assert found.__name__ == name
    assert inspect.getdoc(found)
    assert found.__module__.startswith(conditional.__name__)


def test_naming_the_package_costs_nothing():
    code = "import sys, papertwin.nets.conditional; print({'torch', 'sklearn', 'scipy'} & set(sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "set()\n"


def test_unknown_names_are_attribute_errors():
    with pytest.raises(AttributeError, match="no attribute 'forest'"):
        _ = conditional.forest
