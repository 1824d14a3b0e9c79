"""What the tests of pointwise robustness share: small networks, images, and what is checked of every witness."""

import copy
import math
from functools import partial

import numpy as np
import pytest
import torch
from torch import nn

from papertwin.nets import mlp
from papertwin.robustness import pointwise
from papertwin.robustness.inputs import frozen, predict_labels


def convolutional() -> nn.Sequential:
    """Convolutions with and without ReLU, pools that overlap, a norm, dropout."""
    return nn.Sequential(
        nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU()),
        nn.MaxPool2d(3, 2, padding=1),
        nn.Dropout2d(0.5),
        nn.Conv2d(4, 6, 2),
        nn.MaxPool2d(2, ceil_mode=True),
        nn.Flatten(),
        nn.Dropout(0.5),
        nn.Linear(24, 5),
    )


NETS = {
    "perceptron": (lambda: mlp((30, 24, 16, 5), seed=0), (30,)),
    "convolutional": (convolutional, (1, 9, 9)),
    "averaged": (
        lambda: nn.Sequential(nn.Conv2d(1, 3, 2), nn.ReLU(), nn.AvgPool2d(2), nn.Flatten(), nn.Linear(27, 4)),
        (1, 7, 7),
    ),
}


class Zoo:
    """Small networks and images by kind (perceptron, convolutional, averaged) and seed."""

    def network(self, kind: str, seed: int) -> nn.Sequential:
        """A network with weights, biases and statistics from a seed, in training mode."""
        model, rng = NETS[kind][0](), np.random.default_rng(seed)
        for name, value in model.state_dict().items():
            if value.is_floating_point():
                size = math.sqrt(value[0].numel()) if value.ndim > 1 else 3.0
                draws = torch.from_numpy(rng.normal(size=value.shape)) / size
                value.copy_(draws.abs() + 0.2 if name.endswith("running_var") else draws)
        return model.train()

    def image(self, kind: str, seed: int) -> np.ndarray:
        """A random image of the unit box."""
        return np.random.default_rng(seed + 1000).random(NETS[kind][1])

    def same(self, first, second, tolerance: float = 1e-6) -> bool:
        """Whether two outcomes agree in status and distance."""
        return first.status == second.status and (
            first.epsilon == second.epsilon or abs(first.epsilon - second.epsilon) < tolerance
        )

    def check_witness(self, model: nn.Module, x: np.ndarray, found, box=(0.0, 1.0), margin: float = 0.0) -> None:
        """What every outcome promises, by the network that was given."""
        logits = self.outputs(model, x)
        assert found.label == logits.argmax()
        if found.status not in ("found", "partial"):
            assert found.witness is None
            assert found.reached is None
            assert found.epsilon == np.inf if found.status == "infeasible" else np.isnan(found.epsilon)
            return
        assert found.witness.shape == x.shape
        assert found.witness.dtype == np.float64
        assert box[0] <= found.witness.min() <= found.witness.max() <= box[1]
        assert found.epsilon == np.abs(found.witness - x).max()
        there = self.outputs(model, found.witness)
        assert found.target == found.reached != found.label
        others = np.delete(there, found.target).max()
        assert there[found.target] >= others - 1e-6 if margin == 0 else there[found.target] > others

    def check_found(self, model: nn.Module, x: np.ndarray, result) -> None:
        """What an attack promises of an example that it found, by the network that was given."""
        assert result.witness.shape == x.shape
        assert result.witness.dtype == np.float64
        assert 0 <= result.witness.min() <= result.witness.max() <= 1
        assert result.epsilon == np.abs(result.witness - x).max() > 0
        labels = predict_labels(frozen(model), np.stack([x, result.witness]))
        assert labels.tolist() == [result.label, result.reached]
        assert result.reached != result.label
        assert result.status == "found"

    def outputs(self, model: nn.Module, x: np.ndarray) -> np.ndarray:
        """Logits of one image in float64 and eval mode."""
        with torch.no_grad():
            return copy.deepcopy(model).double().eval()(torch.as_tensor(x).double()[None])[0].numpy()

    def label_of(self, model: nn.Module, x: np.ndarray) -> int:
        """The network's label of one image."""
        return int(self.outputs(model, x).argmax())


@pytest.fixture(scope="session")
def zoo() -> Zoo:
    """Small networks, images, and what is checked about them."""
    return Zoo()


@pytest.fixture
def always_prove(monkeypatch):
    """Try a proof after every first optimum that breaks a row, with few steps."""
    monkeypatch.setattr(pointwise, "MANY", 0)
    monkeypatch.setattr(pointwise, "prove_infeasible", partial(pointwise.prove_infeasible, steps=100))
