"""Bytes of formats whose codes are stored for each weight, one byte at a time."""

from collections.abc import Iterator

import numpy as np

from kernels.reference.shapes import E2M1, F32, IQ4, SHAPES, Block, ue4m3


def values(name: str, data: bytes) -> Iterator[np.float32]:
    """The weights of a block: code * (unit * level), and the shift, which k-quants take away as `minimum`."""
    shape = SHAPES[name]
    unit_step, unit_shift, step_levels, shift_levels, codes = _unpack(name, data)
    for place, code in enumerate(codes):
        group = place // shape.size
        value = F32(code) * (unit_step * F32(step_levels[group]))
        if shape.affine:
            value += unit_shift * F32(shift_levels[group])
        yield value


def pack(name: str, block: Block) -> bytes:
    """The bytes of a block; units are F16 numbers."""
    step = np.float16(block.unit_step).tobytes()
    minimum = np.float16(F32(0) - block.unit_shift).tobytes()  # not -0 for no shift
    a, b = [int(level) for level in block.step_levels], [int(level) for level in block.shift_levels]
    codes = block.codes
    if name == "Q8_0":
        return step + bytes(code & 255 for code in codes)
    if name in ("Q4_0", "Q4_1", "Q5_0", "Q5_1"):
        return _pack_plain(name, block, step)
    if name.startswith("TQ"):
        return _pack_ternary(name, [code + 1 for code in codes]) + step
    if name in ("IQ4_NL", "IQ4_XS", "MXFP4", "NVFP4"):
        return _pack_table(name, block, step)
    if name == "Q2_K":
        return bytes(a[g] | b[g] << 4 for g in range(16)) + _pack_low_2(codes) + step + minimum
    if name == "Q3_K":
        return _pack_q3_k([level + 32 for level in a], [code + 4 for code in codes]) + step
    if name == "Q6_K":
        return _pack_q6_k([code + 32 for code in codes]) + bytes(level & 255 for level in a) + step
    return step + minimum + _pack_six_bits(a, b) + _pack_q4_q5(name, codes)


def _pack_plain(name: str, block: Block, step: bytes) -> bytes:
    stored = [code - SHAPES[name].low for code in block.codes]
    fifth = sum((code >> 4) << place for place, code in enumerate(stored)).to_bytes(4, "little")
    nibbles = bytes(stored[j] & 15 | (stored[j + 16] & 15) << 4 for j in range(16))
    shift = np.float16(block.unit_shift).tobytes() if SHAPES[name].affine else b""
    return step + shift + (fifth if name.startswith("Q5") else b"") + nibbles


def _pack_low_2(stored: list[int]) -> bytes:
    """The low 2 bits of 256 codes: a half of the block in 32 bytes, 4 codes a byte, 32 apart."""
    packed = bytearray(64)
    for index, code in enumerate(stored):
        half, place = divmod(index, 128)
        packed[32 * half + place % 32] |= (code & 3) << 2 * (place // 32)
    return bytes(packed)


def _pack_q3_k(levels: list[int], stored: list[int]) -> bytes:
    masks, packed = bytearray(32), bytearray(12)
    for index, code in enumerate(stored):
        masks[index % 32] |= (code >> 2) << index // 32
    for j, level in enumerate(levels):
        packed[j % 8] |= (level & 15) << 4 * (j // 8)
        packed[8 + j % 4] |= (level >> 4) << 2 * (j // 4)
    return bytes(masks) + _pack_low_2(stored) + bytes(packed)


def _pack_q6_k(stored: list[int]) -> bytes:
    low, upper = bytearray(128), bytearray(64)
    for index, code in enumerate(stored):
        half, place = divmod(index, 128)
        low[64 * half + place % 64] |= (code & 15) << 4 * (place // 64)
        upper[32 * half + place % 32] |= (code >> 4) << 2 * (place // 32)
    return bytes(low) + bytes(upper)


def _pack_six_bits(a: list[int], b: list[int]) -> bytes:
    levels = bytearray(12)
    for j in range(4):
        levels[j] = a[j] | a[j + 4] >> 4 << 6
        levels[j + 4] = b[j] | b[j + 4] >> 4 << 6
        levels[j + 8] = a[j + 4] & 15 | (b[j + 4] & 15) << 4
    return bytes(levels)


def _pack_q4_q5(name: str, codes: list[int]) -> bytes:
    lows, fifths = bytearray(128), bytearray(32)
    for index, code in enumerate(codes):
        group, place = divmod(index, 32)
        lows[32 * (group // 2) + place] |= (code & 15) << 4 * (group % 2)
        fifths[place] |= (code >> 4) << group
    return (bytes(fifths) if name == "Q5_K" else b"") + bytes(lows)


# The codes of each byte of TQ1_0, most significant first.
_TRIPLES = (
    [[m + 32 * n for n in range(5)] for m in range(32)]
    + [[160 + m + 16 * n for n in range(5)] for m in range(16)]
    + [[240 + m + 4 * n for n in range(4)] for m in range(4)]
)


def _pack_ternary(name: str, stored: list[int]) -> bytes:
    if name == "TQ2_0":
        return _pack_low_2(stored)
    packed = bytearray()
    for places in _TRIPLES:
        number = sum(stored[place] * 3 ** (4 - n) for n, place in enumerate(places))
        packed.append((number * 256 + 242) // 243)
    return bytes(packed)


def _pack_table(name: str, block: Block, step: bytes) -> bytes:
    index = [SHAPES[name].table.index(code) for code in block.codes]
    run = 16 if name == "NVFP4" else 32
    nibbles = bytes(
        index[start + j] | index[start + j + run // 2] << 4
        for start in range(0, len(index), run)
        for j in range(run // 2)
    )
    if name == "IQ4_NL":
        return step + nibbles
    if name == "MXFP4":
        (own,) = block.step_levels
        return bytes([SHAPES[name].own.index(own)]) + nibbles
    if name == "NVFP4":
        return (
            bytes(0 if own == 0 else 1 + SHAPES[name].own.index(own) for own in block.step_levels) + nibbles
        )
    levels = [int(level) + 32 for level in block.step_levels]
    upper = sum((level >> 4) << 2 * g for g, level in enumerate(levels)).to_bytes(2, "little")
    low = bytes(levels[g] & 15 | (levels[g + 1] & 15) << 4 for g in range(0, 8, 2))
    return step + upper + low + nibbles


# -------------------------------------------------------------------------------------------- from bytes


def _unpack(name: str, data: bytes) -> Block:
    zero = F32(0)
    if name == "Q8_0":
        return Block(_half(data, 0), zero, [1], [1], [_signed(byte) for byte in data[2:]])
    if name in ("Q4_0", "Q4_1", "Q5_0", "Q5_1"):
        return _unpack_plain(name, data)
    if name.startswith("TQ"):
        codes = _unpack_tq1_0(data) if name == "TQ1_0" else _unpack_low_2(data)
        return Block(_half(data, len(data) - 2), zero, [1], [1], [code - 1 for code in codes])
    if name in ("IQ4_NL", "IQ4_XS", "MXFP4", "NVFP4"):
        return _unpack_table(name, data)
    if name == "Q2_K":
        a, b = [byte & 15 for byte in data[:16]], [byte >> 4 for byte in data[:16]]
        return Block(_half(data, 80), -_half(data, 82), a, b, _unpack_low_2(data[16:80]))
    if name == "Q3_K":
        return _unpack_q3_k(data)
    if name == "Q6_K":
        levels = [_signed(byte) for byte in data[192:208]]
        return Block(_half(data, 208), zero, levels, [0] * 16, _unpack_q6_k(data))
    return _unpack_q4_q5(name, data)


def _unpack_plain(name: str, data: bytes) -> Block:
    shift = _half(data, 2) if SHAPES[name].affine else F32(0)
    fifth = int.from_bytes(data[-20:-16], "little") if name.startswith("Q5") else 0
    codes = [
        (data[-16 + j % 16] >> 4 * (j // 16) & 15 | (fifth >> j & 1) << 4) + SHAPES[name].low
        for j in range(32)
    ]
    return Block(_half(data, 0), shift, [1], [1], codes)


def _unpack_low_2(data: bytes) -> list[int]:
    codes = []
    for index in range(256):
        half, place = divmod(index, 128)
        codes.append(data[32 * half + place % 32] >> 2 * (place // 32) & 3)
    return codes


def _unpack_tq1_0(data: bytes) -> list[int]:
    codes = [0] * 256
    for byte, places in zip(data, _TRIPLES, strict=False):
        for n, place in enumerate(places):
            codes[place] = (byte * 3**n % 256) * 3 >> 8
    return codes


def _unpack_q3_k(data: bytes) -> Block:
    packed = data[96:108]
    levels = [
        (packed[j % 8] >> 4 * (j // 8) & 15 | (packed[8 + j % 4] >> 2 * (j // 4) & 3) << 4) - 32
        for j in range(16)
    ]
    low = _unpack_low_2(data[32:96])
    codes = [low[i] - (0 if data[i % 32] >> i // 32 & 1 else 4) for i in range(256)]
    return Block(_half(data, 108), F32(0), levels, [0] * 16, codes)


def _unpack_q6_k(data: bytes) -> list[int]:
    codes = []
    for index in range(256):
        half, place = divmod(index, 128)
        low = data[64 * half + place % 64] >> 4 * (place // 64) & 15
        upper = data[128 + 32 * half + place % 32] >> 2 * (place // 32) & 3
        codes.append((low | upper << 4) - 32)
    return codes


def _unpack_q4_q5(name: str, data: bytes) -> Block:
    packed = data[4:16]
    a = [packed[j] & 63 for j in range(4)] + [packed[j + 8] & 15 | packed[j] >> 6 << 4 for j in range(4)]
    b = [packed[j + 4] & 63 for j in range(4)]
    b += [packed[j + 8] >> 4 | packed[j + 4] >> 6 << 4 for j in range(4)]
    codes = []
    for index in range(256):
        group, place = divmod(index, 32)
        code = data[-128 + 32 * (group // 2) + place] >> 4 * (group % 2) & 15
        codes.append(code | (data[16 + place] >> group & 1) << 4 if name == "Q5_K" else code)
    return Block(_half(data, 0), -_half(data, 2), a, b, codes)


def _unpack_table(name: str, data: bytes) -> Block:
    if name == "IQ4_NL":
        return Block(_half(data, 0), F32(0), [1], [1], _unpack_nibbles(data[2:], 16, IQ4))
    if name == "MXFP4":
        own = [2.0 ** (data[0] - 128)]
        return Block(F32(1), F32(0), own, [1], _unpack_nibbles(data[1:], 16, E2M1))
    if name == "NVFP4":
        own = [ue4m3(byte) for byte in data[:4]]
        return Block(F32(1), F32(0), own, [1] * 4, _unpack_nibbles(data[4:], 8, E2M1))
    upper = data[2] | data[3] << 8
    levels = [(data[4 + g // 2] >> 4 * (g % 2) & 15 | (upper >> 2 * g & 3) << 4) - 32 for g in range(8)]
    return Block(_half(data, 0), F32(0), levels, [0] * 8, _unpack_nibbles(data[8:], 16, IQ4))


def _unpack_nibbles(data: bytes, run: int, table: tuple[int, ...]) -> list[int]:
    """Codes of runs of bytes: those of the low halves, then those of the high halves."""
    codes = []
    for start in range(0, len(data), run):
        codes += [table[byte & 15] for byte in data[start : start + run]]
        codes += [table[byte >> 4] for byte in data[start : start + run]]
    return codes


def _half(data: bytes, offset: int) -> np.float32:
    return np.frombuffer(data, "<f2", 1, offset)[0].astype(F32)


def _signed(byte: int) -> int:
    return byte - 256 if byte > 127 else byte
