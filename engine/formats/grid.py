"""What every grid offers to a method: its codes, its groups, scales that can be stored, and rounding.

A grid cuts each row into blocks, and each block into groups of `group` weights:

    weight = code * step + shift        step = unit step * step level,  shift = unit shift * shift level

Codes are integers from `codes.low` to `codes.high`, stored for each weight. Levels are small integers,
stored for each group; units are F16 numbers, stored for each block. Where every group has its own F16
scales, a block is one group and its levels are always 1. A symmetric grid has no shift.

A method asks for `scales(...)` near those it wishes for, and for `round(...)`; how codes and scales become
bytes (`pack`, `unpack`) is for each family to say. A grid does not know which method called.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass

import numpy as np

from kernels import groups
from kernels.groups import Codes

_SMALLEST = np.float32(2.0**-24)
_LARGEST = np.float32(65504)


@dataclass(frozen=True)
class Scales:
    """Scales of [rows, blocks] that a grid can store, as float32; levels are whole numbers.

    unit_steps, unit_shifts: [rows, blocks]. step_levels, shift_levels: [rows, blocks, groups of a block].
    """

    unit_steps: np.ndarray
    unit_shifts: np.ndarray
    step_levels: np.ndarray
    shift_levels: np.ndarray

    @property
    def steps(self) -> np.ndarray:
        """The step of each group as a reader computes it, float32 [rows, groups of a row]."""
        return (self.unit_steps[..., None] * self.step_levels).reshape(len(self.unit_steps), -1)

    @property
    def shifts(self) -> np.ndarray:
        """The shift of each group as a reader computes it, float32 [rows, groups of a row]."""
        return (self.unit_shifts[..., None] * self.shift_levels).reshape(len(self.unit_shifts), -1)


@dataclass(frozen=True)
class Grid(ABC):
    """A storage format of uniform codes. Levels are given as (least, greatest)."""

    name: str
    codes: Codes
    group: int
    groups: int = 1
    step_levels: tuple[int, int] = (1, 1)
    shift_levels: tuple[int, int] = (1, 1)

    @property
    def block(self) -> int:
        """Weights that are stored together; a row is a whole number of blocks."""
        return self.group * self.groups

    def scales(self, steps: np.ndarray, shifts: np.ndarray) -> Scales:
        """Storable scales for the wished ones, float32 [rows, groups of a row] each, block by block:
        the unit makes the extreme the greatest level, the others are rounded to levels of it."""
        shape = (len(steps), -1, self.groups)
        unit_steps, step_levels = _split(steps.reshape(shape), self.step_levels)
        unit_shifts, shift_levels = _split(shifts.reshape(shape), self.shift_levels)
        return Scales(unit_steps, unit_shifts, step_levels, shift_levels)

    def round(self, weights: np.ndarray, scales: Scales) -> np.ndarray:
        """The nearest code of each weight, int8 [rows, columns]; weights finite float32 [rows, columns]."""
        flat = groups.round_codes(
            weights.reshape(-1, self.group), self.codes, scales.steps.ravel(), scales.shifts.ravel()
        )
        return flat.reshape(weights.shape)

    def values(self, codes: np.ndarray, scales: Scales) -> np.ndarray:
        """What codes int8 [rows, columns] stand for, float32 [rows, columns], in a reader's arithmetic."""
        grouped = codes.reshape(len(codes), -1, self.group).astype(np.float32)
        grouped *= scales.steps[..., None]
        if self.codes.affine:
            grouped += scales.shifts[..., None]
        return grouped.reshape(codes.shape)

    @abstractmethod
    def pack(self, codes: np.ndarray, scales: Scales) -> np.ndarray:
        """The stored bytes, uint8 [rows, row bytes]; codes int8 [rows, columns]."""

    @abstractmethod
    def unpack(self, data: np.ndarray) -> tuple[np.ndarray, Scales]:
        """Codes int8 [rows, columns] and scales of the stored bytes, uint8 [rows, row bytes]."""


def storable(units: np.ndarray) -> np.ndarray:
    """The nearest F16 number as float32, but the largest one for more, and never 0 for something.

    A step rounded to 0 would lose its whole group; the smallest F16 number loses at most half of itself.
    """
    size = np.clip(np.abs(units), _SMALLEST, _LARGEST).astype(np.float16).astype(np.float32)
    return np.where(units == 0, np.float32(0), np.copysign(size, units))


def _split(wished: np.ndarray, bounds: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """Units [rows, blocks] and levels within bounds [rows, blocks, groups], for float32 of that shape."""
    extreme = np.take_along_axis(wished, np.abs(wished).argmax(axis=-1, keepdims=True), axis=-1)
    units = storable(extreme / np.float32(max(bounds, key=abs)))
    levels = np.divide(wished, units, out=np.zeros_like(wished), where=units != 0)
    return units[..., 0], np.rint(np.clip(levels, *bounds))
