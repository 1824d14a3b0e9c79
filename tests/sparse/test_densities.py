"""ERK densities against exact fractions, a layer at a time; budgets add up and are whole numbers."""

import math
from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from papertwin.errors import InputError
from papertwin.sparse.densities import budgets, erk_densities, uniform_densities, whole_part

LAYERS = st.lists(
    st.one_of(
        st.tuples(st.integers(1, 60), st.integers(1, 60)),
        st.tuples(st.integers(1, 20), st.integers(1, 20), st.integers(1, 5), st.integers(1, 5)),
    ),
    min_size=1,
    max_size=6,
).map(lambda shapes: {f"layer{i}": shape for i, shape in enumerate(shapes)})


def exact_erk(shapes, hundredths):
    """Exact densities for a sparsity of so many hundredths: the fullest layer becomes dense, then all anew."""
    sizes = {name: math.prod(shape) for name, shape in shapes.items()}
    wanted = sum(size - size * hundredths // 100 for size in sizes.values())
    dense = []
    while True:
        rest = [name for name in shapes if name not in dense]
        if not rest:
            return dict.fromkeys(shapes, Fraction(1))
        scale = Fraction(wanted - sum(sizes[name] for name in dense), sum(sum(shapes[name]) for name in rest))
        density = {name: scale * sum(shapes[name]) / sizes[name] for name in rest}
        fullest = max(rest, key=density.get)
        if density[fullest] <= 1:
            return density | dict.fromkeys(dense, Fraction(1))
        dense.append(fullest)


@given(shapes=LAYERS, hundredths=st.integers(0, 99))
@settings(deadline=None)
def test_erk_is_the_exact_solution(shapes, hundredths):
    exact = exact_erk(shapes, hundredths)
    found = erk_densities(shapes, hundredths / 100)
    assert list(found) == list(shapes)
    assert found == pytest.approx({name: float(value) for name, value in exact.items()})
    assert all(0 < density <= 1 for density in found.values())
    whole = {name: math.floor(exact[name] * math.prod(shape)) for name, shape in shapes.items()}
    assert budgets(shapes, hundredths / 100) == whole


@given(shapes=LAYERS, hundredths=st.integers(0, 99))
@settings(deadline=None)
def test_erk_keeps_the_weights_that_are_to_be_kept(shapes, hundredths):
    sizes = {name: math.prod(shape) for name, shape in shapes.items()}
    wanted = sum(size - size * hundredths // 100 for size in sizes.values())
    kept = sum(density * sizes[name] for name, density in erk_densities(shapes, hundredths / 100).items())
    assert kept == pytest.approx(wanted)
    counts = budgets(shapes, hundredths / 100)
    assert wanted - len(shapes) < sum(counts.values()) <= wanted
    assert all(0 <= counts[name] <= sizes[name] for name in shapes)


def test_layers_become_dense_in_several_rounds():
    """646 weights are wanted, 646 / 216 = 2.99 a side: `tiny` is dense; then 642 / 212 = 3.03, and `small` is dense."""
    shapes = {"tiny": (2, 2), "small": (6, 6), "large": (100, 100)}
    found = erk_densities(shapes, 0.9358)
    assert found == pytest.approx({"tiny": 1, "small": 1, "large": (646 - 4 - 36) / 10000})
    assert budgets(shapes, 0.9358) == {"tiny": 4, "small": 36, "large": 606}
    fewer = erk_densities(shapes, 0.9368)  # 636 are wanted: 632 / 212 = 2.98, and `small` is not
    assert fewer["small"] == pytest.approx(632 / 212 * 12 / 36)


def test_sides_of_the_kernel_count():
    """280 of 560 weights; 8 + 4 + 3 + 3 = 18 sides and 8 + 34 = 42: neither would be dense."""
    found = erk_densities({"conv": (8, 4, 3, 3), "linear": (8, 34)}, 0.5)
    assert found == pytest.approx({"conv": 280 / 60 * 18 / 288, "linear": 280 / 60 * 42 / 272})
    assert erk_densities({"long": (4, 4, 5, 1), "wide": (4, 4, 1, 5)}, 0.5) == pytest.approx({"long": 0.5, "wide": 0.5})


@given(shapes=LAYERS, hundredths=st.integers(0, 99))
@settings(deadline=None)
def test_uniform_is_the_same_everywhere(shapes, hundredths):
    assert uniform_densities(shapes, hundredths / 100) == dict.fromkeys(shapes, pytest.approx(1 - hundredths / 100))
    whole = {name: math.prod(shape) * (100 - hundredths) // 100 for name, shape in shapes.items()}
    assert budgets(shapes, hundredths / 100, "uniform") == whole


def test_without_sparsity_all_layers_are_dense():
    shapes = {"first": (3, 7), "second": (5, 11, 3, 3), "third": (10, 13)}
    for distribution in ("erk", "uniform"):
        assert budgets(shapes, 0, distribution) == {"first": 21, "second": 495, "third": 130}


@given(whole=st.integers(0, 10**6), tenths=st.integers(0, 9))
def test_whole_parts(whole, tenths):
    assert whole_part(whole + tenths / 10) == whole
    assert whole_part(math.nextafter(whole, -math.inf)) == whole


def test_ten_of_a_hundred_weights_are_ten():
    assert int(100 * (1 - 0.9)) == 9
    assert whole_part(100 * (1 - 0.9)) == 10
    assert budgets({"layer": (10, 10)}, 0.9) == budgets({"layer": (10, 10)}, 0.9, "uniform") == {"layer": 10}
    assert whole_part(9.99) == 9


@pytest.mark.parametrize(
    "call",
    [
        lambda: erk_densities({}, 0.5),
        lambda: uniform_densities({}, 0.5),
        lambda: erk_densities({"a": (3,)}, 0.5),
        lambda: erk_densities({"a": (3, 0)}, 0.5),
        lambda: uniform_densities({"a": (3, 2.0)}, 0.5),
        lambda: erk_densities({"a": (3, 2)}, 1),
        lambda: erk_densities({"a": (3, 2)}, -0.1),
        lambda: erk_densities({"a": (3, 2)}, math.nan),
        lambda: uniform_densities({"a": (3, 2)}, "0.5"),
        lambda: uniform_densities({"a": (3, 2)}, True),
        lambda: budgets({"a": (3, 2)}, 0.5, "random"),
    ],
)
def test_arguments_that_cannot_be_used(call):
    with pytest.raises(InputError, match="got"):
        call()
