"""One matrix as a picture: its values, what a format makes wrong of them, or the codes that it stores."""

from collections.abc import Callable, Iterator

import numpy as np

from engine.api.errors import FigureError
from engine.api.figures import Axis, HeatMap
from engine.api.formats import FORMATS
from engine.api.views import PictureOf
from engine.checkpoint import Checkpoint, Tensor
from engine.figures.drawn import Drawn, Refresh, Wanted
from engine.figures.pooling import pooled
from engine.figures.tensors import find_tensor, part_of, runs
from engine.formats import Grid, format_of
from engine.matrices import lines_shape, read_lines, refuse_not_finite
from engine.quantization_errors import Quantized, quantized

NAMES = {"value": "weight", "error": "error", "code": "code"}


def picture_of(checkpoint: Checkpoint, view: PictureOf, wanted: Wanted) -> Iterator[Drawn]:
    """The part that `view` asks for, filled from the first row on. Raises `FigureError`."""
    tensor = find_tensor(checkpoint, view.tensor)
    rows, columns = lines_shape(checkpoint, tensor)
    first_row, stop_row = part_of(view.first_row, view.stop_row, rows, f"rows of {view.tensor}")
    first, stop = part_of(view.first_column, view.stop_column, columns, f"columns of {view.tensor}")
    row_step = -(-(stop_row - first_row) // view.height)
    column_step = -(-(stop - first) // view.width)
    made = _made(checkpoint, tensor, view)
    figure = HeatMap(
        title=_title(view, made),
        x=Axis(name="input channel", counts=True),
        y=Axis(name="output channel", counts=True),
        z=Axis(name=NAMES[view.what], counts=view.what == "code"),
        height=-(-(stop_row - first_row) // row_step),
        width=-(-(stop - first) // column_step),
        signed=view.what != "code" or (made is not None and made.signed),
        first_row=first_row,
        stop_row=stop_row,
        row_step=row_step,
        first_column=first,
        stop_column=stop,
        column_step=column_step,
        column_borders=made.group if made else _stored_group(tensor),
    )
    read = _reader(checkpoint, tensor, view, made)
    values = np.full((figure.height, figure.width), np.nan, np.float32)
    refresh = Refresh()
    for start, end in runs(first_row, stop_row, columns, row_step):
        if not wanted():
            return
        part = read(start, end)[:, first:stop]
        cells = pooled(part, np.arange(0, end - start, row_step), np.arange(0, stop - first, column_step))
        place = (start - first_row) // row_step
        values[place : place + len(cells)] = cells
        if end == stop_row or refresh.due():
            yield Drawn(figure, values.copy(), end - first_row, stop_row - first_row, last=end == stop_row)


def _made(checkpoint: Checkpoint, tensor: Tensor, view: PictureOf) -> Quantized | None:
    if view.recipe is None:
        if view.what != "value":
            raise FigureError(f"The {view.what} of {view.tensor} depends on a format: choose a recipe.")
        return None
    return quantized(checkpoint, view.recipe, tensor.name)


def _title(view: PictureOf, made: Quantized | None) -> str:
    if view.what == "value" or made is None:
        return f"{view.tensor} · weights"
    return f"{view.tensor} · {NAMES[view.what]}s · {made.format}"


def _reader(
    checkpoint: Checkpoint, tensor: Tensor, view: PictureOf, made: Quantized | None
) -> Callable[[int, int], np.ndarray]:
    """What gives the output channels from start to stop, float32 [rows, columns]."""
    if view.what == "value" or made is None:
        return lambda start, stop: _weights(checkpoint, tensor, start, stop)
    if view.what == "error":
        return lambda start, stop: made.values(start, stop) - read_lines(checkpoint, tensor, start, stop)
    return lambda start, stop: made.codes(start, stop).astype(np.float32)


def _weights(checkpoint: Checkpoint, tensor: Tensor, start: int, stop: int) -> np.ndarray:
    """Raises `NonFiniteError`."""
    rows = read_lines(checkpoint, tensor, start, stop)
    refuse_not_finite(checkpoint, tensor, rows)
    return rows


def _stored_group(tensor: Tensor) -> int:
    """How many weights share a scale as the source stores them; 0: none."""
    form = format_of(tensor.dtype) if tensor.dtype in FORMATS else None
    return form.group if isinstance(form, Grid) else 0
