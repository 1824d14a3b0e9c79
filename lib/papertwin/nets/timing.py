"""How long each layer of a network takes."""

import time
from collections.abc import Iterator
from contextlib import contextmanager

import pandas as pd
import torch
from torch import nn

from papertwin.errors import InputError
from papertwin.nets.counting import count
from papertwin.nets.sizes import whole
from papertwin.training.loop import torch_threads


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
        InputError: model or images are not on the CPU, `rounds` is no whole number above 0, or a layer runs twice.
    """
    whole("rounds", rounds)
    places = {images.device.type, *(each.device.type for each in model.parameters())}
    if places != {"cpu"}:
        raise InputError(f"Layers are timed on the CPU, got a model or images on {', '.join(sorted(places))}.")
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
