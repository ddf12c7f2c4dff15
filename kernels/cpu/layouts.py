"""Codes and scales of sixteen blocks to the bytes that GGUF stores, a byte a lane (ggml-common.h).

Tiles: codes int32 [weights of a block, 16], levels float32 [groups, 16], data int32 [bytes of a block, 16];
units are float32x16 that F16 can hold. `engine.formats` says what the bytes mean, and reads them.
"""

import numpy as np
from numba import njit

from kernels.cpu.tiles import half_bits
from kernels.cpu.vectors import LANES, load, splat, store, to_int

Q4_0, Q4_1, Q5_0, Q5_1, Q8_0, Q2_K, Q3_K, Q4_K, Q5_K, Q6_K, TQ1_0, TQ2_0, IQ4_NL, IQ4_XS = range(14)


@njit(error_model="numpy")
def _code(codes, index):
    return load(codes, index * LANES)


@njit(error_model="numpy")
def _level(levels, group):
    return to_int(load(levels, group * LANES))


@njit(error_model="numpy")
def put(data, place, value):
    store(data, place * LANES, value & 255)


@njit(error_model="numpy")
def put_half(data, place, unit):
    pattern = half_bits(unit)
    put(data, place, pattern)
    put(data, place + 1, pattern >> 8)


@njit(error_model="numpy")
def _put_nibbles(codes, begin, apart, count, data, place):
    """Byte j: the low 4 bits of code begin + j, and above them those of code begin + apart + j."""
    for j in range(count):
        low, high = _code(codes, begin + j) & 15, _code(codes, begin + apart + j) & 15
        put(data, place + j, low | high << 4)


@njit(error_model="numpy")
def _put_plain(layout, codes, unit, shift_unit, data):
    """One group of 32 codes a block; codes as stored: from 0 on, but for Q8_0."""
    put_half(data, 0, unit)
    place = 2
    if layout == Q8_0:
        for j in range(32):
            put(data, 2 + j, _code(codes, j))
        return
    if layout in (Q4_1, Q5_1):
        put_half(data, 2, shift_unit)
        place = 4
    if layout in (Q5_0, Q5_1):
        for byte in range(4):
            fifth = splat(np.int32(0))
            for bit in range(8):
                fifth = fifth | ((_code(codes, 8 * byte + bit) >> 4) & 1) << bit
            put(data, place + byte, fifth)
        place += 4
    _put_nibbles(codes, 0, 16, 16, data, place)


@njit(error_model="numpy")
def _put_six_bit_pairs(levels, shift_levels, data, place):
    """The 12 bytes of Q4_K's and Q5_K's levels: 8 of steps, 8 of shifts, 6 bits each."""
    for j in range(4):
        a, b = _level(levels, j), _level(shift_levels, j)
        later_a, later_b = _level(levels, j + 4), _level(shift_levels, j + 4)
        put(data, place + j, a | (later_a >> 4) << 6)
        put(data, place + 4 + j, b | (later_b >> 4) << 6)
        put(data, place + 8 + j, (later_a & 15) | (later_b & 15) << 4)


@njit(error_model="numpy")
def _put_two_bits(codes, data, place):
    """Two runs of 32 bytes; byte i of a run holds 2 bits of its codes i, i + 32, i + 64 and i + 96."""
    for run in range(2):
        for i in range(32):
            value = splat(np.int32(0))
            for part in range(4):
                value = value | (_code(codes, 128 * run + 32 * part + i) & 3) << (2 * part)
            put(data, place + 32 * run + i, value)


@njit(error_model="numpy")
def _put_high_bits(codes, shift, data, place):
    """32 bytes: bit g of byte i is bit `shift` of code 32 g + i."""
    for i in range(32):
        value = splat(np.int32(0))
        for group in range(8):
            value = value | ((_code(codes, 32 * group + i) >> shift) & 1) << group
        put(data, place + i, value)


@njit(error_model="numpy")
def _put_q2_k(codes, unit, shift_unit, levels, shift_levels, data):
    for group in range(16):
        put(data, group, _level(levels, group) | _level(shift_levels, group) << 4)
    _put_two_bits(codes, data, 16)
    put_half(data, 80, unit)
    put_half(data, 82, splat(np.float32(0)) - shift_unit)


@njit(error_model="numpy")
def _put_q3_k(codes, unit, levels, data):
    _put_high_bits(codes, 2, data, 0)
    _put_two_bits(codes, data, 32)
    for j in range(8):
        put(data, 96 + j, ((_level(levels, j) + 32) & 15) | ((_level(levels, j + 8) + 32) & 15) << 4)
    for j in range(4):
        value = splat(np.int32(0))
        for part in range(4):
            value = value | ((_level(levels, 4 * part + j) + 32) >> 4) << (2 * part)
        put(data, 104 + j, value)
    put_half(data, 108, unit)


@njit(error_model="numpy")
def _put_q4_k(layout, codes, unit, shift_unit, levels, shift_levels, data):
    put_half(data, 0, unit)
    put_half(data, 2, splat(np.float32(0)) - shift_unit)
    _put_six_bit_pairs(levels, shift_levels, data, 4)
    place = 16
    if layout == Q5_K:
        _put_high_bits(codes, 4, data, place)
        place += 32
    for run in range(4):
        _put_nibbles(codes, 64 * run, 32, 32, data, place + 32 * run)


@njit(error_model="numpy")
def _put_q6_k(codes, unit, levels, data):
    for half in range(2):
        _put_nibbles(codes, 128 * half, 64, 64, data, 64 * half)
        for i in range(32):
            value = splat(np.int32(0))
            for part in range(4):
                value = value | (_code(codes, 128 * half + 32 * part + i) >> 4) << (2 * part)
            put(data, 128 + 32 * half + i, value)
    for group in range(16):
        put(data, 192 + group, _level(levels, group))
    put_half(data, 208, unit)


@njit(error_model="numpy")
def _put_trits(codes, begin, apart, digits, count, data, place):
    """Byte j: codes begin + j, begin + j + apart, … (0 .. 2) as digits of a fraction, the first the highest.

    Five digits a byte; where there are fewer, the others are 0. A fraction f of 243 is stored as
    ceil(f * 256 / 243); n / 243 = n * 17261 >> 22 for the n that occur.
    """
    for j in range(count):
        value = splat(np.int32(0))
        for digit in range(5):
            value = value * 3
            if digit < digits:
                value = value + _code(codes, begin + j + digit * apart)
        put(data, place + j, ((value * 256 + 242) * 17261) >> 22)


@njit(error_model="numpy")
def _put_ternary(layout, codes, unit, data):
    if layout == TQ2_0:
        _put_two_bits(codes, data, 0)
        put_half(data, 64, unit)
    else:
        _put_trits(codes, 0, 32, 5, 32, data, 0)
        _put_trits(codes, 160, 16, 5, 16, data, 32)
        _put_trits(codes, 240, 4, 4, 4, data, 48)
        put_half(data, 52, unit)


@njit(error_model="numpy")
def _put_iq4_xs(codes, unit, levels, data):
    put_half(data, 0, unit)
    upper = splat(np.int32(0))
    for j in range(4):
        a, b = _level(levels, 2 * j) + 32, _level(levels, 2 * j + 1) + 32
        upper = upper | ((a >> 4) | (b >> 4) << 2) << (4 * j)
        put(data, 4 + j, (a & 15) | (b & 15) << 4)
    put(data, 2, upper)
    put(data, 3, upper >> 8)
    for group in range(8):
        _put_nibbles(codes, 32 * group, 16, 16, data, 8 + 16 * group)


@njit(error_model="numpy")
def put_symmetric(layout, codes, unit, levels, data):
    """Blocks without shifts; codes as stored, from 0 on (Q8_0: as they are)."""
    if layout == Q3_K:
        _put_q3_k(codes, unit, levels, data)
    elif layout == Q6_K:
        _put_q6_k(codes, unit, levels, data)
    elif layout == IQ4_XS:
        _put_iq4_xs(codes, unit, levels, data)
    elif layout in (TQ1_0, TQ2_0):
        _put_ternary(layout, codes, unit, data)
    else:
        _put_plain(layout, codes, unit, unit, data)


@njit(error_model="numpy")
def put_affine(layout, codes, unit, shift_unit, levels, shift_levels, data):
    """Blocks with shifts; codes from 0 on."""
    if layout == Q2_K:
        _put_q2_k(codes, unit, shift_unit, levels, shift_levels, data)
    elif layout in (Q4_K, Q5_K):
        _put_q4_k(layout, codes, unit, shift_unit, levels, shift_levels, data)
    else:
        _put_plain(layout, codes, unit, shift_unit, data)


@njit(error_model="numpy")
def put_stepped(codes, steps, size, groups, data):
    """MXFP4 and NVFP4: the number of each group's step, int32 [groups, 16], then its codes of 4 bits."""
    for group in range(groups):
        put(data, group, _code(steps, group))
        half = size // 2
        _put_nibbles(codes, size * group, half, half, data, groups + half * group)
