"""Importance matrices: how strongly each input column of a matrix is used, measured on a text.

For each tensor the sum of squares of what was multiplied with each of its columns, and the number of tokens
that were summed. A stack of experts has a row of sums and a count for each expert. Means, sums over counts,
are what quantizing weighs errors with; sums add up where several matrices are merged.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from engine.api.errors import CalibrationError

CHUNK = 512
"""Tokens of a window where a file does not say, as in the older format: llama-imatrix's default."""


@dataclass(frozen=True)
class Entry:
    """One tensor's `sums` float32 [matrices, columns] of squares, and `counts` int64 [matrices] of tokens."""

    sums: np.ndarray
    counts: np.ndarray

    def shaped(self, matrices: int, columns: int) -> "Entry | None":
        """The same for a tensor of so many matrices and columns; None where it is another tensor's.

        Older files hold the sums of all experts in one row, and one count for all; an expert that saw no
        token has the same value in all columns there.
        """
        if self.sums.shape == (matrices, columns):
            return self
        if len(self.sums) != 1 or self.sums.size != matrices * columns:
            return None
        sums = self.sums.reshape(matrices, columns)
        alike = (sums == sums[:, :1]).all(axis=1) & (columns > 1)
        return Entry(sums, np.where(alike, 0, self.counts))

    @property
    def unseen(self) -> np.ndarray:
        """int64: the numbers of the matrices that saw no token, or nothing but zeros."""
        return np.flatnonzero((self.counts <= 0) | ~(self.sums > 0).any(axis=1))

    def means(self) -> np.ndarray:
        """Mean square of each column, float32 [matrices, columns]; 1 in the matrices that saw no token."""
        means = self.sums / np.maximum(self.counts, 1)[:, None].astype(np.float32)
        means[self.unseen] = 1
        return means

    def means_of(self, matrix: int) -> np.ndarray | None:
        """The row of `means` of one matrix; None where it is one of the `unseen`: nothing is known of it."""
        sums, count = self.sums[matrix], self.counts[matrix]
        return sums / np.float32(count) if count > 0 and (sums > 0).any() else None


@dataclass
class Importance:
    """Entries by canonical tensor name, and what they were made from.

    `datasets`: names of texts; `chunks`: windows of `chunk_size` tokens that were seen.
    """

    entries: dict[str, Entry]
    datasets: list[str] = field(default_factory=list)
    chunks: int = 0
    chunk_size: int = CHUNK


def merged(parts: Sequence[Importance], names: Sequence[str]) -> Importance:
    """The matrix of all the texts that `parts` were made from: sums, counts and windows added up.

    `names` say in errors which part is meant. Raises `CalibrationError` where they are of different models.
    """
    found = Importance({}, chunk_size=parts[0].chunk_size)
    where: dict[str, str] = {}
    for part, name in zip(parts, names, strict=True):
        for tensor, entry in part.entries.items():
            known = found.entries.get(tensor)
            found.entries[tensor] = entry if known is None else _added(tensor, known, entry, where, name)
            where.setdefault(tensor, name)
        if part.chunk_size != found.chunk_size:
            raise CalibrationError(
                f"{name} was made with windows of {part.chunk_size} tokens and {names[0]} with windows of "
                f"{found.chunk_size}: merge matrices of windows of one length."
            )
        found.chunks += part.chunks
        found.datasets += [dataset for dataset in part.datasets if dataset not in found.datasets]
    return found


def _added(tensor: str, first: Entry, second: Entry, where: dict[str, str], name: str) -> Entry:
    shape = max(first.sums.shape, second.sums.shape)  # an older file has fewer rows, which are longer
    a, b = first.shaped(*shape), second.shaped(*shape)
    if a is None or b is None:
        raise CalibrationError(
            f"{name}: {tensor} has {_size(second)} values, and {_size(first)} in {where[tensor]}: they were "
            "made for different models and cannot be merged."
        )
    sums = (a.sums.astype(np.float64) + b.sums).astype(np.float32)
    return Entry(sums, a.counts + b.counts)


def _size(entry: Entry) -> str:
    return f"{entry.sums.shape[0]} × {entry.sums.shape[1]:,}"
