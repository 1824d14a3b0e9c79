"""Channels of a repaired network have the means and deviations between those of A and B."""

import pytest
import torch
from torch import nn

from papertwin.errors import InputError
from papertwin.nets import mlp
from papertwin.symmetry import interpolated, repaired
from papertwin.symmetry.permuting import with_state
from papertwin.symmetry.repairing import output_moments


def lerp(pair, alpha):
    return torch.lerp(pair[0], pair[1], alpha)


def layers_of(model):
    return [name for name, module in model.named_modules() if isinstance(module, nn.Linear | nn.Conv2d)]


@pytest.mark.parametrize("alpha", [0.0, 0.3, 1.0])
def test_channels_vary_as_between_the_ends(network, images, alpha):
    """Without batch normalisation: every hidden layer, exactly, over batches of unequal size."""
    model, shown = network("mlp", 0), list(images(50).split(16))
    states = [network("mlp", seed).state_dict() for seed in (0, 1)]
    *hidden, last = layers_of(model)
    mix = repaired(model, *states, alpha, shown)
    found = output_moments(with_state(model, mix), shown, hidden)
    ends = [output_moments(with_state(model, state), shown, hidden) for state in states]
    plain = output_moments(with_state(model, interpolated(*states, alpha)), shown, hidden)
    for name in hidden:
        for part in (0, 1):
            wanted = lerp([end[name][part] for end in ends], alpha)
            assert torch.allclose(found[name][part], wanted, atol=1e-5)
        assert alpha in (0.0, 1.0) or bool((plain[name][1] < 0.97 * found[name][1]).all())  # a plain mix varies less
    assert torch.equal(mix[f"{last}.weight"], interpolated(*states, alpha)[f"{last}.weight"])
    if alpha in (0.0, 1.0):
        state = states[int(alpha)]
        assert all(torch.allclose(mix[name], value, atol=1e-5) for name, value in state.items())


@pytest.mark.parametrize("kind", ["mlp with norms", "flattened maps", "vgg", "resnet"])
def test_batch_normalisation_is_estimated_again(network, images, kind):
    """Each reads channels with its own mean and variance, so its output has mean β and deviation γ."""
    model, shown = network(kind, 0), list(images(60).split(25))
    states = [network(kind, seed).state_dict() for seed in (0, 1)]
    mix = repaired(model, *states, 0.5, shown)
    new = with_state(model, mix)
    norms = {name: m for name, m in new.named_modules() if isinstance(m, nn.BatchNorm1d | nn.BatchNorm2d)}
    for name, (mean, deviation) in output_moments(new, shown, list(norms)).items():
        norm = norms[name]
        shrunk = (norm.running_var / (norm.running_var + norm.eps)).sqrt()
        assert torch.allclose(mean.float(), norm.bias, atol=1e-4)
        assert torch.allclose(deviation.float(), norm.weight.abs() * shrunk, rtol=2e-2, atol=1e-4)
    plain = interpolated(*states, 0.5)
    normalised = [f"{name}.{part}" for name in norms for part in ("running_mean", "running_var")]
    assert all(not torch.allclose(mix[name], plain[name]) for name in normalised)
    if kind in ("mlp with norms", "resnet"):
        assert all(torch.equal(mix[name], value) for name, value in plain.items() if name not in normalised)


def test_layers_without_normalisation_are_scaled_beside_those_with(network, images):
    """In "flattened maps" the second convolution and the first linear layer have none."""
    model, shown = network("flattened maps", 0), [images(40)]
    states = [network("flattened maps", seed).state_dict() for seed in (0, 1)]
    bare = ["0.5", "0.9"]
    mix = repaired(model, *states, 0.4, shown)
    found = output_moments(with_state(model, mix), shown, bare)
    ends = [output_moments(with_state(model, state), shown, bare) for state in states]
    for name in bare:
        for part in (0, 1):
            assert torch.allclose(found[name][part], lerp([end[name][part] for end in ends], 0.4), atol=1e-5)
    plain = interpolated(*states, 0.4)
    assert torch.equal(mix["0.1.weight"], plain["0.1.weight"])


def test_running_statistics_are_torchs(network, images):
    """One batch: those of torch's with momentum 1, but that it divides by n when it trains and by n − 1 later."""
    model, shown = network("resnet", 0), images(30)
    states = [network("resnet", seed).state_dict() for seed in (0, 1)]
    mix = repaired(model, *states, 0.5, [shown])
    other = with_state(model, interpolated(*states, 0.5)).train()
    for module in other.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = 1.0
    other(shown)
    for name, value in other.state_dict().items():
        if "running" in name:
            assert torch.allclose(mix[name], value, rtol=2e-2, atol=2e-3), name


def test_channels_that_do_not_vary_are_only_shifted(images):
    """Channel 0 of A and B differs in sign alone, so that halfway it is constant."""
    model = mlp((192, 3, 2), seed=0)
    states = [{name: value.clone() for name, value in model.state_dict().items()} for _ in range(2)]
    states[1]["1.weight"][0] *= -1
    mix = repaired(model, *states, 0.5, [images(20)])
    assert all(value.isfinite().all() for value in mix.values())
    assert not mix["1.weight"][0].any()
    ((mean, _),) = output_moments(with_state(model, mix), [images(20)], ["1"]).values()
    assert torch.allclose(mean[0].float(), states[0]["1.bias"][0], atol=1e-5)


def test_the_model_stays_as_it_is(network, images):
    model = network("resnet").train()
    state = {name: value.clone() for name, value in model.state_dict().items()}
    repaired(model, network("resnet", 1).state_dict(), network("resnet", 2).state_dict(), 0.5, [images(8)])
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())
    assert model.training
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())


def test_arguments_that_cannot_be_used(images):
    model = nn.Sequential(nn.Flatten(), nn.Linear(192, 4, bias=False), nn.ReLU(), nn.Linear(4, 2))
    state = model.state_dict()
    with pytest.raises(InputError, match="1 must have a bias, or batch normalisation right after"):
        repaired(model, state, state, 0.5, [images(4)])
    with pytest.raises(InputError, match=r"batches must be a list .*got list"):
        repaired(model, state, state, 0.5, [])
    with pytest.raises(InputError, match=r"batches must be a list .*got generator"):
        repaired(model, state, state, 0.5, (each for each in [images(4)]))
    with pytest.raises(InputError, match=r"alpha must be .*got 2"):
        repaired(model, state, state, 2, [images(4)])
