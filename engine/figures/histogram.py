"""How the weights of a tensor are distributed: at once from statistics or a sample, then exactly."""

from collections.abc import Iterator

import numpy as np

from engine.api.figures import Series
from engine.api.statistics import PERCENTS
from engine.api.views import HistogramOf
from engine.checkpoint import Checkpoint, Tensor
from engine.figures.activation_histogram import activation_histogram
from engine.figures.bins import Bins, drawn, percentile_marks
from engine.figures.channel_histogram import channel_histogram
from engine.figures.drawn import Drawn, Wanted
from engine.figures.quantized_histogram import quantized_series
from engine.figures.tensors import find_tensor, runs
from engine.matrices import matrix_shape, read_rows, refuse_not_finite
from engine.quantization_errors import quantized
from engine.weight_statistics import cached, gather

SAMPLED = 16
"""The first picture of a large tensor that nothing is known of shows 1 row in so many."""

SMALL = 1 << 23
"""Weights that are read before one wonders."""

RUN = 1 << 16
"""Weights of a sample that lie together, at least: many single rows take long to read."""


def histogram_of(checkpoint: Checkpoint, view: HistogramOf, wanted: Wanted) -> Iterator[Drawn]:
    """What `view` asks for. Raises `FigureError`, and what reading and encoding weights raise."""
    if view.source == "activations":
        return activation_histogram(checkpoint, view)
    if view.scope != "tensor":
        return channel_histogram(checkpoint, view, wanted)
    return _histogram(checkpoint, view, find_tensor(checkpoint, view.tensor), wanted)


def _histogram(checkpoint: Checkpoint, view: HistogramOf, tensor: Tensor, wanted: Wanted) -> Iterator[Drawn]:
    """Parts of it are rows read, and rows encoded where there is a recipe."""
    made = quantized(checkpoint, view.recipe, tensor.name) if view.recipe else None
    title = f"{view.tensor} · weights" + (f" · {made.format}" if made else "")
    name = "original" if made else "weights"
    rows, columns = matrix_shape(tensor)
    total = rows if view.recipe is None else 2 * rows
    found = cached(checkpoint, tensor.name)
    if found is None:
        if rows * columns > SMALL:
            yield drawn(title, [_sample(checkpoint, tensor, view.bins, name)], [], rows // SAMPLED, total)
        found = gather(checkpoint, tensor.name, wanted=wanted)
        if found is None:
            return
    whole = found.whole
    bins = Bins.over(float(whole.min), float(whole.max), view.bins, float(whole.std))
    marks = percentile_marks(found.distribution.percentiles(PERCENTS))
    if found.distribution.exact:
        counts = bins.spread(found.distribution)
    else:
        near = bins.series(name, bins.spread(found.distribution))
        yield drawn(title, [near], marks, rows // SAMPLED, total)
        exact = _counted(checkpoint, tensor, bins, wanted)
        if exact is None:
            return
        counts = exact
    original = bins.series(name, counts)
    if made is None:
        yield drawn(title, [original], marks, rows, total, last=True)
        return
    yield drawn(title, [original], marks, rows, total)
    for other, clip, lines in quantized_series(made, bins.beyond(), wanted):
        done = rows + rows * lines // made.lines
        yield drawn(title, [original, other], [*marks, *clip], done, total, last=lines == made.lines)


def _sample(checkpoint: Checkpoint, tensor: Tensor, bins: int, name: str) -> Series:
    """The distribution of some rows, in counts of all of them."""
    rows, columns = matrix_shape(tensor)
    run = -(-RUN // columns)
    parts = [
        read_rows(checkpoint, tensor, start, min(start + run, rows)).reshape(-1)
        for start in range(0, rows, SAMPLED * run)
    ]
    values = np.concatenate(parts)
    refuse_not_finite(checkpoint, tensor, values)
    over = Bins.of(values, bins)
    counts = over.counted(values) * (rows * columns / values.size)
    return over.series(f"{name}, estimated from 1 row in {SAMPLED}", counts)


def _counted(checkpoint: Checkpoint, tensor: Tensor, bins: Bins, wanted: Wanted) -> np.ndarray | None:
    """All weights counted; None when they are not wanted any more."""
    rows, columns = matrix_shape(tensor)
    counts = np.zeros(bins.count)
    for start, stop in runs(0, rows, columns):
        if not wanted():
            return None
        counts += bins.counted(read_rows(checkpoint, tensor, start, stop))
    return counts
