"""Tensors of the source seen as matrices: as they are stored, or by their channels.

As a matrix a tensor is [prod(shape[:-1]), shape[-1]]; one axis is one row. A row is an output channel and a
column an input channel, but in GPT-2's matrices, which transformers stores transposed. Whatever speaks of
channels has them in lines instead: [output channels, input channels], as in GGUF.
"""

from collections.abc import Iterator
from math import prod

import numpy as np

from engine.architectures import known_architecture
from engine.checkpoint import Checkpoint, Tensor
from engine.checkpoint.errors import NonFiniteError
from engine.checkpoint.names import text_name

PIECE = 1 << 19
"""Weights that are read at a time."""


def is_transposed(checkpoint: Checkpoint, tensor: Tensor) -> bool:
    """Whether its rows are input channels. Of an architecture that is not known here they are not."""
    if checkpoint.kind == "gguf" or tensor.canonical is None:
        return False
    known = known_architecture(checkpoint)
    transposed = [weight for weight in known.weights if weight.transposed] if known else []
    return tensor.canonical in (weight.canonical.format(block=tensor.block) for weight in transposed)


def canonical_parts(checkpoint: Checkpoint, tensor: Tensor) -> list[str]:
    """GGUF's names of the several tensors that it has for this one; none where it has one or none."""
    known = known_architecture(checkpoint)
    return known.stacked_in(text_name(tensor.name), tensor.block) if known else []


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


def refuse_not_finite(checkpoint: Checkpoint, tensor: Tensor, values: np.ndarray) -> None:
    """Raise a `NonFiniteError` where not all `values` of a tensor are numbers."""
    if not np.isfinite(values).all():
        raise not_finite(checkpoint, tensor)


def not_finite(checkpoint: Checkpoint, tensor: Tensor) -> NonFiniteError:
    """That a tensor holds weights that are no numbers."""
    return NonFiniteError(
        f"{tensor.name} of {checkpoint.path} holds NaN or infinity: the model is damaged; download it again."
    )
