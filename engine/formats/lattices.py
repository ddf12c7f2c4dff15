"""Blocks of 256 weights that are points of a lattice with signs (GGUF's IQ2 and IQ3 types).

Points are 8 codes (IQ2) or 4 (IQ3), stored by their index. A byte of signs is about 8 codes: bit j is set
where code j is negative. Where signs are even only the lower 7 bits of it are stored. The step of a group is
a fraction of the F16 number `step` times its level, which is odd: 2 s + 1 for a stored s of 4 bits.
k counts points or bytes of signs, g groups.

IQ2_XXS, 66 bytes: 8 groups of 32, even signs, fraction 1/8.
    0   step
    2   for each group 8 bytes: 4 indices, then 32 bits: signs of byte k at bit 7 k, s at bit 28

IQ2_XS, 74 bytes: 16 groups of 16, even signs, fraction 1/8.
    0   step
    2   32 times 16 bits: an index of 9 bits, signs above them
    66  8 bytes: s of group 2 j in the low, of 2 j + 1 in the high half of byte j

IQ2_S, 82 bytes: 16 groups of 16, free signs, fraction 1/8.
    0   step
    2   32 bytes: the low 8 bits of each index
    34  32 bytes of signs
    66  8 bytes: the upper 2 bits of indices 4 j ... 4 j + 3, lowest first
    74  8 bytes: s as in IQ2_XS

IQ3_XXS, 98 bytes: 8 groups of 32, even signs, fraction 1/4.
    0   step
    2   64 indices
    66  for each group 32 bits as in IQ2_XXS

IQ3_S, 110 bytes: 8 groups of 32, free signs, fraction 1.
    0   step
    2   64 bytes: the low 8 bits of each index
    66  8 bytes: bit i of byte j is the ninth bit of index 8 j + i
    74  32 bytes of signs
    106 4 bytes: s of group 2 j in the low, of 2 j + 1 in the high half of byte j
"""

from abc import abstractmethod
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import numpy as np

from engine.formats import bits
from engine.formats.codes import Lattice
from engine.formats.grid import Grid, Scales

_IQ2_XXS = np.dtype([("step", "<f2"), ("groups", [("points", "u1", 4), ("signs", "<u4")], 8)])
_IQ2_XS = np.dtype([("step", "<f2"), ("points", "<u2", 32), ("levels", "u1", 8)])
_IQ2_S = np.dtype(
    [("step", "<f2"), ("low", "u1", 32), ("signs", "u1", 32), ("upper", "u1", 8), ("levels", "u1", 8)]
)
_IQ3_XXS = np.dtype([("step", "<f2"), ("points", "u1", 64), ("signs", "<u4", 8)])
_IQ3_S = np.dtype(
    [("step", "<f2"), ("low", "u1", 64), ("upper", "u1", 8), ("signs", "u1", 32), ("levels", "u1", 4)]
)


class Fields(NamedTuple):
    """What a block says beside its step. Integers [rows, blocks, ...].

    points: uint16 indices. signs: uint8, one for 8 codes, the eighth bit included. levels: uint8, s.
    """

    points: np.ndarray
    signs: np.ndarray
    levels: np.ndarray


@dataclass(frozen=True)
class LatticeGrid(Grid):
    """Codes of a `Lattice` of magnitudes; each format says where the fields of a block lie."""

    codes: Lattice

    def pack(self, codes: np.ndarray, scales: Scales) -> np.ndarray:
        """As of `Grid`. Raises ValueError for codes that are no points or whose signs are not even."""
        shape = scales.unit_steps.shape
        points = self.codes.index_of(codes.reshape(*shape, -1, self.codes.size))
        signs = bits.join((codes.reshape(*shape, -1, 8, 1) < 0).view(np.uint8), 1)[..., 0]
        if self.codes.signs == "even" and (signs != _evened(signs)).any():
            raise ValueError(f"an odd number of 8 codes is negative, which {self.name} cannot hold")
        levels = ((scales.step_levels - 1) / 2).astype(np.uint8)
        blocks = self._blocks(Fields(points, signs, levels))
        blocks["step"] = scales.unit_steps / np.float32(self.fraction)
        return blocks.view(np.uint8).reshape(len(codes), -1)

    def unpack(self, data: np.ndarray) -> tuple[np.ndarray, Scales]:
        blocks, fields = self._fields(np.ascontiguousarray(data))
        codes = self.codes.points[0][fields.points].reshape(*blocks.shape, -1, 8)
        negative = bits.split(fields.signs[..., None], 1)[..., 0].view(bool)
        codes = np.where(negative, -codes, codes)
        unit_steps = blocks["step"].astype(np.float32) * np.float32(self.fraction)
        levels = fields.levels.astype(np.float32) * 2 + 1
        return codes.reshape(len(data), -1), Scales.symmetric(unit_steps, levels)

    @abstractmethod
    def _blocks(self, fields: Fields) -> np.ndarray:
        """Blocks [rows, blocks] with all but their step."""

    @abstractmethod
    def _fields(self, data: np.ndarray) -> tuple[np.ndarray, Fields]:
        """The blocks of uint8 [rows, row bytes], and what they say."""


def _evened(signs: np.ndarray) -> np.ndarray:
    """Bytes of signs whose eighth bit is made to suit the lower seven: then an even number is set."""
    odd = signs << 1
    for shift in (4, 2, 1):
        odd ^= odd >> shift
    return signs & 127 | odd << 7


def _join_words(signs: np.ndarray, levels: np.ndarray) -> np.ndarray:
    """32 bits a group [..., groups]: 4 times 7 bits of signs [..., 4 groups], then 4 bits of level."""
    words = levels.astype(np.uint32) << 28
    for place in range(4):
        words |= (signs[..., place::4] & 127).astype(np.uint32) << 7 * place
    return words


def _split_words(words: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Signs uint8 [..., 4 groups] and levels uint8 [..., groups] of uint32 [..., groups]."""
    signs = (words[..., None] >> 7 * np.arange(4, dtype=np.uint32) & 127).astype(np.uint8)
    return _evened(signs.reshape(*words.shape[:-1], -1)), (words >> 28).astype(np.uint8)


def _join_pairs(levels: np.ndarray) -> np.ndarray:
    return levels[..., 0::2] | levels[..., 1::2] << 4


def _split_pairs(packed: np.ndarray) -> np.ndarray:
    return np.stack([packed & 15, packed >> 4], axis=-1).reshape(*packed.shape[:-1], -1)


def _join_upper(points: np.ndarray, width: int) -> np.ndarray:
    """What indices have above 8 bits, `width` bits each, neighbours in one byte."""
    upper = (points >> 8).astype(np.uint8).reshape(*points.shape[:-1], -1, 8 // width, 1)
    return bits.join(upper, width)[..., 0]


def _with_upper(low: np.ndarray, packed: np.ndarray, width: int) -> np.ndarray:
    upper = bits.split(packed[..., None], width)[..., 0].reshape(low.shape)
    return low | upper.astype(np.uint16) << 8


@dataclass(frozen=True)
class IQ2XXS(LatticeGrid):
    """256 points, even signs."""

    def _blocks(self, fields: Fields) -> np.ndarray:
        blocks = np.empty(fields.points.shape[:2], _IQ2_XXS)
        blocks["groups"]["points"] = fields.points.reshape(*blocks.shape, 8, 4)
        blocks["groups"]["signs"] = _join_words(fields.signs, fields.levels)
        return blocks

    def _fields(self, data: np.ndarray) -> tuple[np.ndarray, Fields]:
        blocks = data.view(_IQ2_XXS)
        points = blocks["groups"]["points"].reshape(*blocks.shape, 32)
        return blocks, Fields(points, *_split_words(blocks["groups"]["signs"]))


@dataclass(frozen=True)
class IQ2XS(LatticeGrid):
    """512 points, even signs."""

    def _blocks(self, fields: Fields) -> np.ndarray:
        blocks = np.empty(fields.points.shape[:2], _IQ2_XS)
        blocks["points"] = fields.points | (fields.signs & 127).astype(np.uint16) << 9
        blocks["levels"] = _join_pairs(fields.levels)
        return blocks

    def _fields(self, data: np.ndarray) -> tuple[np.ndarray, Fields]:
        blocks = data.view(_IQ2_XS)
        signs = _evened((blocks["points"] >> 9).astype(np.uint8))
        return blocks, Fields(blocks["points"] & 511, signs, _split_pairs(blocks["levels"]))


@dataclass(frozen=True)
class _FreeSigns(LatticeGrid):
    """A byte of each point's number and its upper bits apart, a sign for each code."""

    layout: ClassVar[np.dtype]
    upper_bits: ClassVar[int]

    def _blocks(self, fields: Fields) -> np.ndarray:
        blocks = np.empty(fields.points.shape[:2], self.layout)
        blocks["low"] = fields.points & 255
        blocks["upper"] = _join_upper(fields.points, self.upper_bits)
        blocks["signs"] = fields.signs
        blocks["levels"] = _join_pairs(fields.levels)
        return blocks

    def _fields(self, data: np.ndarray) -> tuple[np.ndarray, Fields]:
        blocks = data.view(self.layout)
        points = _with_upper(blocks["low"], blocks["upper"], self.upper_bits)
        return blocks, Fields(points, blocks["signs"], _split_pairs(blocks["levels"]))


@dataclass(frozen=True)
class IQ2S(_FreeSigns):
    """1024 points, free signs."""

    layout = _IQ2_S
    upper_bits = 2


@dataclass(frozen=True)
class IQ3XXS(LatticeGrid):
    """256 points, even signs."""

    def _blocks(self, fields: Fields) -> np.ndarray:
        blocks = np.empty(fields.points.shape[:2], _IQ3_XXS)
        blocks["points"] = fields.points
        blocks["signs"] = _join_words(fields.signs, fields.levels)
        return blocks

    def _fields(self, data: np.ndarray) -> tuple[np.ndarray, Fields]:
        blocks = data.view(_IQ3_XXS)
        return blocks, Fields(blocks["points"], *_split_words(blocks["signs"]))


@dataclass(frozen=True)
class IQ3S(_FreeSigns):
    """512 points, free signs."""

    layout = _IQ3_S
    upper_bits = 1


_ODD = range(1, 32, 2)


LATTICES = (
    IQ2XXS("IQ2_XXS", Lattice.of("IQ2_XXS", "even"), 32, 8, _ODD, fraction=1 / 8),
    IQ2XS("IQ2_XS", Lattice.of("IQ2_XS", "even"), 16, 16, _ODD, fraction=1 / 8),
    IQ2S("IQ2_S", Lattice.of("IQ2_S", "free"), 16, 16, _ODD, fraction=1 / 8),
    IQ3XXS("IQ3_XXS", Lattice.of("IQ3_XXS", "even"), 32, 8, _ODD, fraction=1 / 4),
    IQ3S("IQ3_S", Lattice.of("IQ3_S", "free"), 32, 8, _ODD),
)
