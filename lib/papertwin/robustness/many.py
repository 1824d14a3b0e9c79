"""Search many seeds side by side, and go on where a killed run stopped.

What is found does not depend on the number of processes (`papertwin.training.pool`). With a store, each finished seed
is written to a file whose name is a hash of everything the result depends on: the algorithm, its settings, the network,
the seed image, the source of this package and the versions of those that compute for it. A search that ran out of time
or failed is not kept: it is tried again.
"""

import hashlib
import io
import json
import math
from collections.abc import Callable
from dataclasses import asdict, fields
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from papertwin import files, imports
from papertwin.errors import InputError
from papertwin.robustness.outcome import Adversarial, Robustness
from papertwin.training.pool import Pool

# algorithm → module, function, type of its result
METHODS = {
    "lp": ("papertwin.robustness.pointwise", "pointwise_robustness", Robustness),
    "lbfgs": ("papertwin.robustness.lbfgs", "lbfgs_adversarial", Adversarial),
}
PACKAGES = ("highspy", "numpy", "pulp", "scipy", "torch")  # whose versions may change what is found
ENDED = ("found", "partial", "infeasible", "not found")  # what is stored: searches that came to an end
KEPT = 4  # networks that a process remembers
Progress = Callable[[str, float], None]


class SeedPool(Pool):
    """Processes that search; use it in a `with` block, or close it.

    >>> with SeedPool(2) as pool:                                             # doctest: +SKIP
    ...     found = pool.search(model, images, "lp", settings={"margin": 1e-6})
    """

    def search(
        self,
        model: nn.Module,
        images: np.ndarray,
        method: str,
        *,
        settings: dict[str, Any] | None = None,
        store: Path | None = None,
        progress: Progress | None = None,
    ) -> list[Any]:
        """Search every seed.

        Args:
            model: the network.
            images: (n, …) seeds.
            method: lp or lbfgs.
            settings: keyword arguments of `pointwise_robustness` or `lbfgs_adversarial`.
            store: folder of finished seeds; None keeps nothing.
            progress: called with a text and the share that is done, in [0, 1].

        Returns:
            n results in the order of the images.

        Raises:
            InputError: no such method, or what the method refuses.
            RunError: a process died, for lack of memory for instance.
        """
        if method not in METHODS:
            raise InputError(f"method is {method!r}; expected one of {', '.join(METHODS)}.")
        settings = settings or {}
        network = _packed(model)
        seeds = np.asarray(images, dtype=np.float64)
        places = [_place(store, method, settings, network, seed) for seed in seeds]
        found: list[Any] = [_read(place, method) for place in places]
        left = [index for index, outcome in enumerate(found) if outcome is None]
        tasks = [(method, settings, network, seeds[index]) for index in left]
        for number, outcome in self.completed(_search, tasks):
            found[left[number]] = outcome
            if outcome.status in ENDED:
                _write(places[left[number]], outcome)
            if progress is not None:
                known = sum(each is not None for each in found)
                progress(f"{method}: point {known} of {len(found)}", known / len(found))
        return found


def _search(method: str, settings: dict[str, Any], network: bytes, seed: np.ndarray) -> Any:
    """Body of a process: one seed."""
    module, name, _ = METHODS[method]
    return getattr(import_module(module), name)(_unpacked(network), seed, **settings)


def _packed(model: nn.Module) -> bytes:
    """The network as bytes; layers that a notebook or a function defines travel with their code."""
    import cloudpickle

    buffer = io.BytesIO()
    torch.save(model, buffer, pickle_module=cloudpickle)
    return buffer.getvalue()


_networks: dict[bytes, nn.Module] = {}


def _unpacked(network: bytes) -> nn.Module:
    """The network, built once per process; it comes from this program's own memory, never from a file."""
    key = hashlib.sha256(network).digest()
    if key not in _networks:
        while len(_networks) >= KEPT:
            _networks.pop(next(iter(_networks)))
        _networks[key] = torch.load(io.BytesIO(network), weights_only=False, map_location="cpu")
    return _networks[key]


def _place(store: Path | None, method: str, settings: dict[str, Any], network: bytes, seed: np.ndarray) -> Path | None:
    if store is None:
        return None
    source = imports.digest(tuple(module for module, *_ in METHODS.values()), PACKAGES)
    digest = hashlib.sha256(source.encode())
    for part in (method, json.dumps(settings, sort_keys=True, default=str), str(seed.shape)):
        digest.update(part.encode() + b"\0")
    digest.update(hashlib.sha256(network).digest() + seed.tobytes())
    return Path(store) / method / f"{digest.hexdigest()}.npz"


def _write(place: Path | None, outcome: Any) -> None:
    if place is None:
        return
    values = asdict(outcome)
    witness = values.pop("witness")
    arrays = {"values": np.array(json.dumps(values))} | ({} if witness is None else {"witness": witness})
    with files.replacing(place) as temporary, temporary.open("wb") as stream:
        np.savez(stream, **arrays)


def _read(place: Path | None, method: str) -> Any:
    """A finished seed; None where there is none, or where it was damaged."""
    if place is None or not place.is_file():
        return None
    kind = METHODS[method][2]
    try:
        with np.load(place, allow_pickle=False) as stored:
            values = json.loads(str(stored["values"]))
            values["witness"] = stored["witness"] if "witness" in stored.files else None
        if set(values) != {field.name for field in fields(kind)} or not isinstance(values["epsilon"], float):
            return None
        known = values["witness"] is not None
        return kind(**values) if known == math.isfinite(values["epsilon"]) else None
    except Exception:  # a damaged archive may raise almost anything
        return None
