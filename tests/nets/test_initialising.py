"""A network that is drawn anew has the weights its builder would have drawn; the usual mistakes are off as derived."""

import copy
import math
from functools import partial

import pytest
import torch
from torch import nn

from papertwin.errors import InputError
from papertwin.nets import (
    Composite,
    alexnet,
    cifar_nin,
    cifar_resnet,
    convolution,
    googlenet,
    imagenet_nin,
    mobilenet,
    nin64,
    nin_c3,
    resnet,
    vgg,
    wide_resnet,
)
from papertwin.nets.equivalent import joined_kernels
from papertwin.nets.initial import fan_in, seeded
from papertwin.nets.initialising import init_, layer_gains, places, products
from papertwin.nets.layers import root_module, separable

SETS = [(24, 3, 1), (24, 1, 3), (16, 3, 3)]
WRONG = ("mine", 0, -0.1, math.inf, math.nan, True, None)
GMP = partial(vgg, global_pool=True, width=0.25, hidden=512)
FAMILIES = {
    "nin": partial(cifar_nin, width=0.5),
    "nin root": partial(cifar_nin, groups=(1, 4, 2), width=0.5, norm=True, dropout=0.5),
    "nin by fan-in": partial(cifar_nin, groups=(1, 4, 2), width=0.5, fan="in"),
    "nin with a last ReLU": partial(cifar_nin, 40, width=0.5, last_relu=True),
    "nin-c3": partial(nin_c3, width=0.5),
    "nin-c3-lr": partial(nin_c3, low_rank=True, width=0.5, norm=True),
    "nin-64": partial(nin64, groups=(2,) * 8, width=0.5),
    "imagenet nin": partial(imagenet_nin, 100, width=0.5),
    **{f"vgg {scheme}": partial(GMP, scheme=scheme) for scheme in ("full", "separable", "lr", "lr-2x", "lr-join")},
    **{f"vgg {scheme}": partial(GMP, scheme=scheme, norm=True) for scheme in ("lr-join-wfull", "lr-lde")},
    "vgg groups": partial(GMP, groups=(1, 1, 2, 4, 8), dropout=0.5),
    "alexnet": partial(alexnet, groups=2, width=0.25, side=67),
    "googlenet root": partial(googlenet, root=8, width=0.5, side=64, geometry="B", norm=True, head_dropout=0.5),
    "googlenet lr": partial(googlenet, low_rank="conv1", width=0.5, side=64, geometry="B"),
    "resnet-50": partial(resnet, 50, root=8, width=0.25),
    "resnet-200": partial(resnet, 200, root=8, width=0.25),
    "resnet-18": partial(cifar_resnet, 18, width=0.5),
    "wide resnet": partial(wide_resnet, 10),
    "mobilenet": partial(mobilenet, width=0.5, side=32),
}


def layers_of(model):
    """Convolutions and fully connected layers by name."""
    return {name: each for name, each in model.named_modules() if isinstance(each, nn.Conv2d | nn.Linear)}


def spread(layer):
    return layer.weight.detach().std().item()


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_is_drawn_as_its_builder_draws_it(family):
    built = FAMILIES[family](seed=1)
    fan = "in" if "fan-in" in family else "out"
    drawn = init_(copy.deepcopy(built), seed=2, fan=fan)
    clear = 0
    for (name, old), new in zip(layers_of(built).items(), layers_of(drawn).values()):
        count = old.weight.numel()
        off = abs(math.log(spread(new) / spread(old)))
        assert off < 4.5 / math.sqrt(count), (name, off)  # deviations of two draws: log σ̂ is off by 1/√(2·count) each
        assert not torch.equal(old.weight, new.weight)
        assert new.bias is None or not new.bias.any()
        clear += count > 1000  # √2 of a wrong gain would be seen
    assert clear > 0.7 * len(layers_of(built))


def test_torchs_own_fan_out_is_ours_but_for_the_groups():
    for groups in (1, 8):
        net = nn.Sequential(nn.Conv2d(32, 64, 3, groups=groups), nn.ReLU(), nn.Flatten(), nn.Linear(64, 3))
        stock = torch.empty_like(net[0].weight)
        with seeded(5):
            nn.init.kaiming_normal_(stock, mode="fan_out", nonlinearity="relu")
        torch.testing.assert_close(init_(net, seed=5)[0].weight.detach(), stock * math.sqrt(groups))
        torch.testing.assert_close(init_(net, seed=5, sigma="ungrouped")[0].weight.detach(), stock)
        due = torch.empty_like(stock)
        with seeded(5):  # by fan-in torch has the groups right
            nn.init.kaiming_normal_(due, mode="fan_in", nonlinearity="relu")
        torch.testing.assert_close(init_(net, seed=5, fan="in")[0].weight.detach(), due)


def test_stock_is_what_torch_draws_by_itself():
    def build():
        return nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(32, 4))

    with seeded(7):
        due = build()
    drawn = init_(build(), seed=7, sigma="stock")
    assert all(torch.equal(a, b) for a, b in zip(drawn.parameters(), due.parameters()))


def test_sets_that_are_drawn_as_if_alone_are_too_large():
    net = nn.Sequential(Composite(32, SETS), nn.ReLU())
    shared = {name: each.weight.detach() for name, each in init_(net, seed=3)[0].sets.items()}
    total = sum(d * h * w for d, h, w in SETS)
    assert spread(net[0].sets["3x3"]) == pytest.approx(math.sqrt(2 / total), rel=0.03)
    own = {name: each.weight.detach() for name, each in init_(copy.deepcopy(net), seed=3, sigma="own")[0].sets.items()}
    for d, h, w in SETS:
        larger = math.sqrt(total / (d * h * w))
        torch.testing.assert_close(own[f"{h}x{w}"], shared[f"{h}x{w}"] * larger)
    seen = init_(copy.deepcopy(net), seed=3, fan="in")[0].sets
    assert spread(seen["3x3"]) == pytest.approx(math.sqrt(2 / fan_in(32, 3, 3)), rel=0.03)
    assert spread(seen["3x1"]) == pytest.approx(math.sqrt(2 / fan_in(32, 3, 1)), rel=0.05)


def test_a_number_is_the_deviation_of_every_layer():
    net = init_(nin_c3(low_rank=True, width=0.5, seed=0), seed=1, sigma=0.01)
    for layer in layers_of(net).values():
        assert spread(layer) == pytest.approx(0.01, rel=4 / math.sqrt(layer.weight.numel()))
        assert not layer.bias.any()


@pytest.mark.parametrize(
    "layer",
    [
        nn.Conv2d(4, 6, 3, padding=1),
        nn.Conv2d(4, 8, (3, 5), padding=(1, 2), groups=4),
        nn.Conv2d(8, 4, (3, 1), padding=(1, 0), groups=2),
        Composite(4, [(2, 3, 1), (3, 1, 3), (4, 5, 3)]),
    ],
    ids=["plain", "four groups", "3x1 in groups", "composite"],
)
def test_products_are_the_outputs_that_an_input_value_reaches(layer):
    channels = next(layer.parameters()).shape[1] * getattr(layer, "groups", 1)
    image = torch.randn(1, channels, 9, 9, generator=torch.Generator().manual_seed(0))
    jacobian = torch.autograd.functional.jacobian(layer, image)[0, ..., 0, :, :, :]  # (d, H, W, c, H, W)
    reached = [int((jacobian[..., channel, 4, 4] != 0).sum()) for channel in range(channels)]
    assert reached == [products(layer)] * channels
    corner = int((jacobian[..., 0, 0, 0] != 0).sum())
    assert corner < products(layer)  # zero padding: there are no outputs beyond the border


def test_products_of_other_layers():
    assert products(nn.Linear(7, 5)) == 5
    assert products(Composite(4, [(2, 3, 1), (2, 1, 3)], join=9)) == 12  # those of the sets
    with pytest.raises(InputError, match="layer must be a Conv2d, a Linear or a Composite, got ReLU"):
        products(nn.ReLU())


def test_a_basis_and_its_join_together_have_the_gain_of_one_layer():
    """Σ K² over the outputs that an input value reaches is n̂σ² of the one convolution that the two layers are."""
    net = nn.Sequential(Composite(64, SETS, join=64), nn.ReLU())
    seen = []
    for seed in range(4):
        kernels = joined_kernels(init_(net, seed=seed)[0]).double()
        seen.append(kernels.square().sum(dim=(0, 2, 3)).mean().item())
    assert sum(seen) / 4 == pytest.approx(2, rel=0.05)  # a gain of 2 before the join as well would make it 4
    assert spread(net[0].join) == pytest.approx(math.sqrt(2 / 64), rel=0.05)


def test_gains_are_read_from_what_follows():
    relu = nn.ReLU()
    net = nn.Sequential(
        *(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), relu),
        *(nn.Sequential(nn.Conv2d(8, 8, 3)), nn.MaxPool2d(2), relu),  # one ReLU for all
        *(separable(8, 8), nn.Sequential(nn.Dropout(0.5), relu)),
        *(root_module(8, 8, 3, 2, 8), nn.Conv2d(8, 8, 1), nn.LeakyReLU(0.5)),
        *(nn.Flatten(), nn.Linear(8, 8), nn.Linear(8, 2), nn.Identity()),
    )
    found = {place.name: (place.gain, place.last) for place in places(net)}
    assert found == {
        "0": (2, False),
        "3.0": (2, False),
        "6.1x3": (1, False),
        "6.3x1": (2, False),
        "8.grouped": (2, False),
        "8.join": (2, False),
        "9": (1.6, False),
        "12": (1, False),
        "13": (1, True),
    }


class Added(nn.Module):
    """Two layers whose outputs are added, and what makes scores of them."""

    def __init__(self):
        super().__init__()
        self.chain = nn.Sequential(nn.Conv2d(16, 16, 3, padding=1), nn.ReLU(), nn.Conv2d(16, 16, 3, padding=1))
        self.short = nn.Conv2d(16, 16, 1)
        self.inner = nn.Linear(16, 16)
        self.heads = nn.ModuleList([nn.Sequential(nn.Linear(16, 16), nn.ReLU(), nn.Linear(16, 16), nn.Dropout(0.5))])

    def forward(self, maps):
        maps = self.chain(maps) + self.short(maps)
        return self.heads[0](self.inner(maps.mean(dim=(2, 3))).relu())


def test_what_follows_within_other_modules_is_for_the_caller_to_say():
    net = nn.Sequential(nn.Conv2d(3, 16, 3), Added(), nn.Flatten(), nn.Linear(16, 4))
    read = {"1.chain.0": 2, "1.chain.2": 2, "1.short": 2, "1.inner": 2, "1.heads.0.0": 2, "1.heads.0.2": "last"}
    assert layer_gains(net) == {"0": 2, **read, "3": "last"}
    told = {place.name: (place.gain, place.last) for place in places(net, {"1.*": 0.5, "*.short": "last", "3": 2})}
    assert told["1.chain.0"] == told["1.chain.2"] == (0.5, False)
    assert told["1.short"] == (1, True)
    assert told["3"] == (2, False)  # no longer the last
    init_(net, seed=0, gains={"*.chain.2": 0.5})
    ratio = spread(net[1].chain[2]) / spread(net[1].chain[0])
    assert ratio == pytest.approx(0.5, rel=0.05)
    for wrong, message in [({"1.shirt": 1.0}, "no convolution.*nearest are 1.short"), ({"3": 0}, "A gain must be")]:
        with pytest.raises(InputError, match=message):
            init_(net, seed=0, gains=wrong)


def test_a_layer_that_stands_twice_is_drawn_once():
    layer = nn.Linear(8, 8)
    net = nn.Sequential(layer, nn.ReLU(), layer)
    assert [(place.name, place.gain) for place in places(net)] == [("0", 2.0)]


def test_a_network_of_one_layer():
    assert [(place.name, place.last) for place in places(nn.Linear(3, 4))] == [("", True)]
    alone = init_(Composite(64, SETS), seed=0)
    assert spread(alone.sets["3x3"]) == pytest.approx(math.sqrt(1 / (48 * 3 + 16 * 9)), rel=0.04)


def test_weights_depend_on_the_seed_alone(device):
    def drawn(seed, where="cpu", sigma="shared"):
        net = nn.Sequential(convolution(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), Composite(8, SETS), nn.ReLU()).to(where)
        net[1].weight.data.fill_(3)
        before = torch.get_rng_state()
        assert init_(net, seed=seed, sigma=sigma) is net
        assert torch.equal(torch.get_rng_state(), before)
        assert (net[1].weight == 3).all()  # normalisation stays as it is
        assert all(each.grad is None and each.requires_grad for each in net.parameters())
        return [each.detach().cpu() for each in net.parameters()]

    for sigma in ("shared", "stock"):
        first = drawn(4, sigma=sigma)
        assert all(torch.equal(a, b) for a, b in zip(first, drawn(4, device, sigma)))
        assert not torch.equal(first[0], drawn(5, sigma=sigma)[0])


def test_meta_weights_are_left_alone():
    with torch.device("meta"):
        net = vgg(seed=0)
    assert init_(net, seed=0) is net
    assert init_(net, seed=0, sigma="stock")[0].weight.is_meta


@pytest.mark.parametrize(
    ("options", "message"),
    [
        *(({"sigma": sigma}, "sigma must be one of shared, own, ungrouped, stock, or a finite") for sigma in WRONG),
        ({"fan": "both"}, "fan must be 'out' or 'in'"),
        ({"seed": -1}, "seed must be"),
        ({"model": "vgg"}, "model must be a torch.nn.Module, got str"),
    ],
)
def test_wrong_arguments(options, message):
    net = nn.Sequential(nn.Linear(2, 2))
    before = copy.deepcopy(net.state_dict())
    with pytest.raises(InputError, match=message):
        init_(**{"model": net, "seed": 0, **options})
    assert all(torch.equal(before[name], each) for name, each in net.state_dict().items())
