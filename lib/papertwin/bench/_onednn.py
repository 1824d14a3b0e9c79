"""What oneDNN, the library of torch's convolutions on a CPU, says of a call: kernels, blocks of channels, reorders."""

import os
import re
import sys
import tempfile
from collections.abc import Callable
from statistics import median
from typing import Any

import torch

LOOKS = 5  # calls in which oneDNN is listened to
NATIVE = ("_slow_conv2d_forward", "_nnpack_spatial_convolution")  # by which torch convolves without it
CALLS = ("mkldnn_convolution", *NATIVE, "cat")


def looked_into(call: Callable[[], Any], looks: int = LOOKS) -> dict[str, Any]:
    """What a call consists of: torch's calls and, where oneDNN may be used, its kernels and reorders."""
    found: dict[str, Any] = {"calls": calls(call)}
    if torch.backends.mkldnn.is_available() and torch.backends.mkldnn.enabled:
        found |= primitives([spoken(call) for _ in range(looks)])
    return found


def calls(call: Callable[[], Any]) -> dict[str, int]:
    """How often a call enters torch's convolutions, and joins maps."""
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profile:
        call()
    seen = {event.key.removeprefix("aten::"): event.count for event in profile.key_averages()}
    return {name: seen[name] for name in CALLS if name in seen}


def spoken(call: Callable[[], Any]) -> str:
    """What oneDNN says of a call; it writes to the standard output of the process, past Python's."""
    sys.stdout.flush()
    with tempfile.TemporaryFile() as file:
        kept = os.dup(1)
        os.dup2(file.fileno(), 1)
        try:
            with torch.backends.mkldnn.verbose(torch.backends.mkldnn.VERBOSE_ON):
                call()
        finally:
            os.dup2(kept, 1)
            os.close(kept)
        file.seek(0)
        return file.read().decode()


def primitives(texts: list[str]) -> dict[str, Any]:
    """Kernels of a call by name, their milliseconds, and the reorders around them; medians over several calls.

    `block` is how many channels of a group the first kernel takes at a time; None where it takes them one by one, or
    where oneDNN is not called.
    """
    told = [[line.split(",") for line in text.splitlines() if ",primitive,exec," in line] for text in texts]
    kernels = [[line for line in lines if line[5] == "convolution"] for lines in told]
    reorders = [[line for line in lines if line[5] == "reorder"] for lines in told]
    names = [line[6] for line in kernels[0]]
    weights = re.search(r"wei:\S*?:blocked:[A-Za-z]*?(\d+)", ",".join(kernels[0][0])) if names else None

    def spent(lines: list[list[list[str]]]) -> float:
        return round(median(sum(float(line[-1]) for line in each) for each in lines), 4)

    return {
        "kernels": {name: names.count(name) for name in dict.fromkeys(names)},
        "kernel ms": spent(kernels),
        "reorders": len(reorders[0]),
        "reorder ms": spent(reorders),
        "block": int(weights[1]) if weights else None,
    }


def kernels(looked: dict[str, Any]) -> str:
    """What computes the convolutions, with the number of calls where that is not one.

    Args:
        looked: what `looked_into` found; may be empty.
    """
    counts = looked.get("kernels") or {call: n for call, n in looked.get("calls", {}).items() if call != "cat"}
    return ", ".join(name if n == 1 else f"{n} {name}" for name, n in counts.items())


def reasons(looked: dict[str, Any], whole: dict[str, Any], channels: int, spent: float) -> list[str]:
    """What the kernels say about why a layer in groups takes the time that it does.

    Args:
        looked: what `looked_into` found for it.
        whole: and for the dense layer.
        channels: of a group; 0 where the call is no layer in groups.
        spent: milliseconds of the call.
    """
    told, group = [], f"{channels} {'channel' if channels == 1 else 'channels'} a group"
    if looked.get("kernels"):
        shares = (f"{looked[key] / spent:.0%}" for key in ("kernel ms", "reorder ms"))
        told.append("oneDNN's kernels take {} of the time, reorders of maps and weights {}".format(*shares))
    if channels and looked.get("kernels"):
        if looked["block"] and looked["block"] < (whole["block"] or 0):
            blocks = f"{looked['block']} at a time, not {whole['block']}"
            told.append(f"with {group} the kernel takes {blocks}")
        elif looked["kernels"] != whole["kernels"]:
            told.append(f"with {group} the kernel is another one than for the dense layer")
    for call in NATIVE:
        if call in looked.get("calls", {}):
            told.append(f"torch convolves without oneDNN, {looked['calls'][call]} calls of {call}")
    return told
