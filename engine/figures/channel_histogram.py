"""How the weights of one channel or one group are distributed: all of them are read for an exact figure."""

from collections.abc import Callable, Iterator

import numpy as np

from engine.api.errors import FigureError
from engine.api.figures import Mark
from engine.api.statistics import PERCENTS
from engine.api.views import HistogramOf
from engine.checkpoint import Checkpoint
from engine.figures.bins import Bins, drawn, percentile_marks
from engine.figures.drawn import Drawn, Wanted
from engine.figures.quantized_histogram import clip_marks, quantized_name
from engine.figures.tensors import find_tensor, runs
from engine.matrices import lines_shape, read_lines, refuse_not_finite
from engine.quantization_errors import Quantized, quantized

GROUP = 32
"""Weights of a group where no format says how many."""

GROUP_BINS = 60
"""More would hold a weight or none each."""

Place = tuple[slice, slice]
"""The rows and columns of a channel or group."""


def channel_histogram(checkpoint: Checkpoint, view: HistogramOf, wanted: Wanted) -> Iterator[Drawn]:
    """First the original alone. Raises `FigureError`, and what reading and encoding weights raise."""
    tensor = find_tensor(checkpoint, view.tensor)
    rows, columns = lines_shape(checkpoint, tensor)
    made = quantized(checkpoint, view.recipe, tensor.name) if view.recipe else None
    place, name = _place(view, rows, columns, made)
    title = f"{view.tensor} · {name}" + (f" · {made.format}" if made else "")
    weights = _read(lambda start, stop: read_lines(checkpoint, tensor, start, stop), place, columns, wanted)
    if weights is None:
        return
    refuse_not_finite(checkpoint, tensor, weights)
    group = view.scope == "group"
    bins = Bins.of(weights, min(view.bins, GROUP_BINS) if group else view.bins, few=group)
    marks = percentile_marks(np.percentile(weights.astype(np.float64), PERCENTS))
    original = bins.series("weights" if made is None else "original", bins.counted(weights))
    yield drawn(title, [original], marks, 1, 1 if made is None else 2, last=made is None)
    if made is None:
        return
    values = _read(made.values, place, columns, wanted)
    if values is None:
        return
    wide = bins.beyond()
    series = [original, wide.series(quantized_name(made), wide.counted(values))]
    yield drawn(title, series, [*marks, *_levels(view, made, place)], 2, 2, last=True)


def _place(view: HistogramOf, rows: int, columns: int, made: Quantized | None) -> tuple[Place, str]:
    """Where the channel or group is, and what to call it. Raises `FigureError` where there is none."""
    size = made.group if made else min(GROUP, columns)
    groups = rows * (columns // size)
    count = {"output": rows, "input": columns, "group": groups}[view.scope]
    if view.index >= count:
        what = "groups" if view.scope == "group" else f"{view.scope} channels"
        raise FigureError(f"{view.tensor} has {count:,} {what}, the last one is {count - 1}.")
    everything = slice(0, rows), slice(0, columns)
    one = slice(view.index, view.index + 1)
    if view.scope == "output":
        return (one, everything[1]), f"output channel {view.index:,}"
    if view.scope == "input":
        return (everything[0], one), f"input channel {view.index:,}"
    row, number = divmod(view.index, columns // size)
    first, last = number * size, (number + 1) * size - 1
    held = f"column {first}" if first == last else f"columns {first} to {last}"
    return (slice(row, row + 1), slice(first, last + 1)), f"group {view.index:,} (row {row}, {held})"


def _read(
    read: Callable[[int, int], np.ndarray], place: Place, columns: int, wanted: Wanted
) -> np.ndarray | None:
    """The weights there, float32 [n]; None when they are not wanted any more."""
    rows, across = place
    parts = []
    for start, stop in runs(rows.start, rows.stop, columns):
        if not wanted():
            return None
        parts.append(read(start, stop)[:, across].reshape(-1))
    return np.concatenate(parts)


def _levels(view: HistogramOf, made: Quantized, place: Place) -> list[Mark]:
    """The grid of one group: all values that its weights can have."""
    if view.scope != "group" or not made.levels:
        return []
    values = made.values_at(place[0].start, place[1].start).tolist()
    levels = [Mark(kind="level", name=f"level {number}", x=value) for number, value in enumerate(values)]
    return [*clip_marks([(values[0], values[-1])]), *levels]
