"""Blocks whose 4-bit codes stand for the numbers of a table (GGUF's IQ4 and FP4 types).

Two codes share a byte: byte j of n has code j in its low and code j + n in its high half.

IQ4_NL, 18 bytes: 32 codes.
    0   step     2   codes, 16 bytes

IQ4_XS, 136 bytes: 8 groups of 32 codes, step levels + 32 of 6 bits.
    0   step
    2   upper    16 bits: bits 2 g and 2 g + 1 are the upper ones of group g's level
    4   low      4 bytes: byte j has the low 4 bits of level 2 j in its low, of 2 j + 1 in its high half
    8   codes    8 times 16 bytes

MXFP4, 17 bytes: 32 codes; twice the numbers of E2M1 (OCP Microscaling Formats 1.0), so half the step.
    0   exponent e: step 2^(e - 128), which is half of E8M0's; 255 is no NaN here
    1   codes    16 bytes

NVFP4, 36 bytes: 4 groups of 16 codes, the numbers those of MXFP4.
    0   steps    4 bytes: UE4M3 numbers, halved; 0x7F stands for 0, and bit 7 means nothing
    4   codes    4 times 8 bytes
"""

from dataclasses import dataclass

import numpy as np
from gguf import quants

from engine.formats import bits
from engine.formats.codes import Table
from engine.formats.grid import Grid, Scales

_IQ4_NL = np.dtype([("step", "<f2"), ("codes", "u1", 16)])
_IQ4_XS = np.dtype([("step", "<f2"), ("upper", "<u2"), ("low", "u1", 4), ("codes", "u1", (8, 16))])
_MXFP4 = np.dtype([("exponent", "u1"), ("codes", "u1", 16)])
_NVFP4 = np.dtype([("steps", "u1", 4), ("codes", "u1", (4, 8))])


@dataclass(frozen=True)
class TableGrid(Grid):
    """Codes of a `Table`; each format says how its scales are stored."""

    codes: Table

    def _stored(self, codes: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
        """Codes [rows, columns] as bytes of `shape`."""
        return bits.join(self.codes.index_of(codes).reshape(*shape[:-1], 2, shape[-1]), 4)

    def _read(self, stored: np.ndarray) -> np.ndarray:
        """Codes [rows, columns] of bytes [rows, ...]."""
        return self.codes.stored[bits.split(stored, 4)].reshape(len(stored), -1)


@dataclass(frozen=True)
class IQ4NL(TableGrid):
    """One F16 step a block."""

    def pack(self, codes: np.ndarray, scales: Scales) -> np.ndarray:
        blocks = np.empty(scales.unit_steps.shape, _IQ4_NL)
        blocks["step"] = scales.unit_steps
        blocks["codes"] = self._stored(codes, blocks["codes"].shape)
        return blocks.view(np.uint8).reshape(len(codes), -1)

    def unpack(self, data: np.ndarray) -> tuple[np.ndarray, Scales]:
        blocks = np.ascontiguousarray(data).view(_IQ4_NL)
        steps = blocks["step"].astype(np.float32)
        return self._read(blocks["codes"]), Scales.symmetric(steps, np.ones((*steps.shape, 1), np.float32))


@dataclass(frozen=True)
class IQ4XS(TableGrid):
    """An F16 unit and levels of 6 bits."""

    def pack(self, codes: np.ndarray, scales: Scales) -> np.ndarray:
        blocks = np.empty(scales.unit_steps.shape, _IQ4_XS)
        blocks["step"] = scales.unit_steps
        levels = (scales.step_levels - np.float32(self.step_levels[0])).astype(np.uint16)
        blocks["low"] = levels[..., 0::2] & 15 | (levels[..., 1::2] & 15) << 4
        blocks["upper"] = np.bitwise_or.reduce(levels >> 4 << 2 * np.arange(8, dtype=np.uint16), axis=-1)
        blocks["codes"] = self._stored(codes, blocks["codes"].shape)
        return blocks.view(np.uint8).reshape(len(codes), -1)

    def unpack(self, data: np.ndarray) -> tuple[np.ndarray, Scales]:
        blocks = np.ascontiguousarray(data).view(_IQ4_XS)
        low = np.stack([blocks["low"] & 15, blocks["low"] >> 4], axis=-1).reshape(*blocks.shape, 8)
        upper = blocks["upper"][..., None] >> 2 * np.arange(8, dtype=np.uint16) & 3
        levels = (low | upper << 4).astype(np.float32) + np.float32(self.step_levels[0])
        return self._read(blocks["codes"]), Scales.symmetric(blocks["step"].astype(np.float32), levels)


@dataclass(frozen=True)
class FP4(TableGrid):
    """Steps of the format's own: a wished one becomes the nearest of them, nothing else than 0 becomes 0."""

    def scales(self, steps: np.ndarray, shifts: np.ndarray) -> Scales:
        assert self.own_steps is not None
        places = np.searchsorted((self.own_steps[:-1] + self.own_steps[1:]) / 2, np.abs(steps))
        return self._scales_of(self.own_steps[places], steps == 0)

    def _scales_of(self, steps: np.ndarray, zero: np.ndarray) -> Scales:
        """Of storable steps; `zero`: where nothing was wished for."""
        raise NotImplementedError


@dataclass(frozen=True)
class MXFP4(FP4):
    """A power of two a block; there is no step of 0, the smallest stands for it."""

    @property
    def own_steps(self) -> np.ndarray:
        """Without the three largest, with which the largest numbers are infinite."""
        return np.ldexp(np.float32(1), np.arange(253) - 128)

    def _scales_of(self, steps: np.ndarray, zero: np.ndarray) -> Scales:
        units = np.where(zero, self.own_steps[0], steps)
        return Scales.symmetric(units, np.ones((*units.shape, 1), np.float32))

    def pack(self, codes: np.ndarray, scales: Scales) -> np.ndarray:
        blocks = np.empty(scales.unit_steps.shape, _MXFP4)
        blocks["exponent"] = np.frexp(scales.unit_steps)[1] + 127
        blocks["codes"] = self._stored(codes, blocks["codes"].shape)
        return blocks.view(np.uint8).reshape(len(codes), -1)

    def unpack(self, data: np.ndarray) -> tuple[np.ndarray, Scales]:
        blocks = np.ascontiguousarray(data).view(_MXFP4)
        steps = np.ldexp(np.float32(1), blocks["exponent"].astype(np.int32) - 128)
        return self._read(blocks["codes"]), Scales.symmetric(steps, np.ones((*steps.shape, 1), np.float32))


def _ue4m3() -> np.ndarray:
    """What each byte stands for, halved, as a whole multiple of 2^-10; float32 [256]."""
    byte = np.arange(256)
    exponent, fraction = byte >> 3 & 15, byte & 7
    numbers = np.where(exponent == 0, fraction, (8 + fraction) << np.maximum(exponent - 1, 0))
    numbers[0x7F] = 0
    return numbers.astype(np.float32)


_UE4M3 = _ue4m3()
_UE4M3_UNIT = np.float32(2.0**-10)
_NUMBERS, _BYTES = np.unique(_UE4M3, return_index=True)  # each number's first byte


@dataclass(frozen=True)
class NVFP4(FP4):
    """A step for each group, here as a whole number, its level, of units that are always 2^-10."""

    @property
    def own_steps(self) -> np.ndarray:
        """Those of 0x01 to 0x7E: 0xFF reads as one more."""
        return _UE4M3[1:0x7F] * _UE4M3_UNIT

    def _scales_of(self, steps: np.ndarray, zero: np.ndarray) -> Scales:
        levels = np.where(zero, np.float32(0), steps / _UE4M3_UNIT).reshape(len(steps), -1, self.groups)
        return Scales.symmetric(np.full(levels.shape[:2], _UE4M3_UNIT), levels)

    def pack(self, codes: np.ndarray, scales: Scales) -> np.ndarray:
        blocks = np.empty(scales.unit_steps.shape, _NVFP4)
        blocks["steps"] = _BYTES[np.searchsorted(_NUMBERS, scales.step_levels)]
        blocks["codes"] = self._stored(codes, blocks["codes"].shape)
        return blocks.view(np.uint8).reshape(len(codes), -1)

    def unpack(self, data: np.ndarray) -> tuple[np.ndarray, Scales]:
        blocks = np.ascontiguousarray(data).view(_NVFP4)
        units = np.full(blocks.shape, _UE4M3_UNIT)
        return self._read(blocks["codes"]), Scales.symmetric(units, _UE4M3[blocks["steps"]])


_IQ4 = Table.of(quants.IQ4_NL.kvalues)
TABLES = (
    IQ4NL("IQ4_NL", _IQ4, group=32),
    IQ4XS("IQ4_XS", _IQ4, 32, 8, range(-32, 32)),
    MXFP4("MXFP4", Table.of(quants.MXFP4.kvalues), group=32),
    NVFP4("NVFP4", Table.of(quants.NVFP4.kvalues), 16, 4),
)
