"""REPAIR: give the channels of a mixed network the mean and deviation that they have between A and B.

Source: K. Jordan et al.: REPAIR: renormalizing permuted activations for interpolation repair. ICLR 2023,
arXiv 2211.08403: channels of a mix vary less, layer by layer; each is scaled and shifted so that its mean is
(1 − α) μ_A + α μ_B and its deviation (1 − α) sd_A + α sd_B. Batch normalisation is estimated again on training data.

Ours: layers one after the other from the input, each over all batches, so that the statistics are met exactly; there
all at once with those of single batches. A layer that batch normalisation follows is left alone, since what it would
gain there is normalised away again. The last layer is left alone. Channels that do not vary are only shifted.
"""

from collections.abc import Mapping, Sequence

import torch
from torch import nn

from papertwin.errors import InputError
from papertwin.sparse.masks import SPARSE
from papertwin.symmetry.barriers import check_alpha, interpolated
from papertwin.symmetry.permuting import with_state
from papertwin.symmetry.statistics import ChannelSums

NORMS = (nn.BatchNorm1d, nn.BatchNorm2d)
CONSTANT = 1e-6  # a channel varies if its deviation is above this share of its size
Moments = tuple[torch.Tensor, torch.Tensor]  # mean and deviation, (c,) float64


def repaired(
    model: nn.Module,
    state_a: Mapping[str, torch.Tensor],
    state_b: Mapping[str, torch.Tensor],
    alpha: float,
    batches: Sequence[torch.Tensor],
) -> dict[str, torch.Tensor]:
    """Mix two networks and repair the mix.

    Args:
        model: of the architecture; stays as it is. A layer is called once in it.
        state_a: a state_dict.
        state_b: with the same names and shapes.
        alpha: α in [0, 1].
        batches: training images, (B, …) each; a sequence, since each layer reads them again.

    Returns:
        A state_dict.

    Raises:
        InputError: as in `interpolated`; no images; or a layer without bias that no batch normalisation follows.
    """
    check_alpha(alpha)
    if not isinstance(batches, Sequence) or not len(batches):
        raise InputError(f"batches must be a list of tensors of images, one at least, got {type(batches).__name__}.")
    mix = with_state(model, interpolated(state_a, state_b, alpha))
    scaled, norms = _plan(mix, batches[0])
    _check_biases(mix, scaled)
    ends = [output_moments(with_state(model, state), batches, scaled) for state in (state_a, state_b)]
    for name in _called(mix, batches[0]):
        if name in scaled:
            wanted = [torch.lerp(*pair, alpha) for pair in zip(ends[0][name], ends[1][name])]
            _rescale(mix.get_submodule(name), output_moments(mix, batches, [name])[name], wanted)
        elif name in norms:
            _estimate(mix.get_submodule(name), _input_sums(mix, batches, name))
    return {name: value.detach().clone() for name, value in mix.state_dict().items()}


def output_moments(model: nn.Module, batches: Sequence[torch.Tensor], names: Sequence[str]) -> dict[str, Moments]:
    """Mean and deviation of each channel of what layers give, in the mode that the model is in.

    Args:
        model: any.
        batches: images, (B, …).
        names: of its modules.

    Returns:
        Name → (mean, deviation), (c,) float64 each.
    """
    sums = {name: ChannelSums() for name in names}
    hooks = [
        model.get_submodule(name).register_forward_hook(lambda _m, _i, output, each=each: each.update(output))
        for name, each in sums.items()
    ]
    _run(model, batches, hooks)
    return {name: each.moments() for name, each in sums.items()}


def _input_sums(model: nn.Module, batches: Sequence[torch.Tensor], name: str) -> ChannelSums:
    """Sum up what a module reads."""
    sums = ChannelSums()
    hook = model.get_submodule(name).register_forward_pre_hook(lambda _m, inputs: sums.update(inputs[0]))
    _run(model, batches, [hook])
    return sums


def _run(model: nn.Module, batches: Sequence[torch.Tensor], hooks: list) -> None:
    """Show all batches to a model, and take its hooks away."""
    try:
        with torch.no_grad():
            for images in batches:
                model(images)
    finally:
        for hook in hooks:
            hook.remove()


def _called(model: nn.Module, images: torch.Tensor) -> list[str]:
    """Names of linear layers, convolutions and batch normalisations in the order in which they are called."""
    order: list[str] = []
    kinds = (*SPARSE, *NORMS)
    hooks = [
        module.register_forward_pre_hook(lambda _m, _i, name=name: order.append(name))
        for name, module in model.named_modules()
        if isinstance(module, kinds)
    ]
    _run(model, [images], hooks)
    return order


def _plan(model: nn.Module, images: torch.Tensor) -> tuple[list[str], list[str]]:
    """Return layers to scale, and batch normalisations to estimate again."""
    modules, order = dict(model.named_modules()), _called(model, images)
    norms = [name for name in order if isinstance(modules[name], NORMS) and modules[name].track_running_stats]
    layers = [name for name in order if isinstance(modules[name], SPARSE)]
    given: dict[str, torch.Tensor] = {}  # kept alive, so that no two tensors have one identity
    read: list[torch.Tensor] = []
    hooks = [
        modules[name].register_forward_hook(lambda _m, _i, output, name=name: given.update({name: output}))
        for name in layers
    ]
    hooks += [
        module.register_forward_pre_hook(lambda _m, inputs: read.append(inputs[0]))
        for module in modules.values()
        if isinstance(module, NORMS)
    ]
    _run(model, [images], hooks)
    normalised = {id(tensor) for tensor in read}
    return [name for name in layers[:-1] if id(given[name]) not in normalised], norms


def _check_biases(model: nn.Module, names: Sequence[str]) -> None:
    if without := [name for name in names if model.get_submodule(name).bias is None]:
        raise InputError(
            f"{', '.join(without)} must have a bias, or batch normalisation right after, to be shifted; got neither."
        )


def _rescale(layer: nn.Linear | nn.Conv2d, now: Moments, wanted: Sequence[torch.Tensor]) -> None:
    """Scale and shift what a layer gives, from one mean and deviation to another."""
    (mean, deviation), (goal, spread) = now, wanted
    varies = deviation > CONSTANT * torch.maximum(mean.abs(), spread)
    scale = torch.where(varies, spread / torch.where(varies, deviation, 1.0), 1.0)
    scale, mean, goal = (each.to(layer.bias) for each in (scale, mean, goal))
    with torch.no_grad():
        layer.weight.mul_(scale.view(-1, *[1] * (layer.weight.dim() - 1)))
        layer.bias.copy_((layer.bias - mean) * scale + goal)


def _estimate(norm: nn.BatchNorm1d | nn.BatchNorm2d, sums: ChannelSums) -> None:
    """Set running mean and variance to those of the data; the variance unbiased, as torch's."""
    mean, deviation = sums.moments()
    norm.running_mean.copy_(mean)
    norm.running_var.copy_(deviation.square() * (sums.count / max(sums.count - 1, 1)))
