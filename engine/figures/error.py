"""What a recipe loses of one tensor, by channel or by group."""

from collections.abc import Iterator

import numpy as np

from engine.api.errors import FigureError
from engine.api.figures import Axis, Figure, HeatMap, Series
from engine.api.views import ErrorOf
from engine.checkpoint import Checkpoint
from engine.figures.drawn import Drawn, Wanted
from engine.figures.pooling import pooled
from engine.figures.tensors import find_tensor
from engine.quantization_errors import Quantized, errors_of, measure_errors, quantized

MOST_BINS = 4096
"""More channels share bins, each as high as the worst of its channels."""

MOST_CELLS = 1 << 23
"""Of a heat map; more rows share cells."""

LOST = "squared error over the mean"
"""Over the mean of the channels' or groups' squared weights: see `Errors`."""


def error_of(checkpoint: Checkpoint, view: ErrorOf, wanted: Wanted) -> Iterator[Drawn]:
    """What `view` asks for. Raises `FigureError`, and what encoding the tensor raises."""
    tensor = find_tensor(checkpoint, view.tensor)
    made = quantized(checkpoint, view.recipe, tensor.name)
    found = measure_errors(made, wanted) if view.scope == "group" else errors_of(made, wanted)
    if found is None:
        return
    refuse_lossless(view.tensor, made, found.whole.squared)
    scope = "group" if view.scope == "group" else f"{view.scope} channel"
    title = f"{view.tensor} · error by {scope} · {made.format}"
    if view.scope == "group" and found.by_group is not None:
        yield _by_group(title, made, found.by_group)
        return
    values = found.by_output if view.scope == "output" else found.by_input
    yield Drawn(by_channel(title, scope, values, LOST, []), None, 1, 1, last=True)


def refuse_lossless(tensor: str, made: Quantized, lost: float) -> None:
    """Raise a `FigureError` where nothing is `lost`."""
    if not lost:
        raise FigureError(f"Nothing is lost of {tensor} as {made.format}: there are no errors to show.")


def by_channel(title: str, scope: str, values: np.ndarray, lost: str, names: list[str]) -> Figure:
    """`values` float64 [channels]: what is `lost` of each. `names`: of tokens."""
    step = -(-len(values) // MOST_BINS)
    starts = np.arange(0, len(values), step)
    worst = np.maximum.reduceat(values, starts)
    name = lost if step == 1 else f"{lost}, of {step} channels the largest"
    series = Series(name=lost, x=starts.tolist(), y=worst.tolist(), width=step)
    axis = Axis(name=scope, counts=True)
    return Figure(title=title, x=axis, y=Axis(name=name), series=[series], names=names)


def _by_group(title: str, made: Quantized, values: np.ndarray) -> Drawn:
    """`values`: float32 [output channels, groups]."""
    rows, groups = values.shape
    step = -(-rows * groups // MOST_CELLS)
    cells = pooled(values, np.arange(0, rows, step), np.arange(groups))
    figure = HeatMap(
        title=title,
        x=Axis(name=f"group of {made.group} input channels", counts=True),
        y=Axis(name="output channel", counts=True),
        z=Axis(name=LOST),
        height=len(cells),
        width=groups,
        row_step=step,
        stop_row=rows,
        column_borders=made.block // made.group,
    )
    return Drawn(figure, cells, 1, 1, last=True)
