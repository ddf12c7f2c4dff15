"""Blocks of 256 weights whose groups share F16 units through small integer levels (GGUF's k-quants).

Codes lie in runs of bytes. In a run of n bytes whose bytes hold k codes of 8 / k bits, byte i has the codes
i, i + n, i + 2 n ... of the run, lowest bits first. "Inverted": the unit of shifts is stored with its sign
turned, as `minimum`.

Q2_K, 84 bytes: 16 groups of 16 codes without sign, 4-bit step and shift levels.
    0   levels   16 bytes: a step level in the low half, a shift level in the high half
    16  codes    2 runs of 32 bytes, 2 bits a code
    80  step     82  minimum

Q3_K, 110 bytes: 16 groups of 16 codes + 4, step levels + 32 of 6 bits.
    0   upper    32 bytes: bit g of byte i is the third bit of code 32 g + i
    32  codes    2 runs of 32 bytes, the low 2 bits of each code
    96  levels   8 bytes with the low 4 bits of levels j and j + 8, then 4 bytes: byte i has the upper 2 bits
                 of levels i, i + 4, i + 8 and i + 12, lowest first
    108 step

Q4_K, 144 bytes, and Q5_K, 176: 8 groups of 32 codes without sign, 6-bit step levels a and shift levels b.
    0   step     2   minimum
    4   levels   12 bytes, for j = 0..3:
        byte j      a[j]      | upper 2 bits of a[j + 4] << 6
        byte j + 4  b[j]      | upper 2 bits of b[j + 4] << 6
        byte j + 8  lower 4 bits of a[j + 4] | lower 4 bits of b[j + 4] << 4
    16  fifth    Q5_K alone, 32 bytes: bit g of byte i is the fifth bit of group g's code i
    16 or 48     codes: 4 runs of 32 bytes, the low 4 bits of each code

Q6_K, 210 bytes: 16 groups of 16 codes + 32, signed 8-bit step levels.
    0   codes    2 runs of 64 bytes, the low 4 bits of each code
    128 upper    2 runs of 32 bytes, the upper 2 bits
    192 levels   16 bytes
    208 step
"""

from dataclasses import dataclass

import numpy as np

from engine.formats import bits
from engine.formats.codes import Codes
from engine.formats.grid import Grid, Scales

_Q2_K = np.dtype([("levels", "u1", 16), ("codes", "u1", (2, 32)), ("step", "<f2"), ("minimum", "<f2")])
_Q3_K = np.dtype(
    [("upper", "u1", 32), ("codes", "u1", (2, 32)), ("low", "u1", 8), ("high", "u1", 4), ("step", "<f2")]
)
_Q4_K = np.dtype([("step", "<f2"), ("minimum", "<f2"), ("levels", "u1", (3, 4)), ("codes", "u1", (4, 32))])
_Q5_K = np.dtype(
    [
        ("step", "<f2"),
        ("minimum", "<f2"),
        ("levels", "u1", (3, 4)),
        ("fifth", "u1", 32),
        ("codes", "u1", (4, 32)),
    ]
)
_Q6_K = np.dtype([("codes", "u1", (2, 64)), ("upper", "u1", (2, 32)), ("levels", "i1", 16), ("step", "<f2")])


@dataclass(frozen=True)
class Q2K(Grid):
    """Two bits a code."""

    def pack(self, codes: np.ndarray, scales: Scales) -> np.ndarray:
        blocks = np.empty(scales.unit_steps.shape, _Q2_K)
        blocks["step"] = scales.unit_steps
        blocks["minimum"] = np.float32(0) - scales.unit_shifts
        blocks["levels"] = scales.step_levels.astype(np.uint8) | scales.shift_levels.astype(np.uint8) << 4
        blocks["codes"] = bits.join(codes.view(np.uint8).reshape(*blocks.shape, 2, 4, 32), 2)
        return blocks.view(np.uint8).reshape(len(codes), -1)

    def unpack(self, data: np.ndarray) -> tuple[np.ndarray, Scales]:
        blocks = np.ascontiguousarray(data).view(_Q2_K)
        codes = bits.split(blocks["codes"], 2).view(np.int8)
        a, b = np.moveaxis(bits.split(blocks["levels"], 4), -2, 0).astype(np.float32)
        unit_steps, minima = blocks["step"].astype(np.float32), blocks["minimum"].astype(np.float32)
        return codes.reshape(len(data), -1), Scales(unit_steps, -minima, a, b)


@dataclass(frozen=True)
class Q3K(Grid):
    """Three bits a code, the third apart."""

    def pack(self, codes: np.ndarray, scales: Scales) -> np.ndarray:
        blocks = np.empty(scales.unit_steps.shape, _Q3_K)
        blocks["step"] = scales.unit_steps
        levels = (scales.step_levels - np.float32(self.step_levels[0])).astype(np.uint8)
        blocks["low"] = bits.join((levels & 15).reshape(*blocks.shape, 2, 8), 4)
        blocks["high"] = bits.join((levels >> 4).reshape(*blocks.shape, 4, 4), 2)
        stored = (codes - np.int8(self.codes.low)).view(np.uint8)
        blocks["codes"] = bits.join((stored & 3).reshape(*blocks.shape, 2, 4, 32), 2)
        blocks["upper"] = bits.join((stored >> 2).reshape(*blocks.shape, 8, 32), 1)
        return blocks.view(np.uint8).reshape(len(codes), -1)

    def unpack(self, data: np.ndarray) -> tuple[np.ndarray, Scales]:
        blocks = np.ascontiguousarray(data).view(_Q3_K)
        levels = bits.split(blocks["low"], 4).reshape(*blocks.shape, 16)
        levels |= bits.split(blocks["high"], 2).reshape(*blocks.shape, 16) << 4
        stored = bits.split(blocks["codes"], 2).reshape(*blocks.shape, 8, 32)
        stored |= bits.split(blocks["upper"], 1) << 2
        codes = stored.view(np.int8) + np.int8(self.codes.low)
        signed = levels.astype(np.float32) + np.float32(self.step_levels[0])
        scales = Scales.symmetric(blocks["step"].astype(np.float32), signed)
        return codes.reshape(len(data), -1), scales


@dataclass(frozen=True)
class Q45K(Grid):
    """Four or five bits a code, the fifth apart."""

    def pack(self, codes: np.ndarray, scales: Scales) -> np.ndarray:
        blocks = np.empty(scales.unit_steps.shape, _Q5_K if self.name == "Q5_K" else _Q4_K)
        blocks["step"] = scales.unit_steps
        blocks["minimum"] = np.float32(0) - scales.unit_shifts
        a, b = scales.step_levels.astype(np.uint8), scales.shift_levels.astype(np.uint8)
        blocks["levels"][..., 0, :] = a[..., :4] | a[..., 4:] >> 4 << 6
        blocks["levels"][..., 1, :] = b[..., :4] | b[..., 4:] >> 4 << 6
        blocks["levels"][..., 2, :] = a[..., 4:] & 15 | b[..., 4:] << 4
        stored = codes.view(np.uint8)
        blocks["codes"] = bits.join((stored & 15).reshape(*blocks.shape, 4, 2, 32), 4)
        if self.name == "Q5_K":
            blocks["fifth"] = bits.join((stored >> 4).reshape(*blocks.shape, 8, 32), 1)
        return blocks.view(np.uint8).reshape(len(codes), -1)

    def unpack(self, data: np.ndarray) -> tuple[np.ndarray, Scales]:
        blocks = np.ascontiguousarray(data).view(_Q5_K if self.name == "Q5_K" else _Q4_K)
        first, second, third = np.moveaxis(blocks["levels"], -2, 0)
        a = np.concatenate([first & 63, third & 15 | first >> 6 << 4], axis=-1)
        b = np.concatenate([second & 63, third >> 4 | second >> 6 << 4], axis=-1)
        stored = bits.split(blocks["codes"], 4).reshape(*blocks.shape, 8, 32)
        if self.name == "Q5_K":
            stored |= bits.split(blocks["fifth"], 1) << 4
        unit_steps, minima = blocks["step"].astype(np.float32), blocks["minimum"].astype(np.float32)
        scales = Scales(unit_steps, -minima, a.astype(np.float32), b.astype(np.float32))
        return stored.view(np.int8).reshape(len(data), -1), scales


@dataclass(frozen=True)
class Q6K(Grid):
    """Six bits a code, the upper two apart."""

    def pack(self, codes: np.ndarray, scales: Scales) -> np.ndarray:
        blocks = np.empty(scales.unit_steps.shape, _Q6_K)
        blocks["step"] = scales.unit_steps
        blocks["levels"] = scales.step_levels.astype(np.int8)
        stored = (codes - np.int8(self.codes.low)).view(np.uint8)
        blocks["codes"] = bits.join((stored & 15).reshape(*blocks.shape, 2, 2, 64), 4)
        blocks["upper"] = bits.join((stored >> 4).reshape(*blocks.shape, 2, 4, 32), 2)
        return blocks.view(np.uint8).reshape(len(codes), -1)

    def unpack(self, data: np.ndarray) -> tuple[np.ndarray, Scales]:
        blocks = np.ascontiguousarray(data).view(_Q6_K)
        stored = bits.split(blocks["codes"], 4).reshape(*blocks.shape, 2, 4, 32)
        stored |= bits.split(blocks["upper"], 2) << 4
        codes = stored.view(np.int8) + np.int8(self.codes.low)
        levels = blocks["levels"].astype(np.float32)
        return codes.reshape(len(data), -1), Scales.symmetric(blocks["step"].astype(np.float32), levels)


_FOUR_BITS, _SIX_BITS = range(16), range(64)


def _shifted(high: int) -> Codes:
    """Codes without sign; the unit of shifts has none either, so they can only be negative."""
    return Codes(0, high, affine=True, shift_limit=0.0)


SUPER_BLOCKS = (
    Q2K("Q2_K", _shifted(3), 16, 16, _FOUR_BITS, _FOUR_BITS),
    Q3K("Q3_K", Codes(-4, 3), 16, 16, range(-32, 32)),
    Q45K("Q4_K", _shifted(15), 32, 8, _SIX_BITS, _SIX_BITS),
    Q45K("Q5_K", _shifted(31), 32, 8, _SIX_BITS, _SIX_BITS),
    Q6K("Q6_K", Codes(-32, 31), 16, 16, range(-128, 128)),
)
