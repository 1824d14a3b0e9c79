"""The vision transformer is torch's own encoder with our names, has the published size, and can be masked."""

import math

import pytest
import torch
from scipy import stats
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from papertwin.errors import InputError
from papertwin.nets import count, vit
from papertwin.nets.transformer import Block

TINY = {"side": 14, "patch": 7, "width": 24, "depth": 3, "heads": 4, "in_channels": 1}


def on_meta(*arguments, **options):
    with torch.device("meta"):
        return vit(*arguments, **options, seed=0)


def unlike(model):
    """Give every parameter values that are large and of which no two are alike."""
    torch.manual_seed(5)
    for name, parameter in model.named_parameters():
        nn.init.normal_(parameter, mean=1.0 if "norm" in name and name.endswith("weight") else 0.0, std=0.3)
    return model


def encoder_layer(block):
    """torch's layer with the weights of a block."""
    width = block.norm1.weight.numel()
    options = {"dropout": 0.0, "activation": "gelu", "layer_norm_eps": 1e-6, "batch_first": True}
    layer = nn.TransformerEncoderLayer(width, block.attention.heads.heads, 4 * width, norm_first=True, **options)
    own = {
        "self_attn.in_proj_": block.attention.qkv,
        "self_attn.out_proj.": block.attention.proj,
        **{"linear1.": block.mlp.fc1, "linear2.": block.mlp.fc2},
        **{"norm1.": block.norm1, "norm2.": block.norm2},
    }
    layer.load_state_dict({f"{name}{key}": p for name, m in own.items() for key, p in m.state_dict().items()})
    return layer


@pytest.mark.parametrize("training", [True, False])
def test_a_block_is_torchs_encoder_layer(training):
    block = unlike(Block(24, 4))
    layer = encoder_layer(block).train(training)
    tokens = torch.randn(3, 7, 24)
    assert {block.norm1.eps, block.norm2.eps, vit(**TINY, seed=0).norm.eps} == {1e-6}
    torch.testing.assert_close(block(tokens), layer(tokens), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("side", "patch", "channels"), [(14, 7, 1), (12, 4, 3), (3, 1, 2)])
def test_logits_by_torchs_encoder(side, patch, channels):
    options = {"side": side, "patch": patch, "in_channels": channels}
    model = unlike(vit(5, **TINY | options, seed=0)).eval()
    images = torch.randn(4, channels, side, side)
    pixels = nn.functional.unfold(images, patch, stride=patch).transpose(1, 2)  # (B, N, C·P·P)
    patches = nn.functional.linear(pixels, model.patches.weight.flatten(1), model.patches.bias)
    tokens = torch.cat([model.tokens.first.repeat(4, 1, 1), patches], dim=1) + model.tokens.positions
    for block in (model.block1, model.block2, model.block3):
        tokens = encoder_layer(block).eval()(tokens)
    torch.testing.assert_close(model(images), model.head(model.norm(tokens[:, 0])), rtol=1e-4, atol=1e-4)


def test_patches_are_told_apart_by_their_positions_alone():
    model = unlike(vit(5, **TINY, seed=0)).eval()
    images = torch.randn(2, 1, 14, 14)
    swapped = torch.cat([images[:, :, 7:], images[:, :, :7]], dim=2)
    assert (model(images) - model(swapped)).abs().max() > 1e-3
    nn.init.zeros_(model.tokens.positions)
    torch.testing.assert_close(model(images), model(swapped), rtol=1e-4, atol=1e-5)


# ---- what it costs ---------------------------------------------------------------------------------------------------


def test_the_published_size():
    model = on_meta()
    norms = 2 * 768 * 25
    assert sum(p.numel() for p in model.parameters()) == 86_567_656
    assert f"86,567,656 parameters by default, {norms:,} of layer" in vit.__doc__
    counts = count(model, (3, 224, 224))
    assert counts.params == 86_567_656 - norms
    assert round(counts.macs / 1e9, 2) == 17.56


@pytest.mark.parametrize(
    ("options", "millions"),
    [
        ({"width": 192, "heads": 3}, 5.7),
        ({"width": 384, "heads": 6}, 22.1),
        ({"width": 1024, "depth": 24, "heads": 16}, 304.3),
        ({"patch": 32}, 88.2),
    ],
)
def test_other_published_sizes(options, millions):
    assert round(sum(p.numel() for p in on_meta(**options).parameters()) / 1e6, 1) == millions


@pytest.mark.parametrize("options", [{}, TINY])
@pytest.mark.parametrize("batch", [1, 3])
def test_operations_are_those_of_torchs_counter(options, batch):
    model, shape = on_meta(10, **options), (options.get("in_channels", 3), *[options.get("side", 224)] * 2)
    with FlopCounterMode(display=False) as counter:
        model(torch.zeros(batch, *shape, device="meta"))
    layers = [m for m in model.modules() if isinstance(m, nn.Linear | nn.Conv2d)]
    biases = sum(layer.bias.numel() for layer in layers)
    assert 2 * batch * (count(model, shape).macs - biases) == counter.get_total_flops()


def test_rows_by_hand():
    rows = count(vit(3, **TINY | {"depth": 1}, seed=0), (1, 14, 14)).layers
    n, d = 5, 24
    assert [(row.name, row.kind, row.params, row.macs, row.output) for row in rows] == [
        ("patches", "conv", 49 * d + d, 4 * 49 * d + d, (d, 2, 2)),
        ("tokens", "tokens", d + n * d, 0, (n, d)),
        ("block1.attention.qkv", "fc", 3 * d * d + 3 * d, n * 3 * d * d + 3 * d, (n, 3 * d)),
        ("block1.attention.heads", "attention", 0, 2 * n * n * d, (n, d)),
        ("block1.attention.proj", "fc", d * d + d, n * d * d + d, (n, d)),
        ("block1.mlp.fc1", "fc", 4 * d * d + 4 * d, n * 4 * d * d + 4 * d, (n, 4 * d)),
        ("block1.mlp.fc2", "fc", 4 * d * d + d, n * 4 * d * d + d, (n, d)),
        ("head", "fc", 3 * d + 3, 3 * d + 3, (3,)),
    ]


def test_counting_leaves_the_model_as_it_was():
    model = vit(**TINY, seed=0)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    count(model, (1, 14, 14))
    assert all(torch.equal(before[key], value) for key, value in model.state_dict().items())
    assert not any(m._forward_hooks for m in model.modules())


# ---- weights ---------------------------------------------------------------------------------------------------------


def test_first_weights_are_cut_off_normal():
    model = vit(7, side=32, patch=8, width=96, depth=2, heads=4, seed=1)
    drawn = {}
    for name, parameter in model.named_parameters():
        values = parameter.detach().flatten().double()
        if "norm" in name or name.endswith("bias"):
            assert (values == float("norm" in name and name.endswith("weight"))).all()
        else:
            drawn[name] = values
    assert {"tokens.first", "tokens.positions", "patches.weight", "head.weight"} < set(drawn)
    for name, values in drawn.items():
        assert values.abs().max() <= 0.04 + 1e-7, name
        assert values.std().item() == pytest.approx(0.0175924, rel=5 / math.sqrt(2 * len(values))), name
    together = torch.cat(list(drawn.values()))[::7].numpy() / 0.02
    assert stats.kstest(together, stats.truncnorm(-2, 2).cdf).pvalue > 0.01
    assert len(set(together.tolist())) > 0.95 * len(together)


def test_linear_layers_can_be_masked():
    model = vit(**TINY, seed=0)
    names = [name for name, layer in model.named_modules() if type(layer) is nn.Linear]
    layers = ("attention.qkv", "attention.proj", "mlp.fc1", "mlp.fc2")
    assert names == [*(f"block{place}.{layer}" for place in (1, 2, 3) for layer in layers), "head"]
    assert all(model.get_submodule(name).bias is not None for name in names)
    images = torch.randn(3, 1, 14, 14)
    for name in names:
        layer = model.get_submodule(name)
        before, weights = model(images), layer.weight.detach().clone()
        with torch.no_grad():
            layer.weight.mul_(torch.arange(layer.weight.numel()).view_as(layer.weight) % 2)
        assert not torch.equal(model(images), before), name
        with torch.no_grad():
            layer.weight.copy_(weights)


def test_every_parameter_has_a_gradient():
    model = unlike(vit(7, **TINY, seed=0))
    nn.functional.cross_entropy(model(torch.randn(4, 1, 14, 14)), torch.arange(4)).backward()
    assert [name for name, p in model.named_parameters() if p.grad is None or not p.grad.any()] == []


def test_devices_agree(device):
    model = vit(**TINY, seed=3)
    with torch.device(device):
        there = vit(**TINY, seed=3)
    images = torch.randn(2, 1, 14, 14)
    assert all(each.device.type == torch.device(device).type for each in there.parameters())
    assert all(torch.equal(a, b.cpu()) for a, b in zip(model.parameters(), there.parameters(), strict=True))
    torch.testing.assert_close(there(images.to(device)).cpu(), model(images), rtol=1e-3, atol=1e-4)


# ---- arguments -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"patch": 15}, "patch must divide side, got patch 15 and side 224"),
        ({"heads": 5}, "heads must divide width, got heads 5 and width 768"),
        *[({name: 0}, f"{name} must be a whole number") for name in ("classes", "side", "patch", "width", "depth")],
        ({"heads": 1.0}, "heads must be a whole number"),
        ({"in_channels": True}, "in_channels must be a whole number"),
        ({"width": 0.5}, "width must be a whole number"),
    ],
)
def test_arguments_that_build_nothing(options, message):
    with pytest.raises(InputError, match=message):
        on_meta(**options)


def test_seeds_are_checked():
    with pytest.raises(InputError, match="seed must be"):
        vit(**TINY, seed=1.5)


@pytest.mark.parametrize("shape", [(2, 1, 15, 15), (2, 1, 14, 7), (2, 3, 14, 14), (1, 14, 14)])
def test_images_of_another_shape_are_refused(shape):
    with pytest.raises(InputError, match=r"images must be \(B, 1, 14, 14\), got .*learned for one number of patches"):
        vit(**TINY, seed=0)(torch.zeros(shape))
    with pytest.raises(InputError, match=r"images must be"):
        count(vit(**TINY, seed=0), (1, 15, 15))
