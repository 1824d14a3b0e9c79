"""Condensed layers in float32 on a CPU: layouts that follow their weights, work shared by threads.

What is computed: y[b, n] = Σ_j w[n, j] x[b, idx[n, j]] (Lasby et al. 2024, arXiv 2305.02299) and both gradients.
"""

import os
import threading
import weakref
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import lru_cache
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


@dataclass(frozen=True)
class Ready:
    """The weights as a kernel wants them: whoever holds it holds all arrays whose addresses the kernel is given.

    Attributes:
        layout: where each weight goes; None for `dense`.
        values: the weights in their places.
        rows: (active,) int64, the outputs that are active.
        addresses: for `lookup`, of the values, lanes, pairs, starts and rows.
    """

    layout: Any
    values: Any
    rows: np.ndarray
    addresses: tuple[int, ...] = ()


class Engine:
    """Computes one layer; keeps its layouts until the indices change, and their values until the weights do.

    Many threads may call it, also while others change the layer: layouts are made of copies of the indices that were
    checked, and what a kernel works with lives as long as it does.

    Args:
        outputs, inputs: out_features and in_features.
    """

    def __init__(self, outputs: int, inputs: int):
        self.outputs, self.inputs = outputs, inputs
        self._lock = threading.Lock()
        self._made: tuple[Stamp, dict[str, Ready]] | None = None  # of which weights, indices and rows; by kernel
        self._places: Stamp | None = None  # of which indices and rows the next two are
        self._kept: tuple[np.ndarray, np.ndarray] | None = None  # copies of both
        self._layouts: dict[str, Any] = {}
        self._none = torch.zeros(outputs, **PLAIN)

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
        ready = self._ready(kernel, weight, index, rows)
        added = self._none if bias is None else bias
        if added.dtype != torch.float32 or not added.is_contiguous():
            added = added.to(torch.float32).contiguous()
        if kernel == "dense":
            y = functional.linear(x, ready.values, bias)
            sound = not bool(y.isnan().any())
        else:
            y = torch.empty(batch, self.outputs, **PLAIN)
            compute = {"lookup": _lookup, "gather": _gather, "lanes": _lanes}[kernel]
            sound = compute(x, ready, added, y)
        return y if sound else self.forward(x, weight, index, rows, bias, "gather")

    def input_gradient(
        self, given: torch.Tensor, weight: torch.Tensor, index: torch.Tensor, rows: torch.Tensor
    ) -> torch.Tensor:
        """Gradient of the inputs: `given` (B, active), contiguous, at least 16 active → (B, in)."""
        ready = replace(self._ready("transposed", weight, index, rows), rows=np.arange(self.inputs))
        gradient = torch.empty(len(given), self.inputs, **PLAIN)
        _lanes(given, ready, torch.zeros(self.inputs, **PLAIN), gradient)
        return gradient

    def weight_gradient(
        self, given: torch.Tensor, x: torch.Tensor, weight: torch.Tensor, index: torch.Tensor, rows: torch.Tensor
    ) -> torch.Tensor:
        """Gradient of the weights: `given` (B, active) and x (B, in), at least 16 wide → (active, k)."""
        tiles = self._ready("lanes", weight, index, rows).layout
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

    def _ready(self, name: str, weight: torch.Tensor, index: torch.Tensor, rows: torch.Tensor) -> Ready:
        """The weights as a kernel wants them, made or refreshed where something has changed."""
        made = self._made
        if made is not None and made[0].holds(weight, index, rows) and name in made[1]:
            return made[1][name]
        with self._lock:
            seen = Stamp(weight, index, rows)  # before they are read: the next call notices changes meanwhile
            self._follow(index, rows)
            if self._made is None or not self._made[0].holds(weight, index, rows):
                self._made = seen, {}
            if name not in self._layouts:
                self._layouts[name] = self._layout(name, self._kept[0])
            ready = self._made[1][name] = self._filled(name, weight.detach().contiguous())
            return ready

    def _follow(self, index: torch.Tensor, rows: torch.Tensor) -> None:
        """Copy and check the indices, and forget the layouts, where these have others than those that are kept."""
        if self._places is not None and self._places.holds(index, rows):
            return
        places, found = Stamp(index, rows), (index.numpy(), rows.numpy())
        if self._kept is None or not all(map(np.array_equal, found, self._kept)):
            self._made, self._places, self._layouts = None, None, {}
            self._kept = self._checked(*(array.copy() for array in found))
        self._places = places

    def _checked(self, index: np.ndarray, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Both, where all places exist: the kernels read and write without looking."""
        for name, places, count in (("index", index, self.inputs), ("rows", rows, self.outputs)):
            if places.size and not (places.min() >= 0 and places.max() < count):
                raise InputError(
                    f"{name} must lie in [0, {count}), got {places.min()} to {places.max()}. "
                    "Was a state of another layer loaded?"
                )
        return index.astype(np.int32, copy=False), rows.astype(np.int64, copy=False)

    def _layout(self, name: str, index: np.ndarray) -> Any:
        """Where each weight goes."""
        active, fan_in = index.shape
        neurons, inputs = np.repeat(np.arange(active), fan_in), index.ravel().astype(np.int64)
        if name == "lookup":
            return layouts.slots_of(index, self.inputs)
        if name == "lanes":
            return layouts.tiles_of(neurons, inputs, (active, self.inputs))
        if name == "transposed":
            return layouts.tiles_of(inputs, neurons, (self.inputs, active))
        return index if name == "gather" else None

    def _filled(self, name: str, weight: torch.Tensor) -> Ready:
        """The weights, each in its place."""
        index, rows = self._kept
        layout = self._layouts[name]
        if name == "dense":
            dense, places = torch.zeros(self.outputs, self.inputs, **PLAIN), (rows[:, None], index.astype(np.int64))
            dense.index_put_(tuple(map(torch.from_numpy, places)), weight, accumulate=True)
            return Ready(layout, dense, rows)
        if name == "gather":
            return Ready(layout, weight.numpy(), rows)
        values = layouts.values_of(weight.numpy(), layout.source)
        arrays = (values, layout.lanes, layout.pairs, layout.starts, rows) if name == "lookup" else ()
        return Ready(layout, values, rows, tuple(array.ctypes.data for array in arrays))


# ---- kernels ---------------------------------------------------------------------------------------------------------


def _lookup(x: torch.Tensor, made: Ready, bias: torch.Tensor, y: torch.Tensor) -> bool:
    """Write the outputs by lookups; returns whether none is NaN: only then was no unused input infinite or NaN."""
    slots, rows, (*addresses, rows_place) = made.layout, made.rows, made.addresses
    (batch, inputs), groups, outputs = x.shape, len(slots.starts) - 1, y.shape[1]
    given = x.data_ptr(), inputs, batch, *addresses
    target = rows_place, len(rows), bias.data_ptr(), y.data_ptr(), outputs
    work = batch * len(slots.pairs)
    if work < SHARED or torch.get_num_threads() == 1:
        return kernels.lookup(*given, 0, groups, *target)
    _fill(y, rows, bias)
    return all(_share(lambda first, last: kernels.lookup(*given, first, last, *target), groups, work))


def _gather(x: torch.Tensor, made: Ready, bias: torch.Tensor, y: torch.Tensor) -> bool:
    """Write the outputs one by one."""
    index, weight, rows = made.layout, made.values, made.rows
    _fill(y, rows, bias)
    given, target = (x.data_ptr(), x.shape[1], len(x), weight, index), (bias.detach().numpy(), y.data_ptr(), y.shape[1])
    _share(lambda first, last: kernels.gather(*given, first, last, rows, *target), len(index), len(x) * index.size)
    return True


def _lanes(x: torch.Tensor, made: Ready, bias: torch.Tensor, y: torch.Tensor) -> bool:
    """Write the outputs by lanes, parts of the batch in threads."""
    tiles, values, rows = made.layout, made.values, made.rows
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
    pool = _pool(os.getpid(), threads)
    return list(pool.map(lambda part: task(*part), parts))


@lru_cache(maxsize=1)
def _pool(process: int, threads: int) -> ThreadPoolExecutor:
    """Threads that wait for work; a process that was forked has none of its parent's.

    Only the last is kept: the threads of another end when nobody uses them any more.
    """
    return ThreadPoolExecutor(threads, thread_name_prefix=f"condensed-{process}")
