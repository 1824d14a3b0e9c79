"""What benchmarks of networks share: a process of its own for what is measured, ways that must agree, quartiles."""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from statistics import quantiles
from typing import TYPE_CHECKING, Any

from papertwin.bench import Progress
from papertwin.errors import RunError
from papertwin.nets.execution import SAME

if TYPE_CHECKING:
    import torch

KEPT = {"MALLOC_TRIM_THRESHOLD_": str(2**40), "MALLOC_MMAP_THRESHOLD_": str(2**40)}  # bytes; of glibc
QUIET = {"KINETO_LOG_LEVEL": "99"}  # torch's profiler


def results(
    module: str, task: dict[str, Any], environment: dict[str, str], steps: list[tuple[str, float]], progress: Progress
) -> Iterator[Any]:
    """Measure in a process of its own, with variables of its own; yield each result as it comes.

    Args:
        module: what the process runs; it takes the task as JSON and prints a line of JSON a result.
        task: what it is to do.
        environment: variables of the process, beside those of this one.
        steps: of each result in turn, what is measured and the share of the work that is done before.
        progress: told each step.

    Raises:
        RunError: the process ended early.
    """
    known = 0
    command = [sys.executable, "-m", module, json.dumps(task)]
    with tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace") as words:
        process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=words, text=True, env={**os.environ, **QUIET, **environment}
        )
        try:
            for name, done in steps:
                progress(name, done)
                line = process.stdout.readline()
                if not line:
                    break
                known += 1
                yield json.loads(line)
        finally:
            process.stdout.close()
            if sys.exc_info()[0] is not None:
                process.kill()
            code = process.wait()
        if code or known < len(steps):
            words.seek(0)
            raise RunError(
                f"The process that measures ended with code {code} (negative: killed, often for lack of memory). "
                f"Its last words:\n{words.read()[-1000:]}"
            )


def check_same(name: str, found: "dict[str, torch.Tensor]") -> None:
    """Raise RunError where a way gives another result than the first."""
    first, wanted = next(iter(found.items()))
    for way, result in found.items():
        gap = (result - wanted).abs().max() / wanted.abs().max()
        if not gap <= SAME:
            raise RunError(f"{name}: {way} and {first} differ by {gap:.1e} of the largest output. Please report this.")


def quartiles_ms(seconds: list[float]) -> list[float]:
    """Quartiles of some times, in milliseconds; those of a single time are all the same."""
    if len(seconds) == 1:
        seconds = seconds * 2
    return [round(1e3 * value, 4) for value in quantiles(seconds, n=4, method="inclusive")]
