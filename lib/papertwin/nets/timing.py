"""How long networks take on a CPU, in several ways, and how long each layer takes.

Ways to run a network, which give the same result up to rounding:

- eager: as torch runs it by default, maps in the order (B, C, H, W);
- channels_last: maps and weights in the order (B, H, W, C);
- fastest: each layer in the way that `papertwin.nets.execution.fastest` measures to be the best;
- compile: by `torch.compile`, which needs a C++ compiler.
"""

import copy
import os
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial

import pandas as pd
import torch
from torch import nn

from papertwin.errors import InputError
from papertwin.nets.counting import count
from papertwin.nets.execution import fastest
from papertwin.nets.sizes import whole
from papertwin.training.clock import interleaved
from papertwin.training.loop import torch_threads

WAYS = ("eager", "channels_last", "fastest", "compile")

Call = Callable[[], torch.Tensor]


def forward_times(
    models: Mapping[str, nn.Module],
    shape: tuple[int, int, int],
    *,
    batch: int = 1,
    rounds: int,
    way: str = "eager",
    threads: int | None = 1,
) -> pd.DataFrame:
    """Time forward passes of several networks on a CPU, for inference; they take turns.

    Args:
        models: name → network in eval mode, on the CPU.
        shape: (C, H, W) of an image; the images are drawn.
        batch: images at once.
        rounds: of the clock, at least 1; one more comes before and is not counted.
        way: one of `WAYS`.
        threads: of torch meanwhile; None leaves them as they are. The fastest way is looked for with one.

    Returns:
        Seconds of a batch: a row a round, a column a network. A network that cannot be compiled has no column, and
        `attrs["left out"]` holds the reason.

    Raises:
        InputError: no such way, or a model is in training mode or not on the CPU.
    """
    images = torch.randn(whole("batch", batch), *shape, generator=torch.Generator().manual_seed(0))
    found = {name: prepared(model, images, way) for name, model in models.items()}
    calls = {name: call for name, (call, _) in found.items() if call is not None}
    with torch.inference_mode():
        times = interleaved(calls, rounds=rounds, threads=threads) if calls or not found else pd.DataFrame()
    times.attrs["left out"] = {name: reason for name, (call, reason) in found.items() if call is None}
    return times


def prepared(model: nn.Module, images: torch.Tensor, way: str, *, search: int = 5) -> tuple[Call | None, str]:
    """What answers some images in one of `WAYS`; the model stays as it is.

    Args:
        model: network in eval mode, on the CPU.
        images: (B, C, H, W) on the CPU.
        way: one of `WAYS`.
        search: rounds of each measurement by which the fastest way is chosen.

    Returns:
        What to call, in inference mode, and an empty text; or None and the reason why it cannot be.

    Raises:
        InputError: no such way, or the model is in training mode or not on the CPU.
    """
    _check(model, images)
    if way == "eager":
        return partial(model, images), ""
    if way == "channels_last":
        other = copy.deepcopy(model).to(memory_format=torch.channels_last)
        return partial(other, images.contiguous(memory_format=torch.channels_last)), ""
    if way == "fastest":
        return partial(fastest(model, images, rounds=search), images), ""
    if way == "compile":
        return _compiled(model, images)
    raise InputError(f"way must be one of {', '.join(WAYS)}, got {way!r}.")


def compiler() -> str | None:
    """The C++ compiler that torch.compile can use on a CPU; None where none is found."""
    names = (os.environ.get("CXX"), "g++", "clang++", "cl")
    return next((name for name in names if name and shutil.which(name)), None)


def _compiled(model: nn.Module, images: torch.Tensor) -> tuple[Call | None, str]:
    """A compiled network that has answered these images once, or None and the reason in words."""
    if compiler() is None:
        return None, "no C++ compiler found"
    try:
        call = partial(torch.compile(model, fullgraph=True, dynamic=False), images)
        with torch.inference_mode():
            call()
    except Exception as error:  # of dynamo, of inductor, of the compiler that it calls: torch promises no common class
        lines = str(error).strip().splitlines() or ["no words"]
        return None, f"compiling failed, {type(error).__name__}: {lines[0][:80]}"
    return call, ""


def layer_times(model: nn.Module, images: torch.Tensor, *, rounds: int, threads: int | None = 1) -> pd.DataFrame:
    """Time every convolution and fully connected layer of a network on a CPU, within forward passes of the whole.

    The clock runs between the hooks before and after a layer, so that its time is that with the memory and caches of
    the whole network; what lies between layers (ReLU, pools, normalisation, concatenation) is not in it.

    Args:
        model: network in eval mode, on the CPU.
        images: (B, C, H, W) on the CPU.
        rounds: passes, of which the median is taken; one more comes before and is not counted.
        threads: of torch meanwhile; None leaves them as they are.

    Returns:
        A row a layer, in the order in which they run: `layer`, `MACs` of an image, `ms` a pass; and a last row `total`,
        whose ms are those of the whole pass.

    Raises:
        InputError: model or images are not on the CPU, the model is in training mode, `rounds` is no whole number above
            0, or a layer runs twice.
    """
    whole("rounds", rounds)
    _check(model, images)
    counts = count(model, tuple(images.shape[1:]))
    names = [row.name for row in counts.layers]
    if len(set(names)) < len(names):
        raise InputError("A layer that runs twice in a pass cannot be timed by its name.")
    spent: list[dict[str, float]] = []
    with torch_threads(threads), torch.inference_mode(), _clocked(model, names) as seconds:
        for _ in range(rounds + 1):
            start = time.perf_counter()
            model(images)
            spent.append({**seconds, "total": time.perf_counter() - start})
    medians = 1e3 * pd.DataFrame(spent[1:]).median()
    table = pd.DataFrame({"layer": names, "MACs": [row.macs for row in counts.layers]})
    table.loc[len(table)] = ["total", counts.macs]
    return table.assign(ms=table["layer"].map(medians))


def _check(model: nn.Module, images: torch.Tensor) -> None:
    """Raise InputError unless all is on the CPU and for inference."""
    places = {images.device.type, *(each.device.type for each in model.parameters())}
    if places != {"cpu"}:
        raise InputError(f"Networks are timed on the CPU, got a model or images on {', '.join(sorted(places))}.")
    if model.training:
        raise InputError("Networks are timed for inference, got a model in training mode. Call model.eval() first.")


@contextmanager
def _clocked(model: nn.Module, names: list[str]) -> Iterator[dict[str, float]]:
    """Keep the seconds of the last call of each layer."""
    seconds: dict[str, float] = {}
    started: dict[str, float] = {}
    hooks = []
    for name in names:
        layer = model.get_submodule(name)

        def before(*_: object, name: str = name) -> None:
            started[name] = time.perf_counter()

        def after(*_: object, name: str = name) -> None:
            seconds[name] = time.perf_counter() - started[name]

        hooks += [layer.register_forward_pre_hook(before), layer.register_forward_hook(after)]
    try:
        yield seconds
    finally:
        for hook in hooks:
            hook.remove()
