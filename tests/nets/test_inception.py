"""GoogLeNet gives auxiliary logits while it trains, and has the map sizes of its three geometries."""

import pytest
import torch
from torch import nn

from papertwin import nets
from papertwin.nets.counting import count
from papertwin.nets.inception import Logits

SMALL = {"classes": 6, "width": 0.125, "in_channels": 1, "side": 28, "geometry": "C", "seed": 0}


def on_meta(**options):
    with torch.device("meta"):
        return nets.googlenet(**options, seed=0)


def output(counts, name):
    (row,) = (row for row in counts.layers if row.name == name)
    return row.output


@pytest.mark.parametrize(
    ("geometry", "sides", "aux", "final"),
    [("A", (112, 56, 28, 14, 7), 4, 1), ("B", (112, 56, 28, 15, 8), 5, 2), ("C", (112, 57, 29, 15, 8), 5, 2)],
)
def test_maps_of_the_geometries(geometry, sides, aux, final):
    model = on_meta(geometry=geometry)
    counts = count(model, (3, 224, 224))
    names = ["conv1", "conv2", "inception3b.branch1.1x1", "inception4e.branch1.1x1", "inception5b.branch1.1x1"]
    assert tuple(output(counts, f"trunk.{name}")[-1] for name in names) == sides
    assert output(counts, "heads.inception4a.1x1") == (128, aux, aux)
    assert model.heads["inception4d"].fc1.in_features == aux * aux * 128
    assert model.trunk.classifier.in_features == final**2 * 1024


def test_maps_are_concatenated_in_the_order_of_the_table():
    with torch.device("meta"):
        widths = {name: layer.filters for name, layer in nets.googlenet(seed=0).trunk.named_children() if "inc" in name}
    assert list(widths.values()) == [256, 480, 512, 512, 512, 528, 832, 832, 1024]
    module = nets.googlenet(**SMALL).trunk.inception3a.eval()
    maps = torch.rand(1, 24, 4, 4)
    parts = [getattr(module, f"branch{kind}")(maps) for kind in ("1", "3", "5", "_pool")]
    torch.testing.assert_close(module(maps), torch.cat(parts, dim=1))


def test_train_mode_adds_the_heads_and_eval_mode_does_not():
    model = nets.googlenet(**SMALL)
    images = torch.rand(3, 1, 28, 28)
    logits = model(images)
    assert isinstance(logits, Logits)
    assert [each.shape for each in logits] == [(3, 6)] * 3
    alone = model.eval()(images)
    assert isinstance(alone, torch.Tensor)
    torch.testing.assert_close(alone, logits.main)
    assert not torch.allclose(logits.first, logits.second)
    bare = nets.googlenet(**SMALL, auxiliary=False)
    assert isinstance(bare(images), torch.Tensor)
    assert len(bare.heads) == 0


def test_the_heads_hang_on_4a_and_4d():
    model = nets.googlenet(**SMALL)
    seen = {}
    for name in ("inception4a", "inception4d"):
        model.trunk.get_submodule(name).register_forward_hook(lambda _m, _i, out, name=name: seen.update({name: out}))
    logits = model(torch.rand(2, 1, 28, 28))
    torch.testing.assert_close(model.heads["inception4a"](seen["inception4a"]), logits.first)
    torch.testing.assert_close(model.heads["inception4d"](seen["inception4d"]), logits.second)


def test_groups_halve_with_depth():
    model = on_meta(root=16)
    grouped = {name: m.groups for name, m in model.named_modules() if isinstance(m, nn.Conv2d) and m.groups > 1}
    due = {"trunk.conv2": 16}
    for module, groups in [
        *((f"3{x}", 8) for x in "ab"),
        *((f"4{x}", 4) for x in "abcde"),
        *((f"5{x}", 2) for x in "ab"),
    ]:
        due |= {f"trunk.inception{module}.branch{size}.{size}x{size}": groups for size in (3, 5)}
    assert grouped == due


def test_low_rank_layers_are_where_they_should_be():
    inner, outer = on_meta(geometry="C", low_rank="inception"), on_meta(geometry="C", low_rank="conv1")
    assert isinstance(inner.trunk.conv1, nn.Conv2d)
    assert isinstance(outer.trunk.conv1, nets.Composite)
    shapes = {name: (each.out_channels, each.kernel_size) for name, each in outer.trunk.conv1.sets.items()}
    assert shapes == {"7x1": (32, (7, 1)), "1x7": (32, (1, 7))}
    assert set(outer.trunk.conv2.sets) == {"3x1", "1x3"}
    assert set(inner.trunk.inception5b.branch5.get_submodule("5x5").sets) == {"5x1", "1x5"}


def test_normalisation_has_no_scale_and_shift():
    norms = [m for m in on_meta(norm=True).modules() if isinstance(m, nn.BatchNorm2d)]
    assert len(norms) == 3 + 9 * 6 + 2
    assert not any(norm.affine for norm in norms)


def test_counts_on_the_other_map_sizes():
    def macs(**options):
        return count(on_meta(**options), (3, 224, 224)).macs

    assert macs(geometry="C") == 1_760_715_304
    assert macs(geometry="A", low_rank="inception") == 1_075_046_696
    assert macs(geometry="A", low_rank="conv1") == 742_680_872
