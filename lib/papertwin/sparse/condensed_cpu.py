"""Condensed layers in float32 on a CPU: layouts that follow their weights, work shared by threads.

What is computed: y[b, n] = Σ_j w[n, j] x[b, idx[n, j]] (Lasby et al. 2024, arXiv 2305.02299) and both gradients.
"""

import os
import threading
import weakref
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from torch.nn import functional

from papertwin.errors import InputError
from papertwin.sparse import condensed_kernels as kernels
from papertwin.sparse import condensed_layouts as layouts
from papertwin.sparse.condensed_layouts import LANES, Kernel

PLAIN = {"dtype": torch.float32, "device": "cpu"}  # what the kernels write, whatever the default is
ROOM = layouts.TILE + LANES  # rows of a tile in the scratch memory of a kernel
SHARED = 400_000  # slots times rows of the batch, from which on threads share them: about 0.4 ms
MUCH = 64 * SHARED  # weights times rows of the batch, for lanes: about 0.5 ms


class Stamp:
    """Which state of some tensors something was made of: the objects, where their values lie, changes in place.

    Changes through `.data` or another library leave no trace; tensors of inference mode never count as known.
    """

    def __init__(self, *tensors: torch.Tensor):
        self._known = [
            (weakref.ref(tensor), tensor.data_ptr(), None if tensor.is_inference() else tensor._version)
            for tensor in tensors
        ]

    def holds(self, *tensors: torch.Tensor) -> bool:
        """Whether these are the same tensors, unchanged."""
        for (known, place, version), tensor in zip(self._known, tensors):
            if known() is not tensor or version is None or tensor.data_ptr() != place or tensor._version != version:
                return False
        return True


class Engine:
    """Computes one layer; keeps its layouts until the indices change, and their values until the weights do.

    Args:
        outputs, inputs: out_features and in_features.
    """

    def __init__(self, outputs: int, inputs: int):
        self.outputs, self.inputs = outputs, inputs
        self._lock = threading.RLock()
        self.forget()

    def forget(self) -> None:
        """Drop everything that was made of the weights and indices."""
        self._seen: Stamp | None = None  # weights, indices and rows, of the values
        self._places: Stamp | None = None  # indices and rows, of the layouts
        self._made: dict[str, Any] = {}
        self._values: dict[str, Any] = {}
        self._rows = np.empty(0, np.int64)
        self._none = torch.zeros(self.outputs, **PLAIN)

    def forward(
        self,
        x: torch.Tensor,
        weight: torch.Tensor,
        index: torch.Tensor,
        rows: torch.Tensor,
        bias: torch.Tensor | None,
        kernel: Kernel | None = None,
    ) -> torch.Tensor:
        """Outputs of the layer.

        Args:
            x: (B, in), contiguous, B at least 1.
            weight, index: (active, k), at least one active.
            rows: (active,), the outputs that are active.
            bias: (out,).
            kernel: a name in `condensed_layouts.KERNELS`; None picks the fastest.

        Returns:
            (B, out).
        """
        batch = x.shape[0]
        if kernel is None:
            kernel = layouts.pick_kernel(batch, self.inputs, weight.shape[1], layouts.has_lookups())
        else:
            layouts.check_kernel(kernel, self.inputs)
        values = self._ready(kernel, weight, index, rows)
        added = self._none if bias is None else bias
        if added.dtype != torch.float32 or not added.is_contiguous():
            added = added.to(torch.float32).contiguous()
        if kernel == "dense":
            y = functional.linear(x, values, bias)
            sound = not bool(y.isnan().any())
        else:
            y = torch.empty(batch, self.outputs, **PLAIN)
            compute = {"lookup": _lookup, "gather": _gather, "lanes": _lanes}[kernel]
            sound = compute(x, values, self._rows, added, y)
        return y if sound else self.forward(x, weight, index, rows, bias, "gather")

    def input_gradient(
        self, given: torch.Tensor, weight: torch.Tensor, index: torch.Tensor, rows: torch.Tensor
    ) -> torch.Tensor:
        """Gradient of the inputs: `given` (B, active), contiguous, at least 16 active → (B, in)."""
        values = self._ready("transposed", weight, index, rows)
        gradient = torch.empty(len(given), self.inputs, **PLAIN)
        _lanes(given, values, np.arange(self.inputs), torch.zeros(self.inputs, **PLAIN), gradient)
        return gradient

    def weight_gradient(
        self, given: torch.Tensor, x: torch.Tensor, weight: torch.Tensor, index: torch.Tensor, rows: torch.Tensor
    ) -> torch.Tensor:
        """Gradient of the weights: `given` (B, active) and x (B, in), at least 16 wide → (active, k)."""
        tiles, _ = self._ready("lanes", weight, index, rows)
        missing = -len(x) % LANES
        given, x = (functional.pad(tensor, (0, 0, 0, missing)).contiguous() for tensor in (given, x))
        found = torch.zeros(index.numel(), **PLAIN)
        places = x.data_ptr(), self.inputs, given.data_ptr(), given.shape[1], len(x)
        matrix = tiles.columns, tiles.starts, tiles.order
        task = lambda first, last: kernels.weight_gradient(  # noqa: E731
            *places, matrix, first, last, found.data_ptr(), _scratch(4 * LANES * (given.shape[1] + 2 * ROOM))
        )
        _share(task, len(index), len(x) * index.numel() // LANES)
        gradient = torch.empty(index.numel(), **PLAIN)
        layouts.give_back(found.numpy(), tiles.source, gradient.numpy())
        return gradient.view(index.shape)

    # ---- layouts -----------------------------------------------------------------------------------------------------

    def _ready(self, name: str, weight: torch.Tensor, index: torch.Tensor, rows: torch.Tensor) -> Any:
        """The weights as a kernel wants them, made or refreshed where something has changed."""
        seen = self._seen
        if seen is not None and seen.holds(weight, index, rows):
            values = self._values.get(name)
            if values is not None:
                return values
        with self._lock:
            if self._places is None or not self._places.holds(index, rows):
                self.forget()
                self._rows = self._checked(index.numpy(), rows.numpy())
                self._places = Stamp(index, rows)
            if self._seen is None or not self._seen.holds(weight, index, rows):
                self._values = {}
                self._seen = Stamp(weight, index, rows)
            if name not in self._made:
                self._made[name] = self._layout(name, index.numpy(), len(index))
            values = self._values[name] = self._filled(name, weight.detach().contiguous(), index, rows)
            return values

    def _checked(self, index: np.ndarray, rows: np.ndarray) -> np.ndarray:
        """The active outputs, where all places exist: the kernels read and write without looking."""
        for name, places, count in (("index", index, self.inputs), ("rows", rows, self.outputs)):
            if places.size and not (places.min() >= 0 and places.max() < count):
                raise InputError(
                    f"{name} must lie in [0, {count}), got {places.min()} to {places.max()}. "
                    "Was a state of another layer loaded?"
                )
        return rows.astype(np.int64)

    def _layout(self, name: str, index: np.ndarray, active: int) -> Any:
        """Where each weight goes."""
        neurons = np.repeat(np.arange(active), index.shape[1])
        if name == "lookup":
            return layouts.slots_of(index, self.inputs)
        if name == "lanes":
            return layouts.tiles_of(neurons, index.ravel().astype(np.int64), (active, self.inputs))
        if name == "transposed":
            return layouts.tiles_of(index.ravel().astype(np.int64), neurons, (self.inputs, active))
        return np.ascontiguousarray(index, np.int32)

    def _filled(self, name: str, weight: torch.Tensor, index: torch.Tensor, rows: torch.Tensor) -> Any:
        """The weights, each in its place: the first two arguments of the functions below."""
        if name == "dense":
            dense = torch.zeros(self.outputs, self.inputs, **PLAIN)
            return dense.index_put_((rows.long()[:, None], index.long()), weight, accumulate=True)
        layout = self._made[name]
        if name == "gather":
            return layout, weight.numpy()
        values = layouts.values_of(weight.numpy(), layout.source)
        if name != "lookup":
            return layout, values
        addresses = tuple(array.ctypes.data for array in (values, layout.lanes, layout.pairs, layout.starts))
        return layout, addresses, values, self._rows.ctypes.data


# ---- kernels ---------------------------------------------------------------------------------------------------------


def _lookup(x: torch.Tensor, made: Any, rows: np.ndarray, bias: torch.Tensor, y: torch.Tensor) -> bool:
    """Write the outputs by lookups; returns whether none is NaN: only then was no unused input infinite or NaN."""
    slots, addresses, _, rows_place = made
    (batch, inputs), groups, outputs = x.shape, len(slots.starts) - 1, y.shape[1]
    given = x.data_ptr(), inputs, batch, *addresses
    target = rows_place, len(rows), bias.data_ptr(), y.data_ptr(), outputs
    work = batch * len(slots.pairs)
    if work < SHARED or torch.get_num_threads() == 1:
        return kernels.lookup(*given, 0, groups, *target)
    _fill(y, rows, bias)
    return all(_share(lambda first, last: kernels.lookup(*given, first, last, *target), groups, work))


def _gather(x: torch.Tensor, made: Any, rows: np.ndarray, bias: torch.Tensor, y: torch.Tensor) -> bool:
    """Write the outputs one by one."""
    index, weight = made
    _fill(y, rows, bias)
    given, target = (x.data_ptr(), x.shape[1], len(x), weight, index), (bias.detach().numpy(), y.data_ptr(), y.shape[1])
    _share(lambda first, last: kernels.gather(*given, first, last, rows, *target), len(index), len(x) * index.size)
    return True


def _lanes(x: torch.Tensor, made: Any, rows: np.ndarray, bias: torch.Tensor, y: torch.Tensor) -> bool:
    """Write the outputs by lanes, parts of the batch in threads."""
    tiles, values = made
    batch, inputs = x.shape
    _fill(y, rows, bias)
    threads = torch.get_num_threads() if batch * values.size >= MUCH else 1
    given = x.data_ptr(), inputs, batch, (values.ctypes.data, tiles.columns, tiles.starts, tiles.order)
    target, height = (rows, bias.detach().numpy(), y.data_ptr(), y.shape[1]), tiles.order.shape[1] + ROOM
    _in_threads(
        lambda first, width: kernels.lanes(*given, first, width, *target, _scratch(LANES * width * height)),
        layouts.parts(batch, threads),
        threads,
    )
    return True


def _fill(y: torch.Tensor, rows: np.ndarray, bias: torch.Tensor) -> None:
    """Give outputs that are ablated their bias."""
    if len(rows) < y.shape[1]:
        y.copy_(bias.detach().expand_as(y))


_memory = threading.local()


def _scratch(floats: int) -> np.ndarray:
    """Memory of this thread that stays: new pages, which the system clears, would keep the threads waiting."""
    if getattr(_memory, "kept", None) is None or len(_memory.kept) < floats:
        _memory.kept = layouts.aligned(np.empty(floats, np.float32))
    return _memory.kept


# ---- threads ---------------------------------------------------------------------------------------------------------


def _share(task: Callable[[int, int], Any], count: int, work: int) -> list[Any]:
    """Do `task` for [0, count), in threads where there is so much work that it pays."""
    threads = min(torch.get_num_threads(), count) if work >= SHARED else 1
    if threads == 1:
        return [task(0, count)]
    return _in_threads(task, list(pairwise(count * part // threads for part in range(threads + 1))), threads)


def _in_threads(task: Callable[..., Any], parts: list[tuple[Any, ...]], threads: int) -> list[Any]:
    """Do `task` for every part."""
    if threads == 1 or len(parts) == 1:
        return [task(*part) for part in parts]
    return list(_pool(os.getpid(), threads).map(lambda part: task(*part), parts))


@cache
def _pool(process: int, threads: int) -> ThreadPoolExecutor:
    """Threads that wait for work; a process that was forked has none of its parent's."""
    return ThreadPoolExecutor(threads, thread_name_prefix=f"condensed-{process}")
