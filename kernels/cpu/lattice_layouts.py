"""Points, signs and levels of sixteen lattice blocks to the bytes that GGUF stores (ggml-common.h).

As `kernels.cpu.layouts`. points int32 [vectors, 16] as `kernels.lattices` packs them; signs int32 [32, 16],
the signs of eight weights each, of which the types with even parity store seven. A level 2 s + 1 is stored
as s.
"""

import numpy as np
from numba import njit

from kernels.cpu.layouts import put, put_half
from kernels.cpu.tiles import half_bits
from kernels.cpu.vectors import LANES, load, splat, to_int

IQ1_S, IQ1_M, IQ2_XXS, IQ2_XS, IQ2_S, IQ3_XXS, IQ3_S = range(7)


@njit(error_model="numpy")
def _index(points, vector):
    return (load(points, vector * LANES) >> 16) & 0x7FF


@njit(error_model="numpy")
def _down(points, vector):
    return (load(points, vector * LANES) >> 30) & 1


@njit(error_model="numpy")
def _half_level(levels, group):
    return to_int(load(levels, group * LANES)) >> 1


@njit(error_model="numpy")
def _put_indices(points, vectors, data, place):
    """The lower 8 bits of each index."""
    for vector in range(vectors):
        put(data, place + vector, _index(points, vector))


@njit(error_model="numpy")
def _put_seven_signs(signs, levels, data, place, apart):
    """Each 32 weights: 4 times 7 signs, and above them 4 bits of their level."""
    for group in range(8):
        value = _half_level(levels, group) << 28
        for eight in range(4):
            value = value | (load(signs, (4 * group + eight) * LANES) & 127) << (7 * eight)
        for byte in range(4):
            put(data, place + apart * group + byte, value >> (8 * byte))


@njit(error_model="numpy")
def _put_signs(signs, data, place):
    for eight in range(32):
        put(data, place + eight, load(signs, eight * LANES))


@njit(error_model="numpy")
def _put_level_pairs(levels, pairs, data, place):
    for pair in range(pairs):
        put(data, place + pair, _half_level(levels, 2 * pair) | _half_level(levels, 2 * pair + 1) << 4)


@njit(error_model="numpy")
def _put_iq1_s(points, levels, data):
    _put_indices(points, 32, data, 2)
    for group in range(8):
        value = _half_level(levels, group) << 12 | _down(points, 4 * group) << 15
        for k in range(4):
            value = value | (_index(points, 4 * group + k) >> 8) << (3 * k)
        put(data, 34 + 2 * group, value)
        put(data, 35 + 2 * group, value >> 8)


@njit(error_model="numpy")
def _put_iq1_m(points, pattern, levels, data):
    """The 16 bits of the unit lie in the upper 4 bits of the four words of levels."""
    _put_indices(points, 32, data, 0)
    for j in range(16):
        low = (_index(points, 2 * j) >> 8) | _down(points, 2 * j) << 3
        high = (_index(points, 2 * j + 1) >> 8) | _down(points, 2 * j + 1) << 3
        put(data, 32 + j, low | high << 4)
    for word in range(4):
        value = ((pattern >> (4 * word)) & 15) << 12
        for k in range(4):
            value = value | _half_level(levels, 4 * word + k) << (3 * k)
        put(data, 48 + 2 * word, value)
        put(data, 49 + 2 * word, value >> 8)


@njit(error_model="numpy")
def _put_iq2_s(points, signs, levels, data):
    _put_indices(points, 32, data, 2)
    _put_signs(signs, data, 34)
    for group in range(8):
        value = splat(np.int32(0))
        for k in range(4):
            value = value | (_index(points, 4 * group + k) >> 8) << (2 * k)
        put(data, 66 + group, value)
    _put_level_pairs(levels, 8, data, 74)


@njit(error_model="numpy")
def _put_iq3_s(points, signs, levels, data):
    _put_indices(points, 64, data, 2)
    for group in range(8):
        value = splat(np.int32(0))
        for k in range(8):
            value = value | (_index(points, 8 * group + k) >> 8) << k
        put(data, 66 + group, value)
    _put_signs(signs, data, 74)
    _put_level_pairs(levels, 4, data, 106)


@njit(error_model="numpy")
def put_lattice(layout, points, signs, unit, levels, data):
    """unit: what is stored, an F16 number in float32x16."""
    if layout == IQ1_M:
        _put_iq1_m(points, half_bits(unit), levels, data)
        return
    put_half(data, 0, unit)
    if layout == IQ1_S:
        _put_iq1_s(points, levels, data)
    elif layout == IQ2_XXS:
        for vector in range(32):
            put(data, 2 + 8 * (vector // 4) + vector % 4, _index(points, vector))
        _put_seven_signs(signs, levels, data, 6, 8)
    elif layout == IQ2_XS:
        for vector in range(32):
            value = _index(points, vector) | (load(signs, vector * LANES) & 127) << 9
            put(data, 2 + 2 * vector, value)
            put(data, 3 + 2 * vector, value >> 8)
        _put_level_pairs(levels, 8, data, 66)
    elif layout == IQ2_S:
        _put_iq2_s(points, signs, levels, data)
    elif layout == IQ3_XXS:
        _put_indices(points, 64, data, 2)
        _put_seven_signs(signs, levels, data, 66, 4)
    else:
        _put_iq3_s(points, signs, levels, data)
