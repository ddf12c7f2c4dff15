"""What is not gathered of every tensor: percentiles of single channels, and statistics of groups.

Read when asked for, in pieces: beside the answer at most `SORTED` weights are held. Columns are sorted in
blocks, each of which takes a reading of the whole tensor.
"""

from collections.abc import Callable, Iterator, Sequence

import numpy as np

from engine.api.errors import CheckpointError
from engine.api.statistics import LARGE, PERCENTS
from engine.api.views import Scope
from engine.checkpoint import Checkpoint, Tensor
from engine.matrices import lines_shape, read_lines, refuse_not_finite
from engine.weight_statistics import source_name, without_statistics
from kernels.statistics import Channels

SORTED = 1 << 25
"""Weights that are sorted at a time: 128 MiB."""

_GROUPED = 1 << 18
"""Weights whose groups are measured at a time: they and their powers stay in the cache."""

Wanted = Callable[[], bool]


def channel_percentiles(
    checkpoint: Checkpoint,
    name: str,
    scope: Scope,
    *,
    group: int = 0,
    percents: Sequence[float] = PERCENTS,
    wanted: Wanted = lambda: True,
) -> np.ndarray | None:
    """float32 [percents, channels]: percentiles of each output channel, input channel, or group of `group`
    weights within a row (the last of a row may be shorter), as `numpy.percentile` has them.

    None when no longer `wanted`. Raises what `gather` raises.
    """
    tensor = _checked(checkpoint, name)
    if scope == "input":
        return _column_percentiles(checkpoint, tensor, percents, wanted)
    rows, columns = lines_shape(checkpoint, tensor)
    width = group if scope == "group" else columns
    found = np.empty((len(percents), rows, -(-columns // width)), np.float32)
    for start, weights in _read(checkpoint, tensor):
        for first, part in _groups(weights, width):
            height, groups, _ = part.shape
            found[:, start : start + height, first : first + groups] = _percentiles(part.copy(), percents)
        if not wanted():
            return None
    return found.reshape(len(percents), -1)


def group_channels(
    checkpoint: Checkpoint, name: str, group: int, *, wanted: Wanted = lambda: True
) -> Channels | None:
    """Statistics of each `group` weights within a row (the last of a row may be shorter), row by row: float32
    [rows * groups]. None when no longer `wanted`. Raises what `gather` raises.
    """
    tensor = _checked(checkpoint, name)
    rows, columns = lines_shape(checkpoint, tensor)
    figures = np.empty((7, rows, -(-columns // group)), np.float32)
    for start, weights in _read(checkpoint, tensor, _GROUPED):
        for first, part in _groups(weights, group):
            height, groups, _ = part.shape
            figures[:, start : start + height, first : first + groups] = _measured(part)
        if not wanted():
            return None
    return Channels(*figures.reshape(7, -1))


def channel_counts(
    checkpoint: Checkpoint, name: str, scope: Scope, group: int, ends: tuple[float, float]
) -> tuple[np.ndarray, np.ndarray]:
    """int64 [channels] twice: weights outside of `ends`, and those of magnitude `LARGE` and more.

    Channels are counted as in `channel_percentiles`. Raises what `gather` raises.
    """
    tensor = _checked(checkpoint, name)
    rows, columns = lines_shape(checkpoint, tensor)
    width = {"group": group}.get(scope, columns)
    by_column = np.zeros((2, columns), np.int64)
    by_group = np.zeros((2, rows, -(-columns // width)), np.int64)
    for start, weights in _read(checkpoint, tensor):
        far = np.stack([(weights < ends[0]) | (weights > ends[1]), np.abs(weights) >= LARGE])
        if scope == "input":
            by_column += far.sum(axis=1)
        else:
            sums = np.add.reduceat(far, range(0, columns, width), axis=2, dtype=np.int64)
            by_group[:, start : start + len(weights)] = sums
    beyond, large = by_column if scope == "input" else by_group.reshape(2, -1)
    return beyond, large


def _checked(checkpoint: Checkpoint, name: str) -> Tensor:
    name = source_name(checkpoint, name)
    reason = without_statistics(checkpoint, name)
    if reason is not None:
        raise CheckpointError(reason)
    return checkpoint.tensors[name]


def _read(checkpoint: Checkpoint, tensor: Tensor, most: int = 1 << 20) -> Iterator[tuple[int, np.ndarray]]:
    """Pieces of output channels, float32, each with its first one. Raises `NonFiniteError`."""
    lines, width = lines_shape(checkpoint, tensor)
    step = max(1, most // width)
    for start in range(0, lines, step):
        weights = read_lines(checkpoint, tensor, start, min(start + step, lines))
        refuse_not_finite(checkpoint, tensor, weights)
        yield start, weights


def _groups(weights: np.ndarray, width: int) -> Iterator[tuple[int, np.ndarray]]:
    """[rows, groups, width] of whole groups, and of what is left of each row; each with its first group."""
    rows, columns = weights.shape
    whole = columns // width
    if whole:
        yield 0, weights[:, : whole * width].reshape(rows, whole, width)
    if columns % width:
        yield whole, weights[:, whole * width :].reshape(rows, 1, -1)


def _measured(weights: np.ndarray) -> np.ndarray:
    """float64 [7, rows, groups] of float32 [rows, groups, width], in the order of `Channels`."""
    x = weights.astype(float)
    low, high, mean = x.min(axis=2), x.max(axis=2), x.mean(axis=2)
    absmax = np.maximum(-low, high)
    unit = np.where(absmax > 0, absmax, 1.0)[..., None]  # fourth powers must not vanish
    squares = np.square((x - mean[..., None]) / unit)
    spread, fourth = squares.mean(axis=2), np.square(squares).mean(axis=2)
    apart = (low < high) & (spread > 0)
    kurtosis = np.divide(fourth, np.square(spread), out=np.zeros_like(spread), where=apart)
    std = np.where(apart, np.sqrt(spread) * unit[..., 0], 0.0)
    return np.stack([low, high, mean, std, absmax, kurtosis, (x == 0).mean(axis=2)])


def _column_percentiles(
    checkpoint: Checkpoint, tensor: Tensor, percents: Sequence[float], wanted: Wanted
) -> np.ndarray | None:
    rows, columns = lines_shape(checkpoint, tensor)
    step = max(1, min(columns, SORTED // rows))
    found = np.empty((len(percents), columns), np.float32)
    block = np.empty((step, rows), np.float32)
    for first in range(0, columns, step):
        stop = min(first + step, columns)
        for start, weights in _read(checkpoint, tensor):
            block[: stop - first, start : start + len(weights)] = weights[:, first:stop].T
            if not wanted():
                return None
        found[:, first:stop] = _percentiles(block[: stop - first], percents)
    return found


def _percentiles(values: np.ndarray, percents: Sequence[float]) -> np.ndarray:
    """float64 [percents, ...] over the last axis of `values`, which is sorted in place."""
    values.sort(axis=-1)
    ranks = np.asarray(percents) / 100 * (values.shape[-1] - 1)
    below, above = np.floor(ranks).astype(int), np.ceil(ranks).astype(int)
    first, second = (np.moveaxis(values[..., i], -1, 0).astype(float) for i in (below, above))
    parts = (ranks - below).reshape(-1, *[1] * (values.ndim - 1))
    return first + (second - first) * parts
