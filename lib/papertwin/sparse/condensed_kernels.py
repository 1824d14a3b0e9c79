"""Compiled kernels of condensed layers: lookups in registers for few inputs, lanes over the batch for many.

Source: Lasby et al. 2024 (SRigL, arXiv 2305.02299), y[b, n] = Σ_j w[n, j] x[b, idx[n, j]]; the kernels are ours.

`lookup` (AVX-512F): 16 neurons are the 16 lanes of a vector. A slot names two blocks of 16 inputs and, for each lane,
one of these 32 values, which one instruction (vpermi2ps) looks up; where a neuron has nothing left in either block the
weight is 0. No value is gathered from memory one by one. `papertwin.sparse.condensed_layouts` fills the slots.

`lanes`: 16 to 64 inputs of the batch are the lanes; a tile of them is transposed into the first-level cache, and each
weight is multiplied with a row of it. Within a tile neurons go by the number of their weights, so that the processor
foresees how long each loop is. Works on every processor, and for any sparse matrix. `weight_gradient` is its transpose.

`gather` is the plain loop. Kernels take addresses of contiguous float32, since a tensor's address costs less than an
array of it; they are called with the GIL released. All that call each other live in this file, for numba's cache.
"""

import numba
import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from papertwin.compiled import jit, simd

LANES = 16  # float32 in a vector
TILE = 256  # inputs whose values lie in the first-level cache together, for up to 64 lanes
UNROLL = 4  # slots of a group are a multiple of it: sums that do not wait for each other

_FLOAT, _BYTE, _SHORT, _WORD, _LONG = ir.FloatType(), *(ir.IntType(bits) for bits in (8, 16, 32, 64))
_VECTOR, _PLACES = ir.VectorType(_FLOAT, LANES), ir.VectorType(_WORD, LANES)


# ---- pieces of LLVM code ---------------------------------------------------------------------------------------------


class _Code:
    """Loads, stores and sums of vectors at addresses; numbers are added to addresses in bytes."""

    def __init__(self, builder):
        self.builder = builder
        three = ir.FunctionType(_VECTOR, [_VECTOR] * 3)
        self.fma = cgutils.get_or_insert_function(builder.module, three, "llvm.fma.v16f32")

    def at(self, address, index, scale):
        """Address of element `index` (a number or a value) of elements of `scale` bytes."""
        index = ir.Constant(_LONG, index) if isinstance(index, int) else index
        return self.builder.add(address, self.builder.mul(index, ir.Constant(_LONG, scale)))

    def load(self, kind, address, align):
        return self.builder.load(self.builder.inttoptr(address, ir.PointerType(kind)), align=align)

    def load_index(self, kind, address, align):
        return self.builder.zext(self.load(kind, address, align), _LONG)

    def store(self, vector, address):
        self.builder.store(vector, self.builder.inttoptr(address, ir.PointerType(_VECTOR)), align=4)

    def shuffle(self, one, other, places):
        return self.builder.shuffle_vector(one, other, ir.Constant(_PLACES, places))

    def spread(self, number):
        """The same number in every lane."""
        undefined = ir.Constant(_VECTOR, ir.Undefined)
        one = self.builder.insert_element(undefined, number, ir.Constant(_WORD, 0))
        return self.shuffle(one, undefined, [0] * LANES)

    def sums(self, count):
        """Places of `count` sums that begin at 0."""
        return [cgutils.alloca_once_value(self.builder, ir.Constant(_VECTOR, [0.0] * LANES)) for _ in range(count)]

    def add_product(self, place, one, other):
        self.builder.store(self.builder.call(self.fma, [one, other, self.builder.load(place)]), place)


@intrinsic(prefer_literal=True)
def _add_slots(_, x, stride, weights, lanes, pairs, start, end, out, out_stride, batch):
    """Write to `out` the sums over the slots [start, end) for a literal number of batch rows; strides in bytes."""
    count = batch.literal_value
    signature = types.void(*[types.int64] * 9, batch)

    def generate(_, builder, __, arguments):
        x, stride, weights, lanes, pairs, start, end, out, out_stride, _ = arguments
        code = _Code(builder)
        look = ir.FunctionType(_VECTOR, [_VECTOR, _PLACES, _VECTOR])
        look = cgutils.get_or_insert_function(builder.module, look, "llvm.x86.avx512.vpermi2var.ps.512")
        unrolled = UNROLL // count
        sums = [code.sums(count) for _ in range(unrolled)]
        rows = [builder.add(x, builder.mul(stride, ir.Constant(_LONG, row))) for row in range(count)]
        with cgutils.for_range_slice(builder, start, end, ir.Constant(_LONG, unrolled)) as (first, _):
            for step in range(unrolled):
                slot = builder.add(first, ir.Constant(_LONG, step))
                weight = code.load(_VECTOR, code.at(weights, slot, 4 * LANES), 4)
                places = code.load(ir.VectorType(_BYTE, LANES), code.at(lanes, slot, LANES), 1)
                places = builder.zext(places, _PLACES)
                one, other = (code.load_index(_SHORT, code.at(code.at(pairs, slot, 4), k, 2), 2) for k in (0, 1))
                for row in range(count):
                    blocks = [code.load(_VECTOR, code.at(rows[row], block, 4), 4) for block in (one, other)]
                    value = builder.call(look, [blocks[0], places, blocks[1]])
                    code.add_product(sums[step][row], weight, value)
        for row in range(count):
            total = builder.load(sums[0][row])
            for others in sums[1:]:
                total = builder.fadd(total, builder.load(others[row]))
            code.store(total, builder.add(out, builder.mul(out_stride, ir.Constant(_LONG, row))))

    return signature, generate


@intrinsic(prefer_literal=True)
def _add_row(_, x, weights, columns, start, end, out, width):
    """Add to the 16·width floats at `out` the weights [start, end) times the rows of x that `columns` names."""
    count = width.literal_value
    signature = types.void(*[types.int64] * 6, width)

    def generate(_, builder, __, arguments):
        x, weights, columns, start, end, out, _ = arguments
        code = _Code(builder)
        places = [code.at(out, part, 4 * LANES) for part in range(count)]
        sums = [cgutils.alloca_once_value(builder, code.load(_VECTOR, place, 4)) for place in places]
        with cgutils.for_range_slice(builder, start, end, ir.Constant(_LONG, 1)) as (j, _):
            row = code.at(x, code.load_index(_BYTE, code.at(columns, j, 1), 1), 4 * LANES * count)
            weight = code.spread(code.load(_FLOAT, code.at(weights, j, 4), 4))
            for part in range(count):
                code.add_product(sums[part], weight, code.load(_VECTOR, code.at(row, part, 4 * LANES), 4))
        for part in range(count):
            code.store(builder.load(sums[part]), places[part])

    return signature, generate


@intrinsic(prefer_literal=True)
def _products(_, x, columns, start, end, given, out, width):
    """Add to out[j], j in [start, end), the product of 16·width floats at `given` with the row of x of columns[j]."""
    count = width.literal_value
    signature = types.void(*[types.int64] * 6, width)

    def generate(_, builder, __, arguments):
        x, columns, start, end, given, out, _ = arguments
        code = _Code(builder)
        total = ir.FunctionType(_FLOAT, [_FLOAT, _VECTOR])
        total = cgutils.get_or_insert_function(builder.module, total, "llvm.vector.reduce.fadd.v16f32")
        parts = [code.load(_VECTOR, code.at(given, part, 4 * LANES), 4) for part in range(count)]
        with cgutils.for_range_slice(builder, start, end, ir.Constant(_LONG, 1)) as (j, _):
            row = code.at(x, code.load_index(_BYTE, code.at(columns, j, 1), 1), 4 * LANES * count)
            values = [code.load(_VECTOR, code.at(row, part, 4 * LANES), 4) for part in range(count)]
            product = builder.fmul(parts[0], values[0])
            for one, other in zip(parts[1:], values[1:]):
                product = builder.call(code.fma, [one, other, product])
            place = builder.inttoptr(code.at(out, j, 4), ir.PointerType(_FLOAT))
            before = builder.load(place, align=4)
            builder.store(builder.call(total, [before, product], fastmath=["reassoc"]), place, align=4)

    return signature, generate


@intrinsic
def _transpose(_, source, source_stride, rows, target, target_stride):
    """Transpose 16×16 floats (Eklundh's butterflies); strides in bytes; past `rows` the last row is read again."""
    signature = types.void(*[types.int64] * 5)

    def generate(_, builder, __, arguments):
        source, source_stride, rows, target, target_stride = arguments
        code = _Code(builder)
        last = builder.sub(rows, ir.Constant(_LONG, 1))
        held = []
        for row in range(LANES):
            number = ir.Constant(_LONG, row)
            number = builder.select(builder.icmp_signed("<", number, last), number, last)
            held.append(code.load(_VECTOR, builder.add(source, builder.mul(number, source_stride)), 4))
        for step in (1, 2, 4, 8):
            for row in (row for row in range(LANES) if not row & step):
                one, other = held[row], held[row | step]
                low = [lane if not lane & step else LANES + lane - step for lane in range(LANES)]
                high = [lane + step if not lane & step else LANES + lane for lane in range(LANES)]
                held[row], held[row | step] = code.shuffle(one, other, low), code.shuffle(one, other, high)
        for row, vector in enumerate(held):
            code.store(vector, builder.add(target, builder.mul(target_stride, ir.Constant(_LONG, row))))

    return signature, generate


@intrinsic
def _floats(_, address):
    """A pointer to float32 at an address."""

    def generate(_, builder, __, arguments):
        return builder.inttoptr(arguments[0], ir.PointerType(_FLOAT))

    return types.CPointer(types.float32)(types.int64), generate


@intrinsic
def _longs(_, address):
    """A pointer to int64 at an address."""

    def generate(_, builder, __, arguments):
        return builder.inttoptr(arguments[0], ir.PointerType(_LONG))

    return types.CPointer(types.int64)(types.int64), generate


@jit
def _address(array):
    """Where an array begins, as the signed number that addresses are here."""
    return np.int64(array.ctypes.data)


# ---- few rows of the batch -------------------------------------------------------------------------------------------


@jit
def _hand_out(sums, start, end, rows, bias, y):
    """Write a row of sums to the outputs that `rows` names, with their bias; returns whether none is NaN."""
    sound = True
    for n in range(start, end):
        value = sums[n - start]
        sound &= value == value
        y[rows[n]] = value + bias[rows[n]]
    return sound


@jit
def lookup(x, inputs, batch, weights, lanes, pairs, starts, first, last, rows, active, bias, y, outputs):
    """Outputs of the groups [first, last), by lookups in registers (AVX-512F).

    Args:
        x: address of (batch, inputs).
        weights, lanes, pairs: addresses of (slots, 16), (slots, 16) uint8 and (slots, 2) uint16.
        starts: address of (groups + 1,) int64, the first slot of each group of 16 neurons.
        rows: address of (active,) int64, the output of each neuron.
        bias: address of (outputs,).
        y: address of (batch, outputs); with all groups at once, outputs that are ablated get their bias.

    Returns:
        Whether no sum is NaN. A slot without a weight multiplies 0 with an input the neuron does not use: where that
        is infinite or NaN, so is the sum, and it must be computed in another way.
    """
    target, added = numba.carray(_floats(y), (batch, outputs)), numba.carray(_floats(bias), (outputs,))
    places, begin = numba.carray(_longs(rows), (active,)), numba.carray(_longs(starts), (last + 1,))
    width = LANES * (last - first)
    if active < outputs and first == 0 and width >= active:
        for b in range(batch):
            target[b] = added
    sums = np.empty((4, width), np.float32)
    stride, sound, row = 4 * inputs, True, 0
    while row < batch:
        place, count = x + stride * row, 4 if batch - row >= 4 else (2 if batch - row >= 2 else 1)
        for g in range(first, last):
            out = _address(sums) + 4 * LANES * (g - first)
            if count == 4:
                _add_slots(place, stride, weights, lanes, pairs, begin[g], begin[g + 1], out, 4 * width, 4)
            elif count == 2:
                _add_slots(place, stride, weights, lanes, pairs, begin[g], begin[g + 1], out, 4 * width, 2)
            else:
                _add_slots(place, stride, weights, lanes, pairs, begin[g], begin[g + 1], out, 4 * width, 1)
        for k in range(count):
            sound &= _hand_out(sums[k], LANES * first, min(active, LANES * last), places, added, target[row + k])
        row += count
    return sound


@simd
def _gathered(weight, index, values):
    """Σ_j weight[j] values[index[j]]."""
    total = np.float32(0.0)
    for j in range(len(weight)):
        total += weight[j] * values[index[j]]
    return total


@jit
def gather(x, inputs, batch, weight, index, first, last, rows, bias, y, outputs):
    """Outputs of the neurons [first, last), one after the other; `weight` (active, k), `index` (active, k) int32."""
    source, target = numba.carray(_floats(x), (batch, inputs)), numba.carray(_floats(y), (batch, outputs))
    for n in range(first, last):
        for b in range(batch):
            target[b, rows[n]] = _gathered(weight[n], index[n], source[b]) + bias[rows[n]]


# ---- many rows of the batch ------------------------------------------------------------------------------------------


@jit
def _transpose_tile(x, inputs, batch, first, start, end, width, buffer):
    """Write the inputs [start, end) of 16·width rows of the batch to (256 + 16, 16·width) floats, from row 16 on."""
    stride = 4 * LANES * width
    for part in range(width):
        row = first + LANES * part
        if row >= batch:
            break
        for i in range(start, end, LANES):
            i = min(i, inputs - LANES)  # the last block overlaps the one before it
            source, target = x + 4 * (row * inputs + i), buffer + stride * (i - start + LANES) + 4 * LANES * part
            _transpose(source, 4 * inputs, min(LANES, batch - row), target, stride)


@jit
def lanes(x, inputs, batch, matrix, first, width, rows, bias, y, outputs, scratch):
    """Outputs of all neurons for 16·width rows of the batch from `first` on.

    Args:
        x: address of (batch, inputs); at least 16 inputs.
        matrix: address of the weights; columns (weights,) uint8 within their tile; starts (tiles, neurons + 1) int64;
            order (tiles, neurons) int64, by the number of weights.
        width: 1, 2 or 4.
        rows, bias, y, outputs: as for `lookup`.
        scratch: 16·width·(neurons + 272) float32 or more: a tile, then the sums.
    """
    weights, columns, starts, order = matrix
    tiles, neurons = order.shape
    buffer, stride, marks = _address(scratch), 4 * LANES * width, _address(columns)
    table, sums = buffer + stride * LANES, buffer + stride * (TILE + LANES)
    scratch[LANES * width * (TILE + LANES) : LANES * width * (TILE + LANES + neurons)] = np.float32(0.0)
    for t in range(tiles):
        _transpose_tile(x, inputs, batch, first, TILE * t, min(inputs, TILE * (t + 1)), width, buffer)
        for q in range(neurons):
            n, s, e = order[t, q], starts[t, q], starts[t, q + 1]
            if s == e:
                continue
            out = sums + stride * n
            if width == 4:
                _add_row(table, weights, marks, s, e, out, 4)
            elif width == 2:
                _add_row(table, weights, marks, s, e, out, 2)
            else:
                _add_row(table, weights, marks, s, e, out, 1)
    _hand_back(sums, first, width, rows, bias, numba.carray(_floats(y), (batch, outputs)))


@jit
def _hand_back(sums, first, width, rows, bias, y):
    """Transpose the sums at an address, (neurons, 16·width), into their places of y, with their bias."""
    block = np.empty((LANES, LANES), np.float32)
    for part in range(width):
        row = first + LANES * part
        for n in range(0, len(rows), LANES):
            count = min(LANES, len(rows) - n)
            _transpose(sums + 4 * LANES * (n * width + part), 4 * LANES * width, count, _address(block), 4 * LANES)
            for b in range(min(LANES, len(y) - row)):
                for k in range(count):
                    y[row + b, rows[n + k]] = block[b, k] + bias[rows[n + k]]


@jit
def weight_gradient(x, inputs, given, neurons, batch, matrix, begin, end, out, scratch):
    """Add Σ_b given[b, n] x[b, i] for each weight of the neurons [begin, end).

    Args:
        x: address of (batch, inputs); batch a multiple of 16.
        given: address of (batch, neurons); at least 16 neurons and inputs.
        matrix: columns, starts and order as for `lanes`.
        out: address of (weights,), in the order of the matrix.
        scratch: 64·(neurons + 2·272) float32 or more: a tile, then the transpose of `given`.
    """
    columns, starts, order = matrix
    buffer, marks = _address(scratch), _address(columns)
    first = 0
    while first < batch:
        width = 4 if batch - first >= 64 else (2 if batch - first >= 32 else 1)
        stride = 4 * LANES * width
        table, gradients = buffer + stride * LANES, buffer + stride * (TILE + LANES)
        for n in range(0, neurons, TILE):
            place = gradients + stride * n
            _transpose_tile(given, neurons, batch, first, n, min(neurons, n + TILE), width, place)
        for t in range(len(order)):
            _transpose_tile(x, inputs, batch, first, TILE * t, min(inputs, TILE * (t + 1)), width, buffer)
            for q in range(order.shape[1]):
                n, s, e = order[t, q], starts[t, q], starts[t, q + 1]
                if n < begin or n >= end or s == e:
                    continue
                place = gradients + stride * (n + LANES)
                if width == 4:
                    _products(table, marks, s, e, place, out, 4)
                elif width == 2:
                    _products(table, marks, s, e, place, out, 2)
                else:
                    _products(table, marks, s, e, place, out, 1)
        first += LANES * width
