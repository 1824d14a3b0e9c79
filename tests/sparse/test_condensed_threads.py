"""One condensed layer in many threads, while it is changed: no kernel reads memory that is gone.

What a kernel without the GIL reads is no longer Python's to guard: a mistake ends the process, so each test has one.
"""

import copy
import subprocess
import sys
import threading
import time

import numpy as np
import pytest
import torch

from papertwin.errors import InputError
from papertwin.sparse import condensed_cpu
from papertwin.sparse.condensed import CondensedLinear
from papertwin.sparse.masks import constant_fan_in_mask
from papertwin.training.loop import torch_threads

CODE = """
import copy, sys, threading, time
import torch
from papertwin.sparse.condensed import CondensedLinear
from papertwin.sparse.masks import constant_fan_in_mask

torch.set_num_threads(1)
OUT = 30_000  # memory of so many places goes back to the system as soon as it is free
case, seconds = sys.argv[1], float(sys.argv[2])

def drawn(seed):
    generator = torch.Generator().manual_seed(seed)
    mask = constant_fan_in_mask((OUT, 64), 4, generator)
    mask[torch.randperm(OUT, generator=generator)[:100]] = False
    torch.manual_seed(seed)
    return CondensedLinear.from_linear(torch.nn.Linear(64, OUT), mask).requires_grad_(False)

layer = drawn(0)
states = [copy.deepcopy(layer.state_dict()), copy.deepcopy(drawn(1).state_dict())]
inputs = [torch.randn(batch, 64, generator=torch.Generator().manual_seed(batch)) for batch in (1, 3, 20)]
wanted = [layer.to_dense()(x) for x in inputs]
if case == "copied in inference mode":
    with torch.inference_mode():
        layer = copy.deepcopy(layer)
end, counts, wrong = time.monotonic() + seconds, [0] * 4, []

def call(number):
    while time.monotonic() < end:
        which = counts[number] % 3
        y = layer(inputs[which])
        if case != "another state" and not torch.allclose(y, wanted[which], atol=1e-4):
            wrong.append(which)
        counts[number] += 1

def load():
    while time.monotonic() < end:
        layer.load_state_dict(states[counts[3] % 2 if case == "another state" else 0])
        counts[3] += 1

tasks = [lambda number=number: call(number) for number in range(4)]
if case != "copied in inference mode":
    tasks[3] = load
threads = [threading.Thread(target=task) for task in tasks]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
with torch.inference_mode(case == "copied in inference mode"):
    layer.load_state_dict(states[0])
assert all(torch.allclose(layer(x), y, atol=1e-4) for x, y in zip(inputs, wanted))
assert all(counts), counts
print(len(wrong))
"""


CASES = ["the same state", "another state", "copied in inference mode"]


@pytest.fixture(scope="module")
def started():
    """One process a case, all at once."""
    options = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    found = {case: subprocess.Popen([sys.executable, "-c", CODE, case, "3"], **options) for case in CASES}
    yield found
    for process in found.values():
        with process:
            process.kill()


@pytest.mark.parametrize("case", CASES)
def test_a_layer_that_threads_share_outlives_its_changes(case, started):
    output, errors = started[case].communicate(timeout=300)
    assert (started[case].returncode, output.strip()) == (0, "0"), errors


# ---- layouts that are kept -------------------------------------------------------------------------------------------


def drawn(seed=0, out=40, width=100, fan_in=9):
    generator = torch.Generator().manual_seed(seed)
    mask = constant_fan_in_mask((out, width), fan_in, generator)
    mask[torch.randperm(out, generator=generator)[:7]] = False
    linear = torch.nn.Linear(width, out)
    with torch.no_grad():
        linear.weight.copy_(torch.randn(out, width, generator=generator))
    return CondensedLinear.from_linear(linear, mask).requires_grad_(False)


@pytest.fixture
def made(monkeypatch):
    """Names of the layouts that were made."""
    names, before = [], condensed_cpu.Engine._layout
    monkeypatch.setattr(condensed_cpu.Engine, "_layout", lambda *a: names.append(a[1]) or before(*a))
    return names


def test_a_layer_copied_in_inference_mode_keeps_its_layout_and_sees_changes(made):
    layer, x = drawn(), torch.randn(20, 100, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        layer = copy.deepcopy(layer)
        for factor in (1, 2, 3):
            layer.weight.mul_(factor)
            torch.testing.assert_close(layer(x), layer.to_dense()(x), rtol=1e-4, atol=1e-4)
        assert made == ["lanes"]
        layer.index.copy_(drawn(seed=1).index)
        torch.testing.assert_close(layer(x), layer.to_dense()(x), rtol=1e-4, atol=1e-4)
        layer.rows.copy_(drawn(seed=1).rows)
        torch.testing.assert_close(layer(x), layer.to_dense()(x), rtol=1e-4, atol=1e-4)
    assert made == ["lanes"] * 3


def test_a_state_with_the_same_places_keeps_the_layout(made):
    layer, x = drawn(), torch.randn(20, 100, generator=torch.Generator().manual_seed(0))
    for factor in (1, 2):
        layer.load_state_dict({name: values * factor for name, values in layer.state_dict().items()} | places(layer))
        torch.testing.assert_close(layer(x), layer.to_dense()(x), rtol=1e-4, atol=1e-4)
    assert made == ["lanes"]


def places(layer):
    return {name: layer.state_dict()[name].clone() for name in ("index", "rows")}


@pytest.mark.parametrize("kernel", ["gather", "lanes"])
def test_kernels_work_with_a_copy_of_the_places_that_was_checked(kernel):
    layer = drawn()
    layer.kernel = kernel
    layer(torch.zeros(2, 100))
    made = layer._engine._made[1][kernel]
    held = [made.rows, made.layout if kernel == "gather" else made.layout.columns]
    assert not any(np.shares_memory(each, mine.numpy()) for each in held for mine in (layer.index, layer.rows))


def test_places_of_another_type_are_checked_before_they_become_32_bits():
    layer = drawn()
    layer.index = layer.index.long() + 2**32
    with pytest.raises(InputError, match="index must lie in"):
        layer(torch.zeros(2, 100))


# ---- threads that wait -----------------------------------------------------------------------------------------------


def waiting():
    return sum(thread.name.startswith("condensed-") for thread in threading.enumerate())


def test_threads_of_other_counts_end(monkeypatch):
    monkeypatch.setattr(condensed_cpu, "SHARED", 1)
    monkeypatch.setattr(condensed_cpu, "MUCH", 1)
    layer, x = drawn(), torch.zeros(200, 100)
    for count in (2, 3, 4, 2):
        with torch_threads(count):
            layer(x)
    end = time.monotonic() + 20
    while waiting() > 2 and time.monotonic() < end:
        time.sleep(0.01)
    assert 1 <= waiting() <= 2
