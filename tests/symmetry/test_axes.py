"""Descriptions name every axis that channels share, and networks that cannot be described are refused."""

import pytest
import torch
from torch import nn

from papertwin.errors import InputError
from papertwin.nets import cifar_resnet, lenet, resnet50, resnet200, vgg, wide_resnet
from papertwin.nets.residual import Bottleneck
from papertwin.sparse import prunable_layers
from papertwin.symmetry import (
    Axis,
    Permutable,
    activation_matching,
    agreement,
    check_same_function,
    inverse,
    permutables,
    permuted,
    random_permutations,
    weight_matching,
)


def names(permutable):
    return {(axis.tensor, axis.dim) for axis in permutable.axes}


def given(layer):
    return {(f"{layer}.weight", 0)}


def read(layer):
    return {(f"{layer}.weight", 1)}


def normed(norm):
    return {(f"{norm}.{part}", 0) for part in ("weight", "bias", "running_mean", "running_var")}


def test_streams_and_blocks_of_a_residual_network():
    found = {each.name: each for each in permutables(cifar_resnet(14, width=0.5, seed=0))}
    inner = [f"stage{stage}_block{block}.conv1" for stage in (1, 2, 3) for block in (1, 2)]
    streams = ["conv1", "stage2_block1.projection", "stage3_block1.projection"]
    assert set(found) == {*inner, *streams}
    for name in inner:
        block = name.removesuffix(".conv1")
        assert names(found[name]) == given(name) | normed(f"{block}.norm1") | read(f"{block}.conv2")
        assert (found[name].activation, found[name].relu) == (f"{block}.norm1", True)
    for stage, name in enumerate(streams, start=1):
        blocks = [f"stage{stage}_block{block}" for block in (1, 2)]
        wanted = given(name) | normed("conv1_norm" if stage == 1 else f"{blocks[0]}.projection_norm")
        for block in blocks:
            wanted |= given(f"{block}.conv2") | normed(f"{block}.norm2")
            wanted |= read(f"{block}.conv1") if stage == 1 or block != blocks[0] else set()
        following = f"stage{stage + 1}_block1"
        wanted |= read(f"{following}.conv1") | read(f"{following}.projection") if stage < 3 else read("fc")
        assert names(found[name]) == wanted
        assert (found[name].activation, found[name].relu) == (blocks[1], False)
        assert found[name].size == 8 * 2 ** (stage - 1)


def test_what_lies_inside_a_stage_comes_before_its_stream():
    order = [each.name for each in permutables(cifar_resnet(8, width=0.5, seed=0))]
    assert order.index("stage1_block1.conv1") < order.index("conv1") < order.index("stage2_block1.conv1")
    assert order[-1] == "stage3_block1.projection"


BLOCKS = (3, 4, 6, 3)  # of ResNet-50's stages


def tiny_bottlenecks(seed=0):
    """The layers of `resnet50` with two blocks a stage, of two stages, for small images."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        layers = dict(resnet50(5, width=1 / 16, seed=seed).named_children())
        kept = ("conv1", "pool", "mean", "flat")
        blocks = [f"stage{stage}_block{block}" for stage in (1, 2) for block in (1, 2)]
        named = [(name, layer) for name, layer in layers.items() if name.startswith(kept) or name in blocks]
        model = nn.Sequential()
        for name, layer in [*named, ("fc", nn.Linear(32, 5))]:
            model.add_module(name, layer)
    return unsettled(model, seed)


def vgg11(seed=0):
    """As the paper has it, without batch normalisation; narrow."""
    return unsettled(vgg(5, width=1 / 8, side=32, hidden=64, norm=False, seed=seed), seed)


def unsettled(model, seed):
    """Give a network biases, gains and running statistics that are nontrivial, and put it into evaluation mode."""
    generator = torch.Generator().manual_seed(seed)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            for values, low in ((module.weight, 0.5), (module.bias, -0.3), (module.running_mean, -0.2)):
                values.data.copy_(low + torch.rand(values.shape, generator=generator))
            module.running_var.copy_(0.5 + torch.rand(module.running_var.shape, generator=generator))
        elif getattr(module, "bias", None) is not None:
            module.bias.data.copy_(0.2 * torch.randn(module.bias.shape, generator=generator))
    return model.eval()


def normal(*shape, seed=7):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def test_streams_and_blocks_of_bottlenecks():
    """On the meta device: 32 inner permutations, and five streams, one of them the stem's."""
    with torch.device("meta"):
        model = resnet50(seed=0)
    found = {each.name: each for each in permutables(model)}
    blocks = [f"stage{stage}_block{block + 1}" for stage, count in enumerate(BLOCKS, 1) for block in range(count)]
    firsts = [f"stage{stage}_block1" for stage in (1, 2, 3, 4)]
    streams = ["conv1", *(f"{first}.projection" for first in firsts)]
    assert set(found) == {*streams, *(f"{block}.conv{place}" for block in blocks for place in (1, 2))}
    for block in blocks:
        for place in (1, 2):
            each, conv = found[f"{block}.conv{place}"], f"{block}.conv{place}"
            assert names(each) == given(conv) | normed(f"{block}.norm{place}") | read(f"{block}.conv{place + 1}")
            assert (each.activation, each.relu) == (f"{block}.norm{place}", True)
            assert each.size == 64 * 2 ** (int(block[5]) - 1)
    for stage, stream in enumerate(streams):
        own = [block for block in blocks if block.startswith(f"stage{stage}_")]
        following = f"stage{stage + 1}_block1"
        wanted = given(stream) | normed(f"{stream}_norm")
        wanted |= {("conv1.bias", 0)} if stage == 0 else set()
        for block in own:
            wanted |= given(f"{block}.conv3") | normed(f"{block}.norm3")
            wanted |= read(f"{block}.conv1") if block != own[0] else set()
        wanted |= read(f"{following}.conv1") | read(f"{following}.projection") if stage < 4 else read("fc")
        assert names(found[stream]) == wanted
        assert (found[stream].activation, found[stream].relu) == (own[-1] if own else "conv1_relu", False)
        assert found[stream].size == (64 if stage == 0 else 256 * 2 ** (stage - 1))


def test_every_weight_of_resnet50_has_all_its_axes():
    """Of layers that can be pruned, projections and norms: all axes but those of images and classes."""
    with torch.device("meta"):
        model = resnet50(seed=0)
    axes = {}
    for axis in (axis for each in permutables(model) for axis in each.axes):
        axes.setdefault(axis.tensor, set()).add(axis.dim)
    prunable = prunable_layers(model, shortcuts=())
    assert len(prunable) == 1 + 16 * 3 + 4 + 1
    for name in prunable:
        assert axes[f"{name}.weight"] == {"conv1": {0}, "fc": {1}}.get(name, {0, 1})
    rest = {name for name, value in model.state_dict().items() if value.dim() == 1} - {"fc.bias"}
    assert {name for name, dims in axes.items() if dims == {0}} == rest | {"conv1.weight"}


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("make", [tiny_bottlenecks, vgg11])
def test_bottlenecks_and_vgg11_compute_the_same(make, seed):
    model = make(seed)
    description, generator = permutables(model), torch.Generator().manual_seed(seed)
    images = normal(4, 3, 32, 32)
    assert model(images).std() > 0.01
    check_same_function(model, description, random_permutations(description, generator), images)
    for each in description:
        alone = {each.name: torch.arange(each.size).roll(1)}
        check_same_function(model, description, alone, images)
        changed = permuted(model.state_dict(), description, alone)
        assert any(not torch.equal(value, changed[name]) for name, value in model.state_dict().items())


def test_a_whole_narrow_resnet50_computes_the_same():
    model = unsettled(resnet50(5, width=1 / 32, seed=0), 0)
    description = permutables(model)
    permutations = random_permutations(description, torch.Generator().manual_seed(1))
    check_same_function(model, description, permutations, normal(2, 3, 64, 64))


@pytest.mark.parametrize("make", [tiny_bottlenecks, vgg11])
def test_shuffles_of_bottlenecks_and_vgg11_are_found(make):
    """By activations as by weights; channels that are dead match anything, so functions are compared."""
    model = make()
    description, images = permutables(model), normal(24, 3, 32, 32)
    shuffle = random_permutations(description, torch.Generator().manual_seed(3))
    other = make()
    other.load_state_dict(permuted(model.state_dict(), description, shuffle))
    by_weights = weight_matching(other.state_dict(), model.state_dict(), description, torch.Generator().manual_seed(4))
    best = agreement(other.state_dict(), model.state_dict(), description, inverse(shuffle))
    assert by_weights.agreements[0] < best == pytest.approx(by_weights.agreements[-1])
    by_activations = activation_matching(other.double(), model.double(), description, [images.double()])
    back = permuted(other.state_dict(), description, by_activations)
    living = living_channels(model, description, images.double())
    for each in description:
        found, alive = shuffle[each.name][by_activations[each.name]], living[each.name]
        assert alive.sum() > each.size / 2
        assert torch.equal(found[alive], torch.arange(each.size)[alive]), each.name
    other.load_state_dict(back)
    assert torch.allclose(other(images.double()), model(images.double()), atol=1e-8)


def living_channels(model, description, images):
    """Channels whose response after the ReLU varies, by the name of their `Permutable`."""
    seen, modules = {}, dict(model.named_modules())
    for each in description:
        modules[each.activation].register_forward_hook(
            lambda _m, _i, output, name=each.name: seen.update({name: output.relu().movedim(1, 0).flatten(1).std(1)})
        )
    with torch.no_grad():
        model(images)
    return {name: spread > 1e-6 for name, spread in seen.items()}


def test_each_axis_of_hidden_channels_is_described(network, kind):
    """Weights have two axes, but those that read images or give outputs one; norms and hidden biases have one."""
    model = network(kind)
    description = permutables(model)
    counts = {}
    for axis in (axis for each in description for axis in each.axes):
        counts[axis.tensor] = counts.get(axis.tensor, 0) + 1
    layers = [name for name, m in model.named_modules() if isinstance(m, nn.Linear | nn.Conv2d)]
    ends = {f"{layers[0]}.weight": 1, f"{layers[-1]}.weight": 1, f"{layers[-1]}.bias": 0}
    state = {name: value for name, value in model.state_dict().items() if value.dim()}
    for name, value in state.items():
        first_norm = kind == "flattened maps" and name.startswith("0.0.")  # of the images themselves
        wanted = 0 if first_norm else ends.get(name, 2 if value.dim() > 1 else 1)
        assert counts.get(name, 0) == wanted, name


def test_channels_without_a_relu_are_shown_by_their_layer():
    assert [(each.name, each.activation) for each in permutables(lenet(seed=0))] == [("0", "0"), ("2", "2"), ("5", "6")]


@pytest.mark.parametrize("norm_first", [True, False])
def test_channels_are_shown_after_their_relu(norm_first):
    between = [nn.BatchNorm1d(4), nn.ReLU()] if norm_first else [nn.ReLU(), nn.BatchNorm1d(4)]
    (found,) = permutables(chain(nn.Linear(3, 4), *between, nn.Linear(4, 2)))
    assert found.activation == ("2" if norm_first else "1")
    assert names(found) == given("0") | {("0.bias", 0)} | normed("2" if not norm_first else "1") | read("3")


def test_an_axis_lies_in_a_tensor_once():
    with pytest.raises(InputError, match=r"a names w twice"):
        Permutable("a", 3, (Axis("w", 0), Axis("w", 1)), "a")
    with pytest.raises(InputError, match=r"size of a must be .*got 0"):
        Permutable("a", 0, (), "a")


def chain(*layers):
    return nn.Sequential(*layers)


SHARED = nn.Linear(4, 4)


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (cifar_resnet(8, shortcut="padding", width=0.5, seed=0), "stage2_block1 appends maps .*shortcut='projection'"),
        (resnet200(width=1 / 64, seed=0), "stage1_block1 is a pre-activation block.*those of ResNet-50 to 152"),
        (resnet50(root=2, width=1 / 16, seed=0), "stage1_block1.conv2 has 2 filter groups"),
        (
            chain(nn.Conv2d(3, 4, 3), Bottleneck(4, 2, groups=1, stride=1, project=False, pre=False)),
            "1 reads 8 channels; 0 before it gives 4",
        ),
        (wide_resnet(10, 1, width=0.25, seed=0), "stage1_block1 is WideBlock.*known are Linear"),
        (vgg(5, width=1 / 32, scheme="lr", global_pool=True, seed=0), "is Composite"),
        (
            chain(nn.Conv2d(3, 4, 3), nn.Conv2d(4, 4, 3, groups=2), nn.Flatten(), nn.Linear(4, 2)),
            "1 has 2 filter groups",
        ),
        (chain(nn.Linear(4, 4), nn.Tanh(), nn.Linear(4, 2)), "1 is Tanh"),
        (chain(nn.Conv2d(3, 4, 3), nn.Linear(4, 2)), "1 must read values: put nn.Flatten before it; got maps"),
        (chain(nn.Linear(4, 4), nn.Conv2d(4, 2, 1)), "1 must read maps; got values"),
        (chain(nn.Conv2d(3, 4, 3), nn.BatchNorm1d(4), nn.Flatten(), nn.Linear(4, 2)), "1 must read values"),
        (chain(nn.Linear(4, 4), nn.MaxPool2d(2)), "1 must read maps"),
        (chain(nn.Linear(4, 4), nn.Linear(6, 2)), "1 reads 6 channels; 0 before it gives 4"),
        (chain(nn.Conv2d(3, 4, 3), nn.Conv2d(8, 4, 3)), "1 reads 8 channels; 0 before it gives 4"),
        (chain(nn.Linear(4, 4), nn.Flatten(0), nn.Linear(4, 2)), r"1 must be nn.Flatten\(1, -1\), got \(0, -1\)"),
        (chain(SHARED, nn.ReLU(), SHARED), "stands in two places"),
        (chain(nn.Flatten(), nn.Linear(4, 2)), "no hidden channels"),
        (nn.Linear(4, 2), "must be a chain, nn.Sequential, got Linear"),
    ],
)
def test_networks_that_cannot_be_described(model, message):
    with pytest.raises(InputError, match=message):
        permutables(model)


def test_tied_weights_are_refused():
    model = chain(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 2))
    model[2].weight = model[0].weight
    with pytest.raises(InputError, match="two places"):
        permutables(model)
