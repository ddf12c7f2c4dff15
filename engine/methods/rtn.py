"""Round to nearest: the scales of each group just cover its range.

A symmetric grid with one code more below zero than above (-8 .. 7) puts its lowest code on the weight of
largest size, whatever that one's sign: the step may be negative. So does a table that reaches further below
zero. Lattices put their largest code there. An affine grid spans least to greatest. A format with steps of
its own gets the one below or the one above the covering step: that of less squared error, for these may be
twice each other.
"""

import numpy as np

from engine.formats.codes import Codes
from engine.formats.grid import Grid, Scales


def solve(weights: np.ndarray, grid: Grid) -> tuple[np.ndarray, Scales]:
    """Codes int8 [rows, columns] and scales for finite float32 [rows, columns]."""
    steps, shifts = covering_scales(weights.reshape(-1, grid.group), grid.codes)
    steps, shifts = steps.reshape(len(weights), -1), shifts.reshape(len(weights), -1)
    if grid.own_steps is not None:
        steps = _neighbours(weights, grid, grid.own_steps, steps)
    scales = grid.scales(steps, shifts)
    return grid.round(weights, scales), scales


def covering_scales(grouped: np.ndarray, codes: Codes) -> tuple[np.ndarray, np.ndarray]:
    """Step and shift, float32 [groups] each, that just cover each group of float32 [groups, size]."""
    lowest, highest = grouped.min(axis=1), grouped.max(axis=1)
    with np.errstate(over="ignore"):  # a range beyond float32 becomes the largest step that can be stored
        if codes.affine:
            lowest = np.minimum(lowest, np.float32(codes.shift_limit))
            highest = np.maximum(highest, lowest)
            return (highest - lowest) / np.float32(codes.high - codes.low), lowest
        extreme = np.where(highest > -lowest, highest, lowest)
        if codes.low == -codes.high:
            extreme = -np.abs(extreme)
        return extreme / np.float32(codes.low), np.zeros_like(extreme)


def _neighbours(weights: np.ndarray, grid: Grid, own_steps: np.ndarray, steps: np.ndarray) -> np.ndarray:
    """For each covering step its neighbour of less squared error among those that can be stored; 0 for 0."""
    place = np.searchsorted(own_steps, steps, side="right").clip(1, len(own_steps) - 1)
    below, above = own_steps[place - 1], own_steps[place]
    better = _squared_error(weights, grid, above) < _squared_error(weights, grid, below)
    return np.where(steps == 0, np.float32(0), np.where(better, above, below))


def _squared_error(weights: np.ndarray, grid: Grid, steps: np.ndarray) -> np.ndarray:
    """Of each group with these steps, float64 [rows, groups of a row]; summed in the order of its weights,
    for `np.sum` may go another way for another number of rows."""
    scales = grid.scales(steps, np.zeros_like(steps))
    wished = weights.reshape(*steps.shape, grid.group)
    codes = grid.round(weights, scales).reshape(wished.shape)
    stored, total = scales.steps.astype(np.float64), np.zeros(steps.shape)
    for place in range(grid.group):
        total += (wished[..., place] - codes[..., place] * stored) ** 2
    return total
