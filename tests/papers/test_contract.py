"""What every paper of the repository owes: a ledger, typed parameters, data that exist, rules fixed in words."""

import dataclasses
import importlib

import pytest

from papertwin import ledger
from papertwin.data import registry
from papertwin.errors import ParameterError
from papertwin.run import typed

PAPERS = ledger.slugs()


@pytest.mark.parametrize("slug", PAPERS)
def test_profiles_fit_the_typed_parameters(slug):
    book = ledger.load(slug)
    params_type = importlib.import_module(f"papertwin.papers.{slug}").Params
    assert params_type.__dataclass_params__.frozen
    names = {field.name for field in dataclasses.fields(params_type)}
    assert {"profile", "device", "seed"} <= names
    for profile in book.profiles:
        values = book.parameters(profile)
        assert set(values) == names - {"profile", "device", "seed"}
        typed(slug, params_type, {**values, "profile": profile, "device": "auto", "seed": 0})


@pytest.mark.parametrize("slug", PAPERS)
def test_seeds_are_those_from_which_others_can_be_derived(slug):
    params_type = importlib.import_module(f"papertwin.papers.{slug}").Params
    params_type(seed=2**31 - 1)
    for seed in (-5, 2**31, 2**63):
        with pytest.raises(ParameterError, match=f"seed is {seed}; it must be from 0 to 2,147,483,647"):
            params_type(seed=seed)


@pytest.mark.parametrize("slug", PAPERS)
def test_three_profiles_and_the_quick_budget(slug):
    book = ledger.load(slug)
    assert set(book.profiles) == set(ledger.PROFILES)
    quick = book.profiles["quick"]
    assert quick.minutes <= 2
    assert quick.memory_gb <= 6
    assert quick.device == "cpu"


@pytest.mark.parametrize("slug", PAPERS)
def test_named_data_sets_are_registered_and_quick_needs_only_vendored_ones(slug):
    book = ledger.load(slug)
    for name, profile in book.profiles.items():
        for data_set in profile.data:
            kind = registry.describe(data_set).kind
            assert name != "quick" or kind == "vendored"


@pytest.mark.parametrize("slug", PAPERS)
def test_a_figure_of_other_images_does_not_say_that_it_is_of_quicks(slug):
    book = ledger.load(slug)
    params = typed(slug, importlib.import_module(f"papertwin.papers.{slug}").Params, {})
    stamps = [exhibit.stamped(params) for exhibit in book.exhibits]
    assert not [stamp for stamp in stamps if "{" in stamp]
    if not hasattr(params, "images"):
        return
    other = dataclasses.replace(params, dataset="cifar10", side=32)
    for exhibit, stamp in zip(book.exhibits, stamps):
        if params.images in stamp.replace("MNIST + Fashion-MNIST", ""):  # a set of our own, whatever the others
            assert exhibit.stamped(other) != stamp, exhibit.id


@pytest.mark.parametrize("slug", PAPERS)
def test_words_are_there(slug):
    book = ledger.load(slug)
    assert len(book.paper.idea) > 80
    for exhibit in book.exhibits:
        assert len(exhibit.caption) > 10
        assert exhibit.source
    for claim in book.claims:
        assert len(claim.rule.text) > 20
        assert claim.published
