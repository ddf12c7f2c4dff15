"""What every grid offers to a method: its codes, its groups, scales that can be stored, and rounding.

A grid cuts each row into blocks, and each block into groups of `group` weights:

    weight = code * step + shift        step = unit step * step level,  shift = unit shift * shift level

Codes are small whole numbers (`engine.formats.codes`), stored for each weight or each few weights. Levels
are whole numbers, those of a `range`, stored for each group; units are stored for each block as F16 numbers,
of which they are the given `fraction`. Where every group has its own F16 scales, a block is one group and
its levels are always 1. Some formats store steps of their own kind: their grids have `own_steps`. A symmetric
grid has no shift.

A method asks for `scales(...)` near those it wishes for, and for `round(...)`; how codes and scales become
bytes (`pack`, `unpack`) is for each family to say. A grid does not know which method called.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass

import numpy as np

from engine.formats.codes import Codes

TINY = np.float32(1e-30)
"""A step of at most this size counts as none: its inverse could overflow."""

ONE = range(1, 2)
"""Levels of a grid that stores none."""

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

    @classmethod
    def symmetric(cls, unit_steps: np.ndarray, step_levels: np.ndarray) -> "Scales":
        """Without shifts."""
        return cls(unit_steps, np.zeros_like(unit_steps), step_levels, np.ones_like(step_levels))

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
    """A storage format; the module says what the fields mean. The unit of shifts is a whole F16 number."""

    name: str
    codes: Codes
    group: int
    groups: int = 1
    step_levels: range = ONE
    shift_levels: range = ONE
    fraction: float = 1.0

    @property
    def block(self) -> int:
        """Weights that are stored together; a row is a whole number of blocks."""
        return self.group * self.groups

    @property
    def own_steps(self) -> np.ndarray | None:
        """All steps that can be stored for a group, float32, rising, above 0; None: F16 units and levels."""
        return None

    def scales(self, steps: np.ndarray, shifts: np.ndarray) -> Scales:
        """Storable scales for the wished ones, float32 [rows, groups of a row] each, block by block:
        the unit makes the extreme the greatest level, the others are rounded to levels of it."""
        shape = (len(steps), -1, self.groups)
        unit_steps, step_levels = _split(steps.reshape(shape), self.step_levels, np.float32(self.fraction))
        unit_shifts, shift_levels = _split(shifts.reshape(shape), self.shift_levels, np.float32(1))
        return Scales(unit_steps, unit_shifts, step_levels, shift_levels)

    def round(self, weights: np.ndarray, scales: Scales) -> np.ndarray:
        """The nearest code of each weight, int8 [rows, columns]; weights finite float32 [rows, columns].

        A step that is 0, not finite or at most `TINY` gives the code nearest to 0.
        """
        steps, shifts = scales.steps.reshape(-1, 1), scales.shifts.reshape(-1, 1)
        usable = np.isfinite(steps) & (np.abs(steps) > TINY)
        inverse = np.divide(np.float32(1), steps, out=np.zeros_like(steps), where=usable)
        grouped = weights.reshape(-1, self.group)
        with np.errstate(over="ignore"):  # to infinity: far beyond the last code
            if self.codes.affine:
                scaled = grouped - np.where(np.isfinite(shifts), shifts, np.float32(0))
                scaled *= inverse
            else:
                scaled = grouped * inverse
        return self.codes.nearest(scaled).reshape(weights.shape)

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


def nearest_level(wished: np.ndarray, levels: range) -> np.ndarray:
    """The nearest level to each number, float32; ties to even, counted in levels."""
    bounded = np.clip(wished, np.float32(levels[0]), np.float32(levels[-1]))
    if levels.step == 1:
        return np.rint(bounded)
    return np.rint((bounded - np.float32(levels[0])) / np.float32(levels.step)) * np.float32(
        levels.step
    ) + np.float32(levels[0])


def _split(wished: np.ndarray, levels: range, fraction: np.float32) -> tuple[np.ndarray, np.ndarray]:
    """Units [rows, blocks] and levels [rows, blocks, groups], for float32 of that shape."""
    extreme = np.take_along_axis(wished, np.abs(wished).argmax(axis=-1, keepdims=True), axis=-1)
    greatest = np.float32(max(levels[0], levels[-1], key=abs))
    with np.errstate(over="ignore"):
        units = storable(extreme / greatest / fraction) * fraction
    found = np.divide(wished, units, out=np.zeros_like(wished), where=units != 0)
    return units[..., 0], nearest_level(found, levels)
