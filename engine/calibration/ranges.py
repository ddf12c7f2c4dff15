"""Which range activations are clipped to when they are quantized: estimators, as the literature names them.

- min-max: all that was seen.
- moving average: of each batch's least and largest value, as training with quantization tracks them
  (Jacob et al. 2018, "Quantization and Training of Neural Networks").
- percentile: what a share of the values lies within.
- mean-squared-error: the clip whose grid of n bits is wrong by least (Banner et al. 2019, "Post training
  4-bit quantization"), found by looking at ranges that shrink evenly.
- entropy: the clip whose grid loses least information, as TensorRT calibrates (Migacz 2017, "8-bit Inference
  with TensorRT"): of a histogram of magnitudes, the first bins, with all that lies beyond in the last of
  them, against the same merged into the levels of the grid.

A range is (low, high). Symmetric grids have low = -high. Functions are of a `Distribution`, or of the ranges
of batches; they know nothing of models.
"""

from collections.abc import Callable

import numpy as np

from engine.activations import LayerActivations
from engine.api.statistics import Estimator
from kernels.statistics import Distribution

MOMENTUM = 0.1
"""What a new batch counts for in a moving average."""

PERCENT = 99.99
"""Of the values that lie within a percentile's range."""

SHRINKS = 100
"""Ranges that are tried for the least error, each by as much smaller than the one before."""

MAGNITUDES = 2048
"""Bins of magnitude for the entropy, as TensorRT has them."""

Range = tuple[float, float]


def estimate(
    layer: LayerActivations, estimator: Estimator, bits: int = 8, *, symmetric: bool = False
) -> Range:
    """The range that `estimator` gives for a layer, to be quantized to `bits`."""
    seen = layer.distribution
    found: dict[Estimator, Callable[[], Range]] = {
        "min-max": lambda: min_max(seen),
        "moving-average": lambda: moving_average(layer.batches),
        "percentile": lambda: percentile(seen),
        "mse": lambda: least_squared_error(seen, bits, symmetric=symmetric),
        "entropy": lambda: least_divergence(seen, bits),
    }
    low, high = found[estimator]()
    return (-max(-low, high), max(-low, high)) if symmetric else (low, high)


def min_max(seen: Distribution) -> Range:
    return seen.low, seen.high


def moving_average(batches: np.ndarray, momentum: float = MOMENTUM) -> Range:
    """Of float64 [batches, 2], in their order; the first one counts whole."""
    average = batches[0].copy()
    for batch in batches[1:]:
        average += momentum * (batch - average)
    return float(average[0]), float(average[1])


def percentile(seen: Distribution, percent: float = PERCENT) -> Range:
    """The shortest tails on both sides that hold what is not `percent` of the values, half of it each."""
    low, high = seen.percentiles(((100 - percent) / 2, (100 + percent) / 2))
    return float(low), float(high)


def least_squared_error(seen: Distribution, bits: int, *, symmetric: bool = False) -> Range:
    """The part of the whole range, both ends shrunk alike, with the least squared error of 2^bits levels."""
    values, counts = _centers(seen)
    low, high = (-seen_most(seen), seen_most(seen)) if symmetric else (min(seen.low, 0), max(seen.high, 0))
    shares = np.arange(SHRINKS, 0, -1) / SHRINKS
    errors = [squared_error(values, counts, share * low, share * high, bits) for share in shares]
    best = shares[int(np.argmin(errors))]
    return float(best * low), float(best * high)


def squared_error(values: np.ndarray, counts: np.ndarray, low: float, high: float, bits: int) -> float:
    """The sum of squared errors of `counts` values each, rounded to 2^bits even levels from `low` to `high`.

    Zero is one of the levels where it lies between, as runtimes want it.
    """
    step = (high - low) / (2**bits - 1)
    if step <= 0:
        return float(counts @ (values - low) ** 2)
    zero = round(-low / step)
    codes = np.clip(np.rint(values / step) + zero, 0, 2**bits - 1)
    return float(counts @ ((codes - zero) * step - values) ** 2)


def least_divergence(seen: Distribution, bits: int) -> Range:
    """The symmetric clip with the least KL divergence; no wider than what was seen on either side."""
    most = seen_most(seen)
    if most == 0:
        return seen.low, seen.high
    edges = np.linspace(0, most, MAGNITUDES + 1)
    inside = [seen.up_to(edge) - seen.up_to(float(np.nextafter(-edge, -np.inf))) for edge in edges]
    counts = np.diff(np.maximum.accumulate(inside))
    counts[0] = 0  # zeros are exact in any grid, and would hide all else
    levels = 2 ** (bits - 1)
    first = int(np.flatnonzero(counts)[0]) if counts.any() else 0  # a clip below all values loses nothing
    stops = range(min(first + levels, MAGNITUDES), MAGNITUDES + 1)
    lost = [divergence(counts, stop, levels) for stop in stops]
    clip = float(edges[stops[int(np.argmin(lost))]])
    return max(seen.low, -clip), min(seen.high, clip)


def divergence(counts: np.ndarray, stop: int, levels: int) -> float:
    """KL divergence in nats of the first `stop` bins, all beyond in the last, from those on `levels` levels.

    A level spreads what it holds evenly over those of its bins that hold something. Infinity where that puts
    nothing in a bin that holds something.
    """
    kept = counts[:stop]
    wanted = kept.copy()
    wanted[-1] += counts[stop:].sum()
    places = np.arange(stop) * levels // stop
    filled = np.bincount(places, weights=kept > 0, minlength=levels)
    held = np.bincount(places, weights=kept, minlength=levels)
    share = np.divide(held, filled, out=np.zeros(levels), where=filled > 0)
    given = np.where(kept > 0, share[places], 0.0)
    there = wanted > 0
    if not there.any() or (given[there] == 0).any():
        return np.inf
    p, q = wanted[there] / wanted.sum(), given[there] / given.sum()
    return float((p * np.log(p / q)).sum())


def seen_most(seen: Distribution) -> float:
    """The largest magnitude."""
    return max(-seen.low, seen.high)


def _centers(seen: Distribution) -> tuple[np.ndarray, np.ndarray]:
    """Values in the middle of the bins that hold something, and how many each holds: float64 [n]."""
    bins = np.flatnonzero(seen.counts)
    middle = (np.maximum(seen.edges[bins], seen.low) + np.minimum(seen.edges[bins + 1], seen.high)) / 2
    return middle, seen.counts[bins].astype(np.float64)
