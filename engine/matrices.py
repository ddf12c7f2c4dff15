"""Tensors of the source seen as matrices: as they are stored, or by their channels.

As a matrix a tensor is [prod(shape[:-1]), shape[-1]]; one axis is one row. A row is an output channel and a
column an input channel, but in GPT-2's matrices, which transformers stores transposed. Whatever speaks of
channels has them in lines instead: [output channels, input channels], as in GGUF.
"""

from collections.abc import Iterator
from math import prod

import numpy as np

from engine.architectures import UnknownArchitectureError, architecture_of
from engine.checkpoint import Checkpoint, Tensor
from engine.checkpoint.names import text_name

PIECE = 1 << 19
"""Weights that are read at a time."""


def is_transposed(checkpoint: Checkpoint, tensor: Tensor) -> bool:
    """Whether its rows are input channels. Of an architecture that is not known here they are not."""
    if checkpoint.kind == "gguf" or tensor.canonical is None:
        return False
    try:
        weights = architecture_of(checkpoint).weights
    except UnknownArchitectureError:
        return False
    names = (weight.canonical.format(block=tensor.block) for weight in weights if weight.transposed)
    return tensor.canonical in names


def canonical_parts(checkpoint: Checkpoint, tensor: Tensor) -> list[str]:
    """GGUF's names of the several tensors that it has for this one; none where it has one or none."""
    try:
        architecture = architecture_of(checkpoint)
    except UnknownArchitectureError:
        return []
    return architecture.stacked_in(text_name(tensor.name), tensor.block)


def matrix_shape(tensor: Tensor) -> tuple[int, int]:
    """Rows and columns, as it is stored."""
    return prod(tensor.shape[:-1]), tensor.shape[-1] if tensor.shape else 1


def lines_shape(checkpoint: Checkpoint, tensor: Tensor) -> tuple[int, int]:
    """Output channels and input channels."""
    rows, columns = matrix_shape(tensor)
    return (columns, rows) if is_transposed(checkpoint, tensor) else (rows, columns)


def read_rows(
    checkpoint: Checkpoint, tensor: Tensor, start: int, stop: int, *, halves: bool = False
) -> np.ndarray:
    """Rows as they are stored; see `Checkpoint.read_matrix`."""
    if len(tensor.shape) > 1:
        return checkpoint.read_matrix(tensor.name, start, stop, halves=halves)
    read = checkpoint.read_halves if halves else checkpoint.read
    return read(tensor.name).reshape(1, -1)[start:stop]


def pieces(
    checkpoint: Checkpoint, tensor: Tensor, first: int, last: int, *, most: int = PIECE, halves: bool = False
) -> Iterator[tuple[int, np.ndarray]]:
    """Rows first .. last in pieces of at most `most` weights, but at least a row, each with its first row."""
    step = max(1, most // max(1, matrix_shape(tensor)[1]))
    for start in range(first, last, step):
        yield start, read_rows(checkpoint, tensor, start, min(start + step, last), halves=halves)


def read_lines(checkpoint: Checkpoint, tensor: Tensor, start: int, stop: int) -> np.ndarray:
    """Output channels start .. stop, float32 [lines, input channels]; of a transposed tensor all is read."""
    if not is_transposed(checkpoint, tensor):
        return read_rows(checkpoint, tensor, start, stop)
    found = np.empty((stop - start, matrix_shape(tensor)[0]), np.float32)
    for first, rows in pieces(checkpoint, tensor, 0, found.shape[1]):
        found[:, first : first + len(rows)] = rows[:, start:stop].T
    return found
