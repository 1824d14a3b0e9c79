"""What layers amount to: a composite layer as one convolution, and which inputs each output of any layer sees.

Filter sets of several shapes side by side, with or without a 1×1 join (Y. Ioannou et al.: Training CNNs with low-rank
filters. ICLR 2016, arXiv 1511.06744), are one convolution whose kernels are as high as the highest set and as wide as
the widest. Those of 3×1 ‖ 1×3 have zero corners: crosses.
"""

import copy

import torch
from torch import nn
from torch.nn import functional as F

from papertwin.errors import InputError
from papertwin.nets.layers import Composite
from papertwin.nets.sizes import whole


def joined_kernels(composite: Composite) -> torch.Tensor:
    """Return the kernels of the one convolution that a composite layer is.

    K[o] = Σ_s Σ_m join[o, s, m] · w_s[m], each w_s in the middle of zeros; without a join K is the sets, one below the
    other. The convolution has padding ⌊h/2⌋ × ⌊w/2⌋ and the stride of the layer; it equals it at the border as well.

    Args:
        composite: the layer; its join, if any, follows with nothing between.

    Returns:
        (d, c, h, w): filters of the output, channels of the input, sides of the highest and of the widest set.

    Raises:
        InputError: it is no composite layer.

    Example:
        >>> joined_kernels(Composite(3, [(4, 3, 1), (4, 1, 3)], join=5)).shape
        torch.Size([5, 3, 3, 3])
    """
    if not isinstance(composite, Composite):
        raise InputError(f"Expected a papertwin.nets.Composite, got a {type(composite).__name__}.")
    weights = [layer.weight.detach() for layer in composite.sets.values()]
    high, wide = (max(each.shape[axis] for each in weights) for axis in (2, 3))
    sets = torch.cat([_framed(each, high, wide) for each in weights])
    if composite.join is None:
        return sets
    return torch.einsum("om,mchw->ochw", composite.join.weight.detach()[:, :, 0, 0], sets)


def seen_inputs(layer: nn.Module, channels: int) -> torch.Tensor:
    """Return which inputs each output of a layer depends on, by asking a copy whose weights are all 1.

    Args:
        layer: convolutions, composite layers, ReLUs and batch normalisations, on any device, the meta one too.
        channels: of the input, c.

    Returns:
        (d, c, h, w) of bool on the CPU: the window of pixels that one place of the output sees, or any filter there.

    Raises:
        InputError: the layer does not take so many channels, or has layers of other kinds.

    Example:
        >>> seen_inputs(nn.Conv2d(4, 2, 3, groups=2), 4).sum(dim=(2, 3)).tolist()
        [[9, 9, 0, 0], [0, 0, 9, 9]]
    """
    asked, reach, jump = _ones(layer), [1, 1], [1, 1]
    for each in (each for each in asked.modules() if isinstance(each, nn.Conv2d)):
        for axis in (0, 1):  # at least what one output sees: sets side by side are taken one after the other
            reach[axis] += each.dilation[axis] * (each.kernel_size[axis] - 1) * jump[axis]
            jump[axis] *= each.stride[axis]
    sides = [2 * (side + step) for side, step in zip(reach, jump)]  # the middle output sees no border
    images = torch.ones(1, whole("channels", channels), *sides, device="cpu", requires_grad=True)
    try:
        maps = asked(images)
    except RuntimeError as error:
        raise InputError(f"{type(layer).__name__} does not take {channels} channels: {error}") from error
    middle = maps[0, :, maps.shape[2] // 2, maps.shape[3] // 2]
    seen = torch.cat([torch.autograd.grad(value, images, retain_graph=True)[0] for value in middle]) != 0
    for axis in (2, 3):
        used = seen.any(dim=[each for each in range(4) if each != axis]).nonzero().flatten()
        seen = seen.narrow(axis, int(used[0]), int(used[-1] - used[0]) + 1)
    return seen


def _ones(layer: nn.Module) -> nn.Module:
    """Copy a layer to the CPU, in eval mode, and set its weights to 1 and its biases to 0."""
    copied = copy.deepcopy(layer).to_empty(device="cpu").float().eval()
    for name, each in copied.named_modules():
        if isinstance(each, nn.BatchNorm2d):
            each.reset_running_stats()
            each.reset_parameters()
        elif isinstance(each, nn.Conv2d):
            nn.init.ones_(each.weight)
            if each.bias is not None:
                nn.init.zeros_(each.bias)
        elif not isinstance(each, nn.ReLU | nn.Sequential | nn.ModuleDict | Composite):
            raise InputError(
                f"{name or 'The layer'} is a {type(each).__name__}: expected convolutions, composite layers, batch "
                "normalisations and ReLUs. Ask about such a part of the network."
            )
    return copied


def _framed(weight: torch.Tensor, high: int, wide: int) -> torch.Tensor:
    """Kernels in the middle of zeros."""
    up, left = (high - weight.shape[2]) // 2, (wide - weight.shape[3]) // 2
    return F.pad(weight, (left, left, up, up))
