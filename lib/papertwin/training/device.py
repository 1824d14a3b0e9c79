"""Where to compute, with how many threads, and from which seed."""

import os
import random
from typing import Any

import numpy as np

from papertwin.checks import SEEDS, is_whole
from papertwin.errors import ParameterError
from papertwin.machine import cores

DEVICES = ("auto", "cpu", "cuda", "mps")
_threads: int | None = None


def available_devices() -> tuple[str, ...]:
    """Names of the devices that this machine and this build of torch have, `cpu` first."""
    import torch

    found = ["cpu"]
    if torch.cuda.is_available():
        found.append("cuda")
    if torch.backends.mps.is_available():
        found.append("mps")
    return tuple(found)


def pick_device(name: Any = "auto") -> Any:
    """The torch device of that name; `auto` takes the accelerator where there is one.

    Args:
        name: auto, cpu, cuda, cuda:<index> or mps, or a torch.device.

    Returns:
        A `torch.device` that exists on this machine.

    Raises:
        ParameterError: the name is unknown, or this machine has no such device.
    """
    import torch

    wanted = str(name).strip().lower()
    kind, _, index = wanted.partition(":")
    if kind not in DEVICES or (index and (kind != "cuda" or not index.isdigit())):
        raise ParameterError(f"Unknown device {name!r}: expected one of {', '.join(DEVICES)}, or cuda:<index>.")
    found = available_devices()
    if kind == "auto":
        return torch.device(found[-1])
    if kind not in found:
        raise ParameterError(
            f"Device {wanted!r} is not available here: torch {torch.__version__} finds {', '.join(found)}. "
            "Use auto or cpu, or install a torch build for this accelerator."
        )
    if index and int(index) >= torch.cuda.device_count():
        raise ParameterError(
            f"Device {wanted!r} does not exist: torch finds {torch.cuda.device_count()} CUDA device(s), counted from 0."
        )
    return torch.device(wanted)


def thread_count() -> int:
    """Threads that PaperTwin's own kernels use.

    The number given to `set_threads`, otherwise NUMBA_NUM_THREADS or OMP_NUM_THREADS where set, otherwise the
    processors this process may run on.
    """
    if _threads is not None:
        return _threads
    for variable in ("NUMBA_NUM_THREADS", "OMP_NUM_THREADS"):
        value = os.environ.get(variable, "").split(",")[0].strip()
        if value.isdigit() and int(value) > 0:
            return int(value)
    return cores()


def set_threads(count: int | None) -> None:
    """Use `count` threads in PaperTwin's kernels and in torch; None goes back to the default of the machine.

    Raises:
        ParameterError: `count` is not a whole number above 0.
    """
    global _threads
    if count is not None and (isinstance(count, bool) or not isinstance(count, int) or count < 1):
        raise ParameterError(f"The number of threads must be a whole number above 0, got {count!r}.")
    import torch

    _threads = count
    torch.set_num_threads(thread_count())


def seed_everything(seed: int) -> None:
    """Seed Python's, numpy's and torch's random numbers, on the CPU and on every accelerator.

    Args:
        seed: whole number in [0, 2³²).

    Raises:
        ParameterError: it is not.
    """
    if not is_whole(seed, 0, SEEDS - 1):
        raise ParameterError(f"A seed must be a whole number from 0 to 4294967295, got {seed!r}.")
    import torch

    random.seed(int(seed))
    np.random.seed(int(seed))  # noqa: NPY002  (libraries that use the global generator)
    torch.manual_seed(int(seed))
