"""The whole numbers that a weight may become, and the nearest of them.

A weight divided by its step is rounded to a code. Codes are int8 in every format, of three kinds:

    Codes    all whole numbers from `low` to `high`
    Table    some numbers, chosen by the format: `weight = table[stored] * step`
    Lattice  some points of 4 or 8 numbers each: weights become codes together, not one by one

The numbers of tables and points are those of `gguf.quants`, which has them from ggml-common.h.
"""

from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import numpy as np
from gguf import quants

PIECE = 1 << 16  # weights that are looked up in a table at a time: scratch stays small beside the caller's
# Multiplications with points at a time: so few that OpenBLAS does not hand them to several threads, which on
# a busy machine wait for each other for ten times as long as the work takes. Results stay in the cache.
PRODUCTS = 1 << 18


@dataclass(frozen=True)
class Codes:
    """From `low` to `high`; `affine`: groups have a shift, of at most `shift_limit`."""

    low: int
    high: int
    affine: bool = False
    shift_limit: float = np.inf

    @cached_property
    def ordered(self) -> np.ndarray:
        """All codes once each, rising, int8."""
        return np.arange(self.low, self.high + 1, dtype=np.int8)

    def nearest(self, scaled: np.ndarray) -> np.ndarray:
        """The nearest codes, int8, to (weight - shift) / step, float32 [groups, size], which is spent.

        No NaN; ties go to even codes. Beyond the ends stands the end.
        """
        np.clip(scaled, self.low, self.high, out=scaled)
        np.rint(scaled, out=scaled)
        return scaled.astype(np.int8)


@dataclass(frozen=True)
class Table(Codes):
    """A number for each stored index; a number may stand there twice (0 and -0).

    Ties go to the number of even index.
    """

    numbers: tuple[int, ...] = ()

    @classmethod
    def of(cls, numbers: tuple[int, ...]) -> "Table":
        return cls(min(numbers), max(numbers), numbers=numbers)

    @cached_property
    def stored(self) -> np.ndarray:
        """The numbers by their index, int8 [16]."""
        return np.array(self.numbers, np.int8)

    @cached_property
    def ordered(self) -> np.ndarray:
        return np.unique(self.stored)

    @cached_property
    def thresholds(self) -> np.ndarray:
        """Float32 [numbers - 1]: what is above the first i of these, and not more, has code `ordered[i]`.

        Midpoints, or the number just below where a tie is to go up.
        """
        middle = (self.ordered[:-1].astype(np.float32) + self.ordered[1:]) / 2
        goes_up = self.index_of(self.ordered[1:]) % 2 == 0
        return np.where(goes_up, np.nextafter(middle, np.float32(-np.inf)), middle)

    @cached_property
    def _indices(self) -> np.ndarray:
        """The first index of each number, by the number's byte."""
        indices = np.zeros(256, np.uint8)
        for index, number in reversed(list(enumerate(self.numbers))):
            indices[number % 256] = index
        return indices

    def index_of(self, codes: np.ndarray) -> np.ndarray:
        """The index that is stored for each code, uint8 of codes int8."""
        return self._indices[codes.view(np.uint8)]

    def nearest(self, scaled: np.ndarray) -> np.ndarray:
        codes = np.empty(scaled.shape, np.int8)
        flat, out = scaled.reshape(-1), codes.reshape(-1)
        for start in range(0, flat.size, PIECE):
            place = np.searchsorted(self.thresholds, flat[start : start + PIECE])
            out[start : start + PIECE] = self.ordered[place]
        return codes


@dataclass(frozen=True)
class Lattice(Codes):
    """Points of `size` codes; neighbouring weights become one of them together.

    points_of: the class of `gguf.quants` that holds the points.
    signs: "free", each code of a point may be negated; "even", an even number of 8 neighbours may; "none".
    shared: weights that share a variant of all points (IQ1's delta), 0 where there is but one.

    Rounding works on whole multiples of 1 / `resolution`, so small that float32 sums of products with a point
    are exact: the same codes come of any order of summation, and so of any library, thread count or machine.
    """

    points_of: str = ""
    signs: Literal["free", "even", "none"] = "none"
    shared: int = 0

    @classmethod
    def of(cls, points_of: str, signs: Literal["free", "even"]) -> "Lattice":
        """Points of magnitudes, with signs apart."""
        high = max(getattr(quants, points_of).grid_map)
        return cls(-high, high, points_of=points_of, signs=signs)

    @classmethod
    def with_delta(cls, points_of: str, shared: int) -> "Lattice":
        """Points 8 * (-1, 0 or 1) + 1 and, as the other variant, - 1: gguf's delta is 1 / 8."""
        kind: Any = getattr(quants, points_of)
        unit = round(1 / kind.delta)
        return cls(
            unit * min(kind.grid_map) - 1,
            unit * max(kind.grid_map) + 1,
            points_of=points_of,
            shared=shared,
        )

    @cached_property
    def points(self) -> np.ndarray:
        """int8 [variants, points, size]; their order is that of the stored indices."""
        kind: Any = getattr(quants, self.points_of)
        kind.init_grid()
        points = kind.grid.reshape(kind.grid_shape)
        if self.shared:
            unit = round(1 / kind.delta)
            return np.stack([unit * points + 1, unit * points - 1]).astype(np.int8)
        return points.astype(np.int8)[None]

    @cached_property
    def ordered(self) -> np.ndarray:
        codes = np.unique(self.points)
        return codes if self.signs == "none" else np.union1d(codes, -codes)

    @property
    def size(self) -> int:
        return self.points.shape[-1]

    @property
    def resolution(self) -> int:
        """A power of two: with inputs of up to 3 * `high`, no sum in `nearest` reaches 2^24."""
        return 1 << (24 - (4 * self.size * self.high**2 - 1).bit_length())

    @cached_property
    def _measures(self) -> list[tuple[np.ndarray, np.ndarray]]:
        """Of each variant: points float32 [size, points], and half their squares times `resolution`."""
        points = self.points.astype(np.float32)
        halves = (points**2).sum(axis=-1) * np.float32(self.resolution / 2)
        return [(np.ascontiguousarray(one.T), half) for one, half in zip(points, halves, strict=True)]

    def nearest(self, scaled: np.ndarray) -> np.ndarray:
        """As of `Codes`. Ties go to the first point. Inputs count as at most 3 * `high`.

        "even": where the signs of 8 weights are odd, that of the smallest is turned before its point is
        looked for. (Trying all 8 makes the squared error 0.3 % smaller, for 8 times the work.)
        """
        codes = np.empty(scaled.shape, np.int8)
        flat, out = scaled.reshape(-1), codes.reshape(-1)
        reach = np.float32(3 * self.high)
        piece = PRODUCTS // self.points.shape[1]
        for start in range(0, flat.size, piece):
            fixed = np.clip(flat[start : start + piece], -reach, reach)
            fixed *= np.float32(self.resolution)
            np.rint(fixed, out=fixed)
            if self.shared:
                out[start : start + piece] = self._nearest_variant(fixed)
            else:
                out[start : start + piece] = self._nearest_magnitudes(fixed)
        return codes

    def _nearest_magnitudes(self, fixed: np.ndarray) -> np.ndarray:
        negative = fixed < 0
        sizes = np.abs(fixed)
        if self.signs == "even":
            eights, signs = sizes.reshape(-1, 8), negative.reshape(-1, 8)
            odd = np.flatnonzero(signs.sum(axis=1) & 1)
            least = eights[odd].argmin(axis=1)
            eights[odd, least] *= -1
            signs[odd, least] ^= True
        index, _ = self._closest(sizes, 0)
        codes = self.points[0][index].reshape(-1)
        return np.where(negative, -codes, codes)

    def _nearest_variant(self, fixed: np.ndarray) -> np.ndarray:
        """The variant of smaller distance over the weights that share it, the first where they are equal."""
        runs = (-1, self.shared // self.size)
        found = [self._closest(fixed, variant) for variant in (0, 1)]
        first, second = (score.astype(np.float64).reshape(runs).sum(axis=1) for _, score in found)
        variant = np.repeat((second < first).astype(np.intp), self.shared // self.size)
        index = np.where(variant, found[1][0], found[0][0])
        return self.points[variant, index].reshape(-1)

    def _closest(self, fixed: np.ndarray, variant: int) -> tuple[np.ndarray, np.ndarray]:
        """The index of the nearest point to each vector, and a measure of its distance."""
        points, halves = self._measures[variant]
        scores = fixed.reshape(-1, self.size) @ points
        np.subtract(halves, scores, out=scores)
        index = scores.argmin(axis=1)
        return index, scores[np.arange(len(index)), index]

    @cached_property
    def _digits(self) -> np.ndarray:
        """For each code's byte its place among the magnitudes (with delta: among -1, 0, 1); 255: no code."""
        digits = np.full(256, 255, np.uint8)
        for variant in self.points:
            for digit, number in enumerate(np.unique(variant)):
                digits[int(number) % 256] = digit
                if self.signs != "none":
                    digits[-int(number) % 256] = digit
        return digits

    @cached_property
    def _places(self) -> np.ndarray:
        """The index of each point by its key, int16; -1 where there is no point."""
        places = np.full(1 << self._digit_bits * self.size, -1, np.int16)
        places[self._keys(self._digits[self.points[0].view(np.uint8)])] = np.arange(self.points.shape[1])
        return places

    @property
    def _digit_bits(self) -> int:
        return 16 // self.size if self.size == 8 else 3

    def _keys(self, digits: np.ndarray) -> np.ndarray:
        keys = np.zeros(digits.shape[:-1], np.uint16)
        for place in range(self.size):
            keys |= digits[..., place].astype(np.uint16) << self._digit_bits * place
        return keys

    def index_of(self, codes: np.ndarray) -> np.ndarray:
        """The index of each point, uint16 [..., vectors] of codes int8 [..., vectors, size], whatever signs.

        Raises ValueError for codes that are not a point.
        """
        digits = self._digits[codes.view(np.uint8)]
        known = digits.max(initial=0) < 255
        index = self._places[self._keys(digits)] if known else np.array(-1)
        if index.min(initial=0) < 0:
            raise ValueError(f"codes are no point of {self.points_of}")
        return index.astype(np.uint16)
