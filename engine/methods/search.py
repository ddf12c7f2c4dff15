"""Searched scales: the least squared error, each weight's counted by the importance of its column.

1. For each group alone, with scales free to be any number: many scales around those that cover the range
   are tried, each followed by the least-squares step and shift for the codes it gives.
2. The grid's nearest storable scales to the best of these.
3. In turns, together for all that is stored: levels and codes for the units, then least-squares units for
   the levels and codes (llama.cpp stops before this one). A turn counts only in blocks where it helps.
4. Blocks where the scales that just cover the range do better keep those.
"""

from dataclasses import dataclass

import numpy as np

from engine.formats.grid import Grid, Scales, storable
from engine.methods.rtn import covering_scales
from kernels import groups
from kernels.groups import Codes, Settled

ROUNDS = 1  # of refitting, in step 1: a second lowers the squared error by 0.02 %
TURNS = 3  # of step 3: twice as many lower the squared error by 0.02 % (Q4_K) to 0.2 % (Q5_K)
REACH = 2  # step levels tried on each side; 1 leaves 0.1 % (Q4_K) to 0.7 % (Q5_K) on the table


def solve(weights: np.ndarray, grid: Grid, importance: np.ndarray | None) -> tuple[np.ndarray, Scales]:
    """Codes int8 [rows, columns] and scales for finite float32 [rows, columns].

    importance: float32 [columns], how much a squared error in each column matters; None where all are alike.
    """
    scales = search_scales(weights, grid, importance)
    return grid.round(weights, scales), scales


def search_scales(weights: np.ndarray, grid: Grid, importance: np.ndarray | None) -> Scales:
    """Storable scales of little weighted squared error; arguments as of `solve`."""
    rows = len(weights)
    weights = weights.reshape(-1, grid.group)
    matters = _group_importance(importance, grid.group)
    covering = covering_scales(weights, grid.codes)
    steps, shifts = groups.search(weights, matters, grid.codes, covering, _candidates(grid.codes), ROUNDS)

    start = grid.scales(steps.reshape(rows, -1), shifts.reshape(rows, -1))
    shared = grid.groups > 1  # else there are no levels, and one turn mends the rounding to F16
    reach, turns = (REACH, TURNS) if shared else (0, 1)
    best, sums = _settle(weights, matters, grid, start, reach)
    latest = best
    for _ in range(turns):
        latest, sums = _settle(weights, matters, grid, _refit_units(latest.scales, sums, grid), reach)
        best = _better(latest, best)
    steps, shifts = covering
    plain = grid.scales(steps.reshape(rows, -1), shifts.reshape(rows, -1))
    return _better(_settle(weights, matters, grid, plain, 0)[0], best).scales


def _group_importance(importance: np.ndarray | None, size: int) -> np.ndarray:
    """Importance float32 [period, size] with mean 1; columns that calibration never saw count a little."""
    if importance is None or not importance.any():
        return np.ones((1, size), np.float32)
    relative = importance / importance.mean(dtype=np.float64)
    return np.maximum(relative, 1e-6).astype(np.float32).reshape(-1, size)


def _candidates(codes: Codes) -> np.ndarray:
    """Starts for `groups.search`, float32 [candidates, 2].

    Symmetric: steps from 0.75 to 1.15 times the covering one. Affine: both ends of the range moved in or
    out by up to a whole step, independently. (Moved in alone, Q5_1 with importance was 1 % worse than
    llama.cpp's on two layers of the sample model; so it is 4 % better on all.)
    """
    if not codes.affine:
        factors = np.linspace(0.75, 1.15, 33)
        return np.stack([factors, np.zeros_like(factors)], axis=1).astype(np.float32)
    span = codes.high - codes.low
    ends = (-1.0, -0.6, -0.2, 0.2, 0.6, 1.0)
    return np.array([((span - a - b) / span, a) for a in ends for b in ends], np.float32)


@dataclass(frozen=True)
class _Trial:
    """Scales and the weighted squared error of each block with them, float64 [rows, blocks]."""

    scales: Scales
    error: np.ndarray


def _settle(
    weights: np.ndarray, matters: np.ndarray, grid: Grid, scales: Scales, reach: int
) -> tuple[_Trial, Settled]:
    """The best levels near those of `scales`, for its units. weights: [groups, size]."""
    shape = scales.step_levels.shape
    sums = groups.settle(
        weights,
        matters,
        grid.codes,
        (np.repeat(scales.unit_steps, grid.groups), np.repeat(scales.unit_shifts, grid.groups)),
        (scales.step_levels.ravel(), scales.shift_levels.ravel()),
        (grid.step_levels, grid.shift_levels),
        reach,
    )
    levels = sums.step_levels.reshape(shape), sums.shift_levels.reshape(shape)
    settled = Scales(scales.unit_steps, scales.unit_shifts, *levels)
    return _Trial(settled, _over_groups(sums.error.reshape(shape))), sums


def _refit_units(scales: Scales, sums: Settled, grid: Grid) -> Scales:
    """Units of least weighted squared error for the codes and levels that `_settle` gave."""
    shape = scales.step_levels.shape
    a, b = scales.step_levels.astype(np.float64), scales.shift_levels.astype(np.float64)
    aa = _over_groups(a * a * sums.qq.reshape(shape))
    ar = _over_groups(a * sums.rq.reshape(shape))
    if not grid.codes.affine:
        more_step, more_shift = _divide(ar, aa), np.zeros_like(ar)
    else:
        ab = _over_groups(a * b * sums.q.reshape(shape))
        bb = _over_groups(b * b * sums.w.reshape(shape))
        br = _over_groups(b * sums.r.reshape(shape))
        determinant = aa * bb - ab * ab
        more_step = _divide(ar * bb - br * ab, determinant)
        more_shift = _divide(br * aa - ar * ab, determinant)
    return Scales(
        storable((scales.unit_steps + more_step).astype(np.float32)),
        storable((scales.unit_shifts + more_shift).astype(np.float32)),
        scales.step_levels,
        scales.shift_levels,
    )


def _better(first: _Trial, second: _Trial) -> _Trial:
    """Block by block the trial of smaller error, the second where they are equal."""
    wins = first.error < second.error

    def choose(a: np.ndarray, b: np.ndarray) -> np.ndarray:
        return np.where(wins.reshape(wins.shape + (1,) * (a.ndim - wins.ndim)), a, b)

    mine, other = first.scales, second.scales
    scales = Scales(
        choose(mine.unit_steps, other.unit_steps),
        choose(mine.unit_shifts, other.unit_shifts),
        choose(mine.step_levels, other.step_levels),
        choose(mine.shift_levels, other.shift_levels),
    )
    return _Trial(scales, choose(first.error, second.error))


def _over_groups(values: np.ndarray) -> np.ndarray:
    """The sum over the last axis, float64, one term after the other: `np.sum` may go another way for
    another number of rows, and bytes must not depend on how rows are handed over."""
    total = values[..., 0].astype(np.float64)
    for index in range(1, values.shape[-1]):
        total += values[..., index]
    return total


def _divide(numerator: np.ndarray, denominator: np.ndarray) -> np.ndarray:
    return np.divide(numerator, denominator, out=np.zeros_like(numerator), where=denominator > 0)
