"""Residual networks for small images have the published sizes, and their names tell which channels are one stream."""

from functools import partial

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from papertwin.errors import InputError
from papertwin.nets import cifar_resnet, count, wide_resnet
from papertwin.nets.cifar_residual import BasicBlock, WideBlock

PADDED = partial(cifar_resnet, shortcut="padding")
SMALL = {
    "resnet-18": partial(cifar_resnet, 18, width=1 / 16),
    "resnet-20": partial(cifar_resnet, 20, width=0.25),
    "wide resnet-16": partial(wide_resnet, 16, width=0.25),
}


def on_meta(builder, *arguments, **options):
    with torch.device("meta"):
        return builder(*arguments, **options, seed=0)


def size(model):
    return sum(p.numel() for p in model.parameters())


@pytest.mark.parametrize(
    ("builder", "known"),
    [
        (partial(cifar_resnet, 18), 11_173_962),
        (partial(cifar_resnet, 18, 100), 11_220_132),
        (partial(cifar_resnet, 20), 272_474),
        (partial(PADDED, 20), 269_722),
        (partial(PADDED, 32), 464_154),
        (partial(PADDED, 44), 658_586),
        (partial(PADDED, 56), 853_018),
        (partial(cifar_resnet, 110), 1_730_714),
        (partial(wide_resnet, 16, 2), 691_674),
        (partial(wide_resnet, 40, 2), 2_243_546),
        (partial(wide_resnet, 28, 10), 36_479_194),
        (partial(wide_resnet, 28, 10, 100), 36_536_884),
    ],
)
def test_parameters_are_those_of_the_published_networks(builder, known):
    assert size(on_meta(builder)) == known


@pytest.mark.parametrize(
    ("depth", "widen", "millions"), [(40, 1, 0.6), (40, 4, 8.9), (16, 8, 11.0), (22, 8, 17.2), (16, 10, 17.1)]
)
def test_wide_networks_have_the_millions_of_their_paper(depth, widen, millions):
    assert round(size(on_meta(wide_resnet, depth, widen)) / 1e6, 1) == millions


@pytest.mark.parametrize(("depth", "millions"), [(110, 1.7), (1202, 19.4)])
def test_deep_networks_have_the_millions_of_their_paper(depth, millions):
    assert round(size(on_meta(PADDED, depth)) / 1e6, 1) == millions


def test_the_default_wide_network_by_hand():
    weights = 9 * (3 * 16 + 16 * 32 + 5 * 32**2 + 32 * 64 + 5 * 64**2 + 64 * 128 + 5 * 128**2)
    weights += 16 * 32 + 32 * 64 + 64 * 128 + 128 * 10 + 10
    norms = 2 * (16 + 5 * 32 + 32 + 5 * 64 + 64 + 5 * 128 + 128)
    model = on_meta(wide_resnet)
    assert (size(model), count(model, (3, 32, 32)).params) == (weights + norms, weights)
    assert f"{weights + norms:,} parameters by default, {norms:,}" in wide_resnet.__doc__


@pytest.mark.parametrize(
    ("builder", "macs"),
    [(partial(cifar_resnet, 18), 555_422_730), (partial(PADDED, 20), 40_551_050), (wide_resnet, 157_730_058)],
)
def test_operations_are_those_of_torchs_counter(builder, macs):
    model = on_meta(builder)
    with FlopCounterMode(display=False) as counter:
        model(torch.zeros(2, 3, 32, 32, device="meta"))
    assert count(model, (3, 32, 32)).macs == macs == counter.get_total_flops() // 4 + 10  # + biases of fc


def test_normalisation_is_all_that_is_not_counted():
    for builder, depth, norms in ((cifar_resnet, 18, 9600), (cifar_resnet, 20, 1568), (PADDED, 20, 1376)):
        model = on_meta(builder, depth)
        assert size(model) - count(model, (3, 32, 32)).params == norms
        assert f"{norms:,}" in cifar_resnet.__doc__


@pytest.mark.parametrize("side", [32, 14])
@pytest.mark.parametrize("name", SMALL)
def test_maps_shrink_from_stage_two_on(name, side):
    model = on_meta(SMALL[name], in_channels=1)
    rows = {row.name: row.output for row in count(model, (1, side, side)).layers}
    halved = {32: [32, 16, 8, 4], 14: [14, 7, 4, 2]}[side]
    found = [rows[f"stage{stage}_block2.conv2"] for stage in (1, 2, 3, 4) if f"stage{stage}_block2.conv2" in rows]
    assert [output[1:] for output in found] == [(pixels, pixels) for pixels in halved[: len(found)]]
    assert [output[0] / found[0][0] for output in found] == [1, 2, 4, 8][: len(found)]
    assert len(found) == (4 if name == "resnet-18" else 3)


@pytest.mark.parametrize(("builder", "depth"), [(cifar_resnet, 8), (cifar_resnet, 18), (PADDED, 56), (wide_resnet, 22)])
def test_depth_counts_layers_with_weights_without_projections(builder, depth):
    layers = [name for name, m in on_meta(builder, depth).named_modules() if isinstance(m, nn.Conv2d | nn.Linear)]
    projections = [name for name in layers if "projection" in name]
    assert len(layers) - len(projections) == (depth if builder is not wide_resnet else depth - 2)
    expected = {cifar_resnet: range(2, 5 if depth == 18 else 4), PADDED: (), wide_resnet: range(1, 4)}[builder]
    assert projections == [f"stage{stage}_block1.projection" for stage in expected]


@pytest.mark.parametrize("builder", [partial(cifar_resnet, 8), partial(PADDED, 8), partial(wide_resnet, 10, 1)])
def test_a_network_of_one_channel_still_halves_its_maps(builder):
    model = builder(classes=2, width=1 / 64, seed=0)
    assert count(model, (3, 14, 14)).layers[-2].output[0] == 1
    assert model(torch.randn(2, 3, 14, 14)).shape == (2, 2)


@pytest.mark.parametrize(("widen", "width", "filters"), [(1, 1.0, 16), (3, 1.0, 48), (2, 0.25, 8), (1, 2.0, 32)])
def test_width_scales_the_stem_and_widen_does_not(widen, width, filters):
    model = on_meta(wide_resnet, 10, widen, width=width)
    assert model.conv1.out_channels == 16 * width
    assert [getattr(model, f"stage{s}_block1").conv1.out_channels for s in (1, 2, 3)] == [
        filters * k for k in (1, 2, 4)
    ]
    assert on_meta(cifar_resnet, 8, width=width).conv1.out_channels == 16 * width


def test_names():
    assert [row.name for row in count(on_meta(cifar_resnet, 8), (3, 32, 32)).layers] == [
        *("conv1", "stage1_block1.conv1", "stage1_block1.conv2"),
        *("stage2_block1.conv1", "stage2_block1.conv2", "stage2_block1.projection"),
        *("stage3_block1.conv1", "stage3_block1.conv2", "stage3_block1.projection", "fc"),
    ]
    assert [n for n, m in on_meta(cifar_resnet, 18).named_modules() if getattr(m, "bias", None) is not None] == [
        *(name for name, m in on_meta(cifar_resnet, 18).named_modules() if isinstance(m, nn.BatchNorm2d)),
        "fc",
    ]


# ---- what they compute -----------------------------------------------------------------------------------------------


def unlike(model):
    """Give normalisation statistics, scales and shifts of which no two are alike, and evaluate."""
    torch.manual_seed(5)
    for layer in model.modules():
        if isinstance(layer, nn.BatchNorm2d):
            for values in (layer.weight, layer.running_var):
                nn.init.uniform_(values, 0.5, 1.5)
            for values in (layer.bias, layer.running_mean):
                nn.init.normal_(values, std=0.3)
    return model.eval()


def by_formula(model, images, *, pre):
    """The logits, from weights by name and torch's functions."""
    state = model.state_dict()

    def conv(maps, name, stride=1):
        weight = state[f"{name}.weight"]
        return F.conv2d(maps, weight, stride=stride, padding=weight.shape[-1] // 2)

    def norm(maps, name):
        mean, var, scale, shift = (state[f"{name}.{key}"] for key in ("running_mean", "running_var", "weight", "bias"))
        return F.batch_norm(maps, mean, var, scale, shift)

    maps = conv(images, "conv1")
    maps = maps if pre else F.relu(norm(maps, "conv1_norm"))
    for name in [name for name, _ in model.named_children() if name.startswith("stage")]:
        stride = 2 if "block1" in name and "stage1" not in name else 1
        projected = f"{name}.projection.weight" in state
        if pre:
            active = F.relu(norm(maps, f"{name}.norm1"))
            new = F.relu(norm(conv(active, f"{name}.conv1", stride), f"{name}.norm2"))
            old = conv(active, f"{name}.projection", stride) if projected else maps
            maps = conv(new, f"{name}.conv2") + old
        else:
            new = F.relu(norm(conv(maps, f"{name}.conv1", stride), f"{name}.norm1"))
            new = norm(conv(new, f"{name}.conv2"), f"{name}.norm2")
            old = maps
            if projected:
                old = norm(conv(maps, f"{name}.projection", stride), f"{name}.projection_norm")
            maps = F.relu(new + old)
    maps = F.relu(norm(maps, "norm")) if pre else maps
    return F.linear(maps.mean((2, 3)), state["fc.weight"], state["fc.bias"])


@pytest.mark.parametrize("name", SMALL)
def test_logits_by_formula(name):
    model = unlike(SMALL[name](7, in_channels=1, seed=3) if "wide" not in name else SMALL[name](classes=7, seed=3))
    images = torch.randn(3, model.conv1.in_channels, 14, 14)
    torch.testing.assert_close(model(images), by_formula(model, images, pre="wide" in name))


def test_padding_leaves_out_pixels_and_appends_zeros():
    block = BasicBlock(2, 5, stride=2, shortcut="padding").eval()
    nn.init.zeros_(block.conv2.weight)
    maps = torch.rand(3, 2, 5, 5)
    out = block(maps)
    assert out.shape == (3, 5, 3, 3)
    torch.testing.assert_close(out[:, :2], maps[:, :, [0, 2, 4]][..., [0, 2, 4]])
    assert not out[:, 2:].any()
    assert {name.split(".")[0] for name, _ in block.named_parameters()} == {"conv1", "norm1", "conv2", "norm2"}


def test_a_block_adds_its_input():
    after, before = BasicBlock(4, 4).eval(), WideBlock(4, 4).eval()
    for block in (after, before):
        nn.init.zeros_(block.conv2.weight)
        assert block.projection is None
    maps = torch.randn(2, 4, 5, 5)
    torch.testing.assert_close(after(maps), maps.relu())
    torch.testing.assert_close(before(maps), maps)


# ---- the streams -----------------------------------------------------------------------------------------------------


def streams(model):
    """Layers that write and that read each residual stream, by the rule at the head of the module."""
    found = [(["conv1"], [])]
    for name in [name for name, _ in model.named_children() if name.startswith("stage")]:
        found[-1][1].append(f"{name}.conv1")
        if getattr(model, name).projection is not None:
            found[-1][1].append(f"{name}.projection")
            found.append(([f"{name}.projection"], []))
        found[-1][0].append(f"{name}.conv2")
    found[-1][1].append("fc")
    return found


def norms_of(model, writers, readers):
    """Normalisation of a stream: behind its writers, or before its readers in a pre-activation network."""
    if isinstance(model.get_submodule("stage1_block1"), WideBlock):
        return {"norm" if name == "fc" else f"{name.split('.')[0]}.norm1" for name in readers}
    behind = {"conv1": "conv1_norm"}
    return {behind.get(n) or n.replace("conv2", "norm2").replace("projection", "projection_norm") for n in writers}


def renumber(model, order, outputs, norms, inputs):
    with torch.no_grad():
        for name in outputs:
            model.get_submodule(name).weight.copy_(model.get_submodule(name).weight[order])
        for name in norms:
            layer = model.get_submodule(name)
            for values in (layer.weight, layer.bias, layer.running_mean, layer.running_var):
                values.copy_(values[order])
        for name in inputs:
            model.get_submodule(name).weight.copy_(model.get_submodule(name).weight[:, order])


@pytest.mark.parametrize("name", SMALL)
def test_renumbering_the_channels_of_a_stream_changes_nothing(name):
    model = unlike(SMALL[name](seed=4))
    images = torch.randn(3, 3, 14, 14)
    logits, found = model(images), streams(model)
    stem = 1 if "wide" in name else 0  # the stem of a wide network is a stream of its own
    assert len(found) == (4 if name == "resnet-18" else 3 + stem)
    for writers, readers in found:
        norms = norms_of(model, writers, readers)
        order = torch.randperm(len(model.get_submodule(writers[0]).weight)).roll(1)
        renumber(model, order, writers, norms, [])
        assert (model(images) - logits).abs().max() > 1e-3
        renumber(model, order, [], [], readers)
        torch.testing.assert_close(model(images), logits, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", SMALL)
def test_renumbering_the_channels_within_a_block_changes_nothing(name):
    model = unlike(SMALL[name](seed=4))
    images = torch.randn(3, 3, 14, 14)
    logits = model(images)
    for block in [name for name, _ in model.named_children() if name.startswith("stage")]:
        order = torch.randperm(len(getattr(model, block).conv1.weight))
        inner = "norm2" if "wide" in name else "norm1"
        renumber(model, order, [f"{block}.conv1"], [f"{block}.{inner}"], [f"{block}.conv2"])
    torch.testing.assert_close(model(images), logits, rtol=1e-4, atol=1e-5)


# ---- arguments -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("build", "message"),
    [
        *[
            (partial(cifar_resnet, depth), "depth must be 18, or 6n . 2 from 8 on, got")
            for depth in (0, 2, 16, 22, 20.0, "20", True)
        ],
        *[(partial(wide_resnet, depth), "depth must be 6n . 4 from 10 on, got") for depth in (4, 18, 20, 22.0, None)],
        (partial(cifar_resnet, 20, shortcut="none"), "shortcut must be one of projection, padding, got 'none'"),
        (partial(cifar_resnet, 20, 0), "classes must be"),
        (partial(cifar_resnet, 20, width=0), "width must be"),
        (partial(cifar_resnet, 20, in_channels=0), "channels must be"),
        (partial(wide_resnet, 10, 0), "widen must be"),
        (partial(wide_resnet, 10, 2, 0), "classes must be"),
        (partial(wide_resnet, 10, width=-1), "width must be"),
    ],
)
def test_arguments_that_build_nothing(build, message):
    with pytest.raises(InputError, match=message), torch.device("meta"):
        build(seed=0)


@pytest.mark.parametrize("builder", [partial(cifar_resnet, 8), wide_resnet])
def test_seeds_are_checked(builder):
    with pytest.raises(InputError, match="seed must be"):
        builder(seed=-1)
