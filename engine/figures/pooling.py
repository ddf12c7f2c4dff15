"""Cells made of many: the value farthest from zero stands for them, so that one spike is seen at any size."""

import numpy as np


def pooled(values: np.ndarray, row_starts: np.ndarray, column_starts: np.ndarray) -> np.ndarray:
    """`values` float32 [rows, columns] in cells that begin at these rows and columns, ascending from 0 on.

    The answer is float32 [cells, cells]. NaN is left out, and stays where there is nothing else.
    """
    high = low = values
    if len(row_starts) < len(values):
        high = np.fmax.reduceat(high, row_starts, axis=0)
        low = np.fmin.reduceat(low, row_starts, axis=0)
    if len(column_starts) < values.shape[1]:
        high = np.fmax.reduceat(high, column_starts, axis=1)
        low = np.fmin.reduceat(low, column_starts, axis=1)
    return np.where(high >= -low, high, low)


def starts(count: int, cells: int) -> np.ndarray:
    """Where each of at most `cells` cells begins that `count` rows or columns are divided among, evenly."""
    cells = min(count, cells)
    return np.arange(cells) * count // cells
