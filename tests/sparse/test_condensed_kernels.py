"""Every kernel gives what scipy gives; slots hold each weight once; infinities stay where they are used."""

import os
import subprocess
import sys
import threading

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse

from papertwin.errors import InputError
from papertwin.sparse import condensed_cpu, condensed_layouts
from papertwin.sparse.condensed import CondensedLinear
from papertwin.sparse.condensed_layouts import KERNELS, LANES, TILE, UNROLL, pick_kernel
from papertwin.training.loop import torch_threads

HERE = [kernel for kernel in KERNELS if kernel != "lookup" or condensed_layouts.has_lookups()]


def drawn(active, width, fan_in, seed=0, out=None):
    """A layer with drawn weights and places, in float64 by scipy as well."""
    rng = np.random.default_rng(seed)
    out = out or active
    index = rng.random((active, width)).argsort(1)[:, :fan_in]  # in no order
    rows = np.sort(rng.permutation(out)[:active])
    weight, bias = rng.standard_normal((active, fan_in)), rng.standard_normal(out)
    places = np.repeat(rows, fan_in), index.ravel()
    matrix = sparse.csr_matrix((weight.astype(np.float32).ravel(), places), (out, width), np.float64)
    arrays = (torch.from_numpy(array) for array in (weight.astype(np.float32), index, rows, bias.astype(np.float32)))
    return CondensedLinear(width, out, *arrays).requires_grad_(False), matrix


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def assert_same(layer, matrix, batch, seed=1):
    x = normal(batch, layer.in_features, seed=seed)
    wanted = (matrix @ x.double().numpy().T).T + layer.bias.double().numpy()
    limit = 1e-5 * max(1.0, np.abs(wanted).max())
    np.testing.assert_allclose(layer(x).numpy(), wanted, rtol=0, atol=limit)


@pytest.mark.parametrize("kernel", HERE)
@given(
    active=st.integers(1, 70),
    width=st.one_of(st.integers(16, 40), st.integers(200, 600)),
    share=st.floats(0, 1),
    batch=st.one_of(st.integers(1, 20), st.sampled_from([31, 32, 33, 64, 65, 100])),
    seed=st.integers(0, 10**6),
)
@settings(deadline=None, max_examples=40)
def test_kernels_are_scipys_product(kernel, active, width, share, batch, seed):
    layer, matrix = drawn(active, width, max(1, round(share**3 * width)), seed, out=active + seed % 3)
    layer.kernel = kernel
    assert_same(layer, matrix, batch, seed)


@pytest.mark.parametrize("kernel", HERE)
@pytest.mark.parametrize("threads", [1, 3])
def test_threads_share_the_work(monkeypatch, kernel, threads):
    monkeypatch.setattr(condensed_cpu, "SHARED", 1)
    monkeypatch.setattr(condensed_cpu, "MUCH", 1)
    layer, matrix = drawn(50, 300, 20, out=60)
    layer.kernel = kernel
    with torch_threads(threads):
        for batch in (1, 17, 40, 130):
            assert_same(layer, matrix, batch)
        x, given = normal(40, 300).requires_grad_(), normal(40, 60, seed=1)
        layer.requires_grad_()(x).backward(given)
        dense = layer.to_dense()
        torch.testing.assert_close(x.grad, given @ dense.weight.detach(), rtol=1e-4, atol=1e-4)
        wanted = (given.T @ x.detach())[layer.rows[:, None], layer.index.long()]
        torch.testing.assert_close(layer.weight.grad, wanted, rtol=1e-4, atol=1e-4)


def test_many_threads_call_one_layer():
    layer, _ = drawn(40, 300, 20)
    inputs = [normal(batch, 300, seed=batch) for batch in (1, 2, 20, 70)]
    wanted, found = [layer.to_dense()(x).detach() for x in inputs], {}
    jobs = [threading.Thread(target=lambda n=n: found.update({n: layer(inputs[n % 4])})) for n in range(16)]
    for job in jobs:
        job.start()
    for job in jobs:
        job.join()
    for n, y in found.items():
        torch.testing.assert_close(y, wanted[n % 4], rtol=1e-4, atol=1e-4)
    assert len(found) == 16


@pytest.mark.parametrize("kernel", HERE)
@pytest.mark.parametrize("bad", [float("inf"), float("-inf"), float("nan")])
@pytest.mark.parametrize("batch", [1, 4, 20])
@pytest.mark.parametrize("place", [0, 16, 48, 50])  # lanes without a weight look up the first input of a block
def test_what_is_not_finite_stays_where_it_is_used(kernel, bad, batch, place):
    layer, _ = drawn(40, 64, 3)
    layer.kernel = kernel
    x = normal(batch, 64)
    clean = layer(x)
    x[-1, place] = bad
    y = layer(x)
    users = (layer.index == place).any(1)
    assert torch.equal(y[:-1].isfinite(), torch.ones_like(y[:-1], dtype=torch.bool))
    torch.testing.assert_close(y[:, ~users], clean[:, ~users], rtol=1e-4, atol=1e-4)
    weight = layer.weight[layer.index == place]
    wanted = weight * bad
    assert torch.equal(y[-1, users].isnan(), wanted.isnan())
    assert torch.equal(y[-1, users].nan_to_num(), wanted.nan_to_num())


@pytest.mark.parametrize("kernel", HERE)
def test_float32_that_does_not_lie_on_a_vector(kernel):
    layer, _ = drawn(20, 51, 7)
    layer.kernel = kernel
    whole = normal(10 * 51 + 3)
    for start in (1, 2, 3):
        x = whole[start : start + 10 * 51].view(10, 51)
        torch.testing.assert_close(layer(x), layer.to_dense()(x), rtol=1e-4, atol=1e-5)


# ---- layouts ---------------------------------------------------------------------------------------------------------


@given(
    active=st.integers(1, 40),
    width=st.integers(16, 100),
    share=st.floats(0, 1),
    seed=st.integers(0, 10**6),
)
@settings(deadline=None, max_examples=50)
def test_slots_hold_each_weight_once_at_its_place(active, width, share, seed):
    fan_in = max(1, round(share * width))
    index = np.random.default_rng(seed).random((active, width)).argsort(1)[:, :fan_in]
    slots = condensed_layouts.slots_of(index, width)
    used = slots.source[slots.source >= 0]
    assert np.array_equal(np.sort(used), np.arange(index.size))
    assert not (np.diff(slots.starts) % UNROLL).any()
    assert slots.starts[-1] == len(slots.source) <= -(-active // LANES) * (LANES * fan_in + UNROLL)
    for group, (start, end) in enumerate(zip(slots.starts, slots.starts[1:])):
        for slot, lane in zip(*np.nonzero(slots.source[start:end] >= 0)):
            place = slots.lanes[start + slot, lane]
            first = slots.pairs[start + slot, place // LANES]
            assert first + LANES <= width
            neuron, j = divmod(int(slots.source[start + slot, lane]), fan_in)
            assert neuron == LANES * group + lane
            assert index[neuron, j] == first + place % LANES


def test_slots_are_filled_well():
    index = np.random.default_rng(0).random((64, 3072)).argsort(1)
    filled = {k: 64 * k / condensed_layouts.slots_of(index[:, :k], 3072).source.size for k in (614, 307, 154)}
    assert filled[614] > 0.9
    assert filled[307] > 0.75
    assert filled[154] > 0.57


@given(height=st.integers(1, 30), width=st.integers(1, 700), seed=st.integers(0, 10**6))
@settings(deadline=None, max_examples=50)
def test_tiles_hold_each_weight_once_at_its_place(height, width, seed):
    matrix = sparse.random(height, width, 0.1, random_state=np.random.default_rng(seed))
    tiles = condensed_layouts.tiles_of(matrix.row.astype(np.int64), matrix.col.astype(np.int64), (height, width))
    assert np.array_equal(np.sort(tiles.source), np.arange(matrix.nnz))
    assert all(np.array_equal(np.sort(order), np.arange(height)) for order in tiles.order)
    for t, (order, starts) in enumerate(zip(tiles.order, tiles.starts)):
        counts = np.diff(starts)
        assert (np.diff(counts) >= 0).all(), "by the number of weights"
        for row, start, end in zip(order, starts, starts[1:]):
            assert (matrix.row[tiles.source[start:end]] == row).all()
            assert np.array_equal(matrix.col[tiles.source[start:end]], TILE * t + tiles.columns[start:end].astype(int))


@given(batch=st.integers(1, 700), threads=st.integers(1, 9))
def test_parts_cover_the_batch_and_occupy_the_threads(batch, threads):
    parts = condensed_layouts.parts(batch, threads)
    assert [first for first, _ in parts] == list(range(0, batch, LANES * parts[0][1]))
    assert {width for _, width in parts} <= {1, 2, 4}
    assert parts[0][1] == 1 or LANES * (parts[0][1] // 2) < batch, "no wider than the batch asks"
    if batch > LANES * (threads - 1):
        assert len(parts) >= threads


# ---- which kernel ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("batch", "inputs", "fan_in", "lookups", "kernel"),
    [
        (1, 3072, 307, True, "lookup"),
        (8, 3072, 307, True, "lookup"),
        (9, 3072, 307, True, "lanes"),
        (256, 3072, 614, True, "lanes"),
        (1, 3072, 307, False, "gather"),
        (2, 3072, 307, False, "lanes"),
        (1, 15, 2, True, "gather"),
        (100, 15, 2, True, "gather"),
        (1, 2**16 + 1, 2, True, "gather"),
        (256, 100, 75, True, "dense"),
        (1, 100, 74, True, "lookup"),
    ],
)
def test_the_fastest_kernel_is_picked(batch, inputs, fan_in, lookups, kernel):
    assert pick_kernel(batch, inputs, fan_in, lookups) == kernel


def test_wide_layers_have_no_lookups():
    layer, matrix = drawn(3, 70000, 40)
    assert_same(layer, matrix, 1)
    layer.kernel = "lanes"
    assert_same(layer, matrix, 3)


@pytest.mark.parametrize(
    ("kernel", "width", "message"),
    [
        ("fast", 40, "kernel must be one of lookup, gather, lanes, dense"),
        ("lanes", 15, "'lanes' needs 16 inputs or more"),
        ("lookup", 2**16 + 1, "at most 65536; got 65537"),
    ],
)
def test_kernels_that_cannot_are_errors(monkeypatch, kernel, width, message):
    monkeypatch.setattr(condensed_layouts, "has_lookups", lambda: True)
    layer, _ = drawn(3, width, 2)
    layer.kernel = kernel
    with pytest.raises(InputError, match=message):
        layer(torch.zeros(1, width))


def test_a_processor_without_avx512_is_an_error_only_if_lookups_are_asked_for(monkeypatch):
    monkeypatch.setattr(condensed_layouts, "has_lookups", lambda: False)
    layer, matrix = drawn(30, 100, 9)
    for batch in (1, 2, 5):
        assert_same(layer, matrix, batch)
    assert set(layer._engine._layouts) == {"gather", "lanes"}
    layer.kernel = "lookup"
    with pytest.raises(InputError, match="needs a processor with AVX-512F"):
        layer(torch.zeros(1, 100))


def test_layouts_are_made_once_and_values_only_after_a_change(monkeypatch):
    made = []
    for name in ("_layout", "_filled"):
        before = getattr(condensed_cpu.Engine, name)
        monkeypatch.setattr(
            condensed_cpu.Engine, name, lambda *a, before=before, name=name: made.append(name) or before(*a)
        )
    layer, _ = drawn(30, 100, 9)
    for _ in range(3):
        layer(torch.zeros(20, 100))
    assert made == ["_layout", "_filled"]
    layer.weight.add_(1)
    layer(torch.zeros(20, 100))
    layer(torch.zeros(20, 100))
    assert made == ["_layout", "_filled", "_filled"]


def test_a_layer_made_in_inference_mode_keeps_its_layouts_as_well(monkeypatch):
    made, before = [], condensed_cpu.Engine._layout
    monkeypatch.setattr(condensed_cpu.Engine, "_layout", lambda *a: made.append(a[1]) or before(*a))
    with torch.inference_mode():
        layer, matrix = drawn(30, 100, 9)
        for _ in range(3):
            assert_same(layer, matrix, 20)
    assert made == ["lanes"]


@pytest.mark.parametrize("kernel", HERE)
def test_defaults_of_torch_do_not_matter(kernel):
    layer, matrix = drawn(30, 100, 9, out=33)
    layer.kernel = kernel
    x, given = normal(20, 100), normal(20, 33, seed=1)
    wanted = (matrix @ x.double().numpy().T).T + layer.bias.double().numpy()
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        with torch.device("meta"):
            y = layer.requires_grad_()(x.requires_grad_())
            y.backward(given)
    finally:
        torch.set_default_dtype(before)
    np.testing.assert_allclose(y.detach().numpy(), wanted, rtol=0, atol=1e-4)
    torch.testing.assert_close(x.grad, given @ layer.to_dense().weight.detach(), rtol=1e-4, atol=1e-4)
    wanted = (given.T @ x.detach())[layer.rows[:, None], layer.index.long()]
    torch.testing.assert_close(layer.weight.grad, wanted, rtol=1e-4, atol=1e-4)


CODE = """
import numba, torch
from papertwin.sparse.condensed import CondensedLinear
from papertwin.sparse import condensed_kernels, condensed_layouts
torch.manual_seed(0)
mask = torch.rand(20, 40).argsort(1) < 5
layer = CondensedLinear.from_linear(torch.nn.Linear(40, 20), mask)
for batch in (1, 20):
    x = torch.randn(batch, 40)
    assert (layer(x) - torch.nn.functional.linear(x, layer.to_dense().weight, layer.bias)).abs().max() < 1e-5
print(condensed_layouts.has_lookups(), sum(condensed_kernels.lanes.stats.cache_hits.values()))
"""


GUARDED = """
import ctypes, mmap, sys, torch
from papertwin.sparse.condensed import CondensedLinear

torch.manual_seed(0)
PAGE, held = mmap.PAGESIZE, []

def guarded(values):  # a copy after which comes a page that must not be read
    size = values.numel() * 4
    pages = -(-size // PAGE)
    memory = mmap.mmap(-1, (pages + 1) * PAGE)
    place = ctypes.addressof(ctypes.c_char.from_buffer(memory))
    assert ctypes.CDLL(None).mprotect(ctypes.c_void_p(place + pages * PAGE), PAGE, 0) == 0
    held.append(memory)
    copy = torch.frombuffer(memory, dtype=torch.float32, count=values.numel(), offset=pages * PAGE - size)
    return copy.view(values.shape).copy_(values)

for width, out in [(20, 21), (17, 16), (300, 33)]:
    mask = torch.rand(out, width).argsort(1) < 7
    layer = CondensedLinear.from_linear(torch.nn.Linear(width, out), mask)
    dense = layer.to_dense()
    for kernel in sys.argv[1:]:
        layer.kernel = kernel
        for batch in (1, 3, 16, 33):
            x = guarded(torch.randn(batch, width)).requires_grad_()
            y = layer(x)
            assert torch.allclose(y, dense(x), atol=1e-4)
            y.backward(guarded(torch.randn(batch, out)))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="protects pages as Linux does")
def test_nothing_is_read_past_the_end_of_an_input():
    command = [sys.executable, "-c", GUARDED, *HERE]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("change", [lambda t: t.detach(), lambda t: t.clone()])
def test_a_stamp_is_of_one_tensor(change):
    known = torch.zeros(3)
    stamp = condensed_cpu.Stamp(known)
    assert stamp.holds(known)
    assert not stamp.holds(change(known))


def test_a_stamp_notices_changes():
    for change in (lambda t: t.add_(1), lambda t: setattr(t, "data", torch.zeros(3))):
        known = torch.zeros(3)
        stamp = condensed_cpu.Stamp(known)
        change(known)
        assert not stamp.holds(known)
    with torch.inference_mode():
        silent = torch.zeros(3)
    assert not condensed_cpu.Stamp(silent).holds(silent)


def run(**environment):
    command = [sys.executable, "-c", CODE]
    environment = {**os.environ, **environment}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment, timeout=300)
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


def test_compiled_code_is_kept_on_the_disk_and_plain_processors_do_without_lookups(tmp_path):
    folder = {"NUMBA_CACHE_DIR": str(tmp_path)}
    plain = {"NUMBA_CPU_NAME": "generic", "NUMBA_CPU_FEATURES": ""}
    assert run(**folder, **plain) == ["False", "0"]
    assert run(**folder, **plain) == ["False", "1"]


def test_importing_the_package_loads_nothing_heavy():
    code = "import sys, papertwin.sparse; print([m for m in ('numba', 'torch', 'triton') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.strip() == "[]"
