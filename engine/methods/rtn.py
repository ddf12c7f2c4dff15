"""Round to nearest: the scales of each group just cover its range.

A symmetric grid with one code more below zero than above (-8 .. 7) puts its lowest code on the weight of
largest size, whatever that one's sign: the step may be negative. An affine grid spans least to greatest.
"""

import numpy as np

from engine.formats.grid import Grid, Scales
from kernels import groups
from kernels.groups import Codes


def solve(weights: np.ndarray, grid: Grid, importance: np.ndarray | None) -> tuple[np.ndarray, Scales]:
    """Codes int8 [rows, columns] and scales for finite float32 [rows, columns]; importance plays no part."""
    steps, shifts = covering_scales(weights.reshape(-1, grid.group), grid.codes)
    scales = grid.scales(steps.reshape(len(weights), -1), shifts.reshape(len(weights), -1))
    return grid.round(weights, scales), scales


def covering_scales(grouped: np.ndarray, codes: Codes) -> tuple[np.ndarray, np.ndarray]:
    """Step and shift, float32 [groups] each, that just cover each group of float32 [groups, size]."""
    lowest, highest = groups.ranges(grouped)
    with np.errstate(over="ignore"):  # a range beyond float32 becomes the largest step that can be stored
        if codes.affine:
            lowest = np.minimum(lowest, np.float32(codes.shift_limit))
            highest = np.maximum(highest, lowest)
            return (highest - lowest) / np.float32(codes.high - codes.low), lowest
        extreme = np.where(highest > -lowest, highest, lowest)
        if codes.low == -codes.high:
            extreme = -np.abs(extreme)
        return extreme / np.float32(codes.low), np.zeros_like(extreme)
