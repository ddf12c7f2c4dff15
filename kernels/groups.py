"""Search and rounding of uniform grids, group by group.

A group is some neighbouring weights of one row that share a step and a shift:
weight = code * step + shift, with integer codes from `low` to `high`; a symmetric grid has no shift.
The scales of a group may be bound to those of its neighbours: step = unit step * step level,
shift = unit shift * shift level, with small integer levels and units common to several groups.

Weights are finite float32 [groups, size], C-contiguous. Importances are float32 [period, size], none
negative: group g has row g % period, so that importances of columns serve all rows. Every result depends
on its own group alone. These functions check, allocate and launch; the CPU is the one backend so far.
"""

from dataclasses import dataclass
from threading import Lock

import numpy as np

from kernels.cpu import groups as cpu

_launch = Lock()  # two launches at once from different threads abort the process (Numba's workqueue)


@dataclass(frozen=True)
class Codes:
    """The integers a weight may become, and whether groups have a shift, of at most `shift_limit`."""

    low: int
    high: int
    affine: bool
    shift_limit: float = np.inf


@dataclass(frozen=True)
class Settled:
    """What `settle` found, float32 [groups] each; r is weight - (code * step + shift), w its importance.

    The levels, then the sums over each group, with its codes rounded to those levels, of w r r (the
    error), w r q, w r, w q q, w q and w. For a symmetric grid the sums of w r and w q are 0.
    """

    step_levels: np.ndarray
    shift_levels: np.ndarray
    error: np.ndarray
    rq: np.ndarray
    r: np.ndarray
    qq: np.ndarray
    q: np.ndarray
    w: np.ndarray


def ranges(weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The least and the greatest weight of each group, float32 [groups] each."""
    lowest = np.empty(len(weights), np.float32)
    highest = np.empty(len(weights), np.float32)
    with _launch:
        cpu.ranges(weights, lowest, highest)
    return lowest, highest


def search(
    weights: np.ndarray,
    importance: np.ndarray,
    codes: Codes,
    start: tuple[np.ndarray, np.ndarray],
    candidates: np.ndarray,
    rounds: int,
) -> tuple[np.ndarray, np.ndarray]:
    """Steps and shifts of little weighted squared error, free to be any float32.

    From each group's starting (step, shift), float32 [groups] each, every candidate (a, b) of float32
    [candidates, 2] is tried: codes are rounded to step * a and shift + step * b, and the least-squares
    step and shift for these codes found. From the best, `rounds` more turns of rounding and refitting.
    """
    scales = np.ascontiguousarray(np.stack(start), np.float32)
    with _launch:
        cpu.search(
            weights,
            importance,
            np.float32(codes.low),
            np.float32(codes.high),
            codes.affine,
            np.float32(codes.shift_limit),
            np.ascontiguousarray(candidates, np.float32),
            rounds,
            scales,
        )
    return scales[0], scales[1]


def settle(
    weights: np.ndarray,
    importance: np.ndarray,
    codes: Codes,
    units: tuple[np.ndarray, np.ndarray],
    levels: tuple[np.ndarray, np.ndarray],
    bounds: tuple[tuple[int, int], tuple[int, int]],
    reach: int,
) -> Settled:
    """The levels of least weighted squared error near the given ones, for fixed units.

    `units` and `levels` are (of steps, of shifts), float32 [groups] each; `bounds` the least and the
    greatest level of each. Step levels up to `reach` away are tried, each with the given shift level and
    with the one that suits the codes this gave.
    """
    found = np.zeros((8, len(weights)), np.float32)
    found[0], found[1] = levels
    (step_least, step_most), (shift_least, shift_most) = bounds
    with _launch:
        cpu.settle(
            weights,
            importance,
            np.ascontiguousarray(np.stack(units), np.float32),
            np.float32(codes.low),
            np.float32(codes.high),
            codes.affine,
            (np.float32(step_least), np.float32(step_most)),
            (np.float32(shift_least), np.float32(shift_most)),
            reach,
            found,
        )
    return Settled(*found)


def round_codes(weights: np.ndarray, codes: Codes, steps: np.ndarray, shifts: np.ndarray) -> np.ndarray:
    """The nearest code of each weight, int8 [groups, size]; steps and shifts float32 [groups]."""
    rounded = np.empty(weights.shape, np.int8)
    with _launch:
        cpu.round_codes(weights, steps, shifts, np.float32(codes.low), np.float32(codes.high), rounded)
    return rounded
