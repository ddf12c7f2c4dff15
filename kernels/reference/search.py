"""The searched scales and codes of all formats but the lattices', a whole array of blocks at a time.

The encoders' search in the encoders' arithmetic, float32 in the order of the weights and of the groups, so
that bytes are equal; in another arrangement: all groups of all blocks at once, and a format without shifts is
one whose shifts are 0. x and w: float32 [blocks, groups, size]; units, levels and scales as in
`kernels.reference.rtn`; sums: one of `Sums` of float32 [blocks, groups].
"""

from typing import NamedTuple

import numpy as np

from kernels.reference.rtn import Pair, Scales, split, storable, wished_scales
from kernels.reference.shapes import F32, MOST_LOST, TINY, Effort, Shape


class Sums(NamedTuple):
    """Sums over a group of w r r, w r q, w r, w q q, w q and w; q the codes, r what they miss."""

    error: np.ndarray
    rq: np.ndarray
    r: np.ndarray
    qq: np.ndarray
    q: np.ndarray
    w: np.ndarray


class Trial(NamedTuple):
    """Scales, and for each block the error, the units refitted to its codes and levels, and sums of w x r
    and of w x (x - r): what it loses along itself, and what it keeps."""

    scales: Scales
    error: np.ndarray
    refitted: Pair
    along: Pair


def searched(
    x: np.ndarray, w: np.ndarray, shape: Shape, effort: Effort, restored: float
) -> tuple[Scales, np.ndarray]:
    """Scales to store, of little squared error weighted by w, and the codes, float32 of the shape of x.

    The codes are the nearest for the scales of least error; the units stored are larger, by the part
    `restored` of what each block loses along itself.
    """
    if shape.own:
        units, levels = stored, _ = _stepped(x, w, shape, effort)
    else:
        best = _levelled(x, w, shape, effort)
        units, levels = best.scales
        lost, kept = best.along
        gain = F32(1) + _within(_finite(lost / kept), 0, MOST_LOST) * F32(restored)
        if shape.affine:  # two numbers that F16 holds roughly would grow by different factors
            fine = [(unit == 0) | ((np.abs(unit) >= 2.0**-14) & (np.abs(unit) < 2.0**15)) for unit in units]
            gain = np.where(fine[0] & fine[1], gain, F32(1))
        stored = storable(units[0] * gain), storable(units[1] * gain)
    codes = nearest(x, units[0][:, None] * levels[0], units[1][:, None] * levels[1], shape)
    return (stored, levels), codes


def nearest(x: np.ndarray, step: np.ndarray, shift: np.ndarray, shape: Shape) -> np.ndarray:
    """The nearest codes; of two as near the even one, in a table the lower (E2M1: that nearer to 0)."""
    inverse = np.where(np.abs(step) > TINY, F32(1) / step, F32(0))
    scaled = (x - shift[..., None]) * inverse[..., None]
    if not shape.table:
        return np.rint(_within(scaled, shape.low, shape.high))
    numbers = np.array(sorted(set(shape.table)), np.float64)
    if -shape.low == shape.high:  # both signs of each number: the smaller of two, not the lower
        numbers = numbers[numbers >= 0]
        return np.copysign(_nearest_of(np.abs(scaled), numbers), scaled)
    return _nearest_of(scaled, numbers)


def _nearest_of(scaled: np.ndarray, numbers: np.ndarray) -> np.ndarray:
    bounded = np.clip(scaled, -1000, 1000).astype(np.float64)  # Inf would be as far from all of them
    return numbers[np.abs(bounded[..., None] - numbers).argmin(axis=-1)].astype(F32)


def _within(values: np.ndarray, low: float, high: float) -> np.ndarray:
    """Clipped; NaN becomes the lower end, as the encoders have it."""
    values = np.where(values > low, values, F32(low))
    return np.where(values < high, values, F32(high))


def _finite(values: np.ndarray) -> np.ndarray:
    return np.where(np.isfinite(values), values, F32(0))


def _in_order(terms: np.ndarray) -> np.ndarray:
    """Sums along the last axis, one after the other in float32; np.sum would add up in pairs."""
    return terms.cumsum(axis=-1, dtype=F32)[..., -1]


def _sums(x: np.ndarray, w: np.ndarray, step: np.ndarray, shift: np.ndarray, shape: Shape) -> Sums:
    q = nearest(x, step, shift, shape)
    r = x - (q * step[..., None] + shift[..., None])
    return Sums(*(_in_order(terms) for terms in (w * r * r, w * r * q, w * r, w * q * q, w * q, w)))


# ------------------------------------------------------------------------------- steps of the format's own


def _stepped(x: np.ndarray, w: np.ndarray, shape: Shape, effort: Effort) -> Scales:
    """For each group the best of the storable steps around the first that covers its range."""
    steps = np.array(shape.own, F32)
    if shape.groups > 1:
        steps = np.concatenate([np.zeros(1, F32), steps])  # NVFP4 has a step of 0
    last = len(steps) - 1
    cover = np.minimum(np.searchsorted(steps, np.abs(x).max(axis=-1) / F32(shape.high)), last)
    best, least = steps[cover], np.full(cover.shape, np.inf, F32)
    for offset in sorted(range(-effort.reach, effort.reach + 1), key=lambda offset: (abs(offset), -offset)):
        step = steps[np.clip(cover + offset, 0, last)]
        error = _sums(x, w, step, np.zeros_like(step), shape).error
        wins = error < least
        best, least = np.where(wins, step, best), np.where(wins, error, least)
    ones = np.ones(len(x), F32)
    return (ones, np.zeros_like(ones)), (best, np.zeros_like(best))


# ----------------------------------------------------------------------------------- units and their levels


def _levelled(x: np.ndarray, w: np.ndarray, shape: Shape, effort: Effort) -> Trial:
    wished = wished_scales(x, shape)
    best = _turned(x, w, _stored(_free_search(x, w, wished, shape, effort), shape), shape, effort)
    if effort.covering:
        best = _turned(x, w, _stored(wished, shape), shape, effort, best)
    return best


def _turned(
    x: np.ndarray, w: np.ndarray, scales: Scales, shape: Shape, effort: Effort, best: Trial | None = None
) -> Trial:
    """The best of `best` and what the turns from `scales` give."""
    trial = _settled(x, w, scales, shape, effort)
    best = trial if best is None else _better(trial, best)
    for _ in range(effort.turns):
        trial = _settled(x, w, (trial.refitted, trial.scales[1]), shape, effort)
        best = _better(trial, best)
    return best


def _stored(wished: Pair, shape: Shape) -> Scales:
    steps, step_levels = split(wished[0], shape.step_levels)
    shifts, shift_levels = split(wished[1], shape.shift_levels)
    return (steps, shifts), (step_levels, shift_levels)


def _free_search(x: np.ndarray, w: np.ndarray, wished: Pair, shape: Shape, effort: Effort) -> Pair:
    """Steps and shifts, free of what can be stored, of the least error found: starts, refitted."""
    step, shift = wished
    best = step, shift, np.full_like(step, np.inf)
    for factor, offset in effort.trials:
        start = step * F32(factor), (shift + step * F32(offset) if shape.affine else shift)
        best = _refitted_if_better(x, w, start, best, shape)
    for _ in range(effort.rounds):
        best = _refitted_if_better(x, w, best[:2], best, shape)
    return best[:2]


def _refitted_if_better(
    x: np.ndarray,
    w: np.ndarray,
    start: Pair,
    best: tuple[np.ndarray, np.ndarray, np.ndarray],
    shape: Shape,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Least-squares steps and shifts for the codes that `start` gives, where their errors are less."""
    step, shift = start
    error, rq, r, qq, q, total = _sums(x, w, step, shift, shape)
    more_shift = np.zeros_like(step)
    if shape.affine:
        more_shift = _finite((r * qq - rq * q) / (total * qq - q * q))
        if shape.groups > 1:  # the shared unit of shifts lets them be negative only
            more_shift = np.where(shift + more_shift > 0, -shift, more_shift)
        rq_left = rq - more_shift * q
    else:
        rq_left = rq
    more_step = _finite(rq_left / qq)
    error = error - more_step * (rq + rq - more_step * qq)
    if shape.affine:
        error = error - more_shift * (r + r - more_shift * total - (more_step + more_step) * q)
    wins = error < best[2]
    return (
        np.where(wins, step + more_step, best[0]),
        np.where(wins, shift + more_shift, best[1]),
        np.where(wins, error, best[2]),
    )


def _settled(x: np.ndarray, w: np.ndarray, scales: Scales, shape: Shape, effort: Effort) -> Trial:
    """The best levels near the given ones: of steps up to `reach` away, of shifts after each look."""
    (step_unit, shift_unit), (starts, shift_starts) = scales
    step_column, shift_column = step_unit[:, None], shift_unit[:, None]
    zero = np.zeros_like(starts)
    a, b, sums = starts, shift_starts, Sums(np.full_like(starts, np.inf), *[zero] * 5)
    for offset in range(-effort.reach, effort.reach + 1):
        step_level = _within(starts + F32(offset), *shape.step_levels)
        shift_level = shift_starts
        for _ in range(effort.looks):
            found = _sums(x, w, step_column * step_level, shift_column * shift_level, shape)
            wins = found.error < sums.error
            a, b = np.where(wins, step_level, a), np.where(wins, shift_level, b)
            sums = Sums(*(np.where(wins, new, old) for new, old in zip(found, sums, strict=True)))
            moved = np.rint(_within(shift_level + found.r / (found.w * shift_column), *shape.shift_levels))
            shift_level = np.where(np.abs(shift_column) > TINY, moved, shift_level)
    return _with_units_refitted((scales[0], (a, b)), sums._replace(w=_in_order(w)), shape)


def _with_units_refitted(scales: Scales, sums: Sums, shape: Shape) -> Trial:
    """`refitted`: of least squared error for the codes and levels."""
    units, (a, b) = scales
    error, aa, ar = _in_order(sums.error), _in_order(a * a * sums.qq), _in_order(a * sums.rq)
    if not shape.affine:
        along = units[0] * ar
        refitted = storable(units[0] + _finite(ar / aa)), units[1]
        return Trial(scales, error, refitted, (error + along, along + units[0] * units[0] * aa))
    ab, bb, br = _in_order(a * b * sums.q), _in_order(b * b * sums.w), _in_order(b * sums.r)
    determinant = aa * bb - ab * ab
    more_step = _finite((ar * bb - br * ab) / determinant)
    more_shift = _finite((br * aa - ar * ab) / determinant)
    along = units[0] * ar + units[1] * br
    square = units[0] * (units[0] * aa + (units[1] + units[1]) * ab) + units[1] * units[1] * bb
    refitted = storable(units[0] + more_step), storable(units[1] + more_shift)
    return Trial(scales, error, refitted, (error + along, along + square))


def _better(new: Trial, old: Trial) -> Trial:
    """Block by block the trial of smaller error, the old one where they are equal or one is NaN."""
    wins = new.error < old.error
    (units, levels), (old_units, old_levels) = new.scales, old.scales
    scales = (
        (np.where(wins, units[0], old_units[0]), np.where(wins, units[1], old_units[1])),
        (
            np.where(wins[:, None], levels[0], old_levels[0]),
            np.where(wins[:, None], levels[1], old_levels[1]),
        ),
    )
    along = np.where(wins, new.along[0], old.along[0]), np.where(wins, new.along[1], old.along[1])
    return Trial(scales, np.where(wins, new.error, old.error), old.refitted, along)
