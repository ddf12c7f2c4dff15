"""One tensor of the output: where its rows come from."""

from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING

import numpy as np

from engine.api.formats import FORMATS
from engine.api.model import Role

if TYPE_CHECKING:
    from engine.checkpoint import Checkpoint


@dataclass(frozen=True, eq=False)
class OutputTensor:
    """A tensor of the file, `shape` in NumPy's order (GGUF stores it reversed).

    Its rows are those of `sources` one behind the other (one source, or one an expert). With `order`
    (int64 [rows]; only for a matrix or vector of one source) row i is the source's row order[i].
    `values` (float32, of `shape`) holds a tensor that is computed, not stored; then `sources` is empty.
    `stored`: the type of the sources, "" where they differ or there are none; `copyable`: their bytes are
    those of a GGUF file.
    """

    name: str
    shape: tuple[int, ...]
    role: Role
    block: int | None
    sources: tuple[str, ...]
    order: np.ndarray | None = None
    values: np.ndarray | None = None
    stored: str = ""
    copyable: bool = False

    def read_stored(self, checkpoint: "Checkpoint", start: int, stop: int) -> np.ndarray:
        """The bytes of rows start..stop as the source has them, uint8 [rows, bytes of a row]."""
        tensor = checkpoint.tensors[self.sources[0]]
        row = FORMATS[self.stored].row_bytes(self.shape[-1])
        data = np.empty((stop - start, row), np.uint8)
        checkpoint.read_bytes(tensor, start * row, data)
        return data

    def read(self, checkpoint: "Checkpoint", start: int, stop: int, *, halves: bool = False) -> np.ndarray:
        """Rows start..stop of the tensor seen as [prod(shape[:-1]), shape[-1]], float32, C-contiguous.

        `halves`: what is stored in 16 bits comes so (`Checkpoint.read_halves`), if all of the tensor is.
        Reads no more than the rows from the first to the last needed.
        """
        columns = self.shape[-1]
        if self.values is not None:
            return np.ascontiguousarray(self.values.reshape(-1, columns)[start:stop])
        alike = len({checkpoint.tensors[source].dtype for source in self.sources}) == 1
        halves = halves and alike
        stored = checkpoint.read_halves if halves else checkpoint.read
        if len(self.shape) == 1:
            vector = stored(self.sources[0])
            return (vector if self.order is None else vector[self.order])[None][start:stop]
        if self.order is not None:
            wanted = self.order[start:stop]
            first = int(wanted.min())
            return stored(self.sources[0], slice(first, int(wanted.max()) + 1))[wanted - first]
        height = prod(self.shape[:-1]) // len(self.sources)
        parts = []
        for index in range(start // height, -(-stop // height)):
            begin, end = max(start - index * height, 0), min(stop - index * height, height)
            parts.append(checkpoint.read_matrix(self.sources[index], begin, end, halves=halves))
        return parts[0] if len(parts) == 1 else np.concatenate(parts)
