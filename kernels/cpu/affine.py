"""Search of scales of affine blocks, weight = code * unit step * level + unit shift * shift level.

As `kernels.cpu.symmetric`, sixteen blocks at a time, with a second pair of unit and levels for the shift;
codes are 0 .. high. Where groups share units, shifts are never positive: their levels have no sign.
"""

import numpy as np
from numba import njit

from kernels.cpu.shapes import Effort, Shape
from kernels.cpu.symmetric import INFINITE, ONE, TINY, ZERO, finite_or_zero, gain, inverse_of, keep, split
from kernels.cpu.tiles import Tile, rounded, size_of, storable
from kernels.cpu.vectors import LANES, Floats, Truths, least, load, most, select, splat, store


@njit(error_model="numpy")
def measure(
    tile: Tile, begin: int, size: int, step: Floats, shift: Floats, high: np.float32
) -> tuple[Floats, ...]:
    """Sums of w r r, w r q, w r, w q q and w q over a group; q the codes, r what they miss."""
    inverse = inverse_of(step)
    lowest, highest = splat(ZERO), splat(high)
    error = rq = sr = qq = sq = splat(ZERO)
    for i in range(begin, begin + size):
        weight = load(tile.x, i * LANES)
        matters = load(tile.w, i * tile.stride)
        code = rounded(least(most((weight - shift) * inverse, lowest), highest))
        r = weight - (code * step + shift)
        wr = matters * r
        wq = matters * code
        error = error + wr * r
        rq = rq + wr * code
        sr = sr + wr
        qq = qq + wq * code
        sq = sq + wq
    return error, rq, sr, qq, sq


@njit(error_model="numpy")
def total_of(tile: Tile, begin: int, size: int) -> Floats:
    """The sum of importances of a group."""
    total = splat(ZERO)
    for i in range(begin, begin + size):
        total = total + load(tile.w, i * tile.stride)
    return total


@njit(error_model="numpy")
def covering_scales(
    tile: Tile, begin: int, size: int, high: np.float32, shared: bool
) -> tuple[Floats, Floats]:
    """Step and shift that span the group; the shift is at most 0 where shifts are `shared`."""
    lowest = highest = load(tile.x, begin * LANES)
    for i in range(begin + 1, begin + size):
        weight = load(tile.x, i * LANES)
        lowest = least(lowest, weight)
        highest = most(highest, weight)
    if shared:
        lowest = least(lowest, splat(ZERO))
        highest = most(highest, lowest)
    return (highest - lowest) / high, lowest


@njit(error_model="numpy")
def free_scales(
    tile: Tile, begin: int, shape: Shape, cover: tuple[Floats, Floats], effort: Effort
) -> tuple[Floats, Floats]:
    """Step and shift of least error found, free to be any number: from each trial's start, refitted."""
    trials = effort.trials
    total = total_of(tile, begin, shape.size)
    limit = splat(ZERO if shape.groups > 1 else INFINITE)
    best_step, best_shift, best_error = cover[0], cover[1], splat(INFINITE)
    for trial in range(len(trials) + effort.rounds):
        step, shift = best_step, best_shift
        if trial < len(trials):
            step = cover[0] * trials[trial, 0]
            shift = cover[1] + cover[0] * trials[trial, 1]
        error, rq, r, qq, q = measure(tile, begin, shape.size, step, shift, shape.high)
        more_shift = finite_or_zero((r * qq - rq * q) / (total * qq - q * q))
        more_shift = select(shift + more_shift > limit, limit - shift, more_shift)
        more_step = finite_or_zero((rq - more_shift * q) / qq)
        error = error - more_step * (rq + rq - more_step * qq)
        error = error - more_shift * (r + r - more_shift * total - (more_step + more_step) * q)
        wins = error < best_error
        best_step = select(wins, step + more_step, best_step)
        best_shift = select(wins, shift + more_shift, best_shift)
        best_error = select(wins, error, best_error)
    return best_step, best_shift


@njit(error_model="numpy")
def settle_group(
    tile: Tile,
    begin: int,
    shape: Shape,
    reach: int,
    looks: int,
    units: tuple[Floats, Floats],
    starts: tuple[Floats, Floats],
) -> tuple[Floats, ...]:
    """The best levels of one group near `starts`, with their error and sums of w r q, w r, w q q and w q."""
    unit, shift_unit = units
    bottom, top = splat(shape.bottom), splat(shape.top)
    weights = total_of(tile, begin, shape.size)
    best, best_shift = starts
    best_error = splat(INFINITE)
    best_rq = best_r = best_qq = best_q = splat(ZERO)
    for offset in range(-reach, reach + 1):
        level = least(most(starts[0] + np.float32(offset), bottom), top)
        shift_level = starts[1]
        for _ in range(looks):
            step, shift = unit * level, shift_unit * shift_level
            error, rq, r, qq, q = measure(tile, begin, shape.size, step, shift, shape.high)
            wins = error < best_error
            best = select(wins, level, best)
            best_shift = select(wins, shift_level, best_shift)
            best_error = select(wins, error, best_error)
            best_rq = select(wins, rq, best_rq)
            best_r = select(wins, r, best_r)
            best_qq = select(wins, qq, best_qq)
            best_q = select(wins, q, best_q)
            # The next look is at the shift level of least error for these codes.
            moved = rounded(least(most(shift_level + r / (weights * shift_unit), bottom), top))
            shift_level = select(size_of(shift_unit) > TINY, moved, shift_level)
    return best, best_shift, best_error, best_rq, best_r, best_qq, best_q, weights


@njit(error_model="numpy")
def _finely_stored(unit: Floats) -> Truths:
    """Whether F16 holds numbers like it to all its digits; else two units would grow by different factors."""
    size = size_of(unit)
    return (size == ZERO) | ((size >= np.float32(2.0**-14)) & (size < np.float32(2.0**15)))


@njit(error_model="numpy")
def settle(
    tile: Tile,
    shape: Shape,
    reach: int,
    looks: int,
    units: tuple[Floats, Floats],
    levels: np.ndarray,
    shift_levels: np.ndarray,
) -> tuple[Floats, tuple[Floats, Floats], tuple[Floats, Floats]]:
    """The best levels near those given, in place; the error, and the units refitted to them.

    The last returned are the units to store where these levels are kept.
    """
    total = aa = ar = ab = bb = br = splat(ZERO)
    for group in range(shape.groups):
        at = group * LANES
        starts = load(levels, at), load(shift_levels, at)
        a, b, error, rq, r, qq, q, weights = settle_group(
            tile, group * shape.size, shape, reach, looks, units, starts
        )
        store(levels, at, a)
        store(shift_levels, at, b)
        total = total + error
        aa = aa + a * a * qq
        ar = ar + a * rq
        ab = ab + a * b * q
        bb = bb + b * b * weights
        br = br + b * r
    determinant = aa * bb - ab * ab
    more = finite_or_zero((ar * bb - br * ab) / determinant)
    more_shift = finite_or_zero((br * aa - ar * ab) / determinant)
    along = units[0] * ar + units[1] * br
    kept = units[0] * (units[0] * aa + (units[1] + units[1]) * ab) + units[1] * units[1] * bb
    larger = gain(tile, total + along, along + kept)
    larger = select(_finely_stored(units[0]) & _finely_stored(units[1]), larger, splat(ONE))
    refitted = storable(units[0] + more), storable(units[1] + more_shift)
    return total, refitted, (storable(units[0] * larger), storable(units[1] * larger))


@njit(error_model="numpy")
def _chosen(wins: Truths, new: tuple[Floats, Floats], old: tuple[Floats, Floats]) -> tuple[Floats, Floats]:
    return select(wins, new[0], old[0]), select(wins, new[1], old[1])


@njit(error_model="numpy")
def search(
    tile: Tile,
    shape: Shape,
    effort: Effort,
    scratch: tuple[np.ndarray, ...],
    best: np.ndarray,
    best_shifts: np.ndarray,
) -> tuple[tuple[Floats, Floats], tuple[Floats, Floats]]:
    """The units to choose codes for and those to store; into best and best_shifts [groups, 16] the levels.

    scratch: six of these.
    """
    wished, wished_shifts, covers, cover_shifts, levels, shift_levels = scratch
    groups, bottom, top = shape.groups, shape.bottom, shape.top
    for group in range(groups):
        at, begin = group * LANES, group * shape.size
        cover = covering_scales(tile, begin, shape.size, shape.high, groups > 1)
        store(covers, at, cover[0])
        store(cover_shifts, at, cover[1])
        step, shift = free_scales(tile, begin, shape, cover, effort)
        store(wished, at, step)
        store(wished_shifts, at, shift)
    best_error = splat(INFINITE)
    best_units = best_stored = best_error, best_error
    for start in range(1 + effort.covering):
        steps, shifts = (covers, cover_shifts) if start else (wished, wished_shifts)
        units = (
            split(steps, groups, bottom, top, levels),
            split(shifts, groups, bottom, top, shift_levels),
        )
        for turn in range(1 + effort.turns):
            error, refitted, stored = settle(
                tile, shape, effort.reach, effort.looks, units, levels, shift_levels
            )
            wins = error < best_error
            if start + turn == 0:  # its error may be no number
                wins = units[0] == units[0]
            best_error = select(wins, error, best_error)
            best_units = _chosen(wins, units, best_units)
            best_stored = _chosen(wins, stored, best_stored)
            keep(wins, levels, best, groups)
            keep(wins, shift_levels, best_shifts, groups)
            units = refitted
    return best_units, best_stored
