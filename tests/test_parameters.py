"""Parameters are read strictly: what papermill would swallow is an error here, before anything runs."""

import math
from dataclasses import dataclass, field
from typing import Literal

import nbformat
import pytest
from hypothesis import given
from hypothesis import strategies as st

from papertwin import ledger
from papertwin.errors import LedgerError, ParameterError, RunError
from papertwin.parameters import (
    Parameter,
    of_dataclass,
    parse_cell,
    parse_overrides,
    read_parameters,
    resolve,
    resolve_namespace,
    typed,
)
from papertwin.results import address

CELL = """\
n: int = 3  # how many
rate: float = 0.1  # learning rate [1/s]
wide: bool = False  # use the wide one
name: str = "street"  # which scene
radii: list[float] = [0.4, 4.0]  # radii [m]

mode: 'Literal["a", "b"]' = "a"  # which way
profile: str = "quick"  # size
device: str = "auto"  # where
seed: int = 0  # seed
"""


@pytest.fixture(scope="module")
def parameters():
    return parse_cell(CELL, "toy.ipynb")


@pytest.fixture(scope="module")
def book(toy_ledger):
    return ledger.parse(toy_ledger, "toy.toml")


def test_the_cell_is_read_line_by_line(parameters):
    assert parameters[0] == Parameter("n", "int", 3, "how many")
    assert parameters[1].help == "learning rate [1/s]"
    assert parameters[5].annotation == 'Literal["a", "b"]'
    assert [p.name for p in parameters] == ["n", "rate", "wide", "name", "radii", "mode", "profile", "device", "seed"]


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("n = 3  # how many", "annotated"),
        ("n: int  # how many", "annotated"),
        ("import os", "annotated"),
        ("# a heading", "annotated"),
        ("n: int = 3", "comment"),
        ("n: int = 3  # n = how many", "2 `=` signs"),
        ('name: str = "a=b"  # text', "2 `=` signs"),
        ("n: int = 3; m: int = 4  # two", "2 `=` signs"),
        ("n: int = 1 + 1  # sum", "not a literal"),
        ("n: float = True  # flag", "got True"),
        ('rate: float = "1e-3"  # text', "got '1e-3'"),
        ("n: dict = {}  # table", "not one of"),
        ("n: list = []  # bare", "not one of"),
        ("n: list[dict] = []  # tables", "not one of"),
        ('n: Literal["a"] = "a"  # unquoted', "in quotes"),
        ("n: int = [  # open", "not Python"),
        ("n: list[int] = [1,  # one\n 2]  # two", "several lines"),
        ("n: int = 1  # one\nn: int = 2  # two", "set twice"),
    ],
)
def test_a_careless_line_is_refused_and_quoted(line, reason):
    with pytest.raises(ParameterError, match=reason) as caught:
        parse_cell(line, "toy.ipynb")
    assert "toy.ipynb" in str(caught.value)


def write(path, *cells):
    nbformat.write(nbformat.v4.new_notebook(cells=list(cells)), path)
    return path


def tagged(source, *tags):
    return nbformat.v4.new_code_cell(source, metadata={"tags": list(tags)})


def test_exactly_one_tagged_cell(tmp_path, parameters):
    good = write(tmp_path / "good.ipynb", tagged("print(1)"), tagged(CELL, "parameters"))
    assert read_parameters(good) == parameters
    twice = [tagged(CELL, "parameters"), tagged(CELL, "parameters")]
    for number, cells in ((0, [tagged(CELL)]), (2, twice)):
        with pytest.raises(ParameterError, match=f"has {number} code cells"):
            read_parameters(write(tmp_path / "bad.ipynb", *cells))


def test_no_notebook_and_no_json(tmp_path):
    with pytest.raises(RunError, match="No notebook at"):
        read_parameters(tmp_path / "absent.ipynb")
    broken = tmp_path / "broken.ipynb"
    for text in ("", "{", "[]", '{"cells": [{}]}', '{"cells": 3}'):
        broken.write_text(text)
        with pytest.raises(RunError, match="not a Jupyter notebook"):
            read_parameters(broken)


@pytest.mark.parametrize(
    ("assignment", "value"),
    [
        ("n=7", 7),
        ("n = -7", -7),
        ("rate=1e-3", 0.001),
        ("rate=2", 2.0),
        ("wide=true", True),
        ("wide=False", False),
        ("name=1e-3", "1e-3"),
        ("name=a=b", "a=b"),
        ("name=", ""),
        ("radii=[1, 2.5]", [1.0, 2.5]),
        ("radii=[]", []),
        ("mode=b", "b"),
    ],
)
def test_texts_become_typed_values(parameters, assignment, value):
    found = parse_overrides([assignment], parameters)[assignment.partition("=")[0].strip()]
    assert found == value
    assert type(found) is type(value)


@pytest.mark.parametrize(
    ("assignment", "reason"),
    [
        ("n=1.5", "expected int"),
        ("n=true", "expected int"),
        ("n=", "expected int"),
        ("rate=fast", "expected float"),
        ("rate=nan", "expected float"),
        ("rate=1e999", "expected float"),
        ("wide=1", "expected bool"),
        ("wide=yes", "expected bool"),
        ("radii=0.4", r"expected list\[float\]"),
        ('radii=["a"]', r"expected list\[float\]"),
        ("radii=__import__('os')", r"expected list\[float\]"),
        ("mode=c", "expected Literal"),
        ("radius=1", "Did you mean 'radii'"),
        ("nothing=1", "unknown parameter 'nothing'"),
        ("n", "no `=`"),
        ("profile=full", "--profile full"),
        ("device=cpu", "--device cpu"),
    ],
)
def test_a_wrong_override_is_refused(parameters, assignment, reason):
    with pytest.raises(ParameterError, match=reason):
        parse_overrides([assignment], parameters)


def test_a_parameter_given_twice_is_refused(parameters):
    with pytest.raises(ParameterError, match="twice"):
        parse_overrides(["n=1", "n=2"], parameters)


@given(st.lists(st.floats(allow_nan=False, allow_infinity=False)))
def test_any_list_of_numbers_survives_the_command_line(values):
    radii = parse_cell(CELL, "toy.ipynb")[4]
    assert radii.parse(repr(values)) == values


def test_defaults_profile_and_overrides_are_merged(book, parameters):
    values, overrides = resolve(book, "quick", {}, parameters)
    assert (values["n"], values["profile"], overrides) == (3, "quick", {})
    values, overrides = resolve(book, "full", {"rate": 0.2}, parameters)
    assert (values["n"], values["rate"], values["seed"], values["profile"]) == (30, 0.2, 0, "full")
    assert overrides == {"rate": 0.2}


def test_an_override_that_changes_nothing_is_none(book, parameters):
    assert resolve(book, "quick", {"n": 3}, parameters).overrides == {}
    assert resolve(book, "full", {"n": 30}, parameters).overrides == {}


def test_an_override_that_the_notebook_cannot_see_is_refused(book, parameters):
    with pytest.raises(ParameterError, match="quick's own value"):
        resolve(book, "full", {"n": 3}, parameters)


@pytest.mark.parametrize(("overrides", "reason"), [({"m": 1}, "unknown"), ({"n": "3"}, "expected int")])
def test_overrides_are_checked_again(book, parameters, overrides, reason):
    with pytest.raises(ParameterError, match=reason):
        resolve(book, "quick", overrides, parameters)


@pytest.mark.parametrize(
    ("before", "after", "reason"),
    [
        ("n = 3\n", "n = 4\n", "make them equal"),
        ("n = 3\n", 'n = "3"\n', "expected int"),
        ("n = 3\nrate", "n = 3\nmissing = 1\nrate", "does not declare"),
    ],
)
def test_a_ledger_that_disagrees_with_the_notebook_is_refused(toy_ledger, parameters, before, after, reason):
    with pytest.raises(LedgerError, match=reason):
        resolve(ledger.parse(toy_ledger.replace(before, after), "toy.toml"), "quick", {}, parameters)


def test_an_unknown_profile_is_refused(book, parameters):
    with pytest.raises(LedgerError, match="no profile 'paper'"):
        resolve(book, "paper", {}, parameters)


@dataclass(frozen=True)
class Params:
    """The parameters cell above, as a paper's module has it."""

    n: int = 3
    rate: float = 0.1
    wide: bool = False
    name: str = "street"
    radii: list[float] = field(default_factory=lambda: [0.4, 4.0])
    mode: Literal["a", "b"] = "a"
    profile: str = "quick"
    device: str = "auto"
    seed: int = 0


def test_a_dataclass_is_read_as_the_cell_is(parameters):
    found = of_dataclass(Params)
    assert [(p.name, p.annotation, p.default) for p in found] == [(p.name, p.annotation, p.default) for p in parameters]


@pytest.mark.parametrize("kind", [dict, float | None, list[dict], tuple[int, int]])
def test_a_field_that_no_cell_can_declare_is_refused(kind):
    with pytest.raises(ParameterError, match="cannot be written"):
        of_dataclass(dataclass(type("Odd", (), {"__annotations__": {"x": kind}, "x": None})))


@pytest.mark.parametrize("profile", ["quick", "full"])
@pytest.mark.parametrize(
    "changed",
    [{}, {"n": 7}, {"n": 30}, {"rate": 1}, {"radii": [1, 2]}, {"seed": 3, "mode": "b"}, {"rate": 0.1, "wide": True}],
)
def test_command_line_and_notebook_resolve_alike(book, parameters, profile, changed):
    asked = resolve(book, profile, changed, parameters)
    started = resolve_namespace(book, Params, {**vars(Params()), **changed, "profile": profile, "other": object()})
    assert started == asked
    assert all(type(started.values[name]) is type(value) for name, value in asked.values.items())
    assert address("toy", profile, started.overrides) == address("toy", profile, asked.overrides)


def test_the_checked_value_is_kept(book):
    one, other = (resolve_namespace(book, Params, {**vars(Params()), "rate": rate}) for rate in (1, 1.0))
    assert type(one.values["rate"]) is type(one.overrides["rate"]) is float
    assert address("toy", "quick", one.overrides) == address("toy", "quick", other.overrides)
    assert typed("toy", Params, {"radii": [1, 2]}).radii == [1.0, 2.0]
    assert type(typed("toy", Params, {"rate": 1}).rate) is float


@pytest.mark.parametrize("value", [math.nan, math.inf, "0.4", True, None])
def test_both_ways_refuse_what_is_no_number(book, parameters, value):
    with pytest.raises(ParameterError, match="rate got"):
        resolve(book, "quick", {"rate": value}, parameters)
    with pytest.raises(ParameterError, match="rate got"):
        resolve_namespace(book, Params, {**vars(Params()), "rate": value})


def test_every_wrong_and_every_missing_parameter_is_named(book):
    with pytest.raises(ParameterError, match=r"(?s)n got 'x'.*wide got 1"):
        resolve_namespace(book, Params, {**vars(Params()), "n": "x", "wide": 1})
    with pytest.raises(ParameterError, match="does not define n, rate"):
        resolve_namespace(book, Params, {name: v for name, v in vars(Params()).items() if name not in ("n", "rate")})


def test_the_profile_of_a_notebook_must_be_a_profile(book):
    with pytest.raises(LedgerError, match="no profile 'tiny'"):
        resolve_namespace(book, Params, {**vars(Params()), "profile": "tiny"})
    with pytest.raises(ParameterError, match="profile got"):
        resolve_namespace(book, Params, {**vars(Params()), "profile": ["quick"]})


def test_what_a_paper_refuses_names_the_paper():
    @dataclass(frozen=True)
    class Picky:
        n: int = 3

        def __post_init__(self):
            if self.n < 2:
                raise ParameterError(f"n is {self.n}; it must be at least 2.")

    assert typed("toy", Picky, {"n": 2}).n == 2
    with pytest.raises(ParameterError, match=r"^toy: n is 1; it must be at least 2\.$"):
        typed("toy", Picky, {"n": 1})


def test_the_device_is_passed_on_and_is_no_override(book):
    found = resolve_namespace(book, Params, {**vars(Params()), "device": "cpu"})
    assert (found.values["device"], found.overrides) == ("cpu", {})
