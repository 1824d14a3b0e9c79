"""What the first weights of a network do: variances of activations and of gradients, layer by layer.

Paper: Y. Ioannou et al.: Training CNNs with low-rank filters. ICLR 2016, arXiv 1511.06744. With σ² = 2/n̂ and ReLUs
gradients keep their variance from layer to layer, whatever the filter sets; activations need not: filters of set s give
c·h_s·w_s·σ²·E[x²], on average over the filters of all sets 2·(c/d)·E[x²] (1 instead of 2 before a join).

Ours: no loss is chosen, the gradients are those of ⟨u, logits⟩ with u of independent normal numbers; means over weights
become means over filters, places and images; and what zero padding takes away is counted (`bordered`).

Pools change gradients as well: from a maximum of 2×2 one value in four gets one, from an average each gets a quarter.
"""

import copy
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any

import pandas as pd
import torch
from torch import nn
from torch.nn import functional as F

from papertwin.errors import InputError
from papertwin.nets.initial import LINEAR, RELU, seeded
from papertwin.nets.initialising import places
from papertwin.nets.layers import Composite

KINDS = {Composite: "composite", nn.Conv2d: "conv", nn.Linear: "fc"}


def layer_variances(model: nn.Module, images: Any, *, seed: int) -> pd.DataFrame:
    """Measure activations and gradients of each layer on one forward and one backward pass.

    The network is asked in the mode in which it is; it and its gradients stay as they were (a copy is asked).

    Args:
        model: network, on any device but meta.
        images: (B, …), floating, tensor or array; moved to the device of the network.
        seed: of the gradient at the output, independent normal numbers of variance 1; and of dropout.

    Returns:
        One row each time a convolution, composite or fully connected layer ran, in this order (a composite layer is one
        row, its filter sets and join none): `layer`, its name; `kind`, conv, composite or fc; `activation`, the
        variance of its outputs, before normalisation and ReLU; `gradient`, the mean square of the gradient at its
        outputs; `input_gradient`, at its inputs, the part that comes through this layer. All over images, channels and
        places.

    Raises:
        InputError: the network has no such layer, is on the meta device, or does not take such images; or `seed` is no
            whole number from 0 to 2³² − 1.

    Example:
        >>> from papertwin.nets.deep import deep_net
        >>> table = layer_variances(deep_net(depth=3, pools=(), seed=0), torch.randn(4, 1, 14, 14), seed=0)
        >>> table["layer"].tolist()
        ['layer1', 'layer2', 'layer3', 'classifier']
    """
    weight = _first_weight(model)
    model, images = copy.deepcopy(model).requires_grad_(False), torch.as_tensor(images)
    if not images.is_floating_point():
        raise InputError(f"images must be floating-point numbers, got {images.dtype}.")
    images = images.detach().to(weight, copy=True).requires_grad_()
    rows = _measure(model)
    with torch.enable_grad(), _random(seed, weight.device):
        outputs = _outputs(model, images)
        cotangents = [torch.randn(each.shape, dtype=each.dtype, device="cpu").to(each) for each in outputs]
        torch.autograd.grad(outputs, images, cotangents, allow_unused=True)
    return pd.DataFrame(rows)


def gradient_ratio(table: pd.DataFrame) -> float:
    """Mean square of the gradient at the output of the first layer, over that of the last but for fully connected ones.

    Args:
        table: of `layer_variances`.

    Returns:
        1 where gradients keep their variance, below where they vanish on the way down.

    Raises:
        InputError: every layer is fully connected, or no gradient reaches the last.
    """
    rows = table.loc[table["kind"] != "fc", "gradient"]
    if rows.empty or not rows.iloc[-1] > 0:
        raise InputError("The table must have a convolution or composite layer that a gradient reaches, got none.")
    return float(rows.iloc[0] / rows.iloc[-1])


def set_variances(composite: Composite, images: Any, *, gain: float | None = None) -> pd.DataFrame:
    """Compare the outputs of each filter set of a composite layer with theory.

    Variances are mean squares about zero, of what the sets give without their biases, as theory has them.

    Args:
        composite: the layer; its join is not asked.
        images: (B, c, H, W), floating, tensor or array; moved to the device of the layer.
        gain: n̂ σ² of the sets; None is 1 with a join and 2 without.

    Returns:
        One row a filter set, and "all", the mean over all filters: `set`, `filters`; `sigma`, the root mean square of
        its weights; `measured`; `theory`, c·h·w·σ²·E[x²] with this σ, and for all gain·(c/d)·E[x²], which holds
        where the sets share √(gain / n̂); `bordered`, theory without the products with padding. What is left between
        `measured` and `bordered` is chance: filters are few, and the pixels of pictures depend on each other.

    Raises:
        InputError: it is no composite layer, or images do not fit.
    """
    if not isinstance(composite, Composite):
        raise InputError(f"Expected a papertwin.nets.Composite, got a {type(composite).__name__}.")
    sets = composite.sets
    weight = next(iter(sets.values())).weight
    images = torch.as_tensor(images).detach().to(weight)
    if images.ndim != 4 or images.shape[1] != weight.shape[1]:
        raise InputError(f"images must be (B, {weight.shape[1]}, H, W), got {tuple(images.shape)}.")
    table = pd.DataFrame([{"set": name, **_set(layer, images)} for name, layer in sets.items()])
    if gain is None:
        gain = RELU if composite.join is None else LINEAR
    shares, channels = table["filters"] / table["filters"].sum(), images.shape[1]
    every = {"set": "all", "filters": table["filters"].sum(), "sigma": (shares * table["sigma"] ** 2).sum() ** 0.5}
    every |= {name: (shares * table[name]).sum() for name in ("measured", "bordered")}
    every["theory"] = gain * channels / every["filters"] * _power(images)
    return pd.concat([table, pd.DataFrame([every])], ignore_index=True)


def _set(layer: nn.Conv2d, images: torch.Tensor) -> dict[str, Any]:
    """Measure one filter set, and say what theory expects."""
    weight, options = layer.weight.detach(), {"stride": layer.stride, "padding": layer.padding}
    power = _power(weight)
    powers = images.double().square().sum(dim=1, keepdim=True)
    window = torch.ones(1, 1, *layer.kernel_size, dtype=powers.dtype, device=powers.device)
    return {
        "filters": layer.out_channels,
        "sigma": power**0.5,
        "measured": _power(F.conv2d(images, weight, **options)),
        "theory": weight[0].numel() * power * _power(images),
        "bordered": power * F.conv2d(powers, window, **options).mean().item(),
    }


def _power(values: torch.Tensor) -> float:
    """Mean square, in double precision."""
    return values.detach().double().square().mean().item()


def _first_weight(model: nn.Module) -> torch.Tensor:
    """Check that a network can be measured, and return one of its weights."""
    found = places(model)
    if not found:
        raise InputError(f"{type(model).__name__} has no convolution, composite or fully connected layer to measure.")
    weight = next(found[0].layer.parameters())
    if weight.is_meta:
        raise InputError("The network is on the meta device, where nothing is computed. Build it on another one.")
    return weight.detach()


def _outputs(model: nn.Module, images: torch.Tensor) -> list[torch.Tensor]:
    """Ask a network, which may have one output or several."""
    try:
        given = model(images)
    except RuntimeError as error:
        raise InputError(f"{type(model).__name__} does not take images {tuple(images.shape)}: {error}") from error
    return [given] if isinstance(given, torch.Tensor) else list(given)


@contextmanager
def _random(seed: int, device: torch.device) -> Iterator[None]:
    """Seed the CPU's generator and that of the device; afterwards they are as they were."""
    spare = [device] if device.type == "cuda" else []
    with torch.random.fork_rng(devices=spare), seeded(seed), ExitStack() as stack:
        for each in spare:
            stack.enter_context(torch.cuda.device(each))
            torch.cuda.manual_seed(int(seed))
        yield


def _measure(model: nn.Module) -> list[dict[str, Any]]:
    """Return rows in which the network will note what each layer gives when it runs, and its gradients."""
    rows: list[dict[str, Any]] = []
    running: dict[nn.Module, dict[str, Any]] = {}

    def before(name: str, layer: nn.Module, inputs: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
        kind = next(kind for of, kind in KINDS.items() if isinstance(layer, of))
        row = {"layer": name, "kind": kind, "activation": 0.0, "gradient": 0.0, "input_gradient": 0.0}
        rows.append(row)
        running[layer] = row
        own = inputs[0].view_as(inputs[0])  # other layers may have the same input, their gradients are not this one's
        own.register_hook(lambda gradient: row.update(input_gradient=_power(gradient)))
        return own, *inputs[1:]

    def after(layer: nn.Module, _: Any, output: torch.Tensor) -> None:
        row = running.pop(layer)
        row["activation"] = output.detach().double().var(correction=0).item()
        output.register_hook(lambda gradient: row.update(gradient=_power(gradient)))

    for place in places(model):
        place.layer.register_forward_pre_hook(partial(before, place.name))
        place.layer.register_forward_hook(after)
    return rows
