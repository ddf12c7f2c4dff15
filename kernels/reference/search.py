"""Scales of the oracle: those that cover the range of each group, and those that a search finds.

x and w: float32 [blocks, groups, size]; units: pairs of float32 [blocks]; levels: [blocks, groups]; each
pair is (of steps, of shifts). Scales are (units, levels).
"""

import numpy as np

from kernels.reference import lattices
from kernels.reference.shapes import F32, TINY, Shape

Pair = tuple[np.ndarray, np.ndarray]
Scales = tuple[Pair, Pair]


def _wished(x: np.ndarray, shape: Shape) -> Pair:
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


def _storable(units: np.ndarray) -> np.ndarray:
    size = np.clip(np.abs(units), F32(2.0**-24), F32(65504)).astype(np.float16).astype(F32)
    return np.where(units == 0, F32(0), np.where(units < 0, -size, size))


def _levels(wished: np.ndarray, bounds: tuple[int, int], odd: bool = False, fraction: float = 1) -> Pair:
    """Units that make the extreme of each block the greatest level, and the levels nearest to the wishes."""
    units, levels = np.zeros(len(wished), F32), np.full_like(wished, bounds[0] if odd else 0)
    greatest = bounds[0] if abs(bounds[0]) > abs(bounds[1]) else bounds[1]
    for block, row in enumerate(wished):
        extreme = row[np.abs(row).argmax()]
        units[block] = _storable(extreme / F32(greatest) / F32(fraction)) * F32(fraction)
        if units[block] != 0:
            exact = np.clip(row / units[block], *bounds)
            levels[block] = F32(2) * np.rint((exact - F32(1)) / F32(2)) + F32(1) if odd else np.rint(exact)
    return units, levels


def _stored(wished: Pair, shape: Shape) -> Scales:
    unit_steps, step_levels = _levels(wished[0], shape.step_levels, shape.odd, shape.fraction)
    unit_shifts, shift_levels = _levels(wished[1], shape.shift_levels)
    return (unit_steps, unit_shifts), (step_levels, shift_levels)


def covering(x: np.ndarray, shape: Shape) -> Scales:
    """Storable scales near those that just cover the range of each group."""
    if shape.own:
        steps = np.array([[_own_step(group, shape) for group in block] for block in x], F32)
        ones = np.ones(len(x), F32)
        return (ones, np.zeros_like(ones)), (steps, np.zeros_like(steps))
    return _stored(_wished(x, shape), shape)


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
    codes = rounded(group, np.array(F32(step)), np.array(F32(0)), shape)
    total = 0.0
    for weight, code in zip(group.tolist(), codes.tolist(), strict=True):
        total += (weight - code * step) * (weight - code * step)
    return total


def rounded(x: np.ndarray, step: np.ndarray, shift: np.ndarray, shape: Shape) -> np.ndarray:
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


def _sums(x: np.ndarray, w: np.ndarray, step: np.ndarray, shift: np.ndarray, shape: Shape) -> np.ndarray:
    """Sums of w r r, w r q, w r, w q q, w q and w over each group, float32 [6, blocks, groups]."""
    codes = rounded(x, step, shift, shape)
    sums = np.zeros((6, *step.shape), F32)
    for i in range(shape.size):
        weight, q = w[..., i], codes[..., i]
        r = x[..., i] - (q * step + shift)
        terms = (weight * r * r, weight * r * q, weight * r, weight * q * q, weight * q, weight)
        for total, term in zip(sums, terms, strict=True):
            total += term
    return sums


def searched(x: np.ndarray, w: np.ndarray, shape: Shape) -> Scales:
    """Storable scales of little squared error, weighted by w."""
    plain = covering(x, shape)
    start = _stored(_free_search(x, w, shape), shape)
    reach, turns = (2, 3) if shape.groups > 1 else (0, 1)
    best = latest = _settled(x, w, start, shape, reach)
    for _ in range(turns):
        latest = _settled(x, w, _refitted(latest, shape), shape, reach)
        best = _better(latest, best)
    return _better(_settled(x, w, plain, shape, 0), best)[0]


def _free_search(x: np.ndarray, w: np.ndarray, shape: Shape) -> Pair:
    """Steps and shifts, free of what can be stored, of the least error found."""
    step, shift = _wished(x, shape)
    if shape.affine:
        ends, span = (-1.0, -0.6, -0.2, 0.2, 0.6, 1.0), shape.high
        trials = [((span - a - b) / span, a) for a in ends for b in ends]
    else:
        trials = [(factor, 0.0) for factor in np.linspace(0.75, 1.15, 33)]
    limit = F32(0) if shape.groups > 1 else F32(np.inf)
    best = [step, shift, np.full_like(step, np.inf)]
    for factor, offset in trials:
        _try_refit(x, w, step * F32(factor), shift + step * F32(offset), shape, limit, best)
    _try_refit(x, w, best[0], best[1], shape, limit, best)
    return best[0], best[1]


def _try_refit(
    x: np.ndarray,
    w: np.ndarray,
    step: np.ndarray,
    shift: np.ndarray,
    shape: Shape,
    limit: np.float32,
    best: list[np.ndarray],
) -> None:
    """Codes for (step, shift), then the least-squares step and shift for these codes; kept where better."""
    error, rq, r, qq, q, total = _sums(x, w, step, shift, shape)
    more_shift = np.zeros_like(step)
    if shape.affine:
        more_shift = (r * qq - rq * q) / (total * qq - q * q)
        more_shift = np.where(np.isfinite(more_shift), more_shift, F32(0))
        more_shift = np.where(shift + more_shift > limit, limit - shift, more_shift)
    more_step = (rq - more_shift * q) / qq
    more_step = np.where(np.isfinite(more_step), more_step, F32(0))
    error = error - more_step * (rq + rq - more_step * qq)
    error = error - more_shift * (r + r - more_shift * total - (more_step + more_step) * q)
    wins = error < best[2]
    best[:] = [
        np.where(wins, new, old)
        for new, old in zip((step + more_step, shift + more_shift, error), best, strict=True)
    ]


# Scales, their sums float32 [6, blocks, groups], the error of each block float64 [blocks].
Trial = tuple[Scales, np.ndarray, np.ndarray]


def _settled(x: np.ndarray, w: np.ndarray, scales: Scales, shape: Shape, reach: int) -> Trial:
    """The best levels near the given ones: steps up to `reach` away, with two looks at the shift level."""
    units, (step_levels, shift_levels) = scales
    step_unit, shift_unit = units[0][:, None], units[1][:, None]
    kept_step, kept_shift = np.array(step_levels), np.array(shift_levels)
    kept = np.zeros((6, *step_levels.shape), F32)
    kept[0] = np.inf
    for offset in range(-reach, reach + 1):
        a, b = np.clip(step_levels + F32(offset), *shape.step_levels), shift_levels
        for _ in range(2 if shape.shift_levels != (1, 1) else 1):
            sums = _sums(x, w, step_unit * a, shift_unit * b, shape)
            wins = sums[0] < kept[0]
            kept_step, kept_shift = np.where(wins, a, kept_step), np.where(wins, b, kept_shift)
            kept = np.where(wins, sums, kept)
            moved = np.rint(np.clip(b + sums[2] / (sums[5] * shift_unit), *shape.shift_levels))
            b = np.where(np.abs(shift_unit) > TINY, moved, b)
    return (units, (kept_step, kept_shift)), kept, _over_groups(kept[0])


def _refitted(trial: Trial, shape: Shape) -> Scales:
    """Units of least squared error for the codes and levels of the trial."""
    ((unit_steps, unit_shifts), levels), (_, rq, r, qq, q, w), _ = trial
    a, b = levels[0].astype(np.float64), levels[1].astype(np.float64)
    aa, ar = _over_groups(a * a * qq), _over_groups(a * rq)
    if shape.affine:
        ab, bb, br = _over_groups(a * b * q), _over_groups(b * b * w), _over_groups(b * r)
        determinant = aa * bb - ab * ab
        more_step = np.where(determinant > 0, (ar * bb - br * ab) / determinant, 0)
        more_shift = np.where(determinant > 0, (br * aa - ar * ab) / determinant, 0)
    else:
        more_step, more_shift = np.where(aa > 0, ar / aa, 0), np.zeros_like(ar)
    new = (unit_steps + more_step).astype(F32), (unit_shifts + more_shift).astype(F32)
    return (_storable(new[0]), _storable(new[1])), levels


def _over_groups(values: np.ndarray) -> np.ndarray:
    """Sum over the groups of each block, one after the other, in float64."""
    total = np.zeros(len(values))
    for group in range(values.shape[1]):
        total = total + values[:, group]
    return total


def _better(first: Trial, second: Trial) -> Trial:
    """Block by block the trial of smaller error, the second where they are equal."""
    wins = first[2] < second[2]
    (units, levels), (other_units, other_levels) = first[0], second[0]
    chosen = tuple(np.where(wins, a, b) for a, b in zip(units, other_units, strict=True))
    chosen_levels = tuple(np.where(wins[:, None], a, b) for a, b in zip(levels, other_levels, strict=True))
    scales = (chosen[0], chosen[1]), (chosen_levels[0], chosen_levels[1])
    return scales, np.where(wins[None, :, None], first[1], second[1]), np.where(wins, first[2], second[2])
