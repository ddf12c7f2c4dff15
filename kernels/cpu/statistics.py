"""The sweep over weights: moments, range and zeros of each row and each column, and a histogram, at once.

Method: two rows of sixteen columns a step, in tiles of `HEIGHT` rows by `WIDTH` columns. What a step adds to
its rows stays in registers, what it adds to its columns in the first cache, both in float32; the sums of each
tile go on in float64. The histogram is of the upper 16 bits of each weight, read again as such from the
cache: that is quicker than to take them out of a vector. Counting whole rows before the sums took a sixth
less time than counting beside them. Four rows a step gained nothing, nor did more histograms.

Powers are of y = (x - pivot) * scale, so that they neither vanish nor end in Inf. Where they do, in tiles
with weights much smaller or larger than usual, and at edges that steps do not divide, a plain loop does the
same in float64. It is also what finds out whether a weight is NaN or Inf.
"""

from typing import NamedTuple

import numpy as np
from numba import njit

from kernels.cpu.tiles import BF16, F32
from kernels.cpu.vectors import (
    LANES,
    Floats,
    bits,
    from_bits,
    least,
    load,
    load_halves,
    most,
    select,
    splat,
    store,
    tally,
    tally_every_other,
)

HEIGHT, WIDTH = 32, 256
STEP = 2
"""Rows that are swept at once."""

BINS = 1 << 16
TABLES = 2
"""Histograms, for rows in turn."""

POWERS = 4

_TINY = np.float32(2.0**-56)
"""Where y² of a row or column of a tile are less on average, float32 loses digits of their fourth powers."""

_ZERO, _MOST = np.float32(0), np.float32(np.inf)
_HALF_SCALE = np.float32(2.0**112)  # the difference of the exponents of F16 and F32


class Weights(NamedTuple):
    """A matrix as it is stored, flat: `plain` float32, or 16 bits in `halves` uint16, by `kind`.

    Of float32, `halves` are the same bytes: the upper half of weight i is at 2 i + 1.
    """

    plain: np.ndarray
    halves: np.ndarray
    kind: int
    columns: int
    pivot: np.float32
    scale: np.float32


class Sums(NamedTuple):
    """Of n rows or columns: sums of y, y², y³, y⁴ float64 [4, n], range float32 [n], zeros int64 [n]."""

    powers: np.ndarray
    low: np.ndarray
    high: np.ndarray
    zeros: np.ndarray


class _Tile(NamedTuple):
    """What is gathered of a tile, flat. By row and lane: powers float64 [HEIGHT, 4, 16], range float32
    [HEIGHT, 16]. By column: powers float32 [4, WIDTH], range float32 [WIDTH]. `sums`: what rows add up to in
    one tile, float32 [HEIGHT, 4, 16]. `wide`: sixteen weights as float32; `wide_halves` are the same bytes.
    """

    powers: np.ndarray
    low: np.ndarray
    high: np.ndarray
    columns: np.ndarray
    column_low: np.ndarray
    column_high: np.ndarray
    sums: np.ndarray
    wide: np.ndarray
    wide_halves: np.ndarray


@njit(error_model="numpy", forceinline=True)
def _load(weights: Weights, at: int) -> Floats:
    """Sixteen weights from `at` on."""
    if weights.kind == F32:
        return load(weights.plain, at)
    half = load_halves(weights.halves, at)
    if weights.kind == BF16:
        return from_bits(half << 16)
    size = from_bits((half & 0x7FFF) << 13) * _HALF_SCALE
    size = select((half & 0x7C00) == 0x7C00, splat(_MOST), size)
    return from_bits(bits(size) | (half & 0x8000) << 16)


@njit(error_model="numpy")
def _value(weights: Weights, at: int) -> float:
    if weights.kind == F32:
        return np.float64(weights.plain[at])
    half = np.int64(weights.halves[at])
    bias, places = (127, 7) if weights.kind == BF16 else (15, 10)
    exponent, digits = (half & 0x7FFF) >> places, half & ((1 << places) - 1)
    if exponent == 2 * bias + 1:
        return np.inf
    if exponent:
        digits += 1 << places
    least_exponent = 1 - bias - places
    size = np.ldexp(np.float64(digits), least_exponent + (exponent - 1 if exponent else 0))
    return -size if half & 0x8000 else size


@njit(error_model="numpy", forceinline=True)
def _count(weights: Weights, at: int, width: int, tile: _Tile, counts: np.ndarray, first: int) -> None:
    """`width` weights from `at` on, a multiple of sixteen, into the histogram that begins at `first`."""
    if weights.kind == BF16:
        for i in range(at, at + width, LANES):
            tally(counts, first, weights.halves, i)
    elif weights.kind == F32:
        for i in range(at, at + width, LANES):
            tally_every_other(counts, first, weights.halves, 2 * i + 1)
    else:
        for i in range(at, at + width, LANES):
            store(tile.wide, 0, _load(weights, i))
            tally_every_other(counts, first, tile.wide_halves, 1)


@njit(error_model="numpy", forceinline=True)
def _step(weights: Weights, at: int, width: int, row: int, tile: _Tile) -> None:
    """Two rows of `width` weights each from `at` on, which are rows `row` and `row` + 1 of the tile."""
    columns, low, high = tile.columns, tile.column_low, tile.column_high
    pivot, scale = splat(weights.pivot), splat(weights.scale)
    below = at + weights.columns
    a1 = a2 = a3 = a4 = b1 = b2 = b3 = b4 = splat(_ZERO)
    a_low, a_high = load(tile.low, row * LANES), load(tile.high, row * LANES)
    b_low, b_high = load(tile.low, (row + 1) * LANES), load(tile.high, (row + 1) * LANES)
    for i in range(0, width, LANES):
        a, b = _load(weights, at + i), _load(weights, below + i)
        a_low, a_high, b_low, b_high = least(a, a_low), most(a, a_high), least(b, b_low), most(b, b_high)
        store(low, i, least(least(a, b), load(low, i)))
        store(high, i, most(most(a, b), load(high, i)))
        a, b = (a - pivot) * scale, (b - pivot) * scale
        store(columns, i, load(columns, i) + (a + b))
        a1, b1 = a1 + a, b1 + b
        aa, bb = a * a, b * b
        store(columns, WIDTH + i, load(columns, WIDTH + i) + (aa + bb))
        a2, b2 = a2 + aa, b2 + bb
        a, b = a * aa, b * bb
        store(columns, 2 * WIDTH + i, load(columns, 2 * WIDTH + i) + (a + b))
        a3, b3 = a3 + a, b3 + b
        aa, bb = aa * aa, bb * bb
        store(columns, 3 * WIDTH + i, load(columns, 3 * WIDTH + i) + (aa + bb))
        a4, b4 = a4 + aa, b4 + bb
    store(tile.low, row * LANES, a_low)
    store(tile.high, row * LANES, a_high)
    store(tile.low, (row + 1) * LANES, b_low)
    store(tile.high, (row + 1) * LANES, b_high)
    at = row * POWERS * LANES
    store(tile.sums, at, a1)
    store(tile.sums, at + LANES, a2)
    store(tile.sums, at + 2 * LANES, a3)
    store(tile.sums, at + 3 * LANES, a4)
    store(tile.sums, at + 4 * LANES, b1)
    store(tile.sums, at + 5 * LANES, b2)
    store(tile.sums, at + 6 * LANES, b3)
    store(tile.sums, at + 7 * LANES, b4)


@njit(error_model="numpy")
def _differs(weights: Weights, at: int, step: int, count: int) -> bool:
    """Whether any of `count` weights, `step` apart from `at` on, is not the pivot."""
    for i in range(count):  # noqa: SIM110 - Numba takes no generators
        if _value(weights, at + i * step) != weights.pivot:
            return True
    return False


@njit(error_model="numpy")
def _is_exact(weights: Weights, at: int, height: int, width: int, tile: _Tile) -> bool:
    """Whether float32 has held what a tile adds up to: nothing without end, nothing lost near 0."""
    for row in range(height):
        squares, fourth, begin = _ZERO, _ZERO, row * POWERS * LANES
        for lane in range(LANES):
            squares += tile.sums[begin + LANES + lane]
            fourth += tile.sums[begin + 3 * LANES + lane]
        if not fourth < _MOST:
            return False
        if squares < width * _TINY and _differs(weights, at + row * weights.columns, 1, width):
            return False
    for column in range(width):
        small = tile.columns[WIDTH + column] < height * _TINY
        if small and _differs(weights, at + column, weights.columns, height):
            return False
    return True


@njit(error_model="numpy")
def _sweep_plainly(
    weights: Weights, first: int, rows: Sums, height: int, left: int, columns: Sums, width: int
) -> bool:
    """Powers and ranges of rows from `first` on, columns from `left` on; False for NaN or Inf among them."""
    pivot, scale = np.float64(weights.pivot), np.float64(weights.scale)
    for row in range(first, first + height):
        for column in range(left, left + width):
            value = _value(weights, row * weights.columns + column)
            if not np.isfinite(value):
                return False
            low, high = np.float32(value), np.float32(value)
            rows.low[row], rows.high[row] = min(rows.low[row], low), max(rows.high[row], high)
            columns.low[column] = min(columns.low[column], low)
            columns.high[column] = max(columns.high[column], high)
            y = (value - pivot) * scale
            power = y
            for k in range(POWERS):
                rows.powers[k, row] += power
                columns.powers[k, column] += power
                power *= y
    return True


@njit(error_model="numpy")
def _count_plainly(
    weights: Weights, first: int, height: int, left: int, width: int, tile: _Tile, counts: np.ndarray
) -> None:
    for row in range(first, first + height):
        begin = row * weights.columns
        for at in range(begin + left, begin + left + width):
            tile.wide[0] = _value(weights, at)
            counts[tile.wide_halves[1]] += np.uint32(1)


@njit(error_model="numpy")
def _count_zeros(weights: Weights, first: int, rows: Sums, height: int, columns: Sums) -> None:
    """All columns of `height` rows from `first` on."""
    for row in range(first, first + height):
        begin = row * weights.columns
        for column in range(weights.columns):
            if weights.kind == F32:
                zero = weights.plain[begin + column] == _ZERO
            else:
                zero = weights.halves[begin + column] & np.uint16(0x7FFF) == 0
            rows.zeros[row] += zero
            columns.zeros[column] += zero


@njit(error_model="numpy")
def _begin(tile: _Tile) -> None:
    tile.columns[:] = _ZERO
    tile.column_low[:] = _MOST
    tile.column_high[:] = -_MOST


@njit(error_model="numpy")
def _add(tile: _Tile, height: int, columns: Sums, left: int, width: int) -> None:
    """What a tile of float32 sums has gathered to what is kept in float64."""
    for i in range(height * POWERS * LANES):
        tile.powers[i] += np.float64(tile.sums[i])
    for k in range(POWERS):
        for i in range(width):
            columns.powers[k, left + i] += np.float64(tile.columns[k * WIDTH + i])
    for i in range(width):
        columns.low[left + i] = min(columns.low[left + i], tile.column_low[i])
        columns.high[left + i] = max(columns.high[left + i], tile.column_high[i])


@njit(error_model="numpy")
def _finish_rows(tile: _Tile, rows: Sums, first: int, height: int) -> None:
    """The lanes of each row put together, in their order."""
    for row in range(height):
        for k in range(POWERS):
            total = np.float64(0)
            for lane in range(LANES):
                total += tile.powers[(row * POWERS + k) * LANES + lane]
            rows.powers[k, first + row] += total
        for lane in range(row * LANES, (row + 1) * LANES):
            rows.low[first + row] = min(rows.low[first + row], tile.low[lane])
            rows.high[first + row] = max(rows.high[first + row], tile.high[lane])


@njit(error_model="numpy")
def _zeros_in(counts: np.ndarray) -> int:
    """Weights counted so far that may be 0: of either sign, with nothing in the upper 16 bits."""
    total = 0
    for begin in range(0, TABLES * BINS, BINS // 2):
        total += int(counts[begin])
    return total


@njit(error_model="numpy", nogil=True, cache=True)
def sweep(weights: Weights, rows: Sums, columns: Sums, counts: np.ndarray) -> bool:
    """Adds a matrix to `rows`, `columns` and histograms uint32 [2 * 65536]; False for NaN or Inf in it."""
    many, whole = rows.low.size, weights.columns // LANES * LANES
    wide = np.empty(LANES, np.float32)
    tile = _Tile(
        np.empty(HEIGHT * POWERS * LANES, np.float64),
        np.empty(HEIGHT * LANES, np.float32),
        np.empty(HEIGHT * LANES, np.float32),
        np.empty(POWERS * WIDTH, np.float32),
        np.empty(WIDTH, np.float32),
        np.empty(WIDTH, np.float32),
        np.empty(HEIGHT * POWERS * LANES, np.float32),
        wide,
        wide.view(np.uint16),
    )
    for first in range(0, many, HEIGHT):
        before = _zeros_in(counts)
        there = min(HEIGHT, many - first)
        height = there // STEP * STEP
        tile.powers[:] = 0
        tile.low[:] = _MOST
        tile.high[:] = -_MOST
        for row in range(height):
            begin = (first + row) * weights.columns
            _count(weights, begin, whole, tile, counts, row % TABLES * BINS)
        for left in range(0, whole if height else 0, WIDTH):
            width = min(WIDTH, whole - left)
            at = first * weights.columns + left
            _begin(tile)
            for row in range(0, height, STEP):
                _step(weights, at + row * weights.columns, width, row, tile)
            if _is_exact(weights, at, height, width, tile):
                _add(tile, height, columns, left, width)
            elif not _sweep_plainly(weights, first, rows, height, left, columns, width):
                return False
        _finish_rows(tile, rows, first, height)
        # What steps do not divide: columns on the right, and rows below.
        for top, part, left in ((first, height, whole), (first + height, there - height, 0)):
            width = weights.columns - left
            if not _sweep_plainly(weights, top, rows, part, left, columns, width):
                return False
            _count_plainly(weights, top, part, left, width, tile, counts)
        if _zeros_in(counts) != before:
            _count_zeros(weights, first, rows, there, columns)
    return True
