"""What a prompt puts into one matrix, token by token; and what a recipe makes wrong of what comes out."""

from collections.abc import Iterator

import numpy as np

from engine.api.errors import FigureError
from engine.api.figures import Axis, HeatMap
from engine.api.views import PictureOf
from engine.checkpoint import Checkpoint
from engine.figures.drawn import Drawn, Refresh, Wanted
from engine.figures.inputs import Inputs, inputs_of
from engine.figures.pooling import pooled
from engine.figures.tensors import find_tensor, part_of
from engine.quantized_weights import Quantized, quantized


def activation_picture(checkpoint: Checkpoint, view: PictureOf, wanted: Wanted) -> Iterator[Drawn]:
    """Tokens x input channels of the inputs, or tokens x output channels of the outputs' errors.

    The errors are those of the inputs times what is wrong of the weights: the full-precision model's inputs,
    this matrix alone quantized. Raises `FigureError`, and what encoding raises.
    """
    if view.what == "code":
        raise FigureError("A recipe does not quantize activations: they have no codes.")
    tensor = find_tensor(checkpoint, view.tensor)
    inputs = inputs_of(checkpoint, view.activations, tensor)
    if view.what == "value":
        title = f"{view.tensor} · inputs"
        figure = _figure(view, inputs, inputs.values.shape[1], title, "input channel", "input")
        yield _drawn(figure, inputs.values[figure.first_row :, figure.first_column :], 1, 1)
        return
    if view.recipe is None:
        raise FigureError(f"The error of {view.tensor} depends on a format: choose a recipe.")
    made = quantized(checkpoint, view.recipe, tensor.name)
    title = f"{view.tensor} · errors of the outputs · {made.format}"
    height = made.lines // inputs.stacked
    figure = _figure(view, inputs, height, title, "output channel", "error of the output")
    yield from _errors(figure, inputs, made, wanted)


def _figure(view: PictureOf, inputs: Inputs, columns: int, title: str, channel: str, what: str) -> HeatMap:
    rows = len(inputs.values)
    first_row, stop_row = part_of(view.first_row, view.stop_row, rows, f"tokens reach {view.tensor}")
    first, stop = part_of(view.first_column, view.stop_column, columns, f"{channel}s of {view.tensor}")
    row_step = -(-(stop_row - first_row) // view.height)
    column_step = -(-(stop - first) // view.width)
    return HeatMap(
        title=title,
        x=Axis(name=channel, counts=True),
        y=Axis(name="token", counts=True),
        z=Axis(name=what),
        height=-(-(stop_row - first_row) // row_step),
        width=-(-(stop - first) // column_step),
        signed=True,
        rows=inputs.names[first_row:stop_row] if row_step == 1 else [],
        first_row=first_row,
        stop_row=stop_row,
        row_step=row_step,
        first_column=first,
        stop_column=stop,
        column_step=column_step,
    )


def _errors(figure: HeatMap, inputs: Inputs, made: Quantized, wanted: Wanted) -> Iterator[Drawn]:
    first, stop = figure.first_column, figure.stop_column or 0
    height = made.lines // inputs.stacked
    rows = slice(figure.first_row, figure.stop_row)
    values, matrices = inputs.values[rows], inputs.matrices[rows]
    found = np.full((len(values), stop - first), np.nan, np.float32)
    refresh, done, total = Refresh(), 0, len(np.unique(inputs.matrices)) * (stop - first)
    for matrix, piece in inputs.lines(made, wanted, first, stop):
        own = matrices == matrix
        begin, end = (line - matrix * height - first for line in (piece.start, piece.stop))
        found[own, begin:end] = values[own] @ (piece.values - piece.weights).T
        done += end - begin
        if done == total or refresh.due():
            yield _drawn(figure, found, done, total)


def _drawn(figure: HeatMap, values: np.ndarray, done: int, total: int) -> Drawn:
    """`values`: from the figure's first row and column on."""
    rows = (figure.stop_row or 0) - figure.first_row
    columns = (figure.stop_column or 0) - figure.first_column
    row_starts = np.arange(0, rows, figure.row_step)
    cells = pooled(values[:rows, :columns], row_starts, np.arange(0, columns, figure.column_step))
    return Drawn(figure, np.ascontiguousarray(cells), done, total, last=done == total)
