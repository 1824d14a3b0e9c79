"""The published numbers are whole, are those of the papers' abstracts, and cannot be spoilt by a caller."""

import pytest

from papertwin.errors import InputError
from papertwin.nets import published


def test_rows():
    table = published()
    assert len(table) == 80
    assert table["card"].value_counts().to_dict() == {
        "low-rank-filters": 34,
        "deep-roots": 35,
        "conditional-networks": 11,
    }
    assert len(published("deep-roots")) == 35
    assert set(published("deep-roots")["card"]) == {"deep-roots"}
    for column in ("published_macs", "published_params"):
        assert table[column].dtype == "int64"
        assert (table[column] > 0).all()
    for column in ("top1_acc", "top5_acc", "accuracy"):
        assert table[column].dropna().between(0.5, 1).all()


def row(card, network):
    table = published(card)
    return table[table["network"] == network].iloc[0]


def test_numbers_of_the_abstracts():
    root, plain = row("deep-roots", "ResNet-50 root-64"), row("deep-roots", "ResNet-50 Orig.")
    assert root["published_params"] / plain["published_params"] == pytest.approx(0.60, abs=0.005)
    assert root["published_macs"] / plain["published_macs"] == pytest.approx(0.55, abs=0.005)
    low, vgg = row("low-rank-filters", "gmp-lr-2x"), row("low-rank-filters", "vgg-11")
    assert low["published_macs"] / vgg["published_macs"] == pytest.approx(0.41, abs=0.005)
    conditional = row("conditional-networks", "Cond. Network stride1")
    assert conditional["published_macs"] / vgg["published_macs"] == pytest.approx(0.455, abs=0.005)


def test_single_views_are_read_from_the_recipe():
    table = published("low-rank-filters").dropna(subset="single_view_macs")
    assert len(table) == 11
    assert row("low-rank-filters", "sota-aug VGG-E")["single_view_macs"] == 19_632_077_160
    assert published("deep-roots")["single_view_macs"].isna().all()


def test_a_caller_has_a_copy():
    table = published()
    table.loc[0, "network"] = "mine"
    assert published().loc[0, "network"] == "NiN Orig."


def test_unknown_cards():
    with pytest.raises(InputError, match="No card 'deep_roots': expected one of deep-roots"):
        published("deep_roots")
