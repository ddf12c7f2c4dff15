"""What encoders lose of weights, in the terms of their search: see `kernels.encoders`.

values and weights: [rows, columns]; results float64 [blocks, ...], blocks of `size` weights.
"""

import numpy as np


def counts(weights: np.ndarray, importance: np.ndarray | None, size: int) -> np.ndarray:
    """[blocks, size] of what each weight's squared error counts: 1, or importance * sqrt(2 mean + xx)."""
    x = weights.astype(np.float64).reshape(-1, size)
    if importance is None:
        return np.ones_like(x)
    largest = np.abs(x).max(axis=1, keepdims=True)
    part = x / np.where(largest == 0, 1, largest)
    factor = np.sqrt(2 * (part**2).mean(axis=1, keepdims=True) + part**2)
    return np.resize(importance, weights.shape).reshape(-1, size) * np.where(largest == 0, 1, factor)


def squared_error(
    values: np.ndarray, weights: np.ndarray, importance: np.ndarray | None, size: int
) -> np.ndarray:
    """[blocks], weighted by `counts`."""
    off = (values.astype(np.float64) - weights).reshape(-1, size)
    return (off**2 * counts(weights, importance, size)).sum(axis=1)


def lost_at_any_scale(
    values: np.ndarray, weights: np.ndarray, importance: np.ndarray | None, size: int
) -> np.ndarray:
    """[blocks]: the squared error that would be left if each block's values were scaled for the least of it.

    So a block that is stored larger for its own sake (step 5) is judged by its codes and levels.
    """
    matters = counts(weights, importance, size)
    x, v = (array.astype(np.float64).reshape(-1, size) for array in (weights, values))
    vv = (matters * v * v).sum(axis=1)
    explained = (matters * x * v).sum(axis=1) ** 2 / np.where(vv == 0, 1, vv)
    xx = (matters * x * x).sum(axis=1)
    return np.where(xx - explained < 1e-12 * xx, 0, xx - explained)  # the end of float64


def given_back(values: np.ndarray, weights: np.ndarray, importance: np.ndarray | None, size: int) -> float:
    """The share, over all blocks, of what the least squared error loses along a block that is stored again.

    0: blocks are as short as that makes them; 1: as long as they were.
    """
    matters = counts(weights, importance, size)
    x, v = (array.astype(np.float64).reshape(-1, size) for array in (weights, values))
    xx, xv, vv = ((matters * product).sum(axis=1) for product in (x * x, x * v, v * v))
    kept = xv**2 / vv / xx
    return float((xv / xx - kept).sum() / (1 - kept).sum())
