"""Blocks of 32 weights that share one step, and in the `_1` formats one shift (GGUF's legacy types).

Steps and shifts are F16, little-endian. A stored code is `code - low`. Two codes share a byte: byte j has
code j in its low and code j + 16 in its high half. Fifth bits are kept apart: bit j of `fifth` is code j's.
"""

from dataclasses import dataclass

import numpy as np

from engine.formats import bits
from engine.formats.codes import Codes
from engine.formats.grid import Grid, Scales

_STEP, _SHIFT = ("step", "<f2"), ("shift", "<f2")
_FIFTH, _NIBBLES = ("fifth", "u1", 4), ("codes", "u1", 16)
_LAYOUTS = {
    "Q8_0": np.dtype([_STEP, ("codes", "i1", 32)]),  # 34 bytes
    "Q4_0": np.dtype([_STEP, _NIBBLES]),  # 18 bytes
    "Q4_1": np.dtype([_STEP, _SHIFT, _NIBBLES]),  # 20 bytes
    "Q5_0": np.dtype([_STEP, _FIFTH, _NIBBLES]),  # 22 bytes
    "Q5_1": np.dtype([_STEP, _SHIFT, _FIFTH, _NIBBLES]),  # 24 bytes
}


@dataclass(frozen=True)
class PlainGrid(Grid):
    """One group a block; its F16 scales are the units, its levels are 1."""

    def pack(self, codes: np.ndarray, scales: Scales) -> np.ndarray:
        layout = _LAYOUTS[self.name]
        grouped = codes.reshape(len(codes), -1, self.group)
        blocks = np.empty(grouped.shape[:2], layout)
        blocks["step"] = scales.unit_steps
        if self.codes.affine:
            blocks["shift"] = scales.unit_shifts
        if self.name == "Q8_0":
            blocks["codes"] = grouped
        else:
            stored = (grouped - np.int8(self.codes.low)).view(np.uint8)
            if self.codes.high - self.codes.low > 15:
                blocks["fifth"] = np.packbits(stored >> 4, axis=-1, bitorder="little")
                stored &= 15
            blocks["codes"] = bits.join(stored.reshape(*blocks.shape, 2, 16), 4)
        return blocks.view(np.uint8).reshape(len(codes), -1)

    def unpack(self, data: np.ndarray) -> tuple[np.ndarray, Scales]:
        layout = _LAYOUTS[self.name]
        blocks = np.ascontiguousarray(data).view(layout)
        if self.name == "Q8_0":
            codes = blocks["codes"]
        else:
            stored = bits.split(blocks["codes"], 4).reshape(*blocks.shape, 32)
            if self.codes.high - self.codes.low > 15:
                stored |= np.unpackbits(blocks["fifth"], axis=-1, bitorder="little") << 4
            codes = stored.view(np.int8) + np.int8(self.codes.low)
        steps = blocks["step"].astype(np.float32)
        shifts = blocks["shift"].astype(np.float32) if self.codes.affine else np.zeros_like(steps)
        ones = np.ones((*steps.shape, 1), np.float32)
        return codes.reshape(len(data), -1), Scales(steps, shifts, ones, ones)


PLAIN = (
    PlainGrid("Q8_0", Codes(-127, 127, affine=False), group=32),
    PlainGrid("Q4_0", Codes(-8, 7, affine=False), group=32),
    PlainGrid("Q4_1", Codes(0, 15, affine=True), group=32),
    PlainGrid("Q5_0", Codes(-16, 15, affine=False), group=32),
    PlainGrid("Q5_1", Codes(0, 31, affine=True), group=32),
)
