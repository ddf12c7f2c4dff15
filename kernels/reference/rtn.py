"""Rounding as the oracle does it: scales that cover the range of each group, and the nearest codes.

x: float32 [blocks, groups, size]; units: pairs of float32 [blocks]; levels: [blocks, groups]; each
pair is (of steps, of shifts). Scales are (units, levels).
"""

import numpy as np

from kernels.reference import lattices
from kernels.reference.shapes import F32, TINY, Shape

Pair = tuple[np.ndarray, np.ndarray]
Scales = tuple[Pair, Pair]


def wished_scales(x: np.ndarray, shape: Shape) -> Pair:
    """Steps and shifts that just cover the range of each group."""
    lowest, highest = x.min(axis=-1), x.max(axis=-1)
    if shape.affine:
        if shape.groups > 1:  # the shared unit of shifts lets them be negative only
            lowest = np.minimum(lowest, F32(0))
            highest = np.maximum(highest, lowest)
        return (highest - lowest) / F32(shape.high), lowest
    extreme = np.where(highest > -lowest, highest, lowest)
    if shape.low == -shape.high:
        return np.abs(extreme) / F32(shape.high), np.zeros_like(extreme)
    return extreme / F32(shape.low), np.zeros_like(extreme)


def storable(units: np.ndarray) -> np.ndarray:
    """The nearest F16 numbers, as float32; never 0 for something, nor more than the largest."""
    size = np.clip(np.abs(units), F32(2.0**-24), F32(65504)).astype(np.float16).astype(F32)
    return np.where(units == 0, F32(0), np.where(units < 0, -size, size))


def split(wished: np.ndarray, bounds: tuple[int, int], odd: bool = False, fraction: float = 1) -> Pair:
    """Units that make the extreme of each block the greatest level, and the levels nearest to the wishes."""
    units, levels = np.zeros(len(wished), F32), np.full_like(wished, bounds[0] if odd else 0)
    greatest = bounds[0] if abs(bounds[0]) > abs(bounds[1]) else bounds[1]
    for block, row in enumerate(wished):
        extreme = row[np.abs(row).argmax()]
        units[block] = storable(extreme / F32(greatest) / F32(fraction)) * F32(fraction)
        if units[block] != 0:
            exact = np.clip(row / units[block], *bounds)
            levels[block] = F32(2) * np.rint((exact - F32(1)) / F32(2)) + F32(1) if odd else np.rint(exact)
    return units, levels


def _stored(wished: Pair, shape: Shape) -> Scales:
    unit_steps, step_levels = split(wished[0], shape.step_levels, shape.odd, shape.fraction)
    unit_shifts, shift_levels = split(wished[1], shape.shift_levels)
    return (unit_steps, unit_shifts), (step_levels, shift_levels)


def covered(x: np.ndarray, shape: Shape) -> tuple[Scales, np.ndarray]:
    """Storable scales that cover each group, and the nearest codes, float32 of the shape of x."""
    scales = _covering(x, shape)
    units, levels = scales
    return scales, _rounded(x, units[0][:, None] * levels[0], units[1][:, None] * levels[1], shape)


def _covering(x: np.ndarray, shape: Shape) -> Scales:
    """Storable scales near those that just cover the range of each group."""
    if shape.own:
        steps = np.array([[_own_step(group, shape) for group in block] for block in x], F32)
        ones = np.ones(len(x), F32)
        return (ones, np.zeros_like(ones)), (steps, np.zeros_like(steps))
    return _stored(wished_scales(x, shape), shape)


def _own_step(group: np.ndarray, shape: Shape) -> float:
    """The storable step below or above the covering one: that of less squared error, below if equal."""
    wished = float(np.abs(group).max() / F32(shape.high))
    if wished == 0:
        return 0.0 if shape.groups > 1 else shape.own[0]  # MXFP4 has no step of 0
    above = next((place for place, own in enumerate(shape.own) if own > wished), len(shape.own) - 1)
    place = max(above, 1)
    below, above_it = shape.own[place - 1], shape.own[place]
    return above_it if _own_error(group, above_it, shape) < _own_error(group, below, shape) else below


def _own_error(group: np.ndarray, step: float, shape: Shape) -> float:
    codes = _rounded(group, np.array(F32(step)), np.array(F32(0)), shape)
    total = 0.0
    for weight, code in zip(group.tolist(), codes.tolist(), strict=True):
        total += (weight - code * step) * (weight - code * step)
    return total


def _rounded(x: np.ndarray, step: np.ndarray, shift: np.ndarray, shape: Shape) -> np.ndarray:
    """The nearest codes, float32 of the shape of x; steps and shifts have one dimension less."""
    inverse = np.where(np.abs(step) > TINY, F32(1) / step, F32(0))
    scaled = (x - shift[..., None]) * inverse[..., None]
    if shape.points:
        return lattices.nearest(scaled, shape)
    if shape.table:
        return _nearest_of(scaled, shape.table)
    return np.rint(np.clip(scaled, F32(shape.low), F32(shape.high)))


def _nearest_of(scaled: np.ndarray, table: tuple[int, ...]) -> np.ndarray:
    """The nearest number of a table, that of the even place where two are as near."""
    codes = [
        min((abs(value - number), place % 2, place) for place, number in enumerate(table))[2]
        for value in np.clip(scaled, -1000, 1000).ravel().tolist()
    ]
    return np.array(table, F32)[codes].reshape(scaled.shape)
