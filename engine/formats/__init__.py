"""How codes are stored: the grids, one file a family. They know nothing of the methods that choose codes."""

import numpy as np

from engine.api.formats import DEFAULT_EFFORT, EFFORTS, FORMATS, METHODS
from engine.formats.codes import Codes, Lattice, Table
from engine.formats.floats import FLOATS, FloatFormat
from engine.formats.grid import Grid, Scales
from engine.formats.lattices import LATTICES
from engine.formats.one_bit import ONE_BIT
from engine.formats.plain import PLAIN
from engine.formats.super_blocks import SUPER_BLOCKS
from engine.formats.tables import TABLES
from engine.formats.ternary import TERNARY

__all__ = ["Codes", "Grid", "Lattice", "Scales", "Table", "decode", "format_of", "refuse_pair"]

_FORMATS: dict[str, Grid | FloatFormat] = {
    form.name: form for form in (*FLOATS, *PLAIN, *SUPER_BLOCKS, *TABLES, *LATTICES, *ONE_BIT, *TERNARY)
}


def format_of(name: str) -> Grid | FloatFormat:
    """The grid or floating-point format of that name, one of `engine.api.formats.FORMATS`."""
    return _FORMATS[name]


def decode(data: np.ndarray, format_name: str, columns: int) -> np.ndarray:
    """The weights that stored bytes stand for, float32 [rows, columns]; data is uint8 [rows, row bytes].

    Equal to the bit to `gguf.quants.dequantize`. Raises ValueError where the bytes are not `columns` wide.
    """
    if data.shape[1] != FORMATS[format_name].row_bytes(columns):
        raise ValueError(f"{data.shape[1]} bytes are not a row of {columns} weights in {format_name}")
    form = format_of(format_name)
    if isinstance(form, FloatFormat):
        return form.decode(data)
    return form.values(*form.unpack(data))


def refuse_pair(method: str, format_name: str, effort: str = DEFAULT_EFFORT) -> str | None:
    """Why this method cannot choose codes for this format, as a sentence; None where it can.

    Both methods so far work on every grid; on floating-point formats both round to nearest.
    """
    if format_name not in FORMATS:
        return f"There is no format {format_name!r}; choose one of {', '.join(FORMATS)}."
    if method not in METHODS:
        return f"There is no method {method!r}; choose one of {', '.join(METHODS)}."
    if effort not in EFFORTS:
        return f"There is no effort {effort!r}; choose one of {', '.join(EFFORTS)}."
    return None
