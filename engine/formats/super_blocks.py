"""Blocks of 256 weights whose groups share F16 units through small integer levels (GGUF's k-quants).

Q4_K and Q5_K: 8 groups of 32 codes without sign, 6-bit step levels a and shift levels b; the shift unit
is stored with its sign turned (`minimum`). The 12 bytes of levels, for j = 0..3:

    byte j      a[j]      | upper 2 bits of a[j + 4] << 6
    byte j + 4  b[j]      | upper 2 bits of b[j + 4] << 6
    byte j + 8  lower 4 bits of a[j + 4] | lower 4 bits of b[j + 4] << 4

Codes lie in 4 runs of 32 bytes: byte i of run r has the low 4 bits of group 2r's code i in its low half and
those of group 2r + 1 in its high half. Q5_K keeps fifth bits apart: bit g of `fifth` i is that of group g.

Q6_K: 16 groups of 16 codes + 32, signed 8-bit step levels, no shift. Each half of the block (128 codes) has
64 bytes of low 4 bits, byte i with code i and code i + 64 of its half, and 32 bytes of upper 2 bits, byte i
with those of codes i, i + 32, i + 64 and i + 96, lowest first.
"""

from dataclasses import dataclass

import numpy as np

from engine.formats.grid import Grid, Scales
from kernels.groups import Codes

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
_Q6_K = np.dtype([("low", "u1", (2, 64)), ("upper", "u1", (2, 32)), ("levels", "i1", 16), ("step", "<f2")])


@dataclass(frozen=True)
class ShiftedBlocks(Grid):
    """Q4_K (144 bytes a block) and Q5_K (176 bytes)."""

    def pack(self, codes: np.ndarray, scales: Scales) -> np.ndarray:
        blocks = np.empty(scales.unit_steps.shape, _Q5_K if self.name == "Q5_K" else _Q4_K)
        blocks["step"] = scales.unit_steps
        blocks["minimum"] = -scales.unit_shifts
        a, b = scales.step_levels.astype(np.uint8), scales.shift_levels.astype(np.uint8)
        blocks["levels"][..., 0, :] = a[..., :4] | a[..., 4:] >> 4 << 6
        blocks["levels"][..., 1, :] = b[..., :4] | b[..., 4:] >> 4 << 6
        blocks["levels"][..., 2, :] = a[..., 4:] & 15 | b[..., 4:] << 4
        stored = codes.view(np.uint8).reshape(*blocks.shape, 4, 2, 32)
        blocks["codes"] = stored[..., 0, :] & 15 | stored[..., 1, :] << 4
        if self.name == "Q5_K":
            fifth = np.packbits(stored.reshape(*blocks.shape, 8, 32) >> 4, axis=-2, bitorder="little")
            blocks["fifth"] = fifth[..., 0, :]
        return blocks.view(np.uint8).reshape(len(codes), -1)

    def unpack(self, data: np.ndarray) -> tuple[np.ndarray, Scales]:
        blocks = np.ascontiguousarray(data).view(_Q5_K if self.name == "Q5_K" else _Q4_K)
        first, second, third = np.moveaxis(blocks["levels"], -2, 0)
        a = np.concatenate([first & 63, third & 15 | first >> 6 << 4], axis=-1)
        b = np.concatenate([second & 63, third >> 4 | second >> 6 << 4], axis=-1)
        stored = np.stack([blocks["codes"] & 15, blocks["codes"] >> 4], axis=-2).reshape(*blocks.shape, 8, 32)
        if self.name == "Q5_K":
            stored |= np.unpackbits(blocks["fifth"][..., None, :], axis=-2, bitorder="little") << 4
        unit_steps, minima = blocks["step"].astype(np.float32), blocks["minimum"].astype(np.float32)
        scales = Scales(unit_steps, -minima, a.astype(np.float32), b.astype(np.float32))
        return stored.view(np.int8).reshape(len(data), -1), scales


@dataclass(frozen=True)
class SignedBlocks(Grid):
    """Q6_K (210 bytes a block)."""

    def pack(self, codes: np.ndarray, scales: Scales) -> np.ndarray:
        blocks = np.empty(scales.unit_steps.shape, _Q6_K)
        blocks["step"] = scales.unit_steps
        blocks["levels"] = scales.step_levels.astype(np.int8)
        stored = (codes - np.int8(self.codes.low)).view(np.uint8).reshape(*blocks.shape, 2, 4, 32)
        low = (stored & 15).reshape(*blocks.shape, 2, 2, 64)
        blocks["low"] = low[..., 0, :] | low[..., 1, :] << 4
        upper = stored >> 4
        blocks["upper"] = (
            upper[..., 0, :] | upper[..., 1, :] << 2 | upper[..., 2, :] << 4 | upper[..., 3, :] << 6
        )
        return blocks.view(np.uint8).reshape(len(codes), -1)

    def unpack(self, data: np.ndarray) -> tuple[np.ndarray, Scales]:
        blocks = np.ascontiguousarray(data).view(_Q6_K)
        low = np.stack([blocks["low"] & 15, blocks["low"] >> 4], axis=-2).reshape(*blocks.shape, 2, 4, 32)
        upper = np.stack([blocks["upper"] >> shift & 3 for shift in (0, 2, 4, 6)], axis=-2)
        codes = (low | upper << 4).view(np.int8) + np.int8(self.codes.low)
        unit_steps = blocks["step"].astype(np.float32)
        levels = blocks["levels"].astype(np.float32)
        scales = Scales(unit_steps, np.zeros_like(unit_steps), levels, np.zeros_like(levels))
        return codes.reshape(len(data), -1), scales


_SIX_BITS = (0, 63)
SUPER_BLOCKS = (
    ShiftedBlocks("Q4_K", Codes(0, 15, affine=True, shift_limit=0.0), 32, 8, _SIX_BITS, _SIX_BITS),
    ShiftedBlocks("Q5_K", Codes(0, 31, affine=True, shift_limit=0.0), 32, 8, _SIX_BITS, _SIX_BITS),
    SignedBlocks("Q6_K", Codes(-32, 31, affine=False), 16, 16, step_levels=(-128, 127)),
)
