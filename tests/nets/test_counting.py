"""Counts agree with torch's own counter and with sums by hand, and counting leaves no trace."""

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from papertwin import nets
from papertwin.errors import InputError
from papertwin.nets import count, mlp
from papertwin.nets.conditional import PerceptronTree, Routed, Router, expected_cost

IMAGENET = (3, 224, 224)
NETS = {
    "nin root-8": (lambda: nets.cifar_nin(groups=(1, 8, 4), seed=0), (3, 32, 32)),
    "nin-64 conditional": (lambda: nets.nin64(groups=(32, 8, 32, 32, 8, 1, 32, 1), seed=0), (3, 32, 32)),
    "vgg conditional": (lambda: nets.vgg(groups=(1, 1, 2, 4, 8), last_stage=1024, global_pool=True, seed=0), IMAGENET),
    "vgg lde": (lambda: nets.vgg(scheme="lr-lde", stride=2, global_pool=True, seed=0), IMAGENET),
    "alexnet": (lambda: nets.alexnet(groups=2, seed=0), (3, 227, 227)),
    "googlenet root-8": (lambda: nets.googlenet(geometry="B", root=8, seed=0), IMAGENET),
    "resnet-50 root-64": (lambda: nets.resnet50(root=64, seed=0), IMAGENET),
    "lenet": (lambda: nets.lenet(seed=0), (1, 28, 28)),
}


def biases(model, shape):
    """Operations of the biases of the layers that run: one an output channel."""
    layers = [model.get_submodule(row.name) for row in count(model, shape).layers]
    return sum(layer.bias.numel() for layer in layers if layer.bias is not None)


@pytest.mark.parametrize("name", NETS)
def test_the_counter_of_torch_agrees(name):
    build, shape = NETS[name]
    with torch.device("meta"):
        model, images = build(), torch.zeros(1, *shape)
    with FlopCounterMode(display=False) as counter:
        model.eval()(images)
    assert 2 * (count(model, shape).macs - biases(model, shape)) == counter.get_total_flops()


@pytest.mark.parametrize("name", NETS)
def test_params_are_those_of_the_model_without_normalisation(name):
    build, shape = NETS[name]
    with torch.device("meta"):
        model = build()
    norms = {id(p) for m in model.modules() if isinstance(m, nn.BatchNorm2d) for p in m.parameters()}
    assert count(model, shape).params == sum(p.numel() for p in model.parameters() if id(p) not in norms)


def test_rows_by_hand():
    model = nn.Sequential(nn.Conv2d(4, 6, (3, 1), 2, groups=2), nn.ReLU(), nn.Flatten(), nn.Linear(72, 5, bias=False))
    counts = count(model, (4, 9, 6))
    conv, fc = counts.layers
    assert (conv.name, conv.kind, conv.params, conv.output) == ("0", "conv", 6 * 2 * 3 + 6, (6, 4, 3))
    assert conv.macs == 4 * 3 * 6 * 2 * 3 + 6
    assert (fc.name, fc.kind, fc.params, fc.macs, fc.output) == ("3", "fc", 360, 360, (5,))
    assert (counts.params, counts.macs) == (conv.params + 360, conv.macs + 360)
    table = counts.table()
    assert list(table.columns) == ["name", "kind", "params", "macs", "output"]
    assert table["macs"].sum() == counts.macs


def test_devices_agree(device):
    with torch.device("meta"):
        planned = count(nets.cifar_nin(width=0.25, norm=True, seed=0), (3, 32, 32))
    assert count(nets.cifar_nin(width=0.25, norm=True, seed=0).to(device), (3, 32, 32)) == planned


def test_the_mode_decides_which_heads_count():
    model = nets.googlenet(width=0.125, side=28, in_channels=1, classes=4, geometry="C", seed=0)
    training = count(model, (1, 28, 28))
    evaluated = count(model.eval(), (1, 28, 28))
    heads = [row for row in training.layers if row.name.startswith("heads.")]
    assert len(heads) == 6
    assert training.params - evaluated.params == sum(row.params for row in heads)
    assert [row for row in training.layers if row not in heads] == list(evaluated.layers)


@pytest.mark.parametrize("mode", [True, False])
def test_counting_leaves_the_model_as_it_was(mode):
    model = nets.cifar_nin(width=0.125, norm=True, dropout=0.5, seed=0).train(mode)
    model.conv1_norm = None  # an empty place is no layer
    model[2].eval()
    modes = [m.training for m in model.modules()]
    before = {key: value.clone() for key, value in model.state_dict().items()}
    torch.manual_seed(1)
    state = torch.get_rng_state()
    count(model, (3, 16, 16))
    assert torch.equal(torch.get_rng_state(), state)
    assert [m.training for m in model.modules()] == modes
    assert all(torch.equal(before[key], value) for key, value in model.state_dict().items())
    assert all(p.grad is None for p in model.parameters())
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())


def test_hooks_are_gone_after_an_error():
    model = nets.cifar_nin(width=0.125, seed=0)
    with pytest.raises(InputError, match=r"Sequential does not take images of shape \(1, 16, 16\)"):
        count(model, (1, 16, 16))
    assert not any(m._forward_hooks for m in model.modules())


def test_a_layer_that_runs_twice_has_its_weights_once():
    layer = nn.Linear(3, 3)
    counts = count(nn.Sequential(layer, nn.ReLU(), layer), (3,))
    assert (counts.params, counts.macs) == (12, 24)


def test_layers_that_cannot_be_counted_are_named():
    class Scaled(nn.Module):
        def __init__(self):
            super().__init__()
            self.scale = nn.Parameter(torch.ones(3))

        def forward(self, images):
            return images * self.scale

    with pytest.raises(InputError, match=r"Layer 1 is a Scaled with parameters scale"):
        count(nn.Sequential(nn.Linear(3, 3), Scaled()), (3,))
    with pytest.raises(InputError, match=r"Layer \(the network itself\) is a ConvTranspose2d"):
        count(nn.ConvTranspose2d(1, 1, 3), (1, 5, 5))
    with pytest.raises(InputError, match="input_shape must be"):
        count(mlp(seed=0), (0,))


def test_a_model_without_parameters_costs_nothing():
    assert count(nn.ReLU(), (3,)) == nets.Counts(0, 0, ())


def test_counting_a_conditional_network_leaves_its_own_counts():
    net = nn.Sequential(Routed(Router(4, 3, seed=0), [nn.Linear(4, 5) for _ in range(3)], top=1))
    net.eval()(torch.rand(6, 4))
    net[0].top = None
    before = net[0].seen, list(net[0].taken)
    assert count(net, (4,)).macs == (4 + 1) * 3 + 3 * (4 + 1) * 5
    assert (net[0].seen, net[0].taken) == before
    with pytest.raises(InputError, match=r"router takes \(B, 4\)"):
        count(net, (5,))
    assert (net[0].seen, net[0].taken) == before
    assert not any(m._forward_hooks for m in net.modules())


def test_some_routes_of_zeros_are_no_count():
    net = nn.Sequential(Routed(Router(4, 3, seed=0), [nn.Linear(4, 5 * j) for j in (1, 2, 3)], top=2)).eval()
    with pytest.raises(InputError, match=r"^0 evaluates top=2 of its 3 routes.*expected_macs.*expected_cost"):
        count(net, (4,))
    assert net[0].seen == 0
    tree = PerceptronTree.from_linear(nn.Linear(4, 6), [0, 1, 0, 1, 0, 0])
    with pytest.raises(InputError, match=r"^PerceptronTree evaluates top=1"):
        count(tree.eval(), (4,))
    whole = count(tree.train(), (4,))
    assert whole.macs == 2 * 5 + 6 * 5 == expected_cost(tree.router.macs, tree.route_macs, [1, 1])
    tree.top = None
    assert count(tree.eval(), (4,)) == whole
    assert tree.seen == 0
