"""One tensor of the output: where its rows come from."""

from collections.abc import Callable
from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING

import numpy as np

from engine.api.formats import LAYOUTS
from engine.api.model import Role

if TYPE_CHECKING:
    from engine.checkpoint import Checkpoint

BLOCK = 4 << 20
"""Bytes in float32 of a transposed source that are held at a time."""


@dataclass(frozen=True, eq=False)
class OutputTensor:
    """A tensor of the file, `shape` in NumPy's order (GGUF stores it reversed).

    Its rows are those of `sources` one behind the other (one source, or one an expert). With `order`
    (int64 [rows]; only for a matrix or vector of one source) row i is the source's row order[i].
    With `part` (first, height) each matrix is the rows from `first` on of one of `height` rows in the source.
    `transposed`: the one source is the transpose of the tensor. `plus` is added to every value.
    `values` (float32, of `shape`) holds a tensor that is computed, not stored; then `sources` is empty.
    `stored`: the type of the sources, "" where they differ or there are none; `copyable`: their bytes are
    those of a GGUF file. `fixed`: the only format that it can have ("": as the recipe says).
    """

    name: str
    shape: tuple[int, ...]
    role: Role
    block: int | None
    sources: tuple[str, ...]
    order: np.ndarray | None = None
    part: tuple[int, int] | None = None
    transposed: bool = False
    plus: float = 0.0
    values: np.ndarray | None = None
    stored: str = ""
    copyable: bool = False
    fixed: str = ""

    def read_stored(self, checkpoint: "Checkpoint", start: int, stop: int) -> np.ndarray:
        """The bytes of rows start..stop as the source has them, uint8 [rows, bytes of a row]."""
        tensor = checkpoint.tensors[self.sources[0]]
        row = LAYOUTS[self.stored].row_bytes(self.shape[-1])
        data = np.empty((stop - start, row), np.uint8)
        checkpoint.read_bytes(tensor, start * row, data)
        return data

    def read(self, checkpoint: "Checkpoint", start: int, stop: int, *, halves: bool = False) -> np.ndarray:
        """Rows start..stop of the tensor seen as [prod(shape[:-1]), shape[-1]], float32, C-contiguous.

        `halves`: what is stored in 16 bits comes so (`Checkpoint.read_halves`), if all of the tensor is and
        nothing is added. Reads no more than the rows from the first to the last needed; of a transposed
        source all rows, `BLOCK` bytes of them at a time.
        """
        if self.values is not None:
            return np.ascontiguousarray(self.values.reshape(-1, self.shape[-1])[start:stop])
        alike = len({checkpoint.tensors[source].dtype for source in self.sources}) == 1
        halves = halves and alike and not self.plus
        rows = self._stored_rows(checkpoint, start, stop, halves)
        return rows + np.float32(self.plus) if self.plus else rows

    def _stored_rows(self, checkpoint: "Checkpoint", start: int, stop: int, halves: bool) -> np.ndarray:
        stored = checkpoint.read_halves if halves else checkpoint.read
        if len(self.shape) == 1:
            vector = stored(self.sources[0])
            return (vector if self.order is None else vector[self.order])[None][start:stop]
        if self.transposed:
            return self._columns(stored, start, stop)
        if self.order is not None:
            wanted = self.order[start:stop]
            first = int(wanted.min())
            return stored(self.sources[0], slice(first, int(wanted.max()) + 1))[wanted - first]
        if self.part is not None:
            return self._rows_of_part(checkpoint, start, stop, halves)
        height = prod(self.shape[:-1]) // len(self.sources)
        parts = []
        for index in range(start // height, -(-stop // height)):
            begin, end = max(start - index * height, 0), min(stop - index * height, height)
            if len(self.shape) == 2 and len(self.sources) > 1:
                parts.append(stored(self.sources[index])[None])  # one vector a row
            else:
                parts.append(checkpoint.read_matrix(self.sources[index], begin, end, halves=halves))
        return parts[0] if len(parts) == 1 else np.concatenate(parts)

    def _rows_of_part(self, checkpoint: "Checkpoint", start: int, stop: int, halves: bool) -> np.ndarray:
        assert self.part is not None, "asked for only then"
        first, whole = self.part
        height = self.shape[-2]
        found = []
        for index in range(start // height, -(-stop // height)):
            before = index * whole + first
            begin, end = max(start - index * height, 0), min(stop - index * height, height)
            found.append(checkpoint.read_matrix(self.sources[0], before + begin, before + end, halves=halves))
        return found[0] if len(found) == 1 else np.concatenate(found)

    def _columns(self, stored: Callable[[str, slice], np.ndarray], start: int, stop: int) -> np.ndarray:
        """Columns start..stop of the source as rows."""
        rows, columns = self.shape
        step = max(1, BLOCK // (4 * rows))
        blocks = (slice(first, min(first + step, columns)) for first in range(0, columns, step))
        wanted = slice(start, stop) if self.order is None else self.order[start:stop]
        result = np.empty(0)
        for block in blocks:
            part = stored(self.sources[0], block)[:, wanted]
            if not result.size:
                result = np.empty((stop - start, columns), part.dtype)
            result[:, block] = part.T
        return result
