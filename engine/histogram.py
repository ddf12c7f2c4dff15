"""The distribution of one stored tensor's weights, read twice in pieces: memory does not grow with it."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from math import prod, sqrt

import numpy as np

from engine.api.errors import CheckpointError
from engine.checkpoint import Checkpoint
from engine.checkpoint.errors import NonFiniteError

PIECE = 1 << 20
"""Weights that are read and counted at a time."""

FEWEST_BINS, MOST_BINS = 200, 1000
BINS_IN_DEVIATION = 8
"""So many bins to a standard deviation are wished for: a few outliers must not leave the rest in one bin."""


@dataclass(frozen=True)
class Histogram:
    """`counts` (float64 [bins]) of the weights from each of the lower `edges` (float64 [bins]) on.

    The last bin holds the maximum too. The figures are exact, over all `count` weights.
    """

    edges: np.ndarray
    counts: np.ndarray
    width: float
    count: int
    minimum: float
    maximum: float
    mean: float
    deviation: float


@dataclass
class _Moments:
    """Count, range, mean and sum of squared distances from it; joined piece by piece (Chan), in float64."""

    count: int = 0
    minimum: float = np.inf
    maximum: float = -np.inf
    mean: float = 0.0
    squares: float = 0.0

    def add(self, values: np.ndarray) -> None:
        """`values`: float64, at least one."""
        count, mean = self.count + values.size, float(values.mean())
        away = mean - self.mean
        self.squares += float(np.square(values - mean).sum())
        self.squares += away * away * self.count * values.size / count
        self.mean += away * values.size / count
        self.count = count
        self.minimum = min(self.minimum, float(values.min()))
        self.maximum = max(self.maximum, float(values.max()))


def read_histogram(
    checkpoint: Checkpoint, name: str, wanted: Callable[[], bool] = lambda: True
) -> Histogram | None:
    """The histogram of the tensor `name`; None when it is no longer `wanted`, asked between pieces.

    Raises `CheckpointError` where there is no such tensor, or its weights cannot be read or are not finite.
    """
    if name not in checkpoint.tensors:
        raise CheckpointError(f"{checkpoint.path} has no tensor {name}; open the model again.")
    moments = _Moments()
    for values in _pieces(checkpoint, name):
        if not wanted():
            return None
        if not np.isfinite(values).all():
            raise NonFiniteError(
                f"{name} of {checkpoint.path} holds NaN or infinity: the model is damaged; download it again."
            )
        moments.add(values)
    if not moments.count:
        raise CheckpointError(f"{name} of {checkpoint.path} holds no weights.")
    edges, width = _bins(moments)
    counts = np.zeros(len(edges))
    for values in _pieces(checkpoint, name):
        if not wanted():
            return None
        places = ((values - edges[0]) / width).astype(np.int64).clip(0, len(edges) - 1)
        counts += np.bincount(places, minlength=len(edges))
    return Histogram(
        edges=edges,
        counts=counts,
        width=width,
        count=moments.count,
        minimum=moments.minimum,
        maximum=moments.maximum,
        mean=moments.mean,
        deviation=sqrt(moments.squares / moments.count),
    )


def _bins(moments: _Moments) -> tuple[np.ndarray, float]:
    """The lower edges of all bins, and their width. Equal weights stand in the middle of a bin."""
    spread = moments.maximum - moments.minimum
    if spread == 0:
        width = max(abs(moments.minimum), 1.0) / FEWEST_BINS
        return moments.minimum + width * (np.arange(FEWEST_BINS) - FEWEST_BINS / 2 - 0.5), width
    deviation = sqrt(moments.squares / moments.count)
    count = int(np.clip(BINS_IN_DEVIATION * spread / deviation, FEWEST_BINS, MOST_BINS))
    return moments.minimum + spread / count * np.arange(count), spread / count


def _pieces(checkpoint: Checkpoint, name: str) -> Iterator[np.ndarray]:
    """All weights, float64, flat, at most `PIECE` at a time; whole rows are read."""
    shape = checkpoint.tensors[name].shape
    step = max(1, PIECE // max(1, prod(shape[1:])))
    for first in range(0, shape[0] if shape else 1, step):
        values = checkpoint.read(name, slice(first, first + step) if shape else None).reshape(-1)
        for start in range(0, values.size, PIECE):
            yield values[start : start + PIECE].astype(np.float64)
