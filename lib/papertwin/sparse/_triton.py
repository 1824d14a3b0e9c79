"""Condensed layers on a GPU by Triton, float32: y[b, rows[n]] += Σ_j w[n, j] x[b, idx[n, j]].

Source: Lasby et al. 2024 (SRigL, arXiv 2305.02299); the kernels are ours. Few rows of the batch: a program sums one
output, the weights of the neuron side by side. Many: a program sums one neuron for up to 128 rows, which lie side by
side once x is transposed, so that each weight meets one stretch of memory. Gradients are left to torch.
With TRITON_INTERPRET=1 in the environment the kernels run on a CPU, one operation at a time, which is how they are
tested; on a GPU they were not run.
"""

from contextlib import nullcontext

import torch
import triton
import triton.language as tl

MANY = 16  # rows of the batch, from which on they lie side by side
WIDEST = 128  # weights or rows of the batch of one step


@triton.jit
def _by_weights(x, weight, index, rows, y, inputs, outputs, fan_in, STEP: tl.constexpr):
    """One output: the weights of a neuron in steps, side by side."""
    n, b = tl.program_id(0).to(tl.int64), tl.program_id(1).to(tl.int64)
    total = tl.zeros((STEP,), tl.float32)
    for first in range(0, fan_in, STEP):
        j = first + tl.arange(0, STEP)
        there = j < fan_in
        place = tl.load(index + n * fan_in + j, mask=there, other=0)
        value = tl.load(x + b * inputs + place, mask=there, other=0.0)
        total += tl.load(weight + n * fan_in + j, mask=there, other=0.0) * value
    target = y + b * outputs + tl.load(rows + n)
    tl.store(target, tl.load(target) + tl.sum(total, 0))


@triton.jit
def _by_rows(turned, weight, index, rows, y, batch, outputs, fan_in, STEP: tl.constexpr):
    """One neuron for a stretch of the batch; `turned` is x transposed, (in, B)."""
    n = tl.program_id(0).to(tl.int64)
    b = tl.program_id(1).to(tl.int64) * STEP + tl.arange(0, STEP)
    there = b < batch
    total = tl.zeros((STEP,), tl.float32)
    for j in range(0, fan_in):
        place = tl.load(index + n * fan_in + j).to(tl.int64)
        total += tl.load(weight + n * fan_in + j) * tl.load(turned + place * batch + b, mask=there, other=0.0)
    target = y + b * outputs + tl.load(rows + n)
    tl.store(target, tl.load(target, mask=there, other=0.0) + total, mask=there)


def add_outputs(
    y: torch.Tensor, x: torch.Tensor, weight: torch.Tensor, index: torch.Tensor, rows: torch.Tensor
) -> torch.Tensor:
    """Add the products of a condensed layer to y, in place, on the device of x, whichever is the current one.

    Args:
        y: (B, out), contiguous, as all others are: the bias or zeros.
        x: (B, in), B from 1 on.
        weight, index: (active, k), index int32.
        rows: (active,) int64.
    """
    (batch, inputs), (active, fan_in), outputs = x.shape, weight.shape, y.shape[1]
    if active == 0:
        return y
    with torch.cuda.device(x.device) if x.is_cuda else nullcontext():
        if batch < MANY:
            step = min(WIDEST, triton.next_power_of_2(fan_in))
            _by_weights[active, batch](x, weight, index, rows, y, inputs, outputs, fan_in, STEP=step)
        else:
            step = min(WIDEST, triton.next_power_of_2(batch))
            grid, turned = (active, triton.cdiv(batch, step)), x.t().contiguous()
            _by_rows[grid](turned, weight, index, rows, y, batch, outputs, fan_in, STEP=step)
    return y
