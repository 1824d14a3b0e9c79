"""The GPU's kernels, run on the CPU by Triton's interpreter in a process of its own: the masked dense layer's outputs.

What this cannot show is that they compile for a GPU, or how fast they are there.
"""

import os
import subprocess
import sys
from importlib.util import find_spec

import pytest

if find_spec("triton") is None:
    pytest.skip("Triton is not installed", allow_module_level=True)

CODE = """
import torch
from torch import nn
from papertwin.sparse import _triton
from papertwin.sparse.condensed import CondensedLinear

torch.manual_seed(0)
shapes = [(12, 40, 7, 3), (5, 8, 8, 0), (3, 300, 150, 1), (4, 20, 1, 0), (3, 9, 2, 3), (70, 30, 11, 4)]
for out, width, fan_in, ablated in shapes:
    mask = torch.rand(out, width).argsort(1) < fan_in
    mask[:ablated] = False
    layer = CondensedLinear.from_linear(nn.Linear(width, out), mask).requires_grad_(False)
    dense = layer.to_dense()
    for batch in (1, 3, 15, 16, 37, 64, 130):
        x = torch.randn(batch, width)
        x[:, ~mask.any(0)] = float("inf")
        y = layer.bias.repeat(batch, 1)
        found = _triton.add_outputs(y, x, layer.weight, layer.index, layer.rows)
        assert found is y
        torch.testing.assert_close(found, dense(x.nan_to_num(posinf=0)), rtol=1e-5, atol=1e-5)
        print(out, batch)
"""


def test_kernels_are_the_masked_layer_in_the_interpreter():
    environment = {**os.environ, "TRITON_INTERPRET": "1"}
    command = [sys.executable, "-c", CODE]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment, timeout=300)
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.splitlines()) == 6 * 7


LAUNCHED = """
import contextlib, types
import torch
from papertwin.sparse import _triton

events = []

@contextlib.contextmanager
def device(which):
    events.append(("enter", which))
    yield
    events.append(("leave", which))

class Kernel:
    def __init__(self, name):
        self.name = name
    def __getitem__(self, grid):
        return lambda *given, **options: events.append((self.name, grid))

torch.cuda.device = device
_triton._by_weights, _triton._by_tiles = Kernel("by weights"), Kernel("by tiles")
_triton._tiled = lambda x: None
for batch in (1, 40):
    x = types.SimpleNamespace(shape=(batch, 20), is_cuda=True, device="cuda:1")
    _triton.add_outputs(torch.zeros(batch, 9), x, torch.zeros(7, 3), None, None)
print(events)
"""


def test_kernels_are_launched_on_the_device_of_the_input():
    command = [sys.executable, "-c", LAUNCHED]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stderr
    turns = [("by weights", (7, 1)), ("by tiles", (2,))]
    assert done.stdout.strip() == str(
        [each for turn in turns for each in (("enter", "cuda:1"), turn, ("leave", "cuda:1"))]
    )
