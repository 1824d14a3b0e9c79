"""Every published network that can be rebuilt is known by its name, on any device, from any seed."""

import pytest
import torch

from papertwin.errors import InputError
from papertwin.nets import build, input_shape, published
from papertwin.nets.catalogue import CATALOGUE
from papertwin.nets.literature import PLOT_ONLY


def test_the_catalogue_holds_the_rows_that_can_be_rebuilt_and_no_others():
    table = published()
    rows = table[table["rebuilt_here"] != PLOT_ONLY]
    assert {(card, name) for card in CATALOGUE for name in CATALOGUE[card]} == set(zip(rows["card"], rows["network"]))
    assert len(rows) == 71


def test_networks_are_on_the_meta_device_unless_asked_for_elsewhere(device):
    planned = build("deep-roots", "NiN root-4")
    assert all(p.is_meta for p in planned.parameters())
    model = build("deep-roots", "NiN root-4", device=device, seed=3)
    assert {p.device.type for p in model.parameters()} == {torch.device(device).type}
    assert model.training
    again = build("deep-roots", "NiN root-4", device="cpu", seed=3)
    assert all(torch.equal(a.cpu(), b) for a, b in zip(model.parameters(), again.parameters(), strict=True))
    other = build("deep-roots", "NiN root-4", device="cpu")
    assert not torch.equal(other.conv1a.weight, again.conv1a.weight)
    assert model(torch.rand(2, *input_shape("deep-roots", "NiN root-4"), device=device)).shape == (2, 10)


def test_shapes_of_images():
    assert input_shape("low-rank-filters", "CIFAR NiN") == (3, 30, 30)
    assert input_shape("conditional-networks", "CIFAR NiN") == (3, 32, 32)
    assert input_shape("deep-roots", "AlexNet 2 groups") == (3, 227, 227)


@pytest.mark.parametrize(
    ("card", "network", "message"),
    [
        ("roots", "NiN Orig.", "No card 'roots': expected one of conditional-networks"),
        ("deep-roots", "NiN root4", "No network 'NiN root4' in deep-roots; the nearest are NiN root-4"),
        ("deep-roots", "?", "No network '\\?' in deep-roots; the nearest are NiN Orig."),
        ("low-rank-filters", "sota alexnet", "data of a plot.*same net as deep-roots AlexNet 2 groups"),
    ],
)
def test_unknown_networks(card, network, message):
    for function in (build, input_shape):
        with pytest.raises(InputError, match=message):
            function(card, network)
