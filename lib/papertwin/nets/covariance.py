"""Covariance within and between layers of a network, over any number of images.

Paper: Y. Ioannou et al.: Deep Roots. CVPR 2017, arXiv 1605.06489. Every pixel of every image is a sample, the smaller
map is upsampled to the larger by its nearest pixels, Σ12 = X1 X2ᵀ / (N − 1) after the means are subtracted, and each
side is whitened by its own W = P D^(−1/2) Pᵀ before the covariance between the two is drawn.

Sums are those of `papertwin.nets.comoments`, float64. The covariance of a side is that of the paired samples, upsampled
where it is the smaller one.

Ours: ε is a part of the mean of D (see `whitening`); the nearest pixel is ⌊i·h/H⌋, also where a map does not fit a
whole number of times; correlations with a channel that never varies are 0.
"""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import pairwise
from typing import Any, Literal

import numpy as np
import torch
from torch import nn

from papertwin.errors import InputError
from papertwin.nets.comoments import EPSILON, Comoments, double, product, whitening
from papertwin.nets.layers import Composite
from papertwin.nets.sizes import whole
from papertwin.training.device import pick_device
from papertwin.training.loop import scores, torch_threads

ROWS = 2**16  # samples that are float64 at once
SIDES = ("first", "second")

Side = Literal["first", "second"]
Pair = tuple[str, str]


class LayerCovariance:
    """Covariance within and between two layers, of maps that arrive in batches.

    Attributes:
        first: channels of the first layer, C1.
        second: channels of the second, C2.
    """

    def __init__(self, first: int, second: int) -> None:
        """Begin with no map.

        Raises:
            InputError: a number is no whole one above 0.
        """
        self.first, self.second = whole("first", first), whole("second", second)
        self._moments = Comoments(self.first + self.second)

    def update(self, first: Any, second: Any) -> None:
        """Take in maps of both layers for the same images.

        Args:
            first: (n, C1, H, W) real numbers, NumPy or torch.
            second: (n, C2, h, w); the map that is smaller on both axes is upsampled.

        Raises:
            InputError: shapes do not fit, neither map is the larger one, or a value is NaN or infinite.
        """
        maps = [torch.as_tensor(values).detach() for values in (first, second)]
        for side, channels, each in zip(SIDES, (self.first, self.second), maps):
            if each.ndim != 4 or each.shape[1] != channels or not each.shape[2:].numel():
                raise InputError(f"{side} must be maps of shape (n, {channels}, H, W), got {tuple(each.shape)}.")
        if len(maps[0]) != len(maps[1]):
            raise InputError(f"Both layers must be of the same images, got {len(maps[0])} and {len(maps[1])}.")
        size = _larger(maps[0].shape[2:], maps[1].shape[2:])
        step = max(1, ROWS // (size[0] * size[1]))
        for start in range(0, len(maps[0]), step):
            parts = (_upsampled(double(each[start : start + step]), size) for each in maps)
            self._moments.update(torch.cat([part.movedim(1, -1).flatten(0, 2) for part in parts], dim=1))

    @property
    def samples(self) -> int:
        """N, the pixels of the larger map over all images."""
        return self._moments.samples

    @property
    def cross(self) -> np.ndarray:
        """Σ12, (C1, C2) float64.

        Raises:
            InputError: fewer than two samples were seen.
        """
        return self._moments.covariance[: self.first, self.first :]

    def covariance(self, side: Side) -> np.ndarray:
        """Σ11 of the "first" or Σ22 of the "second" layer, (C, C) float64.

        Raises:
            InputError: unknown side, or fewer than two samples were seen.
        """
        part = self._part(side)
        return self._moments.covariance[part, part]

    def correlation(self, side: Side) -> np.ndarray:
        """Correlation within a layer, (C, C) float64 in [-1, 1]; 0 with a channel that never varies.

        Raises:
            InputError: unknown side, or fewer than two samples were seen.
        """
        part = self._part(side)
        return self._moments.correlation[part, part]

    def whitened(self, epsilon: float = EPSILON) -> np.ndarray:
        """W1 Σ12 W2ᵀ, where W = P D^(−1/2) Pᵀ of each side's own covariance P D Pᵀ, (C1, C2) float64.

        Args:
            epsilon: ε as a part of the mean of D, which is added to D; at least 0.

        Raises:
            InputError: `epsilon` is no such number or 0 where a covariance is singular, nothing varies in a layer, or
                fewer than two samples were seen.
        """
        for side in SIDES:
            if not self._moments.varies[self._part(side)].any():
                raise InputError(f"No channel of the {side} layer ever varies, got nothing to whiten.")
        first, second = (whitening(self.covariance(side), epsilon) for side in SIDES)
        return product(first, self.cross, second.T)

    def _part(self, side: str) -> slice:
        if side not in SIDES:
            raise InputError(f"side must be 'first' or 'second', got {side!r}.")
        return slice(self.first) if side == "first" else slice(self.first, None)


def layer_covariances(
    model: nn.Module,
    images: Any,
    pairs: Iterable[Pair],
    *,
    batch: int = 100,
    device: Any = None,
    threads: int | None = 1,
) -> dict[Pair, LayerCovariance]:
    """Measure the covariance of pairs of layers in one pass over the images, in evaluation mode.

    A layer is measured where its module ends: in the networks of this package `conv3a` is the response before batch
    normalisation and ReLU, `conv3a_relu` the one after them. The network comes back as it was.

    Args:
        model: network, images → any output.
        images: (n, c, h, w) floats, NumPy or torch, scaled as the model takes them; or batches of these, one after the
            other, none kept.
        pairs: dotted names of two modules that give maps, such as ("conv2c_relu", "conv3a").
        batch: images at once, at most.
        device: where to compute; None is where the model is.
        threads: of torch on the CPU; None leaves them as they are, and then the last bits depend on their number.

    Returns:
        A `LayerCovariance` for each pair, in the order of `pairs`.

    Raises:
        InputError: no image, no such module, a module that gives no maps or runs more or less than once an image.
        ParameterError: no such device here.
    """
    size, wanted = whole("batch", batch), _checked_pairs(model, pairs)
    found: dict[Pair, LayerCovariance] = {}
    names = {name for pair in wanted for name in pair}
    with torch_threads(threads), _moved(model, device), _responses(model, names) as responses:
        for part in _batches(images, size):
            scores(model, part, size, threads)
            _take_in(found, wanted, responses)
            responses.clear()
    if not found:
        raise InputError("There must be an image at least, got none.")
    return found


def consecutive_pairs(model: nn.Module, *, after_relu: tuple[bool, bool] = (True, False)) -> list[Pair]:
    """Name each convolution or composite layer of a chain and the next, for `layer_covariances`.

    Args:
        model: chain of named layers, whose ReLU is called as the layer and `_relu`.
        after_relu: whether the first and the second of a pair are measured after their ReLU, where they have one.

    >>> from papertwin.nets import cifar_nin
    >>> consecutive_pairs(cifar_nin(seed=0))[:2]
    [('conv1a_relu', 'conv1b'), ('conv1b_relu', 'conv1c')]
    """
    known = dict(model.named_children())
    layers = [name for name, layer in known.items() if isinstance(layer, nn.Conv2d | Composite)]

    def point(name: str, after: bool) -> str:
        return f"{name}_relu" if after and f"{name}_relu" in known else name

    return [(point(a, after_relu[0]), point(b, after_relu[1])) for a, b in pairwise(layers)]


def _checked_pairs(model: nn.Module, pairs: Iterable[Pair]) -> list[Pair]:
    """Check that pairs name modules of the model."""
    wanted, known = list(pairs), {name for name, _ in model.named_modules()} - {""}
    for pair in wanted:
        if not isinstance(pair, tuple) or len(pair) != 2 or not known.issuperset(pair):
            some = ", ".join(sorted(known)[:30])
            raise InputError(f"pairs must be (first, second) names of modules, got {pair!r}; there are {some}.")
    if not wanted:
        raise InputError("There must be a pair of layers at least, got none.")
    return list(dict.fromkeys(wanted))


@contextmanager
def _moved(model: nn.Module, device: Any) -> Iterator[None]:
    """Bring a model to a device within the block, and home after it; None does nothing."""
    first = next(model.parameters(), None)
    if device is None or first is None:
        yield
        return
    home = first.device
    model.to(pick_device(device))
    try:
        yield
    finally:
        model.to(home)


@contextmanager
def _responses(model: nn.Module, names: Iterable[str]) -> Iterator[dict[str, torch.Tensor]]:
    """Fill a dictionary with the outputs of modules whenever the model runs; a later in-place ReLU changes no copy."""
    kept: dict[str, torch.Tensor] = {}

    def keep(name: str, output: Any) -> None:
        if name in kept:
            raise InputError(f"Module {name} runs twice an image, got two responses: choose one that runs once.")
        if not isinstance(output, torch.Tensor) or output.ndim != 4:
            raise InputError(
                f"Module {name} must give maps (n, C, H, W), got {getattr(output, 'shape', type(output))}."
            )
        kept[name] = output.detach().clone()

    modules = dict(model.named_modules())
    hooks = [modules[n].register_forward_hook(lambda _, __, out, name=n: keep(name, out)) for n in names]
    try:
        yield kept
    finally:
        for hook in hooks:
            hook.remove()


def _batches(images: Any, size: int) -> Iterator[torch.Tensor]:
    """Yield images, an array or batches of them, in parts of at most `size`."""
    for batch in [images] if hasattr(images, "shape") else images:
        if not hasattr(batch, "shape"):
            raise InputError(
                f"A batch must be an array or tensor of images without labels, got {type(batch).__name__}."
            )
        yield from torch.as_tensor(batch).split(size) if len(batch) else ()


def _take_in(found: dict[Pair, LayerCovariance], pairs: Sequence[Pair], responses: dict[str, torch.Tensor]) -> None:
    """Give the maps of a batch to each pair of layers."""
    for pair in pairs:
        if missing := [name for name in pair if name not in responses]:
            raise InputError(f"Module {missing[0]} does not run in evaluation mode, got no response.")
        first, second = (responses[name] for name in pair)
        if pair not in found:
            found[pair] = LayerCovariance(first.shape[1], second.shape[1])
        found[pair].update(first, second)


def _larger(first: torch.Size, second: torch.Size) -> tuple[int, int]:
    """Height and width of the larger of two maps."""
    size = max(first[0], second[0]), max(first[1], second[1])
    if size not in (tuple(first), tuple(second)):
        raise InputError(f"One map must be the larger one on both axes, got {tuple(first)} and {tuple(second)}.")
    return size


def _upsampled(maps: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
    """Repeat pixels until a map has that height and width; whole numbers, as a rounded scale may miss a pixel."""
    if tuple(maps.shape[2:]) == size:
        return maps
    rows, columns = (
        torch.arange(large, device=maps.device) * small // large for large, small in zip(size, maps.shape[2:])
    )
    return maps[:, :, rows[:, None], columns]
