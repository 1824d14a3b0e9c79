"""The layers of a network, held as they act at one input: each ReLU on or off, each max-pool with its winner.

Held like this, every layer is an affine map z ↦ W z + b. It knows its forward map, the transpose of its linear part,
and, where the network bends, the *slacks* that must stay ≥ 0 for the hold to be true: s·z for a ReLU (s = +1 on, −1
off; z = 0 counts as off) and winner − other for every other entry of a pooling window (ties: the first entry wins).

Everything works on a batch: inputs and gradients are (B, …) float tensors. Source: Bastani et al. 2016, the restriction
of the ReLU encoding to one disjunct each; the treatment of ties is ours.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from papertwin.errors import InputError

AFFINE = (nn.Linear, nn.Conv2d, nn.AvgPool2d, nn.Flatten, nn.BatchNorm1d, nn.BatchNorm2d)
NOTHING = (nn.Identity, nn.Dropout, nn.Dropout2d)  # in eval mode
FORWARD = ("forward", "_conv_forward")  # where torch's layers compute
KINDS = (*AFFINE, nn.ReLU, nn.MaxPool2d, *NOTHING)


class HeldAffine:
    """A layer that is affine anyway."""

    slacks = 0

    def __init__(self, module: nn.Module, z: Tensor):
        """Hold `module` at its input z, (1, …)."""
        self.module = module
        self.shape = z.shape[1:]

    def forward(self, z: Tensor) -> Tensor:
        """The layer's output, (B, …)."""
        return self.module(z)

    def transpose(self, gradient: Tensor) -> Tensor:
        """Wᵀ·gradient, (B, …) in the shape of the input."""
        module, count = self.module, len(gradient)
        if isinstance(module, nn.Linear):
            return gradient @ module.weight
        if isinstance(module, nn.Conv2d) and module.padding_mode == "zeros" and not isinstance(module.padding, str):
            return nn.grad.conv2d_input(
                (count, *self.shape), module.weight, gradient.contiguous(), module.stride, module.padding,
                module.dilation, module.groups,
            )  # fmt: skip
        with torch.enable_grad():
            z = gradient.new_zeros(count, *self.shape).requires_grad_()
            return torch.autograd.grad(module(z), z, gradient)[0]


class HeldReLU:
    """A ReLU with each unit on or off, as it was at the seed."""

    def __init__(self, z: Tensor):
        """Hold the pattern at z, (1, …), the layer's input."""
        self.shape = z.shape[1:]
        self.on = (z > 0).to(z.dtype)
        self.sign = (2 * self.on - 1).flatten()
        self.slacks = self.sign.numel()

    def forward(self, z: Tensor) -> Tensor:
        """Pass the units that were on, stop the others."""
        return z * self.on

    def transpose(self, gradient: Tensor) -> Tensor:
        """The map is diagonal, hence its own transpose."""
        return gradient * self.on

    def slack(self, z: Tensor) -> Tensor:
        """(B, slacks): s·z."""
        return z.flatten(1) * self.sign

    def slack_transpose(self, weights: Tensor) -> Tensor:
        """Gradient with respect to z of weights·slack, for weights (B, slacks)."""
        return (weights * self.sign).view(-1, *self.shape)

    def slack_gradient(self, rows: Tensor) -> Tensor:
        """Gradients of single slacks: (len(rows), …), one row each."""
        gradient = self.on.new_zeros(len(rows), self.slacks)
        gradient[torch.arange(len(rows)), rows] = self.sign[rows]
        return gradient.view(-1, *self.shape)


class HeldMaxPool:
    """A max-pooling layer with the winner of each window, as it was at the seed."""

    def __init__(self, module: nn.MaxPool2d, z: Tensor):
        """Hold the winners at z, (1, C, H, W), the layer's input."""
        self.shape, self.dtype = z.shape[1:], z.dtype
        channels, height, width = self.shape
        out, winners = F.max_pool2d(
            z, module.kernel_size, module.stride, module.padding, module.dilation, module.ceil_mode,
            return_indices=True,
        )  # fmt: skip
        self.out_shape = out.shape[1:]
        first = (torch.arange(channels, device=z.device) * height * width)[:, None, None]
        windows = _windows(module, (height, width), self.out_shape[1:]).to(z.device)
        won = winners.view(channels, 1, -1)
        others = windows[None].expand(channels, -1, -1)
        kept = (others >= 0) & (others != won)
        self.winner = (won + first).flatten()
        self.better, self.worse = (won + first).expand_as(others)[kept], (others + first)[kept]
        self.slacks = self.better.numel()

    def forward(self, z: Tensor) -> Tensor:
        """Pass the winners of the seed, whoever is largest now."""
        return z.flatten(1)[:, self.winner].view(-1, *self.out_shape)

    def transpose(self, gradient: Tensor) -> Tensor:
        """Give each winner the gradient of its windows."""
        z = gradient.new_zeros(len(gradient), self.shape.numel())
        return z.index_add_(1, self.winner, gradient.flatten(1)).view(-1, *self.shape)

    def slack(self, z: Tensor) -> Tensor:
        """(B, slacks): winner − other."""
        flat = z.flatten(1)
        return flat[:, self.better] - flat[:, self.worse]

    def slack_transpose(self, weights: Tensor) -> Tensor:
        """Gradient with respect to z of weights·slack, for weights (B, slacks)."""
        z = weights.new_zeros(len(weights), self.shape.numel())
        return z.index_add_(1, self.better, weights).index_add_(1, self.worse, -weights).view(-1, *self.shape)

    def slack_gradient(self, rows: Tensor) -> Tensor:
        """Gradients of single slacks: (len(rows), …), one row each."""
        z = torch.zeros(len(rows), self.shape.numel(), dtype=self.dtype, device=rows.device)
        each = torch.arange(len(rows), device=rows.device)
        z[each, self.better[rows]] = 1.0
        z[each, self.worse[rows]] = -1.0
        return z.view(-1, *self.shape)


Held = HeldAffine | HeldReLU | HeldMaxPool


def hold(model: nn.Sequential, x: Tensor) -> list[Held]:
    """Hold every layer of a network at one input.

    Args:
        model: `Sequential` in eval mode, float64, of Linear, Conv2d, ReLU, MaxPool2d, AvgPool2d, Flatten, Dropout,
            BatchNorm, Identity and `Sequential` of these.
        x: (1, …) float64 input.

    Returns:
        The held layers, first to last; neighbouring affine layers stay separate.

    Raises:
        InputError: a layer of another kind, named by its place.
    """
    held, z = [], x
    for module in check_layers(model):
        if isinstance(module, NOTHING):
            continue
        if isinstance(module, nn.ReLU):
            layer = HeldReLU(z)
        elif isinstance(module, nn.MaxPool2d):
            layer = HeldMaxPool(module, z)
        else:
            layer = HeldAffine(module, z)
        held.append(layer)
        z = layer.forward(z)
    return held


def check_layers(model: nn.Module) -> list[nn.Module]:
    """Return the layers of a network, first to last, once it is known that each can be held.

    A layer is known by what it computes: a subclass with a forward of its own, or a hook, may compute anything.

    Raises:
        InputError: a layer of another kind, named by its place.
    """
    flat = _flat(model, "")
    for name, module in flat:
        trouble = _trouble(module)
        if trouble is not None:
            names = ", ".join(kind.__name__ for kind in KINDS)
            raise InputError(
                f"Layer {name} is a {type(module).__name__}{trouble}, which has no linear encoding here; expected a "
                f"Sequential of {names} (BatchNorm with running statistics). Rewrite the network with these, or leave "
                "it out."
            )
    return [module for _, module in flat if type(module).forward is not nn.Sequential.forward]


def _trouble(module: nn.Module) -> str | None:
    """Why a layer cannot be held, as the end of a sentence; None where it can."""
    kind = next((kind for kind in (nn.Sequential, *KINDS) if isinstance(module, kind)), None)
    if kind is None or _needs_batch(module):
        return ""
    own = [getattr(module, name, None) for name in FORWARD]
    if [getattr(each, "__func__", each) for each in own] != [getattr(kind, name, None) for name in FORWARD]:
        return " with a forward of its own"
    if module._forward_hooks or module._forward_pre_hooks:
        return " with a forward hook"
    if getattr(module, "return_indices", False):
        return " with return_indices=True"
    return None


def _flat(model: nn.Module, prefix: str) -> list[tuple[str, nn.Module]]:
    """The layers of nested Sequentials with their places, such as `2.0`, and the Sequentials before their layers."""
    here = [(prefix or "at the top", model)]
    if type(model).forward is not nn.Sequential.forward:
        return here
    children = model._modules.items()  # `named_children` leaves out a layer that comes a second time
    return here + [pair for name, child in children for pair in _flat(child, f"{prefix}.{name}" if prefix else name)]


def _needs_batch(module: nn.Module) -> bool:
    """Whether a BatchNorm takes its statistics from the batch even in eval mode, so that it is not affine."""
    return isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d) and module.running_mean is None


def _windows(module: nn.MaxPool2d, size: tuple[int, int], out: torch.Size) -> Tensor:
    """(entries, windows): flat place of every entry of every pooling window, −1 outside the image."""
    kernel, stride, padding, dilation = (
        (value, value) if isinstance(value, int) else tuple(value)
        for value in (module.kernel_size, module.stride, module.padding, module.dilation)
    )
    axes = []
    for axis in (0, 1):
        start = torch.arange(out[axis]) * stride[axis] - padding[axis]
        axes.append(start[None, :] + (torch.arange(kernel[axis]) * dilation[axis])[:, None])
    rows, columns = axes[0][:, None, :, None], axes[1][None, :, None, :]
    inside = (rows >= 0) & (rows < size[0]) & (columns >= 0) & (columns < size[1])
    places = torch.where(inside, rows * size[1] + columns, torch.tensor(-1))
    return places.reshape(kernel[0] * kernel[1], -1)
