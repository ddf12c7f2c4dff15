"""Sixteen blocks of weights turned into a tile, and back into bytes; F16 numbers in float32 lanes.

A tile of blocks of n weights is float32 [n, 16]: weight i of each block side by side, one block a lane.
A last tile of fewer blocks repeats its last one; what the spare lanes give is not written.
"""

from typing import NamedTuple

import numpy as np
from numba import njit

from kernels.cpu.shapes import LEVEL
from kernels.cpu.vectors import (
    LANES,
    Floats,
    Ints,
    any_lane,
    bits,
    from_bits,
    least,
    load,
    most,
    select,
    splat,
    square_root,
    store,
    to_int,
    turn,
)


class Tile(NamedTuple):
    """Weights x and their importances w, float32 [size, 16] each, flat.

    The importance of weight i lies at i * stride: 0 where all are alike. `restored`: how much of what a block
    loses along itself its stored scales give back.
    """

    x: np.ndarray
    w: np.ndarray
    stride: int
    restored: np.float32


F32, F16, BF16 = range(3)
"""How weights are stored: as float32, or as 16 bits in uint16."""

_HALF_SCALE = np.float32(2.0**112)  # the difference of the two formats' exponents
# Adding and taking away 1.5 * 2^23 rounds a float32 below 2^22 to the nearest integer, ties to even.
_ROUNDER = np.float32(12582912.0)
_LARGEST = np.float32(65504)
_LEAST = np.float32(2.0**-24)
_LEAST_NORMAL = np.float32(2.0**-14)
_EXPONENT = 0x7F800000  # all ones: NaN or Inf


@njit(error_model="numpy")
def rounded(x: Floats) -> Floats:
    """The nearest integers to float32x16 below 2^22 in size, ties to even."""
    return (x + _ROUNDER) - _ROUNDER


@njit(error_model="numpy")
def size_of(x: Floats) -> Floats:
    """Absolute values of float32x16."""
    return from_bits(bits(x) & 0x7FFFFFFF)


@njit(error_model="numpy")
def storable(x: Floats) -> Floats:
    """The nearest F16 numbers to float32x16, but the largest one for more, and never 0 for something.

    A step rounded to 0 would lose its whole group; the smallest F16 number loses at most half of itself.
    """
    size = most(least(size_of(x), splat(_LARGEST)), splat(_LEAST))
    pattern = bits(size)
    normal = from_bits((pattern + 0xFFF + ((pattern >> 13) & 1)) & -0x2000)
    tiny = (size + np.float32(0.5)) - np.float32(0.5)  # 2^-24 is the last place of float32 from 0.5 on
    size = select(size < _LEAST_NORMAL, tiny, normal)
    signed = from_bits(bits(size) | (bits(x) & -0x80000000))
    return select(x == np.float32(0), splat(np.float32(0)), signed)


@njit(error_model="numpy")
def half_bits(x: Floats) -> Ints:
    """The 16 bits of F16 numbers held in float32x16, as int32x16."""
    size = size_of(x)
    normal = (bits(size) - (112 << 23)) >> 13
    tiny = to_int(size * np.float32(2.0**24))
    return select(size < _LEAST_NORMAL, tiny, normal) | ((bits(x) >> 16) & 0x8000)


@njit(error_model="numpy")
def copy(source: np.ndarray, begin: int, count: int, rows: np.ndarray, at: int) -> None:
    """rows[at : at + count] = source[begin : begin + count]; a slice would compile for seconds."""
    for i in range(count):
        rows[at + i] = source[begin + i]


@njit(error_model="numpy")
def _widen(stored: np.ndarray, kind: int, begin: int, count: int, rows: np.ndarray, at: int) -> None:
    """Weights begin .. begin + count of 16-bit `stored` into rows[at ...] as float32."""
    if kind == BF16:
        patterns = rows.view(np.uint32)
        for i in range(count):
            patterns[at + i] = np.uint32(stored[begin + i]) << np.uint32(16)
        return
    patterns = rows.view(np.uint32)
    for i in range(count):
        half = np.uint32(stored[begin + i])
        exponent_and_rest = (half & np.uint32(0x7FFF)) << np.uint32(13)
        infinite = np.uint32(0x7F800000) if exponent_and_rest >= np.uint32(0x0F800000) else np.uint32(0)
        patterns[at + i] = exponent_and_rest
        rows[at + i] = rows[at + i] * _HALF_SCALE
        patterns[at + i] |= infinite | (half & np.uint32(0x8000)) << np.uint32(16)


@njit(error_model="numpy")
def load_tile(
    plain: np.ndarray,
    stored: np.ndarray,
    kind: int,
    size: int,
    first: int,
    blocks: int,
    rows: np.ndarray,
    x: np.ndarray,
) -> bool:
    """Blocks first .. first + 16 of `size` weights each into the tile x [size, 16]; True if all are finite.

    Weights are `plain` float32 [blocks * size] or `stored` uint16, by `kind`. rows: scratch of a tile's size.
    """
    if kind == F32 and first + LANES <= blocks:
        for i in range(0, size, LANES):
            turn(plain, first * size + i, size, x, i * LANES)
    else:
        for lane in range(LANES):
            begin = min(first + lane, blocks - 1) * size
            if kind == F32:
                copy(plain, begin, size, rows, lane * size)
            else:
                _widen(stored, kind, begin, size, rows, lane * size)
        for i in range(0, size, LANES):
            turn(rows, i, size, x, i * LANES)
    broken = (bits(load(x, 0)) & _EXPONENT) == _EXPONENT
    for i in range(1, size):
        broken = broken | ((bits(load(x, i * LANES)) & _EXPONENT) == _EXPONENT)
    return not any_lane(broken)


@njit(error_model="numpy")
def load_importance(
    importance: np.ndarray,
    size: int,
    first: int,
    blocks: int,
    rows: np.ndarray,
    x: np.ndarray,
    w: np.ndarray,
) -> int:
    """The importance of a tile's weights x into w [size, 16], which holds ones.

    importance: float32 [columns], columns a multiple of `size`: block b has those from b * size % columns on;
    empty where all are alike. Returns by how much to go on in w for the next weight.
    """
    if importance.size == 0:
        return 0
    for lane in range(LANES):
        begin = min(first + lane, blocks - 1) * size % importance.size
        copy(importance, begin, size, rows, lane * size)
    for i in range(0, size, LANES):
        turn(rows, i, size, w, i * LANES)
    _favour_large(x, size, w)
    return LANES


@njit(error_model="numpy")
def _favour_large(x: np.ndarray, size: int, w: np.ndarray) -> None:
    """Importances w [size, 16] times sqrt(2 mean + xx) of the weights, in place.

    x here in parts of the largest of its block, for squares that neither vanish nor end in Inf.
    """
    largest = size_of(load(x, 0))
    for i in range(1, size):
        largest = most(size_of(load(x, i * LANES)), largest)
    zeros = largest == np.float32(0)
    largest = select(zeros, splat(np.float32(1)), largest)
    mean = splat(np.float32(0))
    for i in range(size):
        part = load(x, i * LANES) / largest
        mean = mean + part * part
    level = select(zeros, splat(np.float32(1)), mean * np.float32(LEVEL / size))
    for i in range(size):
        part = load(x, i * LANES) / largest
        store(w, i * LANES, load(w, i * LANES) * square_root(level + part * part))


@njit(error_model="numpy")
def write_bytes(
    data: np.ndarray, size: int, first: int, blocks: int, words: np.ndarray, rows: np.ndarray, out: np.ndarray
) -> None:
    """The first `blocks - first` lanes (at most 16) of int32 [size, 16], a byte each, as blocks of `out`.

    words, rows: scratch, int32 of `word_count(size)`. Four bytes are put together and turned as one: byte by
    byte, this took as long as ten trials of a scale.
    """
    for i in range(0, size - 3, 4):
        at = i * LANES
        lower = load(data, at) | load(data, at + LANES) << 8
        upper = load(data, at + 2 * LANES) | load(data, at + 3 * LANES) << 8
        store(words, i // 4 * LANES, lower | upper << 16)
    if size % 4:
        word = splat(np.int32(0))
        for i in range(size // 4 * 4, size):
            word = word | load(data, i * LANES) << (8 * (i % 4))
        store(words, size // 4 * LANES, word)
    width = words.size // LANES
    for i in range(0, width, LANES):
        turn(words, i * LANES, LANES, rows, i * LANES)
    for lane in range(min(LANES, blocks - first)):
        begin = (first + lane) * size
        for i in range(0, size, 4 * LANES):
            part = rows[(i // 4 + lane) * LANES : (i // 4 + lane + 1) * LANES].view(np.uint8)
            for k in range(min(4 * LANES, size - i)):
                out[begin + i + k] = part[k]


@njit(error_model="numpy")
def word_count(size: int) -> int:
    """Of the scratch for blocks of `size` bytes: whole tiles of 16 words of 4 bytes, for 16 lanes."""
    return -(-size // (4 * LANES)) * LANES * LANES
