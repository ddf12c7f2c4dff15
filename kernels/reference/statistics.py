"""Statistics of weights, plainly: the oracle of `kernels.statistics`."""

import numpy as np


def channels(weights: np.ndarray, axis: int | None) -> dict[str, np.ndarray]:
    """Of finite weights [rows, columns]: by row (axis 1), by column (axis 0) or of all (None); float64."""
    x = weights.astype(np.float64)
    low, high = x.min(axis=axis), x.max(axis=axis)
    mean = x.mean(axis=axis, keepdims=True)
    unit = max(float(np.abs(x - mean).max()), np.finfo(np.float64).tiny)  # fourth powers must not vanish
    away = (x - mean) / unit
    spread = np.square(away).mean(axis=axis)
    fourth = np.power(away, 4).mean(axis=axis)
    alike = low == high
    with np.errstate(all="ignore"):
        kurtosis = np.where(alike, 0.0, fourth / np.square(spread))
    return {
        "min": low,
        "max": high,
        "mean": np.where(alike, low, mean.reshape(low.shape)),
        "std": np.where(alike, 0.0, np.sqrt(spread) * unit),
        "absmax": np.abs(x).max(axis=axis),
        "kurtosis": kurtosis,
        "zeros": (x == 0).mean(axis=axis),
    }


def counts(weights: np.ndarray) -> np.ndarray:
    """int64 [65536]: how many finite float32 weights have each upper half, from the least value to the
    largest."""
    upper = np.ascontiguousarray(weights, np.float32).reshape(-1).view(np.uint32) >> 16
    places = np.where(upper & 0x8000, 0xFFFF - upper.astype(np.int64), 0x8000 + upper.astype(np.int64))
    return np.bincount(places, minlength=1 << 16)
