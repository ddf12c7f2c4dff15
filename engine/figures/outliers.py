"""Input channels by layer: which of them stand out, and in how many blocks."""

from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np

from engine.activations import read_activations
from engine.api.errors import FigureError
from engine.api.figures import Axis, HeatMap
from engine.api.model import Role
from engine.api.views import Metric, OutliersOf
from engine.checkpoint import Checkpoint, Tensor
from engine.figures.drawn import Drawn, Refresh, Wanted
from engine.figures.tensors import roles_of
from engine.matrices import lines_shape
from engine.weight_statistics import gather, outlier_channels, without_statistics
from kernels.statistics import Channels

METRICS: Mapping[Metric, str] = {
    "absmax": "abs-max",
    "kurtosis": "kurtosis",
    "ratio": "abs-max over the median channel's",
}


def outliers_of(checkpoint: Checkpoint, view: OutliersOf, wanted: Wanted) -> Iterator[Drawn]:
    """What `view` asks for, tensor by tensor. Raises `FigureError`, and what reading weights raises."""
    if view.source == "activations":
        return _of_activations(checkpoint, view)
    return _of_weights(checkpoint, view, wanted)


def metric_of(metric: Metric, channels: Channels) -> np.ndarray:
    """float32 [channels]"""
    if metric == "kurtosis":
        return channels.kurtosis.astype(np.float32)
    return (outlier_channels(channels.absmax)[1] if metric == "ratio" else channels.absmax).astype(np.float32)


def _by_role(checkpoint: Checkpoint) -> dict[str, list[Tensor]]:
    """The matrices of the model; a stack of experts may be one of them or as many as it has experts."""
    found: dict[str, list[Tensor]] = {}
    for tensor in checkpoint.tensors.values():
        vectors = len(tensor.shape) < 2 or tensor.role is Role.BIAS
        if not vectors and without_statistics(checkpoint, tensor.name) is None:
            for role in roles_of(checkpoint, tensor):
                found.setdefault(role, []).append(tensor)
    return found


def _of_weights(checkpoint: Checkpoint, view: OutliersOf, wanted: Wanted) -> Iterator[Drawn]:
    by_role = _by_role(checkpoint)
    if view.role not in by_role:
        raise FigureError(f"{checkpoint.path} has no matrices {view.role}; it has {', '.join(by_role)}.")
    tensors = by_role[view.role]
    blocks = 1 if tensors[0].block is None else checkpoint.blocks
    widths = [lines_shape(checkpoint, tensor)[1] for tensor in tensors]
    figure = _figure(view, "weights", blocks, max(widths))
    if tensors[0].block is None:
        figure.rows = [view.role]
    values = np.full((blocks, figure.width), np.nan, np.float32)
    refresh = Refresh()
    for done, tensor in enumerate(tensors, 1):
        found = gather(checkpoint, tensor.name, wanted=wanted)
        if found is None or not wanted():
            return
        row = values[tensor.block or 0, : widths[done - 1]]
        np.fmax(row, metric_of(view.metric, found.inputs), out=row)  # of experts the largest
        last = done == len(tensors)
        if last or refresh.due():
            yield Drawn(figure, values.copy(), done, len(tensors), last)


def _of_activations(checkpoint: Checkpoint, view: OutliersOf) -> Iterator[Drawn]:
    if view.activations is None:
        raise FigureError("Name the file with the statistics of activations.")
    with read_activations(Path(view.activations)) as activations:
        if view.role not in activations.roles:
            there = ", ".join(activations.roles)
            raise FigureError(f"{view.activations} says nothing of {view.role}; it does of {there}.")
        of_blocks = activations.roles[view.role]
        rows = {
            block: metric_of(view.metric, activations.layers[name].channels)
            for block, name in of_blocks.items()
        }
    blocks = max(checkpoint.blocks, 1 + max(rows))
    figure = _figure(view, "activations", blocks, max(len(row) for row in rows.values()))
    values = np.full((blocks, figure.width), np.nan, np.float32)
    for block, row in rows.items():
        values[block, : len(row)] = row
    yield Drawn(figure, values, 1, 1, last=True)


def _figure(view: OutliersOf, what: str, blocks: int, width: int) -> HeatMap:
    return HeatMap(
        title=f"{view.role}: {what} by input channel",
        x=Axis(name="input channel", counts=True),
        y=Axis(name="block", counts=True),
        z=Axis(name=METRICS[view.metric]),
        height=blocks,
        width=width,
    )
