"""The search of lattice formats as the oracle does it: stronger than the encoders', and much slower.

The same steps as theirs, but each vector takes the best of all points under the true weighted error, where
the encoders compare a few that lie near; in float64. So bytes differ, and the oracle's error is one that the
encoders should come close to.

Axes: blocks, groups, vectors of a group, points of the lattice. A format with moved points (IQ1) has them
twice, moved up and moved down.
"""

from typing import NamedTuple

import numpy as np

from kernels.reference.lattices import points_of
from kernels.reference.rtn import Scales, storable
from kernels.reference.shapes import F32, MOST_LOST, Effort, Shape


class Fits(NamedTuple):
    """How each point fits each vector: sums of w x v and of w v v.

    float64 [moves, blocks, groups, vectors, points], v the values of the point.
    values: float64 [moves, points, width]. shared: vectors that are moved together.
    """

    xv: np.ndarray
    vv: np.ndarray
    values: np.ndarray
    shared: int


class Choice(NamedTuple):
    """Points for a step of each group: which [blocks, groups, vectors], and sums [blocks, groups].

    The cost is the squared error but for the sum of w x x.
    """

    moves: np.ndarray
    points: np.ndarray
    xv: np.ndarray
    vv: np.ndarray
    cost: np.ndarray


def searched(
    x: np.ndarray, w: np.ndarray, shape: Shape, effort: Effort, restored: float
) -> tuple[Scales, np.ndarray]:
    """Scales to store and the codes, float32 of the shape of x [blocks, groups, size]."""
    signs, sizes = _stripped(x.astype(np.float64), w, shape)
    fits = _fits(sizes, w.astype(np.float64), shape)
    wished = _free_search(fits, np.abs(sizes).max(axis=-1) / shape.high, effort)
    unit, levels = _split(wished, shape)
    best_unit, best_stored, best_levels, least = unit, unit, levels, np.full(len(x), np.inf)
    squares = (w * sizes**2).sum(axis=(1, 2))
    for turn in range(1 + effort.turns):
        levels, choice = _best_levels(fits, unit, levels, shape, effort.reach)
        cost = choice.cost.sum(axis=1)
        wins = (cost < least) | (turn == 0)
        best_unit, least = np.where(wins, unit, best_unit), np.where(wins, cost, least)
        best_levels = np.where(wins[:, None], levels, best_levels)
        kept = unit * (levels * choice.xv).sum(axis=1)
        gain = 1 + restored * np.clip(_ratio(squares - kept, kept), 0, MOST_LOST)
        best_stored = np.where(wins, _storable(unit * gain, shape), best_stored)
        refitted = _ratio((levels * choice.xv).sum(axis=1), (levels**2 * choice.vv).sum(axis=1))
        unit = _storable(np.maximum(refitted, 0), shape)
    choice = _best_points(fits, best_unit[:, None] * best_levels)
    codes = signs * fits.values[choice.moves, choice.points].reshape(x.shape)
    zero = np.zeros_like(best_unit)
    scales = (
        (best_stored.astype(F32), zero.astype(F32)),
        (best_levels.astype(F32), np.zeros_like(best_levels)),
    )
    return scales, codes.astype(F32)


def _stripped(x: np.ndarray, w: np.ndarray, shape: Shape) -> tuple[np.ndarray, np.ndarray]:
    """Signs that can be stored, and weights times their signs: sizes, but where signs had to be turned.

    Where the negative signs of each 8 must be even in number and are not, the cheapest one is turned.
    """
    if shape.signs == "none":
        return np.ones_like(x), x
    signs = np.where(np.signbit(x), -1.0, 1.0)
    if shape.signs == "even":
        eights, cost = signs.reshape(-1, 8), (w * np.abs(x)).reshape(-1, 8)
        odd = np.flatnonzero(eights.prod(axis=1) < 0)
        eights[odd, cost[odd].argmin(axis=1)] *= -1
        signs = eights.reshape(x.shape)
    return signs, x * signs


def _fits(x: np.ndarray, w: np.ndarray, shape: Shape) -> Fits:
    points = points_of(shape.points).astype(np.float64)
    values = np.stack([8 * points + 1, 8 * points - 1]) if shape.delta else points[None]
    width = points.shape[1]
    x, w = (array.reshape(*array.shape[:2], -1, width) for array in (x, w))
    xv, vv = (np.stack([a @ v.T for v in b]) for a, b in ((w * x, values), (w, values**2)))
    return Fits(xv, vv, values, max(shape.delta // width, 1))


def _best_points(fits: Fits, step: np.ndarray) -> Choice:
    """For steps [blocks, groups] the points of least cost, and of the two moves the better, up if equal."""
    column = step[None, :, :, None, None]
    cost = column * (column * fits.vv - 2 * fits.xv)
    points = cost.argmin(axis=-1)
    xv, vv, cost = (
        np.take_along_axis(sums, points[..., None], axis=-1)[..., 0] for sums in (fits.xv, fits.vv, cost)
    )
    together = cost.reshape(*cost.shape[:3], -1, fits.shared).sum(axis=-1)
    moves = np.repeat(together.argmin(axis=0), fits.shared, axis=-1)
    points, xv, vv, cost = (np.take_along_axis(a, moves[None], axis=0)[0] for a in (points, xv, vv, cost))
    return Choice(moves, points, xv.sum(axis=-1), vv.sum(axis=-1), cost.sum(axis=-1))


def _free_search(fits: Fits, cover: np.ndarray, effort: Effort) -> np.ndarray:
    """Steps, free of what can be stored, of the least cost found: the trials of the effort, refitted."""
    best, least = cover, np.full_like(cover, np.inf)
    starts: list[float | None] = [factor for factor, _ in effort.trials.tolist()] + [None] * effort.rounds
    for factor in starts:
        choice = _best_points(fits, best if factor is None else cover * factor)
        step = np.maximum(_ratio(choice.xv, choice.vv), 0)
        wins = -step * choice.xv < least
        best, least = np.where(wins, step, best), np.where(wins, -step * choice.xv, least)
    return best


def _split(wished: np.ndarray, shape: Shape) -> tuple[np.ndarray, np.ndarray]:
    """The unit that makes the extreme the greatest level; the odd levels nearest to the wishes."""
    greatest = shape.step_levels[1]
    unit = _storable(wished.max(axis=1) / greatest, shape)
    exact = _ratio(wished, np.broadcast_to(unit[:, None], wished.shape))
    return unit, np.clip(2 * np.rint((exact - 1) / 2) + 1, 1, greatest)


def _best_levels(
    fits: Fits, unit: np.ndarray, starts: np.ndarray, shape: Shape, reach: int
) -> tuple[np.ndarray, Choice]:
    """Of each group the best odd level up to `reach` places away, and the points for it."""
    best, kept = starts, _best_points(fits, unit[:, None] * starts)
    for offset in range(-reach, reach + 1):
        levels = np.clip(starts + 2 * offset, 1, shape.step_levels[1])
        choice = _best_points(fits, unit[:, None] * levels)
        wins = choice.cost < kept.cost
        best = np.where(wins, levels, best)
        kept = Choice(
            *(
                np.where(wins[..., None] if new.ndim > 2 else wins, new, old)
                for new, old in zip(choice, kept, strict=True)
            )
        )
    return best, kept


def _storable(unit: np.ndarray, shape: Shape) -> np.ndarray:
    """Units whose stored numbers, so many times as large, F16 can hold."""
    return storable((unit / shape.fraction).astype(F32)).astype(np.float64) * shape.fraction


def _ratio(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return np.divide(a, b, out=np.zeros_like(a), where=b > 0)
