"""Input channels by layer: which of them stand out, and in how many blocks."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path

import numpy as np

from engine.activations import activations_of
from engine.api.errors import FigureError
from engine.api.figures import Axis, HeatMap
from engine.api.model import Role
from engine.api.views import Metric, OutliersOf
from engine.checkpoint import Checkpoint, Tensor
from engine.figures.drawn import Drawn, Refresh, Wanted
from engine.figures.error import LOST
from engine.figures.tensors import roles_of
from engine.matrices import lines_shape
from engine.quantization_errors import NotInOutputError, Quantized, applied, errors_of
from engine.weight_statistics import gather, outlier_channels, without_statistics
from kernels.statistics import Channels

METRICS: Mapping[Metric, str] = {
    "absmax": "abs-max",
    "kurtosis": "kurtosis",
    "ratio": "abs-max over the median channel's",
    "error": LOST,
}


def outliers_of(checkpoint: Checkpoint, view: OutliersOf, wanted: Wanted) -> Iterator[Drawn]:
    """What `view` asks for, tensor by tensor. Raises `FigureError`, and what reading weights raises."""
    if view.source == "activations":
        return _of_activations(checkpoint, view)
    if view.metric == "error":
        return _of_errors(checkpoint, view, wanted)
    return _of_weights(checkpoint, view, wanted)


def metric_of(metric: Metric, channels: Channels) -> np.ndarray:
    """float32 [channels]; of all metrics but errors."""
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
    tensors = _asked(checkpoint, view.role)

    def read(tensor: Tensor) -> np.ndarray | None:
        found = gather(checkpoint, tensor.name, wanted=wanted)
        return None if found is None else metric_of(view.metric, found.inputs)

    width = max(lines_shape(checkpoint, tensor)[1] for tensor in tensors)
    figure = _figure(view, "weights", _blocks(checkpoint, tensors), width)
    return _filled(view.role, figure, tensors, read, wanted)


def _of_errors(checkpoint: Checkpoint, view: OutliersOf, wanted: Wanted) -> Iterator[Drawn]:
    if view.recipe is None:
        raise FigureError(f"The errors of {view.role} depend on a format: choose a recipe.")
    plan = applied(checkpoint, view.recipe)
    tensors, made = _asked(checkpoint, view.role), dict[str, Quantized]()
    for tensor in tensors:
        with suppress(NotInOutputError):
            made[tensor.name] = plan.quantized(tensor.name)
    if not made:
        raise FigureError(f"No matrix {view.role} of {checkpoint.path} is in the output: nothing is lost.")

    def read(tensor: Tensor) -> np.ndarray | None:
        errors = errors_of(made[tensor.name], wanted)
        return None if errors is None else errors.by_input

    formats = ", ".join(dict.fromkeys(one.format for one in made.values()))
    width = max(one.width for one in made.values())
    figure = _figure(view, formats, _blocks(checkpoint, tensors), width)
    return _filled(view.role, figure, [one for one in tensors if one.name in made], read, wanted)


def _asked(checkpoint: Checkpoint, role: str) -> list[Tensor]:
    by_role = _by_role(checkpoint)
    if role not in by_role:
        raise FigureError(f"{checkpoint.path} has no matrices {role}; it has {', '.join(by_role)}.")
    return by_role[role]


def _blocks(checkpoint: Checkpoint, tensors: list[Tensor]) -> int:
    return 1 if tensors[0].block is None else checkpoint.blocks


def _filled(
    role: str,
    figure: HeatMap,
    tensors: list[Tensor],
    read: Callable[[Tensor], np.ndarray | None],
    wanted: Wanted,
) -> Iterator[Drawn]:
    """Row by row; `read` gives the channels of a tensor [channels], None when it is not wanted any more."""
    if tensors[0].block is None:
        figure.rows = [role]
    values = np.full((figure.height, figure.width), np.nan, np.float32)
    refresh = Refresh()
    for done, tensor in enumerate(tensors, 1):
        channels = read(tensor)
        if channels is None or not wanted():
            return
        row = values[tensor.block or 0, : len(channels)]
        np.fmax(row, channels.astype(np.float32), out=row)  # of experts the largest
        last = done == len(tensors)
        if last or refresh.due():
            yield Drawn(figure, values.copy(), done, len(tensors), last)


def _of_activations(checkpoint: Checkpoint, view: OutliersOf) -> Iterator[Drawn]:
    if view.metric == "error":
        raise FigureError("Errors are those of weights: activations are not quantized.")
    if view.activations is None:
        raise FigureError("Name the file with the statistics of activations.")
    with activations_of(checkpoint, Path(view.activations)) as activations:
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
    """`what`: of which numbers."""
    out = view.source == "activations" and view.role == "output"
    channel = "output channel" if out else "input channel"
    return HeatMap(
        title=" · ".join(filter(None, (view.role, f"{METRICS[view.metric]} by {channel}", what))),
        x=Axis(name=channel, counts=True),
        y=Axis(name="block", counts=True),
        z=Axis(name=METRICS[view.metric]),
        height=blocks,
        width=width,
    )
