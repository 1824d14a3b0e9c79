"""Which axes of which tensors of a network share a permutation.

- S. Ainsworth, J. Hayase, S. Srinivasa: Git Re-Basin. ICLR 2023, arXiv 2209.04836: the hidden units of a layer may be
  renumbered if all that gives and reads them is renumbered alike.
- M. Adnan et al.: Sparse training from random initialization. ICML 2025, arXiv 2505.05143: the same of residual
  networks: free permutations for what lies inside a block, one of a basic block and two of a bottleneck, and one for
  the residual stream of each stage.

A description is a tuple of `Permutable`, from the input on, what lies inside the blocks of a stage before the stage's
stream. Networks are chains (`nn.Sequential`) of the layers in `permutables`; what it does not know, it refuses.

    >>> from papertwin.nets import mlp
    >>> [(each.name, each.size, each.activation) for each in permutables(mlp((4, 8, 6, 2), seed=0))]
    [('1', 8, '2'), ('3', 6, '4')]
"""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field

from torch import nn

from papertwin.checks import is_whole
from papertwin.errors import InputError
from papertwin.nets.cifar_residual import BasicBlock
from papertwin.nets.residual import Bottleneck

POOLS = (nn.MaxPool2d, nn.AvgPool2d, nn.AdaptiveAvgPool2d, nn.AdaptiveMaxPool2d)
ALIKE = (*POOLS, nn.Dropout, nn.Dropout2d, nn.Identity)  # layers that treat each channel alike
NORMS = (nn.BatchNorm1d, nn.BatchNorm2d)
BLOCKS = {BasicBlock: 2, Bottleneck: 3}  # residual blocks → their convolutions, conv1 to the last
KNOWN = (nn.Linear, nn.Conv2d, *NORMS, nn.ReLU, nn.Flatten, *ALIKE, *BLOCKS, nn.Sequential)


@dataclass(frozen=True)
class Axis:
    """An axis of a tensor of a state_dict along which channels lie, each as one entry or as a block of entries.

    Attributes:
        tensor: name in the state_dict, `conv1.weight` say.
        dim: of the axis, from 0. It is as long as the channels, or a whole multiple: the columns of a linear layer that
            reads flattened maps are one block a channel.
    """

    tensor: str
    dim: int


@dataclass(frozen=True)
class Permutable:
    """Channels that may be renumbered, and all axes that must be renumbered with them.

    Attributes:
        name: of the layer that gives them first: of the stem or a projection for a residual stream.
        size: number of channels.
        axes: where they lie, no tensor twice.
        activation: module whose output shows them: (B, size, …).
        relu: whether a ReLU that is no module of its own follows that module.

    Raises:
        InputError: a tensor is named twice, or `size` is no whole number above 0.
    """

    name: str
    size: int
    axes: tuple[Axis, ...]
    activation: str
    relu: bool = False

    def __post_init__(self) -> None:
        """Check the attributes."""
        if not is_whole(self.size, 1):
            raise InputError(f"size of {self.name} must be a whole number above 0, got {self.size!r}.")
        counts = Counter(axis.tensor for axis in self.axes)
        if twice := [name for name, count in counts.items() if count > 1]:
            raise InputError(f"{self.name} names {', '.join(twice)} twice; expected one axis of each tensor.")


Description = tuple[Permutable, ...]


def permutables(model: nn.Sequential) -> Description:
    """Describe the hidden channels of a chain that may be renumbered.

    Args:
        model: linear layers, convolutions without filter groups, batch normalisation, ReLU, pools, dropout, `Flatten`,
            blocks of `papertwin.nets.cifar_resnet` and of `papertwin.nets.resnet50`, and chains of those.

    Returns:
        From the input on; not the channels of images and not the outputs.

    Raises:
        InputError: another kind of layer, filter groups, a shortcut without parameters where the shape changes, a
            pre-activation block, a module or tensor in two places, sizes that do not fit, or no hidden channels.
    """
    if type(model) is not nn.Sequential:
        raise InputError(f"model must be a chain, nn.Sequential, got {type(model).__name__}.")
    places = Counter(id(module) for _, module in model.named_modules(remove_duplicate=False))
    values = Counter(id(value) for _, value in model.named_parameters(remove_duplicate=False))
    if any(count > 1 for count in (places | values).values()):
        raise InputError("A module or parameter of the model stands in two places; give each place its own.")
    walk = _Walk()
    walk.chain("", model)
    if not walk.done:
        raise InputError("The model has no hidden channels that could be renumbered, only inputs and outputs.")
    return tuple(each.closed() for each in walk.done)


@dataclass
class _Stream:
    """Channels on their way through the network, as far as we have followed them."""

    name: str
    size: int
    activation: str
    axes: list[Axis] = field(default_factory=list)
    rectified: bool = False
    relu: bool = False

    def closed(self) -> Permutable:
        return Permutable(self.name, self.size, tuple(self.axes), self.activation, self.relu)


class _Walk:
    """Follow channels from layer to layer.

    Attributes:
        done: streams that were read to their end.
        now: the one that the next layer reads; None is what cannot be renumbered, the input.
        maps: whether it is maps (B, c, H, W), or values (B, c·block); None is not known yet.
    """

    def __init__(self) -> None:
        self.done: list[_Stream] = []
        self.now: _Stream | None = None
        self.maps: bool | None = None

    def chain(self, prefix: str, model: nn.Sequential) -> None:
        """Follow channels through a chain."""
        for name, module in model.named_children():
            self.module(f"{prefix}{name}", module)

    def module(self, name: str, module: nn.Module) -> None:
        """Follow channels through a layer."""
        kind = type(module)
        if kind not in KNOWN:
            known = ", ".join(each.__name__ for each in KNOWN)
            raise InputError(f"{name} is {kind.__name__}, and how its channels lie is not known; known are {known}.")
        if kind is nn.Sequential:
            self.chain(f"{name}.", module)
        elif kind in (nn.Linear, nn.Conv2d):
            self._layer(name, module)
        elif kind in NORMS:
            self._expect(name, kind is nn.BatchNorm2d)
            self._norm(self.now, name, module)
        elif kind is nn.ReLU and self.now is not None:
            self.now.activation, self.now.rectified = name, True
        elif kind in POOLS:
            self._expect(name, True)
        elif kind is nn.Flatten:
            self._flatten(name, module)
        elif kind in BLOCKS:
            self._block(name, module)

    def _layer(self, name: str, layer: nn.Linear | nn.Conv2d) -> None:
        """Let a layer read the channels, and begin those that it gives."""
        self._expect(name, isinstance(layer, nn.Conv2d))
        self._read(self.now, name, layer)
        if self.now is not None:
            self.done.append(self.now)
        self.now = _begun(name, layer)

    def _flatten(self, name: str, layer: nn.Flatten) -> None:
        if layer.start_dim != 1 or layer.end_dim != -1:
            raise InputError(f"{name} must be nn.Flatten(1, -1), got ({layer.start_dim}, {layer.end_dim}).")
        self.maps = False

    def _block(self, name: str, block: BasicBlock | Bottleneck) -> None:
        """Follow the stream around a residual block, and channels inside it."""
        self._expect(name, True)
        _check_block(name, block)
        stream = self.now
        if block.projection is not None:
            if stream is not None:
                self.done.append(stream)
            self._read(stream, f"{name}.projection", block.projection)
            self.now = _begun(f"{name}.projection", block.projection)
            self._norm(self.now, f"{name}.projection_norm", block.projection_norm)
        added = self._branch(name, block, stream)
        if self.now is not None:
            _check_length(self.now, name, added.size, blocks=False)
            self.now.axes += added.axes
            self.now.activation, self.now.rectified = name, True

    def _branch(self, name: str, block: BasicBlock | Bottleneck, stream: _Stream | None) -> _Stream:
        """Follow channels through the convolutions of a block; return those that it adds to the stream."""
        for place in range(1, BLOCKS[type(block)] + 1):
            layer, norm = (block.get_submodule(f"{kind}{place}") for kind in ("conv", "norm"))
            self._read(stream, f"{name}.conv{place}", layer)
            if place > 1:
                self.done.append(stream)
            stream = _begun(f"{name}.conv{place}", layer)
            self._norm(stream, f"{name}.norm{place}", norm)
            stream.relu = True
        return stream

    def _expect(self, name: str, maps: bool) -> None:
        """Check the kind of what a layer reads."""
        if self.maps is not None and self.maps != maps:
            words = ("maps", "values: put nn.Flatten before it")
            raise InputError(f"{name} must read {words[not maps]}; got {words[not self.maps].split(':')[0]}.")
        self.maps = maps

    def _read(self, stream: _Stream | None, name: str, layer: nn.Linear | nn.Conv2d) -> None:
        """Note that a layer reads channels."""
        if isinstance(layer, nn.Conv2d) and layer.groups > 1:
            raise InputError(f"{name} has {layer.groups} filter groups, which tie channels together; expected 1.")
        if stream is not None:
            _check_length(stream, name, layer.weight.shape[1], blocks=isinstance(layer, nn.Linear))
            stream.axes.append(Axis(f"{name}.weight", 1))

    def _norm(self, stream: _Stream | None, name: str, norm: nn.BatchNorm1d | nn.BatchNorm2d) -> None:
        """Note that channels are normalised."""
        if stream is None:
            return
        _check_length(stream, name, norm.num_features, blocks=isinstance(norm, nn.BatchNorm1d))
        parts = ("weight", "bias", "running_mean", "running_var")
        stream.axes += [Axis(f"{name}.{part}", 0) for part in parts if getattr(norm, part) is not None]
        if not stream.rectified:
            stream.activation = name


def _begun(name: str, layer: nn.Linear | nn.Conv2d) -> _Stream:
    return _Stream(name, layer.weight.shape[0], name, list(_outputs(name, layer)))


def _outputs(name: str, layer: nn.Linear | nn.Conv2d) -> Iterator[Axis]:
    """Yield the axes of what a layer gives."""
    yield Axis(f"{name}.weight", 0)
    if layer.bias is not None:
        yield Axis(f"{name}.bias", 0)


def _check_length(stream: _Stream, name: str, length: int, *, blocks: bool) -> None:
    if length % stream.size or (length != stream.size and not blocks):
        raise InputError(f"{name} reads {length} channels; {stream.name} before it gives {stream.size}.")


def _check_block(name: str, block: BasicBlock | Bottleneck) -> None:
    """Refuse blocks whose stream cannot be renumbered stage by stage, or whose norms stand before convolutions."""
    if type(block) is BasicBlock and block.projection is None and (block.missing or block.stride > 1):
        raise InputError(
            f"{name} appends maps of zeros where the shape changes (shortcut='padding'), so that one stream runs "
            "through all stages. Build the network with shortcut='projection'."
        )
    if type(block) is Bottleneck and block.pre:
        raise InputError(f"{name} is a pre-activation block, which is not known; known are those of ResNet-50 to 152.")
