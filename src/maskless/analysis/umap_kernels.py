"""Compiled steps of UMAP (:mod:`maskless.analysis.umap` says what they make)."""

# mypy: disable-error-code="no-untyped-call,unused-ignore"

from __future__ import annotations

from typing import Any

import numpy as np
from llvmlite import ir  # type: ignore[import-untyped]
from numba import extending, njit, types
from numpy.typing import NDArray

PUSHES = 8
"""Random others that push a cell for each use of an edge: as many as a vector register holds."""

BLOCK = 2048
"""Rows that are moved with one generator of random numbers."""

_POOL = 1024
_SEARCH_STEPS = 64
_MOST = 4.0  # no force moves a cell farther in one step
_FLOAT, _INT32 = ir.FloatType(), ir.IntType(32)
_intrinsic: Any = extending.intrinsic


@njit(nogil=True, cache=True)
def neighbour_weights(  # type: ignore[no-untyped-def]
    distances_nk: NDArray[np.float32],
    weights_nk: NDArray[np.float32],
    mean_distance: float,
    start: int,
    stop: int,
):
    """Weigh neighbours as UMAP does: exp(-(d - nearest) / width), widths chosen by bisection.

    The width makes the weights of a cell sum to log2(k + 1).
    """
    k = distances_nk.shape[1]
    target = np.log2(k + 1.0)
    for i in range(start, stop):
        nearest = 0.0
        mean = 0.0
        for j in range(k):
            if nearest == 0.0:
                nearest = np.float64(distances_nk[i, j])
            mean += distances_nk[i, j] / k
        low, high, width = 0.0, np.inf, 1.0
        for _ in range(_SEARCH_STEPS):
            total = 0.0
            for j in range(k):
                beyond = distances_nk[i, j] - nearest
                total += np.exp(-beyond / width) if beyond > 0 else 1.0
            if abs(total - target) < 1e-5:
                break
            if total > target:
                high = width
                width = (low + high) / 2
            else:
                low = width
                width = width * 2 if high == np.inf else (low + high) / 2
        width = max(width, 1e-3 * (mean if nearest > 0 else mean_distance))
        for j in range(k):
            beyond = distances_nk[i, j] - nearest
            weights_nk[i, j] = np.exp(-beyond / width) if beyond > 0 else 1.0


@njit(nogil=True, cache=True)
def fuzzy_union(indices_nk: NDArray[np.int32], weights_nk: NDArray[np.float32]) -> Any:
    """Symmetric graph of weights a + b - ab, as the arrays of a CSR matrix."""
    n, k = indices_nk.shape
    back_nk = np.full((n, k), -1, np.int32)  # where i stands among the neighbours of j
    starts = np.zeros(n + 1, np.int64)
    for i in range(n):
        for s in range(k):
            j = indices_nk[i, s]
            for t in range(k):
                if indices_nk[j, t] == i:
                    back_nk[i, s] = t
                    break
            starts[i + 1] += 1
            if back_nk[i, s] < 0:
                starts[j + 1] += 1
    for i in range(n):
        starts[i + 1] += starts[i]
    columns = np.empty(starts[n], np.int32)
    weights = np.empty(starts[n], np.float32)
    place = starts[:-1].copy()
    for i in range(n):
        for s in range(k):
            j = indices_nk[i, s]
            there = weights_nk[i, s]
            back = np.float32(0)
            if back_nk[i, s] >= 0:
                back = weights_nk[j, back_nk[i, s]]
            columns[place[i]] = j
            weights[place[i]] = there + back - there * back
            place[i] += 1
            if back_nk[i, s] < 0:
                columns[place[j]] = i
                weights[place[j]] = there
                place[j] += 1
    return starts, columns, weights


def _place(context: Any, builder: Any, array_type: Any, array: Any, element: Any) -> Any:
    data = context.make_array(array_type)(context, builder, array).data
    return builder.gep(data, [element])


def _upper_bits(builder: Any, bits: Any, ones: Any) -> Any:
    """Of a float32: exponent and the first 7 bits of the mantissa, a whole number below 32,768."""
    upper = builder.lshr(bits, ones(16))
    return builder.and_(upper, ones(0x7FFF))


@_intrinsic
def _row(typing: Any, number: Any) -> Any:
    """Row of the tables of forces that stands for a squared distance."""

    def make(context: Any, builder: Any, signature: Any, given: Any) -> Any:
        bits = builder.bitcast(given[0], _INT32)
        row = _upper_bits(builder, bits, lambda number: ir.Constant(_INT32, number))
        return builder.zext(row, ir.IntType(64))

    return types.uint64(types.float32), make


@_intrinsic
def _pushes(
    typing: Any, pool_x: Any, pool_y: Any, first: Any, x: Any, y: Any, repulsion: Any
) -> Any:
    """Sum of the forces by which 8 points of the pool, from `first` on, push away (x, y)."""
    lane_type, row_type = ir.VectorType(_FLOAT, PUSHES), ir.VectorType(_INT32, PUSHES)

    def make(context: Any, builder: Any, signature: Any, given: Any) -> Any:
        kinds = signature.args

        def all_lanes(value: float) -> Any:
            return ir.Constant(lane_type, [ir.Constant(_FLOAT, value)] * PUSHES)

        def beyond(pool: int, middle: int) -> Any:
            place = _place(context, builder, kinds[pool], given[pool], given[2])
            others = builder.load(builder.bitcast(place, lane_type.as_pointer()), align=4)
            undefined = ir.Constant(lane_type, ir.Undefined)
            lane = builder.insert_element(undefined, given[middle], ir.Constant(_INT32, 0))
            lanes = builder.shuffle_vector(lane, undefined, ir.Constant(row_type, [0] * PUSHES))
            return builder.fsub(lanes, others)

        def total(lanes: Any) -> Any:
            for half in (4, 2, 1):
                kind = ir.VectorType(_INT32, half)
                low, high = (
                    builder.shuffle_vector(
                        lanes, lanes, ir.Constant(kind, list(range(start, start + half)))
                    )
                    for start in (0, half)
                )
                lanes = builder.fadd(low, high)
            return builder.extract_element(lanes, ir.Constant(_INT32, 0))

        dx, dy = beyond(0, 3), beyond(1, 4)
        squared = builder.fadd(builder.fmul(dx, dx), builder.fmul(dy, dy))
        rows = _upper_bits(
            builder,
            builder.bitcast(squared, row_type),
            lambda number: ir.Constant(row_type, [number] * PUSHES),
        )
        force = ir.Constant(lane_type, ir.Undefined)
        for number in range(PUSHES):
            lane = ir.Constant(_INT32, number)
            row = builder.zext(builder.extract_element(rows, lane), ir.IntType(64))
            each = builder.load(_place(context, builder, kinds[5], given[5], row))
            force = builder.insert_element(force, each, lane)
        sums = []
        for along in (dx, dy):
            push = builder.fmul(force, along)
            for comparison, most in (("<", _MOST), (">", -_MOST)):
                inside = builder.fcmp_ordered(comparison, push, all_lanes(most))
                push = builder.select(inside, push, all_lanes(most))
            sums.append(total(push))
        return context.make_tuple(builder, signature.return_type, sums)

    number = types.float32
    arguments = (pool_x, pool_y, types.uint64, number, number, repulsion)
    return types.UniTuple(number, 2)(*arguments), make


@njit(nogil=True, cache=True)
def _next_number(state: np.uint64, below: np.uint64) -> Any:
    """Advance a generator (xorshift of 64 bits); its state, and a number below `below`."""
    state ^= state << np.uint64(13)
    state ^= state >> np.uint64(7)
    state ^= state << np.uint64(17)
    return state, ((state >> np.uint64(32)) * below) >> np.uint64(32)


@njit(nogil=True, cache=True, fastmath={"nnan", "nsz", "contract"})
def move_points(  # type: ignore[no-untyped-def]
    starts: NDArray[np.int64],
    columns: NDArray[np.int32],
    chances: NDArray[np.float32],
    heads_n2: NDArray[np.float32],
    tails_m2: NDArray[np.float32],
    moved_n2: NDArray[np.float32],
    attraction: NDArray[np.float32],
    repulsion: NDArray[np.float32],
    step: np.float32,
    weight: np.float32,
    epoch: int,
    seed: int,
    start: int,
    stop: int,
):
    """Move heads ``start .. stop - 1`` by one epoch of stochastic gradient descent.

    Each edge is used in a share `chances` of the epochs, evenly spaced; it pulls once, and 8 random
    others push, each counted `weight` times. Positions of all others are read from `tails_m2`,
    which does not change meanwhile, so blocks of heads can be moved in any order.

    The random others of a block are a sample of the tails that is drawn first: it stays in the
    fastest cache, and any 8 of it in a row are as random as any other 8.
    """
    others = np.uint64(tails_m2.shape[0])
    most = np.float32(_MOST)
    push_step = step * weight
    now, then = np.float32(epoch), np.float32(epoch + 1)
    pool_x, pool_y = np.empty(_POOL + PUSHES, np.float32), np.empty(_POOL + PUSHES, np.float32)
    longest = 0
    for i in range(start, stop):
        longest = max(longest, starts[i + 1] - starts[i])
    used = np.empty(longest, np.int32)
    for first in range(start, stop, BLOCK):
        state = np.uint64(seed) * np.uint64(0x9E3779B97F4A7C15) + np.uint64(first)
        state = (state ^ (state >> np.uint64(31))) * np.uint64(0xBF58476D1CE4E5B9)
        state = (state ^ np.uint64(epoch)) * np.uint64(0x94D049BB133111EB)
        state ^= state >> np.uint64(29)
        state |= np.uint64(1)
        for drawn in range(_POOL + PUSHES):
            state, other = _next_number(state, others)
            pool_x[drawn], pool_y[drawn] = tails_m2[other, 0], tails_m2[other, 1]
        for i in range(first, min(first + BLOCK, stop)):
            count = 0
            for e in range(starts[i], starts[i + 1]):  # without a branch that cannot be foreseen
                used[count] = columns[e]
                count += np.int32(chances[e] * then) != np.int32(chances[e] * now)
            x = first_x = heads_n2[i, 0]
            y = first_y = heads_n2[i, 1]
            for u in range(count):
                j = np.uint32(used[u])  # unsigned: no test for counting from the end
                dx, dy = x - tails_m2[j, 0], y - tails_m2[j, 1]
                force = attraction[_row(dx * dx + dy * dy)]
                state, other = _next_number(state, np.uint64(_POOL))
                # Where the cell stood first: so the pushes of its edges do not wait for each other.
                push_x, push_y = _pushes(pool_x, pool_y, other, first_x, first_y, repulsion)
                x += step * min(max(force * dx, -most), most) + push_step * push_x
                y += step * min(max(force * dy, -most), most) + push_step * push_y
            moved_n2[i, 0] = x
            moved_n2[i, 1] = y
