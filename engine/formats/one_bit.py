"""Blocks of 256 weights that are points of 8 numbers -1, 0 or 1, all moved by 1/8 (GGUF's IQ1 types).

A point is stored by its index of 11 bits. Codes are 8 times its numbers, plus 1 or, where a bit called delta
is set, minus 1. The step of a group is an eighth of the F16 number `step` times its level, which is odd:
2 s + 1 for a stored s of 3 bits. k counts the points of a block.

IQ1_S, 50 bytes: 8 groups of 32, each with one delta.
    0   step
    2   32 bytes: the low 8 bits of each index
    34  for each group 16 bits: the upper 3 bits of its 4 indices, lowest first, s at bit 12, delta at bit 15

IQ1_M, 56 bytes: 16 groups of 16, a delta for each point.
    0   32 bytes: the low 8 bits of each index
    32  16 bytes: byte j has those of points 2 j and 2 j + 1 in its halves: 3 upper bits, then delta
    48  4 times 16 bits: s of groups 4 j ... 4 j + 3 in the lower 12; in the upper 4, bits 4 j ... of `step`
"""

from dataclasses import dataclass

import numpy as np

from engine.formats import bits
from engine.formats.codes import Lattice
from engine.formats.grid import Grid, Scales

_IQ1_S = np.dtype([("step", "<f2"), ("low", "u1", 32), ("upper", "<u2", 8)])
_IQ1_M = np.dtype([("low", "u1", 32), ("upper", "u1", 16), ("levels", "<u2", 4)])
_BY_3_BITS = 3 * np.arange(4, dtype=np.uint16)
_BY_4_BITS = 4 * np.arange(4, dtype=np.uint16)


@dataclass(frozen=True)
class OneBitGrid(Grid):
    """Codes of a `Lattice` with delta."""

    codes: Lattice

    def _indices(self, codes: np.ndarray, shape: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
        """Indices [*shape, 32] and deltas [*shape, those of a block], both uint16; shape: rows, blocks.

        Raises ValueError for codes that are no points or do not share a delta as they must.
        """
        points = self.codes.index_of(codes.reshape(*shape, -1, self.codes.size))
        deltas = codes.reshape(*shape, -1, self.codes.shared) & 7 == 7  # 8 n - 1, and not 8 n + 1
        if (deltas != deltas[..., :1]).any():
            raise ValueError(f"codes that share a delta in {self.name} have two")
        return points, deltas[..., 0].astype(np.uint16)

    def _codes(self, points: np.ndarray, deltas: np.ndarray) -> np.ndarray:
        """Codes [rows, columns] of indices [rows, blocks, 32] and the delta of each."""
        return self.codes.points[deltas, points].reshape(len(points), -1)


@dataclass(frozen=True)
class IQ1S(OneBitGrid):
    """A delta for each group of 32."""

    def pack(self, codes: np.ndarray, scales: Scales) -> np.ndarray:
        blocks = np.empty(scales.unit_steps.shape, _IQ1_S)
        points, deltas = self._indices(codes, blocks.shape)
        blocks["step"] = scales.unit_steps / np.float32(self.fraction)
        blocks["low"] = points & 255
        upper = (points >> 8).reshape(*blocks.shape, 8, 4) << _BY_3_BITS
        levels = ((scales.step_levels - 1) / 2).astype(np.uint16)
        blocks["upper"] = np.bitwise_or.reduce(upper, axis=-1) | levels << 12 | deltas << 15
        return blocks.view(np.uint8).reshape(len(codes), -1)

    def unpack(self, data: np.ndarray) -> tuple[np.ndarray, Scales]:
        blocks = np.ascontiguousarray(data).view(_IQ1_S)
        words = blocks["upper"]
        upper = (words[..., None] >> _BY_3_BITS & 7).reshape(*blocks.shape, 32)
        codes = self._codes(blocks["low"] | upper << 8, np.repeat(words >> 15, 4, axis=-1))
        unit_steps = blocks["step"].astype(np.float32) * np.float32(self.fraction)
        levels = (words >> 12 & 7).astype(np.float32) * 2 + 1
        return codes, Scales.symmetric(unit_steps, levels)


@dataclass(frozen=True)
class IQ1M(OneBitGrid):
    """A delta for each point of 8; the step in four pieces."""

    def pack(self, codes: np.ndarray, scales: Scales) -> np.ndarray:
        blocks = np.empty(scales.unit_steps.shape, _IQ1_M)
        points, deltas = self._indices(codes, blocks.shape)
        blocks["low"] = points & 255
        upper = (points >> 8 | deltas << 3).astype(np.uint8)
        blocks["upper"] = upper[..., 0::2] | upper[..., 1::2] << 4
        levels = ((scales.step_levels - 1) / 2).astype(np.uint16).reshape(*blocks.shape, 4, 4)
        step = (scales.unit_steps / np.float32(self.fraction)).astype(np.float16).view(np.uint16)
        pieces = step[..., None] >> _BY_4_BITS & 15
        blocks["levels"] = np.bitwise_or.reduce(levels << _BY_3_BITS, axis=-1) | pieces << 12
        return blocks.view(np.uint8).reshape(len(codes), -1)

    def unpack(self, data: np.ndarray) -> tuple[np.ndarray, Scales]:
        blocks = np.ascontiguousarray(data).view(_IQ1_M)
        upper = np.swapaxes(bits.split(blocks["upper"], 4), -1, -2).reshape(*blocks.shape, 32)
        points = blocks["low"] | (upper & 7).astype(np.uint16) << 8
        words = blocks["levels"]
        levels = (words[..., None] >> _BY_3_BITS & 7).reshape(*blocks.shape, 16).astype(np.float32) * 2 + 1
        step = np.bitwise_or.reduce(words >> 12 << _BY_4_BITS, axis=-1).view(np.float16)
        unit_steps = step.astype(np.float32) * np.float32(self.fraction)
        return self._codes(points, upper >> 3), Scales.symmetric(unit_steps, levels)


_ODD = range(1, 16, 2)
ONE_BIT = (
    IQ1S("IQ1_S", Lattice.with_delta("IQ1_S", shared=32), 32, 8, _ODD, fraction=1 / 8),
    IQ1M("IQ1_M", Lattice.with_delta("IQ1_M", shared=8), 16, 16, _ODD, fraction=1 / 8),
)
