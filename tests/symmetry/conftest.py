"""Small networks of every kind that the symmetry functions know, with batch normalisation that has seen something."""

import pytest
import torch
from torch import nn

from papertwin.nets import cifar_resnet, mlp, vgg


def _normed_mlp(seed):
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        layers = [nn.Flatten(), nn.Linear(3 * 8 * 8, 12), nn.BatchNorm1d(12), nn.ReLU()]
        layers += [nn.Linear(12, 9, bias=False), nn.BatchNorm1d(9), nn.ReLU(inplace=True), nn.Linear(9, 5)]
        return nn.Sequential(*layers)


def _flattened_vgg(seed):
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        layers = [nn.BatchNorm2d(3), nn.Conv2d(3, 6, 3, padding=1), nn.BatchNorm2d(6), nn.ReLU(), nn.MaxPool2d(2)]
        layers += [nn.Conv2d(6, 8, 3), nn.ReLU(), nn.Dropout(0.5), nn.Flatten(), nn.Linear(8 * 4, 7), nn.ReLU()]
        return nn.Sequential(nn.Sequential(*layers), nn.Linear(7, 5))


MAKERS = {
    "mlp": lambda seed: mlp((3 * 8 * 8, 10, 7, 5), seed=seed),
    "mlp with norms": _normed_mlp,
    "flattened maps": _flattened_vgg,
    "vgg": lambda seed: vgg(5, width=1 / 32, side=8, hidden=256, pools=(1, 2), norm=True, seed=seed),
    "resnet": lambda seed: cifar_resnet(14, 5, width=0.5, seed=seed),
}


def _images(count=16, seed=9):
    return torch.randn(count, 3, 8, 8, generator=torch.Generator().manual_seed(seed))


def _network(kind, seed=0):
    """A network in evaluation mode whose biases, gains and running statistics are nontrivial."""
    model = MAKERS[kind](seed)
    generator = torch.Generator().manual_seed(1000 + seed)
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
                for values, low in ((module.weight, 0.5), (module.bias, -0.3), (module.running_mean, -0.2)):
                    values.copy_(low + torch.rand(values.shape, generator=generator))
                module.running_var.copy_(0.5 + torch.rand(module.running_var.shape, generator=generator))
            elif getattr(module, "bias", None) is not None:
                module.bias.copy_(0.2 * torch.randn(module.bias.shape, generator=generator))
    return model.eval()


@pytest.fixture(params=sorted(MAKERS))
def kind(request):
    """Name of each kind of network in turn."""
    return request.param


@pytest.fixture(scope="session")
def network():
    """Build a network of a kind and seed."""
    return _network


@pytest.fixture(scope="session")
def images():
    """Draw (count, 3, 8, 8) images of a seed."""
    return _images
