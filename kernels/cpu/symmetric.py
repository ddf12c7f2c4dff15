"""Search of scales of symmetric blocks, weight = code * unit * level, sixteen blocks at a time.

A level is stored for each group, an F16 unit for each block. What rounds a scaled weight to the nearest code
is told by a rule: two vectors, for the integers from one to the other, or a table (`kernels.cpu.tables`).
All of tiles [n, 16]; see `kernels.cpu.tiles`. The steps of the search: see `kernels.encoders`.
"""

from typing import Any

import numpy as np
from numba import njit, types
from numba.extending import overload

from kernels.cpu.shapes import MOST_LOST, Effort, Shape
from kernels.cpu.tiles import Tile, rounded, size_of, storable
from kernels.cpu.vectors import LANES, Floats, Truths, float32x16, least, load, most, select, splat, store

TINY = np.float32(1e-30)  # a smaller step counts as none: its inverse would overflow
ZERO = np.float32(0)
ONE = np.float32(1)
INFINITE = np.float32(np.inf)
_MOST_LOST = np.float32(MOST_LOST)


@njit(error_model="numpy")
def inverse_of(step: Floats) -> Floats:
    """1 / step, and 0 where there is no step to speak of."""
    return select(size_of(step) > TINY, splat(ONE) / step, splat(ZERO))


@njit(error_model="numpy")
def finite_or_zero(x: Floats) -> Floats:
    """x, but 0 where a refit has no answer: all codes equal, say."""
    return select(size_of(x) < INFINITE, x, splat(ZERO))


@njit(error_model="numpy")
def gain(tile: Tile, lost: Floats, kept: Floats) -> Floats:
    """How much larger than those of least error a block's scales are stored (step 5 in `kernels.encoders`).

    lost, kept: sums of w x r and of w x (x - r), where r is what the codes miss of x.
    """
    share = least(most(finite_or_zero(lost / kept), splat(ZERO)), splat(_MOST_LOST))
    return splat(ONE) + share * tile.restored


def nearest(scaled: Any, rule: Any) -> Any:
    """The code nearest to a scaled weight; in Numba functions, for the rules named above."""
    raise NotImplementedError("compiled code only")


@overload(nearest)
def _nearest_integer(scaled: Any, rule: Any) -> Any:
    if rule != types.UniTuple(float32x16, 2):
        return None

    def find(scaled: Any, rule: Any) -> Any:
        return rounded(least(most(scaled, rule[0]), rule[1]))

    return find


@njit(error_model="numpy")
def measure(rule: Any, tile: Tile, begin: int, size: int, step: Floats) -> tuple[Floats, Floats, Floats]:
    """Sums of w r r, w r q and w q q over weights begin .. begin + size; q the codes, r what they miss."""
    inverse = inverse_of(step)
    error = rq = qq = splat(ZERO)
    for i in range(begin, begin + size):
        weight = load(tile.x, i * LANES)
        matters = load(tile.w, i * tile.stride)
        code = nearest(weight * inverse, rule)
        r = weight - code * step
        wr = matters * r
        error = error + wr * r
        rq = rq + wr * code
        qq = qq + matters * code * code
    return error, rq, qq


@njit(error_model="numpy")
def covering_step(tile: Tile, begin: int, size: int, low: np.float32, high: np.float32) -> Floats:
    """The step that puts the weight of largest size on the lowest code (or -low = high: on either end)."""
    lowest = highest = load(tile.x, begin * LANES)
    for i in range(begin + 1, begin + size):
        weight = load(tile.x, i * LANES)
        lowest = least(lowest, weight)
        highest = most(highest, weight)
    extreme = select(highest > splat(ZERO) - lowest, highest, lowest)
    if low == -high:
        extreme = splat(ZERO) - size_of(extreme)
    return extreme / low


@njit(error_model="numpy")
def free_step(rule: Any, tile: Tile, begin: int, size: int, cover: Floats, effort: Effort) -> Floats:
    """The step of least error found, free to be any number: from `cover` times each factor, refitted."""
    trials = effort.trials
    best, best_error = cover, splat(INFINITE)
    for trial in range(len(trials) + effort.rounds):
        step = cover * trials[trial, 0] if trial < len(trials) else best
        error, rq, qq = measure(rule, tile, begin, size, step)
        more = finite_or_zero(rq / qq)
        error = error - more * (rq + rq - more * qq)
        wins = error < best_error
        best = select(wins, step + more, best)
        best_error = select(wins, error, best_error)
    return best


@njit(error_model="numpy")
def split(wished: np.ndarray, groups: int, bottom: np.float32, top: np.float32, levels: np.ndarray) -> Floats:
    """The unit that makes the extreme of `wished` [groups, 16] the greatest level; the levels nearest."""
    extreme = load(wished, 0)
    for group in range(1, groups):
        value = load(wished, group * LANES)
        extreme = select(size_of(value) > size_of(extreme), value, extreme)
    unit = storable(extreme / (bottom if -bottom > top else top))
    for group in range(groups):
        level = least(most(load(wished, group * LANES) / unit, splat(bottom)), splat(top))
        store(levels, group * LANES, select(unit == ZERO, splat(ZERO), rounded(level)))
    return unit


@njit(error_model="numpy")
def settle(
    rule: Any, tile: Tile, shape: Shape, reach: int, unit: Floats, levels: np.ndarray
) -> tuple[Floats, Floats, Floats]:
    """The best levels up to `reach` from those given, in place; the error, and the unit refitted to them.

    The last returned is the unit to store where these levels are kept: see `gain`.
    """
    total = ar = aa = splat(ZERO)
    for group in range(shape.groups):
        start = load(levels, group * LANES)
        best, best_error = start, splat(INFINITE)
        best_rq = best_qq = splat(ZERO)
        for offset in range(-reach, reach + 1):
            level = least(most(start + np.float32(offset), splat(shape.bottom)), splat(shape.top))
            begin = group * shape.size
            error, rq, qq = measure(rule, tile, begin, shape.size, unit * level)
            wins = error < best_error
            best = select(wins, level, best)
            best_error = select(wins, error, best_error)
            best_rq = select(wins, rq, best_rq)
            best_qq = select(wins, qq, best_qq)
        store(levels, group * LANES, best)
        total = total + best_error
        ar = ar + best * best_rq
        aa = aa + best * best * best_qq
    along = unit * ar
    larger = gain(tile, total + along, along + unit * unit * aa)
    return total, storable(unit + finite_or_zero(ar / aa)), storable(unit * larger)


@njit(error_model="numpy")
def keep(wins: Truths, found: np.ndarray, best: np.ndarray, groups: int) -> None:
    """Into best [groups, 16] what was found, in the lanes that win."""
    for group in range(groups):
        at = group * LANES
        store(best, at, select(wins, load(found, at), load(best, at)))


@njit(error_model="numpy")
def search(
    rule: Any,
    tile: Tile,
    shape: Shape,
    effort: Effort,
    scratch: tuple[np.ndarray, np.ndarray, np.ndarray],
    best: np.ndarray,
) -> tuple[Floats, Floats]:
    """The unit to choose codes for and the one to store; into best [groups, 16] the levels.

    scratch: three more of [groups, 16].
    """
    wished, covers, levels = scratch
    groups, bottom, top = shape.groups, shape.bottom, shape.top
    for group in range(groups):
        begin = group * shape.size
        cover = covering_step(tile, begin, shape.size, shape.low, shape.high)
        store(covers, group * LANES, cover)
        step = free_step(rule, tile, begin, shape.size, cover, effort)
        store(wished, group * LANES, step)
    best_unit = best_stored = best_error = splat(INFINITE)
    for start in range(1 + effort.covering):
        unit = split(covers if start else wished, groups, bottom, top, levels)
        for turn in range(1 + effort.turns):
            error, refitted, stored = settle(rule, tile, shape, effort.reach, unit, levels)
            wins = error < best_error
            if start + turn == 0:  # its error may be no number
                wins = unit == unit
            best_error = select(wins, error, best_error)
            best_unit = select(wins, unit, best_unit)
            best_stored = select(wins, stored, best_stored)
            keep(wins, levels, best, groups)
            unit = refitted
    return best_unit, best_stored
