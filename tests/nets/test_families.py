"""A small network of every family trains: logits a class, gradients for every weight, weights by the seed alone."""

from functools import partial

import pytest
import torch
from torch import nn

from papertwin import nets
from papertwin.errors import InputError
from papertwin.nets.vgg_family import PARTS

SMALL = {"width": 0.125, "classes": 7, "in_channels": 1}
# name → builder, side of an image, its options
FAMILIES = {
    "nin": (nets.cifar_nin, 14, {}),
    "nin 28": (nets.cifar_nin, 28, {}),
    "nin root-4, norm": (nets.cifar_nin, 14, {"groups": (1, 4, 2), "width": 0.25, "norm": True}),
    "nin-64": (nets.nin64, 14, {}),
    "nin-64 conditional": (nets.nin64, 14, {"groups": (8, 4, 4, 4, 4, 1, 4, 1), "divisors": (1,) * 5 + (2,) * 4}),
    "nin-c3": (nets.nin_c3, 14, {}),
    "nin-c3-lr": (nets.nin_c3, 28, {"low_rank": True}),
    "nin imagenet": (nets.imagenet_nin, 39, {}),
    "alexnet": (nets.alexnet, 39, {"side": 39, "groups": 2}),
    "vgg": (nets.vgg, 28, {"side": 28}),
    "vgg-c": (nets.vgg, 28, {"configuration": "C", "global_pool": True}),
    "vgg-e": (nets.vgg, 14, {"configuration": "E", "global_pool": True, "norm": True}),
    "vgg conditional": (nets.vgg, 14, {"groups": (1, 1, 2, 4, 8), "global_pool": True, "last_stage": 1024}),
    "vgg two pools": (nets.vgg, 14, {"pools": (1, 3), "side": 14, "norm": True}),
    "vgg stride 2": (nets.vgg, 28, {"stride": 2, "side": 28, "scheme": "lr"}),
    "vgg separable": (nets.vgg, 14, {"scheme": "separable", "global_pool": True}),
    **{f"vgg {scheme}": (nets.vgg, 14, {"scheme": scheme, "global_pool": True}) for scheme in PARTS},
    "googlenet A": (nets.googlenet, 64, {"side": 64, "dropout": 0.1, "head_dropout": 0.1}),
    "googlenet B root-2": (nets.googlenet, 28, {"side": 28, "geometry": "B", "root": 2, "width": 0.25, "norm": True}),
    "googlenet C lr": (nets.googlenet, 28, {"side": 28, "geometry": "C", "low_rank": "inception"}),
    "googlenet C lr-conv1": (nets.googlenet, 28, {"side": 28, "geometry": "C", "low_rank": "conv1"}),
    "googlenet alone": (nets.googlenet, 28, {"side": 28, "geometry": "C", "auxiliary": False}),
    "resnet-50": (nets.resnet50, 14, {"root": 8}),
    "resnet-200": (nets.resnet200, 14, {"root": 4}),
    "resnet-18": (partial(nets.cifar_resnet, 18), 14, {}),
    "resnet-8": (partial(nets.cifar_resnet, 8), 14, {"width": 0.5}),
    "resnet-8 padding": (partial(nets.cifar_resnet, 8), 28, {"width": 0.5, "shortcut": "padding"}),
    "wide resnet-10": (nets.wide_resnet, 14, {"depth": 10, "width": 0.5}),
    "mobilenet": (nets.mobilenet, 14, {"side": 14}),
    "vit": (nets.vit, 14, {"side": 14, "patch": 7, "width": 12, "depth": 2, "heads": 3}),
}


def small(name, seed=1):
    builder, side, options = FAMILIES[name]
    return builder(**{**SMALL, **options}, seed=seed), side


def outputs(model, images):
    given = model(images)
    return given if isinstance(given, tuple) else (given,)


@pytest.mark.parametrize("name", FAMILIES)
def test_small_networks_give_logits_and_a_gradient_to_every_parameter(name, device):
    model, side = small(name)
    model = model.to(device)
    torch.manual_seed(0)
    images = torch.randn(4, 1, side, side).to(device)  # the same everywhere: no other unit dies
    logits = outputs(model, images)
    assert all(each.shape == (4, 7) and each.isfinite().all() for each in logits)
    sum(nn.functional.cross_entropy(each, torch.arange(4, device=device)) for each in logits).backward()
    gradients = {name: p.grad for name, p in model.named_parameters()}
    assert [name for name, g in gradients.items() if g is None or not g.isfinite().all()] == []
    weights = {name: g for name, g in gradients.items() if name.endswith("weight")}
    assert [name for name, g in weights.items() if not g.any()] == []
    model.eval()
    assert model(images).shape == (4, 7)
    assert model(images[:1]).shape == (1, 7)


@pytest.mark.parametrize("name", FAMILIES)
def test_weights_depend_on_the_seed_alone(name):
    torch.manual_seed(3)
    before = torch.get_rng_state()
    first, _ = small(name)
    assert torch.equal(torch.get_rng_state(), before)
    torch.rand(5)
    again, other = small(name)[0].state_dict(), small(name, seed=2)[0].state_dict()
    for key, value in first.state_dict().items():
        assert torch.equal(value, again[key])
        assert key.split(".")[-1] != "weight" or "norm" in key or not torch.equal(value, other[key])


@pytest.mark.parametrize("name", ["nin", "nin-c3-lr", "vgg lr", "vgg conditional", "googlenet C lr", "resnet-50"])
def test_signals_neither_die_nor_explode(name):
    model, side = small(name)
    model.eval()
    torch.manual_seed(0)
    spread = model(torch.randn(8, 1, side, side)).std().item()
    assert 1e-4 < spread < 1e2


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: nets.cifar_nin(seed=0, classes=0), "classes must be"),
        (lambda: nets.cifar_nin(seed=0, in_channels=0), "in_channels must be"),
        (lambda: nets.cifar_nin(seed=0, width=0), "width must be"),
        (lambda: nets.cifar_nin(seed=0, groups=(1, 2)), "groups must be 3"),
        (lambda: nets.cifar_nin(seed=0, groups=(1, 5, 1)), "groups must divide 96 channels and 192 filters, got 5"),
        (lambda: nets.cifar_nin(seed=0, groups=(1, 16, 8), width=0.25), "groups must divide 24 channels"),
        (lambda: nets.cifar_nin(seed=0, dropout=1.5), "dropout must be"),
        (lambda: nets.cifar_nin(seed=-1), "seed must be"),
        (lambda: nets.nin_groups("bush", 2), "topology must be"),
        (lambda: nets.nin_groups("root", 0), "groups must be"),
        (lambda: nets.nin64(seed=0, groups=(1,) * 9), "groups must be 8"),
        (lambda: nets.nin64(seed=0, divisors=(1,) * 8), "divisors must be 9"),
        (lambda: nets.nin_c3(seed=0, low_rank=True, width=1 / 64), "1/2 of 3 filters"),
        (lambda: nets.alexnet(seed=0, side=38), "too small"),
        (lambda: nets.alexnet(seed=0, groups=3), "groups must divide"),
        (lambda: nets.vgg(seed=0, configuration="F"), "configuration must be one of A, B"),
        (lambda: nets.vgg(seed=0, scheme="low"), "scheme must be one of full"),
        (lambda: nets.vgg(seed=0, groups=(1, 2)), "groups must be 5"),
        *[
            (lambda pools=pools: nets.vgg(seed=0, pools=pools), "pools must be")
            for pools in ((0, 1), (1, 5), (3, 1), (1, 1), (1.0,), "13", 2)
        ],
        (lambda: nets.vgg(seed=0, groups=(1, 1, 2, 2, 2), scheme="lr"), "must be left out"),
        (lambda: nets.vgg(seed=0, configuration="C", scheme="lr"), "must be left out"),
        (lambda: nets.vgg(seed=0, stride=0), "stride must be"),
        (lambda: nets.low_rank_layer(3, 64, "full"), "scheme must be one of lr,"),
        (lambda: nets.googlenet(seed=0, geometry="D"), "geometry must be one of A, B, C"),
        (lambda: nets.googlenet(seed=0, low_rank="all"), "low_rank must be one of"),
        (lambda: nets.googlenet(seed=0, low_rank="conv1", root=2), "root must be 1"),
        (lambda: nets.googlenet(seed=0, side=28), "too small"),
        (lambda: nets.resnet50(seed=0, root=0), "root must be"),
        (lambda: nets.resnet50(seed=0, root=3), "groups must divide 64"),
        (lambda: nets.resnet50(seed=0, classes=0), "classes must be"),
    ],
)
def test_arguments_that_build_nothing(build, message):
    with pytest.raises(InputError, match=message), torch.device("meta"):
        build()
